//! What keys and signatures are called. In: algorithm identifiers in DER. Out: text for errors. Decides nothing.

use rustls::pki_types::{AlgorithmIdentifier, alg_id};
use x509_parser::asn1_rs::{Any, FromDer, Oid};

use super::certificate::oid_text;

/// Signatures by the last part of their object identifiers, below ecdsa-with-SHA2 (RFC 5758 section 3.2) and pkcs-1 (RFC 8017).
const SIGNATURES: [(&str, &str); 11] = [
    ("1.2.840.10045.4.1", "ECDSA with SHA-1"),
    ("1.2.840.10045.4.3.1", "ECDSA with SHA-224"),
    ("1.2.840.10045.4.3.2", "ECDSA with SHA-256"),
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384"),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512"),
    ("1.2.840.113549.1.1.4", "RSA with MD5"),
    ("1.2.840.113549.1.1.5", "RSA with SHA-1"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.113549.1.1.11", "RSA with SHA-256"),
    ("1.2.840.113549.1.1.12", "RSA with SHA-384"),
    ("1.2.840.113549.1.1.13", "RSA with SHA-512"),
];

const KEYS: [(AlgorithmIdentifier, &str); 5] = [
    (alg_id::ECDSA_P256, "P-256"),
    (alg_id::ECDSA_P384, "P-384"),
    (alg_id::ECDSA_P521, "P-521"),
    (alg_id::ED25519, "Ed25519"),
    (alg_id::RSA_ENCRYPTION, "RSA"),
];

/// What signs; `algorithm` is without tag and length.
pub(super) fn signature(algorithm: &[u8]) -> String {
    let Ok((_, oid)) = Oid::from_der(algorithm) else {
        return "an algorithm without a name".to_owned();
    };
    let text = oid_text(&oid);
    let known = SIGNATURES.iter().find(|(known, _)| *known == text);
    known.map_or(text, |(_, name)| (*name).to_owned())
}

/// What a key is; `info` is the inside of a SubjectPublicKeyInfo, as trust anchors hold it.
pub(super) fn key(info: &[u8]) -> String {
    let Ok((_, algorithm)) = Any::from_der(info) else {
        return "an algorithm without a name".to_owned();
    };
    let known = KEYS
        .iter()
        .find(|(known, _)| known.as_ref() == algorithm.data);
    known.map_or_else(|| signature(algorithm.data), |(_, name)| (*name).to_owned())
}
