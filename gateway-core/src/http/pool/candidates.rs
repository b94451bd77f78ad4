//! The servers among which chance chooses. In: servers with weights, a random number. Out: two different ones, each by
//! its weight. Filled when something has changed, which is seldom; a choice takes a few steps, however many there are.

use std::num::NonZeroU32;

/// Servers by weight.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Slots, and the sum of weights up to and with each.
    slots: Vec<(u32, u64)>,
    is_weighted: bool,
}

impl Candidates {
    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.reserve(count.saturating_sub(self.slots.len()));
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.is_weighted = false;
    }

    pub(super) fn push(&mut self, slot: u32, weight: NonZeroU32) {
        let weight = u64::from(weight.get());
        let total = self.total();
        self.is_weighted |= total != self.slots.len() as u64 * weight;
        self.slots.push((slot, total + weight));
    }

    /// Whether some have another weight than others.
    pub(super) fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// All, beginning where chance has it.
    pub(super) fn from(&self, random: u64) -> impl Iterator<Item = u32> {
        let middle = scale(random >> 40, self.slots.len() as u64) as usize;
        let (before, behind) = self.slots.split_at(middle);
        behind.iter().chain(before).map(|(slot, _)| *slot)
    }

    /// Two different ones, the first by its weight among all, the second by its weight among the others. Twice the same
    /// if there is only one. The highest bits of `random` decide, 24 for each.
    pub(super) fn two(&self, random: u64) -> Option<(u32, u32)> {
        let (first, second) = (random >> 40, random >> 16 & 0xff_ffff);
        let count = self.slots.len();
        let (one, other) = match count {
            0 => return None,
            1 => (0, 0),
            _ if !self.is_weighted => {
                let one = scale(first, count as u64) as usize;
                let other = scale(second, count as u64 - 1) as usize;
                (one, other + usize::from(other >= one))
            }
            _ => {
                let one = self.at(scale(first, self.total()));
                let before = one.checked_sub(1).map_or(0, |before| self.slots[before].1);
                let weight = self.slots[one].1 - before;
                let point = scale(second, self.total() - weight);
                let skipped = if point >= before { weight } else { 0 };
                (one, self.at(point + skipped))
            }
        };
        Some((self.slots[one].0, self.slots[other].0))
    }

    fn total(&self) -> u64 {
        self.slots.last().map_or(0, |(_, total)| *total)
    }

    /// The position of the server at this point of the sum of weights.
    fn at(&self, point: u64) -> usize {
        self.slots.partition_point(|(_, end)| *end <= point)
    }
}

/// A number of 24 bits, as one below `count`.
fn scale(random: u64, count: u64) -> u64 {
    (random * count) >> 24
}
