//! The metrics page in OpenMetrics text, added up from the workers' counters at each scrape.
//! In: counters, certificates, the guard. Out: text. On the control thread. Each subject's samples are in a file of
//! their own.

mod audit;
mod backends;
mod blocks;
mod changes;
mod connections;
mod dry_run;
mod expiry;
mod guard;
mod handshakes;
mod identities;
mod lists;
mod pools;
mod possible;
mod process;
mod requests;
mod trust;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::registry::Registry;

pub use blocks::BlocksInForce;
use gateway_core::descriptors::Descriptors;
use gateway_guard::GuardHandle;

use super::audit::Audit;
use super::counters::{ListenerCounters, WorkerCounters};
use super::histogram::HistogramSum;
use crate::config::{Config, Listener};
use crate::connection::UsageTable;

/// Whether the gateway takes new connections.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
}

impl Health {
    /// Says whether new connections are taken.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Whether new connections are taken.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Everything the metrics page is made of.
#[derive(Clone)]
pub struct Metrics(Arc<Sources>);

struct Sources {
    config: Mutex<Arc<Config>>,
    reloads: [AtomicU64; 2],
    last_reloads: changes::LastReloads,
    blocks: Mutex<BlocksInForce>,
    workers: Vec<Arc<WorkerCounters>>,
    guard: Arc<GuardHandle>,
    audit: Audit,
    /// In seconds since 1970.
    started_at: f64,
    usage: Arc<UsageTable>,
    descriptors: Descriptors,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Metrics")
            .field("workers", &self.0.workers.len())
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// Collects from `workers`, `audit` and, where there is a guard, from `guard`.
    pub fn new(
        config: Arc<Config>,
        workers: Vec<Arc<WorkerCounters>>,
        guard: Arc<GuardHandle>,
        audit: Audit,
        usage: Arc<UsageTable>,
        descriptors: Descriptors,
    ) -> Self {
        Metrics(Arc::new(Sources {
            config: Mutex::new(config),
            reloads: Default::default(),
            last_reloads: changes::LastReloads::default(),
            blocks: Mutex::default(),
            workers,
            guard,
            audit,
            started_at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            usage,
            descriptors,
        }))
    }

    /// The page.
    pub fn encode(&self) -> String {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("portcullis");
        ours.register_collector(Box::new(self.clone()));
        let of_process = registry.sub_registry_with_prefix("process");
        of_process.register_collector(Box::new(process::Process {
            started_at: self.0.started_at,
        }));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry)
            .expect("writing to a String does not fail");
        page
    }

    /// Takes names and certificates from this configuration from now on. Listeners are the same ones; new backends stand behind
    /// those before.
    pub fn reload(&self, config: Arc<Config>) {
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Counts a reload.
    pub fn count_reload(&self, taken: bool) {
        self.0.reloads[usize::from(taken)].fetch_add(1, Ordering::Relaxed);
        self.0.last_reloads.note(taken);
    }

    /// What moves the bytes of each worker; `None` for one that does not run yet.
    pub fn drivers(&self) -> Vec<Option<String>> {
        let workers = self.0.workers.iter();
        workers
            .map(|worker| worker.driver().map(|driver| driver.to_string()))
            .collect()
    }

    /// Connections that are open, by listener.
    pub fn open_connections(&self) -> Vec<u64> {
        let open = self.sums(|counters| {
            let closed = counters.closed.value();
            counters.accepted.value().saturating_sub(closed)
        });
        open.into_iter().map(|(_, count)| count).collect()
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As `sums`, of those listeners alone on which it can happen, or has happened under another configuration.
    fn possible_sums(
        &self,
        of: impl Fn(&ListenerCounters) -> u64,
        can_happen: impl Fn(&Config, &Listener) -> bool,
    ) -> Vec<(String, u64)> {
        let config = self.config();
        let sums = self.sums(of).into_iter().zip(&config.listeners);
        sums.filter(|((_, count), listener)| *count > 0 || can_happen(&config, listener))
            .map(|(sum, _)| sum)
            .collect()
    }

    /// A listener's name and the sum over all workers of one of its counters.
    fn sums(&self, of: impl Fn(&ListenerCounters) -> u64) -> Vec<(String, u64)> {
        let config = self.config();
        let listeners = config.listeners.iter().enumerate();
        let sum = |(position, listener): (usize, &Arc<Listener>)| {
            let values = self
                .0
                .workers
                .iter()
                .map(|worker| of(&worker.listeners[position]));
            (listener.name.clone(), values.sum())
        };
        listeners.map(sum).collect()
    }
}

type Encoded = Result<(), fmt::Error>;

fn counter(metric: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: u64) -> Encoded {
    metric
        .encode_family(&labels)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: i64) -> Encoded {
    metric.encode_family(&labels)?.encode_gauge(&value)
}

fn histogram(
    metric: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    sum: &HistogramSum,
) -> Encoded {
    metric
        .encode_family(&labels)?
        .encode_histogram::<NoLabelSet>(sum.seconds, sum.count, &sum.buckets, None)
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        self.encode_connections(&mut encoder)?;
        self.encode_handshakes(&mut encoder)?;
        self.encode_resumption(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        self.encode_backends(&mut encoder)?;
        self.encode_requests(&mut encoder)?;
        self.encode_request_durations(&mut encoder)?;
        self.encode_tenants(&mut encoder)?;
        self.encode_pools(&mut encoder)?;
        self.encode_reloads(&mut encoder)?;
        self.encode_changes(&mut encoder)?;
        self.encode_lists(&mut encoder)?;
        self.encode_blocks(&mut encoder)?;
        self.encode_dry_run(&mut encoder)?;
        self.encode_dry_run_requests(&mut encoder)?;
        self.encode_certificates(&mut encoder)?;
        self.encode_lifetimes(&mut encoder)?;
        self.encode_clients(&mut encoder)?;
        self.encode_identities(&mut encoder)?;
        self.encode_audit(&mut encoder)?;
        self.encode_process(&mut encoder)?;
        self.encode_guard(&mut encoder)
    }
}
