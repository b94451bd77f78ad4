//! The page of a comparison. In: results. Out: HTML with a table and a chart for each kind of work.

use anyhow::Result;
use report::{Bars, Page, Section, Span, Table};

use super::contestants::Role;
use super::result::{HEAD, Results, SUMMARY_HEAD, Work};
use crate::figures::Series;
use crate::machine;

/// Makes it.
pub fn page(results: &Results, rounds: u32) -> Result<String> {
    let machine = machine()?;
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    let mut page = Page::new("Portcullis beside its peers")
        .paragraph(format!(
            "Measured on {} CPUs ({}), Linux {}; median and range of {rounds} rounds in which all did the same \
             work in turn. Every server has one worker on a CPU of its own; the clients and the backend share another.",
            machine["cpus"],
            text("processor"),
            text("kernel"),
        ))
        .paragraph(
            "TLS 1.3 with P-256 certificates on both sides, X25519 and AES-128-GCM; plain TCP to the backend. Memory + \
             no TLS is what the cryptography takes in memory and what the best of the others takes without TLS, added up.",
        );
    page = page.section(
        Section::new("The gateway and the best of its peers")
            .table(table(&SUMMARY_HEAD, results.summary()))
            .bars(&ratios(results)),
    );
    for work in &results.works {
        page = page.section(
            Section::new(work.kind.title())
                .bars(&costs(work))
                .table(table(&HEAD, work.rows())),
        );
    }
    Ok(page.html())
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> Table {
    rows.into_iter()
        .fold(Table::new(head.iter().copied()), Table::row)
}

/// What the gateway spends over what each peer does.
fn ratios(results: &Results) -> Bars {
    let mut chart = Bars::new("What the gateway spends over what its peers do", "ratio");
    for work in &results.works {
        let Some(ours) = work.ours() else { continue };
        for peer in work.cells.iter().filter(|cell| cell.role == Role::Peer) {
            let ratio = ours.server.over(&peer.server);
            chart.add(&work.kind.name(), &peer.name, span(&ratio));
        }
    }
    chart
}

fn costs(work: &Work) -> Bars {
    let mut chart = Bars::new(work.kind.title(), work.kind.unit());
    for cell in &work.cells {
        chart.add("server", &cell.name, span(&cell.server));
        if !cell.client.0.is_empty() {
            chart.add("client", &cell.name, span(&cell.client));
        }
    }
    chart
}

fn span(series: &Series) -> Span {
    let (low, high) = series.range();
    Span {
        median: series.median(),
        low,
        high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::Cell;
    use crate::work::WorkKind;

    #[test]
    fn the_page_names_every_contestant_and_every_kind() {
        let cell = |name: &str, role, value| Cell {
            name: name.to_owned(),
            role,
            server: Series(vec![value]),
            client: Series(vec![value]),
        };
        let results = Results {
            works: vec![Work {
                kind: WorkKind::Idle,
                cells: vec![
                    cell("portcullis", Role::Ours, 5.0),
                    cell("somebody", Role::Peer, 25.0),
                ],
            }],
        };
        let html = page(&results, 1).unwrap();
        for word in [
            "idle connection",
            "KiB of memory",
            "portcullis",
            "somebody",
            "0.20",
        ] {
            assert!(html.contains(word), "{word} in {html}");
        }
    }
}
