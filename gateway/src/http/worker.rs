//! What the connections of one worker share in HTTP mode: the forwarder, the links of its connections, the pools of servers.
//! In: bytes of connections, a new configuration. Out: one write for each connection and turn. On its worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::RandomState;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use gateway_core::http::forward::{ConnectionKey, Forwarder, HttpVersion, PeerConnection};
use gateway_core::http::limits::{
    CONNECTIONS_LOOK_INTERVAL, HEADER_LIST_BYTES_MAX, LOOK_INTERVAL, RETRY_WAIT,
};
use gateway_rt::Turns;

use super::health::keep_checking;
use super::health_service::HealthService;
use super::link::{KnownClient, Link, LinkPeer};
use super::mirror::Mirrors;
use super::pool::Pool;
use super::routing::Routing;
use crate::backend::Servers;
use crate::config::{BackendId, Config};
use crate::connection::{ConnectionId, Direction, Stream, UsageTable};
use crate::telemetry::{Event, Observer};
use crate::tls::{DryRun, Received, StreamError};

/// HTTP mode on one worker.
pub struct HttpWorker {
    own: Weak<HttpWorker>,
    pub(super) forwarder: RefCell<Forwarder>,
    /// By the slot of their keys.
    links: RefCell<Vec<Option<Rc<Link>>>>,
    pub(super) pools: RefCell<Vec<Pool>>,
    pub(super) current: RefCell<Current>,
    /// By listener.
    pub(super) health_services: RefCell<Vec<Option<HealthService>>>,
    pub(super) observer: Rc<Observer>,
    pub(super) usage: Arc<UsageTable>,
    pub(super) mirrors: Mirrors,
    turns: Turns,
    /// What the flusher writes from.
    scratch: RefCell<Vec<u8>>,
    flusher: Cell<Option<Waker>>,
    /// Whether tasks flush and keep the time.
    is_running: Cell<bool>,
    pub(super) random: Cell<u64>,
    /// Gives identities numbers, which no client can choose.
    pub(super) identities: RandomState,
}

/// What is in force.
pub struct Current {
    /// The configuration.
    pub config: Arc<Config>,
    /// The servers of each backend.
    pub servers: Rc<Vec<Rc<Servers>>>,
    /// The dry run of each listener that has one.
    pub dry_run: Vec<Option<Arc<DryRun>>>,
}

impl HttpWorker {
    /// One without connections. On its worker, whose tasks it begins where servers are to be checked.
    pub fn new(
        current: Current,
        observer: Rc<Observer>,
        usage: Arc<UsageTable>,
        (turns, random): (Turns, u64),
    ) -> Rc<Self> {
        let worker = Rc::new_cyclic(|own| HttpWorker {
            own: Weak::clone(own),
            forwarder: RefCell::new(Forwarder::new(HEADER_LIST_BYTES_MAX, RETRY_WAIT)),
            links: RefCell::default(),
            pools: RefCell::new(Pool::of_all(&current.config, 0)),
            current: RefCell::new(current),
            health_services: RefCell::default(),
            observer,
            usage,
            mirrors: Mirrors::default(),
            turns,
            scratch: RefCell::default(),
            flusher: Cell::new(None),
            is_running: Cell::new(false),
            random: Cell::new(random | 1),
            identities: RandomState::new(),
        });
        worker.run_if_checking();
        worker.offer_health(Instant::now());
        worker
    }

    /// Puts a configuration in force. Connections that are open stay; what clients may do and backends are told changes with
    /// their next request. A client that `has_lost_trust` may call nothing until its connection ends: no rule is its own any more.
    pub fn reload(&self, next: Current, has_lost_trust: impl Fn(ConnectionId) -> bool) {
        let config = &next.config;
        let mut pools = self.pools.borrow_mut();
        for (pool, backend) in pools.iter_mut().zip(&config.backends) {
            pool.configure(config, backend, Instant::now());
        }
        let known = pools.len();
        pools.extend(Pool::of_all(config, known));
        drop(pools);
        self.current.replace(next);
        self.run_if_checking();
        self.offer_health(Instant::now());
        let links: Vec<_> = self.links.borrow().iter().flatten().cloned().collect();
        for link in links {
            match &link.peer {
                LinkPeer::Client(client) => {
                    let by_now = match has_lost_trust(client.id) {
                        true => Some(KnownClient::without_rights()),
                        false => self.known_client((client.listener, client.address), &client.peer),
                    };
                    // The connection ends soon. Until then its requests are served as before: a refusal would lose them.
                    let Some(known) = by_now else {
                        continue;
                    };
                    let shared = Rc::clone(&known.client);
                    client.known.replace(known);
                    self.forwarder.borrow_mut().set_client(link.key, shared);
                }
                LinkPeer::Server(_) => self.evaluate_server(&link),
            }
        }
    }

    /// Runs `work` with a pool.
    pub(super) fn with_pool<T>(&self, backend: BackendId, work: impl FnOnce(&mut Pool) -> T) -> T {
        work(&mut self.pools.borrow_mut()[backend.0])
    }

    /// The worker, to be kept by a task.
    pub(super) fn own(&self) -> Option<Rc<HttpWorker>> {
        self.own.upgrade()
    }

    /// Numbers by chance, good enough to choose servers with (xorshift).
    pub(super) fn next_random(&self) -> u64 {
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        random
    }

    /// Makes the link of a connection of the forwarder.
    pub(super) fn add_link(
        &self,
        (key, version): (ConnectionKey, HttpVersion),
        stream: Rc<Stream>,
        peer: LinkPeer,
    ) -> Rc<Link> {
        let link = Rc::new(Link::new((key, version), stream, peer));
        let mut links = self.links.borrow_mut();
        if links.len() <= key.slot() {
            links.resize_with(key.slot() + 1, || None);
        }
        links[key.slot()] = Some(Rc::clone(&link));
        drop(links);
        self.run();
        link
    }

    /// Takes a connection out: its requests end, or go elsewhere.
    pub(super) fn remove_link(&self, link: &Link) {
        let now = Instant::now();
        let mut routing = Routing::new(self, now);
        self.forwarder
            .borrow_mut()
            .remove(link.key, &mut routing, now);
        if let Some(place) = self.links.borrow_mut().get_mut(link.key.slot()) {
            *place = None;
        }
        self.notify();
    }

    /// The link of a connection.
    pub(super) fn link(&self, key: ConnectionKey) -> Option<Rc<Link>> {
        let links = self.links.borrow();
        let link = links.get(key.slot())?.as_ref();
        link.filter(|link| link.key == key).cloned()
    }

    /// Takes what has come on a connection. What is not welcome yet, or comes behind the client's turn, stays with its link.
    fn receive(&self, link: &Link, bytes: &[u8], now: Instant) {
        let mut routing = Routing::new(self, now);
        let taken = self
            .forwarder
            .borrow_mut()
            .receive(link.key, bytes, &mut routing, now);
        link.keep_unread(&bytes[taken..]);
        self.notify();
    }

    /// Takes the end of what comes on a connection.
    pub(super) fn end_of_input(&self, link: &Link, is_authentic: bool) {
        let now = Instant::now();
        let mut routing = Routing::new(self, now);
        self.forwarder
            .borrow_mut()
            .end_of_input(link.key, is_authentic, &mut routing, now);
        self.notify();
    }

    /// Looks at a connection of the forwarder. One that is gone is so in every respect.
    pub(super) fn is_so(&self, link: &Link, look: impl FnOnce(&PeerConnection) -> bool) -> bool {
        let mut forwarder = self.forwarder.borrow_mut();
        let connection = forwarder.connection(link.key);
        connection.is_none_or(|connection| look(connection))
    }

    /// Waits until something can be read from a connection, and is welcome.
    pub(super) async fn readable(&self, link: &Link) -> Result<(), StreamError> {
        link.until_progress(|| self.is_so(link, PeerConnection::wants_input))
            .await;
        match link.has_unread() {
            true => {
                self.turns.others_first().await;
                Ok(())
            }
            false => link.stream.readable().await,
        }
    }

    /// Reads once, and passes on what has come. `came` hears how much. `false`: that was the end.
    pub(super) fn read_once(
        &self,
        link: &Link,
        bytes_max: usize,
        came: impl FnOnce(usize),
    ) -> Result<bool, StreamError> {
        let unread = link.take_unread();
        if !unread.is_empty() {
            self.receive(link, &unread, Instant::now());
            return Ok(true);
        }
        match link.stream.receive(bytes_max)? {
            Some(Received::Bytes(bytes)) => {
                came(bytes.len());
                self.receive(link, bytes.filled(), Instant::now());
                link.stream.give_back(bytes);
                Ok(true)
            }
            Some(Received::End) => Ok(false),
            None => Ok(true),
        }
    }

    /// Asks again for requests that wait for a backend.
    pub(super) fn place_waiting(&self, backend: BackendId, now: Instant) {
        let mut routing = Routing::new(self, now);
        self.forwarder
            .borrow_mut()
            .place_waiting(backend.0, &mut routing, now);
        self.notify();
    }

    /// Has the flusher run after all connections that are read in this turn.
    pub(super) fn notify(&self) {
        loop {
            let resumed = self.forwarder.borrow_mut().next_resumed();
            let Some(key) = resumed else {
                break;
            };
            if let Some(link) = self.link(key) {
                link.wake();
            }
        }
        if self.forwarder.borrow().has_ready()
            && let Some(waker) = self.flusher.take()
        {
            waker.wake();
        }
    }

    /// Writes what a connection has to say.
    pub(super) fn flush(&self, link: &Link) {
        let now = Instant::now();
        let taken_before = link.taken_bytes();
        let mut scratch = self.scratch.take();
        link.flush(&mut scratch, |output| {
            let mut routing = Routing::new(self, now);
            self.forwarder
                .borrow_mut()
                .take_output(link.key, output, &mut routing, now);
        });
        self.scratch.replace(scratch);
        if self.is_so(link, PeerConnection::is_over) {
            link.wake();
        }
        if let Some(client) = link.client() {
            let bytes = (link.taken_bytes() - taken_before) as usize;
            let direction = Direction::Sent;
            let moved = Event::Moved { direction, bytes };
            self.observer.emit(client.listener, &moved);
        }
    }

    /// Writes what all connections have to say.
    fn flush_all(&self) {
        loop {
            let ready = self.forwarder.borrow_mut().next_ready();
            let Some(key) = ready else {
                return self.notify();
            };
            match self.link(key) {
                Some(link) => self.flush(&link),
                None => self.serve_health(key, Instant::now()),
            }
        }
    }

    /// Begins with the first configuration that has health checks: what a server is good for is known before a client needs it.
    fn run_if_checking(&self) {
        let current = self.current.borrow();
        let mut backends = current.config.backends.iter();
        let is_checking = backends.any(|backend| backend.http.health.is_some());
        drop(current);
        if is_checking {
            self.run();
        }
    }

    fn run(&self) {
        if self.is_running.replace(true) {
            return;
        }
        let Some(worker) = self.own() else {
            return;
        };
        self.replace_servers(Instant::now());
        monoio::spawn(Rc::clone(&worker).keep_flushing());
        monoio::spawn(worker.keep_time());
    }

    async fn keep_flushing(self: Rc<Self>) {
        loop {
            poll_fn(|context| {
                if self.forwarder.borrow().has_ready() {
                    return Poll::Ready(());
                }
                self.flusher.set(Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            self.flush_all();
        }
    }

    /// Has clients keep to their shares of connections to servers, where they have to.
    fn enforce_shares(&self, now: Instant) {
        let mut forwarder = self.forwarder.borrow_mut();
        let mut pools = self.pools.borrow_mut();
        let each = pools.iter_mut();
        let changes = each.flat_map(|pool| pool.share_changes(&mut forwarder, now));
        let changes: Vec<_> = changes.collect();
        drop(pools);
        let mut routing = Routing::new(self, now);
        for (key, are_in_force) in changes {
            forwarder.enforce_shares(key, are_in_force, &mut routing, now);
        }
    }

    async fn keep_time(self: Rc<Self>) {
        let mut connections_at = Instant::now();
        loop {
            monoio::time::sleep(LOOK_INTERVAL).await;
            let now = Instant::now();
            self.replace_servers(now);
            for pool in self.pools.borrow().iter() {
                pool.look(&mut self.forwarder.borrow_mut(), now);
            }
            self.enforce_shares(now);
            let mut forwarder = self.forwarder.borrow_mut();
            let mut routing = Routing::new(&self, now);
            forwarder.check_time(&mut routing, now);
            if now >= connections_at {
                connections_at = now + CONNECTIONS_LOOK_INTERVAL;
                forwarder.check_connections(&mut routing, now);
                drop(forwarder);
                self.offer_health(now);
            } else {
                drop(forwarder);
            }
            self.tell_health(now);
            self.notify();
        }
    }

    /// Has the pools know the addresses that names resolve to by now, and checks the servers that are new.
    fn replace_servers(&self, now: Instant) {
        let current = self.current.borrow();
        let mut pools = self.pools.borrow_mut();
        let backends = current.servers.iter().zip(&current.config.backends);
        for (position, (pool, (servers, backend))) in pools.iter_mut().zip(backends).enumerate() {
            let new = pool.replace(&servers.addresses(), &backend.http.shares, now);
            for (server, address) in new {
                if let Some(worker) = self.own() {
                    let target = (BackendId(position), server, address);
                    monoio::spawn(keep_checking(worker, target));
                }
            }
        }
    }
}
