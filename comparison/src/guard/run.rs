//! One run: agents at a steady rate, a flood at another, one defence. In: what to run. Out: what the agents got and
//! what that cost. Makes hosts, gateway and rules anew for each run. Bounded by the flood's time and the time-outs.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::cgroup::Cgroup;
use super::defence::{Defence, FloodKind, PORT};
use super::host_setup::{HostSetup, State, on};
use super::topology::{
    AGENTS_GATEWAY, AGENTS_SOURCES, ATTACKERS_GATEWAY, ATTACKERS_SOURCES, Packets, Topology,
};
use crate::load::{self, Report};
use crate::process::{Cpu, Process};
use crate::workspace::Workspace;

/// Short connections of the agents in a second.
pub const HANDSHAKES_PER_SECOND: u32 = 100;

/// Long connections of the agents.
pub const STREAMS: u32 = 5;

/// Messages in a second over all long connections.
pub const MESSAGES_PER_SECOND: u32 = 100;

/// An agent that has waited so long counts as not served.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// An attacker that has waited so long gives up: longer than the gateway's handshake timeout.
const ATTACKER_TIMEOUT: Duration = Duration::from_millis(3500);

/// How long agents connect before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// From the start of the agents to that of the flood.
const LEAD: Duration = Duration::from_millis(500);

/// The flood takes a moment to start.
const START: Duration = Duration::from_millis(200);

/// From one look at what is held to the next.
const LOOK: Duration = Duration::from_millis(500);

/// The load of all runs.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Attempts of the flood in a second.
    pub rate: u32,
    /// How long the flood lasts.
    pub flood: Duration,
}

/// What one kind of agents got.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Done, of all that should have been.
    pub success: f64,
    /// Median latency in milliseconds; not a number when nothing was done. Likewise the others.
    pub p50_ms: f64,
    /// The latency that 99 of 100 kept to.
    pub p99_ms: f64,
    /// The longest latency.
    pub max_ms: f64,
}

/// What came out of one run.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Short connections: TCP, full handshake, a byte there and back.
    pub handshakes: Service,
    /// Messages on long connections.
    pub messages: Service,
    /// CPU of the gateway, in seconds of the run.
    pub gateway_cpu_s: f64,
    /// CPU of its setup's kernel for taking packets.
    pub packets_cpu_s: f64,
    /// How busy the CPU of the load was.
    pub load_busy: f64,
    /// Attempts that the flood started in a second; not a number without one.
    pub reached_per_s: f64,
    /// Packets dropped in a second.
    pub dropped_per_s: f64,
    /// Packets in a second that would have been dropped.
    pub would_drop_per_s: f64,
    /// Packets dropped in all because their source had too many connections open.
    pub over_cap: f64,
    /// The most connections that one attacker held at a time, for half a second at least.
    pub held_max: f64,
    /// From the flood's start to the first ban, in seconds; not a number without a ban.
    pub first_ban_s: f64,
}

/// Runs a kind of flood against a defence, or nothing at all: the quiet run.
pub fn measure(
    workspace: &Workspace,
    load: Load,
    kind: FloodKind,
    defence: Option<Defence>,
) -> Result<Figures> {
    let topology = Topology::new(Packets::Threaded)?;
    let cgroup = Cgroup::new()?;
    let mut setup = HostSetup::start(workspace, &topology, &cgroup, defence, "echo")?;
    warm_up(workspace, &topology)?;
    let span = load.flood + LEAD;
    let handshakes = handshakes(workspace, &topology, span)?;
    let messages = messages(workspace, &topology, span)?;
    thread::sleep(LEAD);
    let before = setup.state()?;
    let flood = defence
        .map(|_| flood(workspace, &topology, load, kind))
        .transpose()?;
    let held_max = watch(&setup, load.flood + START)?;
    let after = setup.state()?;
    let flood = flood.map(load::finish).transpose()?;
    let handshakes = load::finish(handshakes)?;
    let messages = load::finish(messages)?;
    setup.gateway()?;
    let first_ban_s = match (&flood, setup.first_ban()?) {
        (Some(flood), Some(ban)) => since_start(flood, ban)?,
        _ => f64::NAN,
    };
    let reached = |report: &Report| report.number("/flood/starts_per_second");
    Ok(Figures {
        handshakes: Service::of(&handshakes)?,
        messages: Service::of(&messages)?,
        reached_per_s: flood.as_ref().map_or(Ok(f64::NAN), reached)?,
        held_max: f64::from(held_max),
        first_ban_s,
        ..Figures::between(before, after, load.flood + START)
    })
}

impl Figures {
    fn between(before: State, after: State, span: Duration) -> Self {
        let none = Service {
            success: f64::NAN,
            p50_ms: f64::NAN,
            p99_ms: f64::NAN,
            max_ms: f64::NAN,
        };
        let ticks = |state: State| (state.load.busy as f64, state.load.all as f64);
        let ((busy_before, all_before), (busy, all)) = (ticks(before), ticks(after));
        let seconds = span.as_secs_f64();
        Self {
            handshakes: none,
            messages: none,
            gateway_cpu_s: (after.gateway - before.gateway).as_secs_f64(),
            packets_cpu_s: (after.packets - before.packets).as_secs_f64(),
            load_busy: (busy - busy_before) / (all - all_before),
            reached_per_s: f64::NAN,
            dropped_per_s: (after.dropped - before.dropped) / seconds,
            would_drop_per_s: (after.would_drop - before.would_drop) / seconds,
            over_cap: after.over_cap - before.over_cap,
            held_max: f64::NAN,
            first_ban_s: f64::NAN,
        }
    }

    /// All of it, by name. What is not a number becomes null.
    pub fn json(&self) -> Value {
        json!({
            "handshakes": self.handshakes.json(),
            "messages": self.messages.json(),
            "gateway_cpu_s": self.gateway_cpu_s,
            "packets_cpu_s": self.packets_cpu_s,
            "load_busy": self.load_busy,
            "reached_per_s": self.reached_per_s,
            "dropped_per_s": self.dropped_per_s,
            "would_drop_per_s": self.would_drop_per_s,
            "over_cap_packets": self.over_cap,
            "held_by_one_source_max": self.held_max,
            "first_ban_s": self.first_ban_s,
        })
    }
}

impl Service {
    fn of(report: &Report) -> Result<Self> {
        let (completed, failed) = (report.number("/completed")?, report.number("/failed")?);
        let total = completed + failed;
        ensure!(total > 0.0, "the agents did nothing");
        let latency = |name: &str| {
            let pointer = format!("/latency/{name}");
            report.number(&pointer).map_or(f64::NAN, |us| us / 1e3)
        };
        Ok(Self {
            success: completed / total,
            p50_ms: latency("p50_us"),
            p99_ms: latency("p99_us"),
            max_ms: latency("max_us"),
        })
    }

    fn json(self) -> Value {
        json!({
            "success": self.success,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
        })
    }
}

/// A start is slow for other reasons than a flood: the first connections touch the pages and ask for hardware
/// addresses.
fn warm_up(workspace: &Workspace, topology: &Topology) -> Result<()> {
    let how = ["--confirm", "echo", "--rate", "200", "--connections", "20"];
    let report = load::finish(agents(workspace, topology, "handshake", WARM_UP, &how)?)?;
    ensure!(
        report.number("/failed")? == 0.0,
        "the agents are not served"
    );
    Ok(())
}

/// Agents that connect, say something and go.
fn handshakes(workspace: &Workspace, topology: &Topology, span: Duration) -> Result<Process> {
    // All that can wait at once, so that none has to wait for another.
    let connections = u64::from(HANDSHAKES_PER_SECOND) * (AGENT_TIMEOUT.as_secs() + 1);
    let rate = HANDSHAKES_PER_SECOND.to_string();
    let connections = connections.to_string();
    let how = [
        "--confirm",
        "echo",
        "--rate",
        &rate,
        "--connections",
        &connections,
    ];
    agents(workspace, topology, "handshake", span, &how)
}

/// Agents that stay, and say something now and then.
fn messages(workspace: &Workspace, topology: &Topology, span: Duration) -> Result<Process> {
    let (rate, connections) = (MESSAGES_PER_SECOND.to_string(), STREAMS.to_string());
    let how = ["--rate", &rate, "--connections", &connections];
    agents(workspace, topology, "echo", span, &how)
}

fn agents(
    workspace: &Workspace,
    topology: &Topology,
    name: &str,
    span: Duration,
    how: &[&str],
) -> Result<Process> {
    let command = topology
        .agents
        .command(&on(Cpu::Client), &workspace.loadgen);
    let target = format!("{AGENTS_GATEWAY}:{PORT}");
    let mut command = load::agents(command, workspace, name, &target, 50);
    command
        .args(["--sources", AGENTS_SOURCES, "--allow-failures"])
        .args(["--timeout", &duration(AGENT_TIMEOUT)])
        .args(["--for", &duration(span)])
        .args(how);
    Process::start(command, &workspace.path(&format!("{name}.log")))
}

fn flood(
    workspace: &Workspace,
    topology: &Topology,
    load: Load,
    kind: FloodKind,
) -> Result<Process> {
    // Attackers share a CPU with the agents that are measured, and run when no other process there does.
    let idle = ["chrt", "--idle", "0"].map(str::to_owned);
    let before = [&on(Cpu::Client)[..], &idle].concat();
    let mut command = topology
        .attackers
        .command(&before, Path::new(&workspace.loadgen));
    // All attempts at once, in case none is answered.
    let connections = u64::from(load.rate) * (load.flood.as_secs() + 1);
    command
        .args(["flood", kind.name(), "--json", "--allow-failures"])
        .args(["--target", &format!("{ATTACKERS_GATEWAY}:{PORT}")])
        .args(["--server-name", "localhost"])
        .args(["--rate", &load.rate.to_string()])
        .args(["--connections", &connections.to_string()])
        .args(["--timeout", &duration(ATTACKER_TIMEOUT)])
        .args(["--for", &duration(load.flood)]);
    if kind != FloodKind::Syn {
        command.args(["--sources", ATTACKERS_SOURCES]);
    }
    Process::start(command, &workspace.path("flood.log"))
}

/// Waits, and looks now and then at the connections that attackers have open. Returns the most that one of them held
/// from one look to the next: a connection that the gateway accepts only to reject it is not held.
fn watch(setup: &HostSetup<'_>, span: Duration) -> Result<u32> {
    let end = Instant::now() + span;
    let (mut most, mut before) = (0, HashSet::new());
    while end.saturating_duration_since(Instant::now()) > LOOK {
        thread::sleep(LOOK);
        let now = setup.held()?;
        let mut held: HashMap<Ipv4Addr, u32> = HashMap::new();
        for peer in now.intersection(&before) {
            *held.entry(*peer.ip()).or_default() += 1;
        }
        most = most.max(held.into_values().max().unwrap_or(0));
        before = now;
    }
    thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(most)
}

fn since_start(flood: &Report, moment: SystemTime) -> Result<f64> {
    let started_us = flood.number("/started_at_unix_us")?;
    let moment_us = moment.duration_since(UNIX_EPOCH)?.as_micros() as f64;
    Ok((moment_us - started_us) / 1e6)
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
