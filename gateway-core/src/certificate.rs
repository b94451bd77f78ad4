//! What the gateway keeps of a client certificate and its verified chain.
//! In: fields that a caller has parsed. Out: plain data for rules, blocks, revocation, tickets and usage per
//! identity. Never parses or verifies a certificate.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::anchors::ConstraintsId;
use crate::authority::TrustDomain;
use crate::revocation::{AuthorityId, Link, LinkPoint, Serial};

/// SHA-256 over a certificate's DER.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

/// The text is not 64 hexadecimal digits, with or without colons between the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the SHA-256 of a certificate: 64 hexadecimal digits, colons allowed")]
pub struct FingerprintError;

impl Fingerprint {
    /// Reads a fingerprint as tools print it: `openssl x509 -fingerprint -sha256` puts colons between the bytes and
    /// `sha256 Fingerprint=` in front.
    ///
    /// # Errors
    ///
    /// The text is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, FingerprintError> {
        let text = text.trim();
        let text = match text.split_once('=') {
            Some((label, rest)) if label.eq_ignore_ascii_case("sha256 fingerprint") => rest,
            _ => text,
        };
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        if digits.len() != 64 {
            return Err(FingerprintError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(FingerprintError);
            *byte = (16 * digit(pair[0])? + digit(pair[1])?) as u8;
        }
        Ok(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The fields of a client certificate that the gateway reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Subject alternative names of type URI (RFC 5280 section 4.2.1.6), in order.
    pub uris: Vec<String>,
    /// Subject alternative names of type DNS, in lower case and without a dot at the end.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP address.
    pub ip_addresses: Vec<IpAddr>,
    /// The subject's common name, if there is exactly one.
    pub common_name: Option<String>,
    /// The subject's common names if there are several: rules read none of them, a block matches each.
    pub further_common_names: Vec<String>,
    /// The subject's organizational units.
    pub organizational_units: Vec<String>,
    /// The issuer's name as RFC 4514 text.
    pub issuer: String,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// The fingerprint of the certificate's twin. If an ECDSA signature (r, s) verifies, so does (r, n - s): the
    /// holder can make a second valid certificate. A block of either matches both; admission uses `fingerprint`
    /// alone.
    pub twin: Option<Fingerprint>,
}

/// The kind of a client's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameKind {
    /// A URI of the subject alternative names.
    Uri,
    /// A DNS name of the subject alternative names.
    Dns,
    /// The subject's common name.
    CommonName,
    /// An IP address of the subject alternative names.
    IpAddress,
    /// The certificate's fingerprint, if it has no name.
    #[default]
    Fingerprint,
}

impl NameKind {
    /// The kinds of names that certificates contain.
    pub const IN_CERTIFICATES: [NameKind; 4] = [
        NameKind::Uri,
        NameKind::Dns,
        NameKind::CommonName,
        NameKind::IpAddress,
    ];

    /// The kind's word in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            NameKind::Uri => "uri",
            NameKind::Dns => "dns",
            NameKind::CommonName => "cn",
            NameKind::IpAddress => "ip",
            NameKind::Fingerprint => "fingerprint",
        }
    }
}

/// The identity of a client in logs, counters and limits. The same text of another kind, or of another trust domain,
/// is another identity. The issuer is not part of it: a rotation of the authority must not split an identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The kind of its name.
    pub kind: NameKind,
    /// The name.
    pub name: String,
    /// The trust domain that the client's authority is bound to, if any.
    pub trust_domain: Option<TrustDomain>,
}

impl Certificate {
    /// The name if no rule chooses one: the first URI, else the first DNS name, else the common name, else the first
    /// IP address, else the fingerprint.
    pub fn name(&self) -> (NameKind, String) {
        let first = |kind, names: &[String]| names.first().map(|name| (kind, name.clone()));
        let address = || self.ip_addresses.first().map(IpAddr::to_string);
        first(NameKind::Uri, &self.uris)
            .or_else(|| first(NameKind::Dns, &self.dns_names))
            .or_else(|| first(NameKind::CommonName, self.common_name.as_slice()))
            .or_else(|| Some((NameKind::IpAddress, address()?)))
            .unwrap_or_else(|| (NameKind::Fingerprint, self.fingerprint.to_string()))
    }

    /// All names with their kinds: URIs, DNS names, common names, IP addresses.
    pub fn names(&self) -> impl Iterator<Item = (NameKind, Cow<'_, str>)> {
        let text = |kind| move |name| (kind, Cow::Borrowed(String::as_str(name)));
        let uris = self.uris.iter().map(text(NameKind::Uri));
        let dns_names = self.dns_names.iter().map(text(NameKind::Dns));
        let common_names = self.common_name.iter().chain(&self.further_common_names);
        let common_name = common_names.map(text(NameKind::CommonName));
        let addresses = self.ip_addresses.iter().map(IpAddr::to_string);
        let addresses = addresses.map(|name| (NameKind::IpAddress, Cow::Owned(name)));
        uris.chain(dns_names).chain(common_name).chain(addresses)
    }
}

/// A DNS name without the root's empty label, which is optional in text (RFC 1034 section 3.1).
pub fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The last second of a certificate that ends at `end`, as the certificate itself states it (RFC 5280 section
/// 4.1.2.5) and other tools show it.
pub fn last_second(over: SystemTime) -> SystemTime {
    over.checked_sub(Duration::from_secs(1)).unwrap_or(over)
}

/// A verified chain, leaf first, without the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// One link per certificate, the leaf's first.
    pub links: Vec<Link>,
    /// The distribution points of its certificates.
    pub points: Vec<LinkPoint>,
    /// The root that it leads to.
    pub anchor: AuthorityId,
    /// The name constraints of the root's certificate that verified it, if any.
    pub constraints: Option<ConstraintsId>,
    /// The beginning of the leaf's validity.
    pub not_before: SystemTime,
    /// The first moment at which a certificate of the chain is no longer valid.
    pub not_after: SystemTime,
    /// Whether the root ends first: then the end of that CA shuts the client out.
    pub ends_with_anchor: bool,
}

impl Chain {
    /// The leaf's serial number.
    pub fn serial(&self) -> Option<Serial> {
        self.links.first().map(|link| link.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_uri_names_a_certificate_and_other_names_only_where_there_is_none() {
        let mut certificate = Certificate {
            uris: vec!["spiffe://a/1".to_owned(), "spiffe://a/2".to_owned()],
            dns_names: vec!["agent.example.org".to_owned()],
            ip_addresses: vec![IpAddr::from([192, 0, 2, 1])],
            common_name: Some("agent".to_owned()),
            ..Certificate::default()
        };
        assert_eq!(certificate.names().count(), 5);
        let name = |certificate: &Certificate| certificate.name();
        let expected = |kind, name: &str| (kind, name.to_owned());
        assert_eq!(name(&certificate), expected(NameKind::Uri, "spiffe://a/1"));
        certificate.uris.clear();
        assert_eq!(
            name(&certificate),
            expected(NameKind::Dns, "agent.example.org")
        );
        certificate.dns_names.clear();
        assert_eq!(name(&certificate), expected(NameKind::CommonName, "agent"));
        certificate.common_name = None;
        assert_eq!(
            name(&certificate),
            expected(NameKind::IpAddress, "192.0.2.1")
        );
        certificate.ip_addresses.clear();
        let fingerprint = certificate.fingerprint.to_string();
        assert_eq!(name(&certificate), (NameKind::Fingerprint, fingerprint));
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
            assert_eq!(Fingerprint::parse(text), Err(FingerprintError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_fingerprint_is_read_as_it_is_printed_with_colons_and_in_capitals_too(bytes in any::<[u8; 32]>()) {
            let fingerprint = Fingerprint(bytes);
            prop_assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Ok(fingerprint));
            let pairs: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            prop_assert_eq!(Fingerprint::parse(&pairs.join(":")), Ok(fingerprint));
            for label in ["sha256 Fingerprint=", "SHA256 Fingerprint="] {
                let printed = format!("{label}{}\n", pairs.join(":"));
                prop_assert_eq!(Fingerprint::parse(&printed), Ok(fingerprint));
            }
            let other = format!("SHA1 Fingerprint={}", pairs.join(":"));
            prop_assert_eq!(Fingerprint::parse(&other), Err(FingerprintError));
        }
    }
}
