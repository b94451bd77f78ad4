//! How long it took from a change to the end of the connections it concerned, counted on one worker.
//! In: the end of a connection that a change closed, and the time since the change. Out: numbers that another thread may
//! read at any time.

use std::time::Duration;

use gateway_core::close_reason::CloseReason;

use super::counters::Counter;

/// Upper bounds in seconds; one more bucket takes the rest. Up to one second for the revoked, beyond for closes that are spread.
pub(super) const BOUNDS: [f64; 12] = [
    0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// One histogram for each reason.
#[derive(Debug, Default)]
pub(super) struct CloseTimes([CloseTime; CloseReason::ALL.len()]);

#[derive(Debug, Default)]
pub(super) struct CloseTime {
    pub(super) buckets: [Counter; BOUNDS.len() + 1],
    pub(super) sum_nanoseconds: Counter,
}

impl CloseTimes {
    pub(super) fn record(&self, end: CloseReason, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.of(end).buckets[bucket].add(1);
        self.of(end).sum_nanoseconds.add(took.as_nanos() as u64);
    }

    pub(super) fn of(&self, end: CloseReason) -> &CloseTime {
        &self.0[end.index()]
    }
}
