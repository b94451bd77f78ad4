//! Values by source, of which the ones that matter least make room. In: values that know their rank. Out: the same,
//! until others of a higher rank took their place. A lookup is a hash, a change a few steps in a tree.

use std::collections::{BTreeSet, HashMap};

use gateway_common::Source;

/// What is forgotten first: the lowest. Behind the flag for what only comes up when nothing else is left stands a
/// moment.
pub(super) type Rank = (bool, u64);

/// A value that may be forgotten or not.
pub(super) trait Ranked: Copy {
    /// When its turn is to be forgotten; `None` as long as it must not be.
    fn rank(&self) -> Option<Rank>;
}

/// So many values as it has room for, and those that must not be forgotten.
#[derive(Debug)]
pub(super) struct Shelf<V> {
    values: HashMap<Source, V>,
    /// Those that may be forgotten, in this order. The address keeps apart what has one rank.
    order: BTreeSet<(Rank, [u8; 16])>,
    room: usize,
}

impl<V: Ranked> Shelf<V> {
    /// An empty one with room for so many values that may be forgotten.
    pub(super) fn new(room: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: BTreeSet::new(),
            room,
        }
    }

    pub(super) fn get(&self, source: &Source) -> Option<&V> {
        self.values.get(source)
    }

    /// Puts a value in the place of what was there. Where there is no room the lowest rank goes, be it this one's.
    pub(super) fn put(&mut self, source: Source, value: V) {
        let before = self.values.insert(source, value);
        let rank_before = before.and_then(|before| before.rank());
        let rank = value.rank();
        if rank_before == rank {
            return;
        }
        if let Some(rank) = rank_before {
            self.order.remove(&(rank, source.0.octets()));
        }
        if let Some(rank) = rank {
            self.order.insert((rank, source.0.octets()));
        }
        if self.order.len() > self.room
            && let Some(first) = self.order.first().copied()
        {
            self.forget(first);
        }
    }

    pub(super) fn remove(&mut self, source: &Source) -> Option<V> {
        let value = self.values.remove(source)?;
        if let Some(rank) = value.rank() {
            self.order.remove(&(rank, source.0.octets()));
        }
        Some(value)
    }

    /// Forgets values whose moment is before `moment_ns`, at most so many of each kind.
    pub(super) fn forget_before(&mut self, moment_ns: u64, most: usize) {
        for kind in [false, true] {
            for _ in 0..most {
                let from = ((kind, 0), [0; 16]);
                let to = ((kind, moment_ns), [0; 16]);
                let Some(first) = self.order.range(from..to).next().copied() else {
                    break;
                };
                self.forget(first);
            }
        }
    }

    fn forget(&mut self, (rank, octets): (Rank, [u8; 16])) {
        self.order.remove(&(rank, octets));
        self.values.remove(&Source(octets.into()));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Source, V)> {
        self.values.iter().map(|(source, value)| (*source, *value))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert!(self.order.len() <= self.values.len());
        self.values.len()
    }
}
