//! What a certificate says, as far as configuration, `check` and `pki list` look at it.
//! In: one certificate in DER. Out: `CertificateInfo`. Verifies nothing: that is the verifier's work.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use gateway_core::certificate::without_root;
use gateway_core::limits;
use gateway_core::revocation::Serial;
use gateway_core::visible::{self, Bounded};
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension};
use x509_parser::nom::Err;
use x509_parser::objects::{oid_registry as known_objects, oid2abbrev};
use x509_parser::oid_registry::{self, Oid, asn1_rs::oid};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, SubjectPublicKeyInfo, X509Name};

/// The parts of a certificate that people and checks look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Subject, as RFC 4514 text; where that is empty, as RFC 5280 section 4.1.2.6 allows, the first alternative name.
    pub subject: String,
    /// Issuer, as RFC 4514 text.
    pub issuer: String,
    /// Subject, in DER: what chains are compared by.
    pub subject_der: Vec<u8>,
    /// Issuer, in DER.
    pub issuer_der: Vec<u8>,
    /// Public key with its algorithm, in DER.
    pub public_key_der: Vec<u8>,
    /// Subject key identifier.
    pub key_id: Option<Vec<u8>>,
    /// Key identifier of the issuer.
    pub issuer_key_id: Option<Vec<u8>>,
    /// Serial number as `Serial` writes it: lower-case hexadecimal without leading zeros.
    pub serial: String,
    /// Subject alternative names of type URI.
    pub uris: Vec<String>,
    /// Subject alternative names of type DNS, in lower case and without the dot of the root.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP address.
    pub ip_addresses: Vec<IpAddr>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// Basic constraints say that it is a CA.
    pub is_authority: bool,
    /// How many authorities may follow it in a chain, where that is limited.
    pub path_length: Option<u32>,
    /// Key usage says what the key is for, and signing certificates is not among it.
    pub cannot_sign_certificates: bool,
    /// Key usage says what the key is for, and signing revocation lists is not among it.
    pub cannot_sign_lists: bool,
    /// Key usage says what the key is for, and digital signatures, which TLS 1.3 proves possession by, are not among it.
    pub cannot_sign_handshakes: bool,
    /// The algorithm of the public key.
    pub key: KeyAlgorithm,
    /// Signed by way of a digest that collides: MD5 or SHA-1.
    pub has_broken_signature: bool,
    /// Purposes by extended key usage; `None` without the extension: any purpose.
    pub purposes: Option<Purposes>,
}

/// Purposes that an extended key usage extension allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purposes {
    /// Id-kp-serverAuth.
    pub server: bool,
    /// Id-kp-clientAuth.
    pub client: bool,
}

/// The certificate is not one. In our own words: what a parser says of bytes may repeat them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a readable certificate: {0}")]
pub struct NotACertificate(&'static str);

impl NotACertificate {
    fn because(error: &X509Error) -> Self {
        NotACertificate(match error {
            X509Error::InvalidVersion => "its version is none of 1 to 3",
            X509Error::InvalidSerial => "its serial number is broken",
            X509Error::InvalidAlgorithmIdentifier => "its signature algorithm is broken",
            X509Error::InvalidX509Name => "its subject or issuer is broken",
            X509Error::InvalidDate => "its validity is broken (RFC 5280 section 4.1.2.5)",
            X509Error::InvalidSPKI => "its public key is broken",
            X509Error::InvalidExtensions => "its extensions are broken (RFC 5280 section 4.2)",
            X509Error::DuplicateExtensions => {
                "an extension is in it twice (RFC 5280 section 4.2 forbids it)"
            }
            X509Error::SignatureVerificationError
            | X509Error::SignatureUnsupportedAlgorithm
            | X509Error::InvalidSignatureValue => "its signature is broken",
            _ => "its DER is broken, or of something else",
        })
    }
}

impl CertificateInfo {
    /// Reads a certificate.
    pub fn parse(der: &[u8]) -> Result<Self, NotACertificate> {
        let broken = |error: &X509Error| NotACertificate::because(error);
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| match error {
            Err::Error(error) | Err::Failure(error) => broken(&error),
            Err::Incomplete(_) => NotACertificate("it is cut off"),
        })?;
        if !rest.is_empty() {
            return Err(NotACertificate("bytes follow it"));
        }
        let constraints = certificate.basic_constraints().map_err(|e| broken(&e))?;
        let usage = certificate.key_usage().map_err(|e| broken(&e))?;
        let lacks = |allows: fn(&KeyUsage) -> bool| {
            usage.as_ref().is_some_and(|found| !allows(found.value))
        };
        let purposes = certificate.extended_key_usage().map_err(|e| broken(&e))?;
        let mut info = CertificateInfo {
            subject: name_text(certificate.subject()),
            issuer: name_text(certificate.issuer()),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
            public_key_der: certificate.public_key().raw.to_vec(),
            key_id: None,
            issuer_key_id: None,
            serial: serial_text(certificate.raw_serial()),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
            is_authority: constraints.as_ref().is_some_and(|found| found.value.ca),
            path_length: constraints.and_then(|found| found.value.path_len_constraint),
            cannot_sign_certificates: lacks(KeyUsage::key_cert_sign),
            cannot_sign_lists: lacks(KeyUsage::crl_sign),
            cannot_sign_handshakes: lacks(KeyUsage::digital_signature),
            key: KeyAlgorithm::of(certificate.public_key()),
            has_broken_signature: is_broken(&certificate.signature_algorithm.algorithm),
            purposes: purposes.map(|found| Purposes {
                server: found.value.server_auth,
                client: found.value.client_auth,
            }),
        };
        if let Some(names) = certificate
            .subject_alternative_name()
            .map_err(|e| broken(&e))?
        {
            names
                .value
                .general_names
                .iter()
                .for_each(|name| info.add_name(name));
        }
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => info.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    info.issuer_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                // The others were read above, or say nothing that is looked at.
                _ => {}
            }
        }
        if info.subject.is_empty()
            && let Some(name) = info.names().into_iter().next()
        {
            info.subject = name;
        }
        Ok(info)
    }

    /// Whether `issuer` bears the name of this certificate's issuer, and its key identifier where both state one.
    pub fn is_of(&self, issuer: &CertificateInfo) -> bool {
        let same_key = match (&self.issuer_key_id, &issuer.key_id) {
            (Some(named), Some(held)) => named == held,
            _ => true,
        };
        self.issuer_der == issuer.subject_der && same_key
    }

    /// All alternative names, for people: control characters are escaped.
    pub fn names(&self) -> Vec<String> {
        let addresses = self.ip_addresses.iter().map(IpAddr::to_string);
        let texts = self
            .uris
            .iter()
            .chain(&self.dns_names)
            .map(|name| name.escape_debug().to_string());
        texts.chain(addresses).collect()
    }

    /// What the certificate is for, as `pki issue` calls it.
    pub fn profile(&self) -> &'static str {
        match (self.is_authority, self.purposes) {
            (true, _) => "ca",
            (false, None) => "any",
            (
                false,
                Some(Purposes {
                    server: true,
                    client: true,
                }),
            ) => "component",
            (
                false,
                Some(Purposes {
                    server: true,
                    client: false,
                }),
            ) => "gateway",
            (
                false,
                Some(Purposes {
                    server: false,
                    client: true,
                }),
            ) => "agent",
            (
                false,
                Some(Purposes {
                    server: false,
                    client: false,
                }),
            ) => "other",
        }
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns_names.push(dns_name(name)),
            GeneralName::IPAddress(bytes) => self.ip_addresses.extend(ip_address(bytes)),
            // Names of other types are matched by no rule and verified by no client of ours.
            _ => {}
        }
    }
}

/// A DNS name as rules, `check` and `pki list` compare it: in lower case, without the dot of the root.
pub fn dns_name(name: &str) -> String {
    without_root(name).to_ascii_lowercase()
}

/// A serial number as text, however long it is: beyond a bound it is cut.
fn serial_text(integer: &[u8]) -> String {
    Serial::new(integer).map_or_else(
        // Longer than RFC 5280 allows.
        |_| {
            let mut text = Bounded::new(limits::TEXT_BYTES_MAX);
            let _ = write_hexadecimal(&mut text, integer);
            text.into_text()
        },
        |serial| serial.to_string(),
    )
}

/// The algorithm of a public key, as far as it decides which program can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// Ed448.
    Ed448,
    /// RSA, with the length of its modulus in bits.
    Rsa(usize),
    /// Any other.
    Other,
}

impl KeyAlgorithm {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        const ED25519: Oid<'_> = oid!(1.3.101.112);
        const ED448: Oid<'_> = oid!(1.3.101.113);
        let curve = || key.algorithm.parameters.as_ref()?.as_oid().ok();
        match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => KeyAlgorithm::Rsa(rsa.key_size()),
            Ok(PublicKey::EC(_)) => match curve() {
                Some(curve) if curve == oid_registry::OID_EC_P256 => KeyAlgorithm::P256,
                Some(curve) if curve == oid_registry::OID_NIST_EC_P384 => KeyAlgorithm::P384,
                Some(curve) if curve == oid_registry::OID_NIST_EC_P521 => KeyAlgorithm::P521,
                _ => KeyAlgorithm::Other,
            },
            _ if key.algorithm.algorithm == ED25519 => KeyAlgorithm::Ed25519,
            _ if key.algorithm.algorithm == ED448 => KeyAlgorithm::Ed448,
            _ => KeyAlgorithm::Other,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            KeyAlgorithm::P256 => "P-256",
            KeyAlgorithm::P384 => "P-384",
            KeyAlgorithm::P521 => "P-521",
            KeyAlgorithm::Ed25519 => "Ed25519",
            KeyAlgorithm::Ed448 => "Ed448",
            KeyAlgorithm::Rsa(bits) => return write!(formatter, "RSA of {bits} bits"),
            KeyAlgorithm::Other => "of another algorithm",
        })
    }
}

/// Whether a signature algorithm rests on MD5 or SHA-1 (RFC 3279 section 2.2).
fn is_broken(algorithm: &Oid<'_>) -> bool {
    const BROKEN: [Oid<'_>; 5] = [
        oid!(1.2.840.113549.1.1.4),
        oid!(1.2.840.113549.1.1.5),
        oid!(1.2.840.10045.4.1),
        oid!(1.2.840.10040.4.3),
        oid!(1.3.14.3.2.29),
    ];
    BROKEN.contains(algorithm)
}

/// An iPAddress of a subject alternative name (RFC 5280 section 4.2.1.6); `None` where it is neither IPv4 nor IPv6.
pub fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A moment as the standard library has it.
pub fn system_time(time: ASN1Time) -> SystemTime {
    // Certificates name the years 0 to 9999 only: neither direction overflows.
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    if time.timestamp() < 0 {
        SystemTime::UNIX_EPOCH - seconds
    } else {
        SystemTime::UNIX_EPOCH + seconds
    }
}

/// A name as RFC 4514 writes it: last part first, `CN=a,O=b`. The certificate's maker chooses how long it is: what is beyond
/// `limits::TEXT_BYTES_MAX` is neither written nor looked at, and an ellipsis stands for it.
pub fn name_text(name: &X509Name<'_>) -> String {
    let mut text = Bounded::new(limits::TEXT_BYTES_MAX);
    // The one error there is says that the room is used up.
    let _ = write_name(&mut text, name);
    text.into_text()
}

/// An object identifier as text, of bounded length likewise.
pub fn oid_text(oid: &Oid<'_>) -> String {
    let mut text = Bounded::new(limits::TEXT_BYTES_MAX);
    let _ = write_oid(&mut text, oid);
    text.into_text()
}

fn write_name(text: &mut Bounded, name: &X509Name<'_>) -> fmt::Result {
    let parts: Vec<_> = name.iter().collect();
    for (position, part) in parts.iter().rev().enumerate() {
        if position > 0 {
            text.write_char(',')?;
        }
        for (position, attribute) in part.iter().enumerate() {
            if position > 0 {
                text.write_char('+')?;
            }
            write_attribute(text, attribute)?;
        }
    }
    Ok(())
}

fn write_attribute(text: &mut Bounded, attribute: &AttributeTypeAndValue<'_>) -> fmt::Result {
    let oid = attribute.attr_type();
    // Looking it up reads the whole of it.
    let known = (oid.as_bytes().len() <= limits::OID_BYTES_MAX)
        .then(|| oid2abbrev(oid, known_objects()).ok())
        .flatten();
    match known {
        Some(label) => text.write_str(label)?,
        None => write_oid(text, oid)?,
    }
    match text_value(attribute) {
        Some(value) => {
            text.write_char('=')?;
            write_escaped(text, &value)
        }
        None => {
            text.write_str("=#")?;
            write_hexadecimal(text, attribute.attr_value().data)
        }
    }
}

/// In numbers; in hexadecimal where it is longer than any that is registered.
fn write_oid(text: &mut Bounded, oid: &Oid<'_>) -> fmt::Result {
    match oid.as_bytes() {
        long if long.len() > limits::OID_BYTES_MAX => {
            text.write_char('#')?;
            write_hexadecimal(text, long)
        }
        _ => text.write_str(&oid.to_id_string()),
    }
}

fn write_hexadecimal(text: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    for byte in bytes {
        text.write_char(DIGITS[usize::from(byte >> 4)])?;
        text.write_char(DIGITS[usize::from(byte & 0xf)])?;
    }
    Ok(())
}

/// The text of an attribute. Of the string types of RFC 5280 section 4.1.2.4 also those that only old CAs write: BMPString,
/// and TeletexString as far as it is ASCII, beyond which readers disagree on what it says.
pub fn text_value(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    if let Ok(text) = attribute.as_str() {
        return Some(text.to_owned());
    }
    let value = attribute.attr_value();
    match value.tag() {
        Tag::BmpString => {
            let (pairs, rest) = value.data.as_chunks::<2>();
            let units: Vec<_> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        Tag::TeletexString => {
            let text = std::str::from_utf8(value.data).ok()?;
            text.is_ascii().then(|| text.to_owned())
        }
        _ => None,
    }
}

/// RFC 4514 section 2.4, and control characters as hexadecimal: names end up on terminals and in logs.
fn write_escaped(text: &mut impl fmt::Write, value: &str) -> fmt::Result {
    for (index, character) in value.char_indices() {
        let at_edge = index == 0 || index + character.len_utf8() == value.len();
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => {
                text.write_char('\\')?;
                text.write_char(character)?;
            }
            ' ' if at_edge => text.write_str("\\ ")?,
            '#' if index == 0 => text.write_str("\\#")?,
            hidden if visible::is_hidden(hidden) => {
                for byte in hidden.encode_utf8(&mut [0; 4]).as_bytes() {
                    text.write_char('\\')?;
                    write_hexadecimal(text, std::slice::from_ref(byte))?;
                }
            }
            plain => text.write_char(plain)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escape(value: &str) -> String {
        let mut text = String::new();
        write_escaped(&mut text, value).unwrap();
        text
    }

    /// A value of DER, its length in three bytes at most.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&[tag, 0x83], &length[1..], content].concat()
    }

    fn text_of_name(oid: &[u8], value: &[u8]) -> String {
        let attribute = der(0x30, &[der(6, oid), value.to_vec()].concat());
        let name = der(0x30, &der(0x31, &attribute));
        let (_, name) = X509Name::from_der(&name).unwrap();
        name_text(&name)
    }

    #[test]
    fn a_name_of_any_length_and_type_is_a_text_of_bounded_length() {
        const COMMON_NAME: &[u8] = &[0x55, 4, 3];
        let long_oid = [&[0x2a][..], &[0x81; 56_000], &[1]].concat();
        let short_arcs = [0x2a; 56_000];
        let cases = [
            text_of_name(COMMON_NAME, &der(3, &[0; 58_000])),
            text_of_name(COMMON_NAME, &der(12, &[1; 58_000])),
            text_of_name(COMMON_NAME, &der(12, &[b','; 58_000])),
            text_of_name(COMMON_NAME, &der(30, &[0; 58_000])),
            text_of_name(&long_oid, &der(12, b"a")),
            text_of_name(&short_arcs, &der(12, b"a")),
            oid_text(&Oid::new(long_oid.as_slice().into())),
            oid_text(&Oid::new(short_arcs.as_slice().into())),
            serial_text(&[1; 58_000]),
        ];
        for text in cases {
            assert!(text.len() <= limits::TEXT_BYTES_MAX + '…'.len_utf8());
            assert!(text.ends_with('…'), "{text}");
        }
        let whole = "a".repeat(limits::TEXT_BYTES_MAX - "CN=".len());
        let text = text_of_name(COMMON_NAME, &der(12, whole.as_bytes()));
        assert_eq!(text, format!("CN={whole}"));
        assert_eq!(text_of_name(&[0x2a, 3], &der(3, &[0, 0xab])), "1.2.3=#00ab");
    }

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape("plain name"), "plain name");
        assert_eq!(escape(" a,b+c "), "\\ a\\,b\\+c\\ ");
        assert_eq!(escape("#1\n\u{85}"), "\\#1\\0a\\c2\\85");
    }

    #[test]
    fn names_are_written_last_part_first() {
        let mut parameters = rcgen::CertificateParams::new(vec!["A.Example".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "Example, Inc.");
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "agent");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let info = CertificateInfo::parse(certificate.der()).unwrap();
        assert_eq!(info.subject, "CN=agent,O=Example\\, Inc.");
        assert_eq!(info.dns_names, ["a.example"]);
        assert_eq!(info.profile(), "any");
    }

    #[test]
    fn bytes_after_a_certificate_are_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        let mut der = certificate.der().to_vec();
        assert!(CertificateInfo::parse(&der).is_ok());
        der.push(0);
        assert!(CertificateInfo::parse(&der).is_err());
    }
}
