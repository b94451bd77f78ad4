//! The log: `tracing` events as text or JSON lines on standard error.
//! In: events from every thread. Out: lines, written by a thread of their own. A worker never waits for the log: when
//! nobody reads it fast enough, lines are dropped.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::limits;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes what is still queued when dropped.
#[derive(Debug)]
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// Starts the log of this process. `filter` is a level (`info`) or a list of `module=level` directives.
pub fn start_log(format: LogFormat, filter: &str) -> anyhow::Result<LogGuard> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(limits::LOG_LINES_MAX)
        .thread_name("log")
        .finish(std::io::stderr());
    let filter = EnvFilter::builder().parse(filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false);
    let started = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))?;
    Ok(LogGuard { _writer: guard })
}
