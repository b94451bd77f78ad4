//! Limits the rate of log lines that an attacker can cause.
//! In: a line's moment. Out: whether to write it, and how many lines were suppressed before it. One per worker and
//! kind of line.

use std::time::{Duration, Instant};

/// Admits a number of lines per second and counts the rest.
#[derive(Debug, Clone)]
pub struct Suppressor {
    per_second: u32,
    window_start: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Suppressor {
    /// Admits `per_second` lines in each second.
    pub const fn new(per_second: u32) -> Self {
        Suppressor {
            per_second,
            window_start: None,
            written: 0,
            left_out: 0,
        }
    }

    /// `Some(n)`: write this line; `n` lines were suppressed since the last one. `None`: suppress it.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let expired =
            |start: Instant| now.saturating_duration_since(start) >= Duration::from_secs(1);
        if self.window_start.is_none_or(expired) {
            self.window_start = Some(now);
            self.written = 0;
        }
        if self.written >= self.per_second {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_second_is_counted_and_said_with_the_next_line() {
        let start = Instant::now();
        let mut suppressor = Suppressor::new(2);
        let answers: Vec<_> = (0..5).map(|_| suppressor.admit(start)).collect();
        assert_eq!(answers, [Some(0), Some(0), None, None, None]);
        assert_eq!(suppressor.admit(start + Duration::from_secs(1)), Some(3));
        assert_eq!(suppressor.admit(start + Duration::from_secs(1)), Some(0));
    }
}
