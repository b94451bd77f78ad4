//! What can happen to a connection, as the data path reports it: the one seam between data path and telemetry.
//! In: what a worker borrows of a connection. Out: an `Event` for the observer. On the connection's worker; decides nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use gateway_core::certificate::Certificate;
use gateway_core::close_reason::CloseReason;
use gateway_core::endpoint::Endpoint;
use gateway_core::failure::Failure;
use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::{Ended, PeerFault};
use gateway_core::http::pool::{EjectionCause, ServerCondition};
use gateway_core::lineage::TicketRefusal;
use gateway_core::revocation::Serial;
use gateway_x509::client_certificate::ParsedCertificate;

use crate::config::BackendId;
use crate::connection::{ConnectionId, Direction};
use crate::tls::{Negotiated, VerifiedPeer};

/// A certificate that a client presented. Nothing about it is proven.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Its names, its issuer's, and its sum.
    pub certificate: &'a Certificate,
    /// Its number at its issuer.
    pub serial: Option<Serial>,
    /// When it has ended.
    pub not_after: SystemTime,
}

impl<'a> From<&'a ParsedCertificate> for Presented<'a> {
    fn from(parsed: &'a ParsedCertificate) -> Self {
        Presented {
            certificate: &parsed.certificate,
            serial: parsed.serial,
            not_after: parsed.not_after,
        }
    }
}

impl<'a> From<&'a VerifiedPeer> for Presented<'a> {
    fn from(peer: &'a VerifiedPeer) -> Self {
        Presented {
            certificate: peer.certificate(),
            serial: peer.serial(),
            not_after: peer.not_after(),
        }
    }
}

/// A request that is over. Nothing of it is formatted or copied unless a line is written about it.
#[derive(Debug, Clone, Copy)]
pub struct FinishedRequest<'a> {
    /// What it came to.
    pub ended: &'a Ended<'a>,
    /// The tenant that the backend is told.
    pub tenant: Option<&'a [u8]>,
    /// The backend; `None` where no server of any got it.
    pub backend: Option<BackendId>,
    /// The server that got it last.
    pub server: Option<Endpoint>,
    /// Now.
    pub ended_at: Instant,
}

impl FinishedRequest<'_> {
    /// How often it was sent to another server.
    pub fn retries(&self) -> u32 {
        self.ended.attempts.saturating_sub(1)
    }

    /// From its header section to the end of the response.
    pub fn took(&self) -> Duration {
        self.ended_at.saturating_duration_since(self.ended.began)
    }

    /// From its header section to the moment at which the last server got it: in a queue, while connections were made, with servers
    /// that did not process it. `None`: no server got it.
    pub fn waited(&self) -> Option<Duration> {
        let sent_at = self.ended.sent_at?;
        Some(sent_at.saturating_duration_since(self.ended.began))
    }

    /// From that moment to the header section of the response, where that was the server's.
    pub fn server_took(&self) -> Option<Duration> {
        let responded_at = self
            .ended
            .responded_at
            .filter(|_| self.ended.refusal.is_none())?;
        Some(responded_at.saturating_duration_since(self.ended.sent_at?))
    }

    /// Whether it came to anything but a success.
    pub fn has_failed(&self) -> bool {
        let ended = self.ended;
        let is_good = (200..400).contains(&ended.status) && ended.grpc_status.unwrap_or(0) == 0;
        ended.refusal.is_some() || !ended.is_complete || !is_good
    }
}

/// What a server has done that all clients of a worker share.
#[derive(Debug, Clone, Copy)]
pub enum ServerEvent {
    /// It has broken a rule of HTTP.
    Fault(PeerFault),
    /// It has failed so often that it gets no requests for a time.
    Ejected(EjectionCause),
}

/// What a worker's connections to a backend do at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolCount {
    /// Connections.
    pub connections: u64,
    /// Of them, those on which no content moves, since the server gives no credit.
    pub stalled: u64,
    /// Requests that servers have.
    pub requests: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// Servers that get no requests while others can take them, as the configuration writes them, and why:
    /// [`ServerCondition::LEFT_OUT`].
    pub left_out: Vec<(String, ServerCondition)>,
}

/// Something happened on a listener.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection was accepted.
    Accepted,
    /// A client did not get in.
    Refused {
        /// Why.
        failure: Failure,
        /// The client's address.
        address: SocketAddr,
        /// The reason in words.
        detail: &'a str,
        /// The certificate that was presented, where it could be read. Nothing about it is proven.
        presented: Option<Presented<'a>>,
        /// The server name that was asked for.
        server_name: Option<&'a str>,
        /// Why its ticket was refused before, if it came with one.
        ticket_refusal: Option<TicketRefusal>,
    },
    /// A client got in.
    Established {
        /// The connection, on its worker.
        connection: ConnectionId,
        /// The client.
        peer: &'a VerifiedPeer,
        /// Its address.
        address: SocketAddr,
        /// What was agreed on.
        negotiated: &'a Negotiated,
        /// Time from accept to Finished.
        took: Duration,
    },
    /// The dry run would refuse an admitted client, or close its connection.
    DryRunRefused {
        /// Why.
        failure: Failure,
        /// The reason in words.
        detail: &'a str,
        /// The client.
        peer: &'a VerifiedPeer,
    },
    /// The dry run would refuse a request that is passed on.
    DryRunRefusedRequest {
        /// Why.
        refusal: RequestRefusal,
        /// Its method.
        method: &'a [u8],
        /// Its path, without the query.
        path: &'a [u8],
        /// The client.
        peer: &'a VerifiedPeer,
    },
    /// Bytes of application data were passed on.
    Moved {
        /// Which way.
        direction: Direction,
        /// How many.
        bytes: usize,
    },
    /// A client has sent more than its identity may, and what it sends is read later.
    Slowed {
        /// The client's address.
        address: SocketAddr,
        /// The client.
        peer: &'a VerifiedPeer,
    },
    /// A server of a backend could not be reached.
    ServerFailed {
        /// The backend.
        backend: BackendId,
        /// The server.
        server: Endpoint,
        /// The server as the configuration writes it.
        name: &'a str,
        /// Why.
        error: &'a dyn std::error::Error,
        /// Another address of the same name serves.
        is_spared: bool,
    },
    /// A server ended a connection in another way than by an answer and a clean end, or in another language.
    EndedByServer {
        /// The backend.
        backend: BackendId,
        /// The server.
        server: Endpoint,
        /// The server as the configuration writes it.
        name: &'a str,
        /// How.
        end: CloseReason,
        /// What had been sent by then, and what that usually means.
        meaning: &'static str,
    },
    /// A client's connection found no server.
    Unreachable {
        /// The backend.
        backend: BackendId,
        /// How many servers are known.
        known: usize,
    },
    /// A connection that had got in ended.
    Ended {
        /// The connection, on its worker.
        connection: ConnectionId,
        /// Why.
        end: CloseReason,
        /// The client's address.
        address: SocketAddr,
        /// The client.
        peer: &'a VerifiedPeer,
        /// When the change came about for which the gateway ended it, if it was for one.
        changed_at: Option<Instant>,
        /// Bytes from the client to the backend.
        received_bytes: u64,
        /// Bytes from the backend to the client.
        sent_bytes: u64,
        /// Time since it had got in.
        lasted: Duration,
    },
    /// A request is over, whether a server has answered it or the gateway.
    RequestEnded {
        /// The client's connection, on its worker.
        connection: ConnectionId,
        /// The client's address.
        address: SocketAddr,
        /// The client.
        peer: &'a VerifiedPeer,
        /// What it came to.
        request: &'a FinishedRequest<'a>,
    },
    /// A client has broken a rule of HTTP, which has ended its connection or, by its scope, a stream.
    ClientFault {
        /// The client's address.
        address: SocketAddr,
        /// The client.
        peer: &'a VerifiedPeer,
        /// Which.
        fault: PeerFault,
    },
    /// An accepted connection is gone, whether it had got in or not.
    Closed,
    /// A connection's task panicked; its sockets were dropped, the backend's with a reset.
    Panicked {
        /// The connection, on its worker.
        connection: ConnectionId,
        /// The client's address.
        address: SocketAddr,
        /// The panic's message.
        message: &'a str,
    },
}
