//! Saying goodbye: when a connection that has to go may go without cutting off what is under way, and how many go at once.
//! In: whose bytes were passed on last and when, how many connections there are. Out: moments and times. Reads no clock.

use std::time::{Duration, Instant};

/// Whose bytes were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The client's: an answer may be under way.
    Client,
    /// The backend's: an answer was given, or a part of one.
    Backend,
}

/// How long timeouts has to last until it counts as a quiet moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietTimeouts {
    /// After bytes of the backend's: longer than the pause between two parts of an answer.
    pub after_answer: Duration,
    /// After bytes of the client's: longer than an answer takes. HTTP/2 clients send a few bytes after the answer too.
    pub after_request: Duration,
}

/// The last bytes that were passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTransfer {
    /// When.
    pub at: Instant,
    /// Whose they were.
    pub sender: Sender,
}

impl LastTransfer {
    /// When the connection is quiet, if nothing is passed on until then.
    pub fn quiet_at(self, timeouts: QuietTimeouts) -> Instant {
        self.at
            + match self.sender {
                Sender::Client => timeouts.after_request,
                Sender::Backend => timeouts.after_answer.min(timeouts.after_request),
            }
    }
}

/// Over how long the goodbyes of a drain are spread: so that those who come back elsewhere do not come all at once, one after
/// the other with `step` between them, and with a quarter of `drain` left for the last ones to find a quiet moment.
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
