//! CPU time of the server for each full and each resumed handshake: the gateway and Envoy in turn, and on request an
//! earlier build of the gateway. In: rounds. Out: medians, ranges, ratios within each round.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Finding, TrustOptions};
use crate::figures::{Series, table};
use crate::gateway::{Gateway, Setup};
use crate::job::Job;
use crate::process::Process;
use crate::workspace::Workspace;
use crate::{envoy, load};

/// Handshakes of one run: about a second of CPU, which the kernel counts in steps of 10 ms.
const HANDSHAKES: &str = "4000";

/// Clients at once.
const CONNECTIONS: &str = "8";

/// Both kinds of handshakes.
pub(super) const BOTH: &[&str] = &["full", "resumed"];

/// A server that takes its turn.
pub(super) struct Measured {
    name: &'static str,
    port: u16,
    pid: u32,
    modes: &'static [&'static str],
}

/// What one server needed for one kind of handshake, round by round, in microseconds.
pub(super) struct HandshakeCost {
    /// The server's name.
    pub(super) name: &'static str,
    /// `full` or `resumed`.
    pub(super) mode: &'static str,
    /// CPU time of the server for each handshake.
    pub(super) cpu: Series,
}

/// Measures.
pub fn measure(workspace: &Workspace, options: &TrustOptions) -> Result<Finding> {
    let envoy_program = envoy::find(options.envoy.as_deref())?;
    let (_backend, backend) = load::backend(workspace)?;
    let gateway = start(workspace, "portcullis", &workspace.gateway, backend)?;
    let before = match &options.before {
        Some(program) => Some(start(workspace, "before", program, backend)?),
        None => None,
    };
    let (envoy, envoy_port) = envoy::start(workspace, &envoy_program, Job::Relay, backend)?;
    let mut servers = vec![
        server("portcullis", &gateway.process, gateway.port, BOTH),
        server("envoy", &envoy, envoy_port, BOTH),
    ];
    if let Some(before) = &before {
        servers.push(server("before", &before.process, before.port, &["full"]));
    }
    let costs = take_turns(workspace, &servers, options.rounds)?;
    Ok(show(&costs, options.rounds))
}

fn start(workspace: &Workspace, name: &str, program: &Path, backend: u16) -> Result<Gateway> {
    Gateway::start(
        workspace,
        &Setup {
            name,
            program,
            job: Job::Relay,
            backend,
            crl: None,
            provider: None,
            other_rules: 0,
            has_tenants: false,
        },
    )
}

/// A server with its name and the kinds of handshakes it is measured with.
pub(super) fn server(
    name: &'static str,
    process: &Process,
    port: u16,
    modes: &'static [&'static str],
) -> Measured {
    Measured {
        name,
        port,
        pid: process.pid(),
        modes,
    }
}

/// Each server with each of its kinds in each round.
pub(super) fn take_turns(
    workspace: &Workspace,
    servers: &[Measured],
    rounds: u32,
) -> Result<Vec<HandshakeCost>> {
    let mut costs: Vec<HandshakeCost> = servers
        .iter()
        .flat_map(|server| {
            server.modes.iter().map(|mode| HandshakeCost {
                name: server.name,
                mode,
                cpu: Series::default(),
            })
        })
        .collect();
    for round in 1..=rounds {
        let mut places = costs.iter_mut();
        for server in servers {
            for &mode in server.modes {
                let cost = places.next().expect("one for each server and mode");
                let microseconds = handshakes(workspace, server, mode)?;
                eprintln!(
                    "round {round}: {} {mode}: {microseconds:.0} us",
                    server.name
                );
                cost.cpu.push(microseconds);
            }
        }
    }
    Ok(costs)
}

/// Runs one load; fails when a handshake did, or was not of the kind asked for.
fn handshakes(workspace: &Workspace, server: &Measured, mode: &str) -> Result<f64> {
    let mut command = load::scenario(workspace, "handshake", server.port, 1);
    command
        .args(["--mode", mode, "--count", HANDSHAKES])
        .args(["--connections", CONNECTIONS])
        .args(["--server-pid", &server.pid.to_string()]);
    let log = workspace.path(&format!("{}-{mode}.log", server.name));
    load::run(command, &log)?.number("/server/cpu_per_unit/value")
}

fn show(costs: &[HandshakeCost], rounds: u32) -> Finding {
    let of = |name: &str, mode: &str| {
        costs
            .iter()
            .find(|cost| (cost.name, cost.mode) == (name, mode))
            .map(|cost| &cost.cpu)
    };
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for cost in costs {
        let over = |other: Option<&Series>| other.map(|other| cost.cpu.over(other));
        let over_full = over(of(cost.name, "full"));
        let over_envoy = over(of("envoy", cost.mode));
        let shown = |ratio: &Option<Series>| {
            ratio
                .as_ref()
                .map_or_else(String::new, |ratio| ratio.shown(2))
        };
        rows.push(vec![
            format!("{} {}", cost.name, cost.mode),
            cost.cpu.shown(0),
            shown(&over_full),
            shown(&over_envoy),
        ]);
        let json = |ratio: Option<Series>| ratio.map_or(Value::Null, |ratio| ratio.json());
        figures.push(json!({
            "server": cost.name,
            "handshake": cost.mode,
            "cpu_us": cost.cpu.json(),
            "over_its_full": json(over_full),
            "over_envoy": json(over_envoy),
        }));
    }
    table(
        &format!("CPU of the server for each handshake, median (range) of {rounds} rounds"),
        &["", "us", "over its full one", "over Envoy's"],
        &rows,
    );
    Finding {
        figures: json!(figures),
        broken: Vec::new(),
    }
}
