//! A connection of either version of HTTP, as the forwarder holds it. In: the operations that both have. Out: the same
//! of the one that it is. Decides nothing.

use std::time::{Duration, Instant};

use crate::http::h1::{Fault, Http1Connection};
use crate::http::h2::{
    Connection, ErrorCode, Event, Left, Role, Stall, StreamId, Violation, WindowBudget,
};
use crate::http::limits::OUTPUT_BYTES_MAX;
use crate::http::message::{Field, HeaderList};

/// The version of HTTP that a connection speaks: as ALPN has chosen it, or as it was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a peer did against the rules of its version, so that its connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerFault {
    /// Of HTTP/1.
    Http1(Fault),
    /// Of HTTP/2.
    Http2(Violation),
}

impl PeerFault {
    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            PeerFault::Http1(fault) => fault.label(),
            PeerFault::Http2(violation) => violation.label(),
        }
    }

    /// The code for the peer's streams.
    pub const fn code(self) -> ErrorCode {
        match self {
            PeerFault::Http1(fault) => fault.code(),
            PeerFault::Http2(violation) => violation.code(),
        }
    }
}

/// What a peer may ask of us at once.
#[derive(Debug, Clone, Copy)]
pub struct PeerLimits {
    /// The size of a header list, as RFC 9113 section 10.5.1 counts it.
    pub header_list_bytes: usize,
    /// Streams that a client may open.
    pub streams: u32,
}

/// A connection of either version.
#[derive(Debug)]
pub enum PeerConnection {
    /// Of HTTP/1.
    Http1(Box<Http1Connection>),
    /// Of HTTP/2.
    Http2(Box<Connection>),
}

impl PeerConnection {
    /// A connection that has just been opened. What HTTP/2 says first is in the output.
    pub fn new(version: HttpVersion, role: Role, limits: PeerLimits, now: Instant) -> Self {
        let header_list = u32::try_from(limits.header_list_bytes).unwrap_or(u32::MAX);
        match (version, role) {
            (HttpVersion::Http1, _) => PeerConnection::Http1(Box::new(Http1Connection::new(role))),
            (HttpVersion::Http2, Role::Client) => {
                PeerConnection::Http2(Box::new(Connection::new(role, header_list, now)))
            }
            (HttpVersion::Http2, Role::Server) => {
                let connection = Connection::server(header_list, limits.streams, now);
                PeerConnection::Http2(Box::new(connection))
            }
        }
    }

    /// What is to be written to the peer.
    pub fn output(&self) -> &[u8] {
        match self {
            PeerConnection::Http1(one) => one.output(),
            PeerConnection::Http2(one) => one.output(),
        }
    }

    /// Takes it, to write it.
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        self.swap_output(&mut output);
        output
    }

    /// Takes it, to write it, and leaves an empty buffer to fill instead; what waits may then be sent, by
    /// [`Self::send_queued`].
    pub fn swap_output(&mut self, empty: &mut Vec<u8>) {
        match self {
            PeerConnection::Http1(one) => one.swap_output(empty),
            PeerConnection::Http2(one) => one.swap_output(empty),
        }
    }

    /// Whether the connection takes no new streams, ever.
    pub fn is_retired(&self) -> bool {
        match self {
            PeerConnection::Http1(one) => one.is_retired(),
            PeerConnection::Http2(one) => one.is_retired(),
        }
    }

    /// Whether input is welcome. If not, the peer is not read, and what it sent before waits.
    pub fn wants_input(&self) -> bool {
        match self {
            PeerConnection::Http1(one) => one.wants_input(),
            PeerConnection::Http2(one) => !one.is_closed() && !self.is_backed_up(),
        }
    }

    /// Whether a client has not read so much of what was said to it that nothing more is read from it. From a backend
    /// everything is read: it may not read before it has been read.
    pub fn is_backed_up(&self) -> bool {
        match self {
            PeerConnection::Http1(_) => false,
            PeerConnection::Http2(one) => {
                one.role() == Role::Server && one.output().len() >= OUTPUT_BYTES_MAX
            }
        }
    }

    /// Whether the connection is over once its output is written.
    pub fn is_closed(&self) -> bool {
        match self {
            PeerConnection::Http1(one) => one.is_closed(),
            PeerConnection::Http2(one) => one.is_closed(),
        }
    }

    /// Whether the peer must see that what it got is not complete: see
    /// [`Http1Connection::is_cut_off`]. HTTP/2 says so by itself.
    pub fn is_cut_off(&self) -> bool {
        match self {
            PeerConnection::Http1(one) => one.is_cut_off(),
            PeerConnection::Http2(_) => false,
        }
    }

    /// Whether it was told to end and nothing is in flight any more.
    pub fn is_drained(&self) -> bool {
        match self {
            PeerConnection::Http1(one) => one.is_drained(),
            PeerConnection::Http2(one) => one.is_drained(),
        }
    }

    /// Whether nothing passes any more, once its output is written: it is closed, has come to the end that it was told of, or takes no
    /// new requests of ours and has none.
    pub fn is_over(&self) -> bool {
        let is_spent = self.role() == Role::Client && self.is_retired() && self.open_streams() == 0;
        self.is_closed() || self.is_drained() || is_spent
    }

    fn role(&self) -> Role {
        match self {
            PeerConnection::Http1(one) => one.role(),
            PeerConnection::Http2(one) => one.role(),
        }
    }

    /// Since when, at the least, nothing passes because the peer gives no credit: [`Connection::stalled`]. HTTP/1 has no credit.
    pub fn stalled(&self) -> Option<Stall> {
        match self {
            PeerConnection::Http1(_) => None,
            PeerConnection::Http2(one) => one.stalled(),
        }
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        match self {
            PeerConnection::Http1(one) => one.open_streams(),
            PeerConnection::Http2(one) => one.open_streams(),
        }
    }

    /// Whether another stream can be opened towards the backend now.
    pub fn can_open(&self) -> bool {
        match self {
            PeerConnection::Http1(one) => one.can_open(),
            PeerConnection::Http2(one) => one.can_open(),
        }
    }

    /// Opens a stream towards the backend, with its owner's key. The request's header section comes next.
    pub fn open(&mut self, key: u32, now: Instant) -> Option<StreamId> {
        match self {
            PeerConnection::Http1(one) => one.open(key),
            PeerConnection::Http2(one) => one.open(key, now),
        }
    }

    /// Gives a stream that the client has opened its owner's key.
    pub fn own(&mut self, stream: StreamId, key: u32) {
        match self {
            PeerConnection::Http1(one) => one.own(stream, key),
            PeerConnection::Http2(one) => one.own(stream, key),
        }
    }

    /// Notes whose content a stream carries to a backend. HTTP/1 carries that of one request at a time.
    pub fn set_client(&mut self, stream: StreamId, client: u32) {
        match self {
            PeerConnection::Http1(_) => {}
            PeerConnection::Http2(one) => one.set_client(stream, client),
        }
    }

    /// Has clients keep to their shares of the window, or no more. HTTP/1 has none.
    pub(super) fn enforce_shares(&mut self, are_in_force: bool, now: Instant) {
        match self {
            PeerConnection::Http1(_) => {}
            PeerConnection::Http2(one) => one.enforce_shares(are_in_force, now),
        }
    }

    /// Whether the peer has been seen to give credit only when more of its window is used than shares let clients use.
    pub fn credits_late(&self) -> bool {
        match self {
            PeerConnection::Http1(_) => false,
            PeerConnection::Http2(one) => one.credits_late(),
        }
    }

    /// The keys of open streams above `last`. HTTP/1 has no such thing as a last stream.
    pub fn keys_above(&self, last: StreamId) -> impl Iterator<Item = (StreamId, u32)> + '_ {
        let streams = match self {
            PeerConnection::Http1(_) => None,
            PeerConnection::Http2(one) => Some(one.keys_above(last)),
        };
        streams.into_iter().flatten()
    }

    /// Resets a stream; in HTTP/1 the connection ends with it. Returns how many bytes waited to be sent on it.
    #[must_use = "what waited is dropped, and its source gets credit for it"]
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) -> usize {
        match self {
            PeerConnection::Http1(one) => one.reset(stream, code),
            PeerConnection::Http2(one) => one.reset(stream, code),
        }
    }

    /// Resets a stream for the fault of the peer. Returns how many bytes waited to be sent on it.
    #[must_use = "what waited is dropped, and its source gets credit for it"]
    pub fn reject(&mut self, stream: StreamId, code: ErrorCode, now: Instant) -> usize {
        match self {
            PeerConnection::Http1(one) => one.reset(stream, code),
            PeerConnection::Http2(one) => one.reject(stream, code, now),
        }
    }

    /// Gives credit for content of a stream that has been passed on or dropped.
    pub fn release(&mut self, stream: StreamId, bytes: usize, now: Instant) {
        match self {
            PeerConnection::Http1(one) => one.release(stream, bytes),
            PeerConnection::Http2(one) => one.release(stream, bytes, now),
        }
    }

    /// Sends a header or trailer section.
    pub fn send_section<'a>(
        &mut self,
        stream: StreamId,
        fields: impl Iterator<Item = Field<'a>>,
        end_stream: bool,
    ) {
        match self {
            PeerConnection::Http1(one) => one.send_section(stream, fields, end_stream),
            PeerConnection::Http2(one) => one.send_section(stream, fields, end_stream),
        }
    }

    /// Sends content. Returns how many bytes have left; the rest waits.
    #[must_use = "the source of what has left gets credit for it"]
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> usize {
        match self {
            PeerConnection::Http1(one) => one.send_data(stream, data, end_stream),
            PeerConnection::Http2(one) => one.send_data(stream, data, end_stream),
        }
    }

    /// Writes content that waited, of one stream. `None` if nothing can be written now.
    pub fn send_queued(&mut self) -> Option<Left> {
        match self {
            PeerConnection::Http1(one) => one.send_queued(),
            PeerConnection::Http2(one) => one.send_queued(),
        }
    }

    /// Reads from the front of `input` until something has to be told. Fields go to `list`, which is emptied first.
    /// `None`: nothing more can be read now.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a [u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> Option<Event<'a>> {
        match self {
            PeerConnection::Http1(one) => one.receive(input, list, now),
            PeerConnection::Http2(one) => one.receive(input, list, now),
        }
    }

    /// The peer sends nothing more. HTTP/2 needs no such sign: what is not complete then is broken off.
    pub fn end_of_input(&mut self, is_authentic: bool) -> Option<Event<'static>> {
        match self {
            PeerConnection::Http1(one) => one.end_of_input(is_authentic),
            PeerConnection::Http2(_) => None,
        }
    }

    /// Takes all streams out of a connection that is over: their keys, and how many bytes waited on each.
    pub fn take_streams(&mut self) -> Vec<Left> {
        match self {
            PeerConnection::Http1(one) => one.take_streams().collect(),
            PeerConnection::Http2(one) => one.take_streams().collect(),
        }
    }

    /// Widens the window of a connection whose peer is faster than its credit, if the budget allows. What HTTP/1 sends
    /// has a bound that does not change.
    pub fn grow(&mut self, budget: &mut WindowBudget) {
        match self {
            PeerConnection::Http1(_) => {}
            PeerConnection::Http2(one) => one.grow(budget),
        }
    }

    /// What it has taken of a budget.
    pub fn growth(&self) -> usize {
        match self {
            PeerConnection::Http1(_) => 0,
            PeerConnection::Http2(one) => one.growth(),
        }
    }

    /// Begins to end the connection: what is in flight comes to its end.
    pub fn go_away(&mut self, now: Instant) {
        match self {
            PeerConnection::Http1(one) => one.go_away(),
            PeerConnection::Http2(one) => one.go_away(now),
        }
    }

    /// Ends the connection at once.
    pub fn close(&mut self, code: ErrorCode) {
        match self {
            PeerConnection::Http1(one) => one.close(),
            PeerConnection::Http2(one) => one.close(code),
        }
    }

    /// Ends the connection of a peer that is too slow.
    pub fn check_time(&mut self, timeout: Duration, now: Instant) -> Option<PeerFault> {
        match self {
            PeerConnection::Http1(one) => one.check_time(timeout, now).map(PeerFault::Http1),
            PeerConnection::Http2(one) => one.check_time(timeout, now).map(PeerFault::Http2),
        }
    }

    /// Asks a silent backend for a sign of life, as [`Connection::keep_alive`] does. HTTP/1 has no way to.
    pub fn keep_alive(&mut self, interval: Duration, now: Instant) -> bool {
        match self {
            PeerConnection::Http1(_) => false,
            PeerConnection::Http2(one) => one.keep_alive(interval, now),
        }
    }

    /// Gives back memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        match self {
            PeerConnection::Http1(one) => one.shrink(),
            PeerConnection::Http2(one) => one.shrink(),
        }
    }
}
