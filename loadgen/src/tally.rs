//! Counts of one thread: what completed, how long it took, what failed and why.
//! In: results from the connections of the thread. Out: one merged `Tally` for the report.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::Failure;

/// Counts and latencies.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Units of work that completed.
    pub(crate) completed: u64,
    /// From the intended start to the proof, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Plaintext bytes sent.
    pub(crate) bytes_up: u64,
    /// Plaintext bytes received.
    pub(crate) bytes_down: u64,
    /// Failures by label.
    pub(crate) failures: BTreeMap<String, FailureCount>,
    /// Further counts of the scenario, by name.
    pub(crate) details: BTreeMap<&'static str, u64>,
    /// Attempts of a flood, by kind.
    pub(crate) attempts: BTreeMap<&'static str, Attempts>,
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
        // One nanosecond to one hour with three digits: 230 KiB, once per thread.
        let latency = Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
            .expect("the bounds are constants that hdrhistogram accepts");
        Self {
            completed: 0,
            latency,
            bytes_up: 0,
            bytes_down: 0,
            failures: BTreeMap::new(),
            details: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    pub(crate) fn complete(&mut self, latency: Duration) {
        self.completed += 1;
        self.latency
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
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

    pub(crate) fn add_detail(&mut self, name: &'static str, count: u64) {
        *self.details.entry(name).or_default() += count;
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().map(|failure| failure.count).sum()
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.completed += other.completed;
        self.latency
            .add(&other.latency)
            .expect("all tallies have the same bounds");
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
        for (kind, attempts) in &other.attempts {
            self.attempts.entry(kind).or_default().merge(attempts);
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
