//! The backends' part of the metrics page.
//! In: the workers' counters, the configuration. Out: samples. On the control thread.

use std::collections::BTreeMap;

use gateway_core::limits;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Encoded, Metrics, counter, gauge};
use crate::config::{Backend, BackendTransport, Mode};
use crate::telemetry::server_counts::{OTHER, ServerCount};

impl Metrics {
    pub(super) fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        self.encode_servers(encoder)?;
        let config = self.config();
        let help = "Client connections for which the gateway reached no server of the backend";
        let mut metric =
            encoder.encode_descriptor("backend_unreachable", help, None, MetricType::Counter)?;
        for (position, backend) in config.backends.iter().enumerate() {
            let workers = self.0.workers.iter();
            let values = workers.map(|worker| worker.unreachable[position].value());
            counter(&mut metric, &[("backend", &backend.name)], values.sum())?;
        }
        self.encode_mirrored(encoder)?;
        let help = "1 if the configuration allows plaintext to another host (dangerous_plaintext)";
        let mut metric =
            encoder.encode_descriptor("dangerous_plaintext", help, None, MetricType::Gauge)?;
        for backend in &config.backends {
            let dangerous = matches!(backend.transport, BackendTransport::DangerousPlaintext);
            gauge(
                &mut metric,
                &[("backend", &backend.name)],
                i64::from(dangerous),
            )?;
        }
        Ok(())
    }

    /// Copies of requests, of backends that get some.
    fn encode_mirrored(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let config = self.config();
        let is_mirror = |position: usize| {
            let mut modes = config.listeners.iter().map(|listener| &listener.mode);
            modes.any(|mode| match mode {
                Mode::Stream => false,
                Mode::Http(mode) => mode.routes.mirrors().contains(&position),
            })
        };
        let help = "Copies of requests for a backend that mirrors another one";
        let mut metric =
            encoder.encode_descriptor("mirrored_requests", help, None, MetricType::Counter)?;
        for (position, backend) in config.backends.iter().enumerate() {
            if !is_mirror(position) {
                continue;
            }
            for (result, label) in ["dropped", "sent"].into_iter().enumerate() {
                let workers = self.0.workers.iter();
                let values = workers.map(|worker| worker.mirrored[position][result].value());
                let labels = [("backend", backend.name.as_str()), ("result", label)];
                counter(&mut metric, &labels, values.sum())?;
            }
        }
        Ok(())
    }

    fn encode_servers(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        type Of = fn(&ServerCount) -> u64;
        let counters: [(&str, &str, Of); 5] = [
            (
                "backend_connect_failures",
                "Failed attempts to connect to a server of the backend",
                |server| server.failures,
            ),
            (
                "backend_address_failures",
                "Failed attempts to connect to an address while another address of the same name serves",
                |server| server.spared,
            ),
            (
                "backend_unanswered",
                "Connections that a server of the backend closed cleanly before it sent a byte",
                |server| server.unanswered,
            ),
            (
                "backend_http_faults",
                "How often a server of the backend broke a rule of HTTP",
                |server| server.faults,
            ),
            (
                "backend_ejections",
                "How often a server of the backend was ejected: it got no requests for a time",
                |server| server.ejections,
            ),
        ];
        let config = self.config();
        let backends = config.backends.iter().enumerate();
        let backends: Vec<_> = backends
            .map(|(position, backend)| (backend, self.servers(position, backend)))
            .collect();
        for (name, help, of) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (backend, servers) in &backends {
                for (server, count) in servers {
                    let labels = [("backend", backend.name.as_str()), ("server", server)];
                    counter(&mut metric, &labels, of(count))?;
                }
            }
        }
        Ok(())
    }

    /// What all workers have counted of a backend's servers: of those that are configured, even where that is nothing, and of
    /// others that have been.
    pub(super) fn servers(
        &self,
        position: usize,
        backend: &Backend,
    ) -> BTreeMap<String, ServerCount> {
        let mut sums = BTreeMap::new();
        for worker in &self.0.workers {
            worker.servers[position].add_to(&mut sums);
        }
        for server in &backend.servers {
            if sums.len() >= limits::SERVERS_COUNTED_MAX {
                sums.entry(OTHER.to_owned()).or_default();
                break;
            }
            sums.entry(server.to_string()).or_default();
        }
        sums
    }
}
