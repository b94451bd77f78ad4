//! `portcullis guard bans`: the banned sources, for how much longer, why and by which account. In: a snapshot, and the notes
//! on bans by hand. Out: a table or JSON, the longest first.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use gateway_common::Ban;
use serde::Serialize;

use super::Common;
use super::notes::Notes;
use super::shown::{seconds, source_name, table, whole_seconds};
use super::snapshot::Snapshot;

/// Arguments of `portcullis guard bans`.
#[derive(Debug, Args)]
pub struct Bans {
    #[command(flatten)]
    common: Common,
    /// Also those that are over, and make the next one longer
    #[arg(long)]
    all: bool,
}

impl Bans {
    /// Prints the bans.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let paths = self.common.which.paths()?;
        let snapshot = Snapshot::take(&paths.name)?;
        let notes = Notes::load(&paths.ban_notes()).unwrap_or_else(|error| {
            eprintln!("portcullis: cannot show the reasons of manual bans: {error}");
            Notes::default()
        });
        let rows = rows(&snapshot, &notes, self.all);
        super::print(&self.common, &rows, || text(&rows))?;
        if !self.common.json
            && !rows.is_empty()
            && let Some(why) = snapshot.why_nothing_is_dropped()
        {
            eprintln!("portcullis: the guard does not act by these: {why}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One ban.
#[derive(Debug, Serialize)]
struct BanRow {
    source: String,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_seconds_ago: Option<u64>,
    length_seconds: u64,
    #[serde(flatten)]
    story: Story,
    #[serde(skip)]
    left_ns: i64,
    #[serde(skip)]
    length_ns: u64,
}

/// Why a ban began, and by whose will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub by: String,
}

impl Story {
    /// What is known of a ban.
    pub fn of(source: &IpAddr, ban: &Ban, notes: &Notes) -> Self {
        let Some(user) = ban.ordered_by() else {
            let reason = ban.tipped_by().map(|reason| reason.label().to_owned());
            let by = "guard".to_owned();
            return Self { reason, by };
        };
        match notes.find(source, ban) {
            Some(note) => Self {
                reason: note.reason.clone(),
                by: note.by.clone(),
            },
            None => Self {
                reason: None,
                by: format!("uid {user}"),
            },
        }
    }
}

fn rows(snapshot: &Snapshot, notes: &Notes, all: bool) -> Vec<BanRow> {
    let bans = snapshot
        .sources
        .iter()
        .filter_map(|(source, state)| Some((source, state.ban?)));
    let mut rows: Vec<BanRow> = bans
        .filter(|(_, ban)| all || ban.holds(snapshot.now_ns))
        .map(|(source, ban)| {
            // As signed, as the kernel compares moments.
            let left_ns = ban.until_ns.wrapping_sub(snapshot.now_ns) as i64;
            let in_force = ban.holds(snapshot.now_ns);
            let distance = whole_seconds(left_ns.unsigned_abs());
            BanRow {
                source: source_name(source),
                in_force,
                left_seconds: in_force.then_some(distance),
                ended_seconds_ago: (!in_force).then_some(distance),
                length_seconds: whole_seconds(ban.lasts_ns),
                story: Story::of(source, &ban, notes),
                left_ns,
                length_ns: ban.lasts_ns,
            }
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.left_ns));
    rows
}

fn text(rows: &[BanRow]) -> String {
    if rows.is_empty() {
        return "no source is banned\n".to_owned();
    }
    let rows = rows.iter().map(|row| {
        let distance = seconds(row.left_ns.unsigned_abs());
        [
            row.source.clone(),
            match row.in_force {
                true => distance,
                false => format!("ended {distance} ago"),
            },
            seconds(row.length_ns),
            row.story.reason.clone().unwrap_or_default(),
            row.story.by.clone(),
        ]
    });
    table(["source", "left", "length", "reason", "by"], rows)
}

#[cfg(test)]
mod tests {
    use super::super::notes::BanNote;
    use super::super::snapshot::samples::{busy, quiet};
    use super::*;
    use gateway::config::Paths;

    #[test]
    fn those_in_force_are_listed_with_what_is_known_of_them() {
        assert_eq!(
            text(&rows(&busy(), &Notes::default(), false)),
            "source         left  length  reason   by\n\
             2001:db8::/64  1h    1h               uid 0\n\
             192.0.2.3      20s   1m      not_tls  guard\n"
        );
    }

    #[test]
    fn those_that_are_over_are_listed_when_asked_for() {
        let text = text(&rows(&busy(), &Notes::default(), true));
        let last = text.lines().last().unwrap();
        let fields = ["192.0.2.4", "ended 1m 40s ago", "10s", "not_tls", "guard"];
        let shown = last.split("  ").map(str::trim);
        assert!(shown.filter(|field| !field.is_empty()).eq(fields), "{last}");
    }

    #[test]
    fn a_ban_by_hand_is_told_in_the_words_of_whoever_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below("test", folder.path(), folder.path()).unwrap();
        let snapshot = busy();
        let source: IpAddr = "2001:db8::".parse().unwrap();
        let ban = snapshot.sources[&source].ban.unwrap();
        let (by, reason) = ("kim as root (uid 0)", "scans us");
        let note = BanNote::new(&source, &ban, by.to_owned(), Some(reason.to_owned()));
        Notes::add(&paths, note, [].into_iter()).unwrap();
        let notes = Notes::load(&paths.ban_notes()).unwrap();
        let json = serde_json::to_value(rows(&snapshot, &notes, true)).unwrap();
        let expected = serde_json::json!([
            { "source": "2001:db8::/64", "in_force": true, "left_seconds": 3600, "length_seconds": 3600,
              "reason": "scans us", "by": "kim as root (uid 0)" },
            { "source": "192.0.2.3", "in_force": true, "left_seconds": 20, "length_seconds": 60,
              "reason": "not_tls", "by": "guard" },
            { "source": "192.0.2.4", "in_force": false, "ended_seconds_ago": 100, "length_seconds": 10,
              "reason": "not_tls", "by": "guard" },
        ]);
        assert_eq!(json, expected);
    }

    #[test]
    fn with_nobody_there_is_no_table() {
        let text = text(&rows(&quiet(), &Notes::default(), true));
        assert_eq!(text, "no source is banned\n");
    }
}
