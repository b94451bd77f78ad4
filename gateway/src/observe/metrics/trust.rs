//! Trust's part of the metrics page: reloads, revocation lists, and the certificates of the configuration.
//! In: the configuration and counts of reloads. Out: samples. On the control thread.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Encoded, Metrics, counter, gauge};

impl Metrics {
    pub(super) fn encode_reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Reloads of the configuration: taken, or refused with the old one going on";
        let mut metric = encoder.encode_descriptor("reloads", help, None, MetricType::Counter)?;
        for (result, reloads) in ["refused", "taken"].into_iter().zip(&self.0.reloads) {
            counter(
                &mut metric,
                &[("result", result)],
                reloads.load(Ordering::Relaxed),
            )?;
        }
        let help = "Entries of each listener's revocation lists";
        let mut metric = encoder.encode_descriptor("crl_entries", help, None, MetricType::Gauge)?;
        let config = self.config();
        for listener in &config.listeners {
            let entries: usize = listener
                .revocation
                .lists()
                .map(|(_, list)| list.len())
                .sum();
            gauge(&mut metric, &[("listener", &listener.name)], entries as i64)?;
        }
        let help = "When the first of a listener's revocation lists ends, in Unix time";
        let name = "crl_next_update_timestamp";
        let unit = Some(&Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for listener in &config.listeners {
            let ends = listener
                .revocation
                .lists()
                .map(|(_, list)| list.next_update());
            let Some(first) = ends.min() else { continue };
            let first = first.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = first.map_or(0, |duration| duration.as_secs() as i64);
            gauge(&mut metric, &[("listener", &listener.name)], seconds)?;
        }
        Ok(())
    }

    pub(super) fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "End of validity of each certificate the configuration names, in Unix time";
        let name = "certificate_not_after_timestamp";
        let mut metric =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for certificate in &self.config().certificates {
            let not_after = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
            let file = certificate.file.to_string_lossy();
            let labels = [
                ("usage", certificate.usage.as_str()),
                ("file", &file),
                ("subject", certificate.subject.as_str()),
            ];
            gauge(
                &mut metric,
                &labels,
                not_after.map_or(0, |duration| duration.as_secs() as i64),
            )?;
        }
        Ok(())
    }
}
