//! What passes between the two streams of an exchange: sections, content, ends, resets, and the credit for all content.
//! In: events. Out: frames on the other connection.

use std::rc::Rc;
use std::time::Instant;

use super::exchange::{Exchange, LegKey, PeerKind};
use super::{ConnectionKey, Forwarder, LegEnd, Router, peer};
use crate::http::answer::{Protocol, RequestRefusal};
use crate::http::h2::{ErrorCode, Left, StreamId};
use crate::http::limits::{HELD_BYTES_MAX, OUTPUT_BYTES_MAX};
use crate::http::message::{ContentLeft, HeaderList, Malformed, check_trailers, read_response};

impl Forwarder {
    /// Passes a section on that is in the list: of a response, or trailers.
    pub(super) fn pass_section(
        &mut self,
        at: LegKey,
        end_stream: bool,
        router: &mut impl Router,
        now: Instant,
    ) {
        let LegKey { key, kind } = at;
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let is_trailers = kind == PeerKind::Client || exchange.has_response;
        let checked = match is_trailers {
            true => check_end(exchange, &self.list, kind, end_stream),
            false => check_response(exchange, &self.list, end_stream, now),
        };
        if checked.is_err() {
            return self.reject_message(at, router, now);
        }
        let is_interim = !is_trailers && !exchange.has_response;
        let from_client = exchange.client.connection;
        if is_interim && self.is_unread(from_client) {
            // No window bounds it, and the response does not need it.
            return;
        }
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        // A backend that only says that it is about to respond has not.
        if !is_interim {
            exchange.moved = now;
        }
        if end_stream && let Some(leg) = exchange.leg_mut(kind) {
            leg.has_received_end = true;
        }
        if kind == PeerKind::Backend {
            note_grpc_status(exchange, &self.list);
            if let Some(mut request) = exchange.mirror.take_if(|_| !is_interim) {
                if exchange.held.is_whole && exchange.client.has_received_end {
                    // No other backend gets it any more.
                    let content = exchange.held.take_content();
                    self.held_bytes -= content.len();
                    request.content = Some(content);
                }
                router.mirror(*request);
            }
        }
        if exchange.is_kept() {
            let trailers = self.take_list();
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.held.trailers = Some(trailers);
            }
            return;
        }
        let (has_response, from) = (exchange.has_response, exchange.client.connection);
        if let Some(to) = exchange
            .leg_mut(kind.other())
            .filter(|to| !to.is_gone && !to.has_sent_end)
        {
            to.has_sent_end = end_stream;
            let (to, stream) = (to.connection, to.stream);
            let client = self.client(from).map(Rc::clone);
            if let (Some(peer), Some(client)) = (peer(&mut self.peers, to), client) {
                let reserved = &client.reserved;
                let passes = |field: &_| !is_trailers || reserved.lets_pass_in_trailers(*field);
                let passing = self.list.iter().filter(passes);
                peer.connection.send_section(stream, passing, end_stream);
            }
            self.mark(to);
        }
        if has_response {
            self.drop_held(key);
        }
        self.forget_if_over(key, router);
    }

    /// Whether a connection has not read what fills its output.
    fn is_unread(&mut self, key: ConnectionKey) -> bool {
        peer(&mut self.peers, key)
            .is_some_and(|peer| peer.connection.output().len() >= OUTPUT_BYTES_MAX)
    }

    /// Passes content on. Its sender gets credit for what has left; what nobody wants any more has left too.
    pub(super) fn pass_data(
        &mut self,
        at: LegKey,
        data: &[u8],
        end_stream: bool,
        router: &mut impl Router,
        now: Instant,
    ) {
        let LegKey { key, kind } = at;
        let came = data.len();
        let is_arriving = self.exchanges.get(key).is_some_and(|one| one.is_arriving);
        if is_arriving && !self.has_room(key, came) {
            self.place_if_arriving(key, router, now);
        }
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        exchange.moved = now;
        let Some(from) = exchange.leg_mut(kind) else {
            return;
        };
        let taken = from.content.take(data.len());
        let ended = match end_stream {
            true => from.content.end(),
            false => Ok(()),
        };
        if taken.and(ended).is_err() {
            self.release(at, data.len(), now);
            return self.reject_message(at, router, now);
        }
        from.has_received_end |= end_stream;
        let data = match kind == PeerKind::Backend && exchange.has_no_content {
            true => &[],
            false => data,
        };
        let dropped = came - data.len();
        match kind {
            PeerKind::Client => exchange.outcome.received_bytes += data.len() as u64,
            PeerKind::Backend => exchange.outcome.sent_bytes += data.len() as u64,
        }
        if exchange.outcome.received_bytes > exchange.content_bytes_max {
            self.release(at, data.len(), now);
            return self.refuse(key, RequestRefusal::ContentTooLarge, router, now);
        }
        if kind == PeerKind::Client && !self.hold(key, data) {
            self.release(at, data.len(), now);
            return self.refuse(key, RequestRefusal::BackendBusy, router, now);
        }
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if exchange.is_kept() {
            return;
        }
        let mut left = data.len();
        if let Some(to) = exchange
            .leg_mut(kind.other())
            .filter(|to| !to.is_gone && !to.has_sent_end)
        {
            to.has_sent_end = end_stream;
            let (connection, stream) = (to.connection, to.stream);
            if let Some(found) = peer(&mut self.peers, connection) {
                left = found.connection.send_data(stream, data, end_stream);
            }
            to.waiting += data.len() - left;
            left = to.due(left);
            self.mark(connection);
        }
        if kind == PeerKind::Client
            && let Some(exchange) = self.exchanges.get_mut(key)
        {
            exchange.credited += left;
        }
        self.release(at, left + dropped, now);
        self.forget_if_over(key, router);
    }

    /// Keeps content of a request, if there is room, so that another backend can get it. Returns whether it may go on:
    /// what waits for a backend has to be kept.
    fn hold(&mut self, key: u32, data: &[u8]) -> bool {
        let has_room = self.has_room(key, data.len());
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return false;
        };
        if has_room {
            exchange.held.content.extend_from_slice(data);
            self.held_bytes += data.len();
            return true;
        }
        if exchange.queue.is_some() {
            return false;
        }
        self.drop_held(key);
        true
    }

    /// Whether so much more of a request's content can be kept.
    fn has_room(&self, key: u32, bytes: usize) -> bool {
        let exchange = self.exchanges.get(key);
        exchange.is_some_and(|exchange| exchange.held.has_room(bytes))
            && self.held_bytes + bytes <= HELD_BYTES_MAX
    }

    /// Gives up what is held of a request that has a backend, or an answer.
    fn drop_held(&mut self, key: u32) {
        if let Some(exchange) = self.exchanges.get_mut(key)
            && exchange.held.is_whole
        {
            let content = exchange.held.take_content();
            self.give_buffer(content);
        }
    }

    /// A stream is gone by its peer's doing: the other one ends as it can.
    pub(super) fn stream_is_gone(
        &mut self,
        left: Left,
        kind: PeerKind,
        code: ErrorCode,
        router: &mut impl Router,
        now: Instant,
    ) {
        let Left { key, bytes } = left;
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let Some(leg) = exchange.leg_mut(kind) else {
            return;
        };
        leg.is_gone = true;
        debug_assert_eq!(leg.waiting, bytes);
        match kind {
            PeerKind::Client => {
                let waited = std::mem::take(&mut leg.waiting);
                self.release(PeerKind::Backend.of(key), waited, now);
                self.leave_backend(key, (ErrorCode::Cancel, LegEnd::Abandoned), router, now);
                self.drop_request(key, now);
                self.forget_if_over(key, router);
            }
            // It has said everything, and what of that waits for the client still goes there.
            PeerKind::Backend if leg.has_received_end && leg.has_sent_end => {
                self.forget_if_over(key, router);
            }
            // Nothing was processed, if it says so.
            PeerKind::Backend if code == ErrorCode::RefusedStream => {
                self.send_again(key, RequestRefusal::BackendBusy, router, now);
            }
            PeerKind::Backend => self.refuse(key, RequestRefusal::BackendBroke, router, now),
        }
    }

    /// A backend will not process streams above `last`.
    pub(super) fn give_up(
        &mut self,
        backend: ConnectionKey,
        last: StreamId,
        router: &mut impl Router,
        now: Instant,
    ) {
        let Some(connection) = self.connection(backend) else {
            return;
        };
        let keys: Vec<u32> = connection.keys_above(last).map(|(_, key)| key).collect();
        for key in keys {
            self.send_again(key, RequestRefusal::BackendUnreachable, router, now);
        }
    }

    /// All streams of a connection are gone.
    pub(super) fn take_streams(
        &mut self,
        from: ConnectionKey,
        code: ErrorCode,
        router: &mut impl Router,
        now: Instant,
    ) {
        let Some(found) = peer(&mut self.peers, from) else {
            return;
        };
        let kind = found.kind();
        for left in found.connection.take_streams() {
            self.stream_is_gone(left, kind, code, router, now);
        }
        self.mark(from);
    }

    /// A message is malformed (RFC 9113 section 8.1.1).
    fn reject_message(&mut self, at: LegKey, router: &mut impl Router, now: Instant) {
        let LegKey { key, kind } = at;
        let code = ErrorCode::ProtocolError;
        match kind {
            PeerKind::Client => {
                self.reset(at, code, now);
                self.leave_backend(key, (ErrorCode::Cancel, LegEnd::Abandoned), router, now);
                self.drop_request(key, now);
                self.forget_if_over(key, router);
            }
            PeerKind::Backend => {
                self.leave_backend(key, (code, LegEnd::Failed), router, now);
                self.refuse(key, RequestRefusal::BackendMalformed, router, now);
            }
        }
    }

    /// Gives the sender of content its credit.
    pub(super) fn release(&mut self, at: LegKey, bytes: usize, now: Instant) {
        let leg = self.exchanges.get(at.key);
        let leg = leg.and_then(|one| one.leg(at.kind));
        let Some(leg) = leg else {
            return;
        };
        let (connection, stream) = (leg.connection, leg.stream);
        if bytes > 0
            && let Some(found) = peer(&mut self.peers, connection)
        {
            let was_paused = !found.connection.wants_input();
            found.connection.release(stream, bytes, now);
            if was_paused && found.connection.wants_input() {
                self.resumed.push(connection);
            }
            self.mark(connection);
        }
    }

    /// Writes what waited for credit, or for room, on a connection.
    pub(super) fn send_queued(
        &mut self,
        on: ConnectionKey,
        router: &mut impl Router,
        now: Instant,
    ) {
        while let Some(found) = peer(&mut self.peers, on)
            && let Some(Left { key, bytes }) = found.connection.send_queued()
        {
            let kind = found.kind();
            if let Some(exchange) = self.exchanges.get_mut(key) {
                exchange.moved = now;
                let mut due = bytes;
                if let Some(leg) = exchange.leg_mut(kind) {
                    leg.waiting -= bytes;
                    due = leg.due(bytes);
                }
                if kind == PeerKind::Backend {
                    exchange.credited += due;
                }
                self.release(kind.other().of(key), due, now);
            }
            self.forget_if_over(key, router);
        }
        self.mark(on);
    }

    /// Notes that a connection has output, or is over.
    pub fn mark(&mut self, key: ConnectionKey) {
        let Some(found) = peer(&mut self.peers, key) else {
            return;
        };
        let is_over = found.connection.is_over();
        let shows_end = is_over && !std::mem::replace(&mut found.has_shown_end, true);
        let has_output = !found.connection.output().is_empty();
        if (has_output || shows_end) && !std::mem::replace(&mut found.is_ready, true) {
            self.ready.push(key);
        }
    }
}

/// Checks trailers, and that no content is missing before them.
fn check_end(
    exchange: &Exchange,
    list: &HeaderList,
    kind: PeerKind,
    end_stream: bool,
) -> Result<(), Malformed> {
    check_trailers(list)?;
    if !end_stream {
        return Err(Malformed::Order);
    }
    exchange.leg(kind).map_or(Ok(()), |leg| leg.content.end())
}

/// Checks the header section of a response, and notes how much content is to follow.
fn check_response(
    exchange: &mut Exchange,
    list: &HeaderList,
    end_stream: bool,
    now: Instant,
) -> Result<(), Malformed> {
    let response = read_response(list)?;
    if response.is_interim() {
        return match end_stream {
            true => Err(Malformed::Order),
            false => Ok(()),
        };
    }
    exchange.has_response = true;
    exchange.outcome.status = response.status;
    exchange.outcome.responded_at = Some(now);
    // RFC 9110 section 8.6: these speak of the content of another response.
    let has_content = !exchange.is_head && !matches!(response.status, 204 | 304);
    let content = match has_content {
        true => ContentLeft::new(response.content_length),
        false => ContentLeft::any(),
    };
    if end_stream {
        content.end()?;
    }
    // RFC 9110 sections 9.3.2, 15.3.5, 15.4.5. Some servers send it nevertheless.
    exchange.has_no_content = !has_content;
    if let Some(backend) = &mut exchange.backend {
        backend.content = content;
    }
    Ok(())
}

/// Notes what the response's last section says of its outcome.
fn note_grpc_status(exchange: &mut Exchange, list: &HeaderList) {
    if exchange.protocol != Protocol::Grpc {
        return;
    }
    let said = list.iter().find(|field| field.name == b"grpc-status");
    let number = said.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    exchange.outcome.grpc_status = number.or(exchange.outcome.grpc_status);
}
