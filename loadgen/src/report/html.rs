//! A report as one page with charts, which can be sent alone. In: a `Report`. Out: HTML that loads nothing.

use ::report::{Across, Bars, Lines, Page, Section, Span, Table};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Latency, Report, Transport};

impl Report {
    /// The report as the content of an HTML file.
    pub fn to_html(&self) -> String {
        let mut page =
            Page::new(format!("{} against {}", self.scenario, self.target)).paragraph(format!(
                "Measured by portcullis-loadgen {} on {}.",
                env!("CARGO_PKG_VERSION"),
                self.began()
            ));
        let environment = &self.environment;
        page = page.paragraph(format!(
            "Host {}, Linux {}, {}, load average {}. Command: {}",
            environment.host,
            environment.kernel,
            environment.cpus,
            environment.load_average,
            environment.command
        ));
        if self.transport == Transport::Plaintext {
            page = page.paragraph(
                "Without TLS: these figures are a baseline, and say nothing of a server that asks for certificates.",
            );
        }
        if !self.generator.is_trustworthy {
            page = page.paragraph(format!(
                "These figures cannot be trusted: {}.",
                self.generator.doubts.join("; ")
            ));
        }
        let sections = [
            Some(self.summary()),
            self.latency_section(),
            self.phases_section(),
            self.time_section(),
            Some(self.generator_section()),
        ];
        for section in sections.into_iter().flatten() {
            page = page.section(section);
        }
        page.html()
    }

    fn began(&self) -> String {
        let nanoseconds = i128::from(self.started_at_unix_us / 1_000_000) * 1_000_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
            .ok()
            .and_then(|moment| moment.format(&Rfc3339).ok())
            .unwrap_or_else(|| "a day that the clock did not know".to_owned())
    }

    fn summary(&self) -> Section {
        let table = self
            .rows()
            .into_iter()
            .fold(Table::new(["what", "figure"]), |table, (name, value)| {
                table.row([name, value])
            });
        Section::new("Summary").table(table)
    }

    fn latency_section(&self) -> Option<Section> {
        if self.curve.is_empty() {
            return None;
        }
        let mut chart = Lines::new("Latency", Across::Quantiles, "us");
        let kinds = self.handshakes.iter();
        let kinds = kinds.map(|(kind, part)| (kind.name(), &part.curve));
        let targets = self.targets.iter();
        let targets = targets.map(|(name, part)| (name.as_str(), &part.curve));
        let rotation = self.rotation.iter().flat_map(|rotation| {
            [
                ("before rotation", &rotation.before.curve),
                ("after rotation", &rotation.after.curve),
            ]
        });
        let all = [("all", &self.curve)].into_iter();
        for (name, curve) in all.chain(kinds).chain(targets).chain(rotation) {
            if !curve.is_empty() {
                chart.add(name, curve.clone());
            }
        }
        Some(
            Section::new("Latency")
                .paragraph(format!(
                    "From the intended start of each {} to its proof.",
                    self.unit
                ))
                .lines(&chart),
        )
    }

    fn phases_section(&self) -> Option<Section> {
        if self.phases.is_empty() {
            return None;
        }
        let mut chart = Bars::new("Phases of a connection", "us");
        let mut table = Table::new(["phase", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us"]);
        for (kind, phases) in &self.phases {
            for (phase, latency) in phases.each() {
                let Some(latency) = latency else { continue };
                let span = Span {
                    median: latency.p50_us,
                    low: latency.p50_us,
                    high: latency.p99_us,
                };
                chart.add(phase, kind.name(), span);
                let name = format!("{phase}, {}", kind.name());
                table = table.row([name].into_iter().chain(figures(latency)));
            }
        }
        Some(
            Section::new("Phases")
                .paragraph("The median of each, and the line up to its 99th percentile.")
                .bars(&chart)
                .table(table),
        )
    }

    fn time_section(&self) -> Option<Section> {
        // The last second is cut short by the end of the run.
        let (_, whole) = self.seconds.split_last()?;
        if whole.is_empty() {
            return None;
        }
        let mut chart = Lines::new(
            "Each second",
            Across::Plain("seconds from the start".to_owned()),
            "per second",
        )
        .steps();
        let line = |pick: fn(&super::Second) -> u64| {
            // The last height lasts for a second as well.
            let points = whole.iter().chain(whole.last()).enumerate();
            points
                .map(|(second, counts)| (second as f64, pick(counts) as f64))
                .collect()
        };
        chart.add("completed", line(|second| second.completed));
        chart.add("failed", line(|second| second.failed));
        if !self.refusals.is_empty() {
            chart.add("refused as they must be", line(|second| second.refused));
        }
        Some(Section::new("In the course of the run").lines(&chart))
    }

    fn generator_section(&self) -> Section {
        let generator = &self.generator;
        let mut chart = Bars::new("Threads of the load generator", "% of the time");
        for (number, thread) in generator.threads.iter().enumerate() {
            let group = format!("thread {number}");
            chart.add(&group, "running", (100.0 * thread.running_ratio).into());
            chart.add(
                &group,
                "waiting for a CPU",
                (100.0 * thread.waiting_ratio).into(),
            );
        }
        let verdict = match generator.is_trustworthy {
            true => "It had time to spare, and noticed in time what happened.".to_owned(),
            false => format!(
                "It may have measured itself: {}.",
                generator.doubts.join("; ")
            ),
        };
        Section::new("The load generator itself")
            .paragraph(verdict)
            .bars(&chart)
    }
}

fn figures(latency: Latency) -> [String; 5] {
    [
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us,
    ]
    .map(|value| format!("{value:.1}"))
}
