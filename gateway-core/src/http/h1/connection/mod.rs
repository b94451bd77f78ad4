//! A connection (RFC 9112 section 9): what comes in becomes events, what is to be said becomes output. One exchange
//! after the other; the requests of a pipeline stay with whoever reads the socket.
//!
//! In: received bytes, in whatever pieces; what its owner sends; the end of input. Out: events, bytes to write. Owns no
//! socket, waits for nothing. An idle connection holds no buffer.

mod receive;
mod send;

use std::time::{Duration, Instant};

use super::Fault;
use super::chunks::Chunks;
use super::section::ArrivingSection;
use super::write::write_answer;
use crate::http::h2::{ErrorCode, Event, Left, Role, StreamId};
use crate::http::limits::{OUTPUT_BYTES_MAX, UNRELEASED_BYTES_MAX};
use crate::http::queue::Queue;

/// What is still to come of the peer's message.
#[derive(Debug)]
enum Incoming {
    /// The header section of a response.
    Head,
    Length(u64),
    Chunks(Chunks),
    /// Content up to the end of the connection (RFC 9112 section 6.3).
    UntilClose,
    Trailers,
    Ended,
}

/// How our message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    /// With its header section.
    Head,
    /// With so much content.
    Length(u64),
    Chunks,
    UntilClose,
    /// With none, though its owner may send some: a response to HEAD, and those of status 204 and 304.
    NoContent,
}

/// A request and its response.
#[derive(Debug)]
struct InFlight {
    id: StreamId,
    /// What its owner knows it by.
    key: u32,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Whether its owner has ended our message.
    has_end: bool,
    /// What waits to be sent.
    queue: Queue,
    /// Content that was told and not released.
    unreleased: usize,
    /// Content of a request that came behind its response.
    drained: usize,
    is_head: bool,
    /// Towards a backend: whether the request may be sent twice.
    is_idempotent: bool,
    /// Of a client.
    is_http_1_0: bool,
    /// Of a client: trailers of a response are welcome.
    takes_trailers: bool,
    /// Of a client: it waits for status 100.
    expects_continue: bool,
    /// Towards a backend: whether the request, or a part of it, was taken to be written.
    has_left: bool,
}

impl InFlight {
    /// Whether our message is complete in the output.
    fn is_sent(&self) -> bool {
        self.has_end && self.queue.is_empty()
    }

    /// Whether the client waits for the end of the connection, though its request is not complete: for that of its
    /// response, or because it was not asked for its content.
    fn is_answered_by_closing(&self) -> bool {
        self.is_sent() && (self.outgoing == Outgoing::UntilClose || self.expects_continue)
    }

    fn is_over(&self) -> bool {
        matches!(self.incoming, Incoming::Ended) && self.is_sent()
    }
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It has not begun.
    No,
    /// The exchange in flight is the last one.
    Announced,
    /// Nothing more is read.
    Closed,
}

/// One end of an HTTP/1 connection. It has the operations of
/// [`h2::Connection`](crate::http::h2::Connection), and tells the same events; what is a stream there is an exchange
/// here.
#[derive(Debug)]
pub struct Http1Connection {
    role: Role,
    section: ArrivingSection,
    in_flight: Option<InFlight>,
    /// The exchange that was begun last.
    last: StreamId,
    output: Vec<u8>,
    ending: Ending,
    is_cut_off: bool,
    /// Whether input was left where it is.
    has_unread: bool,
    /// Since when a section has come only in part, or a request that has its response.
    incomplete_since: Option<Instant>,
}

impl Http1Connection {
    /// A connection that has just been opened.
    pub fn new(role: Role) -> Self {
        Http1Connection {
            role,
            section: ArrivingSection::default(),
            in_flight: None,
            last: StreamId::CONNECTION,
            output: Vec::new(),
            ending: Ending::No,
            is_cut_off: false,
            has_unread: false,
            incomplete_since: None,
        }
    }

    /// What is to be written to the peer.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Takes it, to write it; what waits may then be sent, by [`Self::send_queued`].
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        self.swap_output(&mut output);
        output
    }

    /// Takes it, to write it, and leaves an empty buffer to fill instead.
    pub fn swap_output(&mut self, empty: &mut Vec<u8>) {
        if let Some(one) = &mut self.in_flight {
            one.has_left |= !self.output.is_empty();
        }
        empty.clear();
        std::mem::swap(&mut self.output, empty);
    }

    /// Which side of it we are.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether no further exchange can be begun, ever.
    pub fn is_retired(&self) -> bool {
        self.ending != Ending::No || self.last >= StreamId::LAST
    }

    /// Whether input is welcome. If not, it stays unread: content that came has not been passed on, or a client's next
    /// request has to wait for its turn.
    pub fn wants_input(&self) -> bool {
        match (&self.in_flight, self.ending) {
            (_, Ending::Closed) => false,
            (None, _) => self.output.len() < OUTPUT_BYTES_MAX,
            // Whether the peer leaves is to be seen; what it sends would wait.
            (Some(one), _) if matches!(one.incoming, Incoming::Ended) => !self.has_unread,
            (Some(one), _) => one.unreleased < UNRELEASED_BYTES_MAX,
        }
    }

    /// Whether the connection is over once its output is written.
    pub fn is_closed(&self) -> bool {
        self.ending == Ending::Closed
    }

    /// Whether the peer must see that what it got is not complete: the transport is to be closed without the alert
    /// close_notify, or by a reset. A response without a length would seem to be complete otherwise.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Whether it was told to end and nothing is in flight any more.
    pub fn is_drained(&self) -> bool {
        self.ending != Ending::No && self.in_flight.is_none()
    }

    /// How many exchanges are in flight: one at most.
    pub fn open_streams(&self) -> usize {
        usize::from(self.in_flight.is_some())
    }

    /// Whether an exchange can be begun with the backend now.
    pub fn can_open(&self) -> bool {
        self.role == Role::Client
            && self.ending == Ending::No
            && self.in_flight.is_none()
            && self.last < StreamId::LAST
    }

    /// Begins an exchange with the backend, with its owner's key. The request's header section comes next.
    pub fn open(&mut self, key: u32) -> Option<StreamId> {
        self.can_open().then(|| self.begin(key, Incoming::Head).id)
    }

    /// Gives an exchange that the client has begun its owner's key.
    pub fn own(&mut self, stream: StreamId, key: u32) {
        if let Some(one) = self.find(stream) {
            one.key = key;
        }
    }

    /// Ends an exchange before its time, and so the connection. A client without a response gets none, but for a fault
    /// of its own. Returns how many bytes waited to be sent: their source gets its credit.
    #[must_use = "what waited is dropped, and its source gets credit for it"]
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) -> usize {
        if self.find(stream).is_none() {
            return 0;
        }
        match code {
            ErrorCode::ProtocolError => self.fail(Fault::Message),
            _ => self.cut_off(),
        }
        let one = self.in_flight.take();
        one.map_or(0, |one| one.queue.data().len())
    }

    /// Counts content that has been passed on or dropped.
    pub fn release(&mut self, stream: StreamId, bytes: usize) {
        if let Some(one) = self.find(stream) {
            one.unreleased = one.unreleased.saturating_sub(bytes);
        }
    }

    /// Begins to end the connection: at once if nothing is in flight, else behind it.
    pub fn go_away(&mut self) {
        if self.ending == Ending::No {
            self.ending = Ending::Announced;
        }
        self.finish();
    }

    /// Ends the connection at once.
    pub fn close(&mut self) {
        match self.in_flight {
            Some(_) => self.cut_off(),
            None => self.ending = Ending::Closed,
        }
    }

    /// The peer sends nothing more. `is_authentic`: it has said so, by close_notify or, in clear, by FIN. Only then is a
    /// response complete that ends with its connection (RFC 9112 section 9.8). A client that sends nothing more is
    /// gone, also if it could still read.
    ///
    /// A request that was not processed, or that may be sent twice, is told as one that its backend refused.
    pub fn end_of_input(&mut self, is_authentic: bool) -> Option<Event<'static>> {
        if self.is_closed() {
            return None;
        }
        self.ending = Ending::Closed;
        let one = self.in_flight.as_mut()?;
        let key = one.key;
        if matches!(one.incoming, Incoming::UntilClose) && is_authentic {
            one.incoming = Incoming::Ended;
            self.finish();
            return Some(Event::Data {
                key,
                data: &[],
                end_stream: true,
            });
        }
        // A connection that was kept can end while a request is on its way (RFC 9112 section 9.3.1).
        let is_first = one.id == StreamId::new(1);
        let has_response = !matches!(one.incoming, Incoming::Head) || !self.section.is_empty();
        let may_be_sent_again = !one.has_left || (one.is_idempotent && !is_first && !has_response);
        let code = match self.role {
            Role::Client if may_be_sent_again => ErrorCode::RefusedStream,
            Role::Client | Role::Server => ErrorCode::Cancel,
        };
        let unsent = one.queue.data().len();
        self.in_flight = None;
        Some(Event::Reset { key, code, unsent })
    }

    /// Ends the connection if a section that has begun to come, or a request that has its response already, is not
    /// complete within `timeout`.
    pub fn check_time(&mut self, timeout: Duration, now: Instant) -> Option<Fault> {
        self.note_incomplete(now);
        let since = self.incomplete_since?;
        if self.is_closed() || now.saturating_duration_since(since) < timeout {
            return None;
        }
        self.fail(Fault::SlowSection);
        Some(Fault::SlowSection)
    }

    /// Takes the exchange out of a connection that is over: its key, and how many bytes waited.
    pub fn take_streams(&mut self) -> impl Iterator<Item = Left> {
        let one = self.in_flight.take();
        one.map(|one| Left {
            key: one.key,
            bytes: one.queue.data().len(),
        })
        .into_iter()
    }

    /// Gives back memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Notes whether the peer keeps us waiting for what nothing else has a time for.
    fn note_incomplete(&mut self, now: Instant) {
        let is_draining = |one: &InFlight| self.role == Role::Server && one.is_sent();
        let is_incomplete =
            !self.section.is_empty() || self.in_flight.as_ref().is_some_and(is_draining);
        self.incomplete_since = match is_incomplete {
            true => self.incomplete_since.or(Some(now)),
            false => None,
        };
    }

    fn begin(&mut self, key: u32, incoming: Incoming) -> &mut InFlight {
        let next = match self.last {
            StreamId::CONNECTION => 1,
            last => last.number() + 2,
        };
        self.last = StreamId::new(next);
        if self.last == StreamId::LAST {
            self.ending = Ending::Announced;
        }
        self.in_flight.insert(InFlight {
            id: self.last,
            key,
            incoming,
            outgoing: Outgoing::Head,
            has_end: false,
            queue: Queue::default(),
            unreleased: 0,
            drained: 0,
            is_head: false,
            is_idempotent: false,
            is_http_1_0: false,
            takes_trailers: true,
            expects_continue: false,
            has_left: false,
        })
    }

    /// The exchange, if its message can go on.
    fn find_unended(&mut self, stream: StreamId) -> Option<&mut InFlight> {
        let is_closed = self.is_closed();
        self.find(stream).filter(|one| !is_closed && !one.has_end)
    }

    fn find(&mut self, stream: StreamId) -> Option<&mut InFlight> {
        self.in_flight.as_mut().filter(|one| one.id == stream)
    }

    /// Ends the connection for a fault. The client is told, if no response has begun; else it sees that the response is
    /// not complete.
    fn fail(&mut self, fault: Fault) {
        let is_head = self.in_flight.as_ref().is_some_and(|one| one.is_head);
        let has_begun = |one: &InFlight| one.outgoing != Outgoing::Head;
        match self.role {
            Role::Server if !self.in_flight.as_ref().is_some_and(has_begun) => {
                write_answer(&mut self.output, fault, is_head);
                self.ending = Ending::Closed;
            }
            Role::Server | Role::Client => self.cut_off(),
        }
        self.section.clear();
    }

    /// Ends the connection in the middle of an exchange. If our message is complete, it is still to arrive.
    /// What a backend was not sent yet, it shall not serve.
    fn cut_off(&mut self) {
        self.ending = Ending::Closed;
        match self.role {
            Role::Server => {
                self.is_cut_off = !self.in_flight.as_ref().is_some_and(InFlight::is_sent)
            }
            Role::Client => self.output = Vec::new(),
        }
    }

    /// Forgets an exchange that is over, and ends the connection behind the last one.
    fn finish(&mut self) {
        if self.in_flight.as_ref().is_some_and(InFlight::is_over) {
            self.in_flight = None;
        }
        let is_last_over = match &self.in_flight {
            None => self.ending == Ending::Announced,
            Some(one) => one.is_answered_by_closing(),
        };
        if is_last_over {
            self.ending = Ending::Closed;
        }
    }

    /// Room for content in the output.
    fn output_room(&self) -> usize {
        OUTPUT_BYTES_MAX.saturating_sub(self.output.len())
    }
}
