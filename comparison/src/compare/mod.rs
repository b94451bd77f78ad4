//! `cargo xtask bench compare`: the cost of each kind of work for the gateway, for other servers, in memory and without
//! TLS, all in one run. In: kinds, servers, rounds. Out: tables, JSON, a page with charts.
//!
//! Within a round all servers do the same work one after the other, so that a drift of the machine affects them alike.

pub mod contestants;
mod memory;
mod page;
pub mod result;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::process;
use crate::work::{Amount, Backends, WorkKind, measure};
use crate::workspace::{self, Workspace};
use contestants::{Contestant, Contestants, KnownContestant, Named};
use result::Results;

/// What to measure, which servers, and how often.
#[derive(Args)]
pub struct CompareOptions {
    /// Rounds; within each all servers take turns.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only these kinds of work; by default all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<WorkKind>,
    /// Only these beside the gateway; by default all. What is missing is installed below .tools.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEERS")]
    peers: Vec<KnownContestant>,
    /// Another server with TLS, as a program with arguments, in which {port}, {backend} (the port behind it),
    /// {certificate}, {key}, {ca}, {client_certificate} and {client_key} (towards a backend of HTTP) stand for what it
    /// has to know; may be repeated.
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    commands: Vec<Named>,
    /// Another build of the gateway; may be repeated.
    #[arg(long = "gateway", value_name = "NAME=FILE")]
    gateways: Vec<Named>,
    /// Envoy, by default installed into .tools/envoy.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// A tenth of the work: to see that it works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Where the figures of all rounds go; by default target/bench/compare.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the page with tables and charts goes; by default target/bench/compare.html.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Measures, prints, writes.
pub fn run(options: &CompareOptions) -> Result<()> {
    let workspace = Workspace::prepare("compare")?;
    let contestants = Contestants::gather(&workspace, options)?;
    let measured = take_turns(&workspace, &contestants, &Effort::of(options));
    let results = workspace.keep_if_failed(measured)?;
    results.print(options.rounds);
    write(options, &results)
}

/// How much is done.
pub struct Effort<'a> {
    /// Kinds of work.
    pub kinds: &'a [WorkKind],
    /// Rounds.
    pub rounds: u32,
    /// What one run is.
    pub amount: Amount,
}

impl<'a> Effort<'a> {
    fn of(options: &'a CompareOptions) -> Self {
        Self::new(&options.kinds, options.rounds, options.quick)
    }

    /// From what a command line says; no kinds are all kinds.
    pub fn new(kinds: &'a [WorkKind], rounds: u32, quick: bool) -> Self {
        let all = WorkKind::value_variants();
        Self {
            kinds: if kinds.is_empty() { all } else { kinds },
            rounds,
            amount: if quick { Amount::Tenth } else { Amount::Whole },
        }
    }
}

/// Lets every server do every kind of work, round by round.
pub fn take_turns(
    workspace: &Workspace,
    contestants: &Contestants,
    effort: &Effort<'_>,
) -> Result<Results> {
    process::make_room()?;
    let backends = Backends::start(workspace)?;
    let mut results = Results::new(effort.kinds, contestants);
    for round in 1..=effort.rounds {
        if let Some(memory) = &contestants.memory {
            eprintln!("round {round}: in memory");
            results.push_memory(&memory::measure(workspace, memory)?);
        }
        for &kind in effort.kinds {
            for Contestant { server, .. } in &contestants.servers {
                if !kind.suits(server) {
                    continue;
                }
                let cost = measure(workspace, &backends, server, kind, effort.amount)
                    .with_context(|| format!("{}: {}", server.name, kind.title()))?;
                let (name, title, unit) = (&server.name, kind.title(), kind.unit());
                eprintln!("round {round}: {name}, {title}: {:.1} {unit}", cost.server);
                results.push(kind, name, cost);
            }
        }
    }
    Ok(results)
}

fn write(options: &CompareOptions, results: &Results) -> Result<()> {
    let place = |given: &Option<PathBuf>, name: &str| {
        given
            .clone()
            .unwrap_or_else(|| workspace::results_folder().join(name))
    };
    let (json, html) = (
        place(&options.json, "compare.json"),
        place(&options.html, "compare.html"),
    );
    let text = serde_json::to_string_pretty(&results.json(options.rounds)?)? + "\n";
    for (file, content) in [(&json, text), (&html, page::page(results, options.rounds)?)] {
        fs::write(file, content).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("\nwritten to {} and {}", json.display(), html.display());
    Ok(())
}
