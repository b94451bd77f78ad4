//! Random numbers that a seed repeats. In: a seed. Out: numbers, choices, shuffles. Not for keys.

/// SplitMix64 (Steele, Lea and Flood 2014): sixty-four bits of state, every seed as good as any other.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for one part of the run, whatever the others draw.
    pub fn part(seed: u64, part: u64) -> Self {
        Self::new(Self::new(seed ^ part.rotate_left(32)).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` up to and without `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.between(0, times) == 0
    }

    /// One of them.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn choice<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.between(0, items.len() as u64);
        &items[index as usize]
    }

    /// Puts them in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.between(0, last as u64 + 1);
            items.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_sequence_and_another_one_does_not() {
        let draw = |seed| {
            let mut random = Random::part(seed, 3);
            [0; 8].map(|_| random.between(0, 1 << 40))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u64> = (0..20).collect();
        Random::new(1).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
