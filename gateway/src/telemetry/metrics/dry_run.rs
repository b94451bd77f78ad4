//! The observed configuration's part of the metrics page, and its page of names.
//! In: the workers' counters and tables. Out: samples; JSON. On the control thread.

use gateway_core::failure::Failure;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Encoded, Metrics, counter};
use crate::telemetry::counters::ListenerCounters;
use crate::telemetry::dry_run::DryRunRefusals;

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

    /// The clients that the observed configuration would refuse, by name, as JSON.
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
