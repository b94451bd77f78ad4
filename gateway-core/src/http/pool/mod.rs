//! The servers of a backend, as one worker's requests see them: which one is next.
//!
//! In: servers, how connections and requests ended, a random number, now. Out: a server for a request, or why there is
//! none. One for each backend and worker, kept over reloads. A choice allocates nothing and takes as long for three
//! servers as for a hundred, unless a key chooses. Waiting, connecting and health checks are the driver's.
//!
//! Requests in flight decide: the less loaded of two servers by chance gets the request (Mitzenmacher, 2001). At rest,
//! and on the average, each server gets the share that its weight is of all weights.

mod affinity;
mod candidates;
mod ejection;
mod server;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use candidates::Candidates;
use server::ServerState;

pub use affinity::hash_key;
pub use ejection::{EjectionCause, EjectionPolicy, RequestEnd};
pub use server::ServerCondition;

use crate::balance::{Patience, Server};
use crate::endpoint::Endpoint;

/// A server of a pool. Each address of a name is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolServer {
    /// Address, and position in the configuration.
    pub server: Server,
    /// Its share of requests, beside that of others.
    pub weight: NonZeroU32,
    /// It gets requests only while no other can take any. One that is full counts as one that can.
    pub is_backup: bool,
}

/// How a pool behaves.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// How long servers rest that cannot be connected.
    pub patience: Patience,
    /// Maximum of requests in flight at a server, of this worker.
    pub max_requests: u32,
    /// Maximum of connections to a server, of this worker.
    pub max_connections: u32,
    /// How long a server that comes or comes back gets less than its share; zero: it gets all of it at once.
    pub slow_start: Duration,
    /// How long a server is passed over that closes its connection, or is slow to take a new one.
    pub pass_over: Duration,
    /// When servers are ejected, if ever.
    pub ejection: Option<EjectionPolicy>,
}

/// A server of a pool, as long as the pool knows it. No other server ever gets the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    slot: u32,
    serial: u32,
}

impl ServerKey {
    /// A small number that no other server has at the same time, for tables beside the pool's.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Any number, another one each time.
    pub random: u64,
    /// The [hash of its key](hash_key), where a key chooses.
    pub key_hash: Option<u64>,
    /// Servers that it has been at.
    pub tried: &'a [ServerKey],
}

/// Why a request gets no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    /// All that could take it have as many requests as they may: wait for one to end.
    Full,
    /// None can be used now. One may be tried then, unless that depends on something other than time.
    Down {
        /// When.
        again_at: Option<Instant>,
    },
    /// All fail their health checks: none may be tried before a check passes.
    Unhealthy,
    /// It has been at all that could take it.
    Exhausted,
    /// The backend has no servers: its names have not been resolved.
    NoneKnown,
}

/// The servers of one backend.
#[derive(Debug)]
pub struct ServerPool {
    settings: PoolSettings,
    servers: Vec<ServerState>,
    /// Among which to choose.
    candidates: Candidates,
    /// Something has changed since they were found.
    is_stale: bool,
    /// Time changes something then.
    changes_at: Option<Instant>,
    next_serial: u32,
}

impl ServerPool {
    /// A backend without servers.
    pub fn new(settings: PoolSettings) -> Self {
        ServerPool {
            settings,
            servers: Vec::new(),
            candidates: Candidates::default(),
            is_stale: false,
            changes_at: None,
            next_serial: 0,
        }
    }

    /// Behaves by other settings from now on; what is known of servers stays.
    pub fn configure(&mut self, settings: PoolSettings, now: Instant) {
        self.settings = settings;
        self.limit_ejections(now);
        self.is_stale = true;
    }

    /// Replaces the servers. Those that stay keep their state; those that go get nothing new, and finish what they have.
    /// An address that is there twice counts once.
    pub fn replace(&mut self, servers: &[PoolServer], now: Instant) {
        let mut left: BTreeMap<Endpoint, PoolServer> = BTreeMap::new();
        for server in servers {
            left.entry(server.server.address).or_insert(*server);
        }
        let is_first = self.servers.iter().all(|known| known.is_removed);
        for known in &mut self.servers {
            match left.remove(&known.server.server.address) {
                Some(server) => {
                    known.server = server;
                    known.is_removed = false;
                }
                None => known.is_removed = true,
            }
        }
        for server in left.into_values() {
            let mut state = ServerState::new(server, self.next_serial, now);
            self.next_serial = self.next_serial.wrapping_add(1);
            if !is_first {
                state.returned(now);
            }
            match self.servers.iter_mut().find(|known| known.is_free()) {
                Some(free) => *free = state,
                None => self.servers.push(state),
            }
        }
        self.candidates.reserve(self.servers.len());
        self.limit_ejections(now);
        self.is_stale = true;
    }

    /// Chooses the server of a request, which is in flight there from now on, until [`ended`](Self::ended).
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn choose(&mut self, wish: &Wish<'_>, now: Instant) -> Result<ServerKey, NoServer> {
        if self.is_stale || self.changes_at.is_some_and(|at| at <= now) {
            self.find_candidates(now);
        }
        let slot = match wish.key_hash {
            Some(hash) => self.by_key(hash, wish),
            None => self.by_load(wish, now),
        };
        let slot = slot.ok_or_else(|| self.why_none(wish))?;
        let chosen = &mut self.servers[slot as usize];
        chosen.in_flight += 1;
        if chosen.rest.failures() > 0 {
            // One request tries whether it is there again; the others do not wait for what may fail.
            chosen.is_probed = true;
            self.is_stale = true;
        }
        let serial = chosen.serial;
        Ok(ServerKey { slot, serial })
    }

    /// Records how a request ended, at the server that was chosen for it. Returns why the server is ejected, if it is.
    pub fn ended(
        &mut self,
        key: ServerKey,
        end: RequestEnd,
        now: Instant,
    ) -> Option<EjectionCause> {
        let known = self.find(key)?;
        known.in_flight = known.in_flight.saturating_sub(1);
        let was_probed = std::mem::take(&mut known.is_probed);
        self.is_stale |= was_probed;
        match end {
            RequestEnd::Served => self.judge(key, false, now),
            RequestEnd::Failed => self.judge(key, true, now),
            RequestEnd::Unjudged => None,
        }
    }

    /// Takes the right to one more connection to a server. `false`: it has as many as it may.
    pub fn try_connect(&mut self, key: ServerKey) -> bool {
        let max = self.settings.max_connections;
        let Some(known) = self.find(key).filter(|known| known.connections < max) else {
            return false;
        };
        known.connections += 1;
        true
    }

    /// Records that a connection stands. Returns whether the server could not be connected before.
    pub fn connected(&mut self, key: ServerKey, now: Instant) -> bool {
        let Some(known) = self.find(key) else {
            return false;
        };
        let is_back = known.connected(now);
        self.is_stale = true;
        is_back
    }

    /// Records that a server could not be connected, and gives back the right to the connection. The server rests,
    /// unless another connection to it stands. Returns whether another address of the same name can be reached.
    pub fn connect_failed(&mut self, key: ServerKey, now: Instant) -> bool {
        let Some(failed) = self.find(key) else {
            return false;
        };
        failed.connections = failed.connections.saturating_sub(1);
        failed.is_probed = false;
        let stands = failed.connections > 0 && !failed.is_passed_over(now);
        let source = failed.server.server.source;
        let spares = |(slot, known): (usize, &ServerState)| {
            slot != key.slot()
                && known.server.server.source == source
                && !known.is_removed
                && known.rest.failures() == 0
        };
        let is_spared = self.servers.iter().enumerate().any(spares);
        let patience = self.settings.patience;
        if let Some(failed) = self.find(key).filter(|_| !stands) {
            let longest = patience.longest(is_spared);
            failed.rest.begin(patience.first, longest, now);
        }
        self.is_stale = true;
        is_spared
    }

    /// Records that a connection has ended as connections do, and gives back the right to it.
    pub fn disconnected(&mut self, key: ServerKey) {
        if let Some(known) = self.find(key) {
            known.connections = known.connections.saturating_sub(1);
        }
    }

    /// Records that a connection has broken, whatever the number of requests on it, and gives back the right to it.
    /// Returns why the server is ejected, if it is.
    pub fn broken(&mut self, key: ServerKey, now: Instant) -> Option<EjectionCause> {
        self.disconnected(key);
        self.judge(key, true, now)
    }

    /// Passes a server over for a while, until a connection stands, as long as there is another: it said that it closes
    /// its connection (GOAWAY), or has not taken a new one for the head start of an attempt.
    pub fn pass_over(&mut self, key: ServerKey, now: Instant) {
        let until = now + self.settings.pass_over;
        if let Some(known) = self.find(key) {
            known.pass_over(until);
            self.is_stale = true;
        }
    }

    /// Records what health checks say of a server.
    pub fn set_healthy(&mut self, key: ServerKey, is_healthy: bool, now: Instant) {
        if let Some(known) = self.find(key)
            && known.is_healthy != is_healthy
        {
            known.is_healthy = is_healthy;
            if is_healthy {
                known.returned(now);
            }
            self.is_stale = true;
        }
    }

    /// A server, if the pool still knows it.
    pub fn server(&self, key: ServerKey) -> Option<&PoolServer> {
        let found = self.servers.get(key.slot());
        let found = found.filter(|known| known.serial == key.serial && !known.is_free());
        found.map(|known| &known.server)
    }

    /// All servers, with what each is good for now and its requests in flight.
    pub fn servers(&self, now: Instant) -> impl Iterator<Item = (ServerKey, ServerCondition, u32)> {
        let known = self.servers.iter().enumerate();
        known
            .filter(|(_, known)| !known.is_free())
            .map(move |(slot, known)| {
                let key = ServerKey {
                    slot: slot as u32,
                    serial: known.serial,
                };
                (key, known.condition(now), known.in_flight)
            })
    }

    fn find(&mut self, key: ServerKey) -> Option<&mut ServerState> {
        let found = self.servers.get_mut(key.slot());
        found.filter(|known| known.serial == key.serial)
    }

    fn judge(&mut self, key: ServerKey, has_failed: bool, now: Instant) -> Option<EjectionCause> {
        let policy = self.settings.ejection?;
        let known = self.find(key)?;
        let cause = known.record.count(has_failed, &policy, now)?;
        if known.is_removed || known.record.is_ejected {
            return None;
        }
        for known in &mut self.servers {
            known.settle(now);
        }
        if self.ejected() >= self.ejected_max() {
            return None;
        }
        self.find(key)?.record.eject(&policy, now);
        self.is_stale = true;
        Some(cause)
    }

    /// How many servers may be ejected at once.
    fn ejected_max(&self) -> usize {
        let count = self.servers.iter().filter(|known| !known.is_removed);
        let percent = self.settings.ejection.map_or(0, |it| it.share_percent_max);
        let count = count.count();
        let share = count * percent.min(100) as usize / 100;
        share.min(count.saturating_sub(1))
    }

    fn ejected(&self) -> usize {
        let is_ejected = |known: &&ServerState| !known.is_removed && known.record.is_ejected;
        self.servers.iter().filter(is_ejected).count()
    }

    /// Takes servers back that are ejected beyond what may be, as servers or settings have changed: first those whose
    /// time ends first.
    fn limit_ejections(&mut self, now: Instant) {
        for known in &mut self.servers {
            known.settle(now);
        }
        while self.ejected() > self.ejected_max() {
            let ejected = self.servers.iter_mut();
            let ejected = ejected.filter(|known| !known.is_removed && known.record.is_ejected);
            if let Some(first) = ejected.min_by_key(|known| known.record.rest.until()) {
                first.take_back(now);
            }
        }
    }

    fn find_candidates(&mut self, now: Instant) {
        let retry = self.settings.patience.retry;
        for known in &mut self.servers {
            known.settle(now);
        }
        let ranks = self.servers.iter().map(|known| known.rank(retry, now));
        let best = ranks.flatten().min();
        self.candidates.clear();
        for (slot, known) in self.servers.iter().enumerate() {
            if best.is_some() && known.rank(retry, now) == best {
                self.candidates.push(slot as u32, known.server.weight);
            }
        }
        let changes = self.servers.iter();
        let changes = changes.filter_map(|known| known.changes_at(retry, now));
        self.changes_at = changes.min();
        self.is_stale = false;
    }

    fn is_tried(&self, slot: u32, wish: &Wish<'_>) -> bool {
        let serial = self.servers[slot as usize].serial;
        wish.tried.contains(&ServerKey { slot, serial })
    }

    fn can_take(&self, slot: u32, wish: &Wish<'_>) -> bool {
        self.servers[slot as usize].in_flight < self.settings.max_requests
            && !self.is_tried(slot, wish)
    }

    /// The less loaded of two by chance, or the least loaded of all if neither can take it.
    fn by_load(&self, wish: &Wish<'_>, now: Instant) -> Option<u32> {
        let (mut one, mut other) = self.candidates.two(wish.random)?;
        // A server in its slow start takes what chance has for it only by its share.
        let dice = wish.random & (server::WHOLE - 1);
        if self.share(one, now) <= dice {
            (one, other) = (other, one);
        }
        match (self.can_take(one, wish), self.can_take(other, wish)) {
            (true, true) if self.is_clearly_busier(one, other, now) => Some(other),
            (true, _) => Some(one),
            (false, true) => Some(other),
            (false, false) => self.least_loaded(wish, now),
        }
    }

    fn share(&self, slot: u32, now: Instant) -> u64 {
        self.servers[slot as usize].share(self.settings.slow_start, now)
    }

    /// What a server takes beside others: its weight, of which a slow start takes some.
    fn capacity(&self, slot: u32, now: Instant) -> u64 {
        u64::from(self.servers[slot as usize].server.weight.get()) * self.share(slot, now)
    }

    /// Whether one has more in flight for its capacity than the other. Servers of different capacity share a few requests
    /// rightly where one of them would be the busier one whichever got the last: that does not count.
    fn is_clearly_busier(&self, one: u32, other: u32, now: Instant) -> bool {
        let [in_flight, others] =
            [one, other].map(|slot| u64::from(self.servers[slot as usize].in_flight));
        let [capacity, others_capacity] = [one, other].map(|slot| self.capacity(slot, now));
        let tolerance = match capacity == others_capacity {
            true => 0,
            false => capacity + others_capacity,
        };
        in_flight * others_capacity > others * capacity + tolerance
    }

    fn least_loaded(&self, wish: &Wish<'_>, now: Instant) -> Option<u32> {
        let slots = self.candidates.from(wish.random);
        let slots = slots.filter(|slot| self.can_take(*slot, wish));
        slots.reduce(|best, slot| {
            let [load, best_load] = [slot, best].map(|slot| self.servers[slot as usize].in_flight);
            let [capacity, best_capacity] = [slot, best].map(|slot| self.capacity(slot, now));
            match u64::from(load) * best_capacity < u64::from(best_load) * capacity {
                true => slot,
                false => best,
            }
        })
    }

    /// The server that wants a key most, among those that can take it.
    fn by_key(&self, key: u64, wish: &Wish<'_>) -> Option<u32> {
        let slots = self.candidates.from(0);
        let slots = slots.filter(|slot| self.can_take(*slot, wish));
        let hash = |slot: u32| self.servers[slot as usize].hash;
        if !self.candidates.is_weighted() {
            return slots.max_by_key(|slot| affinity::score(key, hash(*slot)));
        }
        let scored = slots.map(|slot| {
            let weight = self.servers[slot as usize].server.weight;
            (affinity::weighted_score(key, hash(slot), weight), slot)
        });
        let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
        best.map(|(_, slot)| slot)
    }

    fn why_none(&self, wish: &Wish<'_>) -> NoServer {
        let mut servers = self.servers.iter().filter(|known| !known.is_removed);
        let Some(first) = servers.next() else {
            return NoServer::NoneKnown;
        };
        if !first.is_healthy && servers.all(|known| !known.is_healthy) {
            return NoServer::Unhealthy;
        }
        let mut slots = self.candidates.from(0).peekable();
        if slots.peek().is_none() {
            return NoServer::Down {
                again_at: self.changes_at,
            };
        }
        match slots.all(|slot| self.is_tried(slot, wish)) {
            true => NoServer::Exhausted,
            false => NoServer::Full,
        }
    }
}
