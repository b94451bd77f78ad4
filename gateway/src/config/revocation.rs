//! The revocation lists of a listener or backend: read, verified against its authorities, and asked how old they may become.
//! In: `crl`, `crl_grace`, `dangerous_accept_stale_crl`, and the policies that lists have of their own. Out: one `Revocation`,
//! or errors at the path's line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_core::limits;
use gateway_core::revocation::{
    AuthorityId, IssuerList, Kinds, Link, Rank, Revocation, Serial, StalePolicy,
};
use gateway_x509::crl;
use gateway_x509::crl_ranks;
use gateway_x509::is_same_name;
use gateway_x509::signed::Signed;
use gateway_x509::{authority_id, authority_key};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::X509Certificate;

use super::credentials::{Authorities, shown_time};
use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawListEntry, RawLists, Text};
use super::reread::{ListFile, ListFiles, Revoking};
use super::scalar;
use super::value::{Field, Spanned};

/// The keys as written.
pub struct RawRevocation {
    /// The key that the authorities stand under.
    pub authorities_key: &'static str,
    pub crl: Field<RawLists>,
    pub grace: Field<Text>,
    pub dangerous_accept_stale: Field<bool>,
}

/// A list to load: its file, where that is named, and what happens when it has become too old.
#[derive(Debug, Clone)]
struct NamedList {
    location: Location,
    key: &'static str,
    file: Spanned<Text>,
    policy: StalePolicy,
}

/// A list that has been loaded, to be compared with all others of the configuration.
#[derive(Debug)]
pub struct LoadedList {
    named: NamedList,
    /// The listener or backend.
    owner: String,
    path: PathBuf,
    issuer: AuthorityId,
    /// Without its entries.
    list: IssuerList,
}

impl LoadedList {
    fn is_about_the_same(&self, other: &LoadedList) -> bool {
        self.issuer == other.issuer && self.list.scope() == other.list.scope()
    }
}

/// Loads all lists. A list that has ended is no error: it refuses by the policy, and the operator is told.
pub fn check(
    location: &Location,
    written: RawRevocation,
    authorities: &mut Authorities,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Arc<Revocation>, Revoking)> {
    let named = name_all(location, &written, diagnostics)?;
    let files = named.iter().flatten().map(|list| ListFile {
        path: diagnostics.resolve(&list.file.value),
        policy: list.policy,
    });
    let lists = ListFiles {
        location: location.label.clone(),
        files: files.collect(),
    };
    diagnostics.revokes(lists.clone());
    let revoking = Revoking {
        authorities: authorities.clone(),
        lists,
    };
    if named.is_empty() {
        return Some((Arc::default(), revoking));
    }
    let mut loaded = Vec::new();
    for list in named {
        let owner = &location.label;
        let verified = list.and_then(|list| load(&list, owner, authorities, provider, diagnostics));
        loaded.push(verified);
    }
    let sound = loaded.iter().all(Option::is_some);
    let algorithms = &provider.signature_verification_algorithms;
    let lists = loaded.into_iter().flatten().flatten().collect();
    let (revocation, revoked) = assemble(authorities, lists, algorithms);
    let key = location.key(written.authorities_key);
    for (info, revoked) in authorities.infos.iter().zip(&revoked) {
        if *revoked {
            let text = format!("{} is named by a revocation list: not used", info.subject);
            diagnostics.warn(location.line, &key, text);
        }
    }
    *authorities = std::mem::take(authorities).without(&revoked);
    if sound {
        warn_of_gaps(location, authorities, &revocation, diagnostics);
    }
    sound.then(|| (Arc::new(revocation), revoking))
}

/// The elements of `crl`, each with its policy; none where there is no `crl`.
fn name_all(
    location: &Location,
    written: &RawRevocation,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<Option<NamedList>>> {
    let (grace, dangerous) = (
        written.grace.clone(),
        written.dangerous_accept_stale.clone(),
    );
    let keys = ("crl_grace", "dangerous_accept_stale_crl");
    let policy = stale_policy(
        location,
        keys,
        (grace.clone(), dangerous.clone()),
        diagnostics,
    )?;
    let lists = match written.crl.clone() {
        Field::Absent => {
            let useless = "has no effect without crl: name the lists, or remove it";
            if let Some(item) = grace.given() {
                diagnostics.wrong(location, keys.0, &item, useless);
            }
            if let Some(item) = dangerous.given() {
                diagnostics.wrong(location, keys.1, &item, useless);
            }
            return Some(Vec::new());
        }
        given => given.given()?,
    };
    if lists.value.is_empty() {
        let expectation = "must name at least one list, or be left out";
        diagnostics.wrong(location, "crl", &lists, expectation);
    }
    let named = lists.value.into_iter();
    Some(
        named
            .map(|written| name_list(location, written, policy, diagnostics))
            .collect(),
    )
}

/// Warns of CAs whose clients will be refused because no list says whether they have been revoked.
fn warn_of_gaps(
    location: &Location,
    authorities: &Authorities,
    revocation: &Revocation,
    diagnostics: &mut Diagnostics<'_>,
) {
    for (root, info) in authorities.roots.roots.iter().zip(&authorities.infos) {
        let authority = authority_id(root);
        let subject = &info.subject;
        let text = match [Kinds::EndEntities, Kinds::Authorities]
            .map(|kinds| revocation.has_list(authority, kinds))
        {
            [true, true] => continue,
            [false, false] => format!(
                "there is no list of {subject}: certificates that it issued, itself or through a CA below it that is \
                 not named here, are refused (crl_stale)"
            ),
            [true, false] => format!(
                "the lists of {subject} do not cover CAs (onlyContainsUserCerts): certificates issued through a CA \
                 below it that is not named here are refused (crl_stale)"
            ),
            [false, true] => format!(
                "the lists of {subject} cover CAs only (onlyContainsCACerts): certificates that it issued itself are \
                 refused (crl_stale)"
            ),
        };
        diagnostics.warn(location.line, &location.key("crl"), text);
    }
}

/// An element of `crl` with its policy: its own where it states one, otherwise that of all.
fn name_list(
    location: &Location,
    written: RawListEntry,
    of_all: StalePolicy,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<NamedList> {
    let raw = match written {
        RawListEntry::Path(file) => {
            return Some(NamedList {
                location: location.clone(),
                key: "crl",
                file,
                policy: of_all,
            });
        }
        RawListEntry::Table(raw) => raw,
    };
    let states_none = matches!(
        (&raw.grace, &raw.dangerous_accept_stale),
        (Field::Absent, Field::Absent)
    );
    let keys = ("grace", "dangerous_accept_stale");
    let own = stale_policy(
        &raw.location,
        keys,
        (raw.grace, raw.dangerous_accept_stale),
        diagnostics,
    );
    if matches!(raw.file, Field::Absent) {
        diagnostics.missing(&raw.location, "file", "name the file of the list");
    }
    Some(NamedList {
        file: raw.file.given()?,
        policy: if states_none { of_all } else { own? },
        location: raw.location,
        key: "file",
    })
}

/// The lists of one file.
fn load(
    list: &NamedList,
    owner: &str,
    authorities: &Authorities,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<(AuthorityId, IssuerList)>> {
    let path = diagnostics.resolve(&list.file.value);
    let algorithms = &provider.signature_verification_algorithms;
    let now = diagnostics.now;
    let issuers = authorities.list_issuers();
    let found = match crl::load(&path, &issuers, algorithms, list.policy, now) {
        Ok(found) => found,
        Err(error) => {
            if let Some(usable_from) = error.usable_from() {
                diagnostics.turns_at(usable_from);
            }
            diagnostics.wrong(&list.location, list.key, &list.file, error);
            return None;
        }
    };
    let key = list.location.key(list.key);
    let mut lists = Vec::new();
    for verified in found {
        if let Some(reason) = &verified.passed_over {
            let name = verified.list.issuer_name();
            let text = format_args!(
                "{:?}: the list of {name} is ignored, because that CA is not used: it {reason}",
                list.file.value
            );
            diagnostics.warn(list.file.line, &key, text);
            continue;
        }
        diagnostics.loaded_lists.push(LoadedList {
            named: list.clone(),
            owner: owner.to_owned(),
            path: path.clone(),
            issuer: verified.issuer,
            list: verified.list.without_entries(),
        });
        if verified.list.is_stale(now) {
            let ended = shown_time(verified.list.next_update(), now);
            let text = format_args!("{:?} has ended {ended}", list.file.value);
            diagnostics.warn(list.file.line, &key, text);
        }
        lists.push((verified.issuer, verified.list));
    }
    Some(lists)
}

/// Compares all lists, and refuses those that would admit revoked certificates again. Of each CA and scope the newest that
/// the configuration names counts: an older copy beside it takes nothing away from it. Returns the files of newer lists for
/// the listeners and backends that name older ones alone: what revokes acts there too.
pub fn compare_lists(diagnostics: &mut Diagnostics<'_>) -> Vec<ListFiles> {
    let mut newer_files = Vec::new();
    let loaded = std::mem::take(&mut diagnostics.loaded_lists);
    for one in &loaded {
        let alike = || loaded.iter().filter(|other| one.is_about_the_same(other));
        let newest = alike().max_by(|one, other| one.list.rank().compare(&other.list.rank()));
        let newest = newest.unwrap_or(one).list.rank();
        let known = |of: &LoadedList| diagnostics.known_lists.newer_than(of.issuer, &of.list);
        let all_are_older = alike().all(|other| known(other).is_some());
        if one.list.rank() != newest {
            let is_newest = |other: &LoadedList| other.list.rank() == newest;
            if !alike().any(|other| other.owner == one.owner && is_newest(other)) {
                let newer = alike().filter(|other| is_newest(other));
                newer.for_each(|newer| act_too(one, newer, &mut newer_files));
                let text = format_args!(
                    "{:?} is older than another list of {} that is named here and used in its place ({}; this one: {})",
                    one.named.file.value,
                    one.list.issuer_name(),
                    crl_ranks::shown(&newest),
                    crl_ranks::shown(&one.list.rank()),
                );
                let key = one.named.location.key(one.named.key);
                diagnostics.warn(one.named.file.line, &key, text);
            }
            continue;
        }
        let named = &mut loaded
            .iter()
            .map(|other| (other.issuer, other.list.scope()));
        let of_another_scope = diagnostics
            .known_lists
            .newer_of_another_scope(one.issuer, &one.list, named);
        let newer = known(one).filter(|_| all_are_older);
        if let Some(newer) = newer.or(of_another_scope) {
            refuse_older(one, &newer, diagnostics);
        }
    }
    newer_files
}

/// Names the file of a newer list to the listener or backend of an older one.
fn act_too(older: &LoadedList, newer: &LoadedList, files: &mut Vec<ListFiles>) {
    let file = ListFile {
        path: newer.path.clone(),
        policy: older.named.policy,
    };
    match files.iter_mut().find(|known| known.location == older.owner) {
        Some(known) => known.files.push(file),
        None => files.push(ListFiles {
            location: older.owner.clone(),
            files: vec![file],
        }),
    }
}

fn refuse_older(one: &LoadedList, newer: &Rank, diagnostics: &mut Diagnostics<'_>) {
    crl::count_refused();
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (configuration, file) = (whole(diagnostics.file()), whole(&one.path));
    let text = format_args!(
        "is older than the list of {} that was in force before ({}; this one: {}): it would admit revoked \
         certificates again; if that is meant, run `portcullis crl accept --config {} {}`",
        one.list.issuer_name(),
        crl_ranks::shown(newer),
        crl_ranks::shown(&one.list.rank()),
        configuration.display(),
        file.display(),
    );
    diagnostics.wrong(&one.named.location, one.named.key, &one.named.file, text);
}

/// All lists in one, and which of the authorities they name. A chain ends at the first trusted authority, so no verifier
/// would ask whether that one has been revoked: one that is named has to go. An authority is a name and a key. It stays as
/// long as one of its certificates does: a list names a certificate, not the key of it.
pub(super) fn assemble(
    authorities: &Authorities,
    lists: Vec<(AuthorityId, IssuerList)>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> (Revocation, Vec<bool>) {
    let mut revocation = Revocation::new(lists);
    let above: Vec<_> = authorities
        .certificates
        .iter()
        .map(|certificate| links_above(certificate, authorities, algorithms).unwrap_or_default())
        .collect();
    let is_revoked = |links: &Vec<Link>| links.iter().any(|link| revocation.is_named(link));
    let revoked: Vec<bool> = above.iter().map(is_revoked).collect();
    let ids: Vec<_> = authorities.roots.roots.iter().map(authority_id).collect();
    for (id, info) in ids.iter().zip(&authorities.infos) {
        revocation.name(*id, &info.subject);
    }
    for (id, links) in ids.iter().zip(&above) {
        let issuers: Vec<_> = links.iter().map(|link| link.issuer).collect();
        // A root has issued itself, and no other CA could revoke it.
        if !issuers.is_empty() && !issuers.contains(id) {
            revocation.place_below(*id, issuers);
        }
    }
    for (id, is_revoked) in ids.iter().zip(&revoked) {
        let mut certificates = ids.iter().zip(&revoked);
        let stays = certificates.any(|(other, is_revoked)| other == id && !is_revoked);
        if *is_revoked && !stays {
            revocation.revoke_authority(*id);
        }
    }
    (revocation, revoked)
}

/// The issuers of an authority among those that are trusted: those whose key has signed its certificate. Where that cannot
/// be told, because its algorithm is none of ours, the name has to do: each namesake's list counts then.
fn links_above(
    certificate: &CertificateDer<'_>,
    authorities: &Authorities,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<Vec<Link>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let serial = Serial::new(parsed.raw_serial()).ok()?;
    let (_, issuer) = Any::from_der(parsed.issuer().as_raw()).ok()?;
    let signed = Signed::parse(certificate)?;
    let issuers = authorities.roots.roots.iter().filter(|root| {
        let key = root.subject_public_key_info.as_ref();
        is_same_name(&root.subject, issuer.data)
            && (signed.is_signed_by(key, algorithms) || !signed.can_be_told(key, algorithms))
    });
    let link = |root| Link {
        issuer: authority_id(root),
        key: authority_key(root),
        serial,
    };
    Some(issuers.map(link).collect())
}

/// What the two keys, whose names are given, say together.
fn stale_policy(
    location: &Location,
    (grace_key, dangerous_key): (&str, &str),
    (grace, dangerous): (Field<Text>, Field<bool>),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<StalePolicy> {
    let why = " (leave it out to refuse from nextUpdate on)";
    let period = |text: &Text| scalar::duration(text, &limits::CRL_GRACE, why);
    let grace = diagnostics.optional(location, grace_key, grace, period)?;
    let exclusive = |dangerous: &bool| match (dangerous, grace) {
        (true, Some(_)) => Err(format!("must not stand beside {grace_key}: it has no end")),
        _ => Ok(*dangerous),
    };
    let line = dangerous
        .clone()
        .given()
        .map_or(location.line, |item| item.line);
    let dangerous = diagnostics
        .optional(location, dangerous_key, dangerous, exclusive)?
        .unwrap_or(false);
    if dangerous {
        let text = "revocation lists are used however old they are";
        diagnostics.warn(line, &location.key(dangerous_key), text);
    }
    Some(match (dangerous, grace) {
        (true, _) => StalePolicy::Allow,
        (false, Some(grace)) => StalePolicy::Grace(grace),
        (false, None) => StalePolicy::Refuse,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use gateway_x509::certificate::CertificateInfo;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        SerialNumber,
    };
    use std::time::SystemTime;

    pub fn params(name: &str, serial: u64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from(serial));
        params
    }

    pub fn trust(certificates: &[CertificateDer<'static>]) -> Authorities {
        let mut authorities = Authorities::default();
        for certificate in certificates {
            authorities.roots.add(certificate.clone()).unwrap();
            authorities
                .infos
                .push(CertificateInfo::parse(certificate).unwrap());
            authorities.certificates.push(certificate.clone());
        }
        authorities
    }

    /// A list of the first of them that names a serial number, and what becomes of them.
    fn revoked(authorities: &Authorities, serial: u8) -> (Revocation, Vec<bool>) {
        let (now, policy) = (SystemTime::now(), StalePolicy::Refuse);
        let mut list = IssuerList::new(now, now, policy);
        list.insert(Serial::new(&[serial]).unwrap());
        let issuer = authority_id(&authorities.roots.roots[0]);
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        assemble(authorities, vec![(issuer, list)], algorithms)
    }

    #[test]
    fn an_intermediate_issued_anew_with_its_key_outlives_the_certificate_that_was_revoked() {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = params("Root", 1).self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params("Root", 1), root_key);
        let issued = |serial| {
            let made = params("Branch", serial).signed_by(&key, &issuer);
            made.unwrap().der().clone()
        };
        let (old, new) = (issued(5), issued(6));
        let both = trust(&[root.der().clone(), old.clone(), new]);
        let branch = authority_id(&both.roots.roots[1]);
        let (revocation, marked) = revoked(&both, 5);
        assert_eq!(marked, [false, true, false]);
        assert!(!revocation.is_authority_revoked(branch));
        let (revocation, marked) = revoked(&trust(&[root.der().clone(), old]), 5);
        assert_eq!(marked, [false, true]);
        assert!(revocation.is_authority_revoked(branch));
    }

    #[test]
    fn a_namesakes_list_says_nothing_of_a_root_whose_number_it_happens_to_name() {
        let root = || {
            let key = KeyPair::generate().unwrap();
            params("Root", 1).self_signed(&key).unwrap().der().clone()
        };
        let (revocation, marked) = revoked(&trust(&[root(), root()]), 1);
        // The first one has named itself, which is its own affair.
        assert_eq!(marked, [true, false]);
        let second = trust(&[root()]).roots.roots[0].clone();
        assert!(!revocation.is_authority_revoked(authority_id(&second)));
    }
}
