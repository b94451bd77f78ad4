//! Checks the promises of the guard. In: the figures of one kind of flood. Out: the promises that were broken, each
//! with its numbers. Compares within rounds only, because the machine drifts from minute to minute.

use super::case::Case;
use super::defence::{Defence, PENDING_MAX};
use super::run::{Figures, Load};
use crate::figures::Series;

/// The agents' 99th percentile over the quiet run's.
const P99_RATIO_MAX: f64 = 2.0;

/// What a flood costs the gateway with the guard over what it costs without.
const CPU_RATIO_MAX: f64 = 0.1;

/// A flood that was slower than this share of its rate was another flood.
const REACHED_MIN: f64 = 0.95;

/// Above this the load's own CPU is what was measured.
const BUSY_MAX: f64 = 0.9;

/// Everything that is not as it should be.
pub fn broken(case: &Case, load: Load) -> Vec<String> {
    let mut broken = Vec::new();
    let mut promise = |kept: bool, what: String| {
        if !kept {
            broken.push(format!("{}: {what}", case.kind.name()));
        }
    };
    for (defence, runs) in &case.defences {
        let reached = least(runs, |run| run.reached_per_s) / f64::from(load.rate);
        promise(
            reached >= REACHED_MIN,
            format!(
                "{}: the flood reaches {:.0} % of its rate",
                defence.name(),
                reached * 100.0
            ),
        );
        let busy = most(runs, |run| run.load_busy);
        promise(
            busy <= BUSY_MAX,
            format!(
                "{}: the load's own CPU is {:.0} % busy",
                defence.name(),
                busy * 100.0
            ),
        );
    }
    let quiet = served(&case.quiet);
    promise(
        quiet >= 1.0,
        format!("quiet: {:.2} % of the agents' work is done", quiet * 100.0),
    );
    if let Some(runs) = case.runs(Defence::Monitor) {
        let dropped = most(runs, |run| run.dropped_per_s);
        promise(
            dropped == 0.0,
            format!("monitor: {dropped:.1} packets dropped in a second"),
        );
    }
    if let Some(runs) = case.runs(Defence::Enforce) {
        for (kept, what) in enforced(case, runs) {
            promise(kept, format!("enforce: {what}"));
        }
    }
    broken
}

fn enforced(case: &Case, runs: &[Figures]) -> Vec<(bool, String)> {
    let share = served(runs);
    let slower = p99_ratio(case, runs).median();
    let mut promises = vec![
        (
            share >= 1.0,
            format!("{:.2} % of the agents' work is done", share * 100.0),
        ),
        (
            slower <= P99_RATIO_MAX,
            format!("the agents' p99 is {slower:.2} times the quiet one"),
        ),
    ];
    if case.kind.costs_cpu()
        && let Some(off) = case.runs(Defence::Off)
    {
        let ratio = cpu_ratio(&case.quiet, off, runs).median();
        promises.push((
            ratio < CPU_RATIO_MAX,
            format!("the flood costs the gateway {ratio:.3} of what it costs with the guard off"),
        ));
    }
    if case.kind.holds() {
        let held = most(runs, |run| run.held_max);
        promises.push((
            held <= f64::from(PENDING_MAX),
            format!("one source has {held} connections open; the cap is {PENDING_MAX}"),
        ));
    }
    promises
}

/// The agents' 99th percentile over that of the quiet run beside it, round by round.
pub fn p99_ratio(case: &Case, runs: &[Figures]) -> Series {
    series(runs, |run| run.handshakes.p99_ms)
        .over(&series(&case.quiet, |run| run.handshakes.p99_ms))
}

/// What the flood costs above the quiet run with the guard, over the same without it, round by round.
pub fn cpu_ratio(quiet: &[Figures], off: &[Figures], guarded: &[Figures]) -> Series {
    let above = |runs: &[Figures]| {
        let pairs = runs.iter().zip(quiet);
        Series(
            pairs
                .map(|(run, quiet)| run.gateway_cpu_s - quiet.gateway_cpu_s)
                .collect(),
        )
    };
    above(guarded).over(&above(off))
}

/// One figure of each round.
pub fn series(runs: &[Figures], read: impl Fn(&Figures) -> f64) -> Series {
    Series(runs.iter().map(read).collect())
}

/// The share of the agents' work that was done, in the worst round and of the worse kind.
pub fn served(runs: &[Figures]) -> f64 {
    least(runs, |run| run.handshakes.success.min(run.messages.success))
}

fn least(runs: &[Figures], read: impl Fn(&Figures) -> f64) -> f64 {
    series(runs, read).range().0
}

fn most(runs: &[Figures], read: impl Fn(&Figures) -> f64) -> f64 {
    series(runs, read).range().1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::defence::FloodKind;
    use crate::guard::run::Service;
    use std::time::Duration;

    const LOAD: Load = Load {
        rate: 1000,
        flood: Duration::from_secs(8),
    };

    /// A run in which everything is as it should be.
    fn good(gateway_cpu_s: f64) -> Figures {
        let service = Service {
            success: 1.0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            max_ms: 3.0,
        };
        Figures {
            handshakes: service,
            messages: service,
            gateway_cpu_s,
            packets_cpu_s: 0.1,
            load_busy: 0.5,
            reached_per_s: 1000.0,
            dropped_per_s: 0.0,
            would_drop_per_s: 0.0,
            over_cap: 0.0,
            held_max: 3.0,
            first_ban_s: 0.1,
        }
    }

    /// One round in which the flood costs 2 s without the guard and 0.1 s with it.
    fn case(kind: FloodKind, change: impl Fn(&mut Case)) -> Vec<String> {
        let mut case = Case {
            kind,
            quiet: vec![good(0.5)],
            defences: vec![
                (Defence::Off, vec![good(2.5)]),
                (Defence::Monitor, vec![good(2.5)]),
                (Defence::Enforce, vec![good(0.6)]),
            ],
        };
        change(&mut case);
        broken(&case, LOAD)
    }

    fn enforce(case: &mut Case) -> &mut Figures {
        &mut case.defences[2].1[0]
    }

    #[test]
    fn a_run_as_it_should_be_breaks_nothing() {
        assert_eq!(case(FloodKind::Badcert, |_| {}), [""; 0]);
    }

    #[test]
    fn each_promise_can_be_broken_by_itself() {
        type Change = fn(&mut Case);
        let cases: [(FloodKind, Change, &str); 9] = [
            (
                FloodKind::Syn,
                |case| enforce(case).messages.success = 0.999,
                "99.90 %",
            ),
            (
                FloodKind::Syn,
                |case| enforce(case).handshakes.p99_ms = 4.1,
                "2.05 times",
            ),
            (
                FloodKind::Junk,
                |case| enforce(case).gateway_cpu_s = 0.71,
                "0.105 of",
            ),
            (
                FloodKind::Slow,
                |case| enforce(case).held_max = 33.0,
                "33 connections",
            ),
            (
                FloodKind::Idle,
                |case| case.defences[1].1[0].dropped_per_s = 0.1,
                "monitor: 0.1",
            ),
            (
                FloodKind::Idle,
                |case| case.quiet[0].handshakes.success = 0.5,
                "quiet: 50.00 %",
            ),
            (
                FloodKind::Idle,
                |case| case.defences[0].1[0].reached_per_s = 900.0,
                "90 % of its rate",
            ),
            (
                FloodKind::Idle,
                |case| case.defences[0].1[0].load_busy = 0.99,
                "99 % busy",
            ),
            (
                FloodKind::Idle,
                |case| enforce(case).handshakes.p99_ms = f64::NAN,
                "NaN times",
            ),
        ];
        for (kind, change, expected) in cases {
            let broken = case(kind, change);
            assert_eq!(broken.len(), 1, "{expected}: {broken:?}");
            assert!(broken[0].contains(expected), "{broken:?}");
        }
    }

    #[test]
    fn what_the_guard_is_not_for_is_not_asked_of_it() {
        // A flood that holds nothing may have connections open, and one that costs nothing may cost as much as before.
        assert_eq!(
            case(FloodKind::Junk, |case| enforce(case).held_max = 99.0),
            [""; 0]
        );
        assert_eq!(
            case(FloodKind::Idle, |case| enforce(case).gateway_cpu_s = 2.5),
            [""; 0]
        );
    }
}
