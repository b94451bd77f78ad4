//! When a bounded table looks for entries that it can forget. In: the table, the time. Out: whether one more has room. A look
//! costs as much as the table is long, so what names come must not decide how often there is one.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use gateway_core::limits;

/// The looks of one table.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Below the first nothing is looked for; more than the last there never are.
    bounds: RangeInclusive<usize>,
    /// How many entries there may be before idle ones are looked for.
    at: usize,
    /// After a look that found no room.
    not_before: Duration,
}

impl Sweep {
    pub(super) const fn new(bounds: RangeInclusive<usize>) -> Self {
        Sweep {
            bounds,
            at: 0,
            not_before: Duration::ZERO,
        }
    }

    /// Whether the table has room for one more entry. It forgets those that are idle where that is needed.
    pub(super) fn has_room<K, V>(
        &mut self,
        table: &mut HashMap<K, V>,
        now: Duration,
        is_idle: impl Fn(&V) -> bool,
    ) -> bool {
        if table.len() < self.at {
            return true;
        }
        if now < self.not_before {
            return false;
        }
        table.retain(|_, entry| !is_idle(entry));
        let (least, most) = (*self.bounds.start(), *self.bounds.end());
        let has_room = table.len() < most;
        match has_room {
            // Twice as many until the next look: each entry pays for looking at two.
            true => self.at = (2 * table.len()).clamp(least, most),
            false => self.not_before = now + limits::FULL_TABLE_PAUSE,
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A table of so many entries.
    fn table(entries: u32) -> HashMap<u32, ()> {
        (0..entries).map(|key| (key, ())).collect()
    }

    #[test]
    fn a_table_that_grows_is_looked_through_at_each_doubling() {
        let mut sweep = Sweep::new(4..=1000);
        let looked_at = Cell::new(0);
        let mut table = table(0);
        for key in 0..1000 {
            let is_idle = |(): &()| {
                looked_at.set(looked_at.get() + 1);
                false
            };
            assert!(sweep.has_room(&mut table, Duration::ZERO, is_idle));
            table.insert(key, ());
        }
        assert_eq!(looked_at.get(), 4 + 8 + 16 + 32 + 64 + 128 + 256 + 512);
    }

    #[test]
    fn a_full_table_is_looked_through_once_in_a_while_however_many_ask() {
        let mut sweep = Sweep::new(4..=10);
        let looked_at = Cell::new(0);
        let mut table = table(10);
        for request in 0..2_000 {
            let is_idle = |(): &()| {
                looked_at.set(looked_at.get() + 1);
                false
            };
            assert!(!sweep.has_room(&mut table, Duration::from_millis(request), is_idle));
        }
        assert_eq!(looked_at.get(), 2 * 10);
        assert!(sweep.has_room(&mut table, Duration::from_secs(2), |()| true));
        assert!(table.is_empty());
    }
}
