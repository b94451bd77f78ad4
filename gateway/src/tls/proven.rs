//! Client chains that this worker has verified, so that an agent that comes back is not verified from the beginning.
//! In: the certificates of a chain, as they came. Out: what was read from it when it was verified. In a verifier's call, on
//! the worker; nothing is shared. Spares the signatures and the parsing, and nothing else: whether the chain is revoked,
//! blocked or admitted is asked every time, and possession of the key is proven every time.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use gateway_core::certificate::{Certificate, Chain, Fingerprint};
use gateway_core::limits;
use gateway_x509::client_certificate::{self, ParsedCertificate};
use lru::LruCache;
use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;

/// One state of trust: roots, and what keys and signatures may be like. What was verified under one counts under no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Era(u64);

impl Era {
    /// One that never was before.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Era(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Names a chain, byte for byte, and the era in which it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    place: Place,
    message: [u8; 32],
}

/// Where a chain is remembered: one for each client's certificate, whatever else comes with that. Certificates that nobody needs
/// are tolerated, so one client has any number of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place(Era, Fingerprint);

impl Key {
    /// The whole of what the client sent, in its order.
    pub(super) fn of(
        era: Era,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Self {
        let mut digest = Context::new(&SHA256);
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            // Its length first, so that none can be read as a part of the next.
            digest.update(&certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        let mut message = [0; 32];
        message.copy_from_slice(digest.finish().as_ref());
        let place = Place(era, client_certificate::fingerprint(end_entity));
        Key { place, message }
    }
}

/// What the allocator takes for the shortest text (glibc, 64 bits).
const ALLOCATION_BYTES_MIN: usize = 32;

/// What a verified chain says.
#[derive(Debug, Clone)]
pub(super) struct Proven {
    /// The client's own certificate.
    pub(super) presented: ParsedCertificate,
    /// The way to the root.
    pub(super) chain: Chain,
}

impl Proven {
    /// What it takes in memory. A name of a few bytes takes far more than these once it is read.
    pub(super) fn bytes(&self) -> usize {
        let names = &self.presented.certificate;
        let texts = names
            .uris
            .iter()
            .chain(&names.dns_names)
            .chain(&names.common_name)
            .chain(&names.organizational_units)
            .chain([&names.issuer]);
        let texts: usize = texts
            .map(|text| size_of::<String>() + text.capacity().max(ALLOCATION_BYTES_MIN))
            .sum();
        size_of::<Self>()
            + texts
            + size_of_val(&names.ip_addresses[..])
            + size_of_val(&self.chain.links[..])
            + size_of_val(&self.chain.points[..])
    }
}

thread_local! {
    // Grows as it is needed; `keep` bounds it.
    static PROVEN: RefCell<LruCache<Place, Fresh>> = RefCell::new(LruCache::unbounded());
}

/// What was read from this chain, if it was verified and has not ended. A clock before the moment it was verified at says
/// nothing about it.
pub(super) fn find(key: &Key, now: SystemTime) -> Option<Proven> {
    PROVEN.with_borrow_mut(|known| {
        let Fresh {
            key: kept,
            proven,
            verified_at,
        } = known.get(&key.place)?;
        let holds = kept == key && *verified_at <= now && now < proven.chain.not_after;
        holds.then(|| proven.clone())
    })
}

/// Shows every client that this worker remembers, whatever was trusted when it was verified: those that were here lately, as far
/// as there is room to remember them.
pub fn for_each_client_seen(show: &mut dyn FnMut(&Certificate, &Chain)) {
    PROVEN.with_borrow(|known| {
        for (_, Fresh { proven, .. }) in known {
            show(&proven.presented.certificate, &proven.chain);
        }
    });
}

/// A chain that has just been verified.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) key: Key,
    pub(super) proven: Proven,
    pub(super) verified_at: SystemTime,
}

/// Remembers a chain, in the place of any other of the same certificate; one that takes too much room is not remembered. To be called once the client has proven that it owns it: whoever has merely copied one must not be
/// able to crowd the others out.
pub(super) fn keep(fresh: Fresh) {
    if fresh.proven.bytes() > limits::PROVEN_CHAIN_BYTES_MAX {
        return;
    }
    PROVEN.with_borrow_mut(|known| {
        known.put(fresh.key.place, fresh);
        if known.len() > limits::PROVEN_CHAINS_MAX {
            known.pop_lru();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use gateway_core::revocation::AuthorityId;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn proven(ends: SystemTime) -> Proven {
        Proven {
            presented: ParsedCertificate {
                certificate: Certificate::default(),
                serial: None,
                not_after: ends,
                client_usage: true,
                may_sign: true,
            },
            chain: Chain {
                links: Vec::new(),
                points: Vec::new(),
                anchor: AuthorityId([1; 32]),
                constraints: None,
                not_before: at(0),
                not_after: ends,
                ends_with_anchor: false,
            },
        }
    }

    fn der(bytes: &'static [u8]) -> CertificateDer<'static> {
        CertificateDer::from(bytes)
    }

    #[test]
    fn a_chain_is_known_byte_for_byte_in_its_own_era_and_while_it_lasts() {
        let era = Era::new();
        let key = Key::of(era, &der(b"leaf"), &[der(b"above")]);
        keep(Fresh {
            key,
            proven: proven(at(200)),
            verified_at: at(100),
        });
        assert!(find(&key, at(100)).is_some());
        assert!(find(&key, at(199)).is_some());
        assert!(find(&key, at(200)).is_none(), "it has ended");
        assert!(find(&key, at(99)).is_none(), "before it was verified");
        for other in [
            Key::of(Era::new(), &der(b"leaf"), &[der(b"above")]),
            Key::of(era, &der(b"leag"), &[der(b"above")]),
            Key::of(era, &der(b"leaf"), &[]),
            Key::of(era, &der(b"leafa"), &[der(b"bove")]),
            Key::of(era, &der(b"leaf"), &[der(b"above"), der(b"")]),
        ] {
            assert!(find(&other, at(150)).is_none());
        }
    }

    #[test]
    fn a_client_has_one_place_however_many_messages_it_makes_of_its_certificate() {
        let era = Era::new();
        let remember = |key: Key| {
            keep(Fresh {
                key,
                proven: proven(at(200)),
                verified_at: at(100),
            });
        };
        let other = Key::of(era, &der(b"other"), &[]);
        remember(other);
        let with = |number: usize| {
            let junk = CertificateDer::from(number.to_be_bytes().to_vec());
            Key::of(era, &der(b"leaf"), &[junk])
        };
        for number in 0..limits::PROVEN_CHAINS_MAX + 10 {
            remember(with(number));
        }
        assert!(find(&other, at(100)).is_some());
        let last = limits::PROVEN_CHAINS_MAX + 9;
        assert!(find(&with(last), at(100)).is_some());
        assert!(find(&with(last - 1), at(100)).is_none(), "replaced");
    }

    #[test]
    fn what_takes_more_memory_than_its_bytes_is_not_remembered() {
        let key = Key::of(Era::new(), &der(b"many names"), &[]);
        let with = |count: usize| {
            let mut proven = proven(at(200));
            proven.presented.certificate.dns_names = vec!["a".to_owned(); count];
            keep(Fresh {
                key,
                proven,
                verified_at: at(100),
            });
            find(&key, at(100)).is_some()
        };
        assert!(!with(1000));
        assert!(with(100));
    }

    #[test]
    fn no_more_are_kept_than_the_limit_and_the_one_used_last_stays() {
        let era = Era::new();
        let key = |number: usize| {
            let leaf = CertificateDer::from(number.to_be_bytes().to_vec());
            Key::of(era, &leaf, &[])
        };
        for number in 0..limits::PROVEN_CHAINS_MAX + 10 {
            keep(Fresh {
                key: key(number),
                proven: proven(at(200)),
                verified_at: at(100),
            });
            assert!(find(&key(0), at(100)).is_some());
        }
        assert!(find(&key(1), at(100)).is_none());
        PROVEN.with_borrow(|known| assert_eq!(known.len(), limits::PROVEN_CHAINS_MAX));
    }
}
