//! How one attempt of an adverse client ended, as a closed set. In: what the connection said. Out: an `AdverseOutcome`
//! with a stable label.

use h2::Reason;
use rustls::AlertDescription;

use crate::failure::{Failure, FailureKind, reason_name};

/// What the server did with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdverseOutcome {
    /// The server did not accept the connection: it is over before any HTTP.
    NotConnected,
    /// The server sent GOAWAY with this reason and ended the connection.
    Goaway(Reason),
    /// The server sent this alert and ended the connection.
    Alert(AlertDescription),
    /// The server ended the connection and said nothing.
    Closed,
    /// The server reset the connection.
    Reset,
    /// The server has taken all that was sent, and answers still.
    Served,
    /// The connection was open when our time-out or the run ended.
    Held,
}

impl AdverseOutcome {
    /// Stable name, used in tables and JSON.
    pub(super) fn label(self) -> String {
        match self {
            Self::NotConnected => "not_connected".into(),
            Self::Goaway(reason) => format!("goaway_{}", reason_name(reason)),
            Self::Alert(alert) => FailureKind::Alert(alert).label(),
            Self::Closed => "closed".into(),
            Self::Reset => "reset".into(),
            Self::Served => "served".into(),
            Self::Held => "held".into(),
        }
    }

    pub(super) fn is_connected(self) -> bool {
        self != Self::NotConnected
    }

    /// A connection that did not come about.
    pub(super) fn of_connecting(failure: &Failure) -> Self {
        match failure.kind {
            FailureKind::Alert(alert) => Self::Alert(alert),
            _ => Self::NotConnected,
        }
    }

    /// The end of a connection that had come about.
    pub(super) fn of_end(error: Option<&std::io::Error>) -> Self {
        match error.map(|error| Failure::from(error).kind) {
            Some(FailureKind::Alert(alert)) => Self::Alert(alert),
            None | Some(FailureKind::Truncated) => Self::Closed,
            Some(_) => Self::Reset,
        }
    }
}
