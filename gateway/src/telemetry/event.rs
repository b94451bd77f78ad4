//! What can happen to a connection, as the data path reports it: the one seam between data path and telemetry.
//! In: what a worker borrows of a connection. Out: an `Event` for the observer. On the connection's worker; decides nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use gateway_core::certificate::Certificate;
use gateway_core::close_reason::CloseReason;
use gateway_core::failure::Failure;
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
        server: SocketAddr,
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
        server: SocketAddr,
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
