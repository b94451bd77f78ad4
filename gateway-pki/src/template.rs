//! What stands in the certificates that `pki` makes: usages, names, serial numbers, validity.
//! In: a request and the time. Out: parameters for the generator, or what is wrong with the request.

use std::time::SystemTime;

use gateway_core::limits;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::crypto::ring;
use rustls::pki_types::DnsName;
use time::OffsetDateTime;

use super::{PkiError, Profile, Request};

/// Longest common name, RFC 5280 appendix A.1 (ub-common-name).
const COMMON_NAME_CHARACTERS_MAX: usize = 64;
/// Authorities below a root: one, so that an intermediate cannot make further ones.
const ROOT_PATH_LENGTH: u8 = 1;
/// Authorities below an intermediate.
const INTERMEDIATE_PATH_LENGTH: u8 = 0;

/// The time in which a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Parameters of a root.
pub(super) fn root(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut parameters = base(common_name, validity)?;
    make_authority(&mut parameters, ROOT_PATH_LENGTH);
    Ok(parameters)
}

/// Parameters of what a request asks for.
pub(super) fn requested(
    request: &Request,
    validity: Validity,
) -> Result<CertificateParams, PkiError> {
    let mut parameters = base(&request.name, validity)?;
    parameters.subject_alt_names = alternative_names(request)?;
    parameters.use_authority_key_identifier_extension = true;
    let (server, client) = (
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    parameters.extended_key_usages = match request.profile {
        Profile::Server => vec![server],
        Profile::Client => vec![client],
        Profile::Component => vec![server, client],
        Profile::Authority => {
            make_authority(&mut parameters, INTERMEDIATE_PATH_LENGTH);
            return Ok(parameters);
        }
    };
    parameters.is_ca = IsCa::ExplicitNoCa;
    // RFC 8446 section 4.4.2.2: a certificate with key usage must allow digital signatures.
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}

/// What all certificates have: a subject, a time and a serial number.
fn base(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let good = !common_name.is_empty()
        && common_name.chars().count() <= COMMON_NAME_CHARACTERS_MAX
        && !common_name.chars().any(char::is_control);
    if !good {
        return Err(PkiError::Request {
            what: "common name",
            value: common_name.to_owned(),
            expectation: "must be 1 to 64 characters without control characters",
        });
    }
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    parameters.not_before = date(validity.not_before)?;
    parameters.not_after = date(validity.not_after)?;
    parameters.serial_number = Some(random_serial()?);
    Ok(parameters)
}

fn make_authority(parameters: &mut CertificateParams, path_length: u8) {
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

fn alternative_names(request: &Request) -> Result<Vec<SanType>, PkiError> {
    let mut names = Vec::new();
    for uri in &request.uris {
        names.push(SanType::URI(checked_uri(uri)?.try_into()?));
    }
    for name in &request.dns_names {
        names.push(SanType::DnsName(checked_dns_name(name)?.try_into()?));
    }
    names.extend(request.ip_addresses.iter().copied().map(SanType::IpAddress));
    match (request.profile, names.is_empty()) {
        (Profile::Authority, false) => Err(PkiError::Request {
            what: "authority",
            value: request.name.clone(),
            expectation: "takes no URI, DNS name or IP address: they belong to servers and clients",
        }),
        (Profile::Server | Profile::Component, true) => Err(PkiError::Request {
            what: "server",
            value: request.name.clone(),
            expectation: "needs a DNS name or an IP address: clients look at nothing else",
        }),
        _ => Ok(names),
    }
}

/// RFC 3986 section 3.1: a scheme, a colon, and something after it.
fn checked_uri(uri: &str) -> Result<&str, PkiError> {
    let scheme_good = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match uri.split_once(':') {
        Some((scheme, rest))
            if scheme_good(scheme)
                && !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(uri)
        }
        _ => Err(PkiError::Request {
            what: "URI",
            value: uri.to_owned(),
            expectation: "must look like spiffe://example.org/agent/one",
        }),
    }
}

fn checked_dns_name(name: &str) -> Result<&str, PkiError> {
    match DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)) {
        Ok(_) => Ok(name),
        Err(_) => Err(PkiError::Request {
            what: "DNS name",
            value: name.to_owned(),
            expectation: "must look like gateway.example.org or *.example.org",
        }),
    }
}

pub(super) fn date(time: SystemTime) -> Result<OffsetDateTime, PkiError> {
    let refused = || PkiError::Request {
        what: "validity",
        value: format!("{time:?}"),
        expectation: "must lie in the years 1970 to 9999",
    };
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| refused())?
        .as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| refused())?;
    let date = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| refused())?;
    // RFC 5280 section 4.1.2.5: four digits.
    if date.year() > 9999 {
        Err(refused())
    } else {
        Ok(date)
    }
}

fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0; limits::SERIAL_BYTES];
    ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| PkiError::Random)?;
    // Positive (high bit clear) and of full length in DER (next bit set).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_need_a_scheme() {
        for good in [
            "spiffe://example.org/agent/one",
            "urn:example:agent",
            "https://a.example/?x=1",
        ] {
            assert!(checked_uri(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "agent",
            "://x",
            "spiffe:",
            "1a:b",
            "spiffe://a b",
            "spiffe://\u{e9}",
            "a:\n",
        ] {
            assert!(checked_uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let first = random_serial().unwrap().to_bytes();
        let second = random_serial().unwrap().to_bytes();
        assert_ne!(first, second);
        for serial in [first, second] {
            assert_eq!(serial.len(), limits::SERIAL_BYTES);
            assert!((0x40..0x80).contains(&serial[0]));
        }
    }
}
