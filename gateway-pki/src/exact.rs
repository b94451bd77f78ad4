//! What the generator made, with the issuer's name byte for byte, and verified.
//! In: a certificate or list in DER, the authority it is of. Out: the same under the authority's own name, or an error.
//! The generator keeps names as a map from types to values: of two organizational units it writes one, and of T61 text
//! something else. Verifiers compare names byte by byte (RFC 5280 section 7.1 lets them), so none would accept that.

use gateway_x509::certificate::CertificateInfo;
use gateway_x509::der;
use gateway_x509::signed::Signed;
use rcgen::{KeyPair, SigningKey};
use rustls::crypto::ring;
use x509_parser::asn1_rs::{Any, FromDer, Tag};

use super::PkiError;

/// Puts the issuer's own name into a certificate or list, and verifies the signature as others will.
pub(super) fn finished(
    made: &[u8],
    issuer: &CertificateInfo,
    key: &KeyPair,
) -> Result<Vec<u8>, PkiError> {
    let refused = || PkiError::NotVerified("its structure is not what it should be");
    let parts = Parts::of(made).ok_or_else(refused)?;
    let finished = match parts.issuer == issuer.subject_der {
        true => made.to_vec(),
        false => parts.signed_anew(&issuer.subject_der, key)?,
    };
    let again = Parts::of(&finished).ok_or_else(refused)?;
    if again.issuer != issuer.subject_der {
        return Err(PkiError::NotVerified("its issuer is another one"));
    }
    let (_, public_key) = Any::from_der(&issuer.public_key_der).map_err(|_| refused())?;
    let algorithms = ring::default_provider().signature_verification_algorithms;
    match Signed::parse(&finished) {
        Some(signed) if signed.is_signed_by(public_key.data, &algorithms) => Ok(finished),
        _ => Err(PkiError::NotVerified("its signature is not good")),
    }
}

/// A certificate or list around its issuer.
struct Parts<'a> {
    before: &'a [u8],
    issuer: &'a [u8],
    after: &'a [u8],
    algorithm: &'a [u8],
}

impl<'a> Parts<'a> {
    /// RFC 5280 sections 4.1 and 5.1: the issuer follows the algorithm, which is the first sequence.
    fn of(der: &'a [u8]) -> Option<Self> {
        let (_, outer) = Any::from_der(der).ok()?;
        let (after_content, content) = Any::from_der(outer.data).ok()?;
        let (after_algorithm, _) = Any::from_der(after_content).ok()?;
        let algorithm = &after_content[..after_content.len() - after_algorithm.len()];
        let content = content.data;
        let mut rest = content;
        loop {
            let (behind, field) = Any::from_der(rest).ok()?;
            rest = behind;
            if field.tag() == Tag::Sequence {
                break;
            }
        }
        let (after, _) = Any::from_der(rest).ok()?;
        Some(Parts {
            before: &content[..content.len() - rest.len()],
            issuer: &rest[..rest.len() - after.len()],
            after,
            algorithm,
        })
    }

    fn signed_anew(&self, issuer: &[u8], key: &KeyPair) -> Result<Vec<u8>, PkiError> {
        let content = [self.before, issuer, self.after].concat();
        let content = der::element(der::SEQUENCE, &content);
        let signature = [&[0][..], &key.sign(&content)?].concat();
        let signature = der::element(der::BIT_STRING, &signature);
        let whole = [&content, self.algorithm, &signature].concat();
        Ok(der::element(der::SEQUENCE, &whole))
    }
}
