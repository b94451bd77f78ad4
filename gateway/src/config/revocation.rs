//! The revocation lists of a listener or backend: read, verified against its authorities, and asked how old they may become.
//! In: `crl`, `crl_grace`, `dangerous_accept_stale_crl`, and the policies that lists have of their own. Out: one `Revocation`, or errors at the path's line.

use std::sync::Arc;

use gateway_core::revocation::{
    AuthorityId, IssuerList, Link, Revocation, Serial, StalePolicy, Status,
};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::X509Certificate;

use super::keys::{Authorities, shown_time};
use super::raw::{Lists, Text, WrittenList};
use super::report::{Place, Report};
use super::scalar;
use super::value::{Field, Item};
use crate::limits;
use crate::pki::crl;
use crate::pki::facts::Facts;
use crate::tls::authority_id;

/// The keys as written.
pub struct Written {
    /// The key that the authorities stand under.
    pub authorities_key: &'static str,
    pub crl: Field<Lists>,
    pub grace: Field<Text>,
    pub dangerous_accept_stale: Field<bool>,
}

/// A list to load: its file, where that is named, and what happens when it has become too old.
struct NamedList {
    place: Place,
    key: &'static str,
    file: Item<Text>,
    policy: StalePolicy,
}

/// Loads all lists. A list that has ended is no error: it refuses by the policy, and the operator is told.
pub fn check(
    place: &Place,
    written: Written,
    authorities: &mut Authorities,
    provider: &CryptoProvider,
    report: &mut Report<'_>,
) -> Option<Arc<Revocation>> {
    let (grace, dangerous) = (
        written.grace.clone(),
        written.dangerous_accept_stale.clone(),
    );
    let keys = ("crl_grace", "dangerous_accept_stale_crl");
    let policy = stale_policy(
        place,
        keys,
        (written.grace, written.dangerous_accept_stale),
        report,
    )?;
    if matches!(written.crl, Field::Absent) {
        let useless = "has no effect without crl: name the lists, or take it out";
        if let Some(item) = grace.given() {
            report.wrong(place, keys.0, &item, useless);
        }
        if let Some(item) = dangerous.given() {
            report.wrong(place, keys.1, &item, useless);
        }
    }
    let lists = match written.crl {
        Field::Absent => return Some(Arc::default()),
        given => given.given()?,
    };
    if lists.value.is_empty() {
        let expectation = "must name at least one list, or be left out";
        report.wrong(place, "crl", &lists, expectation);
    }
    let named: Vec<_> = lists
        .value
        .into_iter()
        .map(|written| name_list(place, written, policy, report))
        .collect();
    let mut loaded = Vec::new();
    for list in named {
        let verified = list.and_then(|list| load(&list, authorities, provider, report));
        loaded.push(verified);
    }
    let sound = loaded.iter().all(Option::is_some);
    let mut revocation = Revocation::new(loaded.into_iter().flatten().flatten());
    let authorities_key = place.key(written.authorities_key);
    remove_revoked(
        &authorities_key,
        place.line,
        authorities,
        &mut revocation,
        report,
    );
    sound.then(|| Arc::new(revocation))
}

/// An element of `crl` with its policy: its own where it states one, otherwise that of all.
fn name_list(
    place: &Place,
    written: WrittenList,
    of_all: StalePolicy,
    report: &mut Report<'_>,
) -> Option<NamedList> {
    let raw = match written {
        WrittenList::Path(file) => {
            return Some(NamedList {
                place: place.clone(),
                key: "crl",
                file,
                policy: of_all,
            });
        }
        WrittenList::Table(raw) => raw,
    };
    let states_none = matches!(
        (&raw.grace, &raw.dangerous_accept_stale),
        (Field::Absent, Field::Absent)
    );
    let keys = ("grace", "dangerous_accept_stale");
    let own = stale_policy(
        &raw.place,
        keys,
        (raw.grace, raw.dangerous_accept_stale),
        report,
    );
    if matches!(raw.file, Field::Absent) {
        report.missing(&raw.place, "file", "name the file of the list");
    }
    Some(NamedList {
        file: raw.file.given()?,
        policy: if states_none { of_all } else { own? },
        place: raw.place,
        key: "file",
    })
}

/// The lists of one file.
fn load(
    list: &NamedList,
    authorities: &Authorities,
    provider: &CryptoProvider,
    report: &mut Report<'_>,
) -> Option<Vec<(AuthorityId, IssuerList)>> {
    let path = report.resolve(&list.file.value);
    let algorithms = &provider.signature_verification_algorithms;
    let now = report.now;
    let found = match crl::load(&path, &authorities.roots, algorithms, list.policy, now) {
        Ok(found) => found,
        Err(error) => {
            report.wrong(&list.place, list.key, &list.file, error);
            return None;
        }
    };
    for verified in found.iter().filter(|verified| verified.list.is_stale(now)) {
        let ended = shown_time(verified.list.next_update(), now);
        let text = format_args!("{:?} has ended {ended}", list.file.value);
        report.warn(list.file.line, &list.place.key(list.key), text);
    }
    Some(
        found
            .into_iter()
            .map(|verified| (verified.issuer, verified.list))
            .collect(),
    )
}

/// Takes authorities that a list of another one names out of those that are trusted, and remembers who is below whom. A
/// chain ends at the first authority that is trusted, so nobody would ask whether that one has been taken back.
fn remove_revoked(
    authorities_key: &str,
    line: usize,
    authorities: &mut Authorities,
    revocation: &mut Revocation,
    report: &mut Report<'_>,
) {
    let now = report.now;
    let above: Vec<_> = authorities
        .certificates
        .iter()
        .map(|certificate| links_above(certificate, &authorities.roots).unwrap_or_default())
        .collect();
    let is_revoked = |links: &Vec<Link>| {
        let mut links = links.iter();
        links.any(|link| revocation.status(&[*link], now) == Status::Revoked)
    };
    let revoked: Vec<bool> = above.iter().map(is_revoked).collect();
    for (root, links) in authorities.roots.roots.iter().zip(&above) {
        let authority = authority_id(root);
        let issuers: Vec<_> = links.iter().map(|link| link.issuer).collect();
        // A root has issued itself, and nobody but itself could take it back.
        if !issuers.is_empty() && !issuers.contains(&authority) {
            revocation.place_below(authority, issuers);
        }
    }
    for (position, certificate) in authorities.certificates.iter().enumerate() {
        if revoked[position] {
            let subject =
                Facts::parse(certificate).map_or_else(|_| "a CA".to_owned(), |f| f.subject);
            let text = format!("{subject} is named by a revocation list: not used");
            report.warn(line, authorities_key, text);
            revocation.revoke_authority(authority_id(&authorities.roots.roots[position]));
        }
    }
    let mut keep = revoked.iter().map(|revoked| !revoked);
    authorities
        .roots
        .roots
        .retain(|_| keep.next().unwrap_or(true));
    let mut keep = revoked.iter().map(|revoked| !revoked);
    authorities
        .certificates
        .retain(|_| keep.next().unwrap_or(true));
}

/// Who may have issued an authority, among those that are trusted. By name alone: where several share one, each one's
/// list counts.
fn links_above(certificate: &CertificateDer<'_>, trusted: &RootCertStore) -> Option<Vec<Link>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let serial = Serial::new(parsed.raw_serial()).ok()?;
    let (_, issuer) = Any::from_der(parsed.issuer().as_raw()).ok()?;
    let issuers = trusted.roots.iter();
    let issuers = issuers.filter(|root| root.subject.as_ref() == issuer.data);
    let link = |root| Link {
        issuer: authority_id(root),
        serial,
    };
    Some(issuers.map(link).collect())
}

/// What the two keys, whose names are given, say together.
fn stale_policy(
    place: &Place,
    (grace_key, dangerous_key): (&str, &str),
    (grace, dangerous): (Field<Text>, Field<bool>),
    report: &mut Report<'_>,
) -> Option<StalePolicy> {
    let why = " (leave it out to refuse from nextUpdate on)";
    let period = |text: &Text| scalar::duration(text, &limits::CRL_GRACE, why);
    let grace = report.optional(place, grace_key, grace, period)?;
    let exclusive = |dangerous: &bool| match (dangerous, grace) {
        (true, Some(_)) => Err(format!("must not stand beside {grace_key}: it has no end")),
        _ => Ok(*dangerous),
    };
    let line = dangerous
        .clone()
        .given()
        .map_or(place.line, |item| item.line);
    let dangerous = report
        .optional(place, dangerous_key, dangerous, exclusive)?
        .unwrap_or(false);
    if dangerous {
        let text = "revocation lists are used however old they are";
        report.warn(line, &place.key(dangerous_key), text);
    }
    Some(match (dangerous, grace) {
        (true, _) => StalePolicy::Allow,
        (false, Some(grace)) => StalePolicy::Grace(grace),
        (false, None) => StalePolicy::Refuse,
    })
}
