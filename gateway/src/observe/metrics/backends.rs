//! The backends' part of the metrics page.
//! In: the workers' counters, the configuration. Out: samples. On the control thread.

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::super::counters::{Counter, WorkerCounters};
use super::{Encoded, Metrics, counter, gauge};
use crate::config::BackendTransport;

impl Metrics {
    pub(super) fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        type Of = fn(&WorkerCounters) -> &[Counter];
        let counters: [(&str, &str, Of); 4] = [
            (
                "backend_connect_failures",
                "Attempts to reach a server of the backend that failed",
                |worker| &worker.server_failures,
            ),
            (
                "backend_address_failures",
                "Attempts to reach an address that failed while another one of the same name serves",
                |worker| &worker.spared_failures,
            ),
            (
                "backend_unanswered",
                "Connections that a server of the backend ended cleanly before it had sent a byte",
                |worker| &worker.unanswered,
            ),
            (
                "backend_unreachable",
                "Connections of clients for which no server of the backend could be reached",
                |worker| &worker.unreachable,
            ),
        ];
        for (name, help, of) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (position, backend) in self.config().backends.iter().enumerate() {
                let workers = self.0.workers.iter();
                let values = workers.map(|worker| of(worker)[position].value());
                counter(&mut metric, &[("backend", &backend.name)], values.sum())?;
            }
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
