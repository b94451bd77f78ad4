//! Trust's part of the metrics page: reloads, and the certificates of the configuration.
//! In: the configuration and counts of reloads. Out: samples. On the control thread.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::expiry::{labels, shown};
use super::{Encoded, Metrics, counter, gauge};

impl Metrics {
    pub(super) fn encode_reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help =
            "Reloads of the configuration: taken, or refused, with the old configuration in force";
        let mut metric = encoder.encode_descriptor("reloads", help, None, MetricType::Counter)?;
        for (result, reloads) in ["refused", "taken"].into_iter().zip(&self.0.reloads) {
            counter(
                &mut metric,
                &[("result", result)],
                reloads.load(Ordering::Relaxed),
            )?;
        }
        Ok(())
    }

    pub(super) fn encode_certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "End of validity of each configured certificate, in Unix time";
        let name = "certificate_not_after_timestamp";
        let mut metric =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        let (config, dependents) = (self.config(), self.dependents());
        for certificate in shown(&config, &dependents) {
            let not_after = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
            let file = certificate.file.to_string_lossy();
            gauge(
                &mut metric,
                &labels(certificate, &file),
                not_after.map_or(0, |duration| duration.as_secs() as i64),
            )?;
        }
        Ok(())
    }
}
