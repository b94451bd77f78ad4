//! The shape that certificates, revocation lists and requests share: what is signed, by which algorithm, the signature.
//! In: DER, and the public key that should have signed it. Out: whether it did, by an algorithm that is pinned. Pure;
//! looks at nothing inside the signed part.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::SignatureVerificationAlgorithm;
use x509_parser::asn1_rs::{Any, FromDer, Tag};

/// A signed structure in its three parts.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The bytes that are signed: a sequence, whole.
    pub bytes: &'a [u8],
    /// What stands in that sequence.
    pub content: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes the structure apart; `None` where it is broken or something follows it.
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let (trailing, outer) = Any::from_der(der).ok()?;
        let (after_content, content) = Any::from_der(outer.data).ok()?;
        let (after_algorithm, algorithm) = Any::from_der(after_content).ok()?;
        let (after_signature, signature) = Any::from_der(after_algorithm).ok()?;
        let are_sequences = [&outer, &content, &algorithm]
            .iter()
            .all(|part| part.tag() == Tag::Sequence);
        if !trailing.is_empty() || !after_signature.is_empty() || !are_sequences {
            return None;
        }
        Some(Signed {
            bytes: outer.data.get(..outer.data.len() - after_content.len())?,
            content: content.data,
            algorithm: algorithm.data,
            signature: unpadded(&signature)?,
        })
    }

    /// The algorithm of the signature, without tag and length.
    pub fn algorithm(&self) -> &'a [u8] {
        self.algorithm
    }

    /// Whether the holder of a public key made the signature. `public_key_info` is the inside of a SubjectPublicKeyInfo,
    /// as trust anchors hold it. A key or algorithm that is not pinned has signed nothing.
    pub fn is_signed_by(
        &self,
        public_key_info: &[u8],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        self.holds(public_key_info, algorithms.all.iter().copied()) == Some(true)
    }

    /// The same by any algorithms; `None` where it cannot be told by them.
    pub fn holds<'k>(
        &self,
        public_key_info: &[u8],
        algorithms: impl Iterator<Item = &'k dyn SignatureVerificationAlgorithm>,
    ) -> Option<bool> {
        let (key_algorithm, key) = key_of(public_key_info)?;
        let verify = |algorithm: &dyn SignatureVerificationAlgorithm| {
            let verified = algorithm.verify_signature(key, self.bytes, self.signature);
            verified.is_ok()
        };
        let fitting = algorithms.filter(|algorithm| self.fits(key_algorithm, *algorithm));
        fitting.map(verify).reduce(|one, other| one || other)
    }

    /// Whether it can be told at all if the holder of a public key made the signature.
    pub fn can_be_told(
        &self,
        public_key_info: &[u8],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        let key = key_of(public_key_info);
        key.is_some_and(|(key_algorithm, _)| {
            let mut all = algorithms.all.iter();
            all.any(|algorithm| self.fits(key_algorithm, *algorithm))
        })
    }

    fn fits(&self, key_algorithm: &[u8], algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
        algorithm.signature_alg_id().as_ref() == self.algorithm
            && algorithm.public_key_alg_id().as_ref() == key_algorithm
    }
}

/// Algorithm and bits of a public key.
fn key_of(public_key_info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, algorithm) = Any::from_der(public_key_info).ok()?;
    let (_, key) = Any::from_der(key).ok()?;
    Some((algorithm.data, unpadded(&key)?))
}

/// The bytes of a bit string without unused bits.
fn unpadded<'a>(bits: &Any<'a>) -> Option<&'a [u8]> {
    match bits.data {
        [0, bytes @ ..] if bits.tag() == Tag::BitString => Some(bytes),
        _ => None,
    }
}
