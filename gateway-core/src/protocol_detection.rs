//! Protocol detection: whether the first bytes of a connection are TLS.
//! In: the bytes so far. Out: the protocol, and an answer if it is not TLS. Runs before any TLS state, to tell plain
//! HTTP and port scanners from broken TLS.

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetectedProtocol {
    /// A TLS handshake record, as far as the bytes go.
    Tls,
    /// A plaintext request of HTTP/1.
    Http1,
    /// The plaintext preface of HTTP/2 (RFC 9113 section 3.4), which plaintext gRPC sends.
    Http2,
    /// Something else.
    NotTls,
}

/// Methods of HTTP that clients begin with (RFC 9110 section 9.3), with the space behind them.
const METHODS: [&[u8]; 7] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
];
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// An answer of HTTP/1.1 to a request without TLS.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 66\r\nConnection: close\r\n\r\n\
This port takes TLS 1.3 with a client certificate, no plain HTTP.\n";

/// The settings that an HTTP/2 server must send first, and a GOAWAY with INADEQUATE_SECURITY (RFC 9113 sections 6.5,
/// 6.8 and 7).
const HTTP2_ANSWER: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
\x00\x00\x4b\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0c\
This port takes TLS 1.3 with a client certificate, no plain HTTP/2.";

/// Detects the protocol. RFC 8446 section 5.1: the record type is handshake (22), the legacy version 0x03xx.
pub fn detect_protocol(bytes: &[u8]) -> DetectedProtocol {
    match bytes {
        [] | [22] | [22, 3, ..] => DetectedProtocol::Tls,
        _ if bytes.starts_with(HTTP2_PREFACE) => DetectedProtocol::Http2,
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => DetectedProtocol::Http1,
        _ => DetectedProtocol::NotTls,
    }
}

impl DetectedProtocol {
    /// The answer, in the client's own protocol, that tells it to use TLS; `None` if it has none.
    pub const fn answer(self) -> Option<&'static [u8]> {
        match self {
            DetectedProtocol::Http1 => Some(HTTP1_ANSWER),
            DetectedProtocol::Http2 => Some(HTTP2_ANSWER),
            DetectedProtocol::Tls | DetectedProtocol::NotTls => None,
        }
    }

    /// The first bytes in words, for the log.
    pub const fn describe(self) -> &'static str {
        match self {
            DetectedProtocol::Http1 => {
                "a plain HTTP request: enable TLS in the client, with its certificate"
            }
            DetectedProtocol::Http2 => {
                "plain HTTP/2 or gRPC: enable TLS in the client, with its certificate"
            }
            DetectedProtocol::Tls | DetectedProtocol::NotTls => {
                "the first bytes are not a TLS record"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_is_tls_and_what_other_protocols_send_first_is_not() {
        for tls in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x02\x00\x01"] {
            assert_eq!(detect_protocol(tls), DetectedProtocol::Tls, "{tls:?}");
        }
        let others: [&[u8]; 6] = [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x0d\x0a\x0d\x0a\x00\x0d\x0aQUIT\x0a",
            b"\x80\x2e\x01\x00\x02",
            b"\x16\x02",
            b"\x00",
            b"GETTING",
        ];
        for other in others {
            assert_eq!(
                detect_protocol(other),
                DetectedProtocol::NotTls,
                "{other:?}"
            );
        }
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(detect_protocol(preface), DetectedProtocol::Http2);
        for request in ["GET / HTTP/1.1\r\n", "POST /v1/traces HTTP/1.1\r\n"] {
            assert_eq!(detect_protocol(request.as_bytes()), DetectedProtocol::Http1);
        }
    }

    #[test]
    fn answers_have_the_lengths_they_say() {
        let text = HTTP1_ANSWER.windows(4).position(|four| four == b"\r\n\r\n");
        let body = &HTTP1_ANSWER[text.unwrap() + 4..];
        let said = String::from_utf8_lossy(HTTP1_ANSWER);
        assert!(said.contains(&format!("Content-Length: {}\r\n", body.len())));
        let (settings, goaway) = HTTP2_ANSWER.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(usize::from(goaway[2]), goaway.len() - 9);
    }
}
