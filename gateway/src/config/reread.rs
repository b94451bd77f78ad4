//! Reads the revocation lists of a listener or backend once more, by themselves, when the rest of a configuration is refused:
//! what revokes does not wait for what admits.
//! In: the files of lists, the lists in force. Out: one `Revocation` with the authorities that none of them names, and what
//! could not be read. On the thread that reloads.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gateway_core::revocation::{AuthorityId, IssuerList, Revocation, StalePolicy};
use gateway_x509::crl::{self, CrlError, VerifiedList};
use rustls::crypto::CryptoProvider;

use super::credentials::Authorities;
use super::revocation::assemble;

/// A file of lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFile {
    /// Where.
    pub path: PathBuf,
    /// What happens when a list of it has become too old.
    pub policy: StalePolicy,
}

/// The files of one listener or backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFiles {
    /// How the configuration calls it: `listener "edge"`.
    pub location: String,
    /// Its files.
    pub files: Vec<ListFile>,
}

/// What it takes to read the lists of a listener or backend once more, by themselves.
#[derive(Debug, Clone)]
pub struct Revoking {
    /// All authorities, those too that a list names.
    pub authorities: Authorities,
    /// Its lists.
    pub lists: ListFiles,
}

/// The lists that a gateway acts by while it reads others.
#[derive(Debug, Clone, Copy)]
pub struct InForce<'a> {
    /// Those of one listener or backend.
    pub here: &'a Revocation,
    /// Those of all listeners and backends.
    pub anywhere: &'a [(AuthorityId, IssuerList)],
}

/// Lists with the authorities that are left by them.
#[derive(Debug)]
pub struct Reread {
    /// What the lists say.
    pub revocation: Revocation,
    /// The authorities that none of them names.
    pub authorities: Authorities,
}

/// What could not be read once more.
#[derive(Debug, Default)]
pub struct Unread {
    /// The files that are in force, and what is wrong with each.
    pub own: Vec<String>,
    /// The same of those that only a refused state names.
    pub others: Vec<String>,
    /// When the first of the lists that are dated ahead may be used.
    pub again_at: Option<SystemTime>,
}

impl Unread {
    fn note(&mut self, path: &Path, error: &CrlError, is_own: bool) {
        if let Some(from) = error.usable_from() {
            self.again_at = Some(self.again_at.map_or(from, |known| known.min(from)));
        }
        let errors = if is_own {
            &mut self.own
        } else {
            &mut self.others
        };
        let text = format!("{}: {error}", path.display());
        if !errors.contains(&text) {
            errors.push(text);
        }
    }
}

impl Revoking {
    /// Reads the lists of these files and of `more`, against the authorities that are in force, and adds them to those that are in
    /// force here: of two the newer counts, so nothing that is revoked comes back. The rest of their state has been refused, and
    /// they may be what it was refused for: a list takes the place of one that is in force here and vouches for what it does
    /// not name, unless a newer one is in force anywhere. Any other only revokes what it names. What cannot be read or is not
    /// of these authorities is left out and noted. `None` where nothing is new.
    pub fn reread(
        &self,
        in_force: InForce<'_>,
        more: &[ListFile],
        (provider, now): (&CryptoProvider, SystemTime),
        unread: &mut Unread,
    ) -> Option<Reread> {
        let algorithms = &provider.signature_verification_algorithms;
        let own = &self.lists.files;
        let issuers = self.authorities.list_issuers();
        let mut read = |file: &ListFile, is_own| {
            let found = crl::each(&file.path, &issuers, algorithms, file.policy, now);
            let each = found.unwrap_or_else(|error| vec![Err(error)]);
            let mut good = Vec::new();
            for found in each {
                match found {
                    Ok(found) if found.passed_over.is_none() => good.push(found),
                    Ok(_) => {}
                    // It takes no other list of its file with it.
                    Err(error) => unread.note(&file.path, &error, is_own),
                }
            }
            good.into_iter()
        };
        let known = in_force
            .here
            .lists()
            .map(|(issuer, list)| (*issuer, list.clone()));
        let mut lists: Vec<_> = known.collect();
        let others = more
            .iter()
            .filter(|file| own.iter().all(|own| own.path != file.path));
        let files = own.iter().map(|file| (file, true));
        for (file, is_own) in files.chain(others.map(|file| (file, false))) {
            lists.extend(read(file, is_own).map(|VerifiedList { issuer, list, .. }| {
                match may_vouch(issuer, &list, in_force) {
                    Some(_) if is_own => (issuer, list),
                    // How old it may become is for what is in force to say.
                    Some(policy) => (issuer, list.with_stale_policy(policy)),
                    None => (issuer, list.names_only()),
                }
            }));
        }
        let (revocation, revoked) = assemble(&self.authorities, lists, algorithms);
        let is_known = |(issuer, list): (&AuthorityId, &IssuerList)| {
            let mut known = in_force.here.lists().filter(|(known, _)| *known == issuer);
            known.any(|(_, known)| known.is_same(list))
        };
        if revocation.lists().all(is_known) {
            return None;
        }
        Some(Reread {
            revocation,
            authorities: self.authorities.clone().without(&revoked),
        })
    }
}

/// The policy of the list in force that a list of a refused state is, or takes the place of; `None` where it must not vouch: there is
/// none, or it is an older one that has come back.
fn may_vouch(issuer: AuthorityId, list: &IssuerList, in_force: InForce<'_>) -> Option<StalePolicy> {
    let is_alike = |other: &&IssuerList| other.scope() == list.scope();
    let is_older_than = |other: &IssuerList| other.rank().compare(&list.rank()).is_gt();
    let here = in_force.here.vouching(&issuer).filter(is_alike);
    let newest = here.max_by(|one, other| one.rank().compare(&other.rank()))?;
    let anywhere = in_force.anywhere.iter().filter(|(of, _)| *of == issuer);
    let mut anywhere = anywhere.map(|(_, known)| known).filter(is_alike);
    // An older copy beside its successor says nothing, and what that one lifts is lifted.
    let is_beside = newest.rank().compare(&list.rank()).is_ge();
    (is_beside || !anywhere.any(is_older_than)).then(|| newest.stale_policy())
}

#[cfg(test)]
mod tests {
    use gateway_core::revocation::{Gap, Link, Serial, Status};
    use gateway_x509::authority_id;
    use rcgen::{
        CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
        SerialNumber,
    };

    use super::*;
    use crate::config::revocation::tests::{params, trust};

    /// A file of lists, each of its CA, with its number and the serial numbers that it names.
    fn write_lists(path: &Path, lists: &[(&Issuer<'_, KeyPair>, u64, &[u64])]) {
        let made = lists.iter().map(|(issuer, number, serials)| {
            let now = time::OffsetDateTime::now_utc();
            let revoked = serials.iter().map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            });
            let list = CertificateRevocationListParams {
                this_update: now - time::Duration::minutes(10),
                next_update: now + time::Duration::hours(1),
                crl_number: SerialNumber::from(*number),
                issuing_distribution_point: None,
                revoked_certs: revoked.collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            list.signed_by(issuer).unwrap().pem().unwrap()
        });
        std::fs::write(path, made.collect::<String>()).unwrap();
    }

    fn status(revocation: &Revocation, issuer: AuthorityId, serial: u8) -> Status {
        let now = SystemTime::now();
        let link = Link {
            issuer,
            key: Default::default(),
            serial: Serial::new(&[serial]).unwrap(),
        };
        let chain = gateway_core::certificate::Chain {
            links: vec![link],
            points: Vec::new(),
            anchor: issuer,
            not_before: now,
            not_after: now,
            ends_with_anchor: false,
            constraints: Default::default(),
        };
        revocation.status(&chain, now)
    }

    /// A listener with one file of lists.
    fn revoking(authorities: Authorities, path: &Path) -> Revoking {
        let file = ListFile {
            path: path.to_owned(),
            policy: StalePolicy::Refuse,
        };
        Revoking {
            authorities,
            lists: ListFiles {
                location: "listener \"edge\"".to_owned(),
                files: vec![file],
            },
        }
    }

    #[test]
    fn a_list_of_a_refused_state_shuts_out_and_never_admits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lists.pem");
        let keys = [(); 2].map(|()| KeyPair::generate().unwrap());
        let [one, two] = [("One", &keys[0]), ("Two", &keys[1])];
        let root = |(name, key)| params(name, 1).self_signed(key).unwrap().der().clone();
        let authorities = trust(&[root(one), root(two)]);
        let [id_one, id_two] =
            [0, 1].map(|position| authority_id(&authorities.roots.roots[position]));
        let [key_one, key_two] = keys;
        let one = Issuer::new(params("One", 1), key_one);
        let two = Issuer::new(params("Two", 1), key_two);
        let (provider, now) = (rustls::crypto::ring::default_provider(), SystemTime::now());
        let revoking = revoking(authorities, &path);
        let copy = ListFile {
            path: folder.path().join("copy.pem"),
            policy: StalePolicy::Allow,
        };
        let more = std::slice::from_ref(&copy);
        let reread = |here: &Revocation, anywhere: &[(AuthorityId, IssuerList)]| {
            let in_force = InForce { here, anywhere };
            std::fs::copy(&path, &copy.path).unwrap();
            let mut unread = Unread::default();
            let reread = revoking.reread(in_force, more, (&provider, now), &mut unread);
            assert!(unread.own.is_empty(), "{:?}", unread.own);
            reread.map(|reread| reread.revocation)
        };
        let loaded = || {
            let issuers = revoking.authorities.list_issuers();
            let algorithms = &provider.signature_verification_algorithms;
            let lists = crl::load(&path, &issuers, algorithms, StalePolicy::Refuse, now).unwrap();
            lists.into_iter().map(|found| (found.issuer, found.list))
        };
        // The list of the first CA has been taken out: nothing is known of its clients.
        write_lists(&path, &[(&two, 1, &[])]);
        let without = Revocation::new(loaded());
        assert_eq!(
            status(&without, id_one, 7),
            Status::Unknown(Gap::Missing(id_one))
        );
        // An older one comes back, which does not name what the newest had named.
        write_lists(&path, &[(&one, 1, &[6]), (&two, 2, &[8])]);
        let older: Vec<_> = loaded().collect();
        let reread_once = reread(&without, &[]).unwrap();
        assert_eq!(
            [6, 7].map(|serial| status(&reread_once, id_one, serial)),
            [Status::Revoked, Status::Unknown(Gap::Missing(id_one))]
        );
        // The other CA's newer list takes the place of the one in force, and vouches as that did.
        assert_eq!(
            [7, 8].map(|serial| status(&reread_once, id_two, serial)),
            [Status::Good, Status::Revoked]
        );
        assert!(reread(&reread_once, &[]).is_none(), "nothing is new");
        // A newer one than this listener's, and older than another listener's, does not take its place either.
        write_lists(&path, &[(&one, 5, &[]), (&two, 5, &[])]);
        let newest: Vec<_> = loaded().collect();
        write_lists(&path, &[(&one, 3, &[9]), (&two, 3, &[9])]);
        let behind = Revocation::new(older);
        let before = behind.lists().count();
        let reread_behind = reread(&behind, &newest).unwrap();
        assert_eq!(reread_behind.lists().count(), 2 * before, "beside them");
        for issuer in [id_one, id_two] {
            assert_eq!(status(&reread_behind, issuer, 9), Status::Revoked);
        }
        assert_eq!(status(&reread_behind, id_two, 8), Status::Revoked);
        // An older copy beside the newest of the same listener says nothing: what that lifts is lifted.
        let newest = Revocation::new(newest);
        assert!(reread(&newest, &[]).is_none());
        // Nor does a refused state say how old a list may become.
        for revocation in [&reread_once, &reread_behind, &newest] {
            for issuer in [id_one, id_two] {
                let mut vouching = revocation.vouching(&issuer);
                assert!(vouching.all(|list| list.stale_policy() == StalePolicy::Refuse));
            }
        }
        assert_eq!(status(&newest, id_two, 9), Status::Good);
    }
}
