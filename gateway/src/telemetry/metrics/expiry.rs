//! The part of the metrics page about what will end: our certificates, and those of clients that are connected.
//! In: the configuration, the workers' last counts of their clients. Out: samples. On the control thread.

use std::collections::HashMap;
use std::time::SystemTime;

use gateway_core::certificate::last_second;
use gateway_core::expiry::Band;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Encoded, Metrics, gauge};
use crate::config::{
    BackendId, CertificateFile, Config, Dependents, ListenerId, backend_ca_usage, client_ca_usage,
};
use crate::telemetry::clients::{AuthorityUse, ClientCounts};

/// The certificates of a configuration, one for each set of labels: a CA and its successor often have one file and one name. The
/// one to end first is shown of those whose end matters; where there is none, the one to end last.
pub(super) fn shown<'c>(config: &'c Config, dependents: &Dependents) -> Vec<&'c CertificateFile> {
    let place = |of: &'c CertificateFile| (&of.usage, &of.file, &of.subject);
    let matters = |of: &CertificateFile| dependents.matters(&of.usage, of.authority);
    let mut chosen: HashMap<_, &CertificateFile> = HashMap::new();
    for certificate in &config.certificates {
        let known = chosen.entry(place(certificate)).or_insert(certificate);
        let comes_first = match (matters(known), matters(certificate)) {
            (true, true) => certificate.not_after < known.not_after,
            (false, false) => certificate.not_after > known.not_after,
            (known, _) => !known,
        };
        if comes_first {
            *known = certificate;
        }
    }
    let certificates = config.certificates.iter();
    let is_chosen = |of: &&'c CertificateFile| {
        let chosen = chosen.get(&place(of));
        chosen.is_some_and(|chosen| std::ptr::eq(*chosen, *of))
    };
    certificates.filter(is_chosen).collect()
}

pub(super) fn labels<'l>(
    certificate: &'l CertificateFile,
    file: &'l str,
) -> [(&'static str, &'l str); 3] {
    [
        ("usage", certificate.usage.as_str()),
        ("file", file),
        ("subject", certificate.subject.as_str()),
    ]
}

impl Metrics {
    pub(super) fn encode_lifetimes(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Remaining share of the lifetime of each configured certificate, from 1 to 0";
        let name = "certificate_lifetime_left_ratio";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let now = SystemTime::now();
        let (config, dependents) = (self.config(), self.dependents());
        let shown = shown(&config, &dependents);
        for certificate in &shown {
            let file = certificate.file.to_string_lossy();
            let labels = labels(certificate, &file);
            let left = certificate.lifetime().left(now);
            metric.encode_family(&labels)?.encode_gauge(&left)?;
        }
        let authorities = shown.iter().filter_map(|certificate| {
            let file = certificate.file.to_string_lossy();
            Some((*certificate, file, certificate.authority?))
        });
        let authorities: Vec<_> = authorities.collect();
        let help = "1 for a CA with a successor if no open connection depends on that CA alone: its end refuses no connected client";
        let name = "certificate_superseded";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (certificate, file, authority) in &authorities {
            let matters = dependents.matters(&certificate.usage, Some(*authority));
            gauge(&mut metric, &labels(certificate, file), i64::from(!matters))?;
        }
        let help = "Connections that end with this CA and cannot reconnect, because their own certificates last longer";
        let name = "certificate_dependent_connections";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (certificate, file, authority) in &authorities {
            let count = dependents.of(&certificate.usage, *authority) as i64;
            gauge(&mut metric, &labels(certificate, file), count)?;
        }
        Ok(())
    }

    /// The connections that stand on a CA alone, as they were at the last count.
    pub fn dependents(&self) -> Dependents {
        let mut clients = ClientCounts::default();
        for worker in &self.0.workers {
            clients.add(worker.clients());
        }
        let config = self.config();
        let mut dependents = Dependents::default();
        for (side, authority, count) in clients.standing() {
            let usage = match side {
                AuthorityUse::Clients(ListenerId(position)) => {
                    let listener = config.listeners.get(position);
                    listener.map(|listener| client_ca_usage(listener))
                }
                AuthorityUse::Servers(BackendId(position)) => {
                    let backend = config.backends.get(position);
                    backend.map(|backend| backend_ca_usage(&backend.name))
                }
            };
            if let Some(usage) = usage {
                dependents.add(usage, authority, count);
            }
        }
        dependents
    }

    pub(super) fn encode_clients(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut clients = ClientCounts::default();
        for worker in &self.0.workers {
            clients.add(worker.clients());
        }
        let config = self.config();
        let named = || {
            clients
                .sums()
                .filter_map(|((ListenerId(listener), rule), sum)| {
                    let listener = config.listeners.get(listener)?.name.as_str();
                    Some((listener, (rule + 1).to_string(), sum))
                })
        };
        let help = "Connected clients, by the remaining lifetime of their certificates";
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
        let help = "Earliest end of a connected client's certificate, in Unix time";
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
