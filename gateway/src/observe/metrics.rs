//! The metrics page in OpenMetrics text, added up from the workers' counters when somebody asks.
//! In: counters, certificates, the guard. Out: text. On the control thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gateway_core::failure::Failure;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::counters::{Counter, DURATION_BOUNDS, ListenerCounters, WorkerCounters};
use crate::config::{BackendTransport, Config, Listener};
use crate::guard::Guard;
use crate::relay::End;

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
    workers: Vec<Arc<WorkerCounters>>,
    guard: Mutex<Option<Guard>>,
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
    /// Collects from `workers` and, where it runs, from `guard`.
    pub fn new(
        config: Arc<Config>,
        workers: Vec<Arc<WorkerCounters>>,
        guard: Option<Guard>,
    ) -> Self {
        Metrics(Arc::new(Sources {
            config: Mutex::new(config),
            reloads: Default::default(),
            workers,
            guard: Mutex::new(guard),
        }))
    }

    /// The page.
    pub fn encode(&self) -> String {
        let mut registry = Registry::with_prefix("portcullis");
        registry.register_collector(Box::new(self.clone()));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry)
            .expect("writing to a String does not fail");
        page
    }

    /// Takes names and certificates from this configuration from now on. Listeners and backends are the same ones.
    pub fn reload(&self, config: Arc<Config>) {
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Counts a reload.
    pub fn count_reload(&self, taken: bool) {
        self.0.reloads[usize::from(taken)].fetch_add(1, Ordering::Relaxed);
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the guard out, to detach it.
    pub fn take_guard(&self) -> Option<Guard> {
        self.lock_guard().take()
    }

    /// Runs `ask` on the guard, if there is one.
    pub fn with_guard<R>(&self, ask: impl FnOnce(&Guard) -> R) -> Option<R> {
        self.lock_guard().as_ref().map(ask)
    }

    fn lock_guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.0.guard.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        self.encode_connections(&mut encoder)?;
        self.encode_handshakes(&mut encoder)?;
        self.encode_durations(&mut encoder)?;
        self.encode_backends(&mut encoder)?;
        self.encode_reloads(&mut encoder)?;
        self.encode_certificates(&mut encoder)?;
        self.encode_guard(&mut encoder)
    }
}

impl Metrics {
    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Connections accepted";
        let mut metric =
            encoder.encode_descriptor("connections_accepted", help, None, MetricType::Counter)?;
        for (listener, value) in self.sums(|counters| counters.accepted.value()) {
            counter(&mut metric, &[("listener", &listener)], value)?;
        }
        let help = "Connections open, in handshake or established";
        let mut metric =
            encoder.encode_descriptor("connections_open", help, None, MetricType::Gauge)?;
        // Closed is read first: a connection that ends in between must not make the difference negative.
        let open = |counters: &ListenerCounters| {
            let closed = counters.closed.value();
            counters.accepted.value().saturating_sub(closed)
        };
        for (listener, value) in self.sums(open) {
            gauge(&mut metric, &[("listener", &listener)], value as i64)?;
        }
        let help = "Established connections that ended, by reason";
        let mut metric =
            encoder.encode_descriptor("connections_ended", help, None, MetricType::Counter)?;
        for end in End::ALL {
            for (listener, value) in self.sums(|counters| counters.ends[end as usize].value()) {
                counter(
                    &mut metric,
                    &[("listener", &listener), ("reason", end.label())],
                    value,
                )?;
            }
        }
        let help = "Application data passed on: received from clients, sent to clients";
        let mut metric =
            encoder.encode_descriptor("relayed", help, Some(&Unit::Bytes), MetricType::Counter)?;
        for (listener, value) in self.sums(|counters| counters.received_bytes.value()) {
            counter(
                &mut metric,
                &[("listener", &listener), ("direction", "received")],
                value,
            )?;
        }
        for (listener, value) in self.sums(|counters| counters.sent_bytes.value()) {
            counter(
                &mut metric,
                &[("listener", &listener), ("direction", "sent")],
                value,
            )?;
        }
        Ok(())
    }

    fn encode_handshakes(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Handshakes completed, by cipher suite and key exchange group";
        let mut metric =
            encoder.encode_descriptor("handshakes", help, None, MetricType::Counter)?;
        let pairs = self
            .0
            .workers
            .first()
            .and_then(|worker| worker.listeners.first());
        let count = pairs.map_or(0, |counters| counters.handshakes.len());
        for position in 0..count {
            let pair = self.0.workers[0].listeners[0].handshakes[position].0;
            for (listener, value) in self.sums(|counters| counters.handshakes[position].1.value()) {
                let labels = [
                    ("listener", listener.as_str()),
                    ("suite", pair.0),
                    ("group", pair.1),
                ];
                counter(&mut metric, &labels, value)?;
            }
        }
        let help = "Clients that did not get in, by reason";
        let mut metric =
            encoder.encode_descriptor("handshake_failures", help, None, MetricType::Counter)?;
        for failure in Failure::ALL {
            for (listener, value) in
                self.sums(|counters| counters.failures[failure.index()].value())
            {
                counter(
                    &mut metric,
                    &[("listener", &listener), ("reason", failure.label())],
                    value,
                )?;
            }
        }
        Ok(())
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Time from accept to the client's Finished";
        let unit = Some(&Unit::Seconds);
        let mut metric =
            encoder.encode_descriptor("handshake_duration", help, unit, MetricType::Histogram)?;
        for (position, listener) in self.config().listeners.iter().enumerate() {
            let counters: Vec<_> = self
                .0
                .workers
                .iter()
                .map(|worker| &worker.listeners[position])
                .collect();
            let sum = |of: &dyn Fn(&ListenerCounters) -> &Counter| -> u64 {
                counters.iter().map(|counters| of(counters).value()).sum()
            };
            let bounds = DURATION_BOUNDS
                .into_iter()
                .chain([f64::INFINITY])
                .enumerate();
            let buckets: Vec<_> = bounds
                .map(|(bucket, bound)| (bound, sum(&|counters| &counters.durations[bucket])))
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let seconds = sum(&|counters| &counters.duration_sum_nanoseconds) as f64 / 1e9;
            metric
                .encode_family(&[("listener", listener.name.as_str())])?
                .encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }

    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Attempts to reach a server of the backend that failed";
        let mut metric = encoder.encode_descriptor(
            "backend_connect_failures",
            help,
            None,
            MetricType::Counter,
        )?;
        for (position, backend) in self.config().backends.iter().enumerate() {
            let values = self
                .0
                .workers
                .iter()
                .map(|worker| worker.server_failures[position].value());
            counter(&mut metric, &[("backend", &backend.name)], values.sum())?;
        }
        let help =
            "1 where the configuration allows plaintext to another host (dangerous_plaintext)";
        let mut metric =
            encoder.encode_descriptor("dangerous_plaintext", help, None, MetricType::Gauge)?;
        for backend in &self.config().backends {
            let dangerous = matches!(backend.transport, BackendTransport::DangerousPlaintext);
            gauge(
                &mut metric,
                &[("backend", &backend.name)],
                i64::from(dangerous),
            )?;
        }
        Ok(())
    }

    fn encode_reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Reloads of the configuration: taken, or refused with the old one going on";
        let mut metric = encoder.encode_descriptor("reloads", help, None, MetricType::Counter)?;
        for (result, reloads) in ["refused", "taken"].into_iter().zip(&self.0.reloads) {
            counter(
                &mut metric,
                &[("result", result)],
                reloads.load(Ordering::Relaxed),
            )?;
        }
        let help = "Entries of each listener's revocation lists";
        let mut metric = encoder.encode_descriptor("crl_entries", help, None, MetricType::Gauge)?;
        let config = self.config();
        for listener in &config.listeners {
            let entries: usize = listener
                .revocation
                .lists()
                .map(|(_, list)| list.len())
                .sum();
            gauge(&mut metric, &[("listener", &listener.name)], entries as i64)?;
        }
        let help = "When the first of a listener's revocation lists ends, in Unix time";
        let name = "crl_next_update_timestamp";
        let unit = Some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for listener in &config.listeners {
            let ends = listener
                .revocation
                .lists()
                .map(|(_, list)| list.next_update());
            let Some(first) = ends.min() else { continue };
            let first = first.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = first.map_or(0, |duration| duration.as_secs() as i64);
            gauge(&mut metric, &[("listener", &listener.name)], seconds)?;
        }
        Ok(())
    }

    fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "End of validity of each certificate the configuration names, in Unix time";
        let name = "certificate_not_after_timestamp";
        let mut metric =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for certificate in &self.config().certificates {
            let not_after = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
            let file = certificate.file.to_string_lossy();
            let labels = [
                ("usage", certificate.usage.as_str()),
                ("file", &file),
                ("subject", certificate.subject.as_str()),
            ];
            gauge(
                &mut metric,
                &labels,
                not_after.map_or(0, |duration| duration.as_secs() as i64),
            )?;
        }
        Ok(())
    }

    fn encode_guard(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let Some(counts) = self.with_guard(Guard::counts) else {
            return Ok(());
        };
        let counts = match counts {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!(%error, "cannot read the guard's counters");
                return Ok(());
            }
        };
        let labelled = |port: u16| port.to_string();
        let help = "Packets to a protected port, counted in the kernel";
        let mut metric =
            encoder.encode_descriptor("guard_packets", help, None, MetricType::Counter)?;
        for count in &counts {
            counter(
                &mut metric,
                &[("port", &labelled(count.port))],
                count.packets,
            )?;
        }
        let help = "Bytes to a protected port, counted in the kernel";
        let mut metric = encoder.encode_descriptor(
            "guard_received",
            help,
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for count in &counts {
            counter(&mut metric, &[("port", &labelled(count.port))], count.bytes)?;
        }
        Ok(())
    }
}
