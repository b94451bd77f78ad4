//! Which characters names, values, paths and authorities may have. In: bytes. Out: yes or no. One table. Pure.

/// Of a lower-case token (RFC 9110 section 5.6.2, RFC 9113 section 8.2.1).
const NAME: u8 = 1;
/// Of a host with a port (RFC 3986 sections 3.2.2, 3.2.3). No user information (RFC 9113 section 8.3.1).
const AUTHORITY: u8 = 2;
/// Of a service or method of gRPC, a package included.
const RPC_NAME: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        let is_alphanumeric = character.is_ascii_alphanumeric();
        let is_mark = matches!(character, b'-' | b'.' | b'_' | b'~');
        let is_sub_delimiter = matches!(
            character,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        let is_token = matches!(
            character,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'`' | b'|'
        );
        if (is_alphanumeric && !character.is_ascii_uppercase()) || is_mark || is_token {
            classes[byte] |= NAME;
        }
        if is_alphanumeric || matches!(character, b'.' | b'_' | b'-') {
            classes[byte] |= RPC_NAME;
        }
        let is_of_address = matches!(character, b':' | b'[' | b']' | b'%');
        if is_alphanumeric || is_mark || is_sub_delimiter || is_of_address {
            classes[byte] |= AUTHORITY;
        }
        byte += 1;
    }
    classes
};

/// Whether any byte is one of these. Looks at all, whatever it finds: most fields are well-formed, and a branch at each byte would cost
/// more than the bytes, which are compared sixteen at once like this.
pub(super) fn has_any(bytes: &[u8], is_one: impl Fn(u8) -> bool) -> bool {
    let any = |any, byte: &u8| any | u8::from(is_one(*byte));
    bytes.iter().fold(0, any) != 0
}

/// Whether all bytes are of a class. Looks at all, as above.
fn are(bytes: &[u8], class: u8) -> bool {
    let common = |common, byte: &u8| common & CLASSES[usize::from(*byte)];
    bytes.iter().fold(class, common) != 0
}

/// Whether this can be the name of a field in HTTP/2, other than a pseudo-header field.
pub fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && are(bytes, NAME)
}

/// Whether this can be a value: white space does not stand at its ends (RFC 9113 section 8.2.1).
pub fn is_value(bytes: &[u8]) -> bool {
    has_only_value_characters(bytes) && !has_white_end(bytes)
}

/// Whether a value can have all these characters.
pub(super) fn has_only_value_characters(bytes: &[u8]) -> bool {
    !has_any(bytes, |byte| !is_value_character(byte))
}

/// Whether white space stands at an end.
pub(super) fn has_white_end(bytes: &[u8]) -> bool {
    let is_white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_white(bytes.first()) || is_white(bytes.last())
}

/// Whether a value can have this character (RFC 9110 section 5.5): no control character but the tab.
pub(in crate::http) const fn is_value_character(byte: u8) -> bool {
    (byte >= b' ') & (byte != 0x7f) | (byte == b'\t')
}

/// Whether this can be the name of a service or method of gRPC.
pub(super) fn is_rpc_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && are(bytes, RPC_NAME)
}

/// Whether this can be a method: a token, of any case (RFC 9110 section 9.1).
pub fn is_method(bytes: &[u8]) -> bool {
    let is_token = |byte: &u8| are(&[byte.to_ascii_lowercase()], NAME);
    !bytes.is_empty() && bytes.iter().all(is_token)
}

/// Whether this can be a path and query in origin form (RFC 9112 section 3.2.1). More characters than RFC 3986 section 3.3 has:
/// clients send braces and bars as they are. No fragment.
pub(in crate::http) fn is_path(bytes: &[u8]) -> bool {
    let is_odd = |byte: u8| (byte <= b' ') | (byte >= 0x7f) | (byte == b'#');
    bytes.first() == Some(&b'/') && !has_any(bytes, is_odd)
}

/// Whether this can be a host, with a port or without.
pub fn is_authority(bytes: &[u8]) -> bool {
    !bytes.is_empty() && are(bytes, AUTHORITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_tokens() {
        for name in ["a", "content-type", "x_y.z!#$%&'*+^`|~-", "1"] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "A",
            "content-Type",
            "a b",
            "a:",
            ":path",
            "a\0",
            "é",
            "a(",
            "a\x7f",
            "a\t",
        ] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn values_have_no_controls_and_no_white_space_at_their_ends() {
        for value in ["", "a", "a b", "a\tb", "ü", "\"{}\""] {
            assert!(is_value(value.as_bytes()), "{value}");
        }
        for value in [
            " ", " a", "a ", "\ta", "a\t", "a\nb", "a\r", "a\0b", "a\x7fb", "\x1f",
        ] {
            assert!(!is_value(value.as_bytes()), "{value:?}");
        }
    }

    #[test]
    fn paths_begin_with_a_slash_and_have_neither_spaces_nor_a_fragment() {
        for path in ["/", "/a?b={c}|d", "/%2f", "//", "/a\\b"] {
            assert!(is_path(path.as_bytes()), "{path}");
        }
        for path in [
            "",
            "a",
            "*",
            "/a b",
            "/a#b",
            "/é",
            "/\x7f",
            "/\r\n",
            "http://a/",
        ] {
            assert!(!is_path(path.as_bytes()), "{path:?}");
        }
    }

    #[test]
    fn authorities_are_hosts_with_ports() {
        for authority in ["a", "a.example:4317", "[::1]:80", "127.0.0.1", "xn--a_b~"] {
            assert!(is_authority(authority.as_bytes()), "{authority}");
        }
        for authority in [
            "", "a@b", "a/b", "a?b", "a#b", "a b", "a\\b", "a\"", "é", "<a>", "a\r\n",
        ] {
            assert!(!is_authority(authority.as_bytes()), "{authority:?}");
        }
        assert!(is_method(b"M-SEARCH") && is_method(b"get"));
        assert!(!is_method(b"") && !is_method(b"GE T") && !is_method(b"GET\r"));
    }
}
