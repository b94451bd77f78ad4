//! The results of a comparison: figures of every round, medians, ratios, and the best peer. In: costs as they are
//! measured. Out: tables on standard output, JSON. Takes ratios within rounds, because machines drift.

use anyhow::Result;
use serde_json::{Value, json};

use super::contestants::{Contestant, Contestants, Role};
use super::memory::Figure;
use crate::figures::{Series, table};
use crate::machine;
use crate::work::{WorkCost, WorkKind};

/// What one server spent for one kind of work, round by round.
pub struct Cell {
    /// Its name.
    pub name: String,
    /// What it is compared as.
    pub role: Role,
    /// The server's cost.
    pub server: Series,
    /// The client's.
    pub client: Series,
}

/// All servers at one kind of work.
pub struct Work {
    /// Which.
    pub kind: WorkKind,
    /// The servers that did it.
    pub cells: Vec<Cell>,
}

/// Everything that was measured.
pub struct Results {
    /// In the order in which it was done.
    pub works: Vec<Work>,
}

impl Work {
    /// The gateway as it is, or the first variant of it that does this kind of work.
    pub fn ours(&self) -> Option<&Cell> {
        let of = |role| self.cells.iter().find(|cell| cell.role == role);
        of(Role::Ours).or_else(|| of(Role::Variant))
    }

    /// The peer that spends least.
    pub fn best_peer(&self) -> Option<&Cell> {
        self.best(Role::Peer)
    }

    fn best(&self, role: Role) -> Option<&Cell> {
        self.cells
            .iter()
            .filter(|cell| cell.role == role)
            .min_by(|one, other| one.server.median().total_cmp(&other.server.median()))
    }

    fn cell(&mut self, name: &str, role: Role) -> &mut Cell {
        let place = self.cells.iter().position(|cell| cell.name == name);
        let place = place.unwrap_or_else(|| {
            self.cells.push(Cell {
                name: name.to_owned(),
                role,
                server: Series::default(),
                client: Series::default(),
            });
            self.cells.len() - 1
        });
        &mut self.cells[place]
    }

    /// A row for each server: what it spent, what the gateway spent over that, what its client spent.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let ours = self.ours();
        self.cells
            .iter()
            .map(|cell| {
                let ratio = ours
                    .filter(|ours| ours.name != cell.name)
                    .map(|ours| ours.server.over(&cell.server).shown(2));
                vec![
                    cell.name.clone(),
                    cell.server.shown(1),
                    ratio.unwrap_or_default(),
                    if cell.client.0.is_empty() {
                        String::new()
                    } else {
                        cell.client.shown(1)
                    },
                ]
            })
            .collect()
    }
}

/// What stands above `Work::rows`.
pub const HEAD: [&str; 4] = ["", "server", "gateway over it", "its client"];

/// What stands above `Results::summary`.
pub const SUMMARY_HEAD: [&str; 6] = [
    "",
    "gateway",
    "best peer",
    "its",
    "gateway over it",
    "gateway over memory + no TLS",
];

impl Results {
    /// Nothing measured yet, with a place for each contestant, in their order.
    pub fn new(kinds: &[WorkKind], contestants: &Contestants) -> Self {
        let works = kinds.iter().map(|&kind| {
            let mut work = Work {
                kind,
                cells: Vec::new(),
            };
            for Contestant { server, role } in &contestants.servers {
                if kind.suits(server) {
                    work.cell(&server.name, *role);
                }
            }
            work
        });
        Self {
            // A kind of work that no server does is not compared.
            works: works.filter(|work| !work.cells.is_empty()).collect(),
        }
    }

    /// Adds what a server spent in a round.
    pub fn push(&mut self, kind: WorkKind, name: &str, cost: WorkCost) {
        let cells = self.works.iter_mut().filter(|work| work.kind == kind);
        if let Some(cell) = cells
            .flat_map(|work| &mut work.cells)
            .find(|cell| cell.name == name)
        {
            cell.server.push(cost.server);
            if let Some(client) = cost.client {
                cell.client.push(client);
            }
        }
    }

    /// Adds what was measured in memory in a round, of the kinds that are compared.
    pub fn push_memory(&mut self, figures: &[Figure]) {
        for figure in figures {
            for work in &mut self.works {
                if work.kind == figure.kind {
                    let cell = work.cell(&figure.name, Role::Memory);
                    cell.server.push(figure.value);
                }
            }
        }
    }

    /// What the same takes in parts: the cryptography in memory and the work without TLS, the best of each added up.
    pub fn parts(&self, work: &Work) -> Option<f64> {
        let memory = work.best(Role::Memory)?.server.median();
        // Without TLS a connection is made in one way only.
        let kind = match work.kind {
            WorkKind::Resumed | WorkKind::Hybrid => WorkKind::Full,
            kind => kind,
        };
        let same = self.works.iter().find(|work| work.kind == kind)?;
        Some(memory + same.best(Role::Plain)?.server.median())
    }

    /// A row for each kind of work.
    pub fn summary(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for work in &self.works {
            let Some(ours) = work.ours() else { continue };
            let best = work.best_peer();
            let parts = self.parts(work);
            rows.push(vec![
                format!("{}, {}", work.kind.title(), work.kind.unit()),
                ours.server.shown(1),
                best.map_or_else(String::new, |best| best.name.clone()),
                best.map_or_else(String::new, |best| best.server.shown(1)),
                best.map_or_else(String::new, |best| ours.server.over(&best.server).shown(2)),
                parts.map_or_else(String::new, |parts| {
                    format!("{:.2} of {parts:.1}", ours.server.median() / parts)
                }),
            ]);
        }
        rows
    }

    /// All tables.
    pub fn print(&self, rounds: u32) {
        for work in &self.works {
            let (what, unit) = (work.kind.title(), work.kind.unit());
            let title = format!("{what}: {unit}, median (range) of {rounds} rounds");
            table(&title, &HEAD, &work.rows());
        }
        table(
            "The gateway and the best of its peers",
            &SUMMARY_HEAD,
            &self.summary(),
        );
    }

    /// Everything, with where it was measured.
    pub fn json(&self, rounds: u32) -> Result<Value> {
        let works = self.works.iter().map(|work| {
            let ours = work.ours();
            let over = |cell: &Cell| ours.map(|ours| ours.server.over(&cell.server).json());
            let cells: Vec<Value> = work
                .cells
                .iter()
                .map(|cell| {
                    json!({
                        "name": cell.name,
                        "role": cell.role.name(),
                        "server": cell.server.json(),
                        "client": (!cell.client.0.is_empty()).then(|| cell.client.json()),
                        "gateway_over_it": over(cell),
                    })
                })
                .collect();
            json!({
                "kind": work.kind.name(),
                "unit": work.kind.unit(),
                "contenders": cells,
                "best_peer": work.best_peer().map(|best| &best.name),
                "gateway_over_best_peer": work.best_peer().and_then(over),
                "memory_and_no_tls": self.parts(work),
            })
        });
        Ok(json!({
            "machine": machine()?,
            "rounds": rounds,
            "works": works.collect::<Vec<Value>>(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, role: Role, rounds: [f64; 3]) -> Cell {
        Cell {
            name: name.to_owned(),
            role,
            server: Series(rounds.to_vec()),
            client: Series::default(),
        }
    }

    fn results() -> Results {
        let full = vec![
            cell("portcullis", Role::Ours, [10.0, 20.0, 30.0]),
            cell("dear", Role::Peer, [90.0, 90.0, 90.0]),
            cell("cheap", Role::Peer, [20.0, 40.0, 60.0]),
            cell("relay", Role::Plain, [3.0, 3.0, 3.0]),
            cell("in memory, ring", Role::Memory, [7.0, 7.0, 7.0]),
        ];
        let resumed = vec![
            cell("portcullis", Role::Ours, [5.0, 5.0, 5.0]),
            cell("in memory, ring", Role::Memory, [2.0, 2.0, 2.0]),
        ];
        let work = |kind, cells| Work { kind, cells };
        Results {
            works: vec![work(WorkKind::Full, full), work(WorkKind::Resumed, resumed)],
        }
    }

    #[test]
    fn the_best_peer_is_the_one_that_spends_least_and_ratios_are_of_rounds() {
        let results = results();
        let work = &results.works[0];
        let best = work.best_peer().unwrap();
        assert_eq!(best.name, "cheap");
        let ratio = work.ours().unwrap().server.over(&best.server);
        assert_eq!(ratio.0, [0.5, 0.5, 0.5]);
    }

    #[test]
    fn the_parts_are_the_best_in_memory_and_the_best_without_tls() {
        let results = results();
        assert_eq!(results.parts(&results.works[0]), Some(10.0));
        assert_eq!(results.parts(&results.works[1]), Some(5.0));
    }

    #[test]
    fn every_contestant_has_a_row_and_every_kind_a_summary() {
        let results = results();
        assert_eq!(results.works[0].rows().len(), 5);
        let summary = results.summary();
        assert_eq!(summary.len(), 2);
        assert_eq!(summary[0][2], "cheap");
        assert!(summary.iter().all(|row| row.len() == SUMMARY_HEAD.len()));
    }
}
