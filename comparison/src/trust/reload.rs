//! A hundred reloads in a row under handshakes, resumptions, echoes and a stream: nothing may fail, nothing may grow.
//! In: nothing. Out: counts of failures, memory and descriptors of the gateway before and after.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Finding;
use crate::figures::{Series, table};
use crate::gateway::{Gateway, Setup};
use crate::job::Job;
use crate::load;
use crate::process::Process;
use crate::workspace::Workspace;

/// Reloads in a row.
const RELOADS: usize = 100;

/// Reloads after which allocators and caches count as warm.
const WARM: usize = 20;

/// The loads run this long; the reloads must be done by then.
const SPAN: Duration = Duration::from_secs(75);

/// From the start of one reload to the next.
const PACE: Duration = Duration::from_millis(250);

/// After the last goodbye the kernel and the gateway need a moment for the rest.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory at the end may be this many times what it was when warm.
const GROWTH_MAX: f64 = 1.25;

/// What runs all the time: name, scenario, arguments.
const LOADS: [(&str, &str, &[&str]); 4] = [
    (
        "full handshakes",
        "handshake",
        &["--rate", "100", "--connections", "64"],
    ),
    (
        "resumed handshakes",
        "handshake",
        &["--mode", "resumed", "--rate", "100", "--connections", "64"],
    ),
    (
        "echoes on held connections",
        "echo",
        &["--size", "16KiB", "--rate", "400", "--connections", "50"],
    ),
    (
        "streams",
        "stream",
        &[
            "--direction",
            "both",
            "--bytes",
            "1TiB",
            "--connections",
            "2",
        ],
    ),
];

/// Memory and descriptors at one moment.
#[derive(Clone, Copy)]
struct State {
    memory_kib: u64,
    descriptors: usize,
}

/// What one load got done; had anything failed, there would be no result.
struct Done {
    name: &'static str,
    completed: f64,
    gibibytes: f64,
}

/// Measures.
pub fn measure(workspace: &Workspace) -> Result<Finding> {
    workspace.revocation_list("agents.crl", 0, 10)?;
    let (_backend, backend) = load::backend(workspace)?;
    let gateway = Gateway::start(
        workspace,
        &Setup {
            name: "portcullis",
            program: &workspace.gateway,
            job: Job::Relay,
            backend,
            crl: Some("agents.crl"),
            provider: None,
            other_rules: 0,
            has_tenants: false,
        },
    )?;
    // The connection that asked whether it is ready has to be closed first.
    thread::sleep(SETTLE);
    let idle_before = state(&gateway)?;
    let started = Instant::now();
    let mut running = Vec::new();
    for (name, scenario, arguments) in LOADS {
        let log = workspace.path(&format!("{}.log", name.replace(' ', "-")));
        let process = Process::start(command(workspace, scenario, arguments, gateway.port), &log)?;
        running.push((name, process));
    }
    let (warm, took) = reload_often(workspace, &gateway)?;
    let end = state(&gateway)?;
    ensure!(
        started.elapsed() < SPAN,
        "the reloads took longer than the load: {:.0} s",
        started.elapsed().as_secs_f64()
    );
    let mut done = Vec::new();
    for (name, process) in running {
        // Any failure within a load ends it with an exit code of its own.
        let report = load::finish(process).with_context(|| format!("{name} during reloads"))?;
        let bytes = report.number("/bytes_up")? + report.number("/bytes_down")?;
        done.push(Done {
            name,
            completed: report.number("/completed")?,
            gibibytes: bytes / f64::from(1 << 30),
        });
    }
    thread::sleep(SETTLE);
    let idle_after = state(&gateway)?;
    let states = [
        ("before", idle_before),
        ("under load, warm", warm),
        ("under load, at the end", end),
        ("after", idle_after),
    ];
    show(&states, &done, &took);
    Ok(Finding {
        figures: json!({
            "reloads": took.0.len(),
            "reload_seconds": took.json(),
            "completed": done.iter().map(|done| json!({
                "load": done.name, "completed": done.completed, "gib": done.gibibytes,
            })).collect::<Vec<_>>(),
            "failed": 0,
            "states": states.iter().map(|(name, state)| json!({
                "when": name, "memory_kib": state.memory_kib, "descriptors": state.descriptors,
            })).collect::<Vec<_>>(),
        }),
        broken: judge(&states),
    })
}

fn command(workspace: &Workspace, scenario: &str, arguments: &[&str], port: u16) -> Command {
    let mut command = load::scenario(workspace, scenario, port, 50);
    command
        .args(arguments)
        .args(["--for", &format!("{}s", SPAN.as_secs())]);
    command
}

/// Changes the list, and the certificate with its key, in turn; returns the state when warm and how long each reload
/// took.
fn reload_often(workspace: &Workspace, gateway: &Gateway) -> Result<(State, Series)> {
    let mut took = Series::default();
    let mut warm = state(gateway)?;
    for number in 1..=RELOADS {
        let start = Instant::now();
        let change = if number.is_multiple_of(2) {
            // Never an agent of the load: those have the numbers from 1 and are not on it.
            workspace.revocation_list("next.crl", 0, number as u64)?;
            gateway.replace(&workspace.path("next.crl"), &workspace.path("agents.crl"))?
        } else {
            let other = ["one", "two"][(number / 2 + 1) % 2];
            gateway.change(|| workspace.serve_certificate(other))?
        };
        took.push(change.took.as_secs_f64());
        if number == WARM {
            warm = state(gateway)?;
        }
        thread::sleep(PACE.saturating_sub(start.elapsed()));
    }
    Ok((warm, took))
}

fn state(gateway: &Gateway) -> Result<State> {
    Ok(State {
        memory_kib: gateway.process.memory_kib("VmRSS")?,
        descriptors: gateway.process.descriptors()?,
    })
}

fn judge(states: &[(&str, State); 4]) -> Vec<String> {
    let [(_, before), (_, warm), (_, end), (_, after)] = states;
    let mut broken = Vec::new();
    if after.descriptors > before.descriptors {
        broken.push(format!(
            "every descriptor comes back: {} before, {} after",
            before.descriptors, after.descriptors
        ));
    }
    if end.memory_kib as f64 > warm.memory_kib as f64 * GROWTH_MAX {
        broken.push(format!(
            "memory does not grow with reloads: {} KiB after {WARM}, {} KiB after {RELOADS}",
            warm.memory_kib, end.memory_kib
        ));
    }
    broken
}

fn show(states: &[(&str, State)], done: &[Done], took: &Series) {
    let rows: Vec<Vec<String>> = done
        .iter()
        .map(|done| {
            vec![
                done.name.to_owned(),
                format!("{}", done.completed),
                format!("{:.2}", done.gibibytes),
                "0".to_owned(),
            ]
        })
        .collect();
    table(
        &format!("{RELOADS} reloads, each {} s", took.shown(3)),
        &["", "completed", "GiB", "failed"],
        &rows,
    );
    let rows: Vec<Vec<String>> = states
        .iter()
        .map(|(name, state)| {
            vec![
                (*name).to_owned(),
                format!("{:.1} MiB", state.memory_kib as f64 / 1024.0),
                state.descriptors.to_string(),
            ]
        })
        .collect();
    table(
        "the gateway",
        &["", "resident memory", "descriptors"],
        &rows,
    );
}
