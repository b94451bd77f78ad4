//! All runs of one kind of flood. In: figures of rounds. Out: a table, its Markdown, JSON.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::defence::{Defence, FloodKind};
use super::judge::{cpu_ratio, p99_ratio, series, served};
use super::run::Figures;

/// One kind of flood.
pub struct Case {
    /// Which.
    pub kind: FloodKind,
    /// The runs without a flood, one of each round.
    pub quiet: Vec<Figures>,
    /// The runs of each defence, one of each round.
    pub defences: Vec<(Defence, Vec<Figures>)>,
}

/// Headings of the columns of a case.
pub const HEAD: [&str; 10] = [
    "",
    "agents served",
    "p50 ms",
    "p99 ms",
    "max ms",
    "on open ones: p99 ms",
    "gateway CPU s",
    "packets CPU s",
    "dropped/s",
    "first ban s",
];

impl Case {
    /// No run yet.
    pub fn new(kind: FloodKind, defences: &[Defence]) -> Self {
        Self {
            kind,
            quiet: Vec::new(),
            defences: defences
                .iter()
                .map(|defence| (*defence, Vec::new()))
                .collect(),
        }
    }

    /// The runs of a defence, if it was among those that were asked for.
    pub fn runs(&self, wanted: Defence) -> Option<&[Figures]> {
        let (_, runs) = self
            .defences
            .iter()
            .find(|(defence, _)| *defence == wanted)?;
        Some(runs)
    }

    /// Medians of all rounds, a row for each defence.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row("quiet", &self.quiet)];
        rows.extend(
            self.defences
                .iter()
                .map(|(defence, runs)| row(defence.name(), runs)),
        );
        rows
    }

    /// Every round of everything, and the ratios that are judged.
    pub fn json(&self) -> Value {
        let rounds = |runs: &[Figures]| runs.iter().map(Figures::json).collect::<Vec<_>>();
        let mut all = Map::from_iter([("quiet".to_owned(), json!(rounds(&self.quiet)))]);
        for (defence, runs) in &self.defences {
            all.insert(defence.name().to_owned(), json!(rounds(runs)));
        }
        let mut ratios = Map::new();
        if let Some(runs) = self.runs(Defence::Enforce) {
            ratios.insert("p99_over_quiet".to_owned(), p99_ratio(self, runs).json());
            if let Some(off) = self.runs(Defence::Off) {
                let ratio = cpu_ratio(&self.quiet, off, runs);
                ratios.insert("cpu_over_off".to_owned(), ratio.json());
            }
        }
        json!({ "rounds": all, "enforce": ratios })
    }
}

fn row(name: &str, runs: &[Figures]) -> Vec<String> {
    let median = |read: fn(&Figures) -> f64| series(runs, read).median();
    let drops = match (
        median(|run| run.dropped_per_s),
        median(|run| run.would_drop_per_s),
    ) {
        (_, would) if would > 0.0 => format!("({would:.0})"),
        (dropped, _) => number(dropped, 0),
    };
    vec![
        name.to_owned(),
        percent(served(runs)),
        number(median(|run| run.handshakes.p50_ms), 1),
        number(median(|run| run.handshakes.p99_ms), 1),
        number(median(|run| run.handshakes.max_ms), 1),
        number(median(|run| run.messages.p99_ms), 1),
        number(median(|run| run.gateway_cpu_s), 2),
        number(median(|run| run.packets_cpu_s), 2),
        drops,
        number(median(|run| run.first_ban_s), 2),
    ]
}

/// Whole only when it is: 99.96 % is not all.
fn percent(share: f64) -> String {
    if share >= 1.0 {
        return "100 %".to_owned();
    }
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

fn number(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    format!("{value:.digits$}")
}

/// The rows of all cases as a table in Markdown.
pub fn markdown(cases: &[Case]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([&["flood", "guard"], &HEAD[1..]].concat());
    for case in cases {
        for row in case.rows() {
            let mut cells = vec![Cell::new(case.kind.name())];
            cells.extend(row.iter().enumerate().map(|(column, text)| {
                Cell::new(text).set_alignment(match column {
                    0 => CellAlignment::Left,
                    _ => CellAlignment::Right,
                })
            }));
            table.add_row(cells);
        }
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_that_was_not_served_shows() {
        let shown = [1.0, 0.99996, 0.5].map(percent);
        assert_eq!(shown, ["100 %", "99.9 %", "50.0 %"]);
    }
}
