//! Forwarding: requests of clients to backends, responses back, content as it comes.
//!
//! In: bytes of connections, the choice of a backend, the time. Out: bytes for connections. Pairs the streams of two
//! connections; each piece of content is copied once, into the output of the other one, and its sender gets credit
//! when it has left. What has no backend is answered in the client's protocol.

mod begin;
mod exchange;
mod pass;
mod slots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use begin::Arrival;
use exchange::{Exchange, PeerKind};
use slots::Slots;

use super::answer::RequestRefusal;
use super::h2::{Connection, ErrorCode, Event, Left, Role};
use super::message::{AllowedTenants, HeaderList, Request, ReservedNames};

/// A connection of a forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionKey {
    slot: u32,
    /// No other connection of the forwarder has the same, ever: credit for one that is gone must not go to the next.
    serial: u64,
}

/// What is known of a client.
#[derive(Debug)]
pub struct Client {
    /// Names that it may not use.
    pub reserved: Arc<ReservedNames>,
    /// Fields that backends are told with every request.
    pub told: HeaderList,
    /// Tenants that it may speak for.
    pub tenants: AllowedTenants,
}

/// Chooses backends.
pub trait Routes {
    /// The connection that takes a request.
    ///
    /// # Errors
    ///
    /// None does.
    fn choose(&mut self, request: &Request<'_>) -> Result<ConnectionKey, RequestRefusal>;
}

#[derive(Debug)]
struct Peer {
    serial: u64,
    connection: Connection,
    /// `None`: it is a backend.
    client: Option<Box<Client>>,
    /// Whether it stands among those with output.
    is_ready: bool,
}

impl Peer {
    fn side(&self) -> PeerKind {
        match self.client {
            Some(_) => PeerKind::Client,
            None => PeerKind::Backend,
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
    list: HeaderList,
    list_size_max: usize,
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
            list: HeaderList::new(list_size_max),
            list_size_max,
            wait,
        }
    }

    /// Adds a connection of a client.
    pub fn accept(&mut self, client: Client, now: Instant) -> ConnectionKey {
        self.add(Role::Server, Some(Box::new(client)), now)
    }

    /// Adds a connection to a backend.
    pub fn connect(&mut self, now: Instant) -> ConnectionKey {
        self.add(Role::Client, None, now)
    }

    fn add(&mut self, role: Role, client: Option<Box<Client>>, now: Instant) -> ConnectionKey {
        let list_size_max = u32::try_from(self.list_size_max).unwrap_or(u32::MAX);
        let serial = self.next_serial;
        self.next_serial += 1;
        let slot = self.peers.insert(Peer {
            serial,
            connection: Connection::new(role, list_size_max, now),
            client,
            is_ready: false,
        });
        let key = ConnectionKey { slot, serial };
        self.mark(key);
        key
    }

    /// A connection.
    pub fn connection(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        peer(&mut self.peers, key).map(|peer| &mut peer.connection)
    }

    /// How many requests are in flight.
    pub fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// A connection that has output, one after the other; each is told once.
    pub fn next_ready(&mut self) -> Option<ConnectionKey> {
        let key = self.ready.pop()?;
        if let Some(peer) = peer(&mut self.peers, key) {
            peer.is_ready = false;
        }
        Some(key)
    }

    /// Takes the output of a connection, and has what waits take its place.
    pub fn take_output(&mut self, key: ConnectionKey, now: Instant) -> Vec<u8> {
        let Some(connection) = self.connection(key) else {
            return Vec::new();
        };
        let output = connection.take_output();
        self.send_queued(key, now);
        output
    }

    /// Takes bytes that came on a connection.
    pub fn receive(
        &mut self,
        key: ConnectionKey,
        mut input: &[u8],
        routes: &mut impl Routes,
        now: Instant,
    ) {
        while let Some(peer) = peer(&mut self.peers, key)
            && let Some(event) = peer.connection.receive(&mut input, &mut self.list, now)
        {
            let side = peer.side();
            match event {
                Event::Request { stream, end_stream } => {
                    let arrival = Arrival {
                        connection: key,
                        stream,
                        end_stream,
                    };
                    self.begin(&arrival, routes, now);
                }
                Event::Section { key, end_stream } => self.pass_section(key, side, end_stream, now),
                Event::Data {
                    key,
                    data,
                    end_stream,
                } => {
                    self.pass_data(key, side, data, end_stream, now);
                }
                Event::Reset { key, code, unsent } => {
                    self.stream_is_gone(Left { key, bytes: unsent }, side, code, now);
                }
                Event::Broken {
                    key,
                    violation,
                    unsent,
                } => {
                    let left = Left { key, bytes: unsent };
                    self.stream_is_gone(left, side, violation.code(), now);
                }
                Event::Goaway { last, .. } if side == PeerKind::Backend => {
                    self.give_up(key, last, now)
                }
                Event::Goaway { .. } => {}
                Event::Failed(violation) => self.take_streams(key, violation.code(), now),
            }
        }
        self.send_queued(key, now);
    }

    /// A connection is gone.
    pub fn remove(&mut self, key: ConnectionKey, now: Instant) {
        self.take_streams(key, ErrorCode::Cancel, now);
        if peer(&mut self.peers, key).is_some() {
            self.peers.remove(key.slot);
        }
    }
}

/// The connection that a key stands for, unless it is gone.
fn peer(peers: &mut Slots<Peer>, key: ConnectionKey) -> Option<&mut Peer> {
    let found = peers.get_mut(key.slot);
    found.filter(|peer| peer.serial == key.serial)
}
