//! The handshakes' part of the metrics page: clients that got in, clients that did not and why, and how long it took.
//! In: the workers' counters. Out: samples. On the control thread.

use gateway_core::failure::Failure;
use gateway_core::lineage::TicketRefusal;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::possible::{can_fail, can_resume};
use super::{Encoded, Metrics, counter, histogram};
use crate::config::{Config, Listener};
use crate::telemetry::counters::ListenerCounters;
use crate::telemetry::histogram::Histogram;

impl Metrics {
    pub(super) fn encode_handshakes(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Completed handshakes, by cipher suite and key exchange group";
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
        let help = "Refused clients, by reason";
        let mut metric =
            encoder.encode_descriptor("handshake_failures", help, None, MetricType::Counter)?;
        for failure in Failure::ALL {
            let of = |counters: &ListenerCounters| counters.failures[failure.index()].value();
            let can_fail = |config: &Config, one: &Listener| can_fail(config, one, failure);
            for (listener, value) in self.possible_sums(of, can_fail) {
                counter(
                    &mut metric,
                    &[("listener", &listener), ("reason", failure.label())],
                    value,
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn encode_resumption(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Handshakes resumed with a ticket; included in the completed handshakes";
        let mut metric =
            encoder.encode_descriptor("handshakes_resumed", help, None, MetricType::Counter)?;
        for (listener, value) in self.possible_sums(|counters| counters.resumed.value(), can_resume)
        {
            counter(&mut metric, &[("listener", &listener)], value)?;
        }
        let help = "Clients that offered application protocols to a listener without alpn";
        let mut metric = encoder.encode_descriptor(
            "handshakes_without_protocol",
            help,
            None,
            MetricType::Counter,
        )?;
        let names_none = |_: &Config, listener: &Listener| listener.alpn.is_empty();
        let of = |counters: &ListenerCounters| counters.without_protocol.value();
        for (listener, value) in self.possible_sums(of, names_none) {
            counter(&mut metric, &[("listener", &listener)], value)?;
        }
        let help = "Issued session tickets";
        let mut metric =
            encoder.encode_descriptor("tickets_issued", help, None, MetricType::Counter)?;
        let of = |counters: &ListenerCounters| counters.tickets_issued.value();
        for (listener, value) in self.possible_sums(of, can_resume) {
            counter(&mut metric, &[("listener", &listener)], value)?;
        }
        let help = "Refused session tickets, by reason; the client then authenticates in full";
        let mut metric =
            encoder.encode_descriptor("tickets_refused", help, None, MetricType::Counter)?;
        for refusal in TicketRefusal::ALL {
            let of =
                |counters: &ListenerCounters| counters.ticket_refusals[refusal.index()].value();
            for (listener, value) in self.possible_sums(of, can_resume) {
                let labels = [("listener", listener.as_str()), ("reason", refusal.label())];
                counter(&mut metric, &labels, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Time from accept to the client's Finished";
        let unit = Some(&Unit::Seconds);
        let mut metric =
            encoder.encode_descriptor("handshake_duration", help, unit, MetricType::Histogram)?;
        for (position, listener) in self.config().listeners.iter().enumerate() {
            let workers = self.0.workers.iter();
            let durations = workers.map(|worker| &worker.listeners[position].duration);
            let sum = Histogram::sum(durations);
            histogram(&mut metric, &[("listener", &listener.name)], &sum)?;
        }
        Ok(())
    }
}
