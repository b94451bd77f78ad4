//! The result of a run, as a table for people and JSON for machines.
//! In: an `Outcome` with the plan it came from. Out: text on standard output. Divides, never measures.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::process::Sample;
use crate::run::{Outcome, Plan};
use crate::tally::Tally;
use crate::target::Target;

pub use crate::tally::{Attempts, FailureCount};

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
    /// One attempt of a flood.
    Attempt,
}

/// What the load was spoken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TLS 1.3.
    Tls,
    /// Plain TCP, asked for with `--plaintext`.
    Plaintext,
}

/// Whom a run was about.
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
    /// Payload bytes sent.
    pub bytes_up: u64,
    /// Payload bytes received.
    pub bytes_down: u64,
    /// Further counts.
    pub details: BTreeMap<&'static str, u64>,
    /// Failures by kind.
    pub failures: BTreeMap<String, FailureCount>,
    /// What a flood did; absent for all other scenarios.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flooding>,
    /// CPU time of the load generator during the work, in seconds.
    pub generator_cpu_seconds: f64,
    /// Cost of the server; null without `--server-pid`.
    pub server: Option<ServerCost>,
}

/// Latency percentiles in microseconds, from the intended start of each unit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What a flood did.
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
        outcome: &Outcome,
    ) -> Self {
        let is_plaintext = target.is_plaintext();
        let subject = Subject {
            name: &target.name(),
            transport: if is_plaintext {
                Transport::Plaintext
            } else {
                Transport::Tls
            },
            identities: target.identities.len().min(plan.connections),
        };
        Self::about(scenario, unit, subject, plan, outcome)
    }

    pub(crate) fn about(
        scenario: &'static str,
        unit: Unit,
        subject: Subject<'_>,
        plan: &Plan,
        outcome: &Outcome,
    ) -> Self {
        let tally = &outcome.tally;
        let seconds = outcome.elapsed.as_secs_f64();
        Self {
            scenario,
            target: subject.name.to_owned(),
            transport: subject.transport,
            connections: plan.connections,
            threads: plan.threads,
            identities: subject.identities,
            rate: plan.rate,
            settings: BTreeMap::new(),
            started_at_unix_us: unix_us(outcome.started_at),
            elapsed_seconds: seconds,
            unit: unit.name(),
            completed: tally.completed,
            failed: tally.failed(),
            per_second: tally.completed as f64 / seconds.max(f64::EPSILON),
            latency: unit.has_latency().then(|| latency(tally)).flatten(),
            bytes_up: tally.bytes_up,
            bytes_down: tally.bytes_down,
            details: tally.details.clone(),
            failures: tally.failures.clone(),
            flood: None,
            generator_cpu_seconds: outcome.own_cpu.as_secs_f64(),
            server: outcome
                .samples
                .map(|samples| server_cost(unit, &plan.server_pids, samples, tally)),
        }
    }

    pub(crate) fn add_setting(&mut self, name: &'static str, value: impl Into<String>) {
        self.settings.insert(name, value.into());
    }

    /// Whether there was work and all of it succeeded.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.completed > 0
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
            Self::Attempt => "attempt",
        }
    }

    /// Held connections all take as long as the hold, and an attacker waits for nothing: that is no latency.
    fn has_latency(self) -> bool {
        !matches!(self, Self::Connection | Self::Attempt)
    }

    fn cpu(self, cpu: Duration, tally: &Tally) -> Option<Quantity> {
        let (amount, scale, unit) = match self {
            Self::Handshake => (tally.completed as f64, 1e6, "us per handshake"),
            Self::Opening => (tally.completed as f64, 1e6, "us per connection opened"),
            Self::Echo => (tally.completed as f64, 1e6, "us per echo"),
            Self::Gibibyte => {
                let bytes = tally.bytes_up + tally.bytes_down;
                (bytes as f64 / (1u64 << 30) as f64, 1e3, "ms per GiB")
            }
            Self::Connection => return None,
            Self::Export => (tally.completed as f64, 1e6, "us per export"),
            Self::Attempt => (tally.completed as f64, 1e6, "us per attempt"),
        };
        (amount > 0.0).then(|| Quantity {
            value: cpu.as_secs_f64() * scale / amount,
            unit,
        })
    }
}

fn unix_us(moment: SystemTime) -> u64 {
    // A clock before 1970 is one that nobody has set.
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn latency(tally: &Tally) -> Option<Latency> {
    let histogram = &tally.latency;
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
    (!histogram.is_empty()).then(|| Latency {
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: histogram.max() as f64 / 1e3,
    })
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
        kib_per_connection: (unit == Unit::Connection && tally.completed > 0)
            .then(|| growth_kib / tally.completed as f64),
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

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Rows(Vec::new());
        self.describe_run(&mut rows);
        self.describe_result(&mut rows);
        if let Some(server) = &self.server {
            server.describe(&mut rows);
        }
        for (label, failure) in &self.failures {
            rows.add(
                &format!("failed: {label}"),
                format!("{} ({})", failure.count, failure.example),
            );
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        for (name, value) in rows.0 {
            table.add_row([
                Cell::new(name),
                Cell::new(value).set_alignment(CellAlignment::Left),
            ]);
        }
        write!(formatter, "{table}")
    }
}

struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, name: &str, value: impl fmt::Display) {
        self.0.push((name.to_owned(), value.to_string()));
    }
}

impl Report {
    fn describe_run(&self, rows: &mut Rows) {
        rows.add("scenario", self.scenario);
        rows.add("target", &self.target);
        if self.transport == Transport::Plaintext {
            rows.add("transport", "plaintext: no TLS, a baseline");
        }
        for (name, value) in &self.settings {
            rows.add(name, value);
        }
        let identities = match self.identities {
            0 if self.transport == Transport::Plaintext => "nobody to identify".to_owned(),
            0 => "no client certificate".to_owned(),
            1 => "1 client identity".to_owned(),
            count => format!("{count} client identities"),
        };
        rows.add(
            "load",
            format!(
                "{}, {}, {identities}, {}",
                counted(self.connections, "connection"),
                counted(self.threads, "thread"),
                self.rate.map_or("closed loop".to_owned(), |rate| format!(
                    "open loop at {rate}/s"
                ))
            ),
        );
    }

    fn describe_result(&self, rows: &mut Rows) {
        rows.add("elapsed", format!("{:.2} s", self.elapsed_seconds));
        rows.add(
            "completed",
            format!("{} ({:.1}/s)", self.completed, self.per_second),
        );
        rows.add("failed", self.failed);
        let bytes = self.bytes_up + self.bytes_down;
        if bytes > 0 {
            let mebibytes_per_second = bytes as f64 / f64::from(1 << 20) / self.elapsed_seconds;
            rows.add(
                "bytes up / down",
                format!(
                    "{} / {} ({mebibytes_per_second:.1} MiB/s)",
                    self.bytes_up, self.bytes_down
                ),
            );
        }
        if let Some(latency) = &self.latency {
            rows.add("latency p50", microseconds(latency.p50_us));
            rows.add("latency p90", microseconds(latency.p90_us));
            rows.add("latency p99", microseconds(latency.p99_us));
            rows.add("latency p99.9", microseconds(latency.p999_us));
            rows.add("latency max", microseconds(latency.max_us));
        }
        if let Some(flood) = &self.flood {
            flood.describe(rows);
        }
        for (name, count) in &self.details {
            rows.add(name, count);
        }
        rows.add(
            "generator CPU",
            format!(
                "{:.2} s ({:.0} % of one CPU)",
                self.generator_cpu_seconds,
                100.0 * self.generator_cpu_seconds / self.elapsed_seconds.max(f64::EPSILON)
            ),
        );
    }
}

impl Flooding {
    fn describe(&self, rows: &mut Rows) {
        rows.add("started", format!("{:.1}/s", self.starts_per_second));
        for (kind, attempts) in &self.kinds {
            let outcomes: Vec<String> = attempts
                .outcomes
                .iter()
                .map(|(outcome, count)| format!("{count} {outcome}"))
                .collect();
            rows.add(
                kind,
                format!(
                    "{} made, {} connected: {}",
                    attempts.made,
                    attempts.connected,
                    outcomes.join(", ")
                ),
            );
        }
    }
}

impl ServerCost {
    fn describe(&self, rows: &mut Rows) {
        let per_unit = self.cpu_per_unit.map_or(String::new(), |quantity| {
            format!(", {:.1} {}", quantity.value, quantity.unit)
        });
        rows.add("server CPU", format!("{:.2} s{per_unit}", self.cpu_seconds));
        rows.add(
            "server memory",
            format!("{} before, {} after", self.memory_before, self.memory_after),
        );
        if let Some(kib) = self.kib_per_connection {
            rows.add("server memory", format!("{kib:.1} KiB per idle connection"));
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} KiB resident", self.rss_kib)?;
        match self.pss_kib {
            Some(pss) => write!(formatter, " ({pss} KiB proportional)"),
            None => Ok(()),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn microseconds(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.1} ms", value / 1e3)
    } else {
        format!("{value:.1} us")
    }
}
