//! The observed configuration's part of the metrics page, and its page of names.
//! In: the workers' counters and tables. Out: samples; JSON. On the control thread.

use gateway_core::failure::Failure;
use gateway_core::http::answer::RequestRefusal;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::possible::can_request;
use super::{Encoded, Metrics, counter};
use crate::config::{Config, Listener};
use crate::telemetry::counters::ListenerCounters;
use crate::telemetry::dry_run::DryRunRefusals;

/// What a request can be refused for by a dry run.
const FORESEEN: [RequestRefusal; 3] = [
    RequestRefusal::NotAllowed,
    RequestRefusal::TenantNotAllowed,
    RequestRefusal::NoRoute,
];

impl Metrics {
    pub(super) fn encode_dry_run(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Admitted clients that the observed configuration would refuse, by reason";
        let mut metric =
            encoder.encode_descriptor("observed_refusals", help, None, MetricType::Counter)?;
        if self.config().dry_run.is_none() {
            return Ok(());
        }
        for failure in Failure::ALL {
            let of =
                |counters: &ListenerCounters| counters.dry_run_refusals[failure.index()].value();
            for (listener, value) in self.sums(of) {
                let labels = [("listener", listener.as_str()), ("reason", failure.label())];
                counter(&mut metric, &labels, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn encode_dry_run_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Requests that were passed on and that the observed configuration would refuse, by reason";
        let mut metric = encoder.encode_descriptor(
            "observed_request_refusals",
            help,
            None,
            MetricType::Counter,
        )?;
        if self.config().dry_run.is_none() {
            return Ok(());
        }
        for refusal in FORESEEN {
            let of = |counters: &ListenerCounters| counters.requests.dry_run_refusals(refusal);
            let is_possible = |_: &Config, listener: &Listener| can_request(listener);
            for (listener, value) in self.possible_sums(of, is_possible) {
                let labels = [("listener", listener.as_str()), ("reason", refusal.label())];
                counter(&mut metric, &labels, value)?;
            }
        }
        Ok(())
    }

    /// The clients that the observed configuration would refuse, by name, and requests of others, as JSON.
    pub fn dry_run_refusals(&self) -> String {
        let config = self.config();
        let names: Vec<_> = config
            .listeners
            .iter()
            .map(|one| one.name.clone())
            .collect();
        let tables: Vec<_> = self
            .0
            .workers
            .iter()
            .map(|worker| worker.dry_run_refusals())
            .collect();
        DryRunRefusals::page(tables.iter().map(|table| &**table), &names)
    }
}
