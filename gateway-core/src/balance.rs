//! Balancing: chooses the server for the next connection, and rests servers that failed. Backups come last.
//! In: resolved addresses, outcomes of attempts, now. Out: the server to try next. One per backend and worker, kept
//! over reloads. Workers share nothing: each finds a dead server by itself.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::rest::Rest;

/// An address of a backend, and its server in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Position of the server in the configuration. All addresses of one name share it.
    pub source: usize,
    /// The address.
    pub address: Endpoint,
    /// Its share, where that comes with the address; else the configuration says it.
    pub share: Option<ServerShare>,
}

/// The share of connections or requests that a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerShare {
    /// Its part of the sum of all weights.
    pub weight: NonZeroU32,
    /// It takes some only while no other server can take any.
    pub is_backup: bool,
}

impl Default for ServerShare {
    fn default() -> Self {
        ServerShare {
            weight: NonZeroU32::MIN,
            is_backup: false,
        }
    }
}

/// How long failed servers rest, and how long attempts may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Rest after the first failure; it doubles with each further one.
    pub first: Duration,
    /// Maximum rest.
    pub longest: Duration,
    /// Maximum rest of an address while another address of the same name answers: it may never have been one of the
    /// server's.
    pub longest_beside: Duration,
    /// If all servers have failed, the rest of each ends after this time.
    pub retry: Duration,
    /// An attempt without an answer after this time gets another one beside it (RFC 8305 section 5), or after twice
    /// the usual time to connect ...
    pub head_start: Duration,
    /// ... which counts up to this time.
    pub head_start_max: Duration,
}

/// Round robin over the servers of one backend, without those that rest.
#[derive(Debug)]
pub struct Balance {
    patience: Patience,
    known: Vec<AddressState>,
    /// The position at which the next turn begins.
    next: usize,
    /// The usual time to connect.
    usual: Duration,
}

#[derive(Debug)]
struct AddressState {
    server: Server,
    /// Its rest for the failures since it was last reached.
    rest: Rest,
    /// A connection is trying it.
    is_probed: bool,
    /// Its last attempt took longer than the usual time to connect.
    is_slow: bool,
}

/// One connection's turn through the servers.
#[derive(Debug, Default)]
pub struct Turn {
    tried: Vec<Server>,
}

/// What a connection does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try this server next.
    Try(Endpoint),
    /// Other connections are trying the remaining servers: ask again in a moment.
    Wait,
    /// Every server has failed, for this connection or just now for another.
    Exhausted,
}

impl Balance {
    /// A backend without servers. Its turns begin at `random`, so that workers begin with different servers.
    pub fn new(patience: Patience, random: usize) -> Self {
        Balance {
            patience,
            known: Vec::new(),
            next: random,
            usual: Duration::ZERO,
        }
    }

    /// Replaces the servers; those that stay keep their state.
    pub fn replace(&mut self, servers: &[Server]) {
        let mut before = std::mem::take(&mut self.known);
        let known = |server: &Server| {
            let position = before
                .iter()
                .position(|known| known.server.address == server.address);
            let known = position.map(|position| before.swap_remove(position));
            known.map_or_else(
                || AddressState::new(*server),
                |known| AddressState {
                    server: *server,
                    ..known
                },
            )
        };
        self.known = servers.iter().map(known).collect();
    }

    /// Keeps only the addresses that `may_stay`.
    pub fn retain(&mut self, may_stay: impl Fn(Endpoint) -> bool) {
        self.known.retain(|known| may_stay(known.server.address));
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = Server> {
        self.known.iter().map(|known| known.server)
    }

    /// Number of servers.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// The time that an attempt has before another one starts beside it.
    pub fn head_start(&self) -> Duration {
        let twice = self.usual * 2;
        twice.clamp(self.patience.head_start, self.patience.head_start_max)
    }

    /// The next step of a connection at this point of its `turn`.
    pub fn next(&mut self, turn: &mut Turn, now: Instant) -> Next {
        let count = self.known.len();
        let rank = |position: usize| {
            let known = &self.known[position];
            let is_tried = |tried: &Server| tried.address == known.server.address;
            if turn.tried.iter().any(is_tried) {
                return None;
            }
            let rank = known.rank(&self.patience, now)?;
            Some((rank, !turn.prefers(&known.server)))
        };
        let in_turn = (0..count).map(|offset| self.next.wrapping_add(offset) % count);
        let ranked = in_turn.filter_map(|position| Some((rank(position)?, position)));
        let best = ranked.min_by_key(|(rank, _)| *rank);
        let Some((_, position)) = best else {
            let is_awaited = |known: &AddressState| {
                let is_tried = |tried: &Server| tried.address == known.server.address;
                known.is_probed && !turn.tried.iter().any(is_tried)
            };
            return match self.known.iter().any(is_awaited) {
                true => Next::Wait,
                false => Next::Exhausted,
            };
        };
        let known = &mut self.known[position];
        known.is_probed = known.rest.failures() > 0;
        let server = known.server;
        if turn.tried.is_empty() {
            self.next = position + 1;
        }
        turn.tried.push(server);
        Next::Try(server.address)
    }

    /// Records that an attempt at `address` has used up its time without an answer.
    pub fn slow(&mut self, address: Endpoint) {
        if let Some(known) = self.find(address) {
            known.is_slow = true;
        }
    }

    /// Records that `address` could not be reached. Returns whether another address of the same name can be.
    pub fn failed(&mut self, address: Endpoint, now: Instant) -> bool {
        let Some(failed) = self.find(address).map(|known| known.server) else {
            return false;
        };
        let serves = |known: &AddressState| {
            known.server.source == failed.source && known.rest.failures() == 0
        };
        let is_spared = self
            .known
            .iter()
            .any(|known| known.server.address != address && serves(known));
        let (first, longest) = (self.patience.first, self.patience.longest(is_spared));
        if let Some(known) = self.find(address) {
            known.rest.begin(first, longest, now);
            known.is_probed = false;
            known.is_slow = false;
        }
        is_spared
    }

    /// Records that `address` has answered, after `took`. It no longer counts as slow, whatever happens to the
    /// connection.
    pub fn connected(&mut self, address: Endpoint, took: Duration) {
        // A moving mean.
        self.usual = (self.usual * 7 + took) / 8;
        if let Some(known) = self.find(address) {
            known.is_slow = false;
        }
    }

    /// Position of this address's server in the configuration, if it is known.
    pub fn source_of(&self, address: Endpoint) -> Option<usize> {
        let mut known = self.known.iter();
        let found = known.find(|known| known.server.address == address)?;
        Some(found.server.source)
    }

    /// Records that `address` has been reached.
    pub fn succeeded(&mut self, address: Endpoint) {
        if let Some(known) = self.find(address) {
            *known = AddressState::new(known.server);
        }
    }

    /// Records that an attempt at `address` has ended without a result.
    pub fn given_up(&mut self, address: Endpoint) {
        if let Some(known) = self.find(address) {
            known.is_probed = false;
        }
    }

    fn find(&mut self, address: Endpoint) -> Option<&mut AddressState> {
        self.known
            .iter_mut()
            .find(|known| known.server.address == address)
    }
}

impl AddressState {
    fn new(server: Server) -> Self {
        AddressState {
            server,
            rest: Rest::default(),
            is_probed: false,
            is_slow: false,
        }
    }

    /// How good a choice it is, best first; `None` if it is not one now.
    fn rank(&self, patience: &Patience, now: Instant) -> Option<(u8, Option<Instant>)> {
        if self.is_probed {
            return None;
        }
        let is_backup = self.server.share.is_some_and(|share| share.is_backup);
        let backup = if is_backup { 2 } else { 0 };
        if self.is_slow {
            return Some((backup + 1, None));
        }
        if self.rest.is_over(now) {
            return Some((backup, None));
        }
        let may_retry = self.rest.retry_at(patience.retry) <= Some(now);
        may_retry.then_some((4, self.rest.until()))
    }
}

impl Patience {
    /// Maximum rest of a server. `is_spared`: another address of the same name answers.
    pub(crate) fn longest(&self, is_spared: bool) -> Duration {
        match is_spared {
            true => self.longest_beside,
            false => self.longest,
        }
    }
}

impl Turn {
    /// The next address after one of a name: of the same name and the other family (RFC 8305 section 4).
    fn prefers(&self, server: &Server) -> bool {
        let family = |server: &Server| match server.address {
            Endpoint::Ip(address) => Some(address.is_ipv4()),
            Endpoint::Unix(_) => None,
        };
        self.tried
            .last()
            .is_some_and(|last| last.source == server.source && family(last) != family(server))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        first: Duration::from_secs(5),
        longest: Duration::from_secs(60),
        longest_beside: Duration::from_secs(600),
        retry: Duration::from_millis(250),
        head_start: Duration::from_millis(250),
        head_start_max: Duration::from_secs(2),
    };

    fn address(port: u16) -> Endpoint {
        SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    fn server(port: u16) -> Server {
        Server {
            source: usize::from(port),
            address: address(port),
            share: None,
        }
    }

    fn balance(ports: impl IntoIterator<Item = u16>, random: usize) -> Balance {
        let mut balance = Balance::new(PATIENCE, random);
        balance.replace(&ports.into_iter().map(server).collect::<Vec<_>>());
        balance
    }

    fn first(balance: &mut Balance, now: Instant) -> Next {
        balance.next(&mut Turn::default(), now)
    }

    fn firsts(balance: &mut Balance, count: usize, now: Instant) -> Vec<u16> {
        let mut ports = Vec::new();
        for _ in 0..count {
            match first(balance, now) {
                Next::Try(Endpoint::Ip(address)) => ports.push(address.port()),
                other => panic!("{other:?}"),
            }
        }
        ports
    }

    #[test]
    fn servers_take_turns_from_where_chance_has_it() {
        let now = Instant::now();
        assert_eq!(firsts(&mut balance(1..=3, 0), 6, now), [1, 2, 3, 1, 2, 3]);
        assert_eq!(firsts(&mut balance(1..=3, 2), 4, now), [3, 1, 2, 3]);
        assert_eq!(firsts(&mut balance(1..=3, usize::MAX), 3, now).len(), 3);
    }

    #[test]
    fn every_server_is_tried_once_and_then_nobody_is_left() {
        let now = Instant::now();
        let mut balance = balance(1..=3, 1);
        let mut turn = Turn::default();
        let tried: Vec<_> = (0..4).map(|_| balance.next(&mut turn, now)).collect();
        let expected = [2, 3, 1].map(|port| Next::Try(address(port)));
        assert_eq!(tried[..3], expected);
        assert_eq!(tried[3], Next::Exhausted);
        assert_eq!(first(&mut Balance::new(PATIENCE, 7), now), Next::Exhausted);
    }

    #[test]
    fn a_failed_server_is_passed_over_longer_each_time_and_probed_by_one_connection() {
        let mut now = Instant::now();
        let mut balance = balance(1..=3, 0);
        for wait in [5, 10, 20, 40, 60, 60] {
            balance.failed(address(1), now);
            // Those that are left still share evenly.
            assert_eq!(
                firsts(&mut balance, 4, now)
                    .iter()
                    .filter(|port| **port == 2)
                    .count(),
                2
            );
            now += Duration::from_secs(wait) - Duration::from_millis(1);
            assert!(!firsts(&mut balance, 6, now).contains(&1), "after {wait}");
            now += Duration::from_millis(1);
            let probed = firsts(&mut balance, 9, now);
            assert_eq!(
                probed.iter().filter(|port| **port == 1).count(),
                1,
                "{probed:?}"
            );
        }
        balance.succeeded(address(1));
        assert_eq!(
            firsts(&mut balance, 9, now)
                .iter()
                .filter(|port| **port == 1)
                .count(),
            3
        );
    }

    #[test]
    fn where_all_have_failed_each_is_tried_again_by_one_connection_at_a_time() {
        let now = Instant::now();
        let mut balance = balance(1..=2, 0);
        balance.failed(address(1), now);
        balance.failed(address(2), now);
        assert_eq!(
            first(&mut balance, now),
            Next::Exhausted,
            "both failed just now"
        );
        let later = now + PATIENCE.retry;
        let (mut one, mut other) = (Turn::default(), Turn::default());
        assert!(matches!(balance.next(&mut one, later), Next::Try(_)));
        assert!(matches!(balance.next(&mut other, later), Next::Try(_)));
        assert_eq!(balance.next(&mut one, later), Next::Wait);
        balance.given_up(address(1));
        balance.succeeded(address(2));
        assert_eq!(first(&mut balance, later), Next::Try(address(2)));
    }

    #[test]
    fn a_slow_server_is_chosen_only_if_no_other_is_there() {
        let now = Instant::now();
        let mut balance = balance(1..=2, 0);
        balance.slow(address(1));
        assert_eq!(firsts(&mut balance, 3, now), [2, 2, 2]);
        balance.failed(address(2), now);
        assert_eq!(firsts(&mut balance, 2, now), [1, 1]);
    }

    #[test]
    fn a_slow_server_that_answers_is_in_use_again_even_if_its_attempt_is_given_up() {
        let now = Instant::now();
        let mut balance = balance(1..=2, 0);
        balance.slow(address(1));
        balance.connected(address(1), PATIENCE.head_start * 2);
        balance.given_up(address(1));
        assert_eq!(firsts(&mut balance, 4, now), [1, 2, 1, 2]);
    }

    #[test]
    fn a_backup_is_chosen_while_no_other_server_can_be() {
        let now = Instant::now();
        let backup = Server {
            share: Some(ServerShare {
                is_backup: true,
                ..ServerShare::default()
            }),
            ..server(1)
        };
        let mut balance = Balance::new(PATIENCE, 0);
        balance.replace(&[backup, server(2)]);
        assert_eq!(firsts(&mut balance, 2, now), [2, 2]);
        balance.slow(address(2));
        assert_eq!(firsts(&mut balance, 2, now), [2, 2]);
        balance.failed(address(2), now);
        assert_eq!(firsts(&mut balance, 2, now), [1, 1]);
        balance.failed(address(1), now);
        let later = now + PATIENCE.retry;
        assert!(matches!(first(&mut balance, later), Next::Try(_)));
    }

    #[test]
    fn after_one_family_of_a_name_comes_the_other() {
        let now = Instant::now();
        let of_name = |text: &str| Server {
            source: 0,
            address: Endpoint::Ip(text.parse().expect("an address")),
            share: None,
        };
        let mut balance = Balance::new(PATIENCE, 0);
        let known = [
            of_name("[::1]:1"),
            of_name("[::2]:1"),
            server(9),
            of_name("127.0.0.1:1"),
        ];
        balance.replace(&known);
        let mut turn = Turn::default();
        assert_eq!(balance.next(&mut turn, now), Next::Try(known[0].address));
        assert_eq!(balance.next(&mut turn, now), Next::Try(known[3].address));
    }

    #[test]
    fn an_address_that_never_answers_stays_out_for_longer_while_another_of_its_name_serves() {
        let mut now = Instant::now();
        let mut balance = Balance::new(PATIENCE, 0);
        let [dead, alive] = ["[::1]:1", "127.0.0.1:1"].map(|text| Server {
            source: 0,
            address: Endpoint::Ip(text.parse().expect("an address")),
            share: None,
        });
        balance.replace(&[dead, alive]);
        let mut failures = 0;
        let end = now + Duration::from_secs(3600);
        while now < end {
            if first(&mut balance, now) == Next::Try(dead.address) {
                assert!(balance.failed(dead.address, now), "the other one serves");
                failures += 1;
            }
            now += Duration::from_secs(1);
        }
        assert!(failures < 14, "{failures} in an hour");
    }

    #[test]
    fn new_addresses_are_used_and_what_is_known_of_old_ones_is_kept() {
        let now = Instant::now();
        let mut balance = balance(1..=2, 0);
        balance.failed(address(2), now);
        balance.replace(&[server(2), server(3)]);
        assert_eq!(firsts(&mut balance, 3, now), [3, 3, 3]);
        balance.replace(&[]);
        assert_eq!(first(&mut balance, now), Next::Exhausted);
    }

    #[test]
    fn an_attempt_has_twice_what_connecting_takes_as_a_rule() {
        let mut balance = balance(1..=1, 0);
        assert_eq!(balance.head_start(), PATIENCE.head_start);
        for _ in 0..100 {
            balance.connected(address(1), Duration::from_millis(300));
        }
        assert!(balance.head_start() > Duration::from_millis(550));
        for _ in 0..100 {
            balance.connected(address(1), Duration::from_secs(9));
        }
        assert_eq!(balance.head_start(), PATIENCE.head_start_max);
    }

    proptest! {
        /// In every sequence of events, one connection at a time tries a server in doubt, every connection finds a
        /// server that was never in doubt, and every turn ends.
        #[test]
        fn a_server_in_doubt_is_tried_by_one_and_a_good_one_by_all(
            steps in proptest::collection::vec((0u16..6, any::<bool>(), 0u64..8), 1..200),
            up in 0u16..6,
            random in any::<usize>(),
        ) {
            let mut now = Instant::now();
            let mut balance = balance(0..6, random);
            let mut in_doubt = HashSet::new();
            let mut open: Vec<Endpoint> = Vec::new();
            for (number, settle, seconds) in steps {
                now += Duration::from_secs(seconds);
                if settle && !open.is_empty() {
                    let address = open.remove(usize::from(number) % open.len());
                    if address == self::address(up) {
                        balance.succeeded(address);
                    } else {
                        balance.failed(address, now);
                        in_doubt.insert(address);
                        open.retain(|other| *other != address);
                    }
                    continue;
                }
                let mut turn = Turn::default();
                let mut found = false;
                for _ in 0..7 {
                    match balance.next(&mut turn, now) {
                        Next::Try(address) => {
                            let is_open = open.contains(&address);
                            prop_assert!(!(is_open && in_doubt.contains(&address)), "{address}");
                            found |= address == self::address(up);
                            open.push(address);
                        }
                        Next::Wait | Next::Exhausted => break,
                    }
                }
                prop_assert!(found, "the one that is up was not tried");
            }
        }
    }
}
