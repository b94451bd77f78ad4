//! Counts of one thread: what completed, how long it took, what failed and why.
//! In: results from the connections of the thread. Out: one merged `Tally` for the report.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::Failure;
use crate::limits::SPAN_MAX;

/// Counts and latencies.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// All units of work.
    pub(crate) total: Figures,
    /// The same units, figured apart.
    pub(crate) groups: BTreeMap<Group, Figures>,
    /// How long each phase of a connection took, by what kind of connection it was.
    pub(crate) phases: BTreeMap<ConnectionKind, Phases>,
    /// What happened in each second since the common start.
    pub(crate) seconds: Vec<Second>,
    /// Plaintext bytes sent.
    pub(crate) bytes_up: u64,
    /// Plaintext bytes received.
    pub(crate) bytes_down: u64,
    /// Failures by label.
    pub(crate) failures: BTreeMap<String, FailureCount>,
    /// Further counts of the scenario, by name.
    pub(crate) details: BTreeMap<&'static str, u64>,
    /// Connections that have changed their identity.
    pub(crate) rotated: u64,
    /// Attempts of a flood, by kind.
    pub(crate) attempts: BTreeMap<&'static str, Attempts>,
    /// Attempts with certificates that must be refused.
    pub(crate) refusals: BTreeMap<Flaw, Refusals>,
}

/// The counts of one thread. Nobody ever waits for the lock: its connections share the thread.
pub(crate) type SharedTally = Arc<Mutex<Tally>>;

/// Units of work that are figured together.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// From the intended start to the proof, in nanoseconds; completed units only.
    pub(crate) latency: Histogram<u64>,
}

/// What units are figured apart by. A unit may belong to several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Handshakes by kind, where a run has both.
    Handshake(ConnectionKind),
    /// Units at one of several addresses, by its place in the list.
    Endpoint(usize),
    /// Units of connections that have not changed their identity yet.
    BeforeRotation,
    /// Units of connections that have.
    AfterRotation,
}

/// What kind of connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionKind {
    /// TLS, with a full handshake.
    Full,
    /// TLS, resumed with a ticket.
    Resumed,
    /// No TLS.
    Plaintext,
}

/// How long each phase of the connections took, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Phases {
    /// TCP, up to the answer of the server's kernel.
    pub(crate) connect: Histogram<u64>,
    /// TLS, up to our own Finished.
    pub(crate) handshake: Histogram<u64>,
    /// From the first thing we said to the first thing that came back.
    pub(crate) first_byte: Histogram<u64>,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Second {
    /// Units that completed in it.
    pub completed: u64,
    /// Units that failed in it.
    pub failed: u64,
    /// Attempts with bad certificates that were refused in it.
    pub refused: u64,
}

/// Why a certificate must be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flaw {
    /// It is on a revocation list.
    Revoked,
    /// Its time is over.
    Expired,
}

/// What became of the attempts with certificates of one flaw.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Refusals {
    /// How often one was shown.
    pub attempts: u64,
    /// Refused for the expected reason.
    pub as_expected: u64,
    /// Let in: the server does not do what it is there for.
    pub let_in: u64,
    /// Failed in another way, by label.
    pub otherwise: BTreeMap<String, u64>,
}

/// Attempts of one kind: what was really sent, and what the server did with it.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Attempts {
    /// How many left this host.
    pub made: u64,
    /// How many completed the three-way handshake.
    pub connected: u64,
    /// How they ended; the counts add up to `made`.
    pub outcomes: BTreeMap<Cow<'static, str>, u64>,
}

/// How often one kind of failure occurred.
#[derive(Debug, Clone, serde::Serialize)]
pub struct FailureCount {
    /// Occurrences.
    pub count: u64,
    /// What the first of them said.
    pub example: String,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            total: Figures::new(),
            groups: BTreeMap::new(),
            phases: BTreeMap::new(),
            seconds: Vec::new(),
            bytes_up: 0,
            bytes_down: 0,
            failures: BTreeMap::new(),
            details: BTreeMap::new(),
            rotated: 0,
            attempts: BTreeMap::new(),
            refusals: BTreeMap::new(),
        }
    }

    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.fail_many(failure, 1);
    }

    pub(crate) fn fail_many(&mut self, failure: &Failure, count: u64) {
        self.failures
            .entry(failure.kind.label())
            .or_insert_with(|| FailureCount {
                count: 0,
                example: failure.detail.clone(),
            })
            .count += count;
    }

    pub(crate) fn group(&mut self, group: Group) -> &mut Figures {
        self.groups.entry(group).or_insert_with(Figures::new)
    }

    pub(crate) fn phases(&mut self, kind: ConnectionKind) -> &mut Phases {
        self.phases.entry(kind).or_insert_with(Phases::new)
    }

    /// What happened `since` the common start.
    pub(crate) fn second(&mut self, since: Duration) -> &mut Second {
        let index = since.as_secs().min(SPAN_MAX.as_secs()) as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }

    pub(crate) fn add_detail(&mut self, name: &'static str, count: u64) {
        *self.details.entry(name).or_default() += count;
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().map(|failure| failure.count).sum()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        for (group, figures) in &other.groups {
            self.group(*group).merge(figures);
        }
        for (kind, phases) in &other.phases {
            self.phases(*kind).merge(phases);
        }
        for (index, second) in other.seconds.iter().enumerate() {
            let sum = self.second(Duration::from_secs(index as u64));
            sum.completed += second.completed;
            sum.failed += second.failed;
            sum.refused += second.refused;
        }
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        for (label, failure) in &other.failures {
            self.failures
                .entry(label.clone())
                .and_modify(|known| known.count += failure.count)
                .or_insert_with(|| failure.clone());
        }
        for (name, count) in &other.details {
            self.add_detail(name, *count);
        }
        self.rotated += other.rotated;
        for (kind, attempts) in &other.attempts {
            self.attempts.entry(kind).or_default().merge(attempts);
        }
        for (flaw, refusals) in &other.refusals {
            self.refusals.entry(*flaw).or_default().merge(refusals);
        }
    }
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            completed: 0,
            failed: 0,
            latency: histogram(3),
        }
    }

    pub(crate) fn complete(&mut self, latency: Duration) {
        self.completed += 1;
        record(&mut self.latency, latency);
    }

    fn merge(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        add(&mut self.latency, &other.latency);
    }
}

impl Phases {
    fn new() -> Self {
        Self {
            connect: histogram(2),
            handshake: histogram(2),
            first_byte: histogram(2),
        }
    }

    fn merge(&mut self, other: &Self) {
        add(&mut self.connect, &other.connect);
        add(&mut self.handshake, &other.handshake);
        add(&mut self.first_byte, &other.first_byte);
    }
}

/// From one nanosecond to one hour: 230 KiB with three digits, 35 with two.
pub(crate) fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, digits)
        .expect("the bounds are constants that hdrhistogram accepts")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

pub(crate) fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.add(other)
        .expect("histograms that are added have the same bounds");
}

impl Refusals {
    fn merge(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.as_expected += other.as_expected;
        self.let_in += other.let_in;
        for (label, count) in &other.otherwise {
            *self.otherwise.entry(label.clone()).or_default() += count;
        }
    }
}

impl Attempts {
    fn merge(&mut self, other: &Self) {
        self.made += other.made;
        self.connected += other.connected;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
    }
}
