//! The report: a table of promises, and every time one broke.
//! In: findings. Out: text, and whether all is well.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use crate::journal::{Entry, Fact, Milliseconds, Outcome};
use crate::rules::{Finding, Rule};

/// Breaches of one promise that are written out.
const SHOWN: usize = 12;

/// The report, and whether every promise was at stake and held.
pub fn report(entries: &[Entry], findings: &[(Rule, Finding)]) -> (String, bool) {
    let mut text = String::new();
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "promise", "held", "broken"]);
    for (rule, finding) in findings {
        table.add_row([
            rule.name.to_owned(),
            rule.promise.to_owned(),
            finding.held.to_string(),
            finding.broken.len().to_string(),
        ]);
    }
    for (rule, finding) in findings.iter().filter(|(_, finding)| !finding.is_good()) {
        let _ = writeln!(text, "\n{}: {}", rule.name, rule.promise);
        for breach in finding.broken.iter().take(SHOWN) {
            let _ = writeln!(text, "  {}  {}", clock(breach.at), breach.what);
        }
        match finding.broken.len() {
            0 => {
                text += "  never at stake: the run was too short, or the soak does not do what it should\n"
            }
            count if count > SHOWN => {
                let _ = writeln!(text, "  and {} times more", count - SHOWN);
            }
            _ => {}
        }
    }
    let is_good = findings.iter().all(|(_, finding)| finding.is_good());
    (format!("{}\n{table}\n{text}", summary(entries)), is_good)
}

fn summary(entries: &[Entry]) -> String {
    let count =
        |is_one: fn(&Fact) -> bool| entries.iter().filter(|entry| is_one(&entry.fact)).count();
    let served = |fact: &Fact| matches!(fact, Fact::Visit(visit) if matches!(visit.outcome, Outcome::Finished | Outcome::Left));
    format!(
        "{} visits of agents, {} of which ended as they should; {} attempts of strangers; {} deeds in {}",
        count(|fact| matches!(fact, Fact::Visit(_))),
        count(served),
        count(|fact| matches!(fact, Fact::Stranger(_))),
        count(|fact| matches!(fact, Fact::Deed { begins: true, .. })),
        clock(entries.last().map_or(0, |entry| entry.at)),
    )
}

/// Minutes, seconds and milliseconds.
fn clock(at: Milliseconds) -> String {
    format!("{:02}:{:02}.{:03}", at / 60_000, at / 1000 % 60, at % 1000)
}
