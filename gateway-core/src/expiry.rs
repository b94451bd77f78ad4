//! Expiry: how much of a lifetime is left, and when to warn.
//! In: beginnings and ends, now. Out: a band, and the bands that are newly reached. Reads no clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::SystemTime;

use gateway_common::closed_list;

closed_list! {
    /// How much of a lifetime is left, in the steps that matter.
    pub enum Band {
        /// More than a third is left, or it has not begun.
        Good = "good";
        /// At most a third is left: renewal should have begun.
        Third = "third";
        /// At most a sixth is left: renewal has failed for a while.
        Sixth = "sixth";
        /// At most a twentieth is left: an outage is near.
        Twentieth = "twentieth";
        /// Nothing is left.
        Ended = "ended";
    }
}

/// A time from a beginning to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// The first moment.
    pub begins: SystemTime,
    /// The first moment after it.
    pub ends: SystemTime,
}

impl Lifetime {
    /// The part that is left: 1 before it begins, 0 after it has ended.
    pub fn left(&self, now: SystemTime) -> f64 {
        let Ok(left) = self.ends.duration_since(now) else {
            return 0.0;
        };
        match self.ends.duration_since(self.begins) {
            Ok(whole) if !whole.is_zero() => (left.as_secs_f64() / whole.as_secs_f64()).min(1.0),
            _ => 0.0,
        }
    }

    /// The band at `now`.
    pub fn band(&self, now: SystemTime) -> Band {
        // Compares products, so that rounding of a fraction never moves a certificate's end.
        let Some(left) = self
            .ends
            .duration_since(now)
            .ok()
            .filter(|left| !left.is_zero())
        else {
            return Band::Ended;
        };
        let whole = self.ends.duration_since(self.begins).unwrap_or_default();
        let at_most = |part: u128| left.as_nanos() * part <= whole.as_nanos();
        if at_most(20) {
            Band::Twentieth
        } else if at_most(6) {
            Band::Sixth
        } else if at_most(3) {
            Band::Third
        } else {
            Band::Good
        }
    }
}

/// The bands that were reported, so that each is reported once.
#[derive(Debug)]
pub struct Crossings<K>(HashMap<K, Band>);

impl<K> Default for Crossings<K> {
    fn default() -> Self {
        Crossings(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Crossings<K> {
    /// Compares all lifetimes with the last call. Returns those in a worse band than then, and new ones that are not
    /// good. Forgets what is gone; a clock that was set back reports nothing twice.
    pub fn look(&mut self, bands: impl IntoIterator<Item = (K, Band)>) -> Vec<(K, Band)> {
        let mut known = HashMap::new();
        let mut crossed = Vec::new();
        for (key, band) in bands {
            let before = self.0.get(&key).copied().unwrap_or(Band::Good);
            if band > before && !known.contains_key(&key) {
                crossed.push((key.clone(), band));
            }
            known.insert(key, band.max(before));
        }
        self.0 = known;
        crossed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn days(begins: u32, ends: u32) -> Lifetime {
        Lifetime {
            begins: at(begins),
            ends: at(ends),
        }
    }

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + day * DAY
    }

    #[test]
    fn bands_begin_when_a_third_a_sixth_and_a_twentieth_are_left() {
        let year = days(0, 360);
        let second = Duration::from_secs(1);
        let cases = [
            (Band::Third, 240),
            (Band::Sixth, 300),
            (Band::Twentieth, 342),
            (Band::Ended, 360),
        ];
        for (index, (band, day)) in cases.into_iter().enumerate() {
            assert_eq!(year.band(at(day)), band);
            assert_eq!(year.band(at(day) - second), Band::ALL[index]);
        }
        assert_eq!(year.band(at(9999)), Band::Ended);
    }

    #[test]
    fn what_has_not_begun_is_good_and_what_lasts_no_time_has_ended() {
        assert_eq!(days(10, 20).band(at(0)), Band::Good);
        assert_eq!(days(10, 20).left(at(0)), 1.0);
        assert_eq!(days(10, 10).band(at(10)), Band::Ended);
        assert_eq!(days(10, 5).band(at(10)), Band::Ended);
        assert_eq!(days(10, 5).left(at(3)), 0.0);
    }

    #[test]
    fn each_crossing_is_said_once_and_a_renewed_certificate_begins_anew() {
        let mut crossings = Crossings::default();
        let mut look = |(name, lifetime): (&'static str, Lifetime), now| {
            crossings.look([(name, lifetime.band(now))])
        };
        let old = ("old", days(0, 360));
        assert_eq!(look(old, at(100)), []);
        assert_eq!(look(old, at(250)), [("old", Band::Third)]);
        assert_eq!(look(old, at(251)), []);
        // Two at once are one.
        assert_eq!(look(old, at(350)), [("old", Band::Twentieth)]);
        assert_eq!(look(old, at(250)), [], "a clock set back");
        assert_eq!(look(old, at(351)), []);
        assert_eq!(look(("new", days(350, 710)), at(351)), []);
        assert_eq!(look(old, at(352)), [("old", Band::Twentieth)], "back again");
    }

    #[test]
    fn what_is_there_twice_is_said_once() {
        let mut crossings = Crossings::default();
        let twice = [("a", Band::Ended), ("a", Band::Ended)];
        assert_eq!(crossings.look(twice), [("a", Band::Ended)]);
    }

    proptest! {
        #[test]
        fn bands_only_get_worse_with_time(begins in 0u32..1000, whole in 0u32..1000, first in 0u32..3000, later in 0u32..3000) {
            let lifetime = days(begins, begins + whole);
            let (first, later) = (first.min(later), first.max(later));
            prop_assert!(lifetime.band(at(first)) <= lifetime.band(at(later)));
            prop_assert!(lifetime.left(at(first)) >= lifetime.left(at(later)));
        }
    }
}
