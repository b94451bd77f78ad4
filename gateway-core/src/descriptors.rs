//! Descriptors: limits the sockets of clients and servers over all workers, so that files and administration keep
//! some.
//! In: a budget; sockets that open and close. Out: a permit for each socket, or none for now. One atomic for all
//! workers, touched twice per connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The budget of descriptors for connections, shared by all workers.
///
/// A client needs a server soon after its accept: it counts twice until it has one. Further servers count by
/// themselves: those tried beside each other, or for clients that have gone.
#[derive(Debug, Clone)]
pub struct Descriptors(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Clients in the upper half, servers in the lower one.
    counts: AtomicU64,
    max: AtomicU32,
    missing: AtomicU64,
    waits: [AtomicU64; 2],
}

/// The side that a descriptor's socket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// An accepted client.
    Client,
    /// A server to connect to.
    Server,
}

impl Side {
    /// Both sides.
    pub const ALL: [Side; 2] = [Side::Client, Side::Server];
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
    clients: u32,
    servers: u32,
}

impl SocketCounts {
    fn unpack(packed: u64) -> Self {
        SocketCounts {
            clients: (packed >> 32) as u32,
            servers: packed as u32,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.clients) << 32 | u64::from(self.servers)
    }

    /// Descriptors that they take now or soon.
    fn committed(self) -> u64 {
        u64::from(self.clients) + u64::from(self.clients.max(self.servers))
    }

    fn with(self, side: Side, max: u32) -> Option<Self> {
        let next = match side {
            Side::Client => SocketCounts {
                clients: self.clients.checked_add(1)?,
                ..self
            },
            Side::Server => SocketCounts {
                servers: self.servers.checked_add(1)?,
                ..self
            },
        };
        // A promise holds even if the budget has shrunk since.
        let is_promised = next.committed() == self.committed();
        (is_promised || next.committed() <= u64::from(max)).then_some(next)
    }

    fn without(self, side: Side) -> Self {
        match side {
            Side::Client => SocketCounts {
                clients: self.clients.saturating_sub(1),
                ..self
            },
            Side::Server => SocketCounts {
                servers: self.servers.saturating_sub(1),
                ..self
            },
        }
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
