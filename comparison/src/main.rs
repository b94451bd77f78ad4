//! The program behind `cargo xtask bench`: measures with the release build on this machine, over loopback or between
//! network namespaces.
//! In: what to measure. Out: tables on standard output, JSON below target/bench. Bounds every load, and ends whatever
//! it started.
//!
//! It drives built programs from outside, as a user would, and shares no code with what it measures.

mod compare;
mod envoy;
mod figures;
mod finding;
mod gateway;
mod guard;
mod haproxy;
mod http;
mod install;
mod job;
mod load;
mod metrics;
mod nginx;
mod process;
mod regress;
mod server;
mod transport;
mod trust;
mod work;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Figures of Portcullis, taken with the release build on this machine.
#[derive(Parser)]
#[command(name = "portcullis-comparison", bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

/// What to measure.
#[derive(Subcommand)]
enum Subject {
    /// The gateway beside Envoy, nginx, HAProxy and whatever else is given, the limit in memory, and the same without
    /// TLS.
    Compare(compare::CompareOptions),
    /// The gateway of the working tree beside that of an earlier commit, in the same kinds of work.
    Regress(regress::RegressOptions),
    /// Resumption, revocation and reloads: what they cost, how fast they act, which clients they disturb.
    Trust(trust::TrustOptions),
    /// Requests of HTTP mode: many of one identity, many identities, and adverse clients beside others.
    Http(http::HttpOptions),
    /// Agents under each kind of flood: without the guard, with it, and with nftables instead. Takes root.
    Guard(guard::GuardOptions),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().subject {
        Subject::Compare(options) => compare::run(&options),
        Subject::Regress(options) => regress::run(&options),
        Subject::Trust(options) => trust::run(&options),
        Subject::Http(options) => http::run(&options),
        Subject::Guard(options) => guard::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What figures were taken on.
fn machine() -> Result<Value> {
    let read = |path: &str| -> Result<String> { Ok(std::fs::read_to_string(path)?) };
    let cpuinfo = read("/proc/cpuinfo")?;
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor"));
    let processor = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(String::new, |(_, name)| name.to_owned());
    Ok(json!({
        "cpus": cpus.count(),
        "processor": processor,
        "kernel": read("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
