//! A journal of a short good run, by which every promise held, to be doctored by the tests of the rules.

use serde_json::{Value, json};

use super::judge;
use crate::journal::{
    Delivery, Entry, Fact, Forbidden, Milliseconds, Outcome, RollCall, Stranger, Visit, Why,
};

/// The journal.
pub struct Sample {
    pub entries: Vec<Entry>,
    number: u64,
}

/// Asserts that the promise holds in the good run, and breaks once that has been doctored.
pub fn goes_red(name: &str, doctor: impl FnOnce(&mut Sample)) {
    let mut sample = Sample::good();
    let good = finding(&sample, name);
    assert!(good.is_good(), "{name} in the good run: {good:?}");
    doctor(&mut sample);
    let bad = finding(&sample, name);
    assert!(!bad.broken.is_empty(), "{name} held {} times", bad.held);
}

/// Asserts that the promise holds in a run that was doctored too.
pub fn stays_good(name: &str, doctor: impl FnOnce(&mut Sample)) {
    let mut sample = Sample::good();
    doctor(&mut sample);
    let found = finding(&sample, name);
    assert!(found.is_good(), "{name}: {found:?}");
}

fn finding(sample: &Sample, name: &str) -> super::Finding {
    let mut entries = sample.entries.clone();
    entries.sort_by_key(|entry| entry.at);
    let mut findings = judge(&entries).into_iter();
    let found = findings.find(|(rule, _)| rule.name == name);
    found
        .unwrap_or_else(|| panic!("no rule is called {name}"))
        .1
}

impl Sample {
    /// An agent that nothing happens to in the good run.
    pub const OTHER: &str = "02";
    /// One that is blocked in the good run.
    const BLOCKED: &str = "03";

    /// Two visits that end well, one that is torn, a client that is blocked, cut off and refused, a stranger, a wrong file.
    fn good() -> Sample {
        let mut sample = Sample {
            entries: Vec::new(),
            number: 0,
        };
        sample.roll_call(1000);
        sample.visit(Self::OTHER, 10_000, 12_000, "finished");
        sample.visit("01", 11_000, 13_000, "finished");
        sample.visit("01", 14_000, 15_000, "client_reset");
        sample.visit(Self::BLOCKED, 15_000, 21_000, "blocked");
        sample.forbid(Self::BLOCKED, Why::Blocked, 20_000);
        sample.refused_visit(Self::BLOCKED, 40_000, "blocked");
        sample.forbid("server a", Why::ServerRevoked, 30_000);
        sample.stranger(45_000);
        sample.note(46_000, Fact::Spoilt);
        sample.audit(47_000, json!({"event": "reload", "outcome": "refused"}));
        let name = "files".to_owned();
        let begins = true;
        sample.note(48_000, Fact::Deed { name, begins });
        sample.roll_call(150_000);
        let (took, code) = (300, Some(0));
        sample.note(151_000, Fact::Terminated { took, code });
        sample
    }

    pub fn note(&mut self, at: Milliseconds, fact: Fact) {
        self.entries.push(Entry { at, fact });
    }

    pub fn audit(&mut self, at: Milliseconds, line: Value) {
        self.note(at, Fact::Audit { line });
    }

    /// Changes every fact.
    pub fn doctor(&mut self, change: impl Fn(&mut Fact)) {
        for entry in &mut self.entries {
            change(&mut entry.fact);
        }
    }

    /// Takes the newest story of a server out.
    pub fn drop_last_delivery(&mut self) {
        let mut entries = self.entries.iter();
        let last = entries.rposition(|entry| matches!(entry.fact, Fact::Delivery(_)));
        self.entries.remove(last.unwrap());
    }

    /// Takes a line out of the audit log: the one of this number of its kind.
    pub fn drop_audit(&mut self, event: &str, number: usize) {
        let index = self.find_audit(event, number);
        self.entries.remove(index);
    }

    /// Writes a line twice.
    pub fn repeat_audit(&mut self, event: &str, number: usize) {
        let index = self.find_audit(event, number);
        let entry = self.entries[index].clone();
        self.entries.push(entry);
    }

    fn find_audit(&self, event: &str, number: usize) -> usize {
        let lines = self.entries.iter().enumerate();
        let mut lines = lines.filter(
            |(_, entry)| matches!(&entry.fact, Fact::Audit { line } if line["event"] == event),
        );
        lines.nth(number).unwrap().0
    }

    pub fn forbid(&mut self, serial: &str, why: Why, at: Milliseconds) {
        let forbidden = Forbidden {
            serials: vec![serial.to_owned()],
            why,
            within: 5000,
            closes: true,
        };
        self.note(at, Fact::Forbidden(forbidden));
    }

    /// A client that comes and is served until the connection ends for this reason.
    pub fn visit(&mut self, serial: &str, began: Milliseconds, ended: Milliseconds, reason: &str) {
        self.number += 1;
        let number = self.number;
        let peer = format!("192.0.2.10:{}", 40_000 + number);
        let identity = identity(serial);
        self.audit(
            began + 50,
            json!({"event": "handshake", "outcome": "accepted", "kind": "full", "peer": peer,
                "connection": format!("0-{number}"), "serial": serial, "identity": identity}),
        );
        self.delivery(number, serial, ended, 100);
        let is_good = reason == "finished";
        if let Some(Entry {
            fact: Fact::Delivery(delivery),
            ..
        }) = self.entries.last_mut()
        {
            delivery.is_finished = is_good;
        }
        self.audit(
            ended,
            json!({"event": "end", "peer": peer, "connection": format!("0-{number}"),
                "reason": reason, "received_bytes": 100, "sent_bytes": 8}),
        );
        let outcome = match reason {
            "finished" => Outcome::Finished,
            "client_reset" => Outcome::Left,
            _ => Outcome::Lost,
        };
        self.note(
            ended,
            Fact::Visit(Visit {
                number,
                identity,
                serial: serial.to_owned(),
                peer: Some(peer),
                began,
                served: Some(began + 60),
                sent: 100,
                received: 8,
                said_goodbye: is_good,
                outcome,
                detail: None,
            }),
        );
    }

    /// A client that comes and is refused.
    pub fn refused_visit(&mut self, serial: &str, began: Milliseconds, reason: &str) {
        self.number += 1;
        let number = self.number;
        let peer = format!("192.0.2.10:{}", 40_000 + number);
        self.audit(
            began + 50,
            json!({"event": "handshake", "outcome": "refused", "peer": peer, "reason": reason}),
        );
        self.note(
            began + 100,
            Fact::Visit(Visit {
                number,
                identity: identity(serial),
                serial: serial.to_owned(),
                peer: Some(peer),
                began,
                served: None,
                sent: 0,
                received: 0,
                said_goodbye: false,
                outcome: Outcome::Lost,
                detail: None,
            }),
        );
    }

    /// A client without any right; the number that no server may be told.
    pub fn stranger(&mut self, at: Milliseconds) -> u64 {
        self.number += 1;
        let number = self.number;
        self.note(
            at,
            Fact::Stranger(Stranger {
                number,
                kind: "no certificate".into(),
                began: at,
                was_served: false,
            }),
        );
        number
    }

    pub fn delivery(&mut self, number: u64, serial: &str, last: Milliseconds, received: u64) {
        self.note(
            last,
            Fact::Delivery(Delivery {
                server: "a".into(),
                number: Some(number),
                claimed: Some(identity(serial)),
                told: Some(identity(serial)),
                tenant: Some("group".into()),
                first: Some(last),
                last: Some(last),
                received,
                sent: 8,
                is_intact: true,
                is_finished: true,
            }),
        );
    }

    /// A look at the gateway, which counts what the audit log has so far.
    fn roll_call(&mut self, at: Milliseconds) {
        let count = |event: &str, key: &str, value: &str| {
            let lines = self.entries.iter();
            lines
                .filter(|entry| {
                    matches!(&entry.fact, Fact::Audit { line }
                        if line["event"] == event && line[key] == value)
                })
                .count()
        };
        let bytes = 108 * (self.number.saturating_sub(2));
        let mut page = format!(
            "portcullis_connections_open 0\nportcullis_handshakes_total {}\nportcullis_relayed_bytes_total {bytes}\n",
            count("handshake", "outcome", "accepted")
        );
        for reason in ["finished", "client_reset", "blocked"] {
            page += &format!(
                "portcullis_connections_ended_total{{reason=\"{reason}\"}} {}\n\
                 portcullis_handshake_failures_total{{reason=\"{reason}\"}} {}\n",
                count("end", "reason", reason),
                count("handshake", "reason", reason)
            );
        }
        let roll_call = RollCall {
            process: 7,
            is_alone: true,
            is_ready: true,
            metrics: page + "# EOF\n",
            resident_bytes: 30 << 20,
            descriptors: 40,
        };
        self.note(at, Fact::RollCall(roll_call));
    }
}

fn identity(serial: &str) -> String {
    format!("spiffe://soak.test/group/{serial}")
}

#[test]
fn the_good_run_is_good_by_every_rule() {
    let sample = Sample::good();
    let mut entries = sample.entries;
    entries.sort_by_key(|entry| entry.at);
    for (rule, finding) in judge(&entries) {
        assert!(finding.is_good(), "{}: {finding:?}", rule.name);
    }
}

#[test]
fn a_port_that_is_given_again_is_not_taken_for_the_visit_before() {
    let mut sample = Sample::good();
    sample.forbid(Sample::OTHER, Why::StaleList, 100_000);
    sample.refused_visit(Sample::OTHER, 110_000, "crl_stale");
    let serials = vec![Sample::OTHER.to_owned()];
    let why = Why::StaleList;
    sample.note(110_500, Fact::Allowed { serials, why });
    // The next one comes from the same port.
    sample.number -= 1;
    sample.visit(Sample::OTHER, 111_000, 112_000, "finished");
    let newcomers = finding(&sample, "newcomers");
    assert!(newcomers.is_good(), "{newcomers:?}");
}
