//! Client chains that this worker has verified, so that it does not verify them again from the beginning.
//! In: the certificates of a chain, as they came. Out: what the verifier read from it. In a verifier's call, on the
//! worker; shares nothing. Spares the signatures and the parsing, and nothing else: revocation, blocks, rules and
//! possession of the key are checked every time.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use gateway_core::certificate::{Certificate, Chain, Fingerprint};
use gateway_core::limits;
use gateway_x509::client_certificate::{self, ParsedCertificate};
use lru::LruCache;
use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;

/// One state of trust: roots, and what keys and signatures may be like. A chain verified under one counts under no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PolicyGeneration(u64);

impl PolicyGeneration {
    /// A new one.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        PolicyGeneration(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Names a chain, byte for byte, and the generation in which it is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChainKey {
    slot: Slot,
    message: [u8; 32],
}

/// Where the cache keeps a chain: one slot for each client's certificate, whatever else comes with that. Certificates that
/// the chain does not need are tolerated, so one client has any number of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Slot(PolicyGeneration, Fingerprint);

impl ChainKey {
    /// The whole of what the client sent, in its order.
    pub(super) fn of(
        generation: PolicyGeneration,
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
        let slot = Slot(generation, client_certificate::fingerprint(end_entity));
        ChainKey { slot, message }
    }
}

/// What the allocator takes for the shortest text (glibc, 64 bits).
const ALLOCATION_BYTES_MIN: usize = 32;

/// What a verified chain says.
#[derive(Debug, Clone)]
pub(super) struct VerifiedChain {
    /// The client's own certificate.
    pub(super) presented: ParsedCertificate,
    /// The way to the root.
    pub(super) chain: Chain,
}

impl VerifiedChain {
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
    static CHAINS: RefCell<LruCache<Slot, NewChain>> = RefCell::new(LruCache::unbounded());
}

/// What was read from this chain, if it was verified and has not ended. A clock before the moment it was verified at says
/// nothing about it.
pub(super) fn find(key: &ChainKey, now: SystemTime) -> Option<VerifiedChain> {
    CHAINS.with_borrow_mut(|known| {
        let NewChain {
            key: kept,
            verified,
            verified_at,
        } = known.get(&key.slot)?;
        let holds = kept == key && *verified_at <= now && now < verified.chain.not_after;
        holds.then(|| verified.clone())
    })
}

/// Shows every client in the cache, whatever was trusted when it was verified: those that connected lately, as far as there
/// is room for them.
pub fn for_each_client_seen(show: &mut dyn FnMut(&Certificate, &Chain)) {
    CHAINS.with_borrow(|known| {
        for (_, NewChain { verified, .. }) in known {
            show(&verified.presented.certificate, &verified.chain);
        }
    });
}

/// A chain that has just been verified.
#[derive(Debug)]
pub(super) struct NewChain {
    pub(super) key: ChainKey,
    pub(super) verified: VerifiedChain,
    pub(super) verified_at: SystemTime,
}

/// Remembers a chain, in place of another chain of the same certificate, unless it takes too much room. Call it once the
/// client has proven possession of its key: a client that has merely copied a certificate must not fill the cache.
pub(super) fn keep(new_chain: NewChain) {
    if new_chain.verified.bytes() > limits::CACHED_CHAIN_BYTES_MAX {
        return;
    }
    CHAINS.with_borrow_mut(|known| {
        known.put(new_chain.key.slot, new_chain);
        if known.len() > limits::CACHED_CHAINS_MAX {
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

    fn verified(ends: SystemTime) -> VerifiedChain {
        VerifiedChain {
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
    fn a_chain_is_known_byte_for_byte_in_its_own_generation_and_while_it_lasts() {
        let generation = PolicyGeneration::new();
        let key = ChainKey::of(generation, &der(b"leaf"), &[der(b"above")]);
        keep(NewChain {
            key,
            verified: verified(at(200)),
            verified_at: at(100),
        });
        assert!(find(&key, at(100)).is_some());
        assert!(find(&key, at(199)).is_some());
        assert!(find(&key, at(200)).is_none(), "it has ended");
        assert!(find(&key, at(99)).is_none(), "before it was verified");
        for other in [
            ChainKey::of(PolicyGeneration::new(), &der(b"leaf"), &[der(b"above")]),
            ChainKey::of(generation, &der(b"leag"), &[der(b"above")]),
            ChainKey::of(generation, &der(b"leaf"), &[]),
            ChainKey::of(generation, &der(b"leafa"), &[der(b"bove")]),
            ChainKey::of(generation, &der(b"leaf"), &[der(b"above"), der(b"")]),
        ] {
            assert!(find(&other, at(150)).is_none());
        }
    }

    #[test]
    fn a_client_has_one_slot_however_many_messages_it_makes_of_its_certificate() {
        let generation = PolicyGeneration::new();
        let remember = |key: ChainKey| {
            keep(NewChain {
                key,
                verified: verified(at(200)),
                verified_at: at(100),
            });
        };
        let other = ChainKey::of(generation, &der(b"other"), &[]);
        remember(other);
        let with = |number: usize| {
            let junk = CertificateDer::from(number.to_be_bytes().to_vec());
            ChainKey::of(generation, &der(b"leaf"), &[junk])
        };
        for number in 0..limits::CACHED_CHAINS_MAX + 10 {
            remember(with(number));
        }
        assert!(find(&other, at(100)).is_some());
        let last = limits::CACHED_CHAINS_MAX + 9;
        assert!(find(&with(last), at(100)).is_some());
        assert!(find(&with(last - 1), at(100)).is_none(), "replaced");
    }

    #[test]
    fn what_takes_more_memory_than_its_bytes_is_not_remembered() {
        let key = ChainKey::of(PolicyGeneration::new(), &der(b"many names"), &[]);
        let with = |count: usize| {
            let mut verified = verified(at(200));
            verified.presented.certificate.dns_names = vec!["a".to_owned(); count];
            keep(NewChain {
                key,
                verified,
                verified_at: at(100),
            });
            find(&key, at(100)).is_some()
        };
        assert!(!with(1000));
        assert!(with(100));
    }

    #[test]
    fn no_more_are_kept_than_the_limit_and_the_one_used_last_stays() {
        let generation = PolicyGeneration::new();
        let key = |number: usize| {
            let leaf = CertificateDer::from(number.to_be_bytes().to_vec());
            ChainKey::of(generation, &leaf, &[])
        };
        for number in 0..limits::CACHED_CHAINS_MAX + 10 {
            keep(NewChain {
                key: key(number),
                verified: verified(at(200)),
                verified_at: at(100),
            });
            assert!(find(&key(0), at(100)).is_some());
        }
        assert!(find(&key(1), at(100)).is_none());
        CHAINS.with_borrow(|known| assert_eq!(known.len(), limits::CACHED_CHAINS_MAX));
    }
}
