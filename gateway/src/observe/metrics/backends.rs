//! The backends' part of the metrics page.
//! In: the workers' counters, the configuration. Out: samples. On the control thread.

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Encoded, Metrics, counter, gauge};
use crate::config::BackendTransport;

impl Metrics {
    pub(super) fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
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
}
