//! The beginning of an exchange: a request is checked, and placed or refused when all input is read that came with it. In: a header
//! section. Out: an exchange.

use std::time::Instant;

use super::exchange::{Exchange, ExchangeOutcome, Held, Leg};
use super::{ConnectionKey, Forwarder, Router};
use crate::http::answer::{Protocol, RequestRefusal};
use crate::http::deadline::{GRPC_TIMEOUT, read_grpc_timeout};
use crate::http::h2::{ErrorCode, StreamId};
use crate::http::message::{
    ContentLeft, HeaderList, Malformed, Request, RequestParts, read_request,
};

/// A request that has just come; its header section is in the forwarder's list.
pub(super) struct Arrival {
    pub(super) connection: ConnectionKey,
    pub(super) stream: StreamId,
    pub(super) end_stream: bool,
}

impl Forwarder {
    /// Begins an exchange.
    pub(super) fn begin(&mut self, arrival: &Arrival, router: &mut impl Router, now: Instant) {
        let list = self.take_list();
        let request = match read_request(&list) {
            Ok(request) if arrival.end_stream && request.content_length.unwrap_or(0) > 0 => {
                Err(Malformed::ContentMismatch)
            }
            Ok(_) if self.is_list_too_large(arrival, &list) => Err(Malformed::TooLarge),
            checked => checked,
        };
        match request {
            Ok(request) => {
                let protocol = Protocol::of(&request, &list);
                let content = ContentLeft::new(request.content_length);
                let key = self.insert(arrival, (protocol, content), now);
                self.note_request(key, &request, &list, now);
                let is_too_large = self.is_too_large(key, request.content_length);
                let parts = RequestParts::new(&request, &list);
                self.keep_list(key, list);
                match is_too_large {
                    true => self.refuse(key, RequestRefusal::ContentTooLarge, router, now),
                    false => self.note_arrival(key, parts),
                }
            }
            Err(Malformed::TooLarge) => {
                let key = self.insert(arrival, (Protocol::Other, ContentLeft::any()), now);
                self.keep_list(key, list);
                self.refuse(key, RequestRefusal::HeaderListTooLarge, router, now);
            }
            // RFC 9113 section 8.1.1.
            Err(_) => {
                self.give_list(list);
                self.reject(arrival, now);
            }
        }
    }

    /// Has a request get its backend when its client's input is read: what the client takes back with the same bytes, or breaks, reaches
    /// none. Servers close connections over such requests, and others' are on them too.
    fn note_arrival(&mut self, key: u32, parts: RequestParts) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.held.parts = Some(parts);
            exchange.is_arriving = true;
            self.arrived.push(key);
        }
    }

    /// Places the requests that have arrived.
    pub(super) fn place_arrived(&mut self, router: &mut impl Router, now: Instant) {
        let mut arrived = std::mem::take(&mut self.arrived);
        for key in arrived.drain(..) {
            self.place_if_arriving(key, router, now);
        }
        // Nothing arrives meanwhile: its memory is used again.
        self.arrived = arrived;
    }

    /// Places a request, unless it has been.
    pub(super) fn place_if_arriving(&mut self, key: u32, router: &mut impl Router, now: Instant) {
        let exchange = self.exchanges.get_mut(key);
        if exchange.is_some_and(|exchange| std::mem::take(&mut exchange.is_arriving)) {
            self.place(key, false, router, now);
        }
    }

    /// Makes an exchange of a request, without a backend for now.
    fn insert(
        &mut self,
        arrival: &Arrival,
        (protocol, content): (Protocol, ContentLeft),
        now: Instant,
    ) -> u32 {
        let identity = self.identity(arrival.connection);
        let known = self.client(arrival.connection);
        let content_bytes_max = match protocol {
            // A stream has no end, and its server bounds each message.
            Protocol::Grpc => u64::MAX,
            Protocol::OtlpProtobuf
            | Protocol::OtlpJson
            | Protocol::RemoteWrite
            | Protocol::Other => known.map_or(0, |client| client.content_bytes_max),
        };
        let mut client = Leg::new(arrival.connection, arrival.stream, content);
        client.has_received_end = arrival.end_stream;
        let buffer = self.free_buffers.pop().unwrap_or_default();
        let key = self.exchanges.insert(Exchange {
            client,
            identity,
            backend: None,
            last_backend: None,
            is_arriving: false,
            queue: None,
            held: Held::new(HeaderList::new(0), buffer),
            mirror: None,
            credited: 0,
            protocol,
            content_bytes_max,
            is_head: false,
            has_no_content: false,
            has_response: false,
            attempts: 0,
            was_asked: false,
            began: now,
            moved: now,
            deadline: None,
            outcome: ExchangeOutcome::default(),
        });
        if let Some(connection) = self.connection(arrival.connection) {
            connection.own(arrival.stream, key);
        }
        key
    }

    /// Notes whether the response has no content, and when a client of gRPC has no use for one any more.
    fn note_request(&mut self, key: u32, request: &Request<'_>, list: &HeaderList, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        exchange.is_head = request.method == b"HEAD";
        if exchange.protocol == Protocol::Grpc {
            let field = list.iter().find(|field| field.name == GRPC_TIMEOUT);
            let timeout = field.and_then(|field| read_grpc_timeout(field.value));
            // A time that no clock reaches gives no deadline.
            exchange.deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        }
    }

    fn is_list_too_large(&self, arrival: &Arrival, list: &HeaderList) -> bool {
        let client = self.client(arrival.connection);
        client.is_some_and(|client| list.size() > client.header_list_bytes_max)
    }

    fn is_too_large(&self, key: u32, content_length: Option<u64>) -> bool {
        let exchange = self.exchanges.get(key);
        exchange.is_some_and(|one| content_length.unwrap_or(0) > one.content_bytes_max)
    }

    /// Keeps the header section of a request with its exchange.
    pub(super) fn keep_list(&mut self, key: u32, list: HeaderList) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.held.list = list;
        }
    }

    fn reject(&mut self, arrival: &Arrival, now: Instant) {
        if let Some(connection) = self.connection(arrival.connection) {
            let unsent = connection.reject(arrival.stream, ErrorCode::ProtocolError, now);
            debug_assert_eq!(unsent, 0, "nothing was sent on it");
        }
        self.mark(arrival.connection);
    }
}
