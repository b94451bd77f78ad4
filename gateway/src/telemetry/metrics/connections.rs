//! The connections' part of the metrics page: accepted, open, ended, and what they moved.
//! In: the workers' counters. Out: samples. On the control thread.

use gateway_core::close_reason::CloseReason;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::possible::can_end;
use super::{Encoded, Metrics, counter, gauge};
use crate::config::{Config, Listener};
use crate::telemetry::counters::ListenerCounters;

impl Metrics {
    pub(super) fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Accepted connections";
        let mut metric =
            encoder.encode_descriptor("connections_accepted", help, None, MetricType::Counter)?;
        for (listener, value) in self.sums(|counters| counters.accepted.value()) {
            counter(&mut metric, &[("listener", &listener)], value)?;
        }
        let help = "Open connections, in handshake or established";
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
        let help = "Ended connections that were established, by reason";
        let mut metric =
            encoder.encode_descriptor("connections_ended", help, None, MetricType::Counter)?;
        for end in CloseReason::ALL {
            let of = |counters: &ListenerCounters| counters.ends[end.index()].value();
            let can_end = |config: &Config, listener: &Listener| can_end(config, listener, end);
            for (listener, value) in self.possible_sums(of, can_end) {
                counter(
                    &mut metric,
                    &[("listener", &listener), ("reason", end.label())],
                    value,
                )?;
            }
        }
        let help = "Relayed application data: received from clients, sent to clients";
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
}
