//! The beginning of an exchange: a request is checked, gets its tenant and what is told of its client, and a stream of
//! a backend; or it is refused. In: a header section. Out: the section for the backend, or an answer.

use std::time::Instant;

use super::exchange::{Exchange, Leg, PeerKind};
use super::{Client, ConnectionKey, Forwarder, Routes, peer};
use crate::http::answer::{Protocol, RequestRefusal, answer, trailers};
use crate::http::h2::{ErrorCode, StreamId};
use crate::http::message::{
    ContentLeft, Field, HeaderList, Malformed, Request, SCOPE_ORG_ID, read_request,
};

/// A request that has just come; its header section is in the forwarder's list.
pub(super) struct Arrival {
    pub(super) connection: ConnectionKey,
    pub(super) stream: StreamId,
    pub(super) end_stream: bool,
}

/// Where a request comes from: what it says, and who says it.
struct Origin<'a> {
    list: &'a HeaderList,
    client: &'a Client,
}

/// What a request is sent on with.
struct Sent<'a> {
    origin: &'a Origin<'a>,
    /// The authority, if the list has none but Host.
    authority: Option<Field<'a>>,
    tenant: Option<Field<'a>>,
}

impl<'a> Sent<'a> {
    /// Pseudo-header fields, then the client's own, then what the gateway vouches for.
    fn fields(&self) -> impl Iterator<Item = Field<'a>> {
        let is_pseudo = |field: &Field<'_>| field.name.starts_with(b":");
        let Origin { list, client } = self.origin;
        let pseudo = list.iter().filter(is_pseudo);
        let reserved = &client.reserved;
        let regular = list
            .iter()
            .filter(move |field| !is_pseudo(field) && reserved.lets_pass_in_headers(*field));
        pseudo
            .chain(self.authority)
            .chain(regular)
            .chain(client.told.iter())
            .chain(self.tenant)
    }
}

impl Forwarder {
    /// Begins an exchange.
    pub(super) fn begin(&mut self, arrival: &Arrival, routes: &mut impl Routes, now: Instant) {
        // Both are needed beside connections that change.
        let Some(client) =
            peer(&mut self.peers, arrival.connection).and_then(|peer| peer.client.take())
        else {
            return;
        };
        let list = std::mem::replace(&mut self.list, HeaderList::new(0));
        match read_request(&list) {
            Ok(request) if arrival.end_stream && request.content_length.unwrap_or(0) > 0 => {
                self.reject(arrival, now);
            }
            Ok(request) => {
                let origin = Origin {
                    list: &list,
                    client: &client,
                };
                self.begin_well_formed(arrival, &request, &origin, routes, now);
            }
            Err(Malformed::TooLarge) => {
                let exchange = self.insert(arrival, Protocol::Other, ContentLeft::any());
                self.refuse(exchange, RequestRefusal::HeaderListTooLarge, now);
            }
            // RFC 9113 section 8.1.1.
            Err(_) => self.reject(arrival, now),
        }
        self.list = list;
        if let Some(found) = peer(&mut self.peers, arrival.connection) {
            found.client = Some(client);
        }
    }

    fn begin_well_formed(
        &mut self,
        arrival: &Arrival,
        request: &Request<'_>,
        origin: &Origin<'_>,
        routes: &mut impl Routes,
        now: Instant,
    ) {
        let Origin { list, client } = *origin;
        let protocol = Protocol::of(request, list);
        let content = ContentLeft::new(request.content_length);
        let exchange = self.insert(arrival, protocol, content);
        let tenant = match client.tenants.of_request(list) {
            Ok(tenant) => tenant.map(|tenant| Field::new(SCOPE_ORG_ID, tenant)),
            Err(_) => return self.refuse(exchange, RequestRefusal::TenantNotAllowed, now),
        };
        let backend = match routes.choose(request) {
            Ok(backend) => backend,
            Err(refusal) => return self.refuse(exchange, refusal, now),
        };
        let Some(connection) = self.connection(backend) else {
            return self.refuse(exchange, RequestRefusal::BackendUnreachable, now);
        };
        let Some(stream) = connection.open(exchange, now) else {
            return self.refuse(exchange, RequestRefusal::BackendBusy, now);
        };
        let has_authority = list.iter().any(|field| field.name == b":authority");
        let authority = request.authority.filter(|_| !has_authority);
        let sent = Sent {
            origin,
            authority: authority.map(|authority| Field::new(b":authority", authority)),
            tenant,
        };
        connection.send_section(stream, sent.fields(), arrival.end_stream);
        self.mark(backend);
        if let Some(exchange) = self.exchanges.get_mut(exchange) {
            let mut end = Leg::new(backend, stream, ContentLeft::any());
            end.has_sent_end = arrival.end_stream;
            exchange.backend = Some(end);
            exchange.is_head = request.method == b"HEAD";
        }
    }

    /// Makes an exchange of a request, without a backend for now.
    fn insert(&mut self, arrival: &Arrival, protocol: Protocol, content: ContentLeft) -> u32 {
        let mut client = Leg::new(arrival.connection, arrival.stream, content);
        client.has_received_end = arrival.end_stream;
        let key = self.exchanges.insert(Exchange {
            client,
            backend: None,
            protocol,
            is_head: false,
            has_response: false,
        });
        if let Some(connection) = self.connection(arrival.connection) {
            connection.own(arrival.stream, key);
        }
        key
    }

    fn reject(&mut self, arrival: &Arrival, now: Instant) {
        if let Some(connection) = self.connection(arrival.connection) {
            let unsent = connection.reject(arrival.stream, ErrorCode::ProtocolError, now);
            debug_assert_eq!(unsent, 0, "nothing was sent on it");
        }
        self.mark(arrival.connection);
    }

    /// Ends the response of an exchange that has no backend, or none any more: by an answer of ours if it has not
    /// begun, else as its protocol has it. The rest of the request is dropped as it comes.
    pub(super) fn refuse(&mut self, key: u32, refusal: RequestRefusal, now: Instant) {
        self.reset(key, PeerKind::Backend, ErrorCode::Cancel, now);
        let wait = self.wait;
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        if exchange.client.is_gone || exchange.client.has_sent_end {
            return self.forget_if_over(key);
        }
        let (has_response, protocol) = (exchange.has_response, exchange.protocol);
        let (client, stream) = (exchange.client.connection, exchange.client.stream);
        exchange.has_response = true;
        exchange.client.has_sent_end = true;
        let is_head = exchange.is_head;
        let Some(connection) = self.connection(client) else {
            return;
        };
        if !has_response {
            let answer = answer(refusal, protocol, wait);
            let ends = answer.content.is_empty() || is_head;
            connection.send_section(stream, answer.fields.iter(), ends);
            if !ends {
                let left = connection.send_data(stream, &answer.content, true);
                self.note_answer(key, answer.content.len() - left);
            }
        } else if let Some(list) = trailers(refusal, protocol, wait) {
            connection.send_section(stream, list.iter(), true);
        } else {
            self.reset(key, PeerKind::Client, ErrorCode::InternalError, now);
        }
        self.mark(client);
        self.forget_if_over(key);
    }

    /// Content of an answer waits. It is ours: no backend gets credit for it.
    fn note_answer(&mut self, key: u32, waiting: usize) {
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.backend = None;
            exchange.client.waiting = waiting;
        }
    }
}
