//! Joins the journal: which visit, which lines of the audit log and which delivery belong to one connection.
//! In: entries. Out: connections with every statement about them. Pure.

use std::collections::HashMap;

use serde_json::Value;

use crate::journal::{Delivery, Entry, Fact, Milliseconds, RollCall, Stranger, Visit};
use crate::rights::Rights;

/// How late a line of the audit log may be read, and a story be told.
pub const LAG: Milliseconds = 2000;

/// What the journal holds, by kind.
pub struct Evidence<'a> {
    /// All of it.
    pub entries: &'a [Entry],
    /// The certificates that had the right to be served.
    pub rights: Rights,
    /// Accepted clients, by the audit log.
    pub connections: Vec<Connection>,
    /// Refused clients, by the audit log.
    pub refusals: Vec<Refusal>,
    /// Ends of connections without a beginning.
    pub orphans: Vec<(Milliseconds, String)>,
    /// Agents' stories, with the time of their end.
    pub visits: Vec<(Milliseconds, &'a Visit)>,
    /// Strangers' stories.
    pub strangers: Vec<(Milliseconds, &'a Stranger)>,
    /// Servers' stories.
    pub deliveries: Vec<(Milliseconds, &'a Delivery)>,
    /// Looks at the gateway.
    pub roll_calls: Vec<(Milliseconds, &'a RollCall)>,
    by_peer: HashMap<String, Vec<usize>>,
    by_number: HashMap<u64, usize>,
    /// When visits began, by the agent's address: the kernel gives a port again.
    begins: HashMap<&'a str, Vec<Milliseconds>>,
}

/// An accepted client.
#[derive(Debug)]
pub struct Connection {
    /// When the line was read.
    pub at: Milliseconds,
    /// The client's address.
    pub peer: String,
    /// Its name in its process.
    pub name: String,
    /// Serial number of the certificate.
    pub serial: String,
    /// Its name.
    pub identity: String,
    /// Its end. More than one is a fault.
    pub ends: Vec<End>,
}

/// An end of a connection.
#[derive(Debug)]
pub struct End {
    /// When the line was read.
    pub at: Milliseconds,
    /// Why.
    pub reason: String,
    /// From the client.
    pub received: u64,
    /// To the client.
    pub sent: u64,
}

/// A refused client.
#[derive(Debug)]
pub struct Refusal {
    /// When the line was read.
    pub at: Milliseconds,
    /// The client's address.
    pub peer: String,
    /// Why.
    pub reason: String,
}

impl<'a> Evidence<'a> {
    /// Joins a journal.
    pub fn of(entries: &'a [Entry]) -> Self {
        let mut evidence = Self {
            entries,
            rights: Rights::of(entries),
            connections: Vec::new(),
            refusals: Vec::new(),
            orphans: Vec::new(),
            visits: Vec::new(),
            strangers: Vec::new(),
            deliveries: Vec::new(),
            roll_calls: Vec::new(),
            by_peer: HashMap::new(),
            by_number: HashMap::new(),
            begins: HashMap::new(),
        };
        for entry in entries {
            match &entry.fact {
                Fact::Audit { line } => evidence.audit(entry.at, line),
                Fact::Visit(visit) => {
                    evidence.visits.push((entry.at, visit));
                    if let Some(peer) = &visit.peer {
                        let begins = evidence.begins.entry(peer.as_str());
                        begins.or_default().push(visit.began);
                    }
                }
                Fact::Stranger(stranger) => evidence.strangers.push((entry.at, stranger)),
                Fact::Delivery(delivery) => {
                    if let Some(number) = delivery.number {
                        let index = evidence.deliveries.len();
                        evidence.by_number.insert(number, index);
                    }
                    evidence.deliveries.push((entry.at, delivery));
                }
                Fact::RollCall(roll_call) => evidence.roll_calls.push((entry.at, roll_call)),
                _ => {}
            }
        }
        evidence
    }

    fn audit(&mut self, at: Milliseconds, line: &Value) {
        let peer = text(line, "peer");
        match (text(line, "event").as_str(), text(line, "outcome").as_str()) {
            ("handshake", "accepted") => {
                let index = self.connections.len();
                self.by_peer.entry(peer.clone()).or_default().push(index);
                self.connections.push(Connection {
                    at,
                    peer,
                    name: text(line, "connection"),
                    serial: text(line, "serial"),
                    identity: text(line, "identity"),
                    ends: Vec::new(),
                });
            }
            ("handshake", _) => self.refusals.push(Refusal {
                at,
                peer,
                reason: text(line, "reason"),
            }),
            ("end", _) => {
                let end = End {
                    at,
                    reason: text(line, "reason"),
                    received: line["received_bytes"].as_u64().unwrap_or(0),
                    sent: line["sent_bytes"].as_u64().unwrap_or(0),
                };
                let name = text(line, "connection");
                let candidates = self.by_peer.get(&peer).map_or(&[][..], Vec::as_slice);
                let mut candidates = candidates.iter().rev();
                match candidates.find(|index| self.connections[**index].name == name) {
                    Some(index) => self.connections[*index].ends.push(end),
                    None => self.orphans.push((at, name)),
                }
            }
            _ => {}
        }
    }

    /// The lines of the audit log about a visit, if the gateway accepted the agent.
    pub fn connection(&self, ended: Milliseconds, visit: &Visit) -> Option<&Connection> {
        let indices = self.by_peer.get(visit.peer.as_ref()?)?.iter();
        let mut connections = indices.map(|index| &self.connections[*index]);
        connections.find(|connection| self.is_of(connection.at, ended, visit))
    }

    /// Whether a line about a visit's address that was read then is about that visit, and not about a later one.
    pub fn is_of(&self, at: Milliseconds, ended: Milliseconds, visit: &Visit) -> bool {
        let peer = visit.peer.as_deref().unwrap_or_default();
        let mut begins = self.begins.get(peer).into_iter().flatten();
        let is_of_a_later_one = begins.any(|began| visit.began < *began && *began <= at);
        visit.began <= at && at <= ended + LAG && !is_of_a_later_one
    }

    /// The delivery of a visit, if anything of it arrived.
    pub fn delivery(&self, number: u64) -> Option<&'a Delivery> {
        let index = self.by_number.get(&number)?;
        Some(self.deliveries[*index].1)
    }

    /// Lines of the audit log.
    pub fn audit_lines(&self) -> impl Iterator<Item = (Milliseconds, &'a Value)> {
        self.entries.iter().filter_map(|entry| match &entry.fact {
            Fact::Audit { line } => Some((entry.at, line)),
            _ => None,
        })
    }

    /// Visits by the agent's address.
    pub fn visits_by_peer(&self) -> HashMap<&'a str, Vec<(Milliseconds, &'a Visit)>> {
        let mut by_peer: HashMap<_, Vec<_>> = HashMap::new();
        for (ended, visit) in &self.visits {
            if let Some(peer) = &visit.peer {
                by_peer
                    .entry(peer.as_str())
                    .or_default()
                    .push((*ended, *visit));
            }
        }
        by_peer
    }
}

/// A text in a line; none is empty.
pub fn text(line: &Value, key: &str) -> String {
    line[key].as_str().unwrap_or_default().to_owned()
}
