//! `cargo xtask bench trust`: what trust that holds costs, and how fast it acts.
//! In: which parts, how many rounds. Out: a table for each part, target/bench/trust.json, and an error when a promise
//! that is given as a figure was not kept.

mod crl;
mod names;
mod reload;
mod resume;
mod revoke;
mod rules;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::finding::{self, Finding};
use crate::process;
use crate::workspace::Workspace;

/// What to measure and how often.
#[derive(Args)]
pub struct TrustOptions {
    /// Only these parts; by default all.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Rounds of each comparison; what is compared takes turns within a round.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Live connections of `revoke`; a fifth of them is revoked.
    #[arg(long, value_name = "NUMBER", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(10..=9000))]
    connections: u32,
    /// Entries of the long list of `crl`.
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=3_000_000))]
    entries: u32,
    /// Envoy, to compare with in `resume`; by default it is installed into .tools/envoy.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// An earlier build of the gateway, whose full handshakes are compared too in `resume`.
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// CPU for each full and each resumed handshake, beside Envoy's.
    Resume,
    /// From a new revocation list to the last byte of a revoked client.
    Revoke,
    /// A list of a million entries, reloaded under load.
    Crl,
    /// A hundred reloads in a row under load.
    Reload,
    /// A resolver that says nothing: start, revocation and end.
    Names,
    /// CPU for each handshake with ten and with ten thousand rules for identities.
    Rules,
}

/// Measures, prints, writes.
pub fn run(options: &TrustOptions) -> Result<()> {
    let parts = match options.parts.as_slice() {
        [] => Part::value_variants(),
        parts => parts,
    };
    let workspace = Workspace::prepare("trust")?;
    process::make_room()?;
    let measured = measure(&workspace, options, parts);
    workspace.keep_if_failed(measured)
}

fn measure(workspace: &Workspace, options: &TrustOptions, parts: &[Part]) -> Result<()> {
    let parts = parts
        .iter()
        .map(|part| (format!("{part:?}").to_lowercase(), *part));
    finding::collect("trust.json", parts, |part| match part {
        Part::Resume => resume::measure(workspace, options),
        Part::Revoke => revoke::measure(workspace, options.connections as usize),
        Part::Crl => crl::measure(workspace, options),
        Part::Reload => reload::measure(workspace),
        Part::Names => names::measure(workspace),
        Part::Rules => rules::measure(workspace, options),
    })
}
