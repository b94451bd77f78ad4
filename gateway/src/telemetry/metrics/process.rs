//! The process's part of the metrics page: its version, its limits, what moves its workers' bytes, what it takes of the host.
//! In: the configuration, the workers, the kernel's figures. Out: samples. On the control thread.

use gateway_core::descriptors::Side;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{Encoded, Metrics, counter, gauge};
use crate::config::Listener;
use crate::telemetry::log_queue::dropped_lines;

impl Metrics {
    pub(super) fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Always 1; the label is the program's version";
        let mut metric = encoder.encode_descriptor("build_info", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[("version", env!("CARGO_PKG_VERSION"))], 1)?;
        self.encode_drivers(encoder)?;
        self.encode_descriptors(encoder)?;
        let help = "Log lines dropped because they came faster than standard error was read";
        let mut metric =
            encoder.encode_descriptor("log_dropped", help, None, MetricType::Counter)?;
        counter(&mut metric, &[], dropped_lines())?;
        let help = "Limit of open connections";
        self.encode_limit(encoder, "connections_max", help, |listener| {
            listener.max_connections
        })?;
        let help = "Limit of handshakes under way at once";
        self.encode_limit(encoder, "handshakes_max", help, |listener| {
            listener.max_handshakes
        })
    }

    fn encode_descriptors(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let descriptors = &self.0.descriptors;
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let help = "Descriptors of connections: sockets of clients and servers, and those reserved for a client's server";
        let mut metric =
            encoder.encode_descriptor("connection_descriptors", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&whole(descriptors.used()))?;
        let help = "Limit of descriptors for connections; the rest is for files and administration";
        let mut metric = encoder.encode_descriptor(
            "connection_descriptors_max",
            help,
            None,
            MetricType::Gauge,
        )?;
        metric.encode_gauge(&i64::from(descriptors.max()))?;
        let help = "Missing descriptors of those set aside for files and administration";
        let mut metric =
            encoder.encode_descriptor("descriptors_missing", help, None, MetricType::Gauge)?;
        metric.encode_gauge(&whole(descriptors.missing()))?;
        let help = "Clients that waited for a descriptor: to be accepted, or for their server";
        let mut metric =
            encoder.encode_descriptor("descriptor_waits", help, None, MetricType::Counter)?;
        let accept = descriptors.waits(Side::Client) + descriptors.waits(Side::HttpClient);
        let connect = descriptors.waits(Side::Server);
        for (step, waits) in [("accept", accept), ("connect", connect)] {
            counter(&mut metric, &[("step", step)], waits)?;
        }
        Ok(())
    }

    fn encode_drivers(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Always 1; the label says how the worker moves bytes: io_uring, or epoll if io_uring is not available";
        let mut metric =
            encoder.encode_descriptor("worker_driver", help, None, MetricType::Gauge)?;
        for (number, worker) in self.0.workers.iter().enumerate() {
            if let Some(driver) = worker.driver() {
                let number = number.to_string();
                let labels = [("worker", number.as_str()), ("driver", driver.label())];
                gauge(&mut metric, &labels, 1)?;
            }
        }
        Ok(())
    }

    fn encode_limit(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        limit: impl Fn(&Listener) -> usize,
    ) -> Encoded {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for listener in &self.config().listeners {
            let limit = i64::try_from(limit(listener)).unwrap_or(i64::MAX);
            gauge(&mut metric, &[("listener", &listener.name)], limit)?;
        }
        Ok(())
    }
}

/// What the process takes of the host, by the names that every Prometheus client library uses. A figure that cannot be read,
/// because descriptors have run out for instance, is left out.
#[derive(Debug)]
pub(super) struct Process {
    /// In seconds since 1970.
    pub(super) started_at: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let help = "CPU time of the process, user and system";
        let mut metric =
            encoder.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let spent = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
        metric.encode_counter::<NoLabelSet, _, u64>(&spent, None)?;
        let help = "Start time of the process, in Unix time";
        let mut metric = encoder.encode_descriptor(
            "start_time",
            help,
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        metric.encode_gauge(&self.started_at)?;
        let of_kernel = procfs::process::Process::myself().ok();
        let resident_bytes = of_kernel
            .as_ref()
            .and_then(|process| process.statm().ok())
            .map(|memory| memory.resident * rustix::param::page_size() as u64);
        let help = "Resident memory of the process";
        whole(
            &mut encoder,
            "resident_memory",
            help,
            (Some(&Unit::Bytes), resident_bytes),
        )?;
        let open = of_kernel.and_then(|process| process.fd_count().ok());
        let help = "Open descriptors";
        whole(
            &mut encoder,
            "open_fds",
            help,
            (None, open.map(|count| count as u64)),
        )?;
        let help = "Limit of open descriptors";
        let limit = getrlimit(Resource::Nofile).current;
        whole(&mut encoder, "max_fds", help, (None, limit))
    }
}

fn whole(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (unit, value): (Option<&Unit>, Option<u64>),
) -> Encoded {
    let Some(value) = value else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}
