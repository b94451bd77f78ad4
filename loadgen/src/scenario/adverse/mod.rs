//! Adverse clients: they have every right to connect, and then misuse HTTP/2.
//! In: kinds of misuse, a target that may be attacked, identities. Out: by kind how the server ended each attempt.
//!
//! Each attempt is a connection of its own with a certificate that the server admits. What a server should do with them
//! is for the reader, or a test, to judge; other load beside them shows what its other clients notice.

mod attempt;
mod deed;
mod frames;
mod outcome;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::flood::permission::ensure_permitted;
use crate::client::{Target, Tickets};
use crate::report::{Flooding, Report, Unit};
use crate::run::{Plan, Worker, drive};
use attempt::Client;
use outcome::AdverseOutcome;

/// A way to misuse HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AdverseKind {
    /// Opens streams and resets them at once.
    RapidReset,
    /// Opens streams and makes the server reset them, by more credit than a window holds.
    MadeYouReset,
    /// Continues one field block for ever.
    Continuation,
    /// Sends SETTINGS, each of which has to be acknowledged.
    Settings,
    /// Sends PING, each of which has to be answered.
    Ping,
    /// Requests whose short field blocks stand for long lists.
    HpackBomb,
    /// Sends DATA without data.
    EmptyData,
    /// Sends DATA of one byte.
    TinyData,
    /// Gives credit byte by byte.
    WindowUpdate,
    /// Sends frames of a type that does not exist.
    UnknownFrames,
    /// Wants answers and gives no credit for them.
    ZeroWindow,
    /// Wants answers, gives all the credit there is, and does not read.
    SlowReader,
    /// Sends a frame a byte at a time.
    SlowWriter,
    /// Sends as much content as all windows allow, on every stream, and never ends it.
    OpenWindows,
}

impl AdverseKind {
    fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid-reset",
            Self::MadeYouReset => "made-you-reset",
            Self::Continuation => "continuation",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::HpackBomb => "hpack-bomb",
            Self::EmptyData => "empty-data",
            Self::TinyData => "tiny-data",
            Self::WindowUpdate => "window-update",
            Self::UnknownFrames => "unknown-frames",
            Self::ZeroWindow => "zero-window",
            Self::SlowReader => "slow-reader",
            Self::SlowWriter => "slow-writer",
            Self::OpenWindows => "open-windows",
        }
    }
}

/// What to do to which target.
#[derive(Debug, Clone)]
pub struct AdverseOptions {
    /// Kinds, in turn.
    pub kinds: Vec<AdverseKind>,
    /// Frames or pairs of frames that an attempt sends, unless the server ends it before.
    pub frames: u64,
    /// Streams of kinds that hold streams.
    pub streams: u32,
    /// The most content on one stream.
    pub size: u64,
    /// Path of requests.
    pub path: String,
    /// Authority instead of the target's name.
    pub host: Option<String>,
    /// Whether the operator allows any target.
    pub is_allowed: bool,
}

/// What all connections share.
struct Misuse {
    target: Target,
    options: AdverseOptions,
    next: AtomicU64,
}

/// Runs the scenario.
pub fn run(target: &Target, plan: &Plan, options: AdverseOptions) -> Result<Report> {
    if !options.is_allowed {
        for endpoint in target.endpoints() {
            ensure_permitted(endpoint.address.ip(), false)?;
        }
    }
    let misuse = Arc::new(Misuse {
        target: target.clone(),
        options,
        next: AtomicU64::new(0),
    });
    let crew = misuse.clone();
    let outcome = drive(plan, Some(target), move |worker| work(worker, crew.clone()))?;
    let mut report = Report::new("adverse", Unit::Attempt, target, plan, &outcome);
    let attempts = outcome.tally.attempts.values();
    let made: u64 = attempts.map(|attempts| attempts.made).sum();
    report.flood = Some(Flooding {
        starts_per_second: made as f64 / outcome.elapsed.as_secs_f64().max(f64::EPSILON),
        kinds: outcome.tally.attempts,
    });
    let options = &misuse.options;
    let kinds: Vec<&str> = options.kinds.iter().map(|kind| kind.name()).collect();
    report.add_setting("kinds", kinds.join(", "));
    report.add_setting("frames", options.frames.to_string());
    report.add_setting("streams", options.streams.to_string());
    Ok(report)
}

impl Misuse {
    fn take(&self) -> AdverseKind {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let kinds = &self.options.kinds;
        kinds[(number % kinds.len() as u64) as usize]
    }
}

async fn work(mut worker: Worker, misuse: Arc<Misuse>) -> Result<()> {
    let mut dialer = worker.dialer(&misuse.target, Tickets::Ignored)?;
    let endpoint = &misuse.target.endpoint(worker.index).name;
    let authority = misuse.options.host.as_ref().unwrap_or(endpoint);
    let mut turns = worker.ready().await?;
    while turns.next().await?.is_some() {
        let kind = misuse.take();
        let end = turns.deadline().into();
        let connected = {
            let _permit = worker.connecting().await;
            dialer.connect().await
        };
        let outcome = match connected {
            Ok(stream) => {
                let client = Client::new(kind, &misuse.options, authority);
                client.attempt(stream, dialer.timeout, end).await
            }
            Err(failure) => AdverseOutcome::of_connecting(&failure),
        };
        worker.tally(|tally| {
            let attempts = tally.attempts.entry(kind.name()).or_default();
            attempts.made += 1;
            attempts.connected += u64::from(outcome.is_connected());
            *attempts.outcomes.entry(outcome.label().into()).or_default() += 1;
        });
        worker.complete(Duration::ZERO);
    }
    worker.done().await;
    Ok(())
}
