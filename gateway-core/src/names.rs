//! Names of backends: which to resolve and when, and the servers of each backend.
//! In: backends, answers of the resolver, now. Out: names that are due, servers. Sends no query itself. One per
//! process; it outlives reloads, so a resolved name stays resolved while the resolver is silent.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::balance::{Server, ServerShare};
use crate::endpoint::Endpoint;

/// A DNS name, and what of it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// The addresses of a host, all with one port.
    Host {
        /// DNS name.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The records of a service (RFC 2782), such as `_otlp._tcp.example.org`, and the addresses of their hosts.
    Service(String),
}

/// What precedes the name of a service, where it is written.
pub const SERVICE_PREFIX: &str = "srv:";

/// An address that was found for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolved {
    /// The address.
    pub address: SocketAddr,
    /// What the record of a service says of it.
    pub record: Option<ServiceRecord>,
}

/// What the record of a service says of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    /// Those of the lowest priority come first.
    pub priority: u16,
    /// Its share among those of its priority.
    pub weight: u16,
}

impl From<SocketAddr> for Resolved {
    fn from(address: SocketAddr) -> Self {
        Resolved {
            address,
            record: None,
        }
    }
}

/// A server of the configuration: an address, or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A server that is found without asking.
    Address(Endpoint),
    /// A name, resolved off the workers.
    Name(Name),
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Host { host, port } => write!(formatter, "{host}:{port}"),
            Name::Service(service) => write!(formatter, "{SERVICE_PREFIX}{service}"),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Address(address) => address.fmt(formatter),
            ServerAddress::Name(name) => name.fmt(formatter),
        }
    }
}

/// The servers of one backend, as in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Servers, in the order of the file.
    pub servers: Vec<ServerAddress>,
    /// Whether addresses must be this host's: the backend may use plaintext only because its names are. Other
    /// addresses are ignored.
    pub is_loopback_only: bool,
}

/// When to resolve names.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Time after an answer.
    pub interval: Duration,
    /// Time after the first failure; it doubles with each further one, up to `interval`.
    pub retry: Duration,
    /// A query that takes longer counts as a failure; its answer is still used.
    pub patience: Duration,
    /// Maximum of open queries.
    pub open_max: usize,
}

/// What an answer, or a missing one, has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing to report.
    Nothing,
    /// The name no longer resolves, or the first query for it has failed.
    Lost,
    /// The name resolves again.
    Found,
}

/// The names of all backends and their state.
#[derive(Debug)]
pub struct Names {
    schedule: Schedule,
    backends: Vec<Backend>,
    known: BTreeMap<Name, NameState>,
}

#[derive(Debug)]
struct NameState {
    /// The addresses of the last good answer.
    addresses: Vec<Resolved>,
    /// Whether a backend of the present configuration has it.
    is_used: bool,
    next_at: Instant,
    /// Start of the open query.
    asked_at: Option<Instant>,
    /// Whether the open query has counted as a failure.
    is_overdue: bool,
    failures: u32,
    /// Whether a query has been answered or has failed.
    is_settled: bool,
}

impl Names {
    /// No backends yet.
    pub fn new(schedule: Schedule) -> Self {
        Names {
            schedule,
            backends: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    /// Replaces the backends. New names are due at once; other names keep their state.
    pub fn follow(&mut self, backends: Vec<Backend>, now: Instant) {
        for known in self.known.values_mut() {
            known.is_used = false;
        }
        for server in backends.iter().flat_map(|backend| &backend.servers) {
            if let ServerAddress::Name(name) = server {
                self.known
                    .entry(name.clone())
                    .or_insert(NameState {
                        addresses: Vec::new(),
                        is_used: true,
                        next_at: now,
                        asked_at: None,
                        is_overdue: false,
                        failures: 0,
                        is_settled: false,
                    })
                    .is_used = true;
            }
        }
        // An open query keeps its entry, or a second one would start beside it.
        self.known
            .retain(|_, known| known.is_used || known.asked_at.is_some());
        self.backends = backends;
    }

    /// The names to query now. Each is open until `answered`.
    pub fn due(&mut self, now: Instant) -> Vec<Name> {
        let room = self.room();
        let is_due =
            |known: &NameState| known.is_used && known.asked_at.is_none() && known.next_at <= now;
        let due = self.known.iter_mut().filter(|(_, known)| is_due(known));
        due.take(room)
            .map(|(name, known)| {
                known.asked_at = Some(now);
                known.is_overdue = false;
                name.clone()
            })
            .collect()
    }

    /// Number of further queries that may be open.
    fn room(&self) -> usize {
        let open = self.known.values().filter(|known| known.asked_at.is_some());
        self.schedule.open_max.saturating_sub(open.count())
    }

    /// The names whose queries have just taken too long, with the change for the log.
    pub fn overdue(&mut self, now: Instant) -> Vec<(Name, Change)> {
        let patience = self.schedule.patience;
        let is_overdue = |known: &NameState| {
            let since = |asked_at| now.saturating_duration_since(asked_at);
            !known.is_overdue && known.asked_at.is_some_and(|at| since(at) >= patience)
        };
        let overdue = self.known.iter_mut().filter(|(_, known)| is_overdue(known));
        overdue
            .map(|(name, known)| {
                known.is_overdue = true;
                (name.clone(), known.failed())
            })
            .collect()
    }

    /// Takes the resolver's answer for a name, `None` if it had none. Returns the change for the log.
    pub fn answered(&mut self, name: &Name, found: Option<Vec<Resolved>>, now: Instant) -> Change {
        let Some(known) = self.known.get_mut(name) else {
            return Change::Nothing;
        };
        known.asked_at = None;
        if !known.is_used {
            self.known.remove(name);
            return Change::Nothing;
        }
        let Some(mut found) = found else {
            let change = match known.is_overdue {
                // Has counted as a failure already.
                true => Change::Nothing,
                false => known.failed(),
            };
            let doublings = known.failures.saturating_sub(1).min(16);
            let wait = self.schedule.retry.saturating_mul(1 << doublings);
            known.next_at = now + wait.min(self.schedule.interval);
            return change;
        };
        // Sorted, so that an unchanged answer compares as equal.
        found.sort_unstable();
        found.dedup();
        known.addresses = found;
        known.next_at = now + self.schedule.interval;
        known.is_settled = true;
        match std::mem::take(&mut known.failures) {
            0 => Change::Nothing,
            _ => Change::Found,
        }
    }

    /// The next moment at which a name may be queried or a query is overdue. Names without room for a query wait for
    /// an answer.
    pub fn next_at(&self) -> Option<Instant> {
        let has_room = self.room() > 0;
        let of_known = |known: &NameState| match known.asked_at {
            Some(asked_at) => (!known.is_overdue).then(|| asked_at + self.schedule.patience),
            None => (known.is_used && has_room).then_some(known.next_at),
        };
        self.known.values().filter_map(of_known).min()
    }

    /// Whether every name has been answered or has failed, at least once.
    pub fn is_settled(&self) -> bool {
        self.known
            .values()
            .all(|known| known.is_settled || !known.is_used)
    }

    /// The known servers of each backend, each address once.
    pub fn servers(&self) -> Vec<Vec<Server>> {
        let of_backend = |backend| self.servers_of(backend);
        self.backends.iter().map(of_backend).collect()
    }

    fn servers_of(&self, backend: &Backend) -> Vec<Server> {
        let mut servers: Vec<Server> = Vec::new();
        for (source, server) in backend.servers.iter().enumerate() {
            let addresses: Vec<_> = match server {
                ServerAddress::Address(address) => vec![(*address, None)],
                ServerAddress::Name(name) => {
                    let known = self.known.get(name);
                    let known = known.map_or(&[] as &[_], |known| known.addresses.as_slice());
                    let shared = known.iter().map(|one| one.share(known));
                    let addresses = known.iter().map(|one| Endpoint::Ip(one.address));
                    addresses.zip(shared).collect()
                }
            };
            for (address, share) in addresses {
                let is_allowed = !backend.is_loopback_only || address.is_this_host();
                if is_allowed && servers.iter().all(|server| server.address != address) {
                    servers.push(Server {
                        source,
                        address,
                        share,
                    });
                }
            }
        }
        servers
    }
}

impl Resolved {
    /// Its share beside the others of its name: those behind the lowest priority are backups.
    fn share(&self, all: &[Resolved]) -> Option<ServerShare> {
        let own = self.record?;
        let mut others = all.iter().filter_map(|other| other.record);
        Some(ServerShare {
            weight: NonZeroU32::new(own.weight.into()).unwrap_or(NonZeroU32::MIN),
            is_backup: others.any(|other| other.priority < own.priority),
        })
    }
}

impl NameState {
    fn failed(&mut self) -> Change {
        self.is_settled = true;
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Change::Lost,
            _ => Change::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEDULE: Schedule = Schedule {
        interval: Duration::from_secs(15),
        retry: Duration::from_secs(1),
        patience: Duration::from_secs(5),
        open_max: 64,
    };

    fn name(number: u8) -> Name {
        Name::Host {
            host: format!("server-{number}.test"),
            port: 4317,
        }
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 4317))
    }

    fn backend(names: &[u8]) -> Backend {
        Backend {
            servers: names
                .iter()
                .map(|number| ServerAddress::Name(name(*number)))
                .collect(),
            is_loopback_only: false,
        }
    }

    fn addresses(names: &Names, backend: usize) -> Vec<SocketAddr> {
        let servers = names.servers();
        let ip = |server: &Server| match server.address {
            Endpoint::Ip(address) => Some(address),
            Endpoint::Unix(_) => None,
        };
        servers[backend].iter().filter_map(ip).collect()
    }

    #[test]
    fn all_names_are_asked_for_at_once_and_a_silent_resolver_settles_them_together() {
        let start = Instant::now();
        let mut names = Names::new(SCHEDULE);
        names.follow(vec![backend(&[1, 2, 3]), backend(&[4, 5, 6])], start);
        assert_eq!(names.due(start).len(), 6);
        assert!(names.due(start).is_empty() && !names.is_settled());
        assert_eq!(names.next_at(), Some(start + SCHEDULE.patience));
        let late = start + SCHEDULE.patience;
        let overdue = names.overdue(late);
        assert!(overdue.iter().all(|(_, change)| *change == Change::Lost) && overdue.len() == 6);
        assert!(names.is_settled() && names.overdue(late).is_empty());
        // The answer that comes late is taken all the same.
        let change = names.answered(&name(1), Some(vec![address(1).into()]), late);
        assert_eq!(
            (change, addresses(&names, 0)),
            (Change::Found, vec![address(1)])
        );
    }

    #[test]
    fn a_reload_keeps_what_is_known_and_makes_new_names_due_at_once() {
        let start = Instant::now();
        let mut names = Names::new(SCHEDULE);
        names.follow(vec![backend(&[1])], start);
        names.due(start);
        names.answered(&name(1), Some(vec![address(1).into()]), start);
        names.follow(vec![backend(&[1, 2])], start);
        assert_eq!(addresses(&names, 0), [address(1)]);
        assert_eq!(names.due(start), [name(2)]);
        assert_eq!(names.answered(&name(2), None, start), Change::Lost);
        assert_eq!(addresses(&names, 0), [address(1)]);
    }

    #[test]
    fn records_of_a_service_say_shares_and_backups() {
        let start = Instant::now();
        let mut names = Names::new(SCHEDULE);
        let service = Name::Service("_otlp._tcp.example.org".to_owned());
        let of_service = Backend {
            servers: vec![ServerAddress::Name(service.clone())],
            is_loopback_only: false,
        };
        names.follow(vec![of_service], start);
        assert_eq!(names.due(start), std::slice::from_ref(&service));
        let found = |number, priority, weight| Resolved {
            address: address(number),
            record: Some(ServiceRecord { priority, weight }),
        };
        let all = vec![
            found(1, 10, 60),
            found(2, 10, 0),
            found(3, 20, 5),
            found(1, 20, 1),
        ];
        names.answered(&service, Some(all), start);
        let servers = names.servers();
        let shares = servers[0].iter().map(|server| {
            let share = server.share.expect("its record says it");
            (server.address, share.weight.get(), share.is_backup)
        });
        let expected = [(1, 60, false), (2, 1, false), (3, 5, true)];
        let expected = expected
            .map(|(number, weight, is_backup)| (Endpoint::Ip(address(number)), weight, is_backup));
        assert!(shares.eq(expected), "{servers:?}");
    }

    #[test]
    fn a_name_that_fails_is_asked_for_again_soon_and_then_less_often() {
        let start = Instant::now();
        let mut names = Names::new(SCHEDULE);
        names.follow(vec![backend(&[1])], start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(names.due(now), [name(1)]);
            names.answered(&name(1), None, now);
            let next_at = names.next_at().expect("it is asked for again");
            waits.push((next_at - now).as_secs());
            now = next_at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
    }

    #[test]
    fn a_name_of_this_host_yields_nothing_but_loopback() {
        let start = Instant::now();
        let mut names = Names::new(SCHEDULE);
        let loopback_only = Backend {
            is_loopback_only: true,
            ..backend(&[1])
        };
        names.follow(vec![loopback_only], start);
        names.due(start);
        let local = SocketAddr::from(([127, 0, 0, 1], 4317));
        names.answered(&name(1), Some(vec![address(1).into(), local.into()]), start);
        assert_eq!(addresses(&names, 0), [local]);
    }

    proptest! {
        /// For all answers and reloads: no name has two open queries, no more are open than allowed, the next moment
        /// is in the future once everything due is done, and a resolved name keeps its addresses as long as a backend
        /// has it.
        #[test]
        fn a_name_that_was_resolved_stays_resolved(
            steps in proptest::collection::vec((0u8..6, 0u8..5, 0u64..20), 1..200),
        ) {
            let schedule = Schedule { open_max: 3, ..SCHEDULE };
            let mut now = Instant::now();
            let mut names = Names::new(schedule);
            let mut used: Vec<u8> = vec![0, 1, 2];
            let mut resolved: Vec<u8> = Vec::new();
            let mut open: Vec<Name> = Vec::new();
            names.follow(vec![backend(&used)], now);
            for (number, step, seconds) in steps {
                now += Duration::from_secs(seconds);
                names.overdue(now);
                for due in names.due(now) {
                    prop_assert!(!open.contains(&due), "{due} is asked for twice");
                    open.push(due);
                }
                prop_assert!(open.len() <= 3);
                let next_at = names.next_at();
                prop_assert!(next_at.is_none_or(|next_at| next_at > now), "it would not rest");
                match step {
                    0 => {
                        used = (0..=number).collect();
                        resolved.retain(|number| used.contains(number));
                        names.follow(vec![backend(&used)], now);
                    }
                    1 | 2 if !open.is_empty() => {
                        let name = open.remove(usize::from(number) % open.len());
                        names.answered(&name, None, now);
                    }
                    3 | 4 if !open.is_empty() => {
                        let answered = open.remove(usize::from(number) % open.len());
                        let number = (0..6).find(|number| name(*number) == answered);
                        let number = number.expect("it is one of ours");
                        names.answered(&answered, Some(vec![address(number).into()]), now);
                        if used.contains(&number) && !resolved.contains(&number) {
                            resolved.push(number);
                        }
                    }
                    _ => {}
                }
                let known = addresses(&names, 0);
                for number in &resolved {
                    prop_assert!(known.contains(&address(*number)), "{number} was forgotten");
                }
            }
        }
    }
}
