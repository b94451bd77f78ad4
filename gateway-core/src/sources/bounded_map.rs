//! A bounded map keyed by source. When full, it evicts the entry with the lowest priority.
//! In: values that know their priority. Out: the values that are left. A lookup is a hash, a change a few steps in a
//! tree.

use std::collections::{BTreeSet, HashMap};

use gateway_common::Source;

/// The lowest is evicted first. The flag marks values to evict last; behind it stands a moment in nanoseconds.
pub(super) type Priority = (bool, u64);

/// A value with a priority.
pub(super) trait Prioritized: Copy {
    /// Its priority; `None` if it must not be evicted.
    fn priority(&self) -> Option<Priority>;
}

/// A bounded map of values that can be evicted, and all values that cannot.
#[derive(Debug)]
pub(super) struct BoundedMap<V> {
    values: HashMap<Source, V>,
    /// The entries that can be evicted, in that order. The address tells entries of one priority apart.
    order: BTreeSet<(Priority, [u8; 16])>,
    room: usize,
}

impl<V: Prioritized> BoundedMap<V> {
    /// An empty map with room for `room` values that can be evicted.
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

    /// Puts a value for a source. If there is no room, evicts the lowest priority, which may be this one.
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

    /// Removes values whose moment is before `moment_ns`, at most `most` of each kind.
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
