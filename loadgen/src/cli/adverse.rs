//! The arguments of `adverse`, and the way to the scenario. In: the command line. Out: whether everything was done.

use anyhow::{Result, ensure};
use bytesize::ByteSize;
use clap::Args;

use super::arguments::{CommonArguments, PaceArguments};
use super::identity_plan::target;
use super::{checked_size, plan};
use crate::limits;
use crate::request::{HttpVersion, RequestKind};
use crate::scenario::adverse::{self, AdverseKind, AdverseOptions};
use crate::scenario::flood::OVERRIDE;

#[derive(Debug, Args)]
pub(super) struct AdverseArguments {
    /// What to do; several kinds are taken in turn.
    #[arg(value_enum, value_name = "KIND", required = true)]
    kinds: Vec<AdverseKind>,
    #[command(flatten)]
    common: CommonArguments,
    #[command(flatten)]
    pace: PaceArguments,
    /// Frames, or pairs of frames, that an attempt sends unless the server ends it before.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    frames: u64,
    /// Streams that the kinds hold which hold streams.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    streams: u32,
    /// The most content on one stream of open-windows.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    size: ByteSize,
    /// Path of requests; by default that of OTLP over gRPC.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Authority that requests name; by default the target.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Attack a target that is neither loopback nor in a network namespace of its own.
    #[arg(long = OVERRIDE)]
    is_allowed: bool,
}

pub(super) fn run(arguments: AdverseArguments) -> Result<bool> {
    ensure!(
        (1..=limits::ADVERSE_FRAMES_MAX).contains(&arguments.frames),
        "--frames {}: must be 1 to {}",
        arguments.frames,
        limits::ADVERSE_FRAMES_MAX
    );
    ensure!(
        (1..=limits::STREAMS_MAX as u32).contains(&arguments.streams),
        "--streams {}: must be 1 to {}",
        arguments.streams,
        limits::STREAMS_MAX
    );
    let size = checked_size("--size", arguments.size, limits::CONTENT_MAX)?;
    let plan = plan(&arguments.common, Some(&arguments.pace))?;
    let mut target = target(&arguments.common, &plan)?;
    if arguments.common.client.alpn.is_empty() {
        target = target.with_alpn(&[HttpVersion::H2.alpn()]);
    }
    let path = arguments.path;
    let options = AdverseOptions {
        kinds: arguments.kinds,
        frames: arguments.frames,
        streams: arguments.streams,
        size,
        path: path.unwrap_or_else(|| RequestKind::Grpc.path().to_owned()),
        host: arguments.host,
        is_allowed: arguments.is_allowed,
    };
    let report = adverse::run(&target, &plan, options)?;
    arguments.common.output.show(&report)
}
