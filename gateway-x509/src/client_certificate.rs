//! From a certificate to the names that rules look at.
//! In: a certificate in DER. Out: its names and whether it may be used by a client. Pure parsing by a library; the
//! chain is verified elsewhere, and the rules themselves are in `gateway-core`.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use gateway_core::certificate::{Certificate, Fingerprint};
use gateway_core::limits;
use gateway_core::revocation::Serial;
use gateway_core::visible::Bounded;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{dns_name, ip_address, name_text, system_time, text_value};
use super::twin;

/// What a client certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedCertificate {
    /// What rules look at.
    pub certificate: Certificate,
    /// Its number at its issuer, unless it is longer than it may be.
    pub serial: Option<Serial>,
    /// The first moment at which it is valid no more.
    pub not_after: SystemTime,
    /// Whether the extended key usage names clientAuth (RFC 5280 section 4.2.1.12).
    pub client_usage: bool,
    /// Whether the key may sign, as CertificateVerify asks of it: the key usage names digitalSignature, or is absent
    /// (RFC 5280 section 4.2.1.3).
    pub may_sign: bool,
}

/// Whether a certificate that says it is an authority's may issue others: its key usage names keyCertSign, or is absent
/// (RFC 5280 section 4.2.1.3). webpki looks at basic constraints alone; what is no authority it passes over.
pub fn may_issue(certificate: &CertificateDer<'_>) -> Result<bool, ParseError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| ParseError::Certificate(error.to_string()))?;
    let usage = parsed
        .key_usage()
        .map_err(|_| ParseError::Extension("key usage"))?;
    let constraints = parsed
        .basic_constraints()
        .map_err(|_| ParseError::Extension("basic constraints"))?;
    let authority = constraints.is_some_and(|constraints| constraints.value.ca);
    Ok(!authority || usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an X.509 certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// A name with a character that has no place in one, to fool its reader.
    #[error("a name with control characters")]
    Name,
    /// An extension is broken or stands twice.
    #[error("the {0} extension is broken or stands twice")]
    Extension(&'static str),
}

/// Reads the names of a certificate.
pub fn parse(certificate: &CertificateDer<'_>) -> Result<ParsedCertificate, ParseError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| ParseError::Certificate(error.to_string()))?;
    let usage = parsed
        .extended_key_usage()
        .map_err(|_| ParseError::Extension("extended key usage"))?;
    let key_usage = parsed
        .key_usage()
        .map_err(|_| ParseError::Extension("key usage"))?;
    let alternative = parsed
        .subject_alternative_name()
        .map_err(|_| ParseError::Extension("subject alternative name"))?;
    let common_names = parsed.subject().iter_common_name();
    let mut common_names: Vec<_> = common_names.map(text_value).collect();
    // Of several none is meant.
    let common_name = match common_names.len() {
        1 => common_names.remove(0),
        _ => None,
    };
    let mut names = Certificate {
        common_name,
        further_common_names: common_names.into_iter().flatten().collect(),
        organizational_units: parsed
            .subject()
            .iter_organizational_unit()
            .filter_map(text_value)
            .collect(),
        issuer: name_text(parsed.issuer()),
        fingerprint: fingerprint(certificate),
        twin: twin::fingerprint(certificate, &parsed),
        ..Certificate::default()
    };
    for name in alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
    {
        match name {
            GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => names.dns_names.push(dns_name(name)),
            GeneralName::IPAddress(bytes) => names.ip_addresses.extend(ip_address(bytes)),
            _ => {}
        }
    }
    let mut all = names
        .uris
        .iter()
        .chain(&names.dns_names)
        .chain(&names.common_name)
        .chain(&names.further_common_names)
        .chain(&names.organizational_units);
    if all.any(|name| name.chars().any(char::is_control)) {
        return Err(ParseError::Name);
    }
    Ok(ParsedCertificate {
        certificate: names,
        serial: Serial::new(parsed.raw_serial()).ok(),
        // Valid through the whole of the last second (RFC 5280 section 4.1.2.5).
        not_after: system_time(parsed.validity().not_after) + Duration::from_secs(1),
        client_usage: usage.is_some_and(|usage| usage.value.client_auth),
        may_sign: key_usage.is_none_or(|usage| usage.value.digital_signature()),
    })
}

/// Names a certificate by its SHA-256.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    let hash = digest(&SHA256, certificate);
    fingerprint.0.copy_from_slice(hash.as_ref());
    fingerprint
}

/// Names of a certificate that one line has: the client that presents it chooses how many there are.
const NAMES_SHOWN_MAX: usize = 8;

/// The names in one line of bounded length, for a log.
pub fn describe(names: &Certificate) -> String {
    let count = names.uris.len()
        + names.dns_names.len()
        + usize::from(names.common_name.is_some())
        + names.further_common_names.len()
        + names.ip_addresses.len()
        + names.organizational_units.len();
    if count == 0 {
        return "a certificate without names".to_owned();
    }
    let mut text = Bounded::new(limits::TEXT_BYTES_MAX);
    // The one error there is says that the room is used up.
    let _ = write_names(&mut text, names);
    let mut text = text.into_text();
    if let Some(more @ 1..) = count.checked_sub(NAMES_SHOWN_MAX) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn write_names(text: &mut Bounded, names: &Certificate) -> fmt::Result {
    fn kind<'n, N: fmt::Debug>(
        kind: &'static str,
        names: &'n [N],
    ) -> impl Iterator<Item = (&'static str, &'n dyn fmt::Debug)> {
        names.iter().map(move |name| (kind, name as _))
    }
    let all = kind("uri", &names.uris)
        .chain(kind("dns", &names.dns_names))
        .chain(kind("cn", names.common_name.as_slice()))
        .chain(kind("cn", &names.further_common_names))
        .chain(kind("ip", &names.ip_addresses))
        .chain(kind("ou", &names.organizational_units));
    for (position, (kind, name)) in all.take(NAMES_SHOWN_MAX).enumerate() {
        let separator = if position > 0 { ", " } else { "" };
        write!(text, "{separator}{kind} {name:?}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::CertificateInfo;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn names_are_read_by_their_kind_and_dns_names_in_lower_case() {
        let parsed = parse(&certificate(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "Agent 1");
            let unit = DnType::OrganizationalUnitName;
            params.distinguished_name.push(unit, "Edge");
            params.subject_alt_names = vec![
                SanType::URI("spiffe://example.org/Agent".try_into().unwrap()),
                SanType::DnsName("Agent.Example.org".try_into().unwrap()),
                SanType::IpAddress("192.0.2.1".parse().unwrap()),
            ];
        }));
        let names = Certificate {
            uris: vec!["spiffe://example.org/Agent".to_owned()],
            dns_names: vec!["agent.example.org".to_owned()],
            ip_addresses: vec!["192.0.2.1".parse().unwrap()],
            common_name: Some("Agent 1".to_owned()),
            organizational_units: vec!["Edge".to_owned()],
            issuer: "OU=Edge,CN=Agent 1".to_owned(),
            ..Certificate::default()
        };
        let parsed = Certificate {
            fingerprint: Fingerprint::default(),
            twin: None,
            ..parsed.unwrap().certificate
        };
        assert_eq!(parsed, names);
        assert!(parse(&CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x01])).is_err());
    }

    #[test]
    fn both_readers_find_one_dns_name_where_it_ends_in_the_dot_of_the_root() {
        let der = certificate(|params| {
            params.subject_alt_names =
                vec![SanType::DnsName("*.Agent.Example.org.".try_into().unwrap())];
        });
        let names = parse(&der).unwrap().certificate.dns_names;
        assert_eq!(names, ["*.agent.example.org"]);
        assert_eq!(CertificateInfo::parse(&der).unwrap().dns_names, names);
    }

    #[test]
    fn several_common_names_are_none_and_control_characters_are_refused() {
        let several = parse(&certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "admin");
            // rcgen keeps one name of a type; this is the same type by its number.
            let common_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
            params.distinguished_name.push(common_name, "agent");
        }));
        let several = several.unwrap().certificate;
        assert_eq!(several.common_name, None);
        assert_eq!(several.further_common_names, ["admin", "agent"]);
        assert_eq!(describe(&several), r#"cn "admin", cn "agent""#);
        let control =
            certificate(|params| params.distinguished_name.push(DnType::CommonName, "a\0b"));
        assert_eq!(parse(&control), Err(ParseError::Name));
    }

    #[test]
    fn names_in_the_string_types_of_old_cas_are_read_and_many_are_shown_as_some() {
        let text = |value: rcgen::DnValue| {
            let parsed = parse(&certificate(|params| {
                params.distinguished_name.push(DnType::CommonName, value);
            }));
            let names = parsed.unwrap().certificate;
            assert_eq!(names.issuer, "CN=agent");
            names.common_name
        };
        let agent = Some("agent".to_owned());
        assert_eq!(
            text(rcgen::DnValue::BmpString("agent".try_into().unwrap())),
            agent
        );
        assert_eq!(
            text(rcgen::DnValue::TeletexString("agent".try_into().unwrap())),
            agent
        );
        let many = Certificate {
            uris: (0..20).map(|number| format!("urn:{number}")).collect(),
            ..Certificate::default()
        };
        assert!(describe(&many).ends_with("uri \"urn:7\" and 12 more"));
        let long = Certificate {
            dns_names: vec!["\u{200b}".repeat(20_000); 9],
            ..Certificate::default()
        };
        let text = describe(&long);
        assert!(text.len() < limits::TEXT_BYTES_MAX + 20, "{}", text.len());
        assert!(text.ends_with("… and 1 more"), "{text}");
    }

    #[test]
    fn a_certificate_has_its_number_and_the_first_second_in_which_it_is_over() {
        let parsed = parse(&certificate(|params| {
            params.serial_number = Some(rcgen::SerialNumber::from(vec![0x0a, 0x1b]));
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        }));
        let parsed = parsed.unwrap();
        assert_eq!(parsed.serial.unwrap().to_string(), "0a1b");
        // 2030-01-01T00:00:00Z and one second.
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_001);
        assert_eq!(parsed.not_after, expected);
        let too_long = parse(&certificate(|params| {
            params.serial_number = Some(rcgen::SerialNumber::from(vec![1; 21]));
        }));
        assert_eq!(too_long.unwrap().serial, None);
    }

    #[test]
    fn usages_have_to_be_named_where_there_is_an_extension_and_client_usage_always() {
        let usages = |extended: &[ExtendedKeyUsagePurpose], usages: &[KeyUsagePurpose]| {
            let parsed = parse(&certificate(|params| {
                params.extended_key_usages = extended.to_vec();
                params.key_usages = usages.to_vec();
            }));
            let ParsedCertificate {
                client_usage,
                may_sign,
                ..
            } = parsed.unwrap();
            (client_usage, may_sign)
        };
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
        use KeyUsagePurpose::{DigitalSignature, KeyEncipherment};
        assert_eq!(usages(&[], &[]), (false, true));
        assert_eq!(usages(&[ClientAuth], &[DigitalSignature]), (true, true));
        assert_eq!(
            usages(&[ServerAuth, ClientAuth], &[KeyEncipherment]),
            (true, false)
        );
        assert_eq!(usages(&[ServerAuth, Any], &[]), (false, true));
    }

    #[test]
    fn an_authority_may_issue_unless_its_key_usage_says_otherwise() {
        let issues = |is_ca: IsCa, usages: &[KeyUsagePurpose]| {
            may_issue(&certificate(|params| {
                params.is_ca = is_ca;
                params.key_usages = usages.to_vec();
            }))
        };
        let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(issues(authority(), &[]), Ok(true));
        assert_eq!(
            issues(authority(), &[KeyUsagePurpose::KeyCertSign]),
            Ok(true)
        );
        assert_eq!(issues(authority(), &[KeyUsagePurpose::CrlSign]), Ok(false));
        assert_eq!(
            issues(IsCa::NoCa, &[KeyUsagePurpose::DigitalSignature]),
            Ok(true)
        );
    }
}
