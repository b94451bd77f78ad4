//! The server, seen from a plain socket that has no business with it.
//! In: a connected socket. Out: bytes said, and in the end the `AttemptOutcome`. On the load's threads.
//! Of what the server sends only the first record is looked at: it is an alert, or it is not.

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::outcome::AttemptOutcome;

/// Type, version and length of a record, level and description of the alert in it (RFC 8446 sections 5.1 and 6).
const ALERT_BYTES: usize = 7;
const ALERT: u8 = 21;

/// When an attempt is given up, and what that is then called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Until {
    pub(super) at: Instant,
    pub(super) outcome: AttemptOutcome,
}

/// What one wait for the server brought.
pub(super) enum Heard {
    /// It said something.
    Bytes,
    /// It ended the connection.
    End(AttemptOutcome),
    /// Nothing.
    Silence,
}

/// The other end of a connection.
pub(super) struct Peer {
    socket: TcpStream,
    first: Vec<u8>,
}

impl Peer {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            first: Vec::with_capacity(ALERT_BYTES),
        }
    }

    /// Waits for bytes or the end.
    pub(super) async fn hear(&mut self, until: Instant) -> Heard {
        let mut scratch = [0; 2048];
        let count = match timeout_at(until, self.socket.read(&mut scratch)).await {
            Err(_) => return Heard::Silence,
            Ok(Ok(0)) => return Heard::End(self.explained(AttemptOutcome::Closed)),
            Ok(Err(_)) => return Heard::End(self.explained(AttemptOutcome::Reset)),
            Ok(Ok(count)) => count,
        };
        let missing = ALERT_BYTES - self.first.len();
        self.first.extend_from_slice(&scratch[..count.min(missing)]);
        Heard::Bytes
    }

    /// Waits for the end, whatever comes before it.
    pub(super) async fn hear_out(mut self, until: Until) -> AttemptOutcome {
        loop {
            match self.hear(until.at).await {
                Heard::Bytes => {}
                Heard::End(outcome) => return outcome,
                Heard::Silence => return until.outcome,
            }
        }
    }

    /// Sends bytes. `false` when the connection does not take them any more; hearing it out says why.
    pub(super) async fn say(&mut self, bytes: &[u8], until: Until) -> bool {
        matches!(
            timeout_at(until.at, self.socket.write_all(bytes)).await,
            Ok(Ok(()))
        )
    }

    /// Whether the first word was an alert: after it the server ends the connection by itself.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.first.first() == Some(&ALERT)
    }

    /// The socket, for a client that speaks TLS on it.
    pub(super) fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// Resets the connection.
    pub(super) fn leave(self) -> AttemptOutcome {
        // The server may have been faster; then there is nothing left to reset.
        let _ = self.socket.set_zero_linger();
        AttemptOutcome::Left
    }

    /// An alert says more than the way the connection ended.
    fn explained(&self, end: AttemptOutcome) -> AttemptOutcome {
        match self.first[..] {
            [ALERT, 3, _, 0, 2, _, description] => {
                AttemptOutcome::Alert(AlertDescription::from(description))
            }
            _ => end,
        }
    }
}
