//! The guard's part of the metrics page: what the kernel counted.
//! In: the guard's maps. Out: samples. On the control thread.

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Encoded, Metrics, counter};
use crate::guard::Guard;

impl Metrics {
    pub(super) fn encode_guard(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let Some(counts) = self.with_guard(Guard::counts) else {
            return Ok(());
        };
        let counts = match counts {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!(%error, "cannot read the guard's counters");
                return Ok(());
            }
        };
        let labelled = |port: u16| port.to_string();
        let help = "Packets to a protected port, counted in the kernel";
        let mut metric =
            encoder.encode_descriptor("guard_packets", help, None, MetricType::Counter)?;
        for count in &counts {
            counter(
                &mut metric,
                &[("port", &labelled(count.port))],
                count.packets,
            )?;
        }
        let help = "Bytes to a protected port, counted in the kernel";
        let mut metric = encoder.encode_descriptor(
            "guard_received",
            help,
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for count in &counts {
            counter(&mut metric, &[("port", &labelled(count.port))], count.bytes)?;
        }
        Ok(())
    }
}
