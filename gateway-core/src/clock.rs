//! Detects that the wall clock has been set.
//! In: readings of both clocks. Out: whether timers for ends by the wall clock must be computed again. Reads no
//! clock.

use std::time::{Duration, Instant, SystemTime};

/// The drift between the clocks that counts as set: a wall clock that is slewed runs a little slower or faster for a
/// while.
const DRIFT_MAX: Duration = Duration::from_millis(500);

/// A duration for logs, in whole microseconds.
pub fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Compares the wall clock with the clock of timers.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    now: Instant,
    wall: SystemTime,
}

impl ClockWatch {
    /// Starts with the present readings of both clocks.
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        ClockWatch { now, wall }
    }

    /// Whether, since this last returned true, the wall clock was set, was slewed for long enough, or went on while
    /// the host was suspended.
    pub fn has_been_set(&mut self, now: Instant, wall: SystemTime) -> bool {
        let expected = self.wall + now.saturating_duration_since(self.now);
        let drift = match wall.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        };
        let is_set = drift > DRIFT_MAX;
        if is_set {
            *self = ClockWatch { now, wall };
        }
        is_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_on_is_left_alone_and_each_step_of_it_is_seen_once() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let second = Duration::from_secs(1);
        let mut watch = ClockWatch::new(now, wall);
        assert!(!watch.has_been_set(now + second, wall + second));
        assert!(watch.has_been_set(now + 2 * second, wall + 60 * second));
        assert!(!watch.has_been_set(now + 3 * second, wall + 61 * second));
        assert!(
            watch.has_been_set(now + 4 * second, wall + 4 * second),
            "set back"
        );
        assert!(!watch.has_been_set(now + 5 * second, wall + 5 * second));
    }

    #[test]
    fn a_slow_drift_adds_up() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut watch = ClockWatch::new(now, wall);
        let seen = (1..=2000).filter(|second| {
            let passed = Duration::from_secs(*second);
            // 500 parts in a million, as far as adjtime goes.
            watch.has_been_set(now + passed, wall + passed + passed / 2000)
        });
        assert_eq!(seen.count(), 1);
    }
}
