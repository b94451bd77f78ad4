//! What went wrong with one unit of work, as a closed set of kinds.
//! In: errors of sockets, rustls, HTTP and gRPC. Out: a `Failure` with a stable label and a readable detail.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::AlertDescription;

/// A failed unit of work.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What kind of failure; its label is what failures are counted by.
    pub kind: FailureKind,
    /// What the layer that failed said.
    pub detail: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No TCP connection.
    Connect,
    /// The server sent this TLS alert.
    Alert(AlertDescription),
    /// We did not accept the server's certificate.
    ServerCertificate,
    /// Any other error of the TLS layer on our side.
    Tls,
    /// The connection was reset.
    Reset,
    /// The connection ended without a close_notify: truncation cannot be told from completion.
    Truncated,
    /// The connection ended cleanly, but before the work was done.
    ClosedEarly,
    /// Nothing came within the timeout.
    Timeout,
    /// Any other error of the socket.
    Socket,
    /// A handshake that should have been resumed was a full one.
    NotResumed,
    /// The server sent no session ticket.
    NoTicket,
    /// What came back is not what was sent.
    Mismatch,
    /// HTTP status other than success.
    HttpStatus(u16),
    /// gRPC status other than OK.
    GrpcStatus(tonic::Code),
    /// The server reset the stream (RFC 9113 section 6.4).
    StreamReset(h2::Reason),
    /// The server ended the connection with a GOAWAY frame while the request waited (RFC 9113 section 6.8).
    Goaway(h2::Reason),
    /// The server acknowledged the request, and the backend never got it.
    Lost,
    /// A reply that breaks the protocol.
    Protocol,
    /// The receiver acknowledged the request but refused records in it.
    Rejected,
    /// A turn of the open loop that could not start before the end: the rate was not reached.
    Missed,
    /// An attempt of a flood that never left this host.
    NotMade,
    /// The server accepted a client that it must not accept.
    LetIn,
    /// The server refused a client that it must refuse, but for another reason.
    WrongRefusal,
    /// The run never tried what it had to show.
    Untried,
}

impl FailureKind {
    /// Stable name, used in tables and JSON.
    pub fn label(&self) -> String {
        match self {
            Self::Connect => "connect".into(),
            Self::Alert(alert) => format!("alert_{}", snake_case(&format!("{alert:?}"))),
            Self::ServerCertificate => "server_certificate".into(),
            Self::Tls => "tls".into(),
            Self::Reset => "reset".into(),
            Self::Truncated => "truncated".into(),
            Self::ClosedEarly => "closed_early".into(),
            Self::Timeout => "timeout".into(),
            Self::Socket => "socket".into(),
            Self::NotResumed => "not_resumed".into(),
            Self::NoTicket => "no_ticket".into(),
            Self::Mismatch => "mismatch".into(),
            Self::HttpStatus(status) => format!("http_{status}"),
            Self::GrpcStatus(code) => format!("grpc_{}", snake_case(&format!("{code:?}"))),
            Self::StreamReset(reason) => format!("stream_reset_{}", reason_name(*reason)),
            Self::Goaway(reason) => format!("goaway_{}", reason_name(*reason)),
            Self::Lost => "lost".into(),
            Self::Protocol => "protocol".into(),
            Self::Rejected => "rejected".into(),
            Self::Missed => "missed".into(),
            Self::NotMade => "not_made".into(),
            Self::LetIn => "let_in".into(),
            Self::WrongRefusal => "wrong_refusal".into(),
            Self::Untried => "untried".into(),
        }
    }
}

impl Failure {
    /// A failure with its detail.
    pub fn new(kind: FailureKind, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            detail: detail.to_string(),
        }
    }

    /// A failure to open the TCP connection.
    pub fn connect(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::new(FailureKind::Timeout, error);
        }
        Self::new(FailureKind::Connect, error)
    }

    /// Nothing within the timeout while doing `what`.
    pub fn timeout(what: &str) -> Self {
        Self::new(FailureKind::Timeout, format!("timeout: {what}"))
    }

    /// Whether the peer said why; then no later error says it better.
    pub fn is_explained(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Alert(_) | FailureKind::ServerCertificate | FailureKind::Tls
        )
    }
}

/// An error of an established socket or of the TLS stream over it.
impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        if let Some(tls) = tls_error(error) {
            let kind = match tls {
                rustls::Error::AlertReceived(alert) => FailureKind::Alert(*alert),
                rustls::Error::InvalidCertificate(_) => FailureKind::ServerCertificate,
                _ => FailureKind::Tls,
            };
            return Self::new(kind, tls);
        }
        let kind = match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => FailureKind::Reset,
            io::ErrorKind::UnexpectedEof => FailureKind::Truncated,
            io::ErrorKind::TimedOut => FailureKind::Timeout,
            _ => FailureKind::Socket,
        };
        Self::new(kind, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.label(), self.detail)
    }
}

impl Error for Failure {}

/// An error of a connection or stream of HTTP/2.
impl From<&h2::Error> for Failure {
    fn from(error: &h2::Error) -> Self {
        if let Some(error) = error.get_io() {
            return Self::from(error);
        }
        let kind = match error.reason() {
            Some(reason) if error.is_remote() && error.is_go_away() => FailureKind::Goaway(reason),
            Some(reason) if error.is_remote() => FailureKind::StreamReset(reason),
            _ => FailureKind::Protocol,
        };
        Self::new(kind, error)
    }
}

/// An error of a connection or request of HTTP/1.
impl From<&hyper::Error> for Failure {
    fn from(error: &hyper::Error) -> Self {
        let is_early = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
        let kind = match is_early {
            true => FailureKind::ClosedEarly,
            false => FailureKind::Protocol,
        };
        Self::new(kind, error)
    }
}

/// `ENHANCE_YOUR_CALM` to `enhance_your_calm`; codes that RFC 9113 does not know by their number.
pub(crate) fn reason_name(reason: h2::Reason) -> String {
    format!("{reason:?}").to_ascii_lowercase()
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// `CertificateRequired` to `certificate_required`: the spelling of RFC 8446 and of gRPC.
fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    let mut after_uppercase = true;
    for letter in name.chars() {
        // `UnknownCA` is `unknown_ca`: a run of capitals is one word.
        if letter.is_ascii_uppercase() && !after_uppercase {
            text.push('_');
        }
        after_uppercase = letter.is_ascii_uppercase();
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_labelled_as_rfc_8446_spells_them() {
        let cases = [
            (
                AlertDescription::CertificateRequired,
                "alert_certificate_required",
            ),
            (AlertDescription::UnknownCA, "alert_unknown_ca"),
            (AlertDescription::AccessDenied, "alert_access_denied"),
        ];
        for (alert, label) in cases {
            assert_eq!(FailureKind::Alert(alert).label(), label);
        }
    }

    #[test]
    fn alert_inside_an_io_error_is_found() {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            rustls::Error::AlertReceived(AlertDescription::AccessDenied),
        );
        assert_eq!(
            Failure::from(&error).kind,
            FailureKind::Alert(AlertDescription::AccessDenied)
        );
    }

    #[test]
    fn end_without_close_notify_is_truncation() {
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(Failure::from(&error).kind, FailureKind::Truncated);
    }
}
