//! Floods: frames that each are allowed and in masses cost us more than their sender. A counter for each kind, against
//! time. In: a frame's kind, the time. Out: whether it is one too many. One set for a connection. Never asks for time.

use std::time::{Duration, Instant};

use gateway_common::closed_list;

use super::Violation;

closed_list! {
    /// What a peer can do too often: how often at once, how often a second for ever, and what it breaks then.
    pub enum Flood: (u32, u32, Violation) {
        /// It resets streams that it has just opened.
        RapidReset = "rapid_reset", (200, 20, Violation::RapidResetFlood);
        /// It makes us reset its streams.
        ForcedReset = "forced_reset", (100, 10, Violation::ForcedResetFlood);
        /// It sends SETTINGS, each of which we acknowledge.
        Settings = "settings", (50, 2, Violation::SettingsFlood);
        /// It sends PING, each of which we answer. gRPC measures round trips by them while it reads: those are
        /// forgiven with the DATA that it got.
        Ping = "ping", (500, 20, Violation::PingFlood);
        /// It sends DATA without data, other than first in a stream.
        EmptyData = "empty_data", (200, 20, Violation::EmptyDataFlood);
        /// It sends DATA of few bytes, other than first in a stream: a short message of gRPC is no flood.
        TinyData = "tiny_data", (20_000, 10_000, Violation::TinyDataFlood);
        /// It gives credit in small pieces. Some is forgiven with the DATA that it got.
        WindowUpdate = "window_update", (2_000, 200, Violation::WindowUpdateFlood);
        /// It sends header lists beyond the bound.
        HeaderList = "header_list", (20, 2, Violation::HeaderListFlood);
        /// It sends frames that say nothing: PRIORITY, of unknown types, on streams that are gone.
        Idle = "idle", (2_000, 200, Violation::IdleFlood);
    }
}

impl Flood {
    /// What DATA of so few bytes is.
    pub(super) const fn of_tiny_data(bytes: usize) -> Self {
        if bytes == 0 {
            Flood::EmptyData
        } else {
            Flood::TinyData
        }
    }

    /// Whether we have to answer each.
    pub(super) const fn is_answered(self) -> bool {
        matches!(self, Flood::Settings | Flood::Ping)
    }

    /// What too many are.
    pub const fn violation(self) -> Violation {
        let (_, _, violation) = self.row();
        violation
    }
}

/// How often each kind has happened, less what time has forgiven.
#[derive(Debug)]
pub(super) struct Floods {
    counts: [u32; Flood::ALL.len()],
    /// Up to when time has been counted, in whole seconds from the start.
    since: Instant,
}

impl Floods {
    pub(super) fn new(now: Instant) -> Self {
        Floods {
            counts: [0; Flood::ALL.len()],
            since: now,
        }
    }

    /// Counts one of a kind.
    pub(super) fn count(&mut self, kind: Flood, now: Instant) -> Result<(), Violation> {
        let (at_once, ..) = kind.row();
        let count = &mut self.counts[kind.index()];
        *count += 1;
        if *count <= at_once {
            return Ok(());
        }
        // Only here does time matter.
        self.forgive_time(now);
        match self.counts[kind.index()] <= at_once {
            true => Ok(()),
            false => Err(kind.violation()),
        }
    }

    /// Takes back some of a kind.
    pub(super) fn forgive(&mut self, kind: Flood, count: u32) {
        let before = &mut self.counts[kind.index()];
        *before = before.saturating_sub(count);
    }

    fn forgive_time(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        self.since += Duration::from_secs(passed.as_secs());
        let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
        for kind in Flood::ALL {
            let (_, per_second, _) = kind.row();
            self.forgive(kind, per_second.saturating_mul(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_bound_and_its_own_violation() {
        let now = Instant::now();
        for kind in Flood::ALL {
            let mut floods = Floods::new(now);
            let (at_once, per_second, _) = kind.row();
            for _ in 0..at_once {
                assert_eq!(floods.count(kind, now), Ok(()));
            }
            assert_eq!(floods.count(kind, now), Err(kind.violation()));
            assert_eq!(kind.violation().label(), format!("{}_flood", kind.label()));
            let others = Flood::ALL.into_iter().filter(|other| *other != kind);
            for other in others {
                assert_eq!(floods.count(other, now), Ok(()));
            }
            assert!(per_second > 0 && at_once >= per_second);
        }
    }

    #[test]
    fn what_happens_at_the_allowed_rate_is_never_too_much() {
        for kind in Flood::ALL {
            let start = Instant::now();
            let mut floods = Floods::new(start);
            let (at_once, per_second, _) = kind.row();
            for second in 0..3 * u64::from(at_once / per_second) {
                let now = start + Duration::from_secs(second);
                for _ in 0..per_second {
                    assert_eq!(floods.count(kind, now), Ok(()), "{}", kind.label());
                }
            }
        }
    }

    #[test]
    fn a_long_silence_does_not_save_up_for_a_larger_flood() {
        let start = Instant::now();
        let mut floods = Floods::new(start);
        let later = start + Duration::from_secs(1 << 40);
        let (at_once, ..) = Flood::Settings.row();
        let counted = (0..).find(|_| floods.count(Flood::Settings, later).is_err());
        // The whole bound, and once more when time is looked at.
        assert!(counted.unwrap() <= 2 * at_once + 1, "{counted:?}");
    }
}
