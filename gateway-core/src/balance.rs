//! Balancing: which server of a backend gets the next connection.
//! In: the addresses that names resolved to, outcomes of attempts, now. Out: the servers to try, in order. One per
//! backend and worker; nothing is shared, so each worker learns of a dead server by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// An address of a backend, with the server of the configuration that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Position among the backend's servers as written. Addresses of one name share it.
    pub source: usize,
    /// The address.
    pub address: SocketAddr,
}

/// Round robin over the servers of one backend, passing over those that just failed.
#[derive(Debug)]
pub struct Balance {
    servers: Vec<Known>,
    next: usize,
    cool_down: Duration,
}

#[derive(Debug)]
struct Known {
    address: SocketAddr,
    failed_at: Option<Instant>,
}

impl Balance {
    /// A backend without servers yet. A server that failed is passed over for `cool_down`, unless all failed.
    pub fn new(cool_down: Duration) -> Self {
        Balance {
            servers: Vec::new(),
            next: 0,
            cool_down,
        }
    }

    /// Takes the addresses to use from now on; what is known of those that stay is kept.
    pub fn replace(&mut self, servers: &[Server]) {
        let failed_at = |address: &SocketAddr| {
            self.servers
                .iter()
                .find(|server| server.address == *address)
                .and_then(|server| server.failed_at)
        };
        self.servers = servers
            .iter()
            .map(|server| Known {
                address: server.address,
                failed_at: failed_at(&server.address),
            })
            .collect();
    }

    /// Keeps only those of the addresses that `may_stay`.
    pub fn retain(&mut self, may_stay: impl Fn(SocketAddr) -> bool) {
        self.servers.retain(|server| may_stay(server.address));
    }

    /// The servers to try for one connection: the next in turn first, those that failed lately last.
    pub fn candidates(&mut self, now: Instant) -> Vec<SocketAddr> {
        let count = self.servers.len();
        if count == 0 {
            return Vec::new();
        }
        let first = self.next % count;
        self.next = first + 1;
        let in_turn = (0..count).map(|offset| &self.servers[(first + offset) % count]);
        let cooling = |server: &&Known| {
            server
                .failed_at
                .is_some_and(|failed_at| now.saturating_duration_since(failed_at) < self.cool_down)
        };
        let (failed, good): (Vec<_>, Vec<_>) = in_turn.partition(cooling);
        good.into_iter()
            .chain(failed)
            .map(|server| server.address)
            .collect()
    }

    /// Remembers that `address` could not be reached.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) {
        self.set_failed_at(address, Some(now));
    }

    /// Remembers that `address` could be reached.
    pub fn succeeded(&mut self, address: SocketAddr) {
        self.set_failed_at(address, None);
    }

    fn set_failed_at(&mut self, address: SocketAddr, failed_at: Option<Instant>) {
        for server in self
            .servers
            .iter_mut()
            .filter(|server| server.address == address)
        {
            server.failed_at = failed_at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn server(port: u16) -> Server {
        Server {
            source: 0,
            address: address(port),
        }
    }

    fn balance(ports: &[u16]) -> Balance {
        let mut balance = Balance::new(Duration::from_secs(5));
        balance.replace(&ports.iter().map(|port| server(*port)).collect::<Vec<_>>());
        balance
    }

    #[test]
    fn servers_take_turns_and_every_one_is_a_candidate() {
        let now = Instant::now();
        let mut balance = balance(&[1, 2, 3]);
        let firsts: Vec<_> = (0..6).map(|_| balance.candidates(now)[0].port()).collect();
        assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
        assert_eq!(balance.candidates(now).len(), 3);
    }

    #[test]
    fn a_failed_server_comes_last_until_it_has_cooled_down_or_answered() {
        let now = Instant::now();
        let mut balance = balance(&[1, 2]);
        balance.failed(address(1), now);
        for _ in 0..4 {
            assert_eq!(balance.candidates(now), [address(2), address(1)]);
        }
        let later = now + Duration::from_secs(5);
        let firsts: Vec<_> = (0..2)
            .map(|_| balance.candidates(later)[0].port())
            .collect();
        assert!(firsts.contains(&1), "{firsts:?}");
        balance.failed(address(1), later);
        balance.succeeded(address(1));
        let firsts: Vec<_> = (0..2)
            .map(|_| balance.candidates(later)[0].port())
            .collect();
        assert!(firsts.contains(&1), "{firsts:?}");
    }

    #[test]
    fn new_addresses_are_used_and_what_is_known_of_old_ones_is_kept() {
        let now = Instant::now();
        let mut balance = balance(&[1, 2]);
        balance.failed(address(2), now);
        balance.replace(&[server(2), server(3)]);
        assert_eq!(balance.candidates(now), [address(3), address(2)]);
        balance.replace(&[]);
        assert!(balance.candidates(now).is_empty());
    }
}
