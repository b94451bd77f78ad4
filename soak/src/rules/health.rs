//! Promises about the gateway itself: its counts are true, it keeps its bounds, logs no error without cause, and ends
//! on SIGTERM.

use std::collections::BTreeMap;

use ::tests::Metrics;

use super::{Finding, Rules};
use crate::evidence::{Evidence, text};
use crate::journal::{Disturbance, Fact, Milliseconds, RollCall};

pub const RULES: Rules = &[
    ("metrics", "metrics and audit log count the same", metrics),
    (
        "bounds",
        "memory and descriptors return to what they were",
        bounds,
    ),
    (
        "ready",
        "the gateway is ready, and holds no connection of clients that have left",
        ready,
    ),
    (
        "log",
        "nothing panics, and no error is logged without a cause",
        log,
    ),
    (
        "spoilt files",
        "the gateway refuses a wrong configuration, and the audit log says so",
        spoilt,
    ),
    ("end", "SIGTERM ends the gateway in time", end),
    ("soak", "the soak did everything it planned", soak),
];

/// The growth of resident memory between two looks at one process, reserves of the allocator included.
const GROWTH_BYTES: u64 = 64 << 20;
/// The growth of the number of descriptors.
const GROWTH_DESCRIPTORS: u64 = 24;
/// How long an end may take: the drain has four seconds.
const END: Milliseconds = 12_000;
/// How long a refusal of a wrong file may take.
const REFUSAL: Milliseconds = 8000;

type Counts = BTreeMap<String, u64>;

/// Between two looks at one process that was alone, each counter has grown by as many lines as the audit log got.
fn metrics(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for pair in evidence.roll_calls.windows(2) {
        let [(from, before), (until, after)] = pair else {
            continue;
        };
        if before.process != after.process || !after.is_alone {
            continue;
        }
        let mut counted = page(after);
        for (name, count) in page(before) {
            *counted.entry(name).or_default() -= count;
        }
        counted.retain(|_, count| *count > 0);
        let told = lines(evidence, *from, *until);
        let names: std::collections::BTreeSet<_> = counted.keys().chain(told.keys()).collect();
        for name in names {
            let pair = [counted.get(name), told.get(name)].map(|count| count.copied().unwrap_or(0));
            let [metric, lines] = pair;
            finding.count(
                *until,
                (metric != lines)
                    .then(|| format!("{name}: {metric} by metrics, {lines} by audit log")),
            );
        }
    }
    finding
}

fn page(roll_call: &RollCall) -> Counts {
    let metrics = Metrics::parse(&roll_call.metrics);
    let mut counts = Counts::new();
    let plain = [
        ("accepted", "portcullis_handshakes_total"),
        ("resumed", "portcullis_handshakes_resumed_total"),
        ("bytes", "portcullis_relayed_bytes_total"),
    ];
    for (name, metric) in plain {
        counts.insert(name.to_owned(), metrics.count(metric, &[]));
    }
    let by_reason = [
        ("refused", "portcullis_handshake_failures_total"),
        ("end", "portcullis_connections_ended_total"),
    ];
    for (name, metric) in by_reason {
        for (reason, count) in metrics.by_label(metric, "reason") {
            counts.insert(format!("{name} {reason}"), count);
        }
    }
    counts
}

fn lines(evidence: &Evidence<'_>, from: Milliseconds, until: Milliseconds) -> Counts {
    let mut counts = Counts::new();
    let mut add = |name: String, count: u64| *counts.entry(name).or_default() += count;
    for (at, line) in evidence.audit_lines() {
        if at < from || until < at {
            continue;
        }
        match (text(line, "event").as_str(), text(line, "outcome").as_str()) {
            ("handshake", "accepted") => {
                add("accepted".to_owned(), 1);
                add("resumed".to_owned(), (line["kind"] == "resumed").into());
            }
            ("handshake", _) => add(format!("refused {}", text(line, "reason")), 1),
            ("end", _) => {
                add(format!("end {}", text(line, "reason")), 1);
                for key in ["received_bytes", "sent_bytes"] {
                    add("bytes".to_owned(), line[key].as_u64().unwrap_or(0));
                }
            }
            _ => {}
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}

fn bounds(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    let mut first = BTreeMap::new();
    for (at, roll_call) in &evidence.roll_calls {
        let before: &&RollCall = first.entry(roll_call.process).or_insert(roll_call);
        if std::ptr::eq(*before, *roll_call) {
            continue;
        }
        let looks = [
            (
                "bytes",
                before.resident_bytes,
                roll_call.resident_bytes,
                GROWTH_BYTES,
            ),
            (
                "descriptors",
                before.descriptors,
                roll_call.descriptors,
                GROWTH_DESCRIPTORS,
            ),
        ];
        for (what, before, after, growth) in looks {
            finding.count(
                *at,
                (after > before + growth).then(|| format!("{before} {what} became {after}")),
            );
        }
    }
    finding
}

fn ready(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for (at, roll_call) in &evidence.roll_calls {
        let open = Metrics::parse(&roll_call.metrics).count("portcullis_connections_open", &[]);
        let breach = match (roll_call.is_ready, open) {
            (true, 0) => None,
            (false, _) => Some("it is not ready".to_owned()),
            (true, open) => Some(format!(
                "{open} connections of clients that have left are open"
            )),
        };
        finding.count(*at, breach);
    }
    finding
}

/// Words of errors that a disturbance explains.
const EXPLAINED: &[(&str, Disturbance)] = &[
    ("cannot accept", Disturbance::Descriptors),
    (
        "no descriptor is left for connections",
        Disturbance::Descriptors,
    ),
    ("no descriptor is left for connections", Disturbance::Budget),
    (
        "takes descriptors that are set aside",
        Disturbance::Descriptors,
    ),
    ("takes descriptors that are set aside", Disturbance::Budget),
    ("Too many open files", Disturbance::Descriptors),
    ("os error 24", Disturbance::Descriptors),
    ("the interface is gone", Disturbance::Interface),
    (
        "the guard does not check packets of this interface",
        Disturbance::Interface,
    ),
];
/// Words of errors that the soak provokes at any time.
const PROVOKED: &[&str] = &[
    "reload refused",
    "the revocation lists are refused with the rest",
    "a twentieth of a lifetime is left",
    "has ended",
];

fn log(evidence: &Evidence<'_>) -> Finding {
    // The run itself is the case that held.
    let mut finding = Finding {
        held: 1,
        ..Finding::default()
    };
    for entry in evidence.entries {
        let Fact::Log { process, line } = &entry.fact else {
            continue;
        };
        let is_wrong = line.contains(" ERROR ") || line.contains("panic");
        if !is_wrong || PROVOKED.iter().any(|words| line.contains(words)) {
            continue;
        }
        let disturbed = evidence
            .rights
            .disturbed(entry.at.saturating_sub(1000), entry.at);
        let is_explained = EXPLAINED
            .iter()
            .any(|(words, what)| line.contains(words) && disturbed.contains(what));
        if !is_explained {
            finding.count(entry.at, Some(format!("{process}: {line}")));
        }
    }
    finding
}

fn spoilt(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    let refused: Vec<Milliseconds> = evidence
        .audit_lines()
        .filter(|(_, line)| line["event"] == "reload" && line["outcome"] == "refused")
        .map(|(at, _)| at)
        .collect();
    for entry in evidence.entries {
        if !matches!(entry.fact, Fact::Spoilt) {
            continue;
        }
        let due = entry.at + REFUSAL;
        let is_told = refused.iter().any(|at| (entry.at..=due).contains(at));
        finding.count(
            entry.at,
            (!is_told).then(|| "no refused reload in the audit log".to_owned()),
        );
    }
    finding
}

fn end(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for entry in evidence.entries {
        if let Fact::Terminated { took, code } = &entry.fact {
            let is_good = *took <= END && *code == Some(0);
            finding.count(
                entry.at,
                (!is_good).then(|| format!("it took {took} ms and ended with {code:?}")),
            );
        }
    }
    finding
}

fn soak(evidence: &Evidence<'_>) -> Finding {
    let mut finding = Finding::default();
    for entry in evidence.entries {
        match &entry.fact {
            Fact::Deed { .. } => finding.count(entry.at, None),
            Fact::Trouble { what } => finding.count(entry.at, Some(what.clone())),
            _ => {}
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use crate::journal::Fact;
    use crate::rules::sample::{Sample, goes_red};

    /// Changes the last look at the gateway.
    fn last_look(sample: &mut Sample, change: impl Fn(&mut crate::journal::RollCall)) {
        let mut looks = sample.entries.iter_mut().rev();
        let last = looks.find_map(|entry| match &mut entry.fact {
            Fact::RollCall(roll_call) => Some(roll_call),
            _ => None,
        });
        change(last.unwrap());
    }

    #[test]
    fn a_counter_that_is_off_by_one_breaks_it() {
        goes_red("metrics", |sample| sample.drop_audit("end", 1));
        goes_red("metrics", |sample| {
            sample.audit(
                60_000,
                serde_json::json!({"event": "handshake", "outcome": "refused", "reason": "sni"}),
            );
        });
    }

    #[test]
    fn memory_and_descriptors_that_grow_break_it() {
        goes_red("bounds", |sample| {
            last_look(sample, |look| look.resident_bytes += 100 << 20);
        });
        goes_red("bounds", |sample| {
            last_look(sample, |look| look.descriptors += 30)
        });
    }

    #[test]
    fn a_gateway_that_is_not_ready_or_holds_a_connection_breaks_it() {
        goes_red("ready", |sample| {
            last_look(sample, |look| look.is_ready = false)
        });
        goes_red("ready", |sample| {
            last_look(sample, |look| {
                look.metrics = look
                    .metrics
                    .replace("connections_open 0", "connections_open 1");
            });
        });
    }

    #[test]
    fn a_panic_and_an_error_without_cause_break_it() {
        for line in ["thread panicked at", "x ERROR y: cannot accept"] {
            goes_red("log", |sample| {
                sample.note(
                    70_000,
                    Fact::Log {
                        process: "gateway-1".into(),
                        line: line.into(),
                    },
                );
            });
        }
    }

    #[test]
    fn a_wrong_file_that_is_not_refused_breaks_it() {
        goes_red("spoilt files", |sample| sample.note(70_000, Fact::Spoilt));
    }

    #[test]
    fn an_end_that_takes_too_long_or_fails_breaks_it() {
        for (took, code) in [(60_000, Some(0)), (100, Some(1)), (100, None)] {
            goes_red("end", |sample| {
                sample.note(160_000, Fact::Terminated { took, code });
            });
        }
    }

    #[test]
    fn trouble_of_the_soaks_own_breaks_it() {
        goes_red("soak", |sample| {
            let what = "no veth".to_owned();
            sample.note(70_000, Fact::Trouble { what });
        });
    }
}
