//! Graceful close: when a connection that must close can close without cutting off a request, and how a drain spreads
//! its closes.
//! In: the last transfer, the number of connections. Out: moments and times. Reads no clock.

use std::time::{Duration, Instant};

/// The sender of bytes that were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The client: an answer may be under way.
    Client,
    /// The backend: it has answered, or begun to.
    Backend,
}

/// How long a connection must be silent to count as quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietTimeouts {
    /// After bytes of the backend: longer than a pause within an answer.
    pub after_answer: Duration,
    /// After bytes of the client: longer than an answer takes. HTTP/2 clients also send a few bytes after the answer.
    pub after_request: Duration,
}

/// The last bytes that were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTransfer {
    /// Its time.
    pub at: Instant,
    /// Its sender.
    pub sender: Sender,
}

impl LastTransfer {
    /// The moment at which the connection is quiet if no more bytes pass.
    pub fn quiet_at(self, timeouts: QuietTimeouts) -> Instant {
        self.at
            + match self.sender {
                Sender::Client => timeouts.after_request,
                Sender::Backend => timeouts.after_answer.min(timeouts.after_request),
            }
    }
}

/// The time over which a drain spreads its closes: `step` between two of them, so that clients do not all reconnect
/// elsewhere at once, with a quarter of `drain` left in which the last ones find a quiet moment.
pub fn drain_spread(connections: usize, step: Duration, drain: Duration) -> Duration {
    let connections = u32::try_from(connections).unwrap_or(u32::MAX);
    step.saturating_mul(connections).min(drain / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: QuietTimeouts = QuietTimeouts {
        after_answer: Duration::from_millis(250),
        after_request: Duration::from_secs(5),
    };

    #[test]
    fn a_call_is_not_cut_off_while_its_answer_takes_less_than_the_quiet_timeout() {
        let at = Instant::now();
        let asked = LastTransfer {
            at,
            sender: Sender::Client,
        };
        assert_eq!(asked.quiet_at(TIMEOUTS), at + Duration::from_secs(5));
        let answered = LastTransfer {
            at,
            sender: Sender::Backend,
        };
        assert_eq!(answered.quiet_at(TIMEOUTS), at + Duration::from_millis(250));
    }

    #[test]
    fn an_answer_is_never_waited_for_longer_than_a_request() {
        let at = Instant::now();
        let impatient = QuietTimeouts {
            after_request: Duration::from_millis(100),
            ..TIMEOUTS
        };
        for sender in [Sender::Client, Sender::Backend] {
            let quiet_at = LastTransfer { at, sender }.quiet_at(impatient);
            assert_eq!(quiet_at, at + Duration::from_millis(100));
        }
    }

    #[test]
    fn a_few_connections_go_at_once_and_thousands_over_most_of_the_drain() {
        let (step, drain) = (Duration::from_millis(2), Duration::from_secs(10));
        assert_eq!(drain_spread(3, step, drain), Duration::from_millis(6));
        assert_eq!(drain_spread(2000, step, drain), Duration::from_secs(4));
        assert_eq!(
            drain_spread(usize::MAX, step, drain),
            Duration::from_millis(7500)
        );
        assert_eq!(drain_spread(5000, step, Duration::ZERO), Duration::ZERO);
    }
}
