//! The audit log's part of the metrics page.
//! In: its counters. Out: samples. On the control thread.

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::{Encoded, Metrics, counter};

impl Metrics {
    pub(super) fn encode_audit(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let audit = &self.0.audit;
        let help = "Audit lines dropped because they came faster than the gateway could write them";
        let mut metric =
            encoder.encode_descriptor("audit_dropped", help, None, MetricType::Counter)?;
        counter(&mut metric, &[], audit.dropped())?;
        let help = "Failed attempts to write or reopen the audit log";
        let mut metric =
            encoder.encode_descriptor("audit_write_errors", help, None, MetricType::Counter)?;
        counter(&mut metric, &[], audit.write_errors())
    }
}
