//! Names that only the gateway may write. In: a field's name, in whatever spelling. Out: whether it is one of them.
//!
//! Servers behind us read names in other spellings too: in any case, and through CGI or WSGI a `_` is a `-`. So all
//! spellings count, in header and trailer sections.

use super::Field;

/// The tenant, as Cortex reads it.
pub const SCOPE_ORG_ID: &[u8] = b"x-scope-orgid";
/// The client's identity.
pub const SCOPE_CLIENT_ID: &[u8] = b"x-scope-clientid";
/// The client's certificate, as Envoy writes it.
pub const FORWARDED_CLIENT_CERT: &[u8] = b"x-forwarded-client-cert";
/// The client's address.
pub const FORWARDED_FOR: &[u8] = b"x-forwarded-for";
/// The scheme that the client used.
pub const FORWARDED_PROTO: &[u8] = b"x-forwarded-proto";
/// Address and scheme (RFC 7239).
pub const FORWARDED: &[u8] = b"forwarded";

/// Names that are always the gateway's, whether it writes them or not.
const ALWAYS: [&[u8]; 6] = [
    SCOPE_ORG_ID,
    SCOPE_CLIENT_ID,
    FORWARDED_CLIENT_CERT,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED,
];

/// A set of such names.
#[derive(Debug, Clone)]
pub struct ReservedNames {
    /// In lower case, with `-` for `_`.
    names: Vec<Box<[u8]>>,
    /// A bit for each length that one of them has, the last for all longer ones.
    lengths: u64,
}

impl ReservedNames {
    /// Those of the gateway, and more from the configuration.
    pub fn new<'a>(more: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let names: Vec<Box<[u8]>> = ALWAYS
            .into_iter()
            .chain(more)
            .map(|name| name.iter().map(|byte| canonical(*byte)).collect())
            .collect();
        let lengths = names.iter().fold(0, |bits, name| bits | length_bit(name));
        ReservedNames { names, lengths }
    }

    /// Whether a name is one of them, in any spelling.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name) != 0
            && self
                .names
                .iter()
                .any(|reserved| is_spelling_of(name, reserved))
    }

    /// Whether a field of a client may pass in a header section. Host does not, because its authority speaks for it.
    pub fn lets_pass_in_headers(&self, field: Field<'_>) -> bool {
        field.name != b"host" && !is_misspelt_framing(field.name) && !self.contains(field.name)
    }

    /// Whether a field may pass in a trailer section: neither what frames nor what routes a message (RFC 9110
    /// section 6.5.1).
    pub fn lets_pass_in_trailers(&self, field: Field<'_>) -> bool {
        !matches!(field.name, b"host" | b"content-length")
            && !is_misspelt_framing(field.name)
            && !self.contains(field.name)
    }
}

/// Whether `name` is a spelling of a name in lower case with `-`.
pub(super) fn is_spelling_of(name: &[u8], reserved: &[u8]) -> bool {
    name.len() == reserved.len()
        && name
            .iter()
            .zip(reserved)
            .all(|(byte, expected)| canonical(*byte) == *expected)
}

const fn canonical(byte: u8) -> u8 {
    match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    }
}

const fn length_bit(name: &[u8]) -> u64 {
    1 << if name.len() < 64 { name.len() } else { 63 }
}

/// Whether a name frames a message for a server that reads `_` as `-`, and for no other.
fn is_misspelt_framing(name: &[u8]) -> bool {
    matches!(name, b"transfer_encoding" | b"content_length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_reserved_name_is_one() {
        let own = [&b"X-Our_Unit"[..], &[b'a'; 100]];
        let names = ReservedNames::new(own);
        for name in [
            "x-scope-orgid",
            "X-Scope-OrgID",
            "x_scope_orgid",
            "X_SCOPE-ORGID",
            "x-scope_clientid",
            "X-Forwarded-Client-Cert",
            "x-forwarded-for",
            "x_forwarded_proto",
            "Forwarded",
            "x-our-unit",
            "x_our_unit",
        ] {
            assert!(names.contains(name.as_bytes()), "{name}");
        }
        assert!(names.contains(&[b'A'; 100]));
        for name in [
            "",
            "x-scope-orgi",
            "x-scope-orgid2",
            "x.scope.orgid",
            "xscopeorgid",
            "forwarder",
        ] {
            assert!(!names.contains(name.as_bytes()), "{name}");
        }
        assert!(!names.contains(&[b'a'; 99]));
    }

    #[test]
    fn host_and_framing_do_not_pass_where_they_mean_something_else() {
        let names = ReservedNames::new([]);
        let field = |name: &'static str| Field::new(name.as_bytes(), b"1");
        assert!(!names.lets_pass_in_headers(field("host")));
        assert!(names.lets_pass_in_headers(field("content-length")));
        assert!(names.lets_pass_in_headers(field(":path")));
        assert!(!names.lets_pass_in_trailers(field("content-length")));
        assert!(!names.lets_pass_in_trailers(field("host")));
        assert!(names.lets_pass_in_trailers(field("grpc-status")));
        assert!(!names.lets_pass_in_trailers(field("x_scope_orgid")));
    }

    proptest! {
        #[test]
        fn a_name_is_reserved_exactly_if_it_is_one_in_lower_case_with_dashes(name in "[xXs_-]{0,6}") {
            let names = ReservedNames::new([&b"x-s"[..], b"xx-s-"]);
            let plain = name.to_lowercase().replace('_', "-");
            prop_assert_eq!(names.contains(name.as_bytes()), plain == "x-s" || plain == "xx-s-");
        }
    }
}
