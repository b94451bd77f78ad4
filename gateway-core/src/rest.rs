//! The rest of a server that failed: longer with each failure in a row. In: a failure, now. Out: until when the server
//! gets nothing. One for each kind of failure of a server, on its worker. Never asks for time.

use std::time::{Duration, Instant};

/// Failures in a row, and the rest for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    failures: u32,
    /// The last failure.
    failed_at: Option<Instant>,
    until: Option<Instant>,
}

impl Rest {
    /// Records a failure. The rest is `first` after the first one and doubles with each further one, up to `longest`.
    pub fn begin(&mut self, first: Duration, longest: Duration, now: Instant) {
        let wait = first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
        self.until = Some(now + wait.min(longest));
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The end of the rest; none before the first failure.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether there is none, or not any more.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// The end of a rest that is as long as the last one and follows it: who has not failed by then has recovered.
    pub fn recovered_at(&self) -> Option<Instant> {
        let (until, failed_at) = (self.until?, self.failed_at?);
        Some(until + (until - failed_at))
    }

    /// When a server may be tried before its rest is over, where there is no other: `retry` after the last failure.
    pub fn retry_at(&self, retry: Duration) -> Option<Instant> {
        self.failed_at.map(|at| at + retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_doubles_up_to_the_longest() {
        let now = Instant::now();
        let mut rest = Rest::default();
        assert!(rest.is_over(now));
        for seconds in [1, 2, 4, 8, 10, 10] {
            rest.begin(SECOND, 10 * SECOND, now);
            let end = now + seconds * SECOND;
            assert_eq!(rest.until(), Some(end));
            assert!(!rest.is_over(end - Duration::from_nanos(1)) && rest.is_over(end));
            assert_eq!(rest.recovered_at(), Some(end + seconds * SECOND));
        }
        for _ in 0..100 {
            rest.begin(SECOND, 10 * SECOND, now);
        }
        assert_eq!(rest.until(), Some(now + 10 * SECOND));
    }
}
