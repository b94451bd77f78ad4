//! Which application protocol a connection speaks (RFC 7301).
//! In: what the listener speaks, what the client offers. Out: a choice, or why there is none. A gateway that passes bytes on
//! as they are can make no protocol of another: where the two cannot agree, nothing may be lost in silence.

/// What an HTTP client speaks that says nothing (RFC 9112 is older than RFC 7301; exporters of OTLP over HTTP send no ALPN).
pub const HTTP_1_1: &[u8] = b"http/1.1";

/// HTTP/2 over TLS.
pub const HTTP_2: &[u8] = b"h2";

/// What becomes of a client's offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// One of the offered protocols is spoken here.
    Common,
    /// The client offers nothing, and counts as one of HTTP/1.1, which is spoken here.
    AssumedHttp1,
    /// Neither side names a protocol.
    Unnamed,
    /// The client offers protocols and the listener names none: clients of gRPC end such a connection.
    Ignored,
    /// The listener names protocols, and none of them is the client's.
    Refused,
}

/// Decides about a client that offers `offered`, which is `None` if it does not speak of protocols at all.
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

/// The protocols to offer a server on behalf of a client that speaks `client`; `own` is what the configuration says of the
/// backend.
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
