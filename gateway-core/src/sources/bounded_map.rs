//! Values by source, of which the ones that matter least make room. In: values that know their priority. Out: the same,
//! until others of a higher priority took their place. A lookup is a hash, a change a few steps in a tree.

use std::collections::{BTreeSet, HashMap};

use gateway_common::Source;

/// What is forgotten first: the lowest. Behind the flag for what only comes up when nothing else is left stands a
/// moment.
pub(super) type Priority = (bool, u64);

/// A value that may be forgotten or not.
pub(super) trait Prioritized: Copy {
    /// When its turn is to be forgotten; `None` as long as it must not be.
    fn priority(&self) -> Option<Priority>;
}

/// So many values as it has room for, and those that must not be forgotten.
#[derive(Debug)]
pub(super) struct BoundedMap<V> {
    values: HashMap<Source, V>,
    /// Those that may be forgotten, in this order. The address keeps apart what has one priority.
    order: BTreeSet<(Priority, [u8; 16])>,
    room: usize,
}

impl<V: Prioritized> BoundedMap<V> {
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

    /// Puts a value in the place of what was there. Where there is no room the lowest priority goes, be it this one's.
    pub(super) fn put(&mut self, source: Source, value: V) {
        let before = self.values.insert(source, value);
        let priority_before = before.and_then(|before| before.priority());
        let priority = value.priority();
        if priority_before == priority {
            return;
        }
        if let Some(priority) = priority_before {
            self.order.remove(&(priority, source.0.octets()));
        }
        if let Some(priority) = priority {
            self.order.insert((priority, source.0.octets()));
        }
        if self.order.len() > self.room
            && let Some(first) = self.order.first().copied()
        {
            self.forget(first);
        }
    }

    pub(super) fn remove(&mut self, source: &Source) -> Option<V> {
        let value = self.values.remove(source)?;
        if let Some(priority) = value.priority() {
            self.order.remove(&(priority, source.0.octets()));
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

    fn forget(&mut self, (priority, octets): (Priority, [u8; 16])) {
        self.order.remove(&(priority, octets));
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
