//! What an attached guard costs bulk throughput over a cable: plain TCP past the gateway and a stream through it,
//! without the guard and with it. In: rounds. Out: Gbit/s. Each transfer is bounded in time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::cgroup::Cgroup;
use super::defence::{Defence, PORT};
use super::host_setup::{HostSetup, on};
use super::topology::{AGENTS_GATEWAY, Packets, Topology};
use crate::figures::{Series, table};
use crate::load;
use crate::process::{Cpu, Process};
use crate::workspace::Workspace;

/// How long each transfer lasts.
const SPAN: Duration = Duration::from_secs(3);

/// What is written at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// How the interface takes packets, and whether the guard is there.
const WAYS: [(&str, Packets, Defence); 4] = [
    ("veth as made, guard off", Packets::AsMade, Defence::Off),
    ("veth as made, monitor", Packets::AsMade, Defence::Monitor),
    (
        "GRO and a thread, guard off",
        Packets::Threaded,
        Defence::Off,
    ),
    (
        "GRO and a thread, monitor",
        Packets::Threaded,
        Defence::Monitor,
    ),
];

/// Gbit/s of one way, a value for each round.
#[derive(Default)]
struct Rates {
    plain: Series,
    gateway: Series,
}

/// Measures the ways in turn, in each round.
pub fn measure(workspace: &Workspace, rounds: u32) -> Result<Value> {
    let mut all: [Rates; WAYS.len()] = Default::default();
    for round in 1..=rounds {
        for ((name, packets, defence), rates) in WAYS.iter().zip(&mut all) {
            eprintln!("throughput, round {round} of {rounds}: {name}");
            let topology = Topology::new(*packets)?;
            let cgroup = Cgroup::new()?;
            let setup = HostSetup::start(workspace, &topology, &cgroup, Some(*defence), "sink")?;
            rates
                .plain
                .push(plain(workspace, &topology).context("plain TCP")?);
            rates.gateway.push(through(workspace, &topology)?);
            drop(setup);
        }
    }
    let row = |(way, rates): (&(&str, Packets, Defence), &Rates)| {
        vec![
            way.0.to_owned(),
            rates.plain.shown(1),
            rates.gateway.shown(2),
        ]
    };
    let rows: Vec<_> = WAYS.iter().zip(&all).map(row).collect();
    let head = ["", "plain TCP, Gbit/s", "through the gateway, Gbit/s"];
    table("bulk throughput over one cable", &head, &rows);
    Ok(WAYS
        .iter()
        .zip(&all)
        .map(|((name, ..), rates)| {
            let both = json!({ "plain_gbit_s": rates.plain.json(), "gateway_gbit_s": rates.gateway.json() });
            ((*name).to_owned(), both)
        })
        .collect::<Map<_, _>>()
        .into())
}

/// From the agents' setup to a plain sink on the gateway's, on the interface that the guard is attached to.
fn plain(workspace: &Workspace, topology: &Topology) -> Result<f64> {
    let command = topology
        .gateway
        .command(&on(Cpu::Server), &workspace.loadgen);
    let log = workspace.path("sink.log");
    let (_sink, port) = load::serve(command, "sink", AGENTS_GATEWAY, &log)?;
    let mut stream = topology
        .agents
        .enter(|| Ok(TcpStream::connect((AGENTS_GATEWAY, port))?))?;
    let chunk = vec![0; CHUNK_BYTES];
    let started = Instant::now();
    while started.elapsed() < SPAN {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // The sink answers when it has everything.
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let bytes: f64 = answer
        .trim()
        .parse()
        .context("a sink answers with a number")?;
    Ok(gigabits(bytes, started.elapsed().as_secs_f64()))
}

/// From an agent through the gateway to the sink behind it.
fn through(workspace: &Workspace, topology: &Topology) -> Result<f64> {
    let command = topology
        .agents
        .command(&on(Cpu::Client), &workspace.loadgen);
    let target = format!("{AGENTS_GATEWAY}:{PORT}");
    let mut command = load::agents(command, workspace, "stream", &target, 1);
    command
        .args(["--direction", "up", "--bytes", "1TiB"])
        .args(["--for", &humantime::format_duration(SPAN).to_string()]);
    let report = load::finish(Process::start(command, &workspace.path("stream.log"))?)?;
    Ok(gigabits(
        report.number("/bytes_up")?,
        report.number("/elapsed_seconds")?,
    ))
}

fn gigabits(bytes: f64, seconds: f64) -> f64 {
    bytes * 8.0 / seconds / 1e9
}
