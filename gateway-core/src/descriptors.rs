//! Descriptors: limits the sockets of clients and servers over all workers, so that files and administration keep
//! some.
//! In: a budget; sockets that open and close. Out: a permit for each socket, or none for now. One atomic for all
//! workers, touched twice per connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::http::limits::HTTP_CLIENTS_PER_SERVER;

/// The budget of descriptors for connections, shared by all workers.
///
/// A client in mode `stream` needs a server soon after its accept: it counts twice until it has one. Clients in mode
/// `http` share the connections to servers: [so many](HTTP_CLIENTS_PER_SERVER) of them count for one. Further servers
/// count by themselves: those tried beside each other, or for clients that have gone.
#[derive(Debug, Clone)]
pub struct Descriptors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// See `SocketCounts::pack`.
    counts: AtomicU64,
    max: AtomicU32,
    missing: AtomicU64,
    waits: [AtomicU64; Side::ALL.len()],
}

/// The side that a descriptor's socket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An accepted client of a listener in mode `stream`.
    Client,
    /// An accepted client of a listener in mode `http`.
    HttpClient,
    /// A server to connect to.
    Server,
}

impl Side {
    /// All of them.
    pub const ALL: [Side; 3] = [Side::Client, Side::HttpClient, Side::Server];
}

/// The right to hold one socket; released when dropped.
#[derive(Debug)]
pub struct Descriptor {
    shared: Arc<Shared>,
    side: Side,
}

/// Number of sockets of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketCounts {
    clients: u64,
    http_clients: u64,
    servers: u64,
}

impl SocketCounts {
    /// Bits of each count: two million sockets.
    const BITS: u32 = 21;
    const MAX: u64 = (1 << Self::BITS) - 1;

    fn unpack(packed: u64) -> Self {
        SocketCounts {
            clients: packed >> (2 * Self::BITS),
            http_clients: packed >> Self::BITS & Self::MAX,
            servers: packed & Self::MAX,
        }
    }

    fn pack(self) -> u64 {
        self.clients << (2 * Self::BITS) | self.http_clients << Self::BITS | self.servers
    }

    /// Descriptors that they take now or soon.
    fn committed(self) -> u64 {
        let promised = self.clients + self.http_clients.div_ceil(HTTP_CLIENTS_PER_SERVER);
        self.clients + self.http_clients + promised.max(self.servers)
    }

    fn of(&mut self, side: Side) -> &mut u64 {
        match side {
            Side::Client => &mut self.clients,
            Side::HttpClient => &mut self.http_clients,
            Side::Server => &mut self.servers,
        }
    }

    fn with(self, side: Side, max: u32) -> Option<Self> {
        let mut next = self;
        *next.of(side) += 1;
        if *next.of(side) > Self::MAX {
            return None;
        }
        // A promise holds even if the budget has shrunk since.
        let is_promised = next.committed() == self.committed();
        (is_promised || next.committed() <= u64::from(max)).then_some(next)
    }

    fn without(mut self, side: Side) -> Self {
        let count = self.of(side);
        *count = count.saturating_sub(1);
        self
    }
}

impl Descriptors {
    /// A budget of `max` descriptors.
    pub fn new(max: u32) -> Self {
        Descriptors(Arc::new(Shared {
            counts: AtomicU64::new(0),
            max: AtomicU32::new(max),
            missing: AtomicU64::new(0),
            waits: Default::default(),
        }))
    }

    /// Changes the budget. Permits stay valid.
    pub fn set_max(&self, max: u32) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// Takes a descriptor; `None` if none is free.
    pub fn try_take(&self, side: Side) -> Option<Descriptor> {
        let max = self.0.max.load(Ordering::Relaxed);
        let with = |packed| Some(SocketCounts::unpack(packed).with(side, max)?.pack());
        let counts = &self.0.counts;
        counts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with)
            .ok()?;
        Some(Descriptor {
            shared: Arc::clone(&self.0),
            side,
        })
    }

    /// SocketCounts a client or server that waits for a descriptor.
    pub fn count_wait(&self, side: Side) {
        self.0.waits[side as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of clients or servers that have waited so far.
    pub fn waits(&self, side: Side) -> u64 {
        self.0.waits[side as usize].load(Ordering::Relaxed)
    }

    /// Descriptors that are taken, or promised to connected clients.
    pub fn used(&self) -> u64 {
        SocketCounts::unpack(self.0.counts.load(Ordering::Relaxed)).committed()
    }

    /// Sets how many of the descriptors reserved for administration are missing.
    pub fn set_missing(&self, missing: u64) {
        self.0.missing.store(missing, Ordering::Relaxed);
    }

    /// Descriptors reserved for administration that are missing, because the process's limit has shrunk.
    pub fn missing(&self) -> u64 {
        self.0.missing.load(Ordering::Relaxed)
    }

    /// The budget.
    pub fn max(&self) -> u32 {
        self.0.max.load(Ordering::Relaxed)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let without = |packed| Some(SocketCounts::unpack(packed).without(self.side).pack());
        // It never says no.
        let counts = &self.shared.counts;
        let _ = counts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, without);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(of: &Descriptors, side: Side, count: usize) -> Vec<Descriptor> {
        std::iter::from_fn(|| of.try_take(side))
            .take(count)
            .collect()
    }

    #[test]
    fn a_client_is_let_in_only_where_a_server_finds_room_too() {
        let all = Descriptors::new(7);
        let clients = take(&all, Side::Client, 100);
        assert_eq!((clients.len(), all.used()), (3, 6));
        // Each of them has its server, and one more may be tried beside another.
        let servers = take(&all, Side::Server, 100);
        assert_eq!((servers.len(), all.used()), (4, 7));
        drop(servers);
        assert_eq!(all.used(), 6);
        drop(clients);
        assert_eq!(all.used(), 0);
    }

    #[test]
    fn eight_clients_of_http_keep_room_for_one_server() {
        let all = Descriptors::new(20);
        let clients = take(&all, Side::HttpClient, 100);
        // Seventeen of them are promised three servers.
        assert_eq!((clients.len(), all.used()), (17, 20));
        assert!(all.try_take(Side::Client).is_none());
        let servers = take(&all, Side::Server, 100);
        assert_eq!((servers.len(), all.used()), (3, 20));
        drop((clients, servers));
        assert_eq!(all.used(), 0);
    }

    #[test]
    fn servers_of_clients_that_have_gone_keep_new_clients_out_until_they_go() {
        let all = Descriptors::new(4);
        let clients = take(&all, Side::Client, 2);
        let servers = take(&all, Side::Server, 2);
        drop(clients);
        assert_eq!(all.used(), 2);
        // Two servers are there: each of these is promised one of them.
        assert_eq!(take(&all, Side::Client, 100).len(), 2);
        let clients = take(&all, Side::Client, 2);
        assert!(all.try_take(Side::Server).is_none());
        drop(servers);
        assert_eq!(take(&all, Side::Server, 100).len(), 2);
        drop(clients);
    }

    #[test]
    fn what_was_promised_is_kept_when_the_budget_becomes_smaller() {
        let all = Descriptors::new(4);
        let clients = take(&all, Side::Client, 2);
        all.set_max(0);
        assert!(all.try_take(Side::Client).is_none());
        let servers = take(&all, Side::Server, 100);
        assert_eq!(servers.len(), 2);
        drop((clients, servers));
        assert!(all.try_take(Side::Server).is_none());
    }

    #[test]
    fn the_budget_holds_over_threads_and_comes_back() {
        let all = Descriptors::new(100);
        let held: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| take(&all, Side::Client, 1000)))
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!((held.len(), all.used()), (50, 100));
        drop(held);
        assert_eq!(all.used(), 0);
    }
}
