//! A connection (RFC 9113 sections 3.4, 5, 6): what comes in becomes events, what is to be said becomes output.
//!
//! In: received bytes, in whatever pieces; what its owner sends; the time. Out: events, bytes to write, credit to the
//! peer. Owns no socket, waits for nothing. An idle connection holds no buffer.

mod event;
mod receive;
mod send;
mod share;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use event::{Event, Left};
pub use share::Stall;

use receive::Receiver;
use send::LastData;
use share::Shares;

use super::flood::{Flood, Floods};
use super::history::History;
use super::stream::{Half, Stream, Streams};
use super::window::{ReceiveWindow, SendWindow, WindowBudget};
use super::{
    ErrorCode, Setting, StreamId, Violation, write_goaway, write_ping, write_rst_stream,
    write_settings, write_window_update,
};
use crate::http::hpack::Encoder;
use crate::http::limits::{
    BACKEND_STREAMS_BEFORE_SETTINGS, BACKEND_WINDOW_BYTES, CLIENT_STREAMS_MAX, OUTPUT_BYTES_MAX,
    OUTPUT_CONTROL_BYTES_MAX, PING_ACK_TIMEOUT, SETTINGS_ACK_TIMEOUT, WINDOW_BYTES,
    WINDOW_BYTES_MAX, WINDOW_GROWTH_INTERVAL,
};
use crate::http::queue::Queue;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Our side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer is a client of ours.
    Server,
    /// The peer is a backend.
    Client,
}

/// What the peer's SETTINGS say (RFC 9113 section 6.5.2), and what holds before they come.
#[derive(Debug, Clone, Copy)]
struct PeerSettings {
    initial_window: u32,
    streams_max: u32,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It has not begun.
    No,
    /// The peer has been told to open no more streams; those that it opens meanwhile are served.
    Announced,
    /// Streams above this one are ignored.
    Last(StreamId),
    /// Nothing more is read.
    Closed,
}

/// What may widen the connection's window.
#[derive(Debug)]
struct Growth {
    /// When credit was given last.
    since: Instant,
    /// Whether the peer used half of the window in a short time.
    is_due: bool,
}

/// One end of an HTTP/2 connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    /// Streams that a client may open at once.
    streams_max: u32,
    receiver: Receiver,
    receive_window: ReceiveWindow,
    growth: Growth,
    send_window: SendWindow,
    /// What clients hold of it, towards a backend. Boxed: there are many more clients.
    shares: Option<Box<Shares>>,
    output: Vec<u8>,
    /// The DATA frame that was written to it last.
    last_data: Option<LastData>,
    /// How much of the output the peer made us write.
    control_bytes: usize,
    /// Towards a backend.
    encoder: Option<Box<Encoder>>,
    streams: Streams,
    history: History,
    /// Streams that have something to send and credit for it, as it is their turn.
    row: VecDeque<StreamId>,
    peer: PeerSettings,
    /// When our SETTINGS were sent that the peer has not acknowledged.
    unacknowledged_since: Option<Instant>,
    ping_since: Option<Instant>,
    /// When something has come last.
    heard_at: Instant,
    /// Since when something has come only in part: the preface, a frame, a field block.
    incomplete_since: Option<Instant>,
    /// The last stream that the peer will have processed, by its GOAWAY.
    peers_last: Option<StreamId>,
    ending: Ending,
    floods: Floods,
    /// What a stream's reset on our side has broken, until the next event.
    overdue: Option<Violation>,
}

/// What our own PINGs carry.
const PING: [u8; 8] = *b"gateway\0";

impl Connection {
    /// A connection that has just been opened. Its preface is in the output (RFC 9113 section 3.4).
    pub fn new(role: Role, header_list_size_max: u32, now: Instant) -> Self {
        Self::with_limits(role, header_list_size_max, CLIENT_STREAMS_MAX, now)
    }

    /// One of a client, which may open so many streams at once.
    pub fn server(header_list_size_max: u32, streams_max: u32, now: Instant) -> Self {
        Self::with_limits(Role::Server, header_list_size_max, streams_max, now)
    }

    fn with_limits(role: Role, header_list_size_max: u32, streams_max: u32, now: Instant) -> Self {
        let mut output = Vec::new();
        let list_size = Setting::MaxHeaderListSize(header_list_size_max);
        let window = match role {
            Role::Server => WINDOW_BYTES,
            Role::Client => BACKEND_WINDOW_BYTES,
        };
        match role {
            Role::Server => {
                let streams = Setting::MaxConcurrentStreams(streams_max);
                write_settings(&mut output, &[streams, list_size]);
            }
            Role::Client => {
                output.extend_from_slice(PREFACE);
                write_settings(&mut output, &[Setting::EnablePush(false), list_size]);
                write_window_update(&mut output, StreamId::CONNECTION, window - WINDOW_BYTES);
            }
        }
        Connection {
            role,
            streams_max,
            receiver: Receiver::new(role),
            receive_window: ReceiveWindow::new(window),
            growth: Growth {
                since: now,
                is_due: false,
            },
            send_window: SendWindow::new(WINDOW_BYTES),
            shares: (role == Role::Client)
                .then(|| Box::new(Shares::new(WINDOW_BYTES as usize, now))),
            output,
            last_data: None,
            control_bytes: 0,
            encoder: (role == Role::Client).then(Box::default),
            streams: Streams::default(),
            history: History::default(),
            row: VecDeque::new(),
            peer: PeerSettings {
                initial_window: WINDOW_BYTES,
                streams_max: BACKEND_STREAMS_BEFORE_SETTINGS,
            },
            unacknowledged_since: Some(now),
            ping_since: None,
            heard_at: now,
            incomplete_since: (role == Role::Server).then_some(now),
            peers_last: None,
            ending: Ending::No,
            floods: Floods::new(now),
            overdue: None,
        }
    }

    /// Which side of it we are.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// What is to be written to the peer.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Takes it, to write it; streams that wait may then send more, by [`Self::send_queued`].
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        self.swap_output(&mut output);
        output
    }

    /// Takes it, to write it, and leaves an empty buffer to fill instead.
    pub fn swap_output(&mut self, empty: &mut Vec<u8>) {
        self.control_bytes = 0;
        self.last_data = None;
        empty.clear();
        std::mem::swap(&mut self.output, empty);
    }

    /// Whether the connection takes no new streams, ever.
    pub fn is_retired(&self) -> bool {
        self.ending != Ending::No || self.peers_last.is_some() || self.next_stream().is_none()
    }

    /// Since when, at the least, nothing passes to a backend because it gives no credit: its window is as good as spent, or content
    /// waits of which nothing is sent because its clients have their shares.
    pub fn stalled(&self) -> Option<Stall> {
        let shares = self.shares.as_ref()?;
        shares.stalled(self.send_window.available())
    }

    /// Whether the connection is over once its output is written.
    pub fn is_closed(&self) -> bool {
        self.ending == Ending::Closed
    }

    /// Whether it was told to end and nothing is in flight any more.
    pub fn is_drained(&self) -> bool {
        matches!(self.ending, Ending::Last(_) | Ending::Closed) && self.streams.len() == 0
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether another stream can be opened towards the backend now.
    pub fn can_open(&self) -> bool {
        self.role == Role::Client
            && self.ending == Ending::No
            && self.peers_last.is_none()
            && self.streams.len() < self.peer.streams_max as usize
            && self.next_stream().is_some()
    }

    /// Opens a stream towards the backend, with its owner's key. The request's header section comes next.
    pub fn open(&mut self, key: u32, now: Instant) -> Option<StreamId> {
        if !self.can_open() {
            return None;
        }
        let id = self.next_stream()?;
        self.history.open(id);
        self.insert(id, key, now);
        Some(id)
    }

    /// Gives a stream that the client has opened its owner's key.
    pub fn own(&mut self, stream: StreamId, key: u32) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.key = key;
        }
    }

    /// The keys of open streams above `last`: a backend that sent GOAWAY has not processed them.
    pub fn keys_above(&self, last: StreamId) -> impl Iterator<Item = (StreamId, u32)> + '_ {
        let above = self.streams.iter().filter(move |stream| stream.id > last);
        above.map(|stream| (stream.id, stream.key))
    }

    /// Resets a stream (RFC 9113 section 6.4). Returns how many bytes waited to be sent on it: their source gets its
    /// credit.
    #[must_use = "what waited is dropped, and its source gets credit for it"]
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode) -> usize {
        let Some(removed) = self.remove(stream) else {
            return 0;
        };
        if removed.receive != Half::Ended {
            self.history.abandon(stream);
        }
        write_rst_stream(&mut self.output, stream, code);
        removed.queue.data().len()
    }

    /// Resets a stream for the fault of the peer. Too many of them are a flood, which the next event tells.
    #[must_use = "what waited is dropped, and its source gets credit for it"]
    pub fn reject(&mut self, stream: StreamId, code: ErrorCode, now: Instant) -> usize {
        self.count_forced_reset(now);
        self.reset(stream, code)
    }

    /// Gives credit for content of a stream that has been passed on or dropped, also if the stream is gone. A stream's
    /// window widens with its connection's, up to half of that.
    pub fn release(&mut self, stream: StreamId, bytes: usize, now: Instant) {
        if let Some(stream) = self.streams.get_mut(stream)
            && let Some(mut credit) = stream.receive_window.release(bytes)
            && stream.receive != Half::Ended
        {
            let size = stream.receive_window.size();
            // A stream of a backend keeps its window: else a few could hold that of the connection.
            if self.role == Role::Server && size <= self.receive_window.size() / 4 {
                stream.receive_window.grow(size);
                credit += size;
            }
            write_window_update(&mut self.output, stream.id, credit);
        }
        self.release_on_connection(bytes, now);
    }

    /// Widens the window of a connection whose peer is faster than its credit, if the budget allows.
    pub fn grow(&mut self, budget: &mut WindowBudget) {
        let more = self.receive_window.size();
        if std::mem::take(&mut self.growth.is_due)
            && 2 * more <= WINDOW_BYTES_MAX
            && budget.take(more)
        {
            self.receive_window.grow(more);
            write_window_update(&mut self.output, StreamId::CONNECTION, more);
        }
    }

    /// What it has taken of a budget.
    pub fn growth(&self) -> usize {
        match self.role {
            Role::Server => (self.receive_window.size() - WINDOW_BYTES) as usize,
            // It has its whole window from the beginning, and takes nothing of a budget.
            Role::Client => 0,
        }
    }

    /// Asks the peer for a sign of life (RFC 9113 section 6.7).
    pub fn ping(&mut self, now: Instant) {
        if self.ping_since.is_none() {
            self.ping_since = Some(now);
            write_ping(&mut self.output, PING, false);
        }
    }

    /// Asks a backend for a sign of life that has streams, and from which nothing has come for `interval`. Whether it was
    /// asked. If none comes, [`Self::check_time`] ends the connection. To be called about once a second.
    pub fn keep_alive(&mut self, interval: Duration, now: Instant) -> bool {
        // Anything is a sign of life.
        self.ping_since = self.ping_since.filter(|since| self.heard_at <= *since);
        let is_silent = now.saturating_duration_since(self.heard_at) >= interval;
        let asks = is_silent && self.streams.len() > 0 && self.ping_since.is_none();
        if asks && !self.is_closed() {
            self.ping(now);
            return true;
        }
        false
    }

    /// Since when the peer owes an answer to a PING.
    pub fn pinged_since(&self) -> Option<Instant> {
        self.ping_since
    }

    /// Begins to end the connection (RFC 9113 section 6.8): first no stream is excluded, and when the peer has
    /// answered a PING, and so has read that, those it has opened until then are the last.
    pub fn go_away(&mut self, now: Instant) {
        if self.ending == Ending::No {
            self.ending = Ending::Announced;
            write_goaway(&mut self.output, StreamId::LAST, ErrorCode::NoError);
            self.ping_since = None;
            self.ping(now);
        }
    }

    /// Ends the connection at once.
    pub fn close(&mut self, code: ErrorCode) {
        if self.ending != Ending::Closed {
            let last = self.last_of_peer();
            self.ending = Ending::Closed;
            write_goaway(&mut self.output, last, code);
        }
    }

    /// Ends the connection if the peer has not acknowledged our SETTINGS in time (RFC 9113 section 6.5.3), has not
    /// completed within `timeout` what it has begun to send, DATA excepted, or is a backend that gives no sign of life.
    pub fn check_time(&mut self, timeout: Duration, now: Instant) -> Option<Violation> {
        let is_past = |since: Option<Instant>, timeout| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
        };
        let violation = match () {
            () if self.is_closed() => return None,
            () if is_past(self.unacknowledged_since, SETTINGS_ACK_TIMEOUT) => {
                Violation::SettingsTimeout
            }
            () if is_past(self.incomplete_since, timeout) => Violation::SlowFrame,
            () if self.role == Role::Client
                && is_past(self.ping_since, PING_ACK_TIMEOUT)
                && self.ping_since >= Some(self.heard_at) =>
            {
                Violation::PingTimeout
            }
            () => return None,
        };
        self.close(violation.code());
        Some(violation)
    }

    /// Takes all streams out of a connection that is over: their keys, and how many bytes waited on each.
    pub fn take_streams(&mut self) -> impl Iterator<Item = Left> {
        let mut streams = std::mem::take(&mut self.streams);
        let left: Vec<Left> = streams
            .iter_mut()
            .map(|stream| Left {
                key: stream.key,
                bytes: stream.queue.data().len(),
            })
            .collect();
        left.into_iter()
    }

    /// Gives back memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        self.streams.shrink();
        if let Some(shares) = self.shares.as_mut().filter(|_| self.streams.len() == 0) {
            shares.shrink();
        }
        if self.row.is_empty() {
            self.row = VecDeque::new();
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    fn next_stream(&self) -> Option<StreamId> {
        let next = match self.history.highest() {
            StreamId::CONNECTION => 1,
            // RFC 9113 section 5.1.1: ids are not used again. A connection that has used them up is retired.
            highest => highest.number() + 2,
        };
        (next <= StreamId::LAST.number()).then(|| StreamId::new(next))
    }

    fn insert(&mut self, id: StreamId, key: u32, now: Instant) {
        self.streams.insert(Stream {
            id,
            key,
            client: None,
            held: 0,
            opened: now,
            receive: Half::Reserved,
            send: Half::Reserved,
            receive_window: ReceiveWindow::new(WINDOW_BYTES),
            send_window: SendWindow::new(self.peer.initial_window),
            queue: Queue::default(),
            is_in_row: false,
            is_held_back: false,
            has_data: false,
        });
    }

    /// Takes a stream out.
    fn remove(&mut self, stream: StreamId) -> Option<Stream> {
        let removed = self.streams.remove(stream)?;
        if let (Some(shares), Some(client)) = (&mut self.shares, removed.client) {
            shares.give_back(client, removed.held as usize);
            shares.forget(removed.is_held_back);
        }
        Some(removed)
    }

    /// The last stream that a GOAWAY of ours names: none of a backend's.
    fn last_of_peer(&self) -> StreamId {
        match (self.role, self.ending) {
            (Role::Client, _) => StreamId::CONNECTION,
            (Role::Server, Ending::Last(last)) => last,
            (Role::Server, _) => self.history.highest(),
        }
    }

    /// Counts content, or padding, that is not held any more.
    fn release_on_connection(&mut self, bytes: usize, now: Instant) {
        if let Some(credit) = self.receive_window.release(bytes) {
            let took = now.saturating_duration_since(self.growth.since);
            self.growth = Growth {
                since: now,
                is_due: took < WINDOW_GROWTH_INTERVAL,
            };
            write_window_update(&mut self.output, StreamId::CONNECTION, credit);
        }
    }

    /// A client that makes us reset its streams costs us as much as one that resets them itself.
    fn count_forced_reset(&mut self, now: Instant) {
        if self.role == Role::Server
            && let Err(violation) = self.count_flood(Flood::ForcedReset, now)
        {
            self.overdue = Some(violation);
        }
    }

    /// Counts what can be a flood. A backend's connection carries the requests of many clients, any of whom could make
    /// it send late or small frames: of a backend only what we have to answer counts.
    fn count_flood(&mut self, kind: Flood, now: Instant) -> Result<(), Violation> {
        match self.role {
            Role::Client if !kind.is_answered() => Ok(()),
            Role::Client | Role::Server => self.floods.count(kind, now),
        }
    }

    /// Counts bytes that the peer made us write.
    fn count_control(&mut self, bytes: usize) -> Result<(), Violation> {
        self.control_bytes += bytes;
        match self.control_bytes <= OUTPUT_CONTROL_BYTES_MAX {
            true => Ok(()),
            false => Err(Violation::OutputFlood),
        }
    }

    /// Room for DATA in the output.
    fn output_room(&self) -> usize {
        OUTPUT_BYTES_MAX.saturating_sub(self.output.len())
    }
}
