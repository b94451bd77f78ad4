//! Chooses the application protocol of a connection (RFC 7301).
//! In: the listener's protocols, the client's offer. Out: a choice, or why there is none. A gateway in mode "stream"
//! cannot translate one protocol into another, so it refuses where the two sides do not agree.

/// The protocol of an HTTP client without ALPN: RFC 9112 is older than RFC 7301, and exporters of OTLP over HTTP send
/// none.
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// HTTP/2 over TLS.
pub const HTTP_2: &[u8] = b"h2";

/// The answer to a client's offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The listener speaks this one of the offered protocols.
    Common,
    /// The client offers nothing: it counts as HTTP/1.1, which the listener speaks.
    AssumedHttp1,
    /// Neither side names a protocol.
    Unnamed,
    /// The client offers protocols and the listener names none. Clients of gRPC then close the connection.
    Ignored,
    /// The listener names protocols, and the client offers none of them.
    Refused,
}

/// Decides on a client that offers `offered`; `None` if it sends no ALPN.
pub fn choose<'a>(ours: &[Vec<u8>], offered: Option<impl IntoIterator<Item = &'a [u8]>>) -> Choice {
    let is_ours = |protocol: &[u8]| ours.iter().any(|own| own == protocol);
    match (ours, offered) {
        ([], None) => Choice::Unnamed,
        ([], Some(_)) => Choice::Ignored,
        (_, None) if is_ours(HTTP_1_1) => Choice::AssumedHttp1,
        (_, None) => Choice::Refused,
        (_, Some(offered)) => match offered.into_iter().any(is_ours) {
            true => Choice::Common,
            false => Choice::Refused,
        },
    }
}

/// The protocols to offer a server for a client that speaks `client`. `own` are the protocols of the backend's
/// configuration.
pub fn offer(own: &[Vec<u8>], client: Option<&[u8]>) -> Vec<Vec<u8>> {
    match client {
        Some(protocol) if own.is_empty() || own.iter().any(|own| own == protocol) => {
            vec![protocol.to_vec()]
        }
        Some(_) | None => own.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_client_that_offers_nothing_counts_as_one_of_http_1() {
        type Names = &'static [&'static str];
        let cases: [(Names, Option<Names>, Choice); 9] = [
            (&["h2"], None, Choice::Refused),
            (&["h2", "http/1.1"], None, Choice::AssumedHttp1),
            (&["http/1.1"], None, Choice::AssumedHttp1),
            (&["mqtt"], None, Choice::Refused),
            (&[], None, Choice::Unnamed),
            (&[], Some(&["h2"]), Choice::Ignored),
            (&["h2"], Some(&["http/1.1", "h2"]), Choice::Common),
            (&["h2"], Some(&["http/1.1"]), Choice::Refused),
            (&["h2"], Some(&[]), Choice::Refused),
        ];
        for (ours, offered, expected) in cases {
            let offered = offered.map(|names| names.iter().map(|name| name.as_bytes()));
            assert_eq!(choose(&protocols(ours), offered), expected, "{ours:?}");
        }
    }

    #[test]
    fn a_server_is_offered_what_the_client_speaks_and_else_what_the_backend_is_said_to() {
        assert_eq!(offer(&[], Some(HTTP_2)), protocols(&["h2"]));
        assert_eq!(offer(&[], None), protocols(&[]));
        assert_eq!(offer(&protocols(&["h2"]), None), protocols(&["h2"]));
        let both = protocols(&["h2", "http/1.1"]);
        assert_eq!(offer(&both, Some(HTTP_1_1)), protocols(&["http/1.1"]));
        assert_eq!(offer(&both, Some(b"mqtt")), both);
    }
}
