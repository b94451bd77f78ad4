//! Affinity: the server of a key, by rendezvous hashing (Thaler and Ravishankar, 1998). In: hashes of a key and of
//! servers. Out: scores, of which the highest has the key. When a server goes, only its keys move; when one comes, only
//! those that are its own from then on do. Every gateway finds the same.

use std::num::NonZeroU32;

/// Distributes what is close together (the finalizer of SplitMix64; Steele, Lea and Flood, 2014). One to one.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The hash of a key, such as a tenant: FNV-1a (RFC 9923), then mixed. A client that chooses its keys can choose its
/// server by them, whatever the function is.
pub fn hash_key(key: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(key.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// How much a server wants a key.
pub(super) fn score(key: u64, server: u64) -> u64 {
    mix(key ^ server)
}

/// The same, by weight (Resch, 2015): the chance to have the highest is proportional to the weight.
pub(super) fn weighted_score(key: u64, server: u64, weight: NonZeroU32) -> f64 {
    // 53 bits are what a float holds. A half more than a whole number is neither zero nor one.
    let chance = ((score(key, server) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(weight.get()) / -chance.ln()
}
