//! How one attempt ended, as a closed set.
//! In: what the socket or the TLS layer said. Out: an `AttemptOutcome` with a stable label. Judges nothing but the evidence.

use std::borrow::Cow;
use std::io;

use rustls::AlertDescription;

use crate::failure::{Failure, FailureKind};

/// What the server did with an attempt. Each attempt has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    /// A SYN left this host; no code waits for the answer.
    Sent,
    /// A reset answered the SYN: no server listens.
    Refused,
    /// Nothing answered the SYN: it was dropped on the way, or there is no such host.
    Unanswered,
    /// The server sent this alert, readably, and ended the connection.
    Alert(AlertDescription),
    /// The server ended the connection and said nothing that can be read.
    Closed,
    /// The server reset the connection.
    Reset,
    /// The attempt had come as far as it wanted to, and we reset the connection.
    Left,
    /// The server left the connection open until our time-out, and we closed it.
    TimedOut,
    /// The connection was still open when the run ended, and we closed it.
    OpenAtTheEnd,
    /// What came back is not TLS 1.3.
    NotTls,
    /// The server accepted a client that it must not accept.
    LetIn,
}

impl AttemptOutcome {
    /// Stable name, used in tables and JSON.
    pub(super) fn label(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Alert(alert) => return FailureKind::Alert(alert).label().into(),
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Left => "left",
            Self::TimedOut => "timed_out",
            Self::OpenAtTheEnd => "open_at_the_end",
            Self::NotTls => "not_tls",
            Self::LetIn => "let_in",
        })
    }

    /// Whether the three-way handshake was completed.
    pub(super) fn is_connected(self) -> bool {
        !matches!(self, Self::Sent | Self::Refused | Self::Unanswered)
    }

    /// What became of a SYN. An error when none was sent.
    pub(super) fn of_connecting(error: &io::Error) -> Result<Self, Failure> {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Self::Refused),
            // Only a connection that stood, if not for long, is reset (tcp(7), RFC 9293 section 3.10.7.3).
            io::ErrorKind::ConnectionReset => Ok(Self::Reset),
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Ok(Self::Unanswered),
            _ => Err(not_made(error)),
        }
    }

    /// How the server ended a TLS handshake or the connection after it.
    pub(super) fn of_tls(error: &io::Error) -> Self {
        match Failure::from(error).kind {
            FailureKind::Alert(alert) => Self::Alert(alert),
            FailureKind::Tls => Self::NotTls,
            FailureKind::Truncated => Self::Closed,
            _ => Self::Reset,
        }
    }
}

/// An attempt that never left this host.
pub(super) fn not_made(error: &io::Error) -> Failure {
    Failure::new(FailureKind::NotMade, error)
}
