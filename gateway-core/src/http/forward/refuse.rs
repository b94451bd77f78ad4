//! The end of an exchange that no backend completes: an answer of ours, or as its protocol has it. In: why. Out: an
//! answer, trailers or a reset; the credit for what was not passed on.

use std::time::Instant;

use super::exchange::{LegKey, PeerKind};
use super::router::{Ended, LegEnd, Router};
use super::{Forwarder, peer};
use crate::http::answer::{RequestRefusal, answer, trailers};
use crate::http::h2::ErrorCode;

impl Forwarder {
    /// Ends the response of an exchange that has no backend, or none any more: by an answer of ours if it has not
    /// begun, else as its protocol has it. The rest of the request is dropped as it comes.
    pub(super) fn refuse(
        &mut self,
        key: u32,
        refusal: RequestRefusal,
        router: &mut impl Router,
        now: Instant,
    ) {
        let end = match refusal.is_backends_fault() {
            true => LegEnd::Failed,
            false => LegEnd::Abandoned,
        };
        self.leave_backend(key, (ErrorCode::Cancel, end), router, now);
        self.drop_request(key, now);
        let wait = self.wait;
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if exchange.client.is_gone || exchange.client.has_sent_end {
            return self.forget_if_over(key, router);
        }
        let (has_response, protocol) = (exchange.has_response, exchange.protocol);
        let (client, stream) = (exchange.client.connection, exchange.client.stream);
        exchange.outcome.refusal = Some(refusal);
        exchange.has_response = true;
        exchange.client.has_sent_end = true;
        let is_head = exchange.is_head;
        if !has_response {
            let answer = answer(refusal, protocol, wait);
            exchange.outcome.status = answer.status;
            exchange.outcome.grpc_status = answer.grpc_status;
            exchange.outcome.responded_at = Some(now);
            let Some(connection) = peer(&mut self.peers, client).map(|peer| &mut peer.connection)
            else {
                return;
            };
            let ends = answer.content.is_empty() || is_head;
            connection.send_section(stream, answer.fields.iter(), ends);
            if !ends {
                let left = connection.send_data(stream, &answer.content, true);
                // Ours: no backend gets credit for it.
                exchange.client.waiting = answer.content.len() - left;
            }
        } else if let Some(list) = trailers(refusal, protocol, wait) {
            exchange.outcome.grpc_status = Some(refusal.grpc_status().number().into());
            if let Some(peer) = peer(&mut self.peers, client) {
                peer.connection.send_section(stream, list.iter(), true);
            }
        } else {
            self.reset(PeerKind::Client.of(key), ErrorCode::InternalError, now);
        }
        self.mark(client);
        self.forget_if_over(key, router);
    }

    /// Ends an exchange whose time is over. A response that its client does not read is cut off.
    pub(super) fn end_overdue(
        &mut self,
        key: u32,
        refusal: RequestRefusal,
        router: &mut impl Router,
        now: Instant,
    ) {
        let exchange = self.exchanges.get_mut(key);
        let Some(exchange) = exchange.filter(|exchange| exchange.client.waiting > 0) else {
            return self.refuse(key, refusal, router, now);
        };
        exchange.outcome.refusal = Some(refusal);
        self.reset(PeerKind::Client.of(key), ErrorCode::Cancel, now);
        self.leave_backend(key, (ErrorCode::Cancel, LegEnd::Abandoned), router, now);
        self.drop_request(key, now);
        self.forget_if_over(key, router);
    }

    /// Gives up what is held of a request. Its client gets the credit that is still missing.
    pub(super) fn drop_request(&mut self, key: u32, now: Instant) {
        self.leave_queue(key);
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let missing = match exchange.backend {
            // What waits with the backend's stream gets it when it leaves.
            Some(_) => 0,
            None => exchange.uncredited(),
        };
        let content = exchange.held.take_content();
        self.give_buffer(content);
        self.release(PeerKind::Client.of(key), missing, now);
    }

    /// Takes an exchange from its backend, whose stream is reset unless it is over. What waited on it is dropped; the
    /// client gets its credit for that unless the request is held.
    pub(super) fn leave_backend(
        &mut self,
        key: u32,
        (code, end): (ErrorCode, LegEnd),
        router: &mut impl Router,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let Some(leg) = &exchange.backend else {
            return;
        };
        let backend = leg.connection;
        let is_over = leg.has_received_end && leg.has_sent_end && leg.waiting == 0;
        let missing = match exchange.held.is_whole {
            true => 0,
            false => exchange.uncredited(),
        };
        if !is_over {
            self.reset(PeerKind::Backend.of(key), code, now);
        }
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.backend = None;
        }
        router.left(backend, end);
        self.note_room(backend);
        self.release(PeerKind::Client.of(key), missing, now);
    }

    /// Resets one stream of an exchange, unless it is gone; what waited on it is dropped. For what waited for the
    /// client the backend gets its credit.
    pub(super) fn reset(&mut self, at: LegKey, code: ErrorCode, now: Instant) {
        let LegKey { key, kind } = at;
        let leg = self
            .exchanges
            .get_mut(key)
            .and_then(|one| one.leg_mut(kind));
        let Some(leg) = leg else {
            return;
        };
        if std::mem::replace(&mut leg.is_gone, true) {
            return;
        }
        let waited = std::mem::take(&mut leg.waiting);
        let (connection, stream) = (leg.connection, leg.stream);
        if let Some(found) = peer(&mut self.peers, connection) {
            // A client's own fault counts.
            let _ = match (kind, code) {
                (PeerKind::Client, ErrorCode::ProtocolError) => {
                    found.connection.reject(stream, code, now)
                }
                _ => found.connection.reset(stream, code),
            };
        }
        self.mark(connection);
        if kind == PeerKind::Client {
            self.release(PeerKind::Backend.of(key), waited, now);
        }
    }

    /// Forgets an exchange of which nothing passes any more, and tells what it came to.
    pub(super) fn forget_if_over(&mut self, key: u32, router: &mut impl Router) {
        if !self
            .exchanges
            .get(key)
            .is_some_and(|exchange| exchange.is_over())
        {
            return;
        }
        let Some(mut exchange) = self.exchanges.remove(key) else {
            return;
        };
        let backend = exchange.backend.as_ref().map(|leg| leg.connection);
        if let Some(backend) = backend {
            let end = LegEnd::Answered {
                status: exchange.outcome.status,
                grpc_status: exchange.outcome.grpc_status,
            };
            router.left(backend, end);
            self.note_room(backend);
        }
        let outcome = &exchange.outcome;
        router.ended(&Ended {
            client: exchange.client.connection,
            backend: backend.or(exchange.last_backend),
            list: &exchange.held.list,
            status: outcome.status,
            grpc_status: outcome.grpc_status,
            refusal: outcome.refusal,
            is_complete: exchange.client.has_sent_end && !exchange.client.is_gone,
            received_bytes: outcome.received_bytes,
            sent_bytes: outcome.sent_bytes,
            began: exchange.began,
            sent_at: outcome.sent_at,
            responded_at: outcome.responded_at,
            attempts: exchange.attempts,
            was_asked: exchange.was_asked,
        });
        let content = exchange.held.take_content();
        self.give_buffer(content);
        self.give_list(exchange.held.list);
    }
}
