//! `portcullis guard sources`: the sources that have pending flows, owe points or are banned. In: a snapshot. Out: a table or
//! JSON, the highest debt first.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use gateway_core::sources::SourceState;
use serde::Serialize;

use super::Common;
use super::shown::{seconds, source_name, table, whole_seconds};
use super::snapshot::Snapshot;

/// Arguments of `portcullis guard sources`.
#[derive(Debug, Args)]
pub struct Sources {
    #[command(flatten)]
    common: Common,
    /// Maximum number of sources to show
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
}

impl Sources {
    /// Prints the sources.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let snapshot = Snapshot::take(&self.common.which.paths()?.name)?;
        let report = SourcesReport::of(&snapshot, self.limit);
        super::print(&self.common, &report, || text(&report))
    }
}

/// The sources as JSON.
#[derive(Debug, Serialize)]
struct SourcesReport {
    /// Debt beyond which a source is banned.
    ban_points: f64,
    sources: Vec<SourceRow>,
    /// Sources beyond the limit.
    left_out: usize,
}

#[derive(Debug, Serialize)]
struct SourceRow {
    source: String,
    pending_flows: u64,
    debt_points: f64,
    /// Seconds until its ban ends, if it is banned.
    #[serde(skip_serializing_if = "Option::is_none")]
    banned_for_seconds: Option<u64>,
    #[serde(skip)]
    banned_for_ns: Option<u64>,
}

impl SourcesReport {
    /// Sources that nothing is held against are left out: the kernel forgets them when it needs the room.
    fn of(snapshot: &Snapshot, limit: usize) -> Self {
        let rows = snapshot.sources.iter();
        let mut rows: Vec<SourceRow> = rows
            .map(|(address, state)| SourceRow::of(address, state, snapshot))
            .filter(|row| {
                row.pending_flows > 0 || row.debt_points > 0.0 || row.banned_for_ns.is_some()
            })
            .collect();
        rows.sort_by(|one, other| {
            let debt = other.debt_points.total_cmp(&one.debt_points);
            debt.then(other.pending_flows.cmp(&one.pending_flows))
        });
        let left_out = rows.len().saturating_sub(limit);
        rows.truncate(limit);
        Self {
            ban_points: snapshot.ban_points(),
            sources: rows,
            left_out,
        }
    }
}

impl SourceRow {
    fn of(address: &IpAddr, state: &SourceState, snapshot: &Snapshot) -> Self {
        let ban = state.ban.filter(|ban| ban.holds(snapshot.now_ns));
        let banned_for_ns = ban.map(|ban| ban.until_ns - snapshot.now_ns);
        Self {
            source: source_name(address),
            pending_flows: state.account.pending,
            debt_points: (snapshot.debt_points(&state.account) * 10.0).round() / 10.0,
            banned_for_seconds: banned_for_ns.map(whole_seconds),
            banned_for_ns,
        }
    }
}

fn text(report: &SourcesReport) -> String {
    if report.sources.is_empty() && report.left_out == 0 {
        return "no source has points, a ban or waiting connections\n".to_owned();
    }
    let rows = report.sources.iter().map(|row| {
        [
            row.source.clone(),
            row.pending_flows.to_string(),
            format!("{:.1} of {:.0}", row.debt_points, report.ban_points),
            row.banned_for_ns.map_or("-".to_owned(), seconds),
        ]
    });
    let table = table(["source", "flows waiting", "debt", "banned for"], rows);
    match report.left_out {
        0 => table,
        more => format!("{table}and {more} more: see --limit\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::samples::{busy, quiet};
    use super::*;

    #[test]
    fn whoever_owes_most_stands_first_and_the_blameless_not_at_all() {
        assert_eq!(
            text(&SourcesReport::of(&busy(), 50)),
            "source         flows waiting  debt         banned for\n\
             192.0.2.1      3              50.0 of 100  -\n\
             192.0.2.3      0              20.0 of 100  20s\n\
             2001:db8::/64  7              0.0 of 100   1h\n"
        );
    }

    #[test]
    fn what_the_limit_cuts_off_is_said() {
        let text = text(&SourcesReport::of(&busy(), 1));
        assert!(text.ends_with("-\nand 2 more: see --limit\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn with_nobody_there_is_no_table() {
        let text = text(&SourcesReport::of(&quiet(), 50));
        assert_eq!(text, "no source has points, a ban or waiting connections\n");
    }

    #[test]
    fn as_json_it_says_the_same() {
        let json = serde_json::to_value(SourcesReport::of(&busy(), 2)).unwrap();
        let expected = serde_json::json!({
            "ban_points": 100.0,
            "sources": [
                { "source": "192.0.2.1", "pending_flows": 3, "debt_points": 50.0 },
                { "source": "192.0.2.3", "pending_flows": 0, "debt_points": 20.0, "banned_for_seconds": 20 },
            ],
            "left_out": 1,
        });
        assert_eq!(json, expected);
    }
}
