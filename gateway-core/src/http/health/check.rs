//! When a server is checked, and when it counts as healthy. In: how each check ended, random numbers. Out: the time to
//! the next one, and changes. One for each server. Never asks for time.

use std::time::Duration;

use gateway_common::closed_list;

/// When to check, and what to conclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSchedule {
    /// The time between the beginnings of two checks.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// So many checks in a row that pass make a server healthy.
    pub healthy_after: u32,
    /// So many that fail make it unhealthy.
    pub unhealthy_after: u32,
}

closed_list! {
    /// Why a check failed. Labels are those of the metric and the log.
    pub enum HealthFailure {
        /// The server could not be connected.
        Unreachable = "unreachable";
        /// It did not answer in time.
        TimedOut = "timed_out";
        /// It answered another status than expected.
        Status = "status";
        /// It says that it does not serve.
        NotServing = "not_serving";
        /// It does not know the service whose health was asked for, or has no `grpc.health.v1`.
        Unknown = "unknown";
        /// What it answered is no answer, or it broke off.
        Malformed = "malformed";
    }
}

/// The checks of one server.
#[derive(Debug)]
pub struct HealthCheck {
    schedule: HealthSchedule,
    is_healthy: bool,
    /// Checks in a row that say the opposite.
    opposite: u32,
}

impl HealthCheck {
    /// A server that has not been checked counts as healthy: a gateway that starts serves at once.
    pub fn new(schedule: HealthSchedule) -> Self {
        HealthCheck {
            schedule,
            is_healthy: true,
            opposite: 0,
        }
    }

    /// Checks by another schedule from now on.
    pub fn configure(&mut self, schedule: HealthSchedule) {
        self.schedule = schedule;
    }

    /// The time before the first check: within an interval, so that servers and workers are not checked all at once.
    pub fn first_wait(&self, random: u64) -> Duration {
        part(self.schedule.interval, random)
    }

    /// The time from the beginning of a check to that of the next: an interval, give or take a tenth.
    pub fn wait(&self, random: u64) -> Duration {
        let tenth = self.schedule.interval / 10;
        self.schedule.interval - tenth + part(2 * tenth, random)
    }

    /// How long a check may take.
    pub fn timeout(&self) -> Duration {
        self.schedule.timeout
    }

    /// Records how a check ended. Returns whether the server is healthy, if that has changed.
    pub fn ended(&mut self, verdict: Result<(), HealthFailure>) -> Option<bool> {
        if verdict.is_ok() == self.is_healthy {
            self.opposite = 0;
            return None;
        }
        self.opposite += 1;
        let needed = match self.is_healthy {
            true => self.schedule.unhealthy_after,
            false => self.schedule.healthy_after,
        };
        if self.opposite < needed {
            return None;
        }
        self.opposite = 0;
        self.is_healthy = !self.is_healthy;
        Some(self.is_healthy)
    }
}

/// A part of a time by chance.
fn part(time: Duration, random: u64) -> Duration {
    let nanoseconds = (time.as_nanos() * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: HealthSchedule = HealthSchedule {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(2),
        healthy_after: 2,
        unhealthy_after: 3,
    };

    #[test]
    fn a_server_changes_after_so_many_checks_in_a_row() {
        let mut check = HealthCheck::new(SCHEDULE);
        let mut ends = |text: &str| -> Vec<Option<bool>> {
            let verdict = |letter| match letter {
                '+' => Ok(()),
                _ => Err(HealthFailure::TimedOut),
            };
            text.chars()
                .map(|letter| check.ended(verdict(letter)))
                .collect()
        };
        assert_eq!(ends("+--+--"), [None; 6]);
        assert_eq!(ends("-"), [Some(false)]);
        assert_eq!(ends("---+-+"), [None; 6]);
        assert_eq!(ends("+"), [Some(true)]);
        assert_eq!(ends("--+--+"), [None; 6]);
    }

    #[test]
    fn checks_spread_over_the_interval() {
        let check = HealthCheck::new(SCHEDULE);
        assert_eq!(check.first_wait(0), Duration::ZERO);
        assert!(check.first_wait(u64::MAX) < SCHEDULE.interval);
        assert_eq!(check.wait(0), Duration::from_secs(9));
        assert_eq!(check.wait(1 << 63), SCHEDULE.interval);
        assert!(check.wait(u64::MAX) < Duration::from_secs(11));
        let long = HealthSchedule {
            interval: Duration::from_secs(u32::MAX.into()),
            ..SCHEDULE
        };
        assert!(HealthCheck::new(long).wait(u64::MAX) > long.interval);
    }
}
