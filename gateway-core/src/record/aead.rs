//! The cipher of one direction: what a cryptographic library must do, and the nonces, which no two records may share.
//! In: a key, an IV, a sequence number. Out: opened or sealed records, each under the next number.

use super::HEADER_BYTES;
use super::error::{OpenError, SealError};

/// Length of a record's nonce and of the IV that makes it, in bytes (RFC 8446 section 5.3).
pub const IV_BYTES: usize = 12;

/// Length of the authentication tag of every cipher suite here, in bytes (RFC 8446 section B.4 names them).
pub const TAG_BYTES: usize = 16;

/// The header of a record, which is its additional data (RFC 8446 section 5.2).
pub type Header = [u8; HEADER_BYTES];

/// A record is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forged;

/// Authenticated encryption with one key, by a cryptographic library.
pub trait Aead {
    /// Opens the ciphertext and tag at `bytes[from..]` and moves the plaintext to the front of `bytes`. Returns its
    /// length. After an error the contents of `bytes` are undefined.
    fn open(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), Forged>;

    /// Encrypts `bytes` in place and returns the tag; `None` if the library refuses.
    fn seal(
        &self,
        nonce: [u8; IV_BYTES],
        header: &Header,
        bytes: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]>;
}

/// The kind of cipher, which bounds what one key may protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// AES-128-GCM or AES-256-GCM.
    AesGcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl Suite {
    /// Number of records after which we change our key.
    pub const fn update_after(self) -> u64 {
        match self {
            Suite::AesGcm => 1 << 24,
            Suite::ChaCha20Poly1305 => u64::MAX - (1 << 16),
        }
    }

    /// Number of records after which we ask the peer to change its key. More than for our own, so that two peers with
    /// the same bound do not ask each other at once.
    pub const fn ask_after(self) -> u64 {
        match self {
            Suite::AesGcm => 20_000_000,
            Suite::ChaCha20Poly1305 => u64::MAX - (1 << 15),
        }
    }

    /// Maximum of data records under one key (RFC 8446 section 5.5): 2^24.5 with AES-GCM. With ChaCha20-Poly1305 the
    /// sequence numbers end first; the last ones are left for a KeyUpdate and an alert.
    pub const fn records_max(self) -> u64 {
        match self {
            Suite::AesGcm => 23_726_566,
            Suite::ChaCha20Poly1305 => u64::MAX - 16,
        }
    }
}

const fn limits_follow_each_other(suite: Suite) -> bool {
    suite.update_after() < suite.ask_after() && suite.ask_after() < suite.records_max()
}

const _: () = assert!(limits_follow_each_other(Suite::AesGcm));
const _: () = assert!(limits_follow_each_other(Suite::ChaCha20Poly1305));

/// A key and the sequence number of its next record.
#[derive(Debug)]
pub struct TrafficKey<A> {
    aead: A,
    iv: [u8; IV_BYTES],
    sequence: u64,
    suite: Suite,
}

impl<A: Aead> TrafficKey<A> {
    /// Takes a key that has protected `sequence` records so far.
    pub fn new(aead: A, iv: [u8; IV_BYTES], sequence: u64, suite: Suite) -> Self {
        TrafficKey {
            aead,
            iv,
            sequence,
            suite,
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// Opens the next record; `bytes[from..]` is what follows its header. Moves the plaintext to the front.
    pub(super) fn open(
        &mut self,
        header: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), OpenError> {
        let after = self.sequence.checked_add(1);
        let after = after.ok_or(OpenError::SequenceExhausted)?;
        self.aead
            .open(self.nonce(self.sequence), header, bytes, from)
            .map_err(|Forged| OpenError::Forged)?;
        self.sequence = after;
        Ok(())
    }

    /// Seals the record `ahead` of the next one; `advance` then counts all of them.
    pub(super) fn seal(
        &self,
        ahead: u64,
        header: &Header,
        bytes: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], SealError> {
        let sequence = self.sequence.checked_add(ahead);
        // The last number stays unused: there is none after it to count to.
        let sequence = sequence.filter(|sequence| *sequence < u64::MAX);
        let sequence = sequence.ok_or(SealError::KeyExhausted)?;
        self.aead
            .seal(self.nonce(sequence), header, bytes)
            .ok_or(SealError::Cipher)
    }

    pub(super) fn advance(&mut self, records: u64) {
        self.sequence += records;
    }

    /// RFC 8446 section 5.3: the sequence number, padded on the left, exclusive-or the IV.
    fn nonce(&self, sequence: u64) -> [u8; IV_BYTES] {
        let mut nonce = self.iv;
        let counted = &mut nonce[IV_BYTES - size_of::<u64>()..];
        for (byte, counter) in counted.iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }
}
