//! `cargo xtask bench guard`: authenticated agents at a steady rate while attackers flood the gateway, without the
//! guard, with it, and with nftables instead. In: which floods, which defences, how many rounds. Out: a table for each
//! flood, target/bench/guard.json, guard.md and guard.svg, and an error when a promise was not kept.
//!
//! All hosts are network namespaces. The gateway and its host's packets have the first CPU, everything else the second.

mod ban;
mod case;
mod cgroup;
mod chart;
mod defence;
mod host_setup;
mod judge;
mod run;
mod throughput;
mod topology;

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::workspace::{self, Workspace};
use crate::{figures, machine, process};
use case::Case;
use defence::{Defence, FloodKind};
use run::Load;

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(8);

/// The same in a hurry: a little longer than the gateway's handshake timeout.
const FLOOD_QUICK: Duration = Duration::from_secs(4);

/// What to measure and how often.
#[derive(Args)]
pub struct GuardOptions {
    /// Only these floods; by default all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<FloodKind>,
    /// Only these defences; by default all. The quiet run is always beside them.
    #[arg(long = "arms", value_enum, value_delimiter = ',', value_name = "ARMS")]
    defences: Vec<Defence>,
    /// Rounds; within each the defences take turns.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Attempts of each flood in a second.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=1900))]
    rate: u32,
    /// Floods of half the length, and no bulk throughput: to see that it works, not for figures.
    #[arg(long)]
    quick: bool,
}

/// Measures, prints, writes.
pub fn run(options: &GuardOptions) -> Result<()> {
    let workspace = Workspace::prepare("guard")?;
    process::make_room()?;
    let measured = measure(&workspace, options);
    workspace.keep_if_failed(measured)
}

fn measure(workspace: &Workspace, options: &GuardOptions) -> Result<()> {
    let load = Load {
        rate: options.rate,
        flood: if options.quick { FLOOD_QUICK } else { FLOOD },
    };
    let mut cases = Vec::new();
    let mut broken = Vec::new();
    for &kind in chosen(&options.kinds) {
        let case = rounds(workspace, options, load, kind)?;
        broken.extend(judge::broken(&case, load));
        figures::table(&title(&case, load), &case::HEAD, &case.rows());
        cases.push(case);
        save(&cases, load)?;
    }
    if !options.quick {
        let rates = throughput::measure(workspace, options.rounds)?;
        let part = Map::from_iter([("throughput".to_owned(), rates)]);
        figures::save(&workspace::results_folder().join("guard.json"), part)?;
    }
    println!(
        "\nwritten to {}: guard.json, guard.md, guard.svg",
        workspace::results_folder().display()
    );
    if !broken.is_empty() {
        bail!("promises that were not kept:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

/// All rounds of one flood.
fn rounds(
    workspace: &Workspace,
    options: &GuardOptions,
    load: Load,
    kind: FloodKind,
) -> Result<Case> {
    let mut case = Case::new(kind, chosen(&options.defences));
    for round in 1..=options.rounds {
        let say = |defence: &str| {
            eprintln!(
                "{}, round {round} of {}: {defence}",
                kind.name(),
                options.rounds
            )
        };
        say("quiet");
        case.quiet.push(run::measure(workspace, load, kind, None)?);
        for (defence, runs) in &mut case.defences {
            say(defence.name());
            runs.push(run::measure(workspace, load, kind, Some(*defence))?);
        }
    }
    Ok(case)
}

/// What was asked for, or everything there is.
fn chosen<T: ValueEnum>(given: &[T]) -> &[T] {
    match given {
        [] => T::value_variants(),
        given => given,
    }
}

fn title(case: &Case, load: Load) -> String {
    let runs = || case.defences.iter().flat_map(|(_, runs)| runs);
    let reached = runs()
        .map(|run| run.reached_per_s)
        .fold(f64::INFINITY, f64::min);
    let busy = runs().map(|run| run.load_busy).fold(0.0, f64::max);
    format!(
        "{}: {} attempts a second for {} s (least reached {reached:.0}; the load's CPU at most {:.0} % busy)",
        case.kind.name(),
        load.rate,
        load.flood.as_secs(),
        busy * 100.0
    )
}

/// At once, so that a later flood that fails does not take the earlier ones along.
fn save(cases: &[Case], load: Load) -> Result<()> {
    let settings = json!({
        "flood_per_second": load.rate,
        "flood_seconds": load.flood.as_secs(),
        "attackers": topology::ATTACKERS,
        "agents_connecting_per_second": run::HANDSHAKES_PER_SECOND,
        "agents_streams": run::STREAMS,
        "agents_messages_per_second": run::MESSAGES_PER_SECOND,
        "max_pending": defence::PENDING_MAX,
        "ban_threshold": defence::BAN_POINTS,
        "nft_connections_per_second": defence::CONNECTIONS_PER_SECOND,
    });
    let floods: Map<String, Value> = cases
        .iter()
        .map(|case| (case.kind.name().to_owned(), case.json()))
        .collect();
    let parts = [
        ("machine".to_owned(), machine()?),
        ("settings".to_owned(), settings),
        ("floods".to_owned(), floods.into()),
    ];
    let folder = workspace::results_folder();
    figures::save(&folder.join("guard.json"), Map::from_iter(parts))?;
    fs::write(folder.join("guard.md"), case::markdown(cases))?;
    chart::draw(&folder.join("guard.svg"), cases)
}
