//! `cargo xtask bench http`: what HTTP mode costs where requests and identities are many, and what other clients notice of
//! adverse ones. In: which parts, how many rounds. Out: a table for each part, target/bench/http.json, and an
//! error when a promise that is given as a figure was not kept.

mod floods;
mod growth;
mod identities;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::finding::{self, Finding};
use crate::gateway::{Gateway, Setup};
use crate::job::{Http, Job};
use crate::load;
use crate::process::{self, Process};
use crate::workspace::Workspace;

/// What to measure and how often.
#[derive(Args)]
pub struct HttpOptions {
    /// Only these parts; by default all.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Rounds of each comparison; what is compared takes turns within a round.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Memory after a hundred thousand requests of one identity, and after a million.
    Growth,
    /// CPU for each request of ten thousand identities with a hundred tenants, beside those of one.
    Identities,
    /// The time that other clients wait while adverse ones are at work, for each kind of these.
    Floods,
}

/// Measures, prints, writes.
pub fn run(options: &HttpOptions) -> Result<()> {
    let parts = match options.parts.as_slice() {
        [] => Part::value_variants(),
        parts => parts,
    };
    let workspace = Workspace::prepare("http")?;
    process::make_room()?;
    let named = parts
        .iter()
        .map(|part| (format!("{part:?}").to_lowercase(), *part));
    let measured = finding::collect("http.json", named, |part| match part {
        Part::Growth => growth::measure(&workspace),
        Part::Identities => identities::measure(&workspace, options.rounds),
        Part::Floods => floods::measure(&workspace, options.rounds),
    });
    workspace.keep_if_failed(measured)
}

/// A gateway of HTTP/2 before a backend of its own, which ends with it.
fn start(workspace: &Workspace, name: &str, has_tenants: bool) -> Result<(Process, Gateway)> {
    let (backend, port, _) = load::http_backend(workspace, Http::Two.alpn())?;
    let setup = Setup {
        name,
        program: &workspace.gateway,
        job: Job::Requests {
            clients: Http::Two,
            backend: Http::Two,
        },
        backend: port,
        crl: None,
        provider: None,
        other_rules: 0,
        has_tenants,
    };
    Ok((backend, Gateway::start(workspace, &setup)?))
}
