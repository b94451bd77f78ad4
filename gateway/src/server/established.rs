//! The stages of a connection: accepted, then established.
//! In: an accepted socket, a handshake that has succeeded. Out: one type a stage, with what the next stage needs. On the worker
//! that accepted the connection. Knows nothing of the modes.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use gateway_core::close_reason::CloseReason;
use gateway_core::connection_limit::ConnectionPermit;
use gateway_rt::Socket;
use rustls::pki_types::CertificateDer;

use super::context::WorkerContext;
use super::silent::SilentPlace;
use super::state::State;
use crate::config::ListenerId;
use crate::connection::{
    ConnectionHandle, ConnectionId, ConnectionTimer, Direction, RateLimiter, Stream,
};
use crate::telemetry::Event;
use crate::tls::{Negotiated, VerifiedPeer};

/// A connection that was accepted just now.
pub(super) struct NewConnection {
    pub(super) info: ConnectionInfo,
    pub(super) handle: ConnectionHandle,
    pub(super) socket: Socket,
    /// Its place among the connections that have sent nothing yet.
    pub(super) silent: SilentPlace,
}

/// What events say of a connection.
#[derive(Clone, Copy)]
pub(super) struct ConnectionInfo {
    /// The listener that accepted it.
    pub(super) listener: ListenerId,
    pub(super) id: ConnectionId,
    /// The client's address.
    pub(super) address: SocketAddr,
}

/// A connection whose client is authenticated: what every mode needs until its end.
pub(super) struct Established {
    pub(super) info: ConnectionInfo,
    pub(super) peer: VerifiedPeer,
    /// Shared with the mode, which may close it after the end.
    pub(super) client: Rc<Stream>,
    pub(super) timer: ConnectionTimer,
    /// Shared with the mode. Few identities have a limit.
    pub(super) rate_limiter: Option<Rc<RateLimiter>>,
    pub(super) established_at: Instant,
    pub(super) _permit: ConnectionPermit,
}

/// What the handshake tells the mode. The mode drops it before the connection settles down: a state may be replaced days before
/// the connection ends.
pub(super) struct HandshakeResult {
    /// The state under which the client was authenticated.
    pub(super) state: Rc<State>,
    pub(super) negotiated: Negotiated,
    /// The certificates that the client has sent, its own first.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Bytes of data that a connection has passed on.
#[derive(Default)]
pub(super) struct Transferred {
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
}

impl Transferred {
    /// Adds bytes of one direction.
    pub(super) fn add(&self, direction: Direction, bytes: usize) {
        let total = match direction {
            Direction::Received => &self.received_bytes,
            Direction::Sent => &self.sent_bytes,
        };
        total.set(total.get() + bytes as u64);
    }

    /// Those from the client.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }

    /// Those to the client.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }
}

impl Established {
    /// Reports the end of the connection.
    pub(super) fn report_end(
        &self,
        context: &WorkerContext,
        end: CloseReason,
        transferred: &Transferred,
    ) {
        let ended = Event::Ended {
            connection: self.info.id,
            end,
            address: self.info.address,
            peer: &self.peer,
            changed_at: self.timer.changed_at(),
            received_bytes: transferred.received_bytes(),
            sent_bytes: transferred.sent_bytes(),
            lasted: self.established_at.elapsed(),
        };
        context.observer.emit(self.info.listener, &ended);
    }
}
