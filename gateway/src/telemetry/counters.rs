//! One worker's counters.
//! In: events. Out: numbers that another thread may read at any time. Only their worker writes them, so that
//! counting never makes two CPUs share a cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use gateway_core::close_reason::CloseReason;
use gateway_core::failure::Failure;
use gateway_core::limits;
use gateway_core::lineage::TicketRefusal;
use gateway_rt::Driver;

use super::clients::ClientCounts;
use super::closing::CloseTimes;
use super::dry_run::DryRunRefusals;
use super::event::{Event, PoolCount, ServerEvent};
use super::histogram::Histogram;
use super::requests::RequestCounters;
use super::server_counts::ServerCounts;
use super::tenants::CountedTenants;
use crate::config::{BackendId, Config, ListenerId};
use crate::connection::Direction;
use crate::crypto::{cipher_suite_name, group_name};
use crate::tls::Negotiated;

/// Upper bounds of the handshake duration histogram in seconds; one more bucket takes the rest.
const DURATION_BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Counters of one worker.
#[derive(Debug)]
pub struct WorkerCounters {
    pub(super) listeners: Vec<ListenerCounters>,
    /// By backend.
    pub(super) servers: Vec<ServerCounts>,
    /// Set once, when the worker serves.
    driver: OnceLock<Driver>,
    pub(super) unreachable: Vec<Counter>,
    /// By backend: copies of requests that were dropped, and that were sent.
    pub(super) mirrored: Vec<[Counter; 2]>,
    clients: Mutex<ClientCounts>,
    /// By backend, as they were at the last count.
    pools: Mutex<Vec<PoolCount>>,
    tenants: CountedTenants,
    dry_run_refusals: Mutex<DryRunRefusals>,
}

/// Counters of one listener on one worker.
#[derive(Debug)]
pub(super) struct ListenerCounters {
    pub(super) accepted: Counter,
    pub(super) closed: Counter,
    pub(super) failures: [Counter; Failure::ALL.len()],
    pub(super) handshakes: Vec<((&'static str, &'static str), Counter)>,
    pub(super) resumed: Counter,
    pub(super) without_protocol: Counter,
    pub(super) tickets_issued: Counter,
    pub(super) ticket_refusals: [Counter; TicketRefusal::ALL.len()],
    pub(super) received_bytes: Counter,
    pub(super) sent_bytes: Counter,
    pub(super) ends: [Counter; CloseReason::ALL.len()],
    pub(super) duration: Histogram<{ DURATION_BOUNDS.len() }>,
    pub(super) close_times: CloseTimes,
    pub(super) dry_run_refusals: [Counter; Failure::ALL.len()],
    pub(super) requests: RequestCounters,
}

/// A number that one thread raises and others read.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        // There is one writer, so this need not be one atomic step.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl WorkerCounters {
    /// Counters for the listeners, backends and those to come, suites and groups of `config`, all zero.
    pub fn new(config: &Config) -> Self {
        let provider = &config.provider;
        let suites = provider
            .cipher_suites
            .iter()
            .map(|suite| cipher_suite_name(suite.suite()));
        let groups: Vec<_> = provider
            .kx_groups
            .iter()
            .map(|group| group_name(group.name()))
            .collect();
        let parameters: Vec<_> = suites
            .flat_map(|suite| groups.iter().map(move |group| (suite, *group)))
            .collect();
        // Reloads may add some.
        let backends = config.backends.len().max(limits::BACKENDS_RELOADED_MAX);
        WorkerCounters {
            listeners: config
                .listeners
                .iter()
                .map(|_| ListenerCounters::new(&parameters, backends))
                .collect(),
            servers: (0..backends).map(|_| ServerCounts::default()).collect(),
            driver: OnceLock::new(),
            unreachable: (0..backends).map(|_| Counter::default()).collect(),
            mirrored: (0..backends).map(|_| Default::default()).collect(),
            clients: Mutex::default(),
            pools: Mutex::default(),
            tenants: CountedTenants::default(),
            dry_run_refusals: Mutex::default(),
        }
    }

    /// Notes what moves the worker's bytes.
    pub fn serves_on(&self, driver: Driver) {
        // A worker has one driver for life.
        let _ = self.driver.set(driver);
    }

    /// What moves the worker's bytes; `None` before it serves.
    pub(super) fn driver(&self) -> Option<Driver> {
        self.driver.get().copied()
    }

    /// The clients that the observed configuration would refuse.
    pub(super) fn dry_run_refusals(&self) -> MutexGuard<'_, DryRunRefusals> {
        self.dry_run_refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what was known of the clients.
    pub(super) fn publish(&self, clients: ClientCounts) {
        *self.clients.lock().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    /// The worker's clients, as they were at the last count.
    pub(super) fn clients(&self) -> ClientCounts {
        let clients = self.clients.lock();
        clients.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what was known of connections to backends.
    pub(super) fn publish_pools(&self, pools: Vec<PoolCount>) {
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = pools;
    }

    /// The worker's connections to a backend, as they were at the last count; `None` before the first one.
    pub(super) fn pool(&self, backend: usize) -> Option<PoolCount> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.get(backend).cloned()
    }

    /// The tenants whose requests are counted.
    pub(super) fn tenants(&self) -> &CountedTenants {
        &self.tenants
    }

    /// Counts what a server has done. `name` is the server as the configuration writes it.
    pub(super) fn record_server(&self, backend: BackendId, name: &str, event: ServerEvent) {
        self.servers[backend.0].add(name, |count| match event {
            ServerEvent::Fault(_) => count.faults += 1,
            ServerEvent::Ejected(_) => count.ejections += 1,
        });
    }

    /// Counts a copy of a request, which was sent or dropped.
    pub(super) fn count_mirrored(&self, BackendId(position): BackendId, is_sent: bool) {
        self.mirrored[position][usize::from(is_sent)].add(1);
    }

    /// Counts an event on a listener.
    pub fn record(&self, listener: ListenerId, event: &Event<'_>) {
        let counters = &self.listeners[listener.0];
        match event {
            Event::Accepted => counters.accepted.add(1),
            Event::Closed => counters.closed.add(1),
            Event::Refused {
                failure,
                ticket_refusal,
                ..
            } => {
                counters.failures[failure.index()].add(1);
                counters.ticket_refused(*ticket_refusal);
            }
            Event::Established {
                negotiated, took, ..
            } => counters.established(negotiated, *took),
            Event::DryRunRefused {
                failure,
                detail,
                peer,
            } => {
                counters.dry_run_refusals[failure.index()].add(1);
                let why = (failure.label(), *detail);
                self.dry_run_refusals()
                    .note_client(listener, peer, why, SystemTime::now());
            }
            Event::DryRunRefusedRequest { refusal, .. } => counters.requests.foreseen(*refusal),
            Event::Moved {
                direction: Direction::Received,
                bytes,
            } => {
                counters.received_bytes.add(*bytes as u64);
            }
            Event::Moved {
                direction: Direction::Sent,
                bytes,
            } => counters.sent_bytes.add(*bytes as u64),
            // Counted by identity, in its record.
            Event::Slowed { .. } => {}
            Event::ServerFailed {
                backend,
                name,
                is_spared,
                ..
            } => self.servers[backend.0].add(name, |count| match is_spared {
                true => count.spared += 1,
                false => count.failures += 1,
            }),
            Event::EndedByServer {
                backend, name, end, ..
            } => {
                let is_unanswered = *end == CloseReason::BackendUnanswered;
                self.servers[backend.0].add(name, |count| {
                    count.unanswered += u64::from(is_unanswered);
                });
            }
            Event::Unreachable { backend, .. } => self.unreachable[backend.0].add(1),
            Event::Ended {
                end, changed_at, ..
            } => {
                counters.ends[end.index()].add(1);
                if let Some(changed_at) = changed_at {
                    counters.close_times.record(*end, changed_at.elapsed());
                }
            }
            Event::RequestEnded { request, .. } => counters.requests.finished(request),
            Event::ClientFault { fault, .. } => counters.requests.faulted(*fault),
            Event::Panicked { .. } => counters.ends[CloseReason::Internal.index()].add(1),
        }
    }
}

impl ListenerCounters {
    fn new(parameters: &[(&'static str, &'static str)], backends: usize) -> Self {
        ListenerCounters {
            accepted: Counter::default(),
            closed: Counter::default(),
            failures: Default::default(),
            handshakes: parameters
                .iter()
                .map(|pair| (*pair, Counter::default()))
                .collect(),
            resumed: Counter::default(),
            without_protocol: Counter::default(),
            tickets_issued: Counter::default(),
            ticket_refusals: Default::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            ends: Default::default(),
            duration: Histogram::new(&DURATION_BOUNDS),
            dry_run_refusals: Default::default(),
            close_times: CloseTimes::default(),
            requests: RequestCounters::new(backends),
        }
    }

    fn ticket_refused(&self, refusal: Option<TicketRefusal>) {
        if let Some(refusal) = refusal {
            self.ticket_refusals[refusal.index()].add(1);
        }
    }

    fn established(&self, negotiated: &Negotiated, took: Duration) {
        self.resumed.add(u64::from(negotiated.is_resumed));
        self.without_protocol
            .add(u64::from(negotiated.ignored_protocols.is_some()));
        self.tickets_issued
            .add(u64::from(negotiated.tickets_issued));
        self.ticket_refused(negotiated.ticket_refusal);
        let parameters = (negotiated.cipher_suite, negotiated.group);
        if let Some((_, counter)) = self.handshakes.iter().find(|(pair, _)| *pair == parameters) {
            counter.add(1);
        }
        self.duration.record(took);
    }
}
