//! A cache of the revocation lists in use: a reload does not parse and verify again what has not changed, and listeners
//! that name the same list share its entries.
//! In: verified lists, by everything that their verification depends on. Out: the same lists. On the thread that reads a
//! configuration, which also drops a list last: no worker ever releases a million entries.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::crypto::WebPkiSupportedAlgorithms;

use super::authority_id;
use super::crl::{ListIssuer, VerifiedList};

static CACHE: Mutex<Option<HashMap<Key, Vec<VerifiedList>>>> = Mutex::new(None);

/// Everything that the verification of a file's lists depends on, except the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The text of the file, the authorities it was tried against, and the algorithms that are accepted.
    pub fn of(
        bytes: &[u8],
        issuers: &[ListIssuer],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Self {
        let mut digest = Context::new(&SHA256);
        // Every part has a length of its own or is preceded by it, so that none can be read as a piece of the next.
        digest.update(&bytes.len().to_be_bytes());
        digest.update(bytes);
        digest.update(&issuers.len().to_be_bytes());
        for issuer in issuers {
            digest.update(&authority_id(&issuer.anchor).0);
            let is_left_out = issuer.left_out.is_some();
            digest.update(&[u8::from(issuer.may_sign_lists), u8::from(is_left_out)]);
        }
        for algorithm in algorithms.all {
            for id in [algorithm.signature_alg_id(), algorithm.public_key_alg_id()] {
                digest.update(&id.as_ref().len().to_be_bytes());
                digest.update(id.as_ref());
            }
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        Key(key)
    }
}

/// The lists that were verified under this key, if they are still known.
pub fn find(key: &Key) -> Option<Vec<VerifiedList>> {
    lock().as_ref()?.get(key).cloned()
}

/// Keeps lists for as long as they are in use.
pub fn keep(key: Key, lists: &[VerifiedList]) {
    lock().get_or_insert_default().insert(key, lists.to_vec());
}

/// Drops the lists that are not in use any more. Called now and then where a pause does no harm: releasing a million entries
/// takes milliseconds.
pub fn forget_unused() {
    let mut unused = Vec::new();
    if let Some(kept) = lock().as_mut() {
        let in_use = |lists: &[VerifiedList]| lists.iter().any(|found| found.list.is_shared());
        unused.extend(kept.extract_if(|_, lists| !in_use(lists)));
    }
    // Outside the lock.
    drop(unused);
}

/// Whether anything is known under this key.
#[cfg(test)]
fn is_known(key: &Key) -> bool {
    lock().as_ref().is_some_and(|kept| kept.contains_key(key))
}

fn lock() -> MutexGuard<'static, Option<HashMap<Key, Vec<VerifiedList>>>> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::revocation::{AuthorityId, IssuerList, StalePolicy};
    use std::time::SystemTime;

    #[test]
    fn a_list_is_kept_while_it_is_used_and_no_longer() {
        let now = SystemTime::now();
        let lists = [VerifiedList {
            issuer: AuthorityId([1; 32]),
            list: IssuerList::new(now, now, StalePolicy::Refuse),
            passed_over: None,
        }];
        let algorithms =
            &rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let key = Key::of(b"a list", &[], algorithms);
        assert_ne!(key, Key::of(b"a lisp", &[], algorithms));
        keep(key, &lists);
        let user = find(&key).unwrap();
        drop(lists);
        forget_unused();
        assert!(is_known(&key), "in use");
        drop(user);
        forget_unused();
        assert!(!is_known(&key), "no longer in use");
    }
}
