//! From the data path's events to audit lines.
//! In: an event, where and when it happened. Out: a line in a buffer, for the events that have one. On the worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::authority::TrustDomain;
use gateway_core::certificate::{NameKind, last_second};
use gateway_core::clock::microseconds;
use gateway_core::close_reason::CloseReason;
use gateway_core::failure::Failure;
use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::message::trace_id;
use gateway_core::lineage::TicketRefusal;

use super::line::{
    AcceptedFields, AuditLine, BoundedText, ClientFields, EndLine, ForeseenLine, HandshakeLine,
    HandshakeOutcome, IdentityFields, PanickedLine, PresentedFields, RefusedFields, RequestLine,
    Shown, Time, Wire, WorkerConnection,
};
use crate::config::{Backend, BackendId};
use crate::connection::ConnectionId;
use crate::telemetry::{Event, FinishedRequest, Presented};
use crate::tls::{Negotiated, VerifiedPeer};

/// Where and when an event happened.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Number of the worker.
    pub worker: usize,
    /// The listener's name.
    pub listener: &'a str,
    /// The backends, by position.
    pub backends: &'a [Arc<Backend>],
    /// The time.
    pub now: SystemTime,
}

impl Scene<'_> {
    /// Writes the line of `event` into `buffer`. False where there is none.
    pub fn write(&self, event: &Event<'_>, buffer: &mut Vec<u8>) -> bool {
        match *event {
            Event::Refused {
                failure,
                address,
                detail,
                presented,
                server_name,
                ticket_refusal,
            } => {
                let asked = (address, server_name, ticket_refusal);
                with_refusal(failure, detail, presented, |how| {
                    self.handshake("refused", asked, how).write(buffer);
                });
            }
            Event::Established { .. } => self.accepted(event, buffer),
            Event::Ended {
                connection,
                end,
                address,
                peer,
                received_bytes,
                sent_bytes,
                lasted,
                changed_at: _,
            } => AuditLine::End(EndLine {
                time: Time(self.now),
                connection: self.id(connection),
                listener: self.listener,
                peer: address,
                reason: end.label(),
                received_bytes,
                sent_bytes,
                duration_microseconds: microseconds(lasted),
                client: client(peer),
            })
            .write(buffer),
            Event::RequestEnded {
                connection,
                address,
                peer,
                request,
            } => self.request((connection, address), peer, request, buffer),
            Event::DryRunRefused { .. } | Event::DryRunRefusedRequest { .. } => {
                self.foreseen(event, buffer);
            }
            Event::Panicked {
                connection,
                address,
                ..
            } => self.panicked(connection, address).write(buffer),
            Event::Accepted
            | Event::Moved { .. }
            | Event::Slowed { .. }
            | Event::ServerFailed { .. }
            | Event::EndedByServer { .. }
            | Event::Unreachable { .. }
            | Event::ClientFault { .. }
            | Event::Closed => return false,
        }
        true
    }

    fn accepted(&self, event: &Event<'_>, buffer: &mut Vec<u8>) {
        let Event::Established {
            connection,
            peer,
            address,
            negotiated,
            took,
        } = *event
        else {
            return;
        };
        let server_name = negotiated.server_name.as_deref();
        let asked = (address, server_name, negotiated.ticket_refusal);
        with_admission(self.id(connection), peer, negotiated, took, |how| {
            self.handshake("accepted", asked, how).write(buffer);
        });
    }

    fn request(
        &self,
        (connection, address): (ConnectionId, SocketAddr),
        peer: &VerifiedPeer,
        request: &FinishedRequest<'_>,
        buffer: &mut Vec<u8>,
    ) {
        let ended = request.ended;
        let field = |name: &[u8]| {
            let mut fields = ended.list.iter();
            fields
                .find(|field| field.name == name)
                .map(|field| field.value)
        };
        let without_query = |path| <[u8]>::split(path, |byte| *byte == b'?').next();
        AuditLine::Request(RequestLine {
            time: Time(self.now),
            connection: self.id(connection),
            listener: self.listener,
            peer: address,
            method: field(b":method").map(Wire),
            path: field(b":path").and_then(without_query).map(Wire),
            status: Some(ended.status).filter(|status| *status > 0),
            grpc_status: ended.grpc_status,
            reason: ended.refusal.map(RequestRefusal::label),
            complete: ended.is_complete,
            received_bytes: ended.received_bytes,
            sent_bytes: ended.sent_bytes,
            duration_microseconds: microseconds(request.took()),
            waited_microseconds: request.waited().map(microseconds),
            server_microseconds: request.server_took().map(microseconds),
            backend: request.backend.and_then(|BackendId(position)| {
                self.backends
                    .get(position)
                    .map(|backend| backend.name.as_str())
            }),
            server: request.server,
            retries: request.retries(),
            trace_id: trace_id(ended.list),
            identity: identity(peer),
            rule: peer.rule() + 1,
            tenant: request.tenant.map(Wire),
            fingerprint: Shown(peer.fingerprint()),
        })
        .write(buffer);
    }

    fn foreseen(&self, event: &Event<'_>, buffer: &mut Vec<u8>) {
        let (reason, detail, request, peer) = if let Event::DryRunRefused {
            failure,
            detail,
            peer,
        } = *event
        {
            (failure.label(), detail, None, peer)
        } else if let Event::DryRunRefusedRequest {
            refusal,
            method,
            path,
            peer,
        } = *event
        {
            let request = Some((method, path));
            (refusal.label(), refusal.message(), request, peer)
        } else {
            return;
        };
        AuditLine::Foreseen(ForeseenLine {
            time: Time(self.now),
            listener: self.listener,
            method: request.map(|(method, _)| Wire(method)),
            path: request.map(|(_, path)| Wire(path)),
            reason,
            detail: BoundedText(detail),
            fingerprint: Shown(peer.fingerprint()),
            identity: identity(peer),
        })
        .write(buffer);
    }

    fn panicked(&self, connection: ConnectionId, address: SocketAddr) -> AuditLine<'_> {
        AuditLine::Panicked(PanickedLine {
            time: Time(self.now),
            connection: self.id(connection),
            listener: self.listener,
            peer: address,
            reason: CloseReason::Internal.label(),
        })
    }

    fn id(&self, connection: ConnectionId) -> Shown<WorkerConnection> {
        let worker = self.worker;
        Shown(WorkerConnection { worker, connection })
    }

    fn handshake<'a>(
        &'a self,
        outcome: &'static str,
        (peer, server_name, ticket_refusal): (SocketAddr, Option<&'a str>, Option<TicketRefusal>),
        how: HandshakeOutcome<'a>,
    ) -> AuditLine<'a> {
        AuditLine::Handshake(HandshakeLine {
            time: Time(self.now),
            outcome,
            listener: self.listener,
            peer,
            server_name: server_name.map(BoundedText),
            ticket_refused: ticket_refusal.map(TicketRefusal::label),
            how,
        })
    }
}

fn with_refusal(
    failure: Failure,
    detail: &str,
    presented: Option<Presented<'_>>,
    write: impl FnOnce(HandshakeOutcome<'_>),
) {
    let name = presented.map(|presented| presented.certificate.name());
    let name = name.filter(|(kind, _)| *kind != NameKind::Fingerprint);
    write(HandshakeOutcome::Refused(RefusedFields {
        reason: failure.label(),
        detail: BoundedText(detail),
        presented: presented.map(|presented| PresentedFields {
            identity: name.as_ref().map(|(_, name)| BoundedText(name)),
            kind: name.as_ref().map(|(kind, _)| kind.label()),
            fingerprint: Shown(presented.certificate.fingerprint),
            serial: presented.serial.map(Shown),
            issuer: BoundedText(&presented.certificate.issuer),
            not_after: Time(last_second(presented.not_after)),
        }),
    }));
}

fn with_admission(
    connection: Shown<WorkerConnection>,
    peer: &VerifiedPeer,
    negotiated: &Negotiated,
    took: Duration,
    write: impl FnOnce(HandshakeOutcome<'_>),
) {
    let protocol = negotiated.protocol.as_deref().map(String::from_utf8_lossy);
    write(HandshakeOutcome::Accepted(AcceptedFields {
        connection,
        kind: if negotiated.is_resumed {
            "resumed"
        } else {
            "full"
        },
        protocol: protocol.as_deref().map(BoundedText),
        suite: negotiated.cipher_suite,
        group: negotiated.group,
        authenticated_at: Time(peer.authenticated_at()),
        duration_microseconds: microseconds(took),
        client: client(peer),
        issuer: BoundedText(&peer.certificate().issuer),
        not_after: Time(last_second(peer.not_after())),
    }));
}

fn identity(peer: &VerifiedPeer) -> IdentityFields<'_> {
    let identity = peer.identity();
    IdentityFields {
        identity: BoundedText(&identity.name),
        kind: identity.kind.label(),
        trust_domain: identity.trust_domain.as_ref().map(TrustDomain::as_str),
    }
}

fn client(peer: &VerifiedPeer) -> ClientFields<'_> {
    ClientFields {
        identity: identity(peer),
        rule: peer.rule() + 1,
        tenant: peer.tenant().map(|tenant| tenant.as_str()),
        fingerprint: Shown(peer.fingerprint()),
        serial: peer.serial().map(Shown),
    }
}
