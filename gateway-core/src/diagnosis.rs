//! Guesses why a server has closed a connection.
//! In: what had happened by then. Out: a sentence for the log. A guess, because the gateway does not read
//! the stream; it rests on facts that an operator does not have at hand.

use crate::alpn::HTTP_2;

/// What had happened when the server closed the connection.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's application protocol, if it named one.
    pub protocol: Option<&'a [u8]>,
    /// Whether the hop to the server is TLS.
    pub is_tls: bool,
    /// Whether a PROXY header went first.
    pub has_proxy_header: bool,
    /// Bytes from the client to the server.
    pub received_bytes: u64,
    /// Bytes from the server to the client.
    pub sent_bytes: u64,
    /// Whether the server's first bytes are an answer in HTTP/1.
    pub answers_in_http1: bool,
}

impl Facts<'_> {
    /// Whether client and server speak different languages, however the connection ended.
    pub fn is_other_language(&self) -> bool {
        self.protocol == Some(HTTP_2) && self.answers_in_http1
    }
}

/// What had been sent by then, and the usual cause.
pub fn diagnose(facts: &Facts<'_>) -> &'static str {
    let speaks_http2 = facts.protocol == Some(HTTP_2);
    if facts.is_other_language() {
        return "the client speaks HTTP/2 and the server answers in HTTP/1: remove h2 from the listener's alpn, or use \
                a server that speaks HTTP/2";
    }
    if facts.sent_bytes > 0 {
        return "the server had answered before: its process may have ended, or it closes connections after a time of its \
                own";
    }
    if facts.has_proxy_header {
        return "the server had sent no byte: it may not know the PROXY header that comes first (proxy_protocol)";
    }
    if facts.received_bytes == 0 {
        return "no byte had moved in either direction";
    }
    match (facts.is_tls, facts.protocol) {
        (true, None) => {
            "the server had sent no byte, and was offered no application protocol: gRPC servers require one (alpn of \
             the listener or of [backend.tls])"
        }
        (true, Some(_)) => {
            "the server had sent no byte: it may have refused the gateway's certificate, or not speak the client's \
             protocol"
        }
        (false, Some(_)) if speaks_http2 => {
            "the server had sent no byte: it may speak HTTP/1.1 only, and the client speaks HTTP/2 (alpn), or it may \
             want TLS"
        }
        (false, _) => "the server had sent no byte: it may want TLS, or speak something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Facts<'static> = Facts {
        protocol: None,
        is_tls: false,
        has_proxy_header: false,
        received_bytes: 100,
        sent_bytes: 0,
        answers_in_http1: false,
    };

    #[test]
    fn what_had_been_sent_by_then_decides_what_it_means() {
        let http2 = Facts {
            protocol: Some(HTTP_2),
            ..NOTHING
        };
        let said = |facts: Facts<'_>, expected: &str| {
            let said = diagnose(&facts);
            assert!(said.contains(expected), "{facts:?}: {said}");
        };
        let answered = |facts: Facts<'static>, answers_in_http1| Facts {
            sent_bytes: 50,
            answers_in_http1,
            ..facts
        };
        let behind_tls = |facts: Facts<'static>| Facts {
            is_tls: true,
            ..facts
        };
        let with_header = |facts: Facts<'static>| Facts {
            has_proxy_header: true,
            ..facts
        };
        said(answered(http2, true), "remove h2 from");
        said(answered(NOTHING, true), "had answered before");
        said(answered(with_header(http2), false), "had answered before");
        said(with_header(http2), "PROXY header");
        said(behind_tls(NOTHING), "[backend.tls]");
        said(behind_tls(http2), "the gateway's certificate");
        said(http2, "HTTP/1.1 only");
        said(NOTHING, "want TLS");
        let silent = Facts {
            received_bytes: 0,
            ..NOTHING
        };
        said(silent, "in either direction");
    }
}
