//! `cargo xtask bench`: figures, taken with the release build on this machine over loopback.
//! In: what to measure. Out: tables on standard output, JSON below target/bench. Every load is bounded, and what was
//! started is ended.
//!
//! It drives the built programs from outside, as a user would: what it measures shares no code with it.

mod envoy;
mod figures;
mod gateway;
mod load;
mod process;
mod site;
mod trust;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Subject {
    /// Resumption, revocation and reloads: what they cost, how fast they act, whom they disturb.
    Trust(trust::Options),
}

/// Measures.
pub fn run(subject: &Subject) -> Result<()> {
    match subject {
        Subject::Trust(options) => trust::run(options),
    }
}
