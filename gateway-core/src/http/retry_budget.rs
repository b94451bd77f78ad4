//! The budget for retries: how many of a backend's requests may be sent a second time. In: requests, wishes for a
//! retry, now. Out: whether there may be one. One for each backend and worker. When servers fail, retries must not
//! double the load of those that are left. Never asks for time.

use std::time::{Duration, Instant};

/// The window is counted in so many parts.
const PARTS: usize = 10;

/// How many retries there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAllowance {
    /// Retries for a hundred requests of the window.
    pub percent: u32,
    /// Retries a second for which no requests are needed.
    pub per_second_min: u32,
    /// The time within which both are counted.
    pub window: Duration,
}

/// Requests and retries of the last window.
#[derive(Debug)]
pub struct RetryBudget {
    allowance: RetryAllowance,
    parts: [Part; PARTS],
    sum: Part,
    /// The present part, and when it began.
    present: usize,
    since: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// A budget that nothing has been taken from.
    pub fn new(allowance: RetryAllowance, now: Instant) -> Self {
        RetryBudget {
            allowance,
            parts: [Part::default(); PARTS],
            sum: Part::default(),
            present: 0,
            since: now,
        }
    }

    /// Counts a request that is sent for the first time.
    pub fn count_request(&mut self, now: Instant) {
        self.advance(now);
        let present = &mut self.parts[self.present].requests;
        *present = present.saturating_add(1);
        self.sum.requests = self.sum.requests.saturating_add(1);
    }

    /// Takes a retry, if there is one.
    pub fn try_retry(&mut self, now: Instant) -> bool {
        self.advance(now);
        let allowed = self.allowed();
        let may_retry = u64::from(self.sum.retries) < allowed;
        if may_retry {
            self.parts[self.present].retries += 1;
            self.sum.retries += 1;
        }
        may_retry
    }

    /// Retries of the window: a share of its requests, and what needs none.
    fn allowed(&self) -> u64 {
        let RetryAllowance {
            percent,
            per_second_min,
            window,
        } = self.allowance;
        let share = u64::from(self.sum.requests) * u64::from(percent) / 100;
        let minimum = window.as_millis() as u64 * u64::from(per_second_min) / 1000;
        share + minimum
    }

    /// Forgets the parts that have left the window.
    fn advance(&mut self, now: Instant) {
        let part = self.allowance.window / PARTS as u32;
        for _ in 0..PARTS {
            if now < self.since + part {
                return;
            }
            self.since += part;
            self.present = (self.present + 1) % PARTS;
            let left = std::mem::take(&mut self.parts[self.present]);
            self.sum.requests = self.sum.requests.saturating_sub(left.requests);
            self.sum.retries -= left.retries;
        }
        // All of them have left.
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOWANCE: RetryAllowance = RetryAllowance {
        percent: 20,
        per_second_min: 1,
        window: Duration::from_secs(10),
    };

    fn retries(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.try_retry(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried_and_some_without_any() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(ALLOWANCE, now);
        assert_eq!(retries(&mut budget, now), 10);
        for _ in 0..1000 {
            budget.count_request(now);
        }
        assert_eq!(retries(&mut budget, now), 200);
        assert!(!budget.try_retry(now));
    }

    #[test]
    fn what_was_taken_returns_with_the_window() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(ALLOWANCE, start);
        assert_eq!(retries(&mut budget, start), 10);
        let almost = start + ALLOWANCE.window - Duration::from_millis(1);
        assert_eq!(retries(&mut budget, almost), 0);
        assert_eq!(retries(&mut budget, start + ALLOWANCE.window), 10);
        for _ in 0..1000 {
            budget.count_request(start + ALLOWANCE.window);
        }
        assert_eq!(retries(&mut budget, start + ALLOWANCE.window * 3 / 2), 200);
        assert_eq!(retries(&mut budget, start + ALLOWANCE.window * 100), 10);
    }

    proptest! {
        /// A retry is granted exactly if the window before it has fewer than its requests allow.
        #[test]
        fn retries_stay_within_the_budget_of_every_window(
            steps in proptest::collection::vec((0u64..1500, 0usize..60, 0usize..60), 1..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut budget = RetryBudget::new(ALLOWANCE, start);
            let mut history: Vec<(Instant, usize, usize)> = Vec::new();
            for (milliseconds, requests, wishes) in steps {
                now += Duration::from_millis(milliseconds);
                for _ in 0..requests {
                    budget.count_request(now);
                }
                let taken = (0..wishes).filter(|_| budget.try_retry(now)).count();
                history.push((now, requests, taken));
                // The oldest part of the window may count as a whole.
                let within = |length: Duration| {
                    let recent = history.iter().filter(|(at, ..)| now - *at < length);
                    recent.fold((0, 0), |sum, (_, requests, retries)| (sum.0 + requests, sum.1 + retries))
                };
                if taken > 0 {
                    let (_, retries) = within(ALLOWANCE.window * 9 / 10);
                    let (requests, _) = within(ALLOWANCE.window);
                    prop_assert!(retries <= requests / 5 + 10, "{retries} for {requests}");
                }
                if taken < wishes {
                    let (_, retries) = within(ALLOWANCE.window);
                    let (requests, _) = within(ALLOWANCE.window * 9 / 10);
                    prop_assert!(retries >= requests / 5 + 10, "refused: {retries} for {requests}");
                }
            }
        }
    }
}
