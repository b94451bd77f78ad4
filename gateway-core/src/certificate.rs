//! What is kept of a client certificate and of the chain that was verified above it.
//! In: fields that a caller parsed. Out: plain data for rules, blocks, revocation, tickets and records. Never parses a
//! certificate and never verifies one.

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

/// Not 64 hexadecimal digits, with or without colons between the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the SHA-256 of a certificate: 64 hexadecimal digits, colons allowed")]
pub struct FingerprintError;

impl Fingerprint {
    /// Reads it as tools print it: `openssl x509 -fingerprint -sha256` puts colons between the bytes, and `sha256 Fingerprint=`
    /// before them.
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

/// What a client certificate says, as far as anybody looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Subject alternative names of type URI (RFC 5280 section 4.2.1.6), in their order.
    pub uris: Vec<String>,
    /// Subject alternative names of type DNS, in lower case and without a dot at the end.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP address.
    pub ip_addresses: Vec<IpAddr>,
    /// The subject's common name, if there is exactly one.
    pub common_name: Option<String>,
    /// The subject's common names where there are several: no rule means one of them, and a block means each.
    pub further_common_names: Vec<String>,
    /// The subject's organizational units.
    pub organizational_units: Vec<String>,
    /// The issuer's name as RFC 4514 text.
    pub issuer: String,
    /// Names this very certificate.
    pub fingerprint: Fingerprint,
    /// Names the other certificate that whoever holds this one can make of it: of an ECDSA signature (r, s) the twin (r, n - s) verifies as
    /// well. A block of either means both; what admits goes by `fingerprint` alone.
    pub twin: Option<Fingerprint>,
}

/// The kinds of names that a client can go by.
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
    /// The certificate's own fingerprint, where it has no name.
    #[default]
    Fingerprint,
}

impl NameKind {
    /// The kinds of names that a certificate may bear.
    pub const IN_CERTIFICATES: [NameKind; 4] = [
        NameKind::Uri,
        NameKind::Dns,
        NameKind::CommonName,
        NameKind::IpAddress,
    ];

    /// As the configuration calls it.
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

/// What a client is shown, counted and limited by. The same text of another kind, or of another trust domain, is somebody
/// else. Its issuer is no part of it: a rotated authority must not split an identity in two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// What kind of name.
    pub kind: NameKind,
    /// The name.
    pub name: String,
    /// The trust domain that the client's authority is bound to, if it is.
    pub trust_domain: Option<TrustDomain>,
}

impl Certificate {
    /// The name to go by where no rule chooses one: the first URI, else the first DNS name, else the common name, else the
    /// first IP address, else the fingerprint.
    pub fn name(&self) -> (NameKind, String) {
        let first = |kind, names: &[String]| names.first().map(|name| (kind, name.clone()));
        let address = || self.ip_addresses.first().map(IpAddr::to_string);
        first(NameKind::Uri, &self.uris)
            .or_else(|| first(NameKind::Dns, &self.dns_names))
            .or_else(|| first(NameKind::CommonName, self.common_name.as_slice()))
            .or_else(|| Some((NameKind::IpAddress, address()?)))
            .unwrap_or_else(|| (NameKind::Fingerprint, self.fingerprint.to_string()))
    }

    /// Every name with its kind: URIs, DNS names, common names, IP addresses.
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

/// A DNS name without the root's empty label, which may be written and may be left out (RFC 1034 section 3.1).
pub fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// What a certificate itself says of the moment from which on it is not valid any more: its last second, which is valid to
/// its end (RFC 5280 section 4.1.2.5). What is shown is this, so that it is what every other tool shows.
pub fn last_second(over: SystemTime) -> SystemTime {
    over.checked_sub(Duration::from_secs(1)).unwrap_or(over)
}

/// A verified chain, leaf first, without the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// One link per certificate; the first is the leaf's.
    pub links: Vec<Link>,
    /// The distribution points that its certificates name.
    pub points: Vec<LinkPoint>,
    /// The root it leads to.
    pub anchor: AuthorityId,
    /// The name constraints of that root's certificate by which it was verified, if there were any.
    pub constraints: Option<ConstraintsId>,
    /// When the leaf begins.
    pub not_before: SystemTime,
    /// When the first of them has ended: the first moment at which it is not valid any more.
    pub not_after: SystemTime,
    /// It is the root that ends first, and all below it last longer: the end of that CA shuts the client out.
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
