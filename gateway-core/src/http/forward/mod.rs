//! Forwarding: requests of clients to backends, responses back, content as it comes.
//!
//! In: bytes of connections, the choice of a backend, the time. Out: bytes for connections. Pairs the streams of two
//! connections; each piece of content is copied once, into the output of the other one, and its sender gets credit
//! when it has left. A request that no connection takes yet waits. What no backend has processed may go to another
//! one. What has no backend is answered in the client's protocol.

mod begin;
mod connection;
mod exchange;
mod pass;
mod place;
mod refuse;
mod router;
mod slots;
mod time;
mod turn;
mod waiting;

use std::rc::Rc;
use std::time::{Duration, Instant};

use begin::Arrival;
use exchange::{Exchange, PeerKind};
use slots::Slots;
use turn::ClientTurn;
use waiting::Queues;

pub use connection::{HttpVersion, PeerConnection, PeerFault, PeerLimits};
pub use router::{
    BackendTimes, Call, Client, Ended, LegEnd, MirroredRequest, Placement, Rewrite, Router,
};

use super::h2::{ErrorCode, Event, Left, Role, WindowBudget};
use super::limits::{HEADER_LISTS_KEPT, HELD_BUFFERS_KEPT, WINDOWS_BYTES_MAX};
use super::message::HeaderList;

/// A connection of a forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionKey {
    slot: u32,
    /// No other connection of the forwarder has the same, ever: credit for one that is gone must not go to the next.
    serial: u64,
}

impl ConnectionKey {
    /// A small number that no other open connection of the forwarder has.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What a connection leads to.
#[derive(Debug)]
enum Known {
    Client {
        client: Rc<Client>,
        /// A number that it shares with all connections of the same identity.
        identity: u64,
    },
    Backend(BackendTimes),
}

#[derive(Debug)]
struct Peer {
    serial: u64,
    connection: PeerConnection,
    known: Known,
    /// Whether it stands among those with output.
    is_ready: bool,
    /// Whether it stood there after its connection was over.
    has_shown_end: bool,
}

impl Peer {
    fn kind(&self) -> PeerKind {
        match self.known {
            Known::Client { .. } => PeerKind::Client,
            Known::Backend(_) => PeerKind::Backend,
        }
    }
}

/// The connections of a worker, and what passes between them.
#[derive(Debug)]
pub struct Forwarder {
    peers: Slots<Peer>,
    next_serial: u64,
    exchanges: Slots<Exchange>,
    ready: Vec<ConnectionKey>,
    /// Connections of which more can be read again.
    resumed: Vec<ConnectionKey>,
    /// The section that came last.
    list: HeaderList,
    list_size_max: usize,
    /// Lists and buffers to use again.
    free_lists: Vec<HeaderList>,
    free_buffers: Vec<Vec<u8>>,
    /// Content that is kept of all requests, in bytes.
    held_bytes: usize,
    /// Requests of the input that is being read.
    arrived: Vec<u32>,
    queues: Queues,
    /// The queue where the next look at requests that wait begins.
    asked_next: usize,
    /// What the request that is placed is sent on with.
    rewrite: Rewrite,
    /// Where the next look at the times of exchanges begins.
    looked_at: u32,
    /// Where the next look at connections begins.
    tended: u32,
    /// What connections may promise beyond the windows that they begin with.
    windows: WindowBudget,
    /// What clients are told to wait before they send a request again.
    wait: Duration,
}

impl Forwarder {
    /// One without connections. Header lists have at most this size; clients whose requests are refused for now are
    /// told to wait so long.
    pub fn new(list_size_max: usize, wait: Duration) -> Self {
        Forwarder {
            peers: Slots::default(),
            next_serial: 0,
            exchanges: Slots::default(),
            ready: Vec::new(),
            resumed: Vec::new(),
            list: HeaderList::new(list_size_max),
            list_size_max,
            free_lists: Vec::new(),
            free_buffers: Vec::new(),
            held_bytes: 0,
            arrived: Vec::new(),
            queues: Queues::default(),
            asked_next: 0,
            rewrite: Rewrite::default(),
            looked_at: 0,
            tended: 0,
            windows: WindowBudget::new(WINDOWS_BYTES_MAX),
            wait,
        }
    }

    /// Adds a connection of a client. `identity` is a number that all connections of its identity have, and few others:
    /// requests that wait take turns by it.
    pub fn accept(
        &mut self,
        client: Rc<Client>,
        identity: u64,
        version: HttpVersion,
        now: Instant,
    ) -> ConnectionKey {
        let limits = PeerLimits {
            header_list_bytes: client.header_list_bytes_max,
            streams: client.streams_max,
        };
        let connection = PeerConnection::new(version, Role::Server, limits, now);
        self.add(connection, Known::Client { client, identity })
    }

    /// Adds a connection to a backend.
    pub fn connect(
        &mut self,
        times: BackendTimes,
        version: HttpVersion,
        now: Instant,
    ) -> ConnectionKey {
        let limits = PeerLimits {
            header_list_bytes: self.list_size_max,
            streams: 0,
        };
        let connection = PeerConnection::new(version, Role::Client, limits, now);
        self.add(connection, Known::Backend(times))
    }

    fn add(&mut self, connection: PeerConnection, known: Known) -> ConnectionKey {
        let serial = self.next_serial;
        self.next_serial += 1;
        let slot = self.peers.insert(Peer {
            serial,
            connection,
            known,
            is_ready: false,
            has_shown_end: false,
        });
        let key = ConnectionKey { slot, serial };
        self.mark(key);
        key
    }

    /// A connection. What its owner has it say is told by [`Self::mark`].
    pub fn connection(&mut self, key: ConnectionKey) -> Option<&mut PeerConnection> {
        peer(&mut self.peers, key).map(|peer| &mut peer.connection)
    }

    /// Has clients keep to their shares of the window of a backend's connection, or no more: what was held back is sent then.
    pub fn enforce_shares(
        &mut self,
        key: ConnectionKey,
        are_in_force: bool,
        router: &mut impl Router,
        now: Instant,
    ) {
        if let Some(connection) = self.connection(key) {
            connection.enforce_shares(are_in_force, now);
            self.send_queued(key, router, now);
        }
    }

    /// Replaces what is known of a client.
    pub fn set_client(&mut self, key: ConnectionKey, client: Rc<Client>) {
        if let Some(peer) = peer(&mut self.peers, key)
            && let Known::Client { client: known, .. } = &mut peer.known
        {
            *known = client;
        }
    }

    /// How many requests are in flight.
    pub fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// A connection of which more can be read again, one after the other.
    pub fn next_resumed(&mut self) -> Option<ConnectionKey> {
        self.resumed.pop()
    }

    /// Whether a connection has output.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A connection that has output, or is over, one after the other; each is told once.
    pub fn next_ready(&mut self) -> Option<ConnectionKey> {
        let key = self.ready.pop()?;
        if let Some(peer) = peer(&mut self.peers, key) {
            peer.is_ready = false;
        }
        Some(key)
    }

    /// Takes the output of a connection, leaves an empty buffer instead, and has what waits take its place.
    pub fn take_output(
        &mut self,
        key: ConnectionKey,
        into: &mut Vec<u8>,
        router: &mut impl Router,
        now: Instant,
    ) {
        into.clear();
        if let Some(connection) = self.connection(key) {
            connection.swap_output(into);
            self.send_queued(key, router, now);
        }
    }

    /// Takes bytes that came on a connection. Returns how many. The rest is to be given again, and nothing more read
    /// before, once [`PeerConnection::wants_input`] says so. If it says so at once, the client's turn is over: others
    /// come first.
    #[must_use = "the rest is given again"]
    pub fn receive(
        &mut self,
        key: ConnectionKey,
        input: &[u8],
        router: &mut impl Router,
        now: Instant,
    ) -> usize {
        let mut rest = input;
        let mut turn = ClientTurn::default();
        // Whether a frame is complete is found behind the last byte of all.
        while (rest.is_empty() || !turn.is_over())
            && let Some(peer) = peer(&mut self.peers, key)
            && !peer.connection.is_backed_up()
        {
            let (before, kind) = (rest.len(), peer.kind());
            let Some(event) = peer.connection.receive(&mut rest, &mut self.list, now) else {
                break;
            };
            if kind == PeerKind::Client {
                turn.count(before - rest.len(), &event);
            }
            self.take_event(key, event, router, now);
        }
        self.place_arrived(router, now);
        if let Some(found) = peer(&mut self.peers, key) {
            found.connection.grow(&mut self.windows);
        }
        self.send_queued(key, router, now);
        self.place_due(router, now);
        input.len() - rest.len()
    }

    /// A connection brings nothing more. `is_authentic`: its peer has said so, by close_notify or, in clear, by FIN. It
    /// is still to be removed.
    pub fn end_of_input(
        &mut self,
        key: ConnectionKey,
        is_authentic: bool,
        router: &mut impl Router,
        now: Instant,
    ) {
        if let Some(peer) = peer(&mut self.peers, key)
            && let Some(event) = peer.connection.end_of_input(is_authentic)
        {
            self.take_event(key, event, router, now);
        }
        self.place_arrived(router, now);
        self.send_queued(key, router, now);
        self.place_due(router, now);
    }

    fn take_event(
        &mut self,
        key: ConnectionKey,
        event: Event<'_>,
        router: &mut impl Router,
        now: Instant,
    ) {
        let Some(from) = peer(&mut self.peers, key).map(|peer| peer.kind()) else {
            return;
        };
        match event {
            Event::Request { stream, end_stream } => {
                let arrival = Arrival {
                    connection: key,
                    stream,
                    end_stream,
                };
                self.begin(&arrival, router, now);
            }
            Event::Section { key, end_stream } => {
                self.pass_section(from.of(key), end_stream, router, now);
            }
            Event::Data {
                key,
                data,
                end_stream,
            } => {
                self.pass_data(from.of(key), data, end_stream, router, now);
            }
            Event::Reset { key, code, unsent } => {
                let left = Left { key, bytes: unsent };
                self.stream_is_gone(left, from, code, router, now);
            }
            Event::Broken {
                key,
                violation,
                unsent,
            } => {
                let left = Left { key, bytes: unsent };
                self.stream_is_gone(left, from, violation.code(), router, now);
            }
            Event::Goaway { last, .. } if from == PeerKind::Backend => {
                self.give_up(key, last, router, now);
            }
            Event::Goaway { .. } | Event::Control => {}
            Event::Failed(violation) => {
                self.connection_failed(key, PeerFault::Http2(violation), router, now);
            }
            Event::Malformed(fault) => {
                self.connection_failed(key, PeerFault::Http1(fault), router, now);
            }
        }
    }

    fn connection_failed(
        &mut self,
        key: ConnectionKey,
        fault: PeerFault,
        router: &mut impl Router,
        now: Instant,
    ) {
        router.failed(key, fault);
        self.take_streams(key, fault.code(), router, now);
    }

    /// A connection is gone.
    pub fn remove(&mut self, key: ConnectionKey, router: &mut impl Router, now: Instant) {
        self.take_streams(key, ErrorCode::Cancel, router, now);
        if let Some(found) = peer(&mut self.peers, key) {
            self.windows.give_back(found.connection.growth());
            self.peers.remove(key.slot);
        }
        self.place_due(router, now);
    }

    /// What is known of a client.
    fn client(&self, key: ConnectionKey) -> Option<&Rc<Client>> {
        match &self
            .peers
            .get(key.slot)
            .filter(|peer| peer.serial == key.serial)?
            .known
        {
            Known::Client { client, .. } => Some(client),
            Known::Backend(_) => None,
        }
    }

    /// The number of a client's identity.
    fn identity(&self, key: ConnectionKey) -> u64 {
        match self.peers.get(key.slot).map(|peer| &peer.known) {
            Some(Known::Client { identity, .. }) => *identity,
            Some(Known::Backend(_)) | None => 0,
        }
    }

    /// An empty list; the one that came last is taken instead.
    fn take_list(&mut self) -> HeaderList {
        let empty = self.free_lists.pop();
        let empty = empty.unwrap_or_else(|| HeaderList::new(self.list_size_max));
        std::mem::replace(&mut self.list, empty)
    }

    fn give_list(&mut self, mut list: HeaderList) {
        if self.free_lists.len() < HEADER_LISTS_KEPT {
            list.clear();
            self.free_lists.push(list);
        }
    }

    fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        self.held_bytes -= buffer.len();
        if buffer.capacity() > 0 && self.free_buffers.len() < HELD_BUFFERS_KEPT {
            buffer.clear();
            self.free_buffers.push(buffer);
        }
    }
}

/// The connection that a key stands for, unless it is gone.
fn peer(peers: &mut Slots<Peer>, key: ConnectionKey) -> Option<&mut Peer> {
    let found = peers.get_mut(key.slot);
    found.filter(|peer| peer.serial == key.serial)
}
