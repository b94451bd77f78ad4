//! What passes between the two streams of an exchange: sections, content, ends, resets, and the credit for all content.
//! In: events. Out: frames on the other connection.

use std::time::Instant;

use super::exchange::{Exchange, PeerKind};
use super::{ConnectionKey, Forwarder, peer};
use crate::http::answer::RequestRefusal;
use crate::http::h2::{ErrorCode, Left, StreamId};
use crate::http::message::{ContentLeft, HeaderList, Malformed, check_trailers, read_response};

impl Forwarder {
    /// Passes a section on that is in the list: of a response, or trailers.
    pub(super) fn pass_section(
        &mut self,
        key: u32,
        side: PeerKind,
        end_stream: bool,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let is_trailers = side == PeerKind::Client || exchange.has_response;
        let checked = match is_trailers {
            true => check_end(exchange, &self.list, side, end_stream),
            false => check_response(exchange, &self.list, end_stream),
        };
        if checked.is_err() {
            return self.reject_message(key, side, now);
        }
        if end_stream && let Some(end) = exchange.end_mut(side) {
            end.has_received_end = true;
        }
        if let Some(to) = exchange
            .end_mut(side.other())
            .filter(|to| !to.is_gone && !to.has_sent_end)
        {
            to.has_sent_end = end_stream;
            let (to, stream) = (to.connection, to.stream);
            let from = exchange.client.connection;
            let list = std::mem::replace(&mut self.list, HeaderList::new(0));
            let client = peer(&mut self.peers, from).and_then(|peer| peer.client.take());
            if let (Some(connection), Some(client)) = (self.connection(to), &client) {
                let reserved = &client.reserved;
                let passes = |field: &_| !is_trailers || reserved.lets_pass_in_trailers(*field);
                connection.send_section(stream, list.iter().filter(passes), end_stream);
            }
            if let Some(found) = peer(&mut self.peers, from) {
                found.client = client;
            }
            self.list = list;
            self.mark(to);
        }
        self.forget_if_over(key);
    }

    /// Passes content on. Its sender gets credit for what has left; what nobody wants any more has left too.
    pub(super) fn pass_data(
        &mut self,
        key: u32,
        side: PeerKind,
        data: &[u8],
        end_stream: bool,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let Some(from) = exchange.end_mut(side) else {
            return;
        };
        let taken = from.content.take(data.len());
        let ended = if end_stream {
            from.content.end()
        } else {
            Ok(())
        };
        if taken.and(ended).is_err() {
            self.release(key, side, data.len(), now);
            return self.reject_message(key, side, now);
        }
        from.has_received_end |= end_stream;
        let mut left = data.len();
        if let Some(to) = exchange
            .end_mut(side.other())
            .filter(|to| !to.is_gone && !to.has_sent_end)
        {
            to.has_sent_end = end_stream;
            let (connection, stream) = (to.connection, to.stream);
            if let Some(connection) = peer(&mut self.peers, connection) {
                left = connection.connection.send_data(stream, data, end_stream);
            }
            to.waiting += data.len() - left;
            self.mark(connection);
        }
        self.release(key, side, left, now);
        self.forget_if_over(key);
    }

    /// A stream is gone by its peer's doing: the other one ends as it can.
    pub(super) fn stream_is_gone(
        &mut self,
        left: Left,
        side: PeerKind,
        code: ErrorCode,
        now: Instant,
    ) {
        let Left { key, bytes } = left;
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if let Some(end) = exchange.end_mut(side) {
            end.is_gone = true;
            let waited = std::mem::take(&mut end.waiting);
            debug_assert_eq!(waited, bytes);
            self.release(key, side.other(), waited, now);
        }
        match side {
            PeerKind::Client => {
                self.reset(key, PeerKind::Backend, ErrorCode::Cancel, now);
                self.forget_if_over(key);
            }
            // Nothing was processed, if it says so.
            PeerKind::Backend if code == ErrorCode::RefusedStream => {
                self.refuse(key, RequestRefusal::BackendBusy, now);
            }
            PeerKind::Backend => self.refuse(key, RequestRefusal::BackendBroke, now),
        }
    }

    /// A backend will not process streams above `last`.
    pub(super) fn give_up(&mut self, backend: ConnectionKey, last: StreamId, now: Instant) {
        let Some(connection) = self.connection(backend) else {
            return;
        };
        let keys: Vec<u32> = connection.keys_above(last).map(|(_, key)| key).collect();
        for key in keys {
            self.refuse(key, RequestRefusal::BackendUnreachable, now);
        }
    }

    /// All streams of a connection are gone.
    pub(super) fn take_streams(&mut self, from: ConnectionKey, code: ErrorCode, now: Instant) {
        let Some(found) = peer(&mut self.peers, from) else {
            return;
        };
        let side = found.side();
        let streams: Vec<Left> = found.connection.take_streams().collect();
        for left in streams {
            self.stream_is_gone(left, side, code, now);
        }
        self.mark(from);
    }

    /// A message is malformed (RFC 9113 section 8.1.1).
    fn reject_message(&mut self, key: u32, side: PeerKind, now: Instant) {
        self.reset(key, side, ErrorCode::ProtocolError, now);
        match side {
            PeerKind::Client => {
                self.reset(key, PeerKind::Backend, ErrorCode::Cancel, now);
                self.forget_if_over(key);
            }
            PeerKind::Backend => self.refuse(key, RequestRefusal::BackendMalformed, now),
        }
    }

    /// Resets one stream of an exchange, unless it is gone; what waited on it is dropped, and its sender gets credit.
    pub(super) fn reset(&mut self, key: u32, side: PeerKind, code: ErrorCode, now: Instant) {
        let Some(end) = self
            .exchanges
            .get_mut(key)
            .and_then(|one| one.end_mut(side))
        else {
            return;
        };
        if std::mem::replace(&mut end.is_gone, true) {
            return;
        }
        let waited = std::mem::take(&mut end.waiting);
        let (connection, stream) = (end.connection, end.stream);
        if let Some(found) = peer(&mut self.peers, connection) {
            // A client's own fault counts.
            let _ = match (side, code) {
                (PeerKind::Client, ErrorCode::ProtocolError) => {
                    found.connection.reject(stream, code, now)
                }
                _ => found.connection.reset(stream, code),
            };
        }
        self.mark(connection);
        self.release(key, side.other(), waited, now);
    }

    /// Gives the sender of content its credit.
    fn release(&mut self, key: u32, side: PeerKind, bytes: usize, now: Instant) {
        let Some(end) = self
            .exchanges
            .get(key)
            .and_then(|exchange| exchange.end(side))
        else {
            return;
        };
        let (connection, stream) = (end.connection, end.stream);
        if bytes > 0
            && let Some(found) = peer(&mut self.peers, connection)
        {
            found.connection.release(stream, bytes, now);
            self.mark(connection);
        }
    }

    /// Writes what waited for credit, or for room, on a connection.
    pub(super) fn send_queued(&mut self, on: ConnectionKey, now: Instant) {
        while let Some(found) = peer(&mut self.peers, on)
            && let Some(Left { key, bytes }) = found.connection.send_queued()
        {
            let side = found.side();
            if let Some(end) = self
                .exchanges
                .get_mut(key)
                .and_then(|one| one.end_mut(side))
            {
                end.waiting -= bytes;
                self.release(key, side.other(), bytes, now);
            }
            self.forget_if_over(key);
        }
        self.mark(on);
    }

    /// Notes that a connection has output.
    pub(super) fn mark(&mut self, key: ConnectionKey) {
        if let Some(found) = peer(&mut self.peers, key)
            && !found.connection.output().is_empty()
            && !std::mem::replace(&mut found.is_ready, true)
        {
            self.ready.push(key);
        }
    }

    pub(super) fn forget_if_over(&mut self, key: u32) {
        if self.exchanges.get(key).is_some_and(Exchange::is_over) {
            self.exchanges.remove(key);
        }
    }
}

/// Checks trailers, and that no content is missing before them.
fn check_end(
    exchange: &Exchange,
    list: &HeaderList,
    side: PeerKind,
    end_stream: bool,
) -> Result<(), Malformed> {
    check_trailers(list)?;
    if !end_stream {
        return Err(Malformed::Order);
    }
    exchange.end(side).map_or(Ok(()), |end| end.content.end())
}

/// Checks the header section of a response, and notes how much content is to follow.
fn check_response(
    exchange: &mut Exchange,
    list: &HeaderList,
    end_stream: bool,
) -> Result<(), Malformed> {
    let response = read_response(list)?;
    if response.is_interim() {
        return if end_stream {
            Err(Malformed::Order)
        } else {
            Ok(())
        };
    }
    exchange.has_response = true;
    // RFC 9110 section 8.6: these speak of the content of another response.
    let has_content = !exchange.is_head && !matches!(response.status, 204 | 304);
    let content = match has_content {
        true => ContentLeft::new(response.content_length),
        false => ContentLeft::any(),
    };
    if end_stream {
        content.end()?;
    }
    if let Some(backend) = &mut exchange.backend {
        backend.content = content;
    }
    Ok(())
}
