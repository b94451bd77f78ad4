//! Signature checks of one search: each is made once, and only so many are made.
//! In: what webpki would verify. Out: whether it holds. webpki asks for the same signature again with every path it is shown;
//! here the answer is remembered for as long as the search lasts. On the thread that searches; shared with nobody.

use std::cell::RefCell;
use std::ops::Range;

use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// Where bytes are. While a search lasts its certificates do not move, so the same place is the same bytes.
type Place = Range<usize>;

fn place(bytes: &[u8]) -> Place {
    let Range { start, end } = bytes.as_ptr_range();
    start as usize..end as usize
}

fn is_within(inner: &Place, outer: &Place) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// A signature that was looked at.
#[derive(Debug)]
struct Checked {
    key: Place,
    message: Place,
    holds: bool,
}

/// What one search has found out so far.
#[derive(Debug, Default)]
struct Ledger {
    checked: Vec<Checked>,
    checks_max: usize,
    is_exhausted: bool,
}

thread_local! {
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

/// Begins a search of at most so many checks.
pub(super) fn open(checks_max: usize) {
    LEDGER.with_borrow_mut(|ledger| {
        ledger.checked.clear();
        ledger.checks_max = checks_max;
        ledger.is_exhausted = false;
    });
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
    let (key, certificate) = (place(key), place(certificate));
    LEDGER.with_borrow(|ledger| {
        let mut checked = ledger.checked.iter();
        checked.any(|known| {
            !known.holds && is_within(&known.key, &key) && is_within(&known.message, &certificate)
        })
    })
}

impl Ledger {
    fn known(&self, key: &Place, message: &Place) -> Option<bool> {
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
        let (key_place, message_place) = (place(public_key), place(message));
        let holds = LEDGER.with_borrow_mut(|ledger| {
            if let Some(holds) = ledger.known(&key_place, &message_place) {
                return holds;
            }
            if ledger.checked.len() >= ledger.checks_max {
                ledger.is_exhausted = true;
                return false;
            }
            let verified = self.0.verify_signature(public_key, message, signature);
            ledger.checked.push(Checked {
                key: key_place,
                message: message_place,
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
