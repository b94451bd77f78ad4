//! `portcullis guard watch`: what changes, as it changes. In: a snapshot every second. Out: a line for every ban that begins
//! or ends and for every port at which something was counted, until interrupted or for a given time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use clap::Args;
use gateway_common::{Ban, PortCounter};
use gateway_core::limits;
use gateway_core::sources::SourceState;
use gateway_guard::PortCount;
use serde::Serialize;

use super::Common;
use super::bans::Story;
use super::notes::Notes;
use super::shown::{mode_name, seconds, source_name, whole_seconds};
use super::snapshot::{Heartbeat, Snapshot};
use super::status::Port;

/// Arguments of `portcullis guard watch`.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    common: Common,
    /// End after this time; without it, at Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<humantime::Duration>,
}

/// Something that is otherwise than a second ago.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum GuardChange {
    /// The configuration's mode has changed.
    Mode { mode: &'static str },
    /// A gateway answers for the program again, or none does any more.
    Gateway { alive: bool },
    /// A ban has begun, or a longer or shorter one has taken its place.
    Ban {
        source: String,
        length_seconds: u64,
        #[serde(flatten)]
        story: Story,
    },
    /// A ban was lifted before its time.
    BanLifted { source: String },
    /// A ban has come to its end.
    BanEnded { source: String },
    /// This much was counted at a port.
    Counters(Port),
}

/// A change and when it was seen.
#[derive(Serialize)]
struct WatchLine<'a> {
    at: String,
    #[serde(flatten)]
    change: &'a GuardChange,
}

impl Watch {
    /// Watches until it is told to end, or until its reader has gone.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let began = Instant::now();
        let paths = self.common.which.paths()?;
        let mut before = Snapshot::take_bans(&paths.name)?;
        if !self.common.json {
            let mode = mode_name(before.settings.mode);
            eprintln!("watching, mode {mode}; Ctrl-C ends it");
        }
        for tick in 1.. {
            let next = began + limits::GUARD_WATCH_INTERVAL * tick;
            if let Some(duration) = self.duration
                && next > began + *duration
            {
                break;
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            // Opened anew: a process that holds the maps would not notice that the guard was removed.
            let now = Snapshot::take_bans(&paths.name)?;
            let notes = Notes::load(&paths.ban_notes()).unwrap_or_default();
            for change in changes(&before, &now, &notes) {
                if let Err(error) = self.say(&change, now.at) {
                    return match error.kind() {
                        io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
                        _ => Err(error.into()),
                    };
                }
            }
            before = now;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn say(&self, change: &GuardChange, at: SystemTime) -> io::Result<()> {
        let at = humantime::format_rfc3339_seconds(at).to_string();
        let mut output = io::stdout().lock();
        match self.common.json {
            true => writeln!(
                output,
                "{}",
                serde_json::to_string(&WatchLine { at, change })?
            ),
            false => writeln!(output, "{at}  {}", text(change)),
        }
    }
}

/// What is otherwise than before.
fn changes(before: &Snapshot, now: &Snapshot, notes: &Notes) -> Vec<GuardChange> {
    let mut changes = Vec::new();
    if before.settings.mode != now.settings.mode {
        let mode = mode_name(now.settings.mode);
        changes.push(GuardChange::Mode { mode });
    }
    let is_alive = |snapshot: &Snapshot| matches!(snapshot.heartbeat(), Heartbeat::Alive(_));
    if is_alive(before) != is_alive(now) {
        let alive = is_alive(now);
        changes.push(GuardChange::Gateway { alive });
    }
    changes.extend(bans(before, now, notes));
    let counters = now.counts.iter().filter_map(|count| {
        let earlier = before
            .counts
            .iter()
            .find(|before| before.port == count.port);
        let counter = match earlier {
            Some(earlier) => since(&count.counter, &earlier.counter),
            None => count.counter,
        };
        (counter != PortCounter::ZERO).then(|| {
            GuardChange::Counters(Port::of(&PortCount {
                port: count.port,
                packets: counter.packets,
                bytes: counter.bytes,
                counter,
            }))
        })
    });
    changes.extend(counters);
    changes
}

fn bans(before: &Snapshot, now: &Snapshot, notes: &Notes) -> Vec<GuardChange> {
    let in_force = |snapshot: &Snapshot, moment_ns: u64| -> BTreeMap<IpAddr, Ban> {
        let holding = |state: &SourceState| state.ban.filter(|ban| ban.holds(moment_ns));
        let sources = snapshot.sources.iter();
        sources
            .filter_map(|(source, state)| Some((*source, holding(state)?)))
            .collect()
    };
    let earlier = in_force(before, before.now_ns);
    let later = in_force(now, now.now_ns);
    let begun = later
        .iter()
        .filter(|(source, ban)| earlier.get(source) != Some(ban))
        .map(|(source, ban)| GuardChange::Ban {
            source: source_name(source),
            length_seconds: whole_seconds(ban.lasts_ns),
            story: Story::of(source, ban, notes),
        });
    let over = earlier.iter().filter_map(|(source, ban)| {
        if later.contains_key(source) {
            return None;
        }
        let source = source_name(source);
        Some(match ban.holds(now.now_ns) {
            true => GuardChange::BanLifted { source },
            false => GuardChange::BanEnded { source },
        })
    });
    begun.chain(over).collect()
}

/// What was counted between two readings. Counters that were made anew count from nought.
fn since(later: &PortCounter, earlier: &PortCounter) -> PortCounter {
    let more = |later: u64, earlier: u64| later.checked_sub(earlier).unwrap_or(later);
    let mut counter = *later;
    counter.packets = more(later.packets, earlier.packets);
    counter.bytes = more(later.bytes, earlier.bytes);
    counter.flows_opened = more(later.flows_opened, earlier.flows_opened);
    for (index, count) in counter.packets_by_verdict.iter_mut().enumerate() {
        *count = more(*count, earlier.packets_by_verdict[index]);
    }
    for (index, count) in counter.flows.iter_mut().enumerate() {
        *count = more(*count, earlier.flows[index]);
    }
    counter
}

fn text(change: &GuardChange) -> String {
    match change {
        GuardChange::Mode { mode } => format!("mode is {mode} now"),
        GuardChange::Gateway { alive: true } => "a gateway answers".to_owned(),
        GuardChange::Gateway { alive: false } => "no gateway answers: everything passes".to_owned(),
        GuardChange::Ban {
            source,
            length_seconds,
            story,
        } => {
            let length = seconds(length_seconds * 1_000_000_000);
            let why = story.reason.as_ref();
            let why = why.map_or(String::new(), |reason| format!(": {reason}"));
            format!("banned {source} for {length} by {}{why}", story.by)
        }
        GuardChange::BanLifted { source } => format!("unbanned {source}"),
        GuardChange::BanEnded { source } => format!("the ban of {source} is over"),
        GuardChange::Counters(port) => counters(port),
    }
}

fn counters(port: &Port) -> String {
    let mut parts = Vec::new();
    if port.flows_opened > 0 {
        parts.push(format!("{} flows opened", port.flows_opened));
    }
    let groups = [
        ("flows ended", &port.flows),
        ("packets passed", &port.passed),
        ("packets dropped", &port.dropped),
        ("packets to drop in enforce", &port.would_drop),
    ];
    for (name, counts) in groups {
        let counts = counts
            .iter()
            .map(|(label, count)| format!("{count} {label}"));
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            parts.push(format!("{name}: {}", counts.join(", ")));
        }
    }
    format!("port {}: {}", port.port, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::samples::{NOW_NS, SECOND_NS, busy, by_guard, quiet};
    use super::*;
    use gateway_common::{Account, mode};

    fn told(before: &Snapshot, now: &Snapshot) -> Vec<String> {
        let changes = changes(before, now, &Notes::default());
        changes.iter().map(text).collect()
    }

    #[test]
    fn when_nothing_changes_nothing_is_said() {
        assert_eq!(told(&busy(), &busy()), Vec::<String>::new());
        let mut later = busy();
        later.now_ns += SECOND_NS;
        later.settings.alive_until_ns += SECOND_NS;
        assert_eq!(told(&busy(), &later), Vec::<String>::new());
    }

    #[test]
    fn an_attack_is_told_as_bans_and_counters() {
        assert_eq!(
            told(&quiet(), &busy()),
            [
                "banned 192.0.2.3 for 1m by guard: not_tls",
                "banned 2001:db8::/64 for 1h by uid 0",
                "port 4317: 40 flows opened; flows ended: 25 authenticated, 11 not_tls; packets passed: 1000 authenticated; \
                 packets dropped: 480 banned; packets to drop in enforce: 20 too_many_pending",
            ]
        );
    }

    #[test]
    fn a_ban_ends_or_is_lifted_or_is_followed_by_another() {
        let mut later = busy();
        later.now_ns = NOW_NS + 30 * SECOND_NS;
        later.settings.alive_until_ns = later.now_ns + SECOND_NS;
        later.sources.remove(&"2001:db8::".parse().unwrap());
        let banned_again = SourceState {
            account: Account::default(),
            ban: Some(by_guard(120, 120)),
        };
        later
            .sources
            .insert("192.0.2.4".parse().unwrap(), banned_again);
        assert_eq!(
            told(&busy(), &later),
            [
                "banned 192.0.2.4 for 2m by guard: not_tls",
                "the ban of 192.0.2.3 is over",
                "unbanned 2001:db8::/64",
            ]
        );
    }

    #[test]
    fn a_gateway_that_is_gone_and_a_change_of_mode_are_told() {
        let mut later = quiet();
        later.now_ns += 20 * SECOND_NS;
        later.settings.mode = mode::MONITOR;
        let gone = [
            "mode is monitor now",
            "no gateway answers: everything passes",
        ];
        assert_eq!(told(&quiet(), &later), gone);
        let back = ["mode is enforce now", "a gateway answers"];
        assert_eq!(told(&later, &quiet()), back);
    }

    #[test]
    fn counters_that_were_made_anew_count_from_nought() {
        let mut fuller = busy();
        fuller.counts[0].counter.flows_opened = 1_000_000;
        let changes = changes(&fuller, &busy(), &Notes::default());
        let [GuardChange::Counters(port)] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(port.flows_opened, 40);
    }

    #[test]
    fn each_change_is_a_line_of_json() {
        let changes = changes(&quiet(), &busy(), &Notes::default());
        let at = "2027-01-15T08:00:00Z".to_owned();
        let lines: Vec<_> = changes
            .iter()
            .map(|change| {
                serde_json::to_value(WatchLine {
                    at: at.clone(),
                    change,
                })
                .unwrap()
            })
            .collect();
        assert_eq!(
            lines[0],
            serde_json::json!({
                "at": at, "event": "ban", "source": "192.0.2.3", "length_seconds": 60,
                "reason": "not_tls", "by": "guard",
            })
        );
        assert_eq!(lines[2]["event"], "counters");
        assert_eq!(lines[2]["dropped"], serde_json::json!({ "banned": 480 }));
    }
}
