//! Signature checks of one search: each is made once, and only so many are made, of slow kinds fewer.
//! In: what webpki would verify. Out: whether it holds. webpki checks the same signature again in every path that it gets;
//! the ledger remembers the answer for as long as the search lasts. On the thread that searches; shares nothing.

use std::cell::RefCell;
use std::ops::Range;

use gateway_core::limits;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};

use super::candidate::DerValue;

/// Where bytes are. While a search lasts its certificates do not move, so the same place is the same bytes.
type ByteRange = Range<usize>;

fn byte_range(bytes: &[u8]) -> ByteRange {
    let Range { start, end } = bytes.as_ptr_range();
    start as usize..end as usize
}

fn is_within(inner: &ByteRange, outer: &ByteRange) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// A signature that was looked at.
#[derive(Debug)]
struct Checked {
    key: ByteRange,
    message: ByteRange,
    holds: bool,
}

/// What one search has found out so far.
#[derive(Debug, Default)]
struct Ledger {
    checked: Vec<Checked>,
    /// What the checks may have cost, in microseconds.
    work_us: usize,
    is_exhausted: bool,
    /// Nothing is checked that is not known: it does not hold.
    is_closed: bool,
}

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

/// Begins a search.
pub(super) fn open() {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.checked.clear();
        ledger.work_us = 0;
        ledger.is_exhausted = false;
        ledger.is_closed = false;
    });
}

/// Makes a call in which only those signatures hold that are known to. Of a path that was looked at before, they are all that it
/// takes; what webpki tries beside them, such as a CA that has the name of the right one, costs nothing then.
pub(super) fn closed<R>(call: impl FnOnce() -> R) -> R {
    LEDGER.with_borrow_mut(|ledger| ledger.is_closed = true);
    let result = call();
    LEDGER.with_borrow_mut(|ledger| ledger.is_closed = false);
    result
}

/// What the checks may have cost, in microseconds.
pub(super) fn work_us() -> usize {
    LEDGER.with_borrow(|ledger| ledger.work_us)
}

/// What a check may cost with the slowest library, in microseconds: a sender chooses the kind of its keys. Both libraries refuse
/// RSA keys beyond 8192 bits, and exponents beyond 33, before they calculate anything.
fn cost_us(algorithm: AlgorithmIdentifier, public_key: &[u8]) -> usize {
    const RSA_2048: usize = 25;
    const RSA_2048_BYTES: usize = 256;
    match algorithm {
        alg_id::ECDSA_P384 | alg_id::ECDSA_P521 => 400,
        alg_id::RSA_ENCRYPTION => {
            let numbers = DerValue::first(public_key).map(|sequence| sequence.content);
            let modulus = numbers.and_then(DerValue::first);
            let (bytes, rest) =
                modulus.map_or((0, &[][..]), |value| (value.content.len(), value.rest));
            let exponent = DerValue::first(rest).map_or(0, |value| value.content.len());
            // The usual exponent, 65537, takes 17 steps, the longest one that the libraries take 33 to 65.
            let slowness = if exponent > 3 { 3 } else { 1 };
            let size = bytes.div_ceil(RSA_2048_BYTES).min(4);
            RSA_2048 * size * size * slowness
        }
        // P-256, Ed25519 and ML-DSA.
        _ => 100,
    }
}

/// How many signatures were checked.
pub(super) fn checks() -> usize {
    LEDGER.with_borrow(|ledger| ledger.checked.len())
}

/// Whether a signature was not looked at because so many had been.
pub(super) fn is_exhausted() -> bool {
    LEDGER.with_borrow(|ledger| ledger.is_exhausted)
}

/// Whether it is known that the owner of a key, which lies within `key`, has not signed `certificate`.
pub(super) fn refutes(key: &[u8], certificate: &[u8]) -> bool {
    let (key, certificate) = (byte_range(key), byte_range(certificate));
    LEDGER.with_borrow(|ledger| {
        let mut checked = ledger.checked.iter();
        checked.any(|known| {
            !known.holds && is_within(&known.key, &key) && is_within(&known.message, &certificate)
        })
    })
}

impl Ledger {
    fn known(&self, key: &ByteRange, message: &ByteRange) -> Option<bool> {
        let mut checked = self.checked.iter();
        let found = checked.find(|known| known.key == *key && known.message == *message);
        found.map(|known| known.holds)
    }
}

/// An algorithm whose checks go through the ledger.
#[derive(Debug)]
pub(super) struct Recorded(pub(super) &'static dyn SignatureVerificationAlgorithm);

impl SignatureVerificationAlgorithm for Recorded {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let (key_range, message_range) = (byte_range(public_key), byte_range(message));
        let holds = LEDGER.with_borrow_mut(|ledger| {
            if let Some(holds) = ledger.known(&key_range, &message_range) {
                return holds;
            }
            if ledger.is_closed {
                return false;
            }
            let work_us = ledger.work_us + cost_us(self.0.public_key_alg_id(), public_key);
            if ledger.checked.len() >= limits::CHAIN_SIGNATURES_MAX
                || work_us > limits::CHAIN_SIGNATURE_WORK_US_MAX
            {
                ledger.is_exhausted = true;
                return false;
            }
            ledger.work_us = work_us;
            let verified = self.0.verify_signature(public_key, message, signature);
            ledger.checked.push(Checked {
                key: key_range,
                message: message_range,
                holds: verified.is_ok(),
            });
            verified.is_ok()
        });
        match holds {
            true => Ok(()),
            false => Err(InvalidSignature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}
