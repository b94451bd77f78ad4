//! A report as a table for people. In: a `Report`. Out: text with one row for each thing worth knowing.

use std::fmt;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{
    ConnectionKind, Flaw, Flooding, Generator, Memory, Part, Refusals, Report, ServerCost,
    Transport,
};

/// Where long texts are broken.
const WIDTH: u16 = 118;

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(WIDTH);
        for (name, value) in self.rows() {
            table.add_row([
                Cell::new(name),
                Cell::new(value).set_alignment(CellAlignment::Left),
            ]);
        }
        write!(formatter, "{table}")
    }
}

/// Names and values.
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
        if let Some(negotiated) = &self.negotiated {
            rows.add("negotiated", negotiated);
        }
        let identities = match self.identities {
            0 if self.transport == Transport::Plaintext => "no identity".to_owned(),
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
    }

    /// What is figured apart, where there is something to tell apart.
    fn describe_parts(&self, rows: &mut Rows) {
        for (kind, part) in &self.handshakes {
            rows.add(kind.name(), part);
        }
        for (name, part) in &self.targets {
            rows.add(name, part);
        }
        if let Some(rotation) = &self.rotation {
            let connections = rotation.connections;
            rows.add(
                "new identities",
                format!(
                    "after {:.1} s, on {connections} of {}",
                    rotation.after_seconds,
                    counted(self.connections, "connection")
                ),
            );
            rows.add("before that", &rotation.before);
            rows.add("after it", &rotation.after);
        }
        for (flaw, refusals) in &self.refusals {
            rows.add(flaw.name(), refusals);
        }
        for (kind, phases) in &self.phases {
            for (phase, latency) in phases.each() {
                if let Some(latency) = latency {
                    rows.add(
                        &format!("{phase}, {}", kind.name()),
                        format!(
                            "p50 {}, p99 {}",
                            microseconds(latency.p50_us),
                            microseconds(latency.p99_us)
                        ),
                    );
                }
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            completed,
            failed,
            per_second,
            ..
        } = self;
        write!(
            formatter,
            "{completed} ({per_second:.1}/s), {failed} failed"
        )?;
        if let Some(latency) = self.latency {
            let (p50, p99) = (microseconds(latency.p50_us), microseconds(latency.p99_us));
            write!(formatter, ", p50 {p50}, p99 {p99}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            attempts,
            as_expected,
            let_in,
            otherwise,
        } = self;
        write!(
            formatter,
            "{attempts} tried, {as_expected} refused for that reason, {let_in} let in"
        )?;
        for (label, count) in otherwise {
            write!(formatter, ", {count} {label}")?;
        }
        Ok(())
    }
}

impl Generator {
    fn describe(&self, rows: &mut Rows) {
        if let Some(ratio) = self.busiest_thread_ratio {
            rows.add(
                "its busiest thread",
                format!("{:.0} % of the time", 100.0 * ratio),
            );
        }
        if let Some(lag) = self.lag {
            rows.add(
                "it noticed things",
                format!(
                    "p50 {}, p99 {} late",
                    microseconds(lag.p50_us),
                    microseconds(lag.p99_us)
                ),
            );
        }
        for doubt in &self.doubts {
            rows.add("do not trust this", doubt);
        }
    }
}

impl ConnectionKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Plaintext => "plaintext",
        }
    }
}

impl Flaw {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl Report {
    /// What each was given, for people.
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Rows(Vec::new());
        self.describe_run(&mut rows);
        self.describe_result(&mut rows);
        self.describe_parts(&mut rows);
        let per_unit = self
            .generator
            .cpu_per_unit
            .map_or(String::new(), |quantity| {
                format!(", {:.1} {}", quantity.value, quantity.unit)
            });
        rows.add(
            "generator CPU",
            format!("{:.2} s{per_unit}", self.generator_cpu_seconds),
        );
        self.generator.describe(&mut rows);
        if let Some(reason) = &self.server_lost {
            rows.add("server CPU", format!("not known: {reason}"));
        }
        if let Some(server) = &self.server {
            server.describe(&mut rows);
        }
        for (label, failure) in &self.failures {
            rows.add(
                &format!("failed: {label}"),
                format!("{} ({})", failure.count, failure.example),
            );
        }
        rows.0
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
