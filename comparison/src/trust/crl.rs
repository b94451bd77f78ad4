//! A revocation list of a million entries: memory, what its reloads do to handshakes that go on meanwhile, and what a
//! lookup costs beside a list of ten. In: rounds, entries. Out: latencies with and without reloads in turn, memory,
//! CPU.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Finding, TrustOptions};
use crate::figures::{Series, table};
use crate::gateway::{Gateway, Setup};
use crate::job::Job;
use crate::load::{self, Report};
use crate::process::Process;
use crate::workspace::Workspace;

/// How long the load of each half of a round lasts.
const PHASE: Duration = Duration::from_secs(10);

/// Handshakes a second: a quarter of what one CPU can do, so that a queue comes from the reload.
const RATE: &str = "500";

/// Pause between two reloads.
const PAUSE: Duration = Duration::from_secs(1);

/// Time for memory to settle after a reload.
const SETTLE: Duration = Duration::from_secs(3);

/// Handshakes of one run that prices a lookup.
const HANDSHAKES: &str = "4000";

/// Files of the long lists.
const LISTS: [&str; 3] = ["first.crl", "second.crl", "third.crl"];

const QUANTILES: [(&str, &str); 4] = [
    ("p50", "/latency/p50_us"),
    ("p99", "/latency/p99_us"),
    ("p99.9", "/latency/p999_us"),
    ("max", "/latency/max_us"),
];

/// Latencies of one kind of phase, a series for each quantile.
type Latencies = [Series; QUANTILES.len()];

/// Measures.
pub fn measure(workspace: &Workspace, options: &TrustOptions) -> Result<Finding> {
    let entries = u64::from(options.entries);
    let bytes = workspace.revocation_list(LISTS[0], 0, entries)?;
    for (name, fewer) in LISTS[1..].iter().zip(1..) {
        workspace.revocation_list(name, 0, entries - fewer)?;
    }
    workspace.revocation_list("long.crl", 0, 10)?;
    workspace.revocation_list("short.crl", 0, 10)?;
    let (_backend, backend) = load::backend(workspace)?;
    let start = |name, crl| {
        Gateway::start(
            workspace,
            &Setup {
                name,
                program: &workspace.gateway,
                job: Job::Relay,
                backend,
                crl: Some(crl),
                provider: None,
                other_rules: 0,
                has_tenants: false,
            },
        )
    };
    let long = start("long", "long.crl")?;
    let short = start("short", "short.crl")?;
    let mut lists = Lists { workspace, turn: 0 };

    let memory = memory(&long, &mut lists)?;
    let mut quiet = Latencies::default();
    let mut reloading = Latencies::default();
    let mut reloads = Series::default();
    for round in 1..=options.rounds {
        take(&mut quiet, &phase(workspace, &long, None)?)?;
        take(
            &mut reloading,
            &phase(workspace, &long, Some((&mut lists, &mut reloads)))?,
        )?;
        eprintln!("round {round} of {}", options.rounds);
    }
    let peak = long.process.memory_kib("VmHWM")?;
    let (of_ten, of_many) = lookups(workspace, &short, &long, options.rounds)?;

    show(&quiet, &reloading, &reloads);
    show_memory(&memory, peak, entries, bytes);
    let ratio = of_many.over(&of_ten);
    table(
        "CPU of a full handshake by the length of the list",
        &["", "us"],
        &[
            vec!["10 entries".to_owned(), of_ten.shown(0)],
            vec![format!("{entries} entries"), of_many.shown(0)],
            vec!["ratio".to_owned(), ratio.shown(3)],
        ],
    );
    Ok(Finding {
        figures: json!({
            "entries": entries,
            "list_bytes": bytes,
            "memory_kib": {
                "before": memory.before, "after": memory.after,
                "peak_of_one_reload": memory.peak, "peak": peak,
            },
            "reload_seconds": reloads.json(),
            "handshake_us": { "quiet": latencies(&quiet), "reloading": latencies(&reloading) },
            "full_handshake_cpu_us": { "ten": of_ten.json(), "many": of_many.json(), "ratio": ratio.json() },
        }),
        broken: Vec::new(),
    })
}

/// Long lists that differ in length, one after the other. The gateway knows a list again that it has in use, or had
/// until a moment ago; with three of them each reload reads and verifies a million entries.
struct Lists<'a> {
    workspace: &'a Workspace,
    turn: usize,
}

impl Lists<'_> {
    /// Puts the next list in force and returns how long that took, in seconds.
    fn swap(&mut self, gateway: &Gateway) -> Result<f64> {
        let name = LISTS[self.turn % LISTS.len()];
        self.turn += 1;
        // A second name, because what is renamed is gone from where it was; copying would disturb what is measured.
        let link = self.workspace.path("next.crl");
        std::fs::hard_link(self.workspace.path(name), &link)?;
        let change = gateway.replace(&link, &self.workspace.path("long.crl"))?;
        Ok(change.took.as_secs_f64())
    }
}

/// Resident memory in KiB around the first long list.
struct Memory {
    before: u64,
    after: u64,
    peak: u64,
}

fn memory(gateway: &Gateway, lists: &mut Lists<'_>) -> Result<Memory> {
    let before = gateway.process.memory_kib("VmRSS")?;
    gateway.process.forget_peak()?;
    lists.swap(gateway)?;
    thread::sleep(SETTLE);
    Ok(Memory {
        before,
        after: gateway.process.memory_kib("VmRSS")?,
        peak: gateway.process.memory_kib("VmHWM")?,
    })
}

/// Handshakes at a fixed rate, with reloads one after the other meanwhile or without.
fn phase(
    workspace: &Workspace,
    gateway: &Gateway,
    reloads: Option<(&mut Lists<'_>, &mut Series)>,
) -> Result<Report> {
    let mut command = load::scenario(workspace, "handshake", gateway.port, 1);
    command
        .args(["--rate", RATE, "--connections", "64"])
        .args(["--for", &format!("{}s", PHASE.as_secs())]);
    let process = Process::start(command, &workspace.path("phase.log"))?;
    if let Some((lists, took)) = reloads {
        let end = Instant::now() + PHASE;
        while Instant::now() + PAUSE < end {
            took.push(lists.swap(gateway)?);
            thread::sleep(PAUSE);
        }
    }
    load::finish(process)
}

fn take(latencies: &mut Latencies, report: &Report) -> Result<()> {
    for (series, (_, pointer)) in latencies.iter_mut().zip(QUANTILES) {
        series.push(report.number(pointer)?);
    }
    Ok(())
}

/// CPU of full handshakes against both lists in turn.
fn lookups(
    workspace: &Workspace,
    short: &Gateway,
    long: &Gateway,
    rounds: u32,
) -> Result<(Series, Series)> {
    let (mut of_ten, mut of_many) = (Series::default(), Series::default());
    for _ in 0..rounds {
        for (gateway, series) in [(short, &mut of_ten), (long, &mut of_many)] {
            let mut command = load::scenario(workspace, "handshake", gateway.port, 1);
            command
                .args(["--count", HANDSHAKES, "--connections", "8"])
                .args(["--server-pid", &gateway.process.pid().to_string()]);
            let report = load::run(command, &workspace.path("lookup.log"))?;
            series.push(report.number("/server/cpu_per_unit/value")?);
        }
    }
    Ok((of_ten, of_many))
}

fn show(quiet: &Latencies, reloading: &Latencies, reloads: &Series) {
    let rows: Vec<Vec<String>> = QUANTILES
        .iter()
        .zip(quiet.iter().zip(reloading))
        .map(|((name, _), (quiet, reloading))| {
            vec![
                (*name).to_owned(),
                quiet.shown(0),
                reloading.shown(0),
                reloading.over(quiet).shown(2),
            ]
        })
        .collect();
    table(
        &format!("latency of full handshakes at {RATE}/s, us, median (range) over rounds"),
        &["", "no reloads", "reloads", "ratio"],
        &rows,
    );
    println!(
        "{} reloads, each took {} s",
        reloads.0.len(),
        reloads.shown(2)
    );
}

fn show_memory(memory: &Memory, peak: u64, entries: u64, bytes: u64) {
    let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
    table(
        &format!("resident memory around a list of {entries} entries ({bytes} bytes), MiB"),
        &["", "MiB"],
        &[
            vec!["ten entries".to_owned(), mib(memory.before)],
            vec!["long list, steady".to_owned(), mib(memory.after)],
            vec!["peak of its first load".to_owned(), mib(memory.peak)],
            vec!["peak of all reloads".to_owned(), mib(peak)],
        ],
    );
}

fn latencies(latencies: &Latencies) -> Value {
    QUANTILES
        .iter()
        .zip(latencies)
        .map(|((name, _), series)| ((*name).to_owned(), series.json()))
        .collect()
}
