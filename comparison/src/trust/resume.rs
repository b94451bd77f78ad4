//! CPU time of the server for each full and each resumed handshake: the gateway and Envoy in turn, and on request an
//! earlier build of the gateway. In: rounds. Out: medians, ranges, ratios within each round.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Finding, Options};
use crate::figures::{Series, table};
use crate::gateway::{Gateway, Setup};
use crate::process::Process;
use crate::site::Site;
use crate::{envoy, load};

/// Handshakes of one run: about a second of CPU, which the kernel counts in steps of 10 ms.
const HANDSHAKES: &str = "4000";

/// Clients at once.
const CONNECTIONS: &str = "8";

/// Both kinds of handshakes.
pub(super) const BOTH: &[&str] = &["full", "resumed"];

/// A server that takes its turn.
pub(super) struct Contender {
    name: &'static str,
    port: u16,
    pid: u32,
    modes: &'static [&'static str],
}

/// What one contender needed for one kind of handshake, round by round, in microseconds.
pub(super) struct Cost {
    /// The contender's name.
    pub(super) name: &'static str,
    /// `full` or `resumed`.
    pub(super) mode: &'static str,
    /// CPU time of the server for each handshake.
    pub(super) cpu: Series,
}

/// Measures.
pub fn measure(site: &Site, options: &Options) -> Result<Finding> {
    let envoy_program = envoy::find(options.envoy.as_deref())?;
    let (_backend, backend) = load::backend(site)?;
    let gateway = start(site, "portcullis", &site.gateway, backend)?;
    let before = match &options.before {
        Some(program) => Some(start(site, "before", program, backend)?),
        None => None,
    };
    let (envoy, envoy_port) = envoy::start(site, &envoy_program, backend)?;
    let mut contenders = vec![
        contender("portcullis", &gateway.process, gateway.port, BOTH),
        contender("envoy", &envoy, envoy_port, BOTH),
    ];
    if let Some(before) = &before {
        contenders.push(contender("before", &before.process, before.port, &["full"]));
    }
    let costs = take_turns(site, &contenders, options.rounds)?;
    Ok(show(&costs, options.rounds))
}

fn start(site: &Site, name: &str, program: &Path, backend: u16) -> Result<Gateway> {
    Gateway::start(
        site,
        &Setup {
            name,
            program,
            backend,
            crl: None,
            provider: None,
            other_rules: 0,
        },
    )
}

/// A server with its name and the kinds of handshakes it is measured with.
pub(super) fn contender(
    name: &'static str,
    process: &Process,
    port: u16,
    modes: &'static [&'static str],
) -> Contender {
    Contender {
        name,
        port,
        pid: process.pid(),
        modes,
    }
}

/// Each contender with each of its kinds in each round.
pub(super) fn take_turns(site: &Site, contenders: &[Contender], rounds: u32) -> Result<Vec<Cost>> {
    let mut costs: Vec<Cost> = contenders
        .iter()
        .flat_map(|contender| {
            contender.modes.iter().map(|mode| Cost {
                name: contender.name,
                mode,
                cpu: Series::default(),
            })
        })
        .collect();
    for round in 1..=rounds {
        let mut places = costs.iter_mut();
        for contender in contenders {
            for &mode in contender.modes {
                let cost = places.next().expect("one for each contender and mode");
                let microseconds = handshakes(site, contender, mode)?;
                eprintln!(
                    "round {round}: {} {mode}: {microseconds:.0} us",
                    contender.name
                );
                cost.cpu.push(microseconds);
            }
        }
    }
    Ok(costs)
}

/// Runs one load; fails when a handshake did, or was not of the kind asked for.
fn handshakes(site: &Site, contender: &Contender, mode: &str) -> Result<f64> {
    let mut command = load::scenario(site, "handshake", contender.port, 1);
    command
        .args(["--mode", mode, "--count", HANDSHAKES])
        .args(["--connections", CONNECTIONS])
        .args(["--server-pid", &contender.pid.to_string()]);
    let log = site.path(&format!("{}-{mode}.log", contender.name));
    load::run(command, &log)?.number("/server/cpu_per_unit/value")
}

fn show(costs: &[Cost], rounds: u32) -> Finding {
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
