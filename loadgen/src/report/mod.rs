//! The result of a run: a table for the terminal, JSON for machines, a page to pass on.
//! In: a `RunOutcome` with the plan it came from. Out: text. Divides, never measures.

mod environment;
mod figures;
mod html;
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::client::Target;
use crate::failure::{Failure, FailureKind};
use crate::generator::Account;
use crate::process::Sample;
use crate::run::{Plan, RunOutcome};
use crate::tally::Tally;

pub use crate::generator::{Generator, ThreadUse};
pub use crate::tally::{Attempts, ConnectionKind, FailureCount, Flaw, Refusals, Second};
pub use environment::Environment;
pub use figures::{Latency, Part, PhaseTimes, RotationReport};

/// What a scenario counts, and so what its costs are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// One handshake.
    Handshake,
    /// One connection opened and closed, where there is no handshake.
    Opening,
    /// One echo.
    Echo,
    /// 2^30 bytes of payload, both directions added up.
    Gibibyte,
    /// One held connection.
    Connection,
    /// One OTLP export request.
    Export,
    /// One request of HTTP with its answer.
    Request,
    /// One attempt of a flood.
    Attempt,
}

/// What carried the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS 1.3.
    Tls,
    /// Plain TCP, asked for with `--plaintext`.
    Plaintext,
}

/// The servers and identities of a run.
pub(crate) struct Subject<'a> {
    /// Servers under load, as given.
    pub(crate) name: &'a str,
    pub(crate) transport: Transport,
    /// Distinct client identities.
    pub(crate) identities: usize,
}

/// The result of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Servers under load, as given, with commas.
    pub target: String,
    /// Whether there was TLS at all.
    pub transport: Transport,
    /// Connections at once.
    pub connections: usize,
    /// Threads of the load generator.
    pub threads: usize,
    /// Distinct client identities; 0 is no client certificate at all.
    pub identities: usize,
    /// Units per second of the open loop; null is a closed loop.
    pub rate: Option<f64>,
    /// Options of the scenario.
    pub settings: BTreeMap<&'static str, String>,
    /// Cipher suite and key exchange group of the first handshake; null without TLS, or where none was completed.
    pub negotiated: Option<String>,
    /// Where and how it was measured.
    pub environment: Environment,
    /// The common start of the work as Unix time in microseconds, to lay it beside other clocks and logs.
    pub started_at_unix_us: u64,
    /// From the common start to the end of the last unit, in seconds.
    pub elapsed_seconds: f64,
    /// What one unit is.
    pub unit: &'static str,
    /// Units that completed; for `stream` the transfers, see `bytes_up` and `bytes_down`.
    pub completed: u64,
    /// Units that failed.
    pub failed: u64,
    /// Completed units per second.
    pub per_second: f64,
    /// Latency of the completed units; null when there are none, and for idle connections.
    pub latency: Option<Latency>,
    /// The phases of all connections that the server must accept, the preparation included, by kind of connection.
    pub phases: BTreeMap<ConnectionKind, PhaseTimes>,
    /// Full and resumed handshakes apart; empty where a run has only one kind.
    pub handshakes: BTreeMap<ConnectionKind, Part>,
    /// Several addresses apart; empty where there is one.
    pub targets: BTreeMap<String, Part>,
    /// What a replacement of the identities brought; null without one.
    pub rotation: Option<RotationReport>,
    /// The outcome of clients that the server must refuse. The other figures leave them out, except failures.
    pub refusals: BTreeMap<Flaw, Refusals>,
    /// What happened in each second from the common start.
    pub seconds: Vec<Second>,
    /// Payload bytes sent.
    pub bytes_up: u64,
    /// Payload bytes received.
    pub bytes_down: u64,
    /// Further counts.
    pub details: BTreeMap<&'static str, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<String, FailureCount>,
    /// What a flood or adverse clients did; absent for all other scenarios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flooding>,
    /// CPU time of the load generator during the work, in seconds; the kernel counts in steps of 10 ms.
    pub generator_cpu_seconds: f64,
    /// How busy and how late the load generator was, and whether its figures can be trusted.
    pub generator: Generator,
    /// Cost of the server; null without `--server-pid`.
    pub server: Option<ServerCost>,
    /// Why there is no cost of the server although there was `--server-pid`.
    pub server_lost: Option<String>,
    /// Shares of the units with what they did not exceed in microseconds, for a chart.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

/// What a flood or adverse clients did.
#[derive(Debug, Clone, Serialize)]
pub struct Flooding {
    /// The rate that was reached: attempts started per second, from the first start to the last.
    pub starts_per_second: f64,
    /// Attempts by kind.
    pub kinds: BTreeMap<&'static str, Attempts>,
}

/// What the server's processes spent.
#[derive(Debug, Clone, Serialize)]
pub struct ServerCost {
    /// Its processes.
    pub pids: Vec<u32>,
    /// CPU time during the work, in seconds; the kernel counts in steps of 10 ms.
    pub cpu_seconds: f64,
    /// CPU time per unit; null when no unit completed, and for idle connections.
    pub cpu_per_unit: Option<Quantity>,
    /// Memory before the first connection, in KiB.
    pub memory_before: Memory,
    /// Memory at the end of the work, in KiB.
    pub memory_after: Memory,
    /// Growth in memory per held connection in KiB, by proportional share where readable; for idle connections only.
    pub kib_per_connection: Option<f64>,
}

/// A number with its unit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantity {
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// Memory of the server's processes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Resident set in KiB.
    pub rss_kib: u64,
    /// Proportional set in KiB, where the kernel lets us read it.
    pub pss_kib: Option<u64>,
}

impl Report {
    pub(crate) fn new(
        scenario: &'static str,
        unit: Unit,
        target: &Target,
        plan: &Plan,
        outcome: &RunOutcome,
    ) -> Self {
        let subject = Subject {
            name: &target.name(),
            transport: match target.is_plaintext() {
                true => Transport::Plaintext,
                false => Transport::Tls,
            },
            identities: target.identities_shown(plan.connections),
        };
        let mut report = Self::about(scenario, unit, subject, plan, outcome);
        let (tally, elapsed) = (&outcome.tally, outcome.elapsed);
        report.negotiated = target.negotiated().map(str::to_owned);
        report.handshakes = figures::handshakes(tally, elapsed);
        report.targets = figures::targets(target, tally, elapsed);
        report.rotation = figures::rotation(target, tally, elapsed);
        for flawed in target.flawed() {
            report.refusals.entry(flawed.flaw).or_default();
        }
        report.note_untried();
        report
    }

    pub(crate) fn about(
        scenario: &'static str,
        unit: Unit,
        subject: Subject<'_>,
        plan: &Plan,
        outcome: &RunOutcome,
    ) -> Self {
        let tally = &outcome.tally;
        let seconds = outcome.elapsed.as_secs_f64();
        let latency = Latency::of(&tally.total.latency).filter(|_| unit.has_latency());
        let lag = Latency::of(&outcome.lag);
        let threads = outcome.threads.as_ref();
        let generator = Generator::new(&Account {
            elapsed: outcome.elapsed,
            cpu_per_unit: unit.cpu(outcome.own_cpu, tally),
            threads: threads.map(|[start, end]| (start.as_slice(), end.as_slice())),
            lag,
            latency,
        });
        Self {
            scenario,
            target: subject.name.to_owned(),
            transport: subject.transport,
            connections: plan.connections,
            threads: plan.threads,
            identities: subject.identities,
            rate: plan.rate,
            settings: BTreeMap::new(),
            negotiated: None,
            environment: Environment::here(),
            started_at_unix_us: unix_us(outcome.started_at),
            elapsed_seconds: seconds,
            unit: unit.name(),
            completed: tally.total.completed,
            failed: tally.failed(),
            per_second: tally.total.completed as f64 / seconds.max(f64::EPSILON),
            latency,
            phases: tally
                .phases
                .iter()
                .map(|(kind, phases)| (*kind, PhaseTimes::from(phases)))
                .collect(),
            handshakes: BTreeMap::new(),
            targets: BTreeMap::new(),
            rotation: None,
            refusals: tally.refusals.clone(),
            seconds: tally.seconds.clone(),
            bytes_up: tally.bytes_up,
            bytes_down: tally.bytes_down,
            details: tally.details.clone(),
            failures: tally.failures.clone(),
            flood: None,
            generator_cpu_seconds: outcome.own_cpu.as_secs_f64(),
            generator,
            server: outcome
                .samples
                .as_ref()
                .ok()
                .copied()
                .flatten()
                .map(|samples| server_cost(unit, &plan.server_pids, samples, tally)),
            server_lost: outcome.samples.as_ref().err().cloned(),
            curve: match unit.has_latency() {
                true => figures::curve(&tally.total.latency),
                false => Vec::new(),
            },
        }
    }

    pub(crate) fn add_setting(&mut self, name: &'static str, value: impl Into<String>) {
        self.settings.insert(name, value.into());
    }

    /// What a run was to show must have happened in it.
    fn note_untried(&mut self) {
        let mut untried = Vec::new();
        for (flaw, refusals) in &self.refusals {
            if refusals.attempts == 0 {
                untried.push(format!("no client that is {} had a turn", flaw.name()));
            }
        }
        if let Some(rotation) = &self.rotation
            && rotation.after.completed == 0
        {
            untried.push("nothing was done as the new identities".to_owned());
        }
        for detail in untried {
            let failure = Failure::new(FailureKind::Untried, detail);
            let noted = FailureCount {
                count: 0,
                example: failure.detail,
            };
            let entry = self.failures.entry(failure.kind.label()).or_insert(noted);
            entry.count += 1;
            self.failed += 1;
        }
    }

    /// Whether there was work and all of it succeeded. A refusal that had to be is work.
    pub fn is_good(&self) -> bool {
        let refused = self.refusals.values().any(|one| one.as_expected > 0);
        self.failed == 0 && (self.completed > 0 || refused)
    }

    /// The report as one JSON document.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report holds only numbers and strings")
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Opening => "connection opened",
            Self::Echo => "echo",
            Self::Gibibyte => "GiB",
            Self::Connection => "connection",
            Self::Export => "export",
            Self::Request => "request",
            Self::Attempt => "attempt",
        }
    }

    /// Held connections all take as long as the hold, and an attacker waits for nothing: that is no latency.
    fn has_latency(self) -> bool {
        !matches!(self, Self::Connection | Self::Attempt)
    }

    fn cpu(self, cpu: Duration, tally: &Tally) -> Option<Quantity> {
        let (amount, scale, unit) = match self {
            Self::Handshake => (tally.total.completed as f64, 1e6, "us per handshake"),
            Self::Opening => (
                tally.total.completed as f64,
                1e6,
                "us per connection opened",
            ),
            Self::Echo => (tally.total.completed as f64, 1e6, "us per echo"),
            Self::Gibibyte => {
                let bytes = tally.bytes_up + tally.bytes_down;
                (bytes as f64 / (1u64 << 30) as f64, 1e3, "ms per GiB")
            }
            Self::Connection => return None,
            Self::Export => (tally.total.completed as f64, 1e6, "us per export"),
            Self::Request => (tally.total.completed as f64, 1e6, "us per request"),
            Self::Attempt => (tally.total.completed as f64, 1e6, "us per attempt"),
        };
        (amount > 0.0).then(|| Quantity {
            value: cpu.as_secs_f64() * scale / amount,
            unit,
        })
    }
}

fn unix_us(moment: SystemTime) -> u64 {
    // A clock before 1970 was never set.
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn server_cost(unit: Unit, pids: &[u32], samples: [Sample; 3], tally: &Tally) -> ServerCost {
    let [before, start, end] = samples;
    let cpu = end.cpu.saturating_sub(start.cpu);
    let growth_kib = match end.pss_kib.zip(before.pss_kib) {
        Some((end, before)) => end as f64 - before as f64,
        None => end.rss_kib as f64 - before.rss_kib as f64,
    };
    ServerCost {
        pids: pids.to_vec(),
        cpu_seconds: cpu.as_secs_f64(),
        cpu_per_unit: unit.cpu(cpu, tally),
        memory_before: Memory::from(before),
        memory_after: Memory::from(end),
        kib_per_connection: (unit == Unit::Connection && tally.total.completed > 0)
            .then(|| growth_kib / tally.total.completed as f64),
    }
}

impl From<Sample> for Memory {
    fn from(sample: Sample) -> Self {
        Self {
            rss_kib: sample.rss_kib,
            pss_kib: sample.pss_kib,
        }
    }
}
