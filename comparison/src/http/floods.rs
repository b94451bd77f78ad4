//! What other clients notice of adverse ones: how long their requests take, without and beside each kind of misuse, in turn.
//! In: rounds. Out: the 99th percentile of each, and the ratio, which is promised.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Finding, start};
use crate::figures::{Series, table};
use crate::gateway::Gateway;
use crate::load;
use crate::process::{Cpu, Process, pinned};
use crate::workspace::Workspace;

/// Ways to misuse HTTP/2, by the names of the load generator.
const KINDS: &[&str] = &[
    "rapid-reset",
    "made-you-reset",
    "continuation",
    "settings",
    "ping",
    "hpack-bomb",
    "empty-data",
    "tiny-data",
    "window-update",
    "unknown-frames",
    "zero-window",
    "slow-reader",
    "slow-writer",
    "open-windows",
];

/// Adverse clients at once, and their connections in a second: each costs a handshake, which is no matter of HTTP.
const ADVERSE: &str =
    "--connections 20 --rate 20 --frames 100000 --streams 50 --size 1MiB --for 6s --timeout 5s";

/// Requests of the other clients.
const OTHERS: &str = "--connections 20 --rate 1000 --for 4s";

/// The most that a request may take beside adverse clients, over what it takes without.
const RATIO_MAX: f64 = 1.5;

/// Until the adverse clients are at work.
const HEAD_START: Duration = Duration::from_secs(1);

/// What the other clients noticed of one kind, beside what they notice without.
#[derive(Default)]
struct Noticed {
    quiet: Series,
    beside: Series,
    failed: f64,
}

/// Measures.
pub fn measure(workspace: &Workspace, rounds: u32) -> Result<Finding> {
    let (_backend, gateway) = start(workspace, "floods", false)?;
    let mut rows = Vec::new();
    let mut figures = serde_json::Map::new();
    let mut broken = Vec::new();
    for &kind in KINDS {
        let mut noticed = Noticed::default();
        for _ in 0..rounds {
            noticed.add_round(workspace, &gateway, kind)?;
        }
        let (quiet, beside) = (&noticed.quiet, &noticed.beside);
        let (ratio, failed) = (beside.median() / quiet.median(), noticed.failed);
        eprintln!("{kind}: {ratio:.2}, {failed} failed");
        rows.push(vec![
            kind.to_owned(),
            quiet.shown(2),
            beside.shown(2),
            format!("{ratio:.2}"),
            failed.to_string(),
        ]);
        if ratio > RATIO_MAX {
            broken.push(format!(
                "requests beside {kind} take at most {RATIO_MAX} times as long (p99): {ratio:.2}"
            ));
        }
        if failed > 0.0 {
            broken.push(format!("no request fails beside {kind}: {failed}"));
        }
        let found = json!({
            "quiet_ms": quiet.json(),
            "beside_ms": beside.json(),
            "ratio": ratio,
            "failed": failed,
        });
        figures.insert(kind.to_owned(), found);
    }
    table(
        &format!("p99 of other clients' requests, ms, median (range) of {rounds} rounds"),
        &["adverse clients", "without", "beside", "ratio", "failed"],
        &rows,
    );
    Ok(Finding {
        figures: figures.into(),
        broken,
    })
}

impl Noticed {
    fn add_round(&mut self, workspace: &Workspace, gateway: &Gateway, kind: &str) -> Result<()> {
        let report = others(workspace, gateway)?;
        self.quiet.push(report.number("/latency/p99_us")? / 1e3);
        let adverse = adverse(workspace, gateway, kind)?;
        thread::sleep(HEAD_START);
        let report = others(workspace, gateway)?;
        self.beside.push(report.number("/latency/p99_us")? / 1e3);
        self.failed += report.number("/failed")?;
        load::finish(adverse)?;
        Ok(())
    }
}

fn others(workspace: &Workspace, gateway: &Gateway) -> Result<load::Report> {
    let mut command = load::scenario(workspace, "h2", gateway.port, 1);
    command.args(OTHERS.split(' ')).arg("--allow-failures");
    load::run(command, &workspace.path("others.load.log"))
}

/// Starts adverse clients, which take the CPU of the other ones only while these leave it to them (`SCHED_IDLE`, sched(7)): with the
/// lowest priority alone they keep it for a slice of some milliseconds, which is more than what is measured.
fn adverse(workspace: &Workspace, gateway: &Gateway, kind: &str) -> Result<Process> {
    let mut command = pinned(Cpu::Client, "chrt".as_ref());
    command.args(["--idle", "0"]).arg(&workspace.loadgen);
    command.args(["adverse", kind, "--path", "/stall"]);
    command.args(ADVERSE.split(' '));
    let target = format!("127.0.0.1:{}", gateway.port);
    let command = load::identities(command, workspace, &target, 1, "X25519");
    Process::start(command, &workspace.path(&format!("{kind}.load.log")))
}
