//! Which keys, signatures and chain lengths clients may come with.
//! In: names from the configuration; then a verified path, or the error that ended the search for one. Out: whether the
//! policy allows it, and if not, what was found and what is allowed. Inside a call into rustls, on the worker.

use gateway_core::certificate::Chain;
use gateway_core::failure::Failure;
use gateway_core::limits;
use gateway_x509::certificate::oid_text;
use gateway_x509::chain;
use gateway_x509::{PathPolicy, Refused, Verified};
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};
use webpki::VerifiedPath;
use x509_parser::oid_registry::{self, Oid, asn1_rs::oid};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Key types that are known by a name alone.
const KINDS: [(&str, AlgorithmIdentifier); 7] = [
    ("ECDSA-P256", alg_id::ECDSA_P256),
    ("ECDSA-P384", alg_id::ECDSA_P384),
    ("ECDSA-P521", alg_id::ECDSA_P521),
    ("Ed25519", alg_id::ED25519),
    ("ML-DSA-44", alg_id::ML_DSA_44),
    ("ML-DSA-65", alg_id::ML_DSA_65),
    ("ML-DSA-87", alg_id::ML_DSA_87),
];

/// Signature schemes by their names in RFC 8446 section 4.2.3 and draft-ietf-tls-mldsa.
const SCHEMES: [(&str, SignatureScheme); 13] = [
    (
        "ecdsa_secp256r1_sha256",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
    (
        "ecdsa_secp384r1_sha384",
        SignatureScheme::ECDSA_NISTP384_SHA384,
    ),
    (
        "ecdsa_secp521r1_sha512",
        SignatureScheme::ECDSA_NISTP521_SHA512,
    ),
    ("ed25519", SignatureScheme::ED25519),
    ("rsa_pss_rsae_sha256", SignatureScheme::RSA_PSS_SHA256),
    ("rsa_pss_rsae_sha384", SignatureScheme::RSA_PSS_SHA384),
    ("rsa_pss_rsae_sha512", SignatureScheme::RSA_PSS_SHA512),
    ("rsa_pkcs1_sha256", SignatureScheme::RSA_PKCS1_SHA256),
    ("rsa_pkcs1_sha384", SignatureScheme::RSA_PKCS1_SHA384),
    ("rsa_pkcs1_sha512", SignatureScheme::RSA_PKCS1_SHA512),
    ("mldsa44", SignatureScheme::ML_DSA_44),
    ("mldsa65", SignatureScheme::ML_DSA_65),
    ("mldsa87", SignatureScheme::ML_DSA_87),
];

/// Signatures that certificates may bear and TLS 1.3 clients do not prove themselves by (RFC 8446 section 4.2.3).
const CERTIFICATES_ONLY: [SignatureScheme; 3] = [
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// A public key, as far as a policy looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// One of `KINDS`.
    Named(&'static str),
    /// RSA, with the length of its modulus.
    Rsa { bits: usize },
    /// Something no policy can allow.
    Other(String),
}

/// An entry of `client_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A key type that its name says all about.
    Named(&'static str),
    /// RSA of so many bits or more.
    Rsa {
        /// Least length of the modulus.
        bits_min: usize,
    },
}

impl KeyKind {
    fn allows(self, key: &Key) -> bool {
        match (self, key) {
            (KeyKind::Named(allowed), Key::Named(found)) => allowed == *found,
            (KeyKind::Rsa { bits_min }, Key::Rsa { bits }) => {
                (bits_min..=*limits::RSA_BITS.end()).contains(bits)
            }
            (KeyKind::Named(_), Key::Rsa { .. } | Key::Other(_))
            | (KeyKind::Rsa { .. }, Key::Named(_) | Key::Other(_)) => false,
        }
    }
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyKind::Named(name) => formatter.write_str(name),
            KeyKind::Rsa { bits_min } => write!(formatter, "RSA-{bits_min}"),
        }
    }
}

/// What clients' certificates may be made of.
#[derive(Debug, Clone)]
pub struct KeyPolicy {
    keys: Vec<KeyKind>,
    schemes: Vec<SignatureScheme>,
    /// What signs a certificate: the algorithms of `schemes`, or all the provider has.
    signatures: Vec<&'static dyn SignatureVerificationAlgorithm>,
    provider: WebPkiSupportedAlgorithms,
    depth_max: usize,
}

impl KeyPolicy {
    /// What `provider` can verify, where nothing is pinned; RSA from 2048 bits.
    pub fn of(provider: &CryptoProvider) -> Self {
        let provider = provider.signature_verification_algorithms;
        let named = KINDS
            .iter()
            .filter(|(_, algorithm)| can_verify(&provider, *algorithm))
            .map(|(name, _)| KeyKind::Named(name));
        let rsa = KeyKind::Rsa {
            bits_min: *limits::RSA_BITS.start(),
        };
        KeyPolicy {
            keys: named.chain([rsa]).collect(),
            schemes: provider.supported_schemes(),
            signatures: provider.all.to_vec(),
            provider,
            depth_max: limits::CHAIN_DEPTH_DEFAULT,
        }
    }

    /// The key type that `name` stands for, if this policy's provider can verify it.
    pub fn find_key(&self, name: &str) -> Result<KeyKind, String> {
        let rsa = name.strip_prefix("RSA-").map(str::parse::<usize>);
        let found = match rsa {
            Some(Ok(bits_min)) if limits::RSA_BITS.contains(&bits_min) => {
                Some(KeyKind::Rsa { bits_min })
            }
            Some(_) => None,
            None => self
                .keys
                .iter()
                .copied()
                .find(|kind| matches!(kind, KeyKind::Named(known) if *known == name)),
        };
        found.ok_or_else(|| {
            format!(
                "must be one of {} (RSA from {} to {} bits)",
                self.key_names(),
                limits::RSA_BITS.start(),
                limits::RSA_BITS.end()
            )
        })
    }

    /// The scheme that `name` stands for, if this policy's provider can verify it.
    pub fn find_signature(&self, name: &str) -> Result<SignatureScheme, String> {
        let found = SCHEMES
            .iter()
            .find(|(known, scheme)| *known == name && self.schemes.contains(scheme));
        found
            .map(|(_, scheme)| *scheme)
            .ok_or_else(|| format!("must be one of {}", self.signature_names()))
    }

    /// Allows these keys only.
    pub fn pin_keys(&mut self, keys: Vec<KeyKind>) {
        self.keys = keys;
    }

    /// Allows these signatures only, on certificates and as proof of possession.
    ///
    /// # Errors
    ///
    /// What the list lacks: with PKCS #1 alone no TLS 1.3 client can prove anything (RFC 8446 section 4.2.3).
    pub fn pin_signatures(&mut self, schemes: Vec<SignatureScheme>) -> Result<(), &'static str> {
        if schemes
            .iter()
            .all(|scheme| CERTIFICATES_ONLY.contains(scheme))
        {
            return Err(
                "must name one that TLS 1.3 clients prove themselves by: rsa_pkcs1_* signs certificates only",
            );
        }
        let pinned: Vec<_> = (self.provider.mapping.iter())
            .filter(|(scheme, _)| schemes.contains(scheme))
            .filter_map(|(_, algorithms)| algorithms.first())
            .collect();
        self.signatures
            .retain(|known| pinned.iter().any(|pinned| same(**pinned, *known)));
        self.schemes.retain(|known| schemes.contains(known));
        Ok(())
    }

    /// Allows chains of so many certificates, the client's own included and the CA's not.
    pub fn limit_depth(&mut self, depth_max: usize) {
        self.depth_max = depth_max;
    }

    /// The keys by name.
    pub fn key_names(&self) -> String {
        let names: Vec<_> = self.keys.iter().map(KeyKind::to_string).collect();
        names.join(", ")
    }

    /// The signatures by name.
    pub fn signature_names(&self) -> String {
        let allowed = SCHEMES
            .iter()
            .filter(|(_, scheme)| self.schemes.contains(scheme));
        let names: Vec<_> = allowed.map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// How many certificates a chain may have.
    pub fn depth_max(&self) -> usize {
        self.depth_max
    }

    /// Schemes a client may prove possession with, in the provider's order.
    pub fn schemes(&self) -> &[SignatureScheme] {
        &self.schemes
    }

    /// Algorithms certificates may be signed with.
    pub fn signatures(&self) -> &[&'static dyn SignatureVerificationAlgorithm] {
        &self.signatures
    }

    /// Evaluates the keys and the length of a verified path, except the CA: the author of the
    /// configuration chose that one.
    ///
    /// # Errors
    ///
    /// What was found and what is allowed.
    fn evaluate_path(&self, path: &VerifiedPath<'_>) -> Result<(), String> {
        let leaf = path.end_entity().subject_public_key_info();
        self.evaluate_key(&leaf)
            .map_err(|found| self.refused_key("the certificate", &found))?;
        self.evaluate_proof(&leaf)?;
        let mut depth = 1;
        for intermediate in path.intermediate_certificates() {
            self.evaluate_key(&intermediate.subject_public_key_info())
                .map_err(|found| self.refused_key("an intermediate certificate", &found))?;
            depth += 1;
        }
        match depth <= self.depth_max {
            true => Ok(()),
            false => Err(format!(
                "a chain of {depth} certificates, max_chain_depth = {}",
                self.depth_max
            )),
        }
    }

    /// Whether webpki found no path because of a key or signature that the policy does not allow. `sent` are the
    /// certificates between the client's and the CA, of which nothing is verified: this names a reason, it grants nothing.
    fn explain_weakness(
        &self,
        error: &webpki::Error,
        sent: &[CertificateDer<'_>],
    ) -> Option<String> {
        use webpki::Error::{
            InvalidSignatureForPublicKey, UnsupportedSignatureAlgorithmContext,
            UnsupportedSignatureAlgorithmForPublicKeyContext,
        };
        match error {
            UnsupportedSignatureAlgorithmContext(context) => {
                let found = signature_name(&context.signature_algorithm_id);
                Some(self.refused_signature(&found))
            }
            UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
                let signature = context.signature_algorithm_id.as_slice();
                let key = context.public_key_algorithm_id.as_slice();
                // A signature that this kind of key cannot make is a forgery, and not weak.
                let is_possible = self.provider.all.iter().any(|algorithm| {
                    algorithm.public_key_alg_id().as_ref() == key
                        && algorithm.signature_alg_id().as_ref() == signature
                });
                let signed = || self.refused_signature(&signature_name(signature));
                self.find_weak(sent).or_else(|| is_possible.then(signed))
            }
            // A library that refuses a short RSA key says that the signature is wrong.
            InvalidSignatureForPublicKey => self.find_weak(sent),
            _ => None,
        }
    }

    /// The first of these certificates whose key is not allowed, in words.
    fn find_weak(&self, sent: &[CertificateDer<'_>]) -> Option<String> {
        sent.iter().find_map(|certificate| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            let found = Key::of(parsed.public_key());
            let refused = || self.refused_key("an intermediate certificate", &found);
            (!self.allows(&found)).then(refused)
        })
    }

    /// Whether a certificate can be verified by this public key at all, whatever is pinned. For CAs.
    ///
    /// # Errors
    ///
    /// What the key is.
    pub fn can_certify(provider: &CryptoProvider, public_key: &[u8]) -> Result<(), String> {
        KeyPolicy::of(provider)
            .evaluate_key(&SubjectPublicKeyInfoDer::from(public_key))
            .map_err(|found| found.describe())
    }

    /// Whether a key can make any of the signatures that prove possession. A client with another would fail at the proof.
    fn evaluate_proof(&self, public_key: &SubjectPublicKeyInfoDer<'_>) -> Result<(), String> {
        let found = match SubjectPublicKeyInfo::from_der(public_key) {
            Ok((_, parsed)) => Key::of(&parsed),
            Err(_) => return Ok(()), // refused before
        };
        let algorithm = match &found {
            Key::Named(name) => KINDS.iter().find(|(known, _)| known == name),
            Key::Rsa { .. } => Some(&("RSA", alg_id::RSA_ENCRYPTION)),
            Key::Other(_) => None,
        };
        let key = algorithm.map(|(_, id)| *id);
        let is_able = self.provider.mapping.iter().any(|(scheme, algorithms)| {
            self.schemes.contains(scheme)
                && !CERTIFICATES_ONLY.contains(scheme)
                && algorithms.first().map(|first| first.public_key_alg_id()) == key
        });
        match is_able {
            true => Ok(()),
            false => Err(format!(
                "the key of the certificate is {} and makes none of {}",
                found.describe(),
                self.signature_names()
            )),
        }
    }

    fn evaluate_key(&self, public_key: &SubjectPublicKeyInfoDer<'_>) -> Result<(), Key> {
        let found = match SubjectPublicKeyInfo::from_der(public_key) {
            Ok((_, parsed)) => Key::of(&parsed),
            Err(_) => Key::Other("a key that cannot be read".to_owned()),
        };
        match self.allows(&found) {
            true => Ok(()),
            false => Err(found),
        }
    }

    fn allows(&self, key: &Key) -> bool {
        self.keys.iter().any(|kind| kind.allows(key))
    }

    fn refused_key(&self, whose: &str, found: &Key) -> String {
        format!(
            "the key of {whose} is {}, allowed are {}",
            found.describe(),
            self.key_names()
        )
    }

    fn refused_signature(&self, found: &str) -> String {
        format!(
            "a certificate of the chain is signed with {found}, allowed are {}",
            self.signature_names()
        )
    }
}

impl PathPolicy for KeyPolicy {
    type Accepted = Chain;

    fn accept(&self, verified: &Verified<'_>) -> Result<Chain, Refused> {
        self.evaluate_path(verified.path)
            .map_err(|detail| Refused::new(Failure::WeakKey, detail))?;
        chain::read(verified).map_err(|error| Refused::new(Failure::Malformed, error.to_string()))
    }

    fn explain(&self, error: &webpki::Error, above: &[CertificateDer<'_>]) -> Option<Refused> {
        self.explain_weakness(error, above)
            .map(|detail| Refused::new(Failure::WeakKey, detail))
    }
}

impl Key {
    fn of(info: &SubjectPublicKeyInfo<'_>) -> Key {
        let algorithm = &info.algorithm;
        let oid = &algorithm.algorithm;
        if *oid == oid_registry::OID_PKCS1_RSAENCRYPTION {
            return match info.parsed() {
                Ok(PublicKey::RSA(key)) => Key::Rsa {
                    bits: bit_length(key.modulus),
                },
                _ => Key::Other("an RSA key that cannot be read".to_owned()),
            };
        }
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        let elliptic = *oid == oid_registry::OID_KEY_TYPE_EC_PUBLIC_KEY;
        let named = [
            (oid!(1.2.840.10045.3.1.7), "ECDSA-P256"),
            (oid!(1.3.132.0.34), "ECDSA-P384"),
            (oid!(1.3.132.0.35), "ECDSA-P521"),
            (oid!(1.3.101.112), "Ed25519"),
            (oid!(2.16.840.1.101.3.4.3.17), "ML-DSA-44"),
            (oid!(2.16.840.1.101.3.4.3.18), "ML-DSA-65"),
            (oid!(2.16.840.1.101.3.4.3.19), "ML-DSA-87"),
        ];
        let told_by = if elliptic { curve.as_ref() } else { Some(oid) };
        let known = named.iter().find(|(known, _)| Some(known) == told_by);
        match (known, told_by) {
            (Some((_, name)), _) => Key::Named(name),
            (None, Some(oid)) => Key::Other(oid_name(oid)),
            (None, None) => Key::Other("on a curve of its own".to_owned()),
        }
    }

    fn describe(&self) -> String {
        match self {
            Key::Named(name) => (*name).to_owned(),
            Key::Rsa { bits } => format!("RSA-{bits}"),
            Key::Other(name) => name.clone(),
        }
    }
}

/// Whether `provider` verifies signatures by keys of this kind.
fn can_verify(provider: &WebPkiSupportedAlgorithms, key: AlgorithmIdentifier) -> bool {
    let kinds = provider.all.iter();
    kinds
        .map(|algorithm| algorithm.public_key_alg_id())
        .any(|known| known.as_ref() == key.as_ref())
}

/// Whether two algorithms are the same signature by the same kind of key. PKCS #1 may be written with NULL parameters and
/// without (RFC 4055 section 5: both must be accepted).
fn same(
    one: &dyn SignatureVerificationAlgorithm,
    other: &dyn SignatureVerificationAlgorithm,
) -> bool {
    const NULL: [u8; 2] = [5, 0];
    let bare = |algorithm: AlgorithmIdentifier| {
        let bytes = algorithm.as_ref();
        bytes.strip_suffix(&NULL).unwrap_or(bytes).to_vec()
    };
    one.public_key_alg_id() == other.public_key_alg_id()
        && bare(one.signature_alg_id()) == bare(other.signature_alg_id())
}

/// Length of a number in bits, its leading zeros left out.
fn bit_length(number: &[u8]) -> usize {
    let significant = number.iter().position(|byte| *byte != 0);
    let bytes = significant.map_or(&[][..], |start| &number[start..]);
    match bytes.first() {
        None => 0,
        Some(first) => 8 * bytes.len() - first.leading_zeros() as usize,
    }
}

/// The name of the signature algorithm in the content of an AlgorithmIdentifier.
fn signature_name(algorithm: &[u8]) -> String {
    match Oid::from_der(algorithm) {
        Ok((_, oid)) => oid_name(&oid),
        Err(_) => "an algorithm that cannot be read".to_owned(),
    }
}

fn oid_name(oid: &Oid<'_>) -> String {
    // The registry has its successors only.
    if *oid == oid!(1.2.840.10045.4.1) {
        return "ecdsa-with-SHA1".to_owned();
    }
    // Looking it up reads the whole of it.
    if oid.as_bytes().len() > limits::OID_BYTES_MAX {
        return oid_text(oid);
    }
    match x509_parser::objects::oid2sn(oid, x509_parser::objects::oid_registry()) {
        Ok(name) => name.to_owned(),
        Err(_) => oid_text(oid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::{aws_lc_rs, ring};

    #[test]
    fn every_key_type_and_scheme_of_the_providers_has_a_name() {
        for provider in [ring::default_provider(), aws_lc_rs::default_provider()] {
            let policy = KeyPolicy::of(&provider);
            for algorithm in provider.signature_verification_algorithms.all {
                let key = algorithm.public_key_alg_id();
                let named = KINDS.iter().find(|(_, known)| *known == key);
                let rsa = key == alg_id::RSA_ENCRYPTION;
                assert!(named.is_some() || rsa, "{key:?}");
                if let Some((name, _)) = named {
                    assert_eq!(policy.find_key(name).unwrap().to_string(), *name);
                }
            }
            for scheme in provider
                .signature_verification_algorithms
                .supported_schemes()
            {
                let (name, _) = SCHEMES.iter().find(|(_, known)| *known == scheme).unwrap();
                assert_eq!(policy.find_signature(name), Ok(scheme));
            }
        }
    }

    #[test]
    fn what_a_provider_lacks_and_what_is_too_weak_cannot_be_named() {
        let policy = KeyPolicy::of(&ring::default_provider());
        for name in [
            "ECDSA-P521",
            "RSA-1024",
            "RSA-16384",
            "RSA",
            "DSA",
            "ecdsa-p256",
            "",
        ] {
            let refused = policy.find_key(name).unwrap_err();
            assert!(
                refused.contains("ECDSA-P256, ECDSA-P384, Ed25519, RSA-2048"),
                "{refused}"
            );
        }
        for name in ["rsa_pkcs1_sha1", "ecdsa_sha1", "ecdsa_secp521r1_sha512", ""] {
            let refused = policy.find_signature(name).unwrap_err();
            assert!(!refused.contains("sha1,"), "{refused}");
        }
        assert!(
            KeyPolicy::of(&aws_lc_rs::default_provider())
                .find_key("ECDSA-P521")
                .is_ok()
        );
    }

    #[test]
    fn rsa_keys_are_measured_by_their_first_bit() {
        assert_eq!(bit_length(&[0, 0x80, 0]), 16);
        assert_eq!(bit_length(&[0x7f, 0]), 15);
        assert_eq!(bit_length(&[0, 0]), 0);
        let from_3072 = KeyKind::Rsa { bits_min: 3072 };
        assert!(from_3072.allows(&Key::Rsa { bits: 3072 }));
        assert!(!from_3072.allows(&Key::Rsa { bits: 3071 }));
        assert!(!from_3072.allows(&Key::Rsa { bits: 8193 }));
    }

    #[test]
    fn pinned_signatures_leave_their_algorithms_only_with_null_parameters_and_without() {
        let mut policy = KeyPolicy::of(&ring::default_provider());
        let certificates_only = vec![SignatureScheme::RSA_PKCS1_SHA256];
        assert!(policy.pin_signatures(certificates_only).is_err());
        let schemes = vec![SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::ED25519];
        policy.pin_signatures(schemes).unwrap();
        assert_eq!(policy.signature_names(), "ed25519, rsa_pkcs1_sha256");
        let left: Vec<_> = policy
            .signatures
            .iter()
            .map(|one| one.public_key_alg_id())
            .collect();
        let rsa = alg_id::RSA_ENCRYPTION;
        assert_eq!(left, [alg_id::ED25519, rsa, rsa]);
    }
}
