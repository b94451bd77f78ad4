//! Floods: clients that do not want in but keep the server busy.
//! In: kinds of attack, a target that may be attacked, sources. Out: exact counts of the attempts and their ends, by
//! kind.
//!
//! Always an open loop: an attacker does not wait for the server. A turn that finds every connection in use is missed.
//! The report says so, and no later turn makes up for it.

mod attempt;
mod disguise;
mod outcome;
mod peer;
pub(super) mod permission;
mod syn;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustls::pki_types::ServerName;

use crate::failure::{Failure, FailureKind};
use crate::limits::FLOOD_LATENESS_MAX;
use crate::report::{Flooding, Report, Subject, Transport, Unit};
use crate::run::{Plan, Worker, drive};
use crate::sources::Sources;
use attempt::Attacker;
use disguise::Disguise;
use outcome::{AttemptOutcome, not_made};
use syn::Forger;

pub use permission::OVERRIDE;

/// A way to keep a server busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FloodKind {
    /// SYN packets with forged sources; takes CAP_NET_RAW and a network namespace of its own.
    Syn,
    /// Connections that send nothing.
    Idle,
    /// Random bytes and plain HTTP in turn.
    Junk,
    /// A real ClientHello, one byte a second.
    Slow,
    /// A real ClientHello; after the answer, a reset and silence in turn.
    Half,
    /// Full handshakes with a certificate of a foreign CA.
    Badcert,
}

impl FloodKind {
    fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Idle => "idle",
            Self::Junk => "junk",
            Self::Slow => "slow",
            Self::Half => "half",
            Self::Badcert => "badcert",
        }
    }
}

/// Which attempts to make at which target.
#[derive(Debug, Clone)]
pub struct FloodOptions {
    /// Kinds of attempts, in turn. `Syn` goes alone.
    pub kinds: Vec<FloodKind>,
    /// The target as given, for the report.
    pub name: String,
    /// Its address.
    pub target: SocketAddr,
    /// Name to send as SNI.
    pub server_name: ServerName<'static>,
    /// Application protocols to offer.
    pub alpn: Vec<String>,
    /// Addresses to come from, in turn; none leaves the choice to the kernel, or forges those of RFC 2544.
    pub sources: Option<Sources>,
    /// How long an attempt may last.
    pub timeout: Duration,
    /// Whether the operator allows any target.
    pub is_allowed: bool,
}

/// Runs the scenario.
pub fn run(options: FloodOptions, plan: &Plan) -> Result<Report> {
    let is_forged = options.kinds.contains(&FloodKind::Syn);
    ensure!(
        !is_forged || options.kinds.len() == 1,
        "`syn` goes alone: its sources are forged, those of the others are not"
    );
    if !options.is_allowed {
        permission::ensure_permitted(options.target.ip(), is_forged)?;
    }
    let sources = options.checked_sources(is_forged)?;
    let mut plan = plan.clone();
    if is_forged {
        // Nothing is held: one sender for each thread is as fast as many.
        plan.connections = plan.threads;
    }
    let mut settings = vec![
        ("kinds", kind_names(&options.kinds)),
        (
            "time-out",
            humantime::format_duration(options.timeout).to_string(),
        ),
    ];
    if let Some(sources) = &sources {
        settings.push(("sources", sources.to_string()));
    }
    let flood = Arc::new(Flood {
        disguise: Disguise::new(options.server_name, &options.alpn)?,
        kinds: options.kinds,
        target: options.target,
        sources,
        timeout: options.timeout,
        next: AtomicU64::new(0),
        starts: Mutex::new(None),
    });
    let crew = flood.clone();
    let outcome = drive(&plan, None, move |worker| work(worker, crew.clone()))?;
    let subject = Subject {
        name: &options.name,
        transport: Transport::Tls,
        identities: usize::from(flood.kinds.contains(&FloodKind::Badcert)),
    };
    let mut report = Report::about("flood", Unit::Attempt, subject, &plan, &outcome);
    report.flood = Some(Flooding {
        starts_per_second: flood.starts_per_second(),
        kinds: outcome.tally.attempts,
    });
    for (name, value) in settings {
        report.add_setting(name, value);
    }
    Ok(report)
}

impl FloodOptions {
    fn checked_sources(&self, is_forged: bool) -> Result<Option<Sources>> {
        let default = if !is_forged {
            None
        } else if self.target.is_ipv4() {
            // RFC 2544 and RFC 5180 keep these for such measurements; no host has them.
            Some("198.18.0.0-198.19.255.255".parse()?)
        } else {
            Some("2001:2::-2001:2:0:ffff:ffff:ffff:ffff:ffff".parse()?)
        };
        let chosen = self.sources.clone().or(default);
        if let Some(sources) = &chosen {
            if is_forged {
                sources.ensure_family(self.target.ip())?;
            } else {
                sources.ensure_usable(self.target.ip())?;
            }
        }
        Ok(chosen)
    }
}

/// What all threads share.
struct Flood {
    kinds: Vec<FloodKind>,
    target: SocketAddr,
    sources: Option<Sources>,
    timeout: Duration,
    disguise: Disguise,
    next: AtomicU64,
    starts: Mutex<Option<Starts>>,
}

/// When attempts started, for the rate that was really reached.
#[derive(Debug, Clone, Copy)]
struct Starts {
    first: Instant,
    last: Instant,
    count: u64,
}

/// What an attempt is to be.
#[derive(Debug, Clone, Copy)]
struct Turn {
    kind: FloodKind,
    /// Kinds of two variants: the second.
    is_second: bool,
    /// Decides on the source: each does every kind and variant before the next one has its turn.
    place: u64,
}

impl Flood {
    fn take(&self) -> Turn {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut starts = self.starts.lock().expect("nothing in here panics");
        let starts = starts.get_or_insert(Starts {
            first: now,
            last: now,
            count: 0,
        });
        starts.last = starts.last.max(now);
        starts.count += 1;
        self.turn(number)
    }

    fn turn(&self, number: u64) -> Turn {
        let kinds = self.kinds.len() as u64;
        let kind = self.kinds[(number % kinds) as usize];
        let round = number / kinds;
        Turn {
            kind,
            is_second: round % 2 == 1,
            place: if kind == FloodKind::Syn {
                number
            } else {
                round / 2
            },
        }
    }

    /// Without waiting for the last attempts to end, which may take as long as the time-out.
    fn starts_per_second(&self) -> f64 {
        let starts = *self.starts.lock().expect("nothing in here panics");
        starts.map_or(0.0, |starts| {
            let span = starts.last.duration_since(starts.first).as_secs_f64();
            (starts.count - 1) as f64 / span.max(f64::EPSILON)
        })
    }
}

async fn work(mut worker: Worker, flood: Arc<Flood>) -> Result<()> {
    let attacker = Attacker::new(flood.clone())?;
    let mut forger = flood
        .sources
        .clone()
        .filter(|_| flood.kinds == [FloodKind::Syn])
        .map(|sources| Forger::new(flood.target, sources))
        .transpose()?;
    let mut turns = worker.ready().await?;
    while let Some(intended) = turns.next().await? {
        if intended.elapsed() > FLOOD_LATENESS_MAX {
            worker.fail(&missed());
            continue;
        }
        let turn = flood.take();
        let result = match &mut forger {
            Some(forger) => match forger.send(turn.place) {
                Ok(()) => Ok(AttemptOutcome::Sent),
                Err(error) => Err(not_made(&error)),
            },
            None => attacker.attempt(turn, turns.deadline().into()).await,
        };
        // Give up all connections at that moment: to go on would make a burst of what is left.
        let is_over = matches!(result, Ok(AttemptOutcome::OpenAtTheEnd));
        record(&worker, turn.kind, result);
        if is_over {
            break;
        }
    }
    worker.done().await;
    Ok(())
}

fn record(worker: &Worker, kind: FloodKind, result: Result<AttemptOutcome, Failure>) {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(failure) => return worker.fail(&failure),
    };
    worker.tally(|tally| {
        let attempts = tally.attempts.entry(kind.name()).or_default();
        attempts.made += 1;
        attempts.connected += u64::from(outcome.is_connected());
        *attempts.outcomes.entry(outcome.label()).or_default() += 1;
    });
    if outcome == AttemptOutcome::LetIn {
        worker.fail(&Failure::new(
            FailureKind::LetIn,
            "the server accepted a certificate whose CA was made for this run alone",
        ));
    } else {
        worker.complete(Duration::ZERO);
    }
}

fn missed() -> Failure {
    Failure::new(
        FailureKind::Missed,
        "every connection was in use: more --connections, a shorter --timeout or a lower --rate",
    )
}

fn kind_names(kinds: &[FloodKind]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}
