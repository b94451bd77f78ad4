//! The part of the metrics page about connections to backends that requests share.
//! In: what the workers have counted last. Out: samples, of backends that requests go to. On the control thread.

use gateway_core::http::pool::ServerCondition;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Encoded, Metrics, gauge};
use crate::telemetry::PoolCount;
use crate::telemetry::server_counts::OTHER;

impl Metrics {
    pub(super) fn encode_pools(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        type Of = fn(&PoolCount) -> u64;
        let gauges: [(&str, &str, Of); 4] = [
            (
                "backend_connections",
                "Connections to servers of the backend that requests share",
                |pool| pool.connections,
            ),
            (
                "backend_connections_stalled",
                "Of these, connections on which no content moves, since the server gives no credit",
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
        self.encode_left_out(encoder)
    }

    fn encode_left_out(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let name = "backend_servers_left_out";
        let help = "Workers that send nothing to the server while others can serve, by the reason";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let config = self.config();
        for (position, backend) in config.backends.iter().enumerate() {
            let workers = self.0.workers.iter();
            let pools: Vec<_> = workers.filter_map(|worker| worker.pool(position)).collect();
            if pools.is_empty() {
                continue;
            }
            let servers = self.servers(position, backend);
            let counted = |name: &String| match servers.contains_key(name) {
                true => name.clone(),
                false => OTHER.to_owned(),
            };
            let left_out = pools.iter().flat_map(|pool| &pool.left_out);
            let left_out: Vec<_> = left_out
                .map(|(name, condition)| (counted(name), *condition))
                .collect();
            for server in servers.keys() {
                for condition in ServerCondition::LEFT_OUT {
                    let is_it = |(name, other): &&(String, ServerCondition)| {
                        name == server && *other == condition
                    };
                    let count = left_out.iter().filter(is_it).count() as i64;
                    let labels = [
                        ("backend", backend.name.as_str()),
                        ("server", server),
                        ("condition", condition.label()),
                    ];
                    gauge(&mut metric, &labels, count)?;
                }
            }
        }
        Ok(())
    }
}
