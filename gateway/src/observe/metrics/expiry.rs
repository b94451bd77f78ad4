//! The part of the metrics page about what will end: our certificates, and those of clients that are connected.
//! In: the configuration, the workers' last counts of their clients. Out: samples. On the control thread.

use std::time::SystemTime;

use gateway_core::certificate::last_second;
use gateway_core::expiry::Band;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::super::clients::Clients;
use super::{Encoded, Metrics, gauge};

impl Metrics {
    pub(super) fn encode_lifetimes(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Part of its lifetime that each certificate the configuration names has left, from 1 to 0";
        let name = "certificate_lifetime_left_ratio";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let now = SystemTime::now();
        for certificate in &self.config().certificates {
            let file = certificate.file.to_string_lossy();
            let labels = [
                ("usage", certificate.usage.as_str()),
                ("file", &file),
                ("subject", certificate.subject.as_str()),
            ];
            let left = certificate.lifetime().left(now);
            metric.encode_family(&labels)?.encode_gauge(&left)?;
        }
        Ok(())
    }

    pub(super) fn encode_clients(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut clients = Clients::default();
        for worker in &self.0.workers {
            clients.add(worker.clients());
        }
        let config = self.config();
        let named = || {
            clients.sums().filter_map(|((listener, rule), sum)| {
                let listener = config.listeners.get(listener)?.name.as_str();
                Some((listener, (rule + 1).to_string(), sum))
            })
        };
        let help = "Connected clients, by what is left of their certificates' lifetime";
        let mut metric = encoder.encode_descriptor("clients", help, None, MetricType::Gauge)?;
        for (listener, rule, sum) in named() {
            for band in Band::ALL {
                let labels = [
                    ("listener", listener),
                    ("rule", &rule),
                    ("left", band.label()),
                ];
                gauge(&mut metric, &labels, sum.in_band[band.index()] as i64)?;
            }
        }
        let help = "When the first certificate of a connected client ends, in Unix time";
        let name = "clients_first_not_after_timestamp";
        let unit = Some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (listener, rule, sum) in named() {
            let end = last_second(sum.first_end).duration_since(SystemTime::UNIX_EPOCH);
            let seconds = end.map_or(0, |duration| duration.as_secs() as i64);
            let labels = [("listener", listener), ("rule", rule.as_str())];
            gauge(&mut metric, &labels, seconds)?;
        }
        Ok(())
    }
}
