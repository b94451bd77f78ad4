//! `portcullis guard status`: what the guard does and what it has counted. In: a snapshot. Out: tables or JSON, and exit
//! code 3 where no gateway answers for the kernel program.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use gateway_common::{DropReason, PacketVerdict, PassReason, PortCounter, Reason};
use gateway_guard::{Attachment, LIFE_NS, PortCount};
use serde::Serialize;

use super::shown::{mode_name, seconds, table};
use super::snapshot::{Heartbeat, Snapshot};
use super::{Common, NOT_ACTED_BY};

/// Arguments of `portcullis guard status`.
#[derive(Debug, Args)]
pub struct GuardStatus {
    #[command(flatten)]
    common: Common,
}

impl GuardStatus {
    /// Prints the status.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let snapshot = Snapshot::take(&self.common.which.paths()?.name)?;
        super::print(&self.common, &StatusReport::of(&snapshot), || {
            text(&snapshot)
        })?;
        Ok(match snapshot.heartbeat() {
            Heartbeat::Alive(_) => ExitCode::SUCCESS,
            Heartbeat::Never | Heartbeat::Gone(_) => ExitCode::from(NOT_ACTED_BY),
        })
    }
}

/// The status as JSON.
#[derive(Debug, Serialize)]
struct StatusReport {
    mode: &'static str,
    /// Whether a gateway answers for the kernel program.
    alive: bool,
    /// Seconds since it last did; absent if none ever has.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_age_seconds: Option<f64>,
    /// Whether connections are followed.
    attached: bool,
    attachments: Vec<Place>,
    sources: Summary,
    lost: BTreeMap<&'static str, u64>,
    ports: Vec<Port>,
}

/// Where the program is attached, and how.
#[derive(Debug, Serialize)]
pub struct Place {
    pub interface: String,
    pub mode: &'static str,
}

#[derive(Debug, Serialize)]
struct Summary {
    known: usize,
    pending_flows: u64,
    banned: usize,
}

/// What was counted at a port, by the labels of the metrics.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    pub port: u16,
    pub packets: u64,
    pub bytes: u64,
    pub flows_opened: u64,
    pub flows: BTreeMap<&'static str, u64>,
    pub passed: BTreeMap<&'static str, u64>,
    pub dropped: BTreeMap<&'static str, u64>,
    pub would_drop: BTreeMap<&'static str, u64>,
}

impl StatusReport {
    fn of(snapshot: &Snapshot) -> Self {
        let heartbeat = snapshot.heartbeat();
        Self {
            mode: mode_name(snapshot.settings.mode),
            alive: matches!(heartbeat, Heartbeat::Alive(_)),
            heartbeat_age_seconds: age_seconds(heartbeat),
            attached: snapshot.is_attached,
            attachments: snapshot.attachments.iter().map(Place::of).collect(),
            lost: overflows(snapshot).collect(),
            sources: Summary::of(snapshot),
            ports: snapshot.counts.iter().map(Port::of).collect(),
        }
    }
}

/// What there was no room for, if anything.
fn overflows(snapshot: &Snapshot) -> impl Iterator<Item = (&'static str, u64)> {
    let lost = snapshot.overflows.iter().filter(|(_, count)| *count > 0);
    lost.map(|(overflow, count)| (overflow.label(), *count))
}

/// How old the last heartbeat is, to a tenth of a second.
fn age_seconds(heartbeat: Heartbeat) -> Option<f64> {
    let age = match heartbeat {
        Heartbeat::Never => return None,
        Heartbeat::Alive(age) => age,
        Heartbeat::Gone(since) => since + Duration::from_nanos(LIFE_NS),
    };
    Some((age.as_secs_f64() * 10.0).round() / 10.0)
}

impl Place {
    pub fn of(attachment: &Attachment) -> Self {
        Self {
            interface: attachment.interface.clone(),
            mode: attachment.mode.name(),
        }
    }
}

impl Summary {
    fn of(snapshot: &Snapshot) -> Self {
        let states = snapshot.sources.values();
        Self {
            known: snapshot.sources.len(),
            pending_flows: states.map(|state| state.account.pending).sum(),
            banned: snapshot.bans_in_force(),
        }
    }
}

impl Port {
    /// Reasons and verdicts that have not come up are left out.
    pub fn of(count: &PortCount) -> Self {
        let counter = &count.counter;
        let drops = |verdict: fn(DropReason) -> PacketVerdict| {
            seen(DropReason::ALL.map(|drop| (drop.label(), counter.packets_with(verdict(drop)))))
        };
        Self {
            port: count.port,
            packets: count.packets,
            bytes: count.bytes,
            flows_opened: counter.flows_opened,
            flows: seen(Reason::ALL.map(|reason| (reason.label(), counter.flow(reason)))),
            passed: seen(PassReason::ALL.map(|pass| {
                (
                    pass.label(),
                    counter.packets_with(PacketVerdict::Passed(pass)),
                )
            })),
            dropped: drops(PacketVerdict::Dropped),
            would_drop: drops(PacketVerdict::WouldDrop),
        }
    }
}

fn seen<const N: usize>(counts: [(&'static str, u64); N]) -> BTreeMap<&'static str, u64> {
    let counts = counts.into_iter();
    counts.filter(|(_, count)| *count > 0).collect()
}

fn text(snapshot: &Snapshot) -> String {
    let gateway = match snapshot.heartbeat() {
        Heartbeat::Alive(age) => format!("answered {:.1}s ago", age.as_secs_f64()),
        Heartbeat::Never => "none has answered yet: everything passes".to_owned(),
        Heartbeat::Gone(since) => {
            let since = seconds(since.as_nanos().try_into().unwrap_or(u64::MAX));
            format!("gone; everything has been passing for {since}")
        }
    };
    let attached: Vec<String> = snapshot.attachments.iter().map(shown_place).collect();
    let attached = match (snapshot.is_attached, attached.is_empty()) {
        (false, _) => "no: it was detached, and a restart attaches it again".to_owned(),
        (true, true) => "to connections; to the packets of no interface".to_owned(),
        (true, false) => format!("to connections, and to packets of {}", attached.join(", ")),
    };
    let Summary {
        known,
        pending_flows,
        banned,
    } = Summary::of(snapshot);
    let mode = mode_name(snapshot.settings.mode);
    let head = format!(
        "mode      {mode}\ngateway   {gateway}\nattached  {attached}\n\
         sources   {known} known, {banned} banned, {pending_flows} flows waiting\n"
    );
    let counts = &snapshot.counts;
    let ports = table(
        ["port", "packets", "bytes", "flows"],
        counts.iter().map(|count| {
            [
                count.port.to_string(),
                count.packets.to_string(),
                count.bytes.to_string(),
                count.counter.flows_opened.to_string(),
            ]
        }),
    );
    let flows = rows(counts, |counter| {
        Reason::ALL.map(|reason| (reason.label(), counter.flow(reason)))
    });
    let flows = section(["port", "flows ended", "count"], flows);
    let passed = rows(counts, |counter| {
        PassReason::ALL.map(|pass| {
            (
                pass.label(),
                counter.packets_with(PacketVerdict::Passed(pass)),
            )
        })
    });
    let passed = section(["port", "packets passed", "count"], passed);
    let dropped = |title, verdict: fn(DropReason) -> PacketVerdict| {
        let rows = rows(counts, |counter| {
            DropReason::ALL.map(|drop| (drop.label(), counter.packets_with(verdict(drop))))
        });
        section(["port", title, "count"], rows)
    };
    let drops = dropped("packets dropped", PacketVerdict::Dropped);
    let would_drop = dropped("packets that enforce would drop", PacketVerdict::WouldDrop);
    let lost = overflows(snapshot).map(|(label, count)| [label.to_owned(), count.to_string()]);
    let lost = section(["no room for", "count"], lost.collect());
    format!("{head}\n{ports}{flows}{passed}{drops}{would_drop}{lost}")
}

fn shown_place(attachment: &Attachment) -> String {
    format!("{} ({})", attachment.interface, attachment.mode.name())
}

/// What has come up, by port.
fn rows<const N: usize>(
    counts: &[PortCount],
    of: impl Fn(&PortCounter) -> [(&'static str, u64); N],
) -> Vec<[String; 3]> {
    let rows = counts.iter().flat_map(|count| {
        let seen = of(&count.counter).into_iter().filter(|(_, seen)| *seen > 0);
        seen.map(|(label, seen)| [count.port.to_string(), label.to_owned(), seen.to_string()])
    });
    rows.collect()
}

/// A table after an empty line; nothing where there is nothing in it.
fn section<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}", table(header, rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::samples::{NOW_NS, SECOND_NS, busy, quiet};
    use super::*;

    #[test]
    fn a_quiet_guard_shows_its_ports_and_no_empty_table() {
        assert_eq!(
            text(&quiet()),
            "mode      enforce\n\
             gateway   answered 1.0s ago\n\
             attached  to connections, and to packets of eth0 (native)\n\
             sources   0 known, 0 banned, 0 flows waiting\n\
             \n\
             port  packets  bytes  flows\n\
             4317  0        0      0\n"
        );
    }

    #[test]
    fn a_busy_one_shows_flows_by_reason_and_packets_by_fate() {
        let text = text(&busy());
        let after = text.split_once("sources   ").unwrap().1;
        assert_eq!(
            after,
            "5 known, 2 banned, 10 flows waiting\n\
             \n\
             port  packets  bytes   flows\n\
             4317  1500     200000  40\n\
             \n\
             port  flows ended    count\n\
             4317  authenticated  25\n\
             4317  not_tls        11\n\
             \n\
             port  packets passed  count\n\
             4317  authenticated   1000\n\
             \n\
             port  packets dropped  count\n\
             4317  banned           480\n\
             \n\
             port  packets that enforce would drop  count\n\
             4317  too_many_pending                 20\n\
             \n\
             no room for  count\n\
             flow         7\n"
        );
    }

    #[test]
    fn a_gateway_that_is_gone_is_the_first_thing_to_see() {
        let mut snapshot = quiet();
        snapshot.settings.alive_until_ns = NOW_NS - 90 * SECOND_NS;
        snapshot.attachments.clear();
        let text = text(&snapshot);
        assert!(
            text.contains("everything has been passing for 1m 30s\n"),
            "{text}"
        );
        let nowhere = "attached  to connections; to the packets of no interface\n";
        assert!(text.contains(nowhere), "{text}");
        let report = StatusReport::of(&snapshot);
        assert_eq!(
            (report.alive, report.heartbeat_age_seconds),
            (false, Some(100.0))
        );
        snapshot.settings.alive_until_ns = 0;
        let report = StatusReport::of(&snapshot);
        assert_eq!((report.alive, report.heartbeat_age_seconds), (false, None));
    }

    #[test]
    fn as_json_it_says_the_same() {
        let json = serde_json::to_value(StatusReport::of(&busy())).unwrap();
        let expected = serde_json::json!({
            "mode": "enforce",
            "alive": true,
            "heartbeat_age_seconds": 1.0,
            "attached": true,
            "lost": { "flow": 7 },
            "attachments": [{ "interface": "eth0", "mode": "native" }],
            "sources": { "known": 5, "pending_flows": 10, "banned": 2 },
            "ports": [{
                "port": 4317,
                "packets": 1500,
                "bytes": 200_000,
                "flows_opened": 40,
                "flows": { "authenticated": 25, "not_tls": 11 },
                "passed": { "authenticated": 1000 },
                "dropped": { "banned": 480 },
                "would_drop": { "too_many_pending": 20 },
            }],
        });
        assert_eq!(json, expected);
    }
}
