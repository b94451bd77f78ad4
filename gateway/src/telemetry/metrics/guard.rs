//! The guard's part of the metrics page: what the kernel counted, the sources it has banned, and whether it is there.
//! In: the guard's maps. Out: samples. On the control thread.

use gateway_common::{DropReason, Overflow, PacketVerdict, PassReason, Reason};
use gateway_core::sources::{Refusal, SourceState};
use gateway_guard::{GuardError, Maps, PortCount, SourceTable, now_ns};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Encoded, Metrics, counter, gauge};

impl Metrics {
    pub(super) fn encode_guard(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let config = self.config();
        let guard = &self.0.guard;
        let help = "1 for the configured mode of [guard]";
        let mut metric = encoder.encode_descriptor("guard_mode", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[("mode", config.guard.mode.name())], 1)?;
        let help = "1 while the kernel programs are attached; otherwise the gateway keeps accounts by itself, if at all";
        let mut metric =
            encoder.encode_descriptor("guard_attached", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[], i64::from(guard.is_attached()))?;
        let help = "1 for each interface whose packets the guard checks, with the kind of attachment; 0 for an interface that is missing";
        let mut metric =
            encoder.encode_descriptor("guard_interface", help, None, MetricType::Gauge)?;
        for attachment in guard.attachments() {
            let labels = [
                ("interface", attachment.interface.as_str()),
                ("attached", attachment.mode.name()),
            ];
            gauge(&mut metric, &labels, 1)?;
        }
        for interface in guard.unattached() {
            let labels = [("interface", interface.as_str()), ("attached", "none")];
            gauge(&mut metric, &labels, 0)?;
        }
        let help = "Bans begun since the start";
        let mut metric =
            encoder.encode_descriptor("guard_bans", help, None, MetricType::Counter)?;
        counter(&mut metric, &[], guard.bans())?;
        let help = "Verdicts that the kernel did not accept because it did not know the connection";
        let mut metric =
            encoder.encode_descriptor("guard_unheard_verdicts", help, None, MetricType::Counter)?;
        counter(&mut metric, &[], guard.source_admission().undelivered())?;
        match guard.with_maps(|maps| MapCounts::of(maps)) {
            Some(Ok(counts)) => counts.encode(encoder),
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot read the guard's maps");
                Ok(())
            }
            None => guard
                .source_table()
                .map_or(Ok(()), |table| encode_source_table(table, encoder)),
        }
    }
}

/// What stands in our own table of sources, over all ports.
fn encode_source_table(table: &SourceTable, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
    const ALL_PORTS: (&str, &str) = ("port", "all");
    let counts = table.counts();
    let mut metric = encoder.encode_descriptor(
        "guard_flows_opened",
        FLOWS_OPENED,
        None,
        MetricType::Counter,
    )?;
    counter(&mut metric, &[ALL_PORTS], counts.opened())?;
    let mut metric = encoder.encode_descriptor("guard_flows", FLOWS, None, MetricType::Counter)?;
    for reason in Reason::ALL {
        let labels = [ALL_PORTS, ("reason", reason.label())];
        counter(&mut metric, &labels, counts.flow(reason))?;
    }
    let help = "Connections by the gateway's decision at accept, without the kernel programs";
    let mut metric =
        encoder.encode_descriptor("guard_judged_connections", help, None, MetricType::Counter)?;
    for refusal in Refusal::ALL {
        let reason = ("reason", refusal.label());
        let refused = counts.refused(refusal);
        counter(&mut metric, &[("verdict", "refused"), reason], refused)?;
        let would_refuse = counts.would_refuse(refusal);
        counter(
            &mut metric,
            &[("verdict", "would_refuse"), reason],
            would_refuse,
        )?;
    }
    let now_ns = now_ns();
    let is_banned = |state: &SourceState| state.ban.is_some_and(|ban| ban.holds(now_ns));
    let banned = table
        .sources()
        .values()
        .filter(|state| is_banned(state))
        .count();
    let mut metric =
        encoder.encode_descriptor("guard_bans_in_force", IN_FORCE, None, MetricType::Gauge)?;
    gauge(&mut metric, &[], banned as i64)
}

const FLOWS_OPENED: &str = "Connections to protected ports that completed the three-way handshake";
const FLOWS: &str =
    "Connections to protected ports that completed the three-way handshake, by outcome";
const IN_FORCE: &str = "Sources banned now";

/// What stands in the kernel's maps.
struct MapCounts {
    counts: Vec<PortCount>,
    bans_in_force: usize,
    open_flows: usize,
    overflows: Vec<(Overflow, u64)>,
}

impl MapCounts {
    fn of(maps: &Maps) -> Result<Self, GuardError> {
        let now_ns = now_ns();
        let bans = maps.bans()?;
        Ok(Self {
            counts: maps.counts()?,
            bans_in_force: bans.iter().filter(|(_, ban)| ban.holds(now_ns)).count(),
            open_flows: maps.open_flows()?,
            overflows: maps.overflows()?,
        })
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        self.encode_packets(encoder)?;
        self.encode_flows(encoder)?;
        let mut metric =
            encoder.encode_descriptor("guard_bans_in_force", IN_FORCE, None, MetricType::Gauge)?;
        gauge(&mut metric, &[], self.bans_in_force as i64)?;
        let help = "Sources, flows, bans and events that the kernel had no room for, by kind";
        let mut metric =
            encoder.encode_descriptor("guard_lost", help, None, MetricType::Counter)?;
        for (overflow, count) in &self.overflows {
            counter(&mut metric, &[("what", overflow.label())], *count)?;
        }
        Ok(())
    }

    fn encode_packets(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let help = "Packets to protected ports, counted in the kernel";
        let mut metric =
            encoder.encode_descriptor("guard_packets", help, None, MetricType::Counter)?;
        for count in &self.counts {
            let labels = [("port", count.port.to_string())];
            counter(&mut metric, &borrowed(&labels), count.packets)?;
        }
        let help = "Bytes to protected ports, counted in the kernel";
        let unit = Some(&Unit::Bytes);
        let mut metric =
            encoder.encode_descriptor("guard_received", help, unit, MetricType::Counter)?;
        for count in &self.counts {
            let labels = [("port", count.port.to_string())];
            counter(&mut metric, &borrowed(&labels), count.bytes)?;
        }
        let help = "Packets to protected ports, by verdict and reason";
        let mut metric =
            encoder.encode_descriptor("guard_judged_packets", help, None, MetricType::Counter)?;
        for count in &self.counts {
            for (verdict, reason, packets) in packet_verdicts(count) {
                let labels = [
                    ("port", count.port.to_string()),
                    ("verdict", verdict.to_owned()),
                    ("reason", reason.to_owned()),
                ];
                counter(&mut metric, &borrowed(&labels), packets)?;
            }
        }
        Ok(())
    }

    fn encode_flows(&self, encoder: &mut DescriptorEncoder<'_>) -> Encoded {
        let mut metric = encoder.encode_descriptor(
            "guard_flows_opened",
            FLOWS_OPENED,
            None,
            MetricType::Counter,
        )?;
        for count in &self.counts {
            let labels = [("port", count.port.to_string())];
            counter(&mut metric, &borrowed(&labels), count.counter.flows_opened)?;
        }
        let mut metric =
            encoder.encode_descriptor("guard_flows", FLOWS, None, MetricType::Counter)?;
        for count in &self.counts {
            for reason in Reason::ALL {
                let labels = [
                    ("port", count.port.to_string()),
                    ("reason", reason.label().to_owned()),
                ];
                counter(&mut metric, &borrowed(&labels), count.counter.flow(reason))?;
            }
        }
        let help = "Open connections to protected ports";
        let mut metric =
            encoder.encode_descriptor("guard_flows_open", help, None, MetricType::Gauge)?;
        gauge(&mut metric, &[], self.open_flows as i64)
    }
}

fn borrowed<'a, const N: usize>(labels: &'a [(&'a str, String); N]) -> [(&'a str, &'a str); N] {
    labels
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()))
}

/// Verdict, reason and number of packets, for everything that can become of a packet.
fn packet_verdicts(count: &PortCount) -> Vec<(&'static str, &'static str, u64)> {
    let passed = PassReason::ALL.into_iter().map(PacketVerdict::Passed);
    let dropped = DropReason::ALL.into_iter().map(PacketVerdict::Dropped);
    let would_drop = DropReason::ALL.into_iter().map(PacketVerdict::WouldDrop);
    let verdicts = passed.chain(dropped).chain(would_drop);
    let named = verdicts.map(|packet_verdict| {
        let (verdict, reason) = match packet_verdict {
            PacketVerdict::Passed(pass) => ("passed", pass.label()),
            PacketVerdict::Dropped(drop) => ("dropped", drop.label()),
            PacketVerdict::WouldDrop(drop) => ("would_drop", drop.label()),
        };
        (verdict, reason, count.counter.packets_with(packet_verdict))
    });
    named.collect()
}
