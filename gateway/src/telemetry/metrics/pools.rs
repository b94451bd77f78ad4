//! The part of the metrics page about connections to backends that requests share.
//! In: what the workers have counted last. Out: samples, of backends that requests go to. On the control thread.

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Encoded, Metrics, gauge};
use crate::telemetry::PoolCount;

impl Metrics {
    pub(super) fn encode_pools(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        type Of = fn(&PoolCount) -> u64;
        let gauges: [(&str, &str, Of); 5] = [
            (
                "backend_connections",
                "Connections to servers of the backend that requests share",
                |pool| pool.connections,
            ),
            (
                "backend_connections_stalled",
                "Of these, connections whose window stands at zero",
                |pool| pool.stalled,
            ),
            (
                "backend_requests",
                "Requests that servers of the backend have",
                |pool| pool.requests,
            ),
            (
                "backend_requests_waiting",
                "Requests that wait for a connection to the backend",
                |pool| pool.waiting,
            ),
            (
                "backend_servers_ejected",
                "Servers of the backend that get no requests for a time, summed over the workers",
                |pool| pool.ejected,
            ),
        ];
        let config = self.config();
        for (name, help, of) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (position, backend) in config.backends.iter().enumerate() {
                let workers = self.0.workers.iter();
                let pools: Vec<_> = workers.filter_map(|worker| worker.pool(position)).collect();
                if !pools.is_empty() {
                    let sum: u64 = pools.iter().map(of).sum();
                    gauge(&mut metric, &[("backend", &backend.name)], sum as i64)?;
                }
            }
        }
        Ok(())
    }
}
