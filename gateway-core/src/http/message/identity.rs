//! What backends are told of a client: fields made from its certificate and address, once for each connection.
//! In: the certificate, the address, what the configuration asks for. Out: fields for every request. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::reserved::{FORWARDED, FORWARDED_FOR, FORWARDED_PROTO, SCOPE_ORG_ID};
use super::{Field, HeaderList};
use crate::certificate::{Certificate, Identity};

/// A part of the certificate that a field can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The name of the identity that a rule admitted the client as.
    Identity,
    /// The first URI of the subject alternative names.
    Uri,
    /// The first DNS name of the subject alternative names.
    Dns,
    /// The common name.
    CommonName,
    /// The first organizational unit.
    OrganizationalUnit,
    /// The issuer's name as RFC 4514 text.
    Issuer,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    Fingerprint,
    /// Fingerprint, URIs and DNS names, as Envoy writes them into `x-forwarded-client-cert`.
    ForwardedClientCert,
}

impl Part {
    fn of(self, certificate: &Certificate, identity: &Identity) -> Option<String> {
        match self {
            Part::Identity => Some(identity.name.clone()),
            Part::Uri => certificate.uris.first().cloned(),
            Part::Dns => certificate.dns_names.first().cloned(),
            Part::CommonName => certificate.common_name.clone(),
            Part::OrganizationalUnit => certificate.organizational_units.first().cloned(),
            Part::Issuer => Some(certificate.issuer.clone()),
            Part::Fingerprint => Some(certificate.fingerprint.to_string()),
            Part::ForwardedClientCert => Some(client_cert(certificate)),
        }
    }
}

/// How backends are told the client's address, and that it used TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFormat {
    /// By `x-forwarded-for` and `x-forwarded-proto`.
    XForwarded,
    /// By `forwarded` (RFC 7239).
    Forwarded,
}

/// A field that is the same for all clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedField {
    /// Its name, in lower case.
    pub name: Box<[u8]>,
    /// Its value.
    pub value: Box<[u8]>,
    /// Whether no table of a connection may keep it (RFC 7541 section 7.1.3).
    pub is_secret: bool,
}

/// What backends are told with the requests of a client, by a listener or by a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldFields {
    /// The name of the tenant's field in lower case, if it is another than `x-scope-orgid`.
    pub tenant: Option<Box<[u8]>>,
    /// Fields with these names in lower case, each of a part. A part that a certificate lacks makes no field.
    pub parts: Vec<(Box<[u8]>, Part)>,
    /// The client's address.
    pub forwarded: Option<ForwardedFormat>,
    /// Fields that are the same for all clients.
    pub fixed: Vec<FixedField>,
}

impl ToldFields {
    /// What a listener says, and a rule: of the same part or the same name, what the rule says.
    pub fn with(&self, rule: &ToldFields) -> ToldFields {
        let names: Vec<_> = rule.names().collect();
        let is_left = |name: &[u8]| !names.contains(&name);
        let own = self.parts.iter().filter(|(name, part)| {
            is_left(name) && rule.parts.iter().all(|(_, other)| other != part)
        });
        let fixed = self.fixed.iter().filter(|field| is_left(&field.name));
        ToldFields {
            tenant: rule.tenant.clone().or_else(|| self.tenant.clone()),
            parts: own.chain(&rule.parts).cloned().collect(),
            forwarded: rule.forwarded.or(self.forwarded),
            fixed: fixed.chain(&rule.fixed).cloned().collect(),
        }
    }

    /// The names of the user's own.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().map(|(name, _)| &**name);
        let fixed = self.fixed.iter().map(|field| &*field.name);
        self.tenant.as_deref().into_iter().chain(parts).chain(fixed)
    }

    /// The name of the tenant's field.
    pub fn tenant_name(&self) -> &[u8] {
        self.tenant.as_deref().unwrap_or(SCOPE_ORG_ID)
    }

    /// The fields of one client.
    pub fn of_client(
        &self,
        certificate: &Certificate,
        identity: &Identity,
        address: IpAddr,
    ) -> HeaderList {
        let mut list = HeaderList::new(usize::MAX);
        let mut tell = |name: &[u8], text: &str| list.push(Field::new(name, text.as_bytes()));
        for (name, part) in &self.parts {
            if let Some(text) = part.of(certificate, identity) {
                tell(name, &as_value(&text));
            }
        }
        match self.forwarded {
            None => {}
            Some(ForwardedFormat::XForwarded) => {
                tell(FORWARDED_FOR, &address.to_string());
                tell(FORWARDED_PROTO, "https");
            }
            Some(ForwardedFormat::Forwarded) => tell(FORWARDED, &forwarded(address)),
        }
        for field in &self.fixed {
            list.push(Field {
                name: &field.name,
                value: &field.value,
                is_never_indexed: field.is_secret,
            });
        }
        list
    }
}

/// The element of RFC 7239 section 4: an IPv6 address stands in brackets and quotes (section 6).
fn forwarded(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("for={address};proto=https"),
        IpAddr::V6(address) => format!("for=\"[{address}]\";proto=https"),
    }
}

/// The certificate in the format of Envoy's `x-forwarded-client-cert`: keys and values, the fingerprint first.
fn client_cert(certificate: &Certificate) -> String {
    let mut text = format!("Hash={}", certificate.fingerprint);
    let names = |key, names: &[String]| -> String {
        let pairs = names.iter().map(|name| format!(";{key}={}", quoted(name)));
        pairs.collect()
    };
    text += &names("URI", &certificate.uris);
    text += &names("DNS", &certificate.dns_names);
    text
}

/// In quotes if it has a character that separates keys and values there.
fn quoted(text: &str) -> String {
    match text.contains([',', ';', '=', '"', '\\']) {
        false => text.to_owned(),
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// The text as a value of a field: printable ASCII without white space at its ends (also what gRPC's metadata takes),
/// everything else in percent-encoding. A certificate may have any character in its names.
fn as_value(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut value = String::with_capacity(text.len());
    for (position, byte) in text.bytes().enumerate() {
        let is_inside = position > 0 && position < last;
        match byte {
            b'%' => value.push_str("%25"),
            b' ' if is_inside => value.push(' '),
            byte if byte.is_ascii_graphic() => value.push(byte.into()),
            byte => write!(value, "%{byte:02X}").expect("a string takes all text"),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Fingerprint;
    use crate::http::message::character::is_value;
    use proptest::prelude::*;

    fn certificate() -> Certificate {
        Certificate {
            uris: vec![
                "spiffe://example/red/agent".to_owned(),
                "urn:a;b".to_owned(),
            ],
            dns_names: vec!["agent.example".to_owned()],
            common_name: Some("agent \"7\"\r\nx-scope-orgid: blue".to_owned()),
            fingerprint: Fingerprint([0xab; 32]),
            ..Certificate::default()
        }
    }

    fn told(fields: &ToldFields, address: &str) -> Vec<(String, String)> {
        let identity = Identity {
            name: "agent".to_owned(),
            ..Identity::default()
        };
        let list = fields.of_client(&certificate(), &identity, address.parse().unwrap());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        list.iter()
            .map(|field| (text(field.name), text(field.value)))
            .collect()
    }

    #[test]
    fn each_part_becomes_a_field_of_the_users_own_name() {
        let parts = [
            ("x-id", Part::Identity),
            ("x-uri", Part::Uri),
            ("x-dns", Part::Dns),
            ("x-cn", Part::CommonName),
            ("x-ou", Part::OrganizationalUnit),
            ("x-hash", Part::Fingerprint),
        ];
        let fields = ToldFields {
            parts: parts
                .map(|(name, part)| (name.as_bytes().into(), part))
                .into(),
            ..ToldFields::default()
        };
        let told = told(&fields, "192.0.2.1");
        let expected = [
            ("x-id", "agent".to_owned()),
            ("x-uri", "spiffe://example/red/agent".to_owned()),
            ("x-dns", "agent.example".to_owned()),
            ("x-cn", "agent \"7\"%0D%0Ax-scope-orgid: blue".to_owned()),
            ("x-hash", "ab".repeat(32)),
        ];
        assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn the_certificate_is_told_in_envoys_format() {
        let fields = ToldFields {
            parts: vec![(
                b"x-forwarded-client-cert"[..].into(),
                Part::ForwardedClientCert,
            )],
            ..ToldFields::default()
        };
        let hash = "ab".repeat(32);
        let value =
            format!("Hash={hash};URI=spiffe://example/red/agent;URI=\"urn:a;b\";DNS=agent.example");
        let told = told(&fields, "192.0.2.1");
        assert_eq!(told, [("x-forwarded-client-cert".to_owned(), value)]);
        assert_eq!(quoted("a\"b\\"), "\"a\\\"b\\\\\"");
    }

    #[test]
    fn the_address_is_told_in_either_form() {
        for (address, forwarded) in [
            ("192.0.2.1", "for=192.0.2.1;proto=https"),
            ("2001:db8::1", "for=\"[2001:db8::1]\";proto=https"),
        ] {
            let cases = [
                (
                    ForwardedFormat::XForwarded,
                    vec![("x-forwarded-for", address), ("x-forwarded-proto", "https")],
                ),
                (ForwardedFormat::Forwarded, vec![("forwarded", forwarded)]),
            ];
            for (format, expected) in cases {
                let fields = ToldFields {
                    forwarded: Some(format),
                    ..ToldFields::default()
                };
                let told = told(&fields, address);
                let told: Vec<_> = told
                    .iter()
                    .map(|(name, value)| (&**name, &**value))
                    .collect();
                assert_eq!(told, expected);
            }
        }
    }

    #[test]
    fn a_rule_says_it_in_place_of_its_listener() {
        let part = |name: &str, part| (name.as_bytes().into(), part);
        let fixed = |name: &str, value: &str| FixedField {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
            is_secret: false,
        };
        let listener = ToldFields {
            tenant: Some(b"x-tenant"[..].into()),
            parts: vec![
                part("x-id", Part::Identity),
                part("x-uri", Part::Uri),
                part("x-cn", Part::CommonName),
            ],
            forwarded: Some(ForwardedFormat::Forwarded),
            fixed: vec![fixed("x-a", "1"), fixed("x-b", "1")],
        };
        assert_eq!(listener.with(&ToldFields::default()), listener);
        let rule = ToldFields {
            parts: vec![part("x-name", Part::Identity), part("x-uri", Part::Dns)],
            fixed: vec![fixed("x-b", "2"), fixed("x-cn", "3")],
            ..ToldFields::default()
        };
        let both = listener.with(&rule);
        assert_eq!(both.tenant_name(), b"x-tenant");
        assert_eq!(both.parts, rule.parts);
        let expected = [fixed("x-a", "1"), fixed("x-b", "2"), fixed("x-cn", "3")];
        assert_eq!(both.fixed, expected);
    }

    proptest! {
        #[test]
        fn whatever_a_certificate_says_becomes_a_value(text: String) {
            let value = as_value(&text);
            prop_assert!(value.is_ascii() && is_value(value.as_bytes()), "{value:?}");
        }
    }
}
