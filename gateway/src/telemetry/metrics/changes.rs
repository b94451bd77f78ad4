//! The part of the metrics page about change: when the last one was, and how long it took to reach its clients.
//! In: the workers' counters, the times of reloads. Out: samples. On the control thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use gateway_core::close_reason::CloseReason;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::possible::can_end;
use super::{Encoded, Metrics, gauge, histogram};
use crate::telemetry::histogram::Histogram;

/// When the last reload was refused, and when one was taken, in Unix time; 0 for never.
#[derive(Debug, Default)]
pub(super) struct LastReloads([AtomicU64; 2]);

impl LastReloads {
    pub(super) fn note(&self, taken: bool) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        self.0[usize::from(taken)].store(seconds, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(super) fn encode_changes(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let unit = Some(&Unit::Seconds);
        let help = "Time of the last reload that was taken or refused, in Unix time";
        let name = "last_reload_timestamp";
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (result, last) in ["refused", "taken"].into_iter().zip(&self.0.last_reloads.0) {
            let seconds = last.load(Ordering::Relaxed);
            if seconds > 0 {
                gauge(&mut metric, &[("result", result)], seconds as i64)?;
            }
        }
        let help =
            "Time from the change of a file to the end of a connection that the change closed";
        let name = "change_to_close";
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let config = self.config();
        for (position, listener) in config.listeners.iter().enumerate() {
            for end in CloseReason::ALL
                .into_iter()
                .filter(|end| end.is_loss_of_trust())
            {
                let workers = self.0.workers.iter();
                let times = workers.map(|worker| worker.listeners[position].close_times.of(end));
                let sum = Histogram::sum(times);
                if sum.count == 0 && !can_end(&config, listener, end) {
                    continue;
                }
                let labels = [
                    ("listener", listener.name.as_str()),
                    ("reason", end.label()),
                ];
                histogram(&mut metric, &labels, &sum)?;
            }
        }
        Ok(())
    }
}
