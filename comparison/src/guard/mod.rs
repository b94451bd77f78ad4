//! `cargo xtask bench guard`: authenticated agents at a steady rate while somebody floods the gateway, without the guard,
//! with it, and with nftables instead. In: which floods, which arms, how many rounds. Out: a table for each flood,
//! target/bench/guard.json, guard.md and guard.svg, and an error when a promise was not kept.
//!
//! Everything happens in network namespaces of its own. The gateway and its host's packets have the first CPU, all else
//! the second.

mod arms;
mod ban;
mod case;
mod cgroup;
mod chart;
mod judge;
mod run;
mod scene;
mod throughput;
mod world;

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::site::{self, Site};
use crate::{figures, machine, process};
use arms::{Arm, Kind};
use case::Case;
use run::Load;

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(8);

/// The same in a hurry: a little longer than the gateway's handshake timeout.
const FLOOD_QUICK: Duration = Duration::from_secs(4);

/// What to measure and how often.
#[derive(Args)]
pub struct Options {
    /// Only these floods; by default all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<Kind>,
    /// Only these arms; by default all. The quiet run is always beside them.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ARMS")]
    arms: Vec<Arm>,
    /// Rounds; within each the arms take turns.
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
pub fn run(options: &Options) -> Result<()> {
    let site = Site::prepare("guard")?;
    process::make_room()?;
    let measured = measure(&site, options);
    site.keep_if_failed(measured)
}

fn measure(site: &Site, options: &Options) -> Result<()> {
    let load = Load {
        rate: options.rate,
        flood: if options.quick { FLOOD_QUICK } else { FLOOD },
    };
    let mut cases = Vec::new();
    let mut broken = Vec::new();
    for &kind in chosen(&options.kinds) {
        let case = rounds(site, options, load, kind)?;
        broken.extend(judge::broken(&case, load));
        figures::table(&title(&case, load), &case::HEAD, &case.rows());
        cases.push(case);
        save(&cases, load)?;
    }
    if !options.quick {
        let rates = throughput::measure(site, options.rounds)?;
        let part = Map::from_iter([("throughput".to_owned(), rates)]);
        figures::save(&site::folder().join("guard.json"), part)?;
    }
    println!(
        "\nwritten to {}: guard.json, guard.md, guard.svg",
        site::folder().display()
    );
    if !broken.is_empty() {
        bail!("promises that were not kept:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

/// All rounds of one flood.
fn rounds(site: &Site, options: &Options, load: Load, kind: Kind) -> Result<Case> {
    let mut case = Case::new(kind, chosen(&options.arms));
    for round in 1..=options.rounds {
        let say = |arm: &str| {
            eprintln!(
                "{}, round {round} of {}: {arm}",
                kind.name(),
                options.rounds
            )
        };
        say("quiet");
        case.quiet.push(run::measure(site, load, kind, None)?);
        for (arm, runs) in &mut case.arms {
            say(arm.name());
            runs.push(run::measure(site, load, kind, Some(*arm))?);
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
    let runs = || case.arms.iter().flat_map(|(_, runs)| runs);
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
        "attackers": world::ATTACKERS,
        "agents_connecting_per_second": run::HANDSHAKES_PER_SECOND,
        "agents_streams": run::STREAMS,
        "agents_messages_per_second": run::MESSAGES_PER_SECOND,
        "max_pending": arms::PENDING_MAX,
        "ban_threshold": arms::BAN_POINTS,
        "nft_connections_per_second": arms::CONNECTIONS_PER_SECOND,
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
    let folder = site::folder();
    figures::save(&folder.join("guard.json"), Map::from_iter(parts))?;
    fs::write(folder.join("guard.md"), case::markdown(cases))?;
    chart::draw(&folder.join("guard.svg"), cases)
}
