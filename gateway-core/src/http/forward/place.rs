//! Where requests go: to a connection that takes them, or into the queue of their backend; and from a backend that has
//! not processed them to another one. In: requests, the router's choice. Out: streams of backends.

use std::rc::Rc;
use std::time::Instant;

use super::exchange::{Leg, PeerKind};
use super::router::{Call, Client, LegEnd, Placement, Rewrite};
use super::waiting::Queued;
use super::{ConnectionKey, Forwarder, MirroredRequest, Router, peer};
use crate::http::answer::RequestRefusal;
use crate::http::deadline::{GRPC_TIMEOUT, GrpcTimeout};
use crate::http::h2::ErrorCode;
use crate::http::limits::{QUEUE_MISSES_MAX, QUEUED_REQUESTS_MAX};
use crate::http::message::{ContentLeft, Field, HeaderList, Request};

/// What a request is sent on with.
struct Sent<'a> {
    list: &'a HeaderList,
    client: &'a Client,
    /// The authority, if the list has none but Host, or another one takes its place.
    authority: Option<Field<'a>>,
    /// The path, if another one takes its place.
    path: Option<Field<'a>>,
    tenant: Option<Field<'a>>,
    /// The time that is left of what the client gave, if some has passed.
    timeout: Option<Field<'a>>,
}

impl<'a> Sent<'a> {
    /// Pseudo-header fields, then the client's own, then what the gateway vouches for.
    fn fields(&self) -> impl Iterator<Item = Field<'a>> {
        let is_pseudo = |field: &Field<'_>| field.name.starts_with(b":");
        let (list, client) = (self.list, self.client);
        let (has_path, has_authority) = (self.path.is_some(), self.authority.is_some());
        let pseudo = list.iter().filter(move |field| {
            is_pseudo(field)
                && !(has_path && field.name == b":path")
                && !(has_authority && field.name == b":authority")
        });
        let reserved = &client.reserved;
        let has_timeout = self.timeout.is_some();
        let regular = list.iter().filter(move |field| {
            !is_pseudo(field)
                && reserved.lets_pass_in_headers(*field)
                && !(has_timeout && field.name == GRPC_TIMEOUT)
        });
        pseudo
            .chain(self.path)
            .chain(self.authority)
            .chain(regular)
            .chain(client.told.iter())
            .chain(self.tenant)
            .chain(self.timeout)
    }
}

/// A request that was read.
struct ReadRequest<'a> {
    request: &'a Request<'a>,
    list: &'a HeaderList,
    /// Whether it stands in a queue.
    is_waiting: bool,
}

/// What has become of a request.
enum Placed {
    /// A backend gets it.
    Sent,
    /// It waits, in this queue.
    Waits(usize),
    /// It is refused.
    Refused(RequestRefusal),
}

impl Forwarder {
    /// Asks again for the requests that wait in a queue.
    pub fn place_waiting(&mut self, queue: usize, router: &mut impl Router, now: Instant) {
        self.queues.note_room(queue);
        self.place_due(router, now);
    }

    /// How many requests wait in a queue.
    pub fn waiting(&self, queue: usize) -> usize {
        self.queues.waiting(queue)
    }

    pub(super) fn place_due(&mut self, router: &mut impl Router, now: Instant) {
        while let Some(queue) = self.queues.next_due() {
            self.place_queue(queue, QUEUE_MISSES_MAX, router, now);
        }
    }

    /// Asks again for requests that wait, and whose time may be over: for about as many as one queue holds, of the queues in turn,
    /// so that no look takes long, however many there are.
    pub(super) fn place_in_turn(&mut self, router: &mut impl Router, now: Instant) {
        let mut asked = 0;
        for _ in 0..self.queues.count() {
            if asked >= QUEUED_REQUESTS_MAX {
                break;
            }
            let queue = self.asked_next % self.queues.count();
            self.asked_next = queue + 1;
            asked += self.queues.waiting(queue);
            self.place_queue(queue, usize::MAX, router, now);
        }
    }

    /// Asks again for the requests of a queue in turn, until so many have found no room.
    fn place_queue(
        &mut self,
        queue: usize,
        misses_max: usize,
        router: &mut impl Router,
        now: Instant,
    ) {
        self.queues.begin(queue);
        while let Some(key) = self.queues.next(misses_max) {
            let exchange = self.exchanges.get_mut(key);
            if exchange.and_then(|exchange| exchange.queue.take()) == Some(queue) {
                self.place(key, true, router, now);
            }
        }
        self.queues.end();
    }

    /// Places a request whose header section is kept.
    pub(super) fn place(
        &mut self,
        key: u32,
        is_waiting: bool,
        router: &mut impl Router,
        now: Instant,
    ) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        let list = std::mem::replace(&mut exchange.held.list, HeaderList::new(0));
        let placed = match &exchange.held.parts {
            Some(parts) => {
                let read = ReadRequest {
                    request: &parts.in_list(&list),
                    list: &list,
                    is_waiting,
                };
                self.try_place(key, &read, router, now)
            }
            None => Placed::Refused(RequestRefusal::Internal),
        };
        self.keep_list(key, list);
        self.act_on(key, placed, router, now);
    }

    /// Sends a request to a backend, if one takes it now.
    fn try_place(
        &mut self,
        key: u32,
        read: &ReadRequest<'_>,
        router: &mut impl Router,
        now: Instant,
    ) -> Placed {
        let ReadRequest {
            request,
            list,
            is_waiting,
        } = *read;
        let Some((exchange, client)) = self.exchanges.get(key).and_then(|exchange| {
            Some((
                exchange,
                Rc::clone(self.client(exchange.client.connection)?),
            ))
        }) else {
            return Placed::Refused(RequestRefusal::Internal);
        };
        let Ok(tenant) = client.tenants.of_request(list, &client.tenant_name) else {
            return Placed::Refused(RequestRefusal::TenantNotAllowed);
        };
        let call = Call {
            client: exchange.client.connection,
            request,
            list,
            tenant,
            protocol: exchange.protocol,
            began: exchange.began,
            attempts: exchange.attempts,
            refused_by: exchange.last_backend,
            is_waiting,
        };
        let has_waited = is_waiting || exchange.attempts > 0;
        let deadline = exchange.deadline.filter(|_| has_waited);
        let timeout = deadline.map(|at| GrpcTimeout::of(at.saturating_duration_since(now)));
        let mut rewrite = std::mem::take(&mut self.rewrite);
        rewrite.clear();
        let chosen = router.choose(&call, &mut rewrite);
        if let Some(exchange) = self.exchanges.get_mut(key) {
            exchange.was_asked = true;
        }
        let placed = match chosen {
            Ok(Placement::Connection(backend)) => {
                let sent = Sent {
                    list,
                    client: &client,
                    authority: authority(request, list, &rewrite),
                    timeout: timeout
                        .as_ref()
                        .map(|timeout| Field::new(GRPC_TIMEOUT, timeout.as_bytes())),
                    path: (!rewrite.path.is_empty()).then(|| Field::new(b":path", &rewrite.path)),
                    tenant: tenant.map(|tenant| Field::new(&client.tenant_name, tenant)),
                };
                match self.send_request(key, backend, &sent, now) {
                    true => {
                        self.note_mirror(key, rewrite.mirror, &sent);
                        Placed::Sent
                    }
                    false => {
                        let queue = self.times(backend).map(|times| times.queue);
                        match (router.full(backend, &call), queue) {
                            (Ok(()), Some(queue)) => Placed::Waits(queue),
                            (Ok(()), None) => Placed::Refused(RequestRefusal::BackendBusy),
                            (Err(refusal), _) => Placed::Refused(refusal),
                        }
                    }
                }
            }
            Ok(Placement::Wait(queue)) => Placed::Waits(queue),
            Err(refusal) => Placed::Refused(refusal),
        };
        self.rewrite = rewrite;
        placed
    }

    /// Keeps the header section of a request that was sent the first time, for the backend that gets a copy.
    fn note_mirror(&mut self, key: u32, mirror: Option<usize>, sent: &Sent<'_>) {
        if let Some(backend) = mirror
            && let Some(exchange) = self.exchanges.get_mut(key)
            && exchange.attempts == 1
        {
            let mut list = HeaderList::new(usize::MAX);
            sent.fields().for_each(|field| list.push(field));
            let request = MirroredRequest {
                backend,
                list,
                content: None,
            };
            exchange.mirror = Some(Box::new(request));
        }
    }

    /// Queues or refuses a request that no backend takes now.
    fn act_on(&mut self, key: u32, placed: Placed, router: &mut impl Router, now: Instant) {
        match placed {
            Placed::Sent => {}
            Placed::Waits(queue) => self.enqueue(key, queue, router, now),
            Placed::Refused(refusal) => self.refuse(key, refusal, router, now),
        }
    }

    /// Has a request wait, if the queue has room for its identity.
    fn enqueue(&mut self, key: u32, queue: usize, router: &mut impl Router, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        exchange.queue = Some(queue);
        match self.queues.push(queue, exchange.identity, key) {
            Queued::Waits => {}
            Queued::InPlaceOf(other) => {
                if let Some(other) = self.exchanges.get_mut(other) {
                    other.queue = None;
                }
                self.refuse(other, RequestRefusal::BackendBusy, router, now);
            }
            Queued::Full => {
                exchange.queue = None;
                self.refuse(key, RequestRefusal::BackendBusy, router, now);
            }
        }
    }

    /// Opens a stream of a backend for a request, and sends what there is of it.
    fn send_request(
        &mut self,
        key: u32,
        backend: ConnectionKey,
        sent: &Sent<'_>,
        now: Instant,
    ) -> bool {
        let Some(found) = peer(&mut self.peers, backend) else {
            return false;
        };
        let Some(stream) = found.connection.open(key, now) else {
            return false;
        };
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return false;
        };
        let held = &exchange.held;
        let has_ended = exchange.client.has_received_end;
        let is_empty = held.content.is_empty() && held.trailers.is_none();
        let connection = &mut found.connection;
        connection.set_client(stream, exchange.client.connection.slot);
        connection.send_section(stream, sent.fields(), has_ended && is_empty);
        let mut leg = Leg::new(backend, stream, ContentLeft::any());
        leg.has_sent_end = has_ended;
        let mut left = 0;
        if !held.content.is_empty() {
            let ends = has_ended && held.trailers.is_none();
            left = connection.send_data(stream, &held.content, ends);
            leg.waiting = held.content.len() - left;
        }
        if let Some(trailers) = &held.trailers {
            let reserved = &sent.client.reserved;
            let passing = trailers
                .iter()
                .filter(|field| reserved.lets_pass_in_trailers(*field));
            connection.send_section(stream, passing, true);
        }
        leg.credited = exchange.credited;
        let due = leg.due(left);
        exchange.credited += due;
        exchange.backend = Some(leg);
        exchange.last_backend = Some(backend);
        exchange.outcome.sent_at = Some(now);
        exchange.attempts += 1;
        exchange.moved = now;
        self.mark(backend);
        self.release(PeerKind::Client.of(key), due, now);
        true
    }

    /// A backend has not processed a request: another one gets it, if it is all there; else its client hears of it.
    pub(super) fn send_again(
        &mut self,
        key: u32,
        refusal: RequestRefusal,
        router: &mut impl Router,
        now: Instant,
    ) {
        self.leave_backend(key, (ErrorCode::Cancel, LegEnd::Abandoned), router, now);
        match self
            .exchanges
            .get(key)
            .is_some_and(|exchange| exchange.can_be_sent_again())
        {
            true => self.place(key, false, router, now),
            false => self.refuse(key, refusal, router, now),
        }
    }

    /// Takes an exchange out of its queue: it needs no backend any more.
    pub(super) fn leave_queue(&mut self, key: u32) {
        let Some(exchange) = self.exchanges.get_mut(key) else {
            return;
        };
        exchange.is_arriving = false;
        if let Some(queue) = exchange.queue.take() {
            self.queues.remove(queue, exchange.identity, key);
        }
    }
}

/// The authority that a backend is told, where it is not the one of the list.
fn authority<'a>(
    request: &Request<'a>,
    list: &HeaderList,
    rewrite: &'a Rewrite,
) -> Option<Field<'a>> {
    let has_authority = || list.iter().any(|field| field.name == b":authority");
    let authority = match rewrite.authority.is_empty() {
        true => request.authority.filter(|_| !has_authority())?,
        false => &rewrite.authority,
    };
    Some(Field::new(b":authority", authority))
}
