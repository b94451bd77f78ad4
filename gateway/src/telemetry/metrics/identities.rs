//! The identities' part of the metrics page: those that are slowed down to their rate.
//! In: the usage of identities with limits. Out: samples. On the control thread.

use gateway_core::authority::TrustDomain;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Encoded, Metrics};

impl Metrics {
    pub(super) fn encode_identities(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Time for which bytes_per_second made bytes of an identity wait, summed over its connections";
        let mut metric = encoder.encode_descriptor(
            "identity_slowed",
            help,
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        for (identity, slowed_for) in self.0.usage.slowed() {
            let trust_domain = identity.trust_domain.as_ref();
            let labels = [
                ("identity", identity.name.as_str()),
                ("kind", identity.kind.label()),
                ("trust_domain", trust_domain.map_or("", TrustDomain::as_str)),
            ];
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&slowed_for.as_secs_f64(), None)?;
        }
        Ok(())
    }
}
