//! The arguments of `flood`, and the way to the scenario. In: the command line. Out: whether everything was done.
//! Apart from the other arguments because none of `ClientArguments` fits: a flood needs no CA and no identity.

use anyhow::{Result, ensure};
use clap::Args;

use super::arguments::{LoadArguments, OutputArguments, PaceArguments, SpanArguments};
use super::checked_plan;
use crate::client;
use crate::limits;
use crate::scenario::flood::{self, FloodKind, FloodOptions, OVERRIDE};
use crate::sources::Sources;

#[derive(Debug, Args)]
pub(super) struct FloodArguments {
    /// What to do; several kinds are taken in turn, `syn` goes alone.
    #[arg(value_enum, value_name = "KIND", required = true)]
    kinds: Vec<FloodKind>,
    /// Server under attack.
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    /// Name to send as SNI; the target's host by default.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Application protocols to offer, in order; may be repeated.
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    alpn: Vec<String>,
    /// Source addresses, in turn: ADDRESS, FIRST-LAST, several with commas. They must be this host's own, but for
    /// `syn`, which forges them (198.18.0.0-198.19.255.255 by default).
    #[arg(long, value_name = "ADDRESSES")]
    sources: Option<Sources>,
    /// Close a connection that the server has left open for this time.
    #[arg(long, value_name = "DURATION", default_value_t = limits::FLOOD_TIMEOUT_DEFAULT.into())]
    timeout: humantime::Duration,
    /// Attempts per second, whatever the server does.
    #[arg(long, value_name = "PER_SECOND", help_heading = "Load")]
    rate: f64,
    /// End after this many attempts.
    #[arg(long, value_name = "NUMBER", help_heading = "Load")]
    count: Option<u64>,
    /// Connections held at once, at most; attempts beyond are missed.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = limits::FLOOD_CONNECTIONS_DEFAULT,
        help_heading = "Load"
    )]
    connections: usize,
    /// Threads of the load generator.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 1,
        help_heading = "Load"
    )]
    threads: usize,
    #[command(flatten)]
    span: SpanArguments,
    #[command(flatten)]
    output: OutputArguments,
    /// Attack a target that is neither loopback nor in a network namespace of its own, or forge sources outside one.
    #[arg(long = OVERRIDE)]
    is_allowed: bool,
}

pub(super) fn run(arguments: FloodArguments) -> Result<bool> {
    let timeout = arguments.timeout.into();
    ensure!(
        limits::FLOOD_TIMEOUT.contains(&timeout),
        "--timeout {}: must be {} to {}",
        arguments.timeout,
        humantime::format_duration(*limits::FLOOD_TIMEOUT.start()),
        humantime::format_duration(*limits::FLOOD_TIMEOUT.end())
    );
    let load = LoadArguments {
        connections: arguments.connections,
        threads: arguments.threads,
    };
    let pace = PaceArguments {
        rate: Some(arguments.rate),
        count: arguments.count,
    };
    let plan = checked_plan(&load, Some(&pace), &arguments.span, &arguments.output)?;
    let host = client::host(&arguments.target);
    let options = FloodOptions {
        kinds: arguments.kinds,
        target: client::resolve(&arguments.target)?,
        server_name: client::parse_server_name(arguments.server_name.as_deref().unwrap_or(host))?,
        name: arguments.target,
        alpn: arguments.alpn,
        sources: arguments.sources,
        timeout,
        is_allowed: arguments.is_allowed,
    };
    let report = flood::run(options, &plan)?;
    arguments.output.show(&report)
}
