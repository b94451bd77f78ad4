//! How long it took from a change to the end of the connections it concerned, counted on one worker.
//! In: the end of a connection that a change closed, and the time since the change. Out: numbers that another thread may
//! read at any time.

use std::time::Duration;

use gateway_core::close_reason::CloseReason;

use super::histogram::Histogram;

/// Upper bounds in seconds; one more bucket takes the rest. Up to one second for the revoked, beyond for closes that are spread.
const BOUNDS: [f64; 12] = [
    0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// One histogram for each reason.
#[derive(Debug)]
pub(super) struct CloseTimes([Histogram<{ BOUNDS.len() }>; CloseReason::ALL.len()]);

impl Default for CloseTimes {
    fn default() -> Self {
        CloseTimes(std::array::from_fn(|_| Histogram::new(&BOUNDS)))
    }
}

impl CloseTimes {
    pub(super) fn record(&self, end: CloseReason, took: Duration) {
        self.of(end).record(took);
    }

    pub(super) fn of(&self, end: CloseReason) -> &Histogram<{ BOUNDS.len() }> {
        &self.0[end.index()]
    }
}
