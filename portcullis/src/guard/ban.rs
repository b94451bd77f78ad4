//! `portcullis guard ban` and `unban`: a source is shut out, or let in again, by hand. In: the source, how long, why. Out: a
//! changed map, which the kernel program acts by from the next packet on; a note with the operator's account.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use gateway::blocks::for_the_record;
use gateway::config::Paths;
use gateway_common::Ban as KernelBan;
use gateway_core::limits;
use gateway_guard::{Pins, now_ns};
use serde::Serialize;

use super::notes::{BanNote, Notes, NotesError};
use super::shown::{seconds, source_name, source_of, whole_seconds};
use super::snapshot::Snapshot;
use super::{Common, NOT_ACTED_BY};

/// Arguments of `portcullis guard ban`.
#[derive(Debug, Args)]
pub struct Ban {
    #[command(flatten)]
    common: Common,
    /// IPv4 address, or an IPv6 address or network with /64: all of the /64 is banned
    #[arg(value_name = "SOURCE", value_parser = source_of)]
    source: IpAddr,
    /// How long, 1s to 30days
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = length)]
    lasts: Duration,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", value_parser = for_the_record)]
    reason: Option<String>,
}

/// Arguments of `portcullis guard unban`.
#[derive(Debug, Args)]
pub struct Unban {
    #[command(flatten)]
    common: Common,
    /// IPv4 address, or an IPv6 address or network with /64
    #[arg(value_name = "SOURCE", value_parser = source_of)]
    source: IpAddr,
}

/// Reads how long a ban is to last.
fn length(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(length) if limits::GUARD_BAN.contains(&length) => Ok(length),
        Ok(_) => {
            Err("must be 1s to 30days: deny a source for good in the configuration".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What a change did, as JSON.
#[derive(Debug, Serialize)]
struct Done {
    source: String,
    /// How long the ban lasts that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    banned_for_seconds: Option<u64>,
    /// What was left of the ban that it replaced, or that was lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    before_seconds: Option<u64>,
    /// What it owed, when it is let in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    forgiven_points: Option<f64>,
    /// Why no program acts by it, if none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_acted_by: Option<String>,
}

impl Ban {
    /// Bans the source. Its new connections are dropped from then on; those that are authenticated go on.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let paths = self.common.which.paths()?;
        let pins = Pins::find(&paths.name)?;
        let mut maps = pins.maps()?;
        let snapshot = Snapshot::read(&pins, &maps)?;
        let lasts_ns = u64::try_from(self.lasts.as_nanos()).unwrap_or(u64::MAX);
        let user = rustix::process::getuid().as_raw();
        let ban = KernelBan::by_operator(user, now_ns(), lasts_ns);
        let by = super::super::operator();
        let note = BanNote::new(&self.source, &ban, by, self.reason);
        // The note first: an operator who sees the ban sees why.
        let noted = note_down(&paths, note, &snapshot);
        maps.ban(gateway_guard::source_of(self.source), ban)?;
        if let Err(error) = noted {
            eprintln!("portcullis: the ban holds, but its reason is not recorded: {error}");
        }
        let before = before(&snapshot, &self.source);
        let done = Done {
            banned_for_seconds: Some(whole_seconds(lasts_ns)),
            ..Done::to(&snapshot, &self.source)
        };
        let text = || {
            let name = source_name(&self.source);
            let lasts = seconds(lasts_ns);
            let instead = before.map_or(String::new(), |before| {
                format!(", in place of a ban with {} left", seconds(before))
            });
            format!("banned {name} for {lasts}{instead}\n")
        };
        super::print(&self.common, &done, text)?;
        Ok(done.exit_code())
    }
}

/// Puts a note to those on bans that are there.
fn note_down(paths: &Paths, note: BanNote, snapshot: &Snapshot) -> Result<(), NotesError> {
    let bans = snapshot
        .sources
        .iter()
        .filter_map(|(source, state)| Some((source, state.ban.as_ref()?)));
    Notes::add(paths, note, bans)
}

impl Unban {
    /// Lifts the ban of the source and forgives what it owes. Its next ban is a first one again.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let pins = Pins::find(&self.common.which.paths()?.name)?;
        let mut maps = pins.maps()?;
        let snapshot = Snapshot::read(&pins, &maps)?;
        let name = source_name(&self.source);
        let debt_points = debt_points(&snapshot, &self.source);
        // One that is over makes the next one longer: that is lifted too.
        let had_ban = maps.unban(gateway_guard::source_of(self.source))?;
        ensure!(
            had_ban || debt_points > 0.0,
            "{name} is not banned and has no points: see `portcullis guard sources`"
        );
        let done = Done {
            not_acted_by: None,
            forgiven_points: (debt_points > 0.0).then_some(debt_points),
            ..Done::to(&snapshot, &self.source)
        };
        super::print(&self.common, &done, || {
            let debt = match done.forgiven_points {
                None => String::new(),
                Some(points) => format!(", and {points:.1} points are forgiven"),
            };
            match had_ban {
                true => format!("unbanned {name}{debt}\n"),
                false => format!("{name} was not banned{debt}\n"),
            }
        })
    }
}

/// What a source owes, to a tenth of a point.
fn debt_points(snapshot: &Snapshot, source: &IpAddr) -> f64 {
    let state = snapshot.sources.get(source);
    let points = state.map_or(0.0, |state| snapshot.debt_points(&state.account));
    (points * 10.0).round() / 10.0
}

/// What was left of the ban of a source.
fn before(snapshot: &Snapshot, source: &IpAddr) -> Option<u64> {
    let ban = snapshot.sources.get(source)?.ban?;
    ban.holds(snapshot.now_ns)
        .then(|| ban.until_ns - snapshot.now_ns)
}

impl Done {
    fn to(snapshot: &Snapshot, source: &IpAddr) -> Self {
        Self {
            source: source_name(source),
            banned_for_seconds: None,
            forgiven_points: None,
            before_seconds: before(snapshot, source).map(whole_seconds),
            not_acted_by: snapshot.why_nothing_is_dropped(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match &self.not_acted_by {
            None => ExitCode::SUCCESS,
            Some(why) => {
                eprintln!(
                    "portcullis: the ban is written, but the guard does not act by it: {why}"
                );
                ExitCode::from(NOT_ACTED_BY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::samples::busy;
    use super::*;
    use gateway_common::mode;

    #[test]
    fn a_ban_lasts_a_second_to_thirty_days() {
        assert_eq!(length("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(length("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(length("30days"), Ok(*limits::GUARD_BAN.end()));
        for text in ["0s", "999ms", "31days", "", "10", "ten minutes"] {
            assert!(length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_there_before_is_told() {
        let mut snapshot = busy();
        let done = |snapshot: &Snapshot, source: &str| {
            let source = source_of(source).unwrap();
            serde_json::to_value(Done::to(snapshot, &source)).unwrap()
        };
        assert_eq!(
            done(&snapshot, "192.0.2.3"),
            serde_json::json!({ "source": "192.0.2.3", "before_seconds": 20 })
        );
        let nothing = serde_json::json!({ "source": "192.0.2.4" });
        assert_eq!(done(&snapshot, "192.0.2.4"), nothing, "it is over");
        snapshot.settings.mode = mode::MONITOR;
        let done = done(&snapshot, "2001:db8::1");
        assert_eq!(done["before_seconds"], 3600);
        let why = done["not_acted_by"].as_str().unwrap();
        assert!(why.contains("monitor"), "{why}");
    }
}
