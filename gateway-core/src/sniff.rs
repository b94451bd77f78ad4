//! The first bytes of a connection: TLS or not.
//! In: what has arrived so far. Out: whether it can still become a TLS handshake. Decided before any TLS state sees
//! them, so that plain HTTP and port scanners are told apart from broken TLS.

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// A TLS handshake record, as far as can be seen.
    Tls,
    /// Something else.
    NotTls,
}

/// Looks at the first bytes. RFC 8446 section 5.1: the record type is handshake (22), the legacy version 0x03xx.
pub fn first_bytes(bytes: &[u8]) -> FirstBytes {
    match bytes {
        [] | [22] | [22, 3, ..] => FirstBytes::Tls,
        _ => FirstBytes::NotTls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_is_tls_and_what_other_protocols_send_first_is_not() {
        for tls in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x02\x00\x01"] {
            assert_eq!(first_bytes(tls), FirstBytes::Tls, "{tls:?}");
        }
        let others: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x0d\x0a\x0d\x0a\x00\x0d\x0aQUIT\x0a",
            b"\x80\x2e\x01\x00\x02",
            b"\x16\x02",
            b"\x00",
        ];
        for other in others {
            assert_eq!(first_bytes(other), FirstBytes::NotTls, "{other:?}");
        }
    }
}
