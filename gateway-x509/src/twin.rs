//! The other certificate that the holder of one can make of it, without any CA.
//! In: a certificate in DER. Out: the fingerprint of its twin, if its signature has one. Bounded by the certificate's length.
//!
//! Of an ECDSA signature (r, s), in a group of order n, (r, n - s) verifies as well (SEC 1 section 4.1.4). The bytes of the
//! certificate are others then, and nothing else is. Signatures by RSA and Ed25519 have one form that is taken (RFC 8017 section
//! 8.1.2, RFC 8032 section 5.1.7), and DER has one way to write each.

use gateway_core::certificate::Fingerprint;
use ring::digest::{Context, SHA256};
use x509_parser::asn1_rs::{Any, FromDer, Integer, Oid, oid};
use x509_parser::prelude::X509Certificate;

use super::der::{self, BIT_STRING, INTEGER, SEQUENCE};

/// Where the names of signatures by ECDSA begin (RFC 5758 section 3.2).
const ECDSA: Oid<'static> = oid!(1.2.840.10045.4);

/// The orders of P-256, P-384 and P-521 (FIPS 186-4 section D.1.2), big-endian.
const ORDERS: [&[u8]; 3] = [
    &[
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ],
    &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37,
        0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc,
        0xc5, 0x29, 0x73,
    ],
    &[
        0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xfa, 0x51, 0x86, 0x87, 0x83, 0xbf, 0x2f, 0x96, 0x6b, 0x7f, 0xcc, 0x01,
        0x48, 0xf7, 0x09, 0xa5, 0xd0, 0x3b, 0xb5, 0xc9, 0xb8, 0x89, 0x9c, 0x47, 0xae, 0xbb, 0x6f,
        0xb7, 0x1e, 0x91, 0x38, 0x64, 0x09,
    ],
];

/// The fingerprint of the twin of `certificate`, which `parsed` is.
pub(super) fn fingerprint(certificate: &[u8], parsed: &X509Certificate<'_>) -> Option<Fingerprint> {
    let mut context = Context::new(&SHA256);
    for part in twin(certificate, parsed)? {
        context.update(&part);
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.0.copy_from_slice(context.finish().as_ref());
    Some(fingerprint)
}

/// The bytes of the twin, in pieces.
fn twin<'c>(
    certificate: &'c [u8],
    parsed: &X509Certificate<'_>,
) -> Option<[std::borrow::Cow<'c, [u8]>; 3]> {
    let name = parsed.signature_algorithm.algorithm.as_bytes();
    if !name.starts_with(ECDSA.as_bytes()) {
        return None;
    }
    let (_, whole) = Any::from_der(certificate).ok()?;
    let old = bit_string(&parsed.signature_value.data);
    // The signature stands last (RFC 5280 section 4.1).
    let signed = whole.data.strip_suffix(&old[..])?;
    let new = bit_string(&turned_round(&parsed.signature_value.data)?);
    let header = der::header(SEQUENCE, signed.len() + new.len());
    Some([header.into(), signed.into(), new.into()])
}

/// All bits of the last byte count.
fn bit_string(content: &[u8]) -> Vec<u8> {
    der::element(BIT_STRING, &[&[0], content].concat())
}

/// (r, n - s) of a signature (r, s) (RFC 3279 section 2.2.3).
fn turned_round(signature: &[u8]) -> Option<Vec<u8>> {
    let (_, pair) = Any::from_der(signature).ok()?;
    let (rest, r) = Integer::from_der(pair.data).ok()?;
    let (_, s) = Integer::from_der(rest).ok()?;
    let [r, s] = [r.as_ref(), s.as_ref()].map(|number| {
        let first = number.iter().position(|byte| *byte != 0);
        &number[first.unwrap_or(number.len())..]
    });
    // The certificate does not say by which curve it was signed, but the length does: one in 2^128 signatures is shorter by as much as
    // the curves differ, and to search for one takes the CA's key.
    let length = r.len().max(s.len());
    let order = ORDERS.iter().find(|order| length <= order.len())?;
    let other = difference(order, s)?;
    let pair = [integer(r), integer(&other)].concat();
    Some(der::element(SEQUENCE, &pair))
}

/// A number that is not negative.
fn integer(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|byte| *byte != 0);
    let number = &number[first.unwrap_or(number.len())..];
    // Without it the first bit would be the sign; nothing at all is no number.
    let needs_zero = number.first().is_none_or(|byte| *byte >= 0x80);
    let zero: &[u8] = if needs_zero { &[0] } else { &[] };
    der::element(INTEGER, &[zero, number].concat())
}

/// `large` less `small`, of big-endian numbers; `None` where that is negative.
fn difference(large: &[u8], small: &[u8]) -> Option<Vec<u8>> {
    let mut result = large.to_vec();
    let mut digits = small.iter().rev();
    let mut borrowed = false;
    for digit in result.iter_mut().rev() {
        let (less, first) = digit.overflowing_sub(*digits.next().unwrap_or(&0));
        let (less, second) = less.overflowing_sub(u8::from(borrowed));
        *digit = less;
        borrowed = first || second;
    }
    (!borrowed).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    };
    use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::default();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn parsed(certificate: &[u8]) -> X509Certificate<'_> {
        X509Certificate::from_der(certificate).unwrap().1
    }

    fn twin_of(certificate: &[u8]) -> Option<Vec<u8>> {
        Some(twin(certificate, &parsed(certificate))?.concat())
    }

    #[test]
    fn the_twin_of_a_certificate_verifies_and_each_is_the_others() {
        let algorithms: [(_, &dyn ring::signature::VerificationAlgorithm); 2] = [
            (&PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_ASN1),
            (&PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_ASN1),
        ];
        for (algorithm, verification) in algorithms {
            // Signatures vary in length.
            for _ in 0..20 {
                let original = certificate(algorithm);
                let twin = twin_of(&original).unwrap();
                assert_ne!(twin, original);
                let read = parsed(&twin);
                let key = &read.public_key().subject_public_key.data;
                let key = UnparsedPublicKey::new(verification, key);
                let verified =
                    key.verify(read.tbs_certificate.as_ref(), &read.signature_value.data);
                assert!(verified.is_ok());
                assert_eq!(twin_of(&twin), Some(original.clone()));
                let of = |der: &[u8]| crate::client_certificate::fingerprint(&der.to_vec().into());
                assert_eq!(fingerprint(&original, &parsed(&original)), Some(of(&twin)));
                assert_eq!(fingerprint(&twin, &read), Some(of(&original)));
            }
        }
        assert_eq!(twin_of(&certificate(&PKCS_ED25519)), None);
    }

    #[test]
    fn what_is_no_signature_has_no_twin() {
        let pair = |r: &[u8], s: &[u8]| der::element(SEQUENCE, &[integer(r), integer(s)].concat());
        assert!(turned_round(&pair(&[1], &[2])).is_some());
        assert_eq!(turned_round(&[]), None);
        assert_eq!(turned_round(&der::element(SEQUENCE, &integer(&[1]))), None);
        assert_eq!(turned_round(&pair(&[1; 67], &[1])), None);
        // Above the order.
        assert_eq!(turned_round(&pair(&[1], &[0xff; 32])), None);
    }
}
