//! The dynamic table of a decoder (RFC 7541 section 2.3.2). In: fields, a size. Out: fields by their index. Never
//! holds more than its size; its memory grows with what it holds.

use std::collections::VecDeque;

use crate::http::message::FIELD_OVERHEAD_BYTES;

/// A field of the table: name and value together, and how many of the bytes are the name.
pub(super) type Entry<'a> = (&'a [u8], usize);

#[derive(Debug, Clone, Copy)]
struct Place {
    /// Counted from the first byte ever inserted. Only differences matter: it may wrap.
    start: u32,
    bytes: u16,
    name_bytes: u16,
}

/// Fields, the newest first.
#[derive(Debug)]
pub(super) struct DynamicTable {
    /// Bytes of all entries, the oldest first; before them some of entries that were evicted.
    bytes: Vec<u8>,
    /// What the first of `bytes` is counted as.
    first: u32,
    /// The newest entry is at the front.
    places: VecDeque<Place>,
    size: usize,
    size_max: usize,
}

impl DynamicTable {
    /// An empty table of this size in bytes, as RFC 7541 section 4.1 counts them. At most 64 KiB.
    pub(super) fn new(size_max: usize) -> Self {
        assert!(
            size_max <= usize::from(u16::MAX),
            "entries have 16 bits for a length"
        );
        DynamicTable {
            bytes: Vec::new(),
            first: 0,
            places: VecDeque::new(),
            size: 0,
            size_max,
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The entry at a position, 0 for the newest.
    pub(super) fn get(&self, position: usize) -> Option<Entry<'_>> {
        let place = self.places.get(position)?;
        let start = place.start.wrapping_sub(self.first) as usize;
        let bytes = &self.bytes[start..start + usize::from(place.bytes)];
        Some((bytes, usize::from(place.name_bytes)))
    }

    /// Inserts a field, and evicts as many of the oldest as it takes (RFC 7541 section 4.4): one that is larger than
    /// the table leaves it empty.
    pub(super) fn insert(&mut self, name_and_value: &[u8], name_bytes: usize) {
        let size = name_and_value.len() + FIELD_OVERHEAD_BYTES;
        self.evict(size);
        if size > self.size_max {
            return;
        }
        self.drop_evicted_bytes();
        self.places.push_front(Place {
            start: self.first.wrapping_add(self.bytes.len() as u32),
            bytes: name_and_value.len() as u16,
            name_bytes: name_bytes as u16,
        });
        self.bytes.extend_from_slice(name_and_value);
        self.size += size;
    }

    /// Changes the size of the table (RFC 7541 section 4.3).
    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(0);
    }

    /// Makes room for a field of this size.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.size_max
            && let Some(oldest) = self.places.pop_back()
        {
            self.size -= usize::from(oldest.bytes) + FIELD_OVERHEAD_BYTES;
        }
    }

    /// Gives up bytes of evicted entries once they are as many as those that are left: so each is moved once.
    fn drop_evicted_bytes(&mut self) {
        let evicted = self.places.back().map_or(self.bytes.len(), |oldest| {
            oldest.start.wrapping_sub(self.first) as usize
        });
        if 2 * evicted >= self.bytes.len() {
            self.bytes.drain(..evicted);
            self.first = self.first.wrapping_add(evicted as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn names(table: &DynamicTable) -> Vec<String> {
        let entries = (0..).map_while(|position| table.get(position));
        entries
            .map(|(bytes, name_bytes)| String::from_utf8(bytes[..name_bytes].to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_oldest_entries_make_room_for_new_ones() {
        let mut table = DynamicTable::new(100);
        for field in [b"a1", b"b1", b"c1"] {
            table.insert(field, 1);
        }
        assert_eq!(names(&table), ["c", "b"]);
        table.resize(67);
        assert_eq!(names(&table), ["c"]);
        table.resize(0);
        assert_eq!(names(&table), [] as [&str; 0]);
        table.insert(b"d1", 1);
        assert_eq!(names(&table), [] as [&str; 0]);
    }

    #[test]
    fn a_field_larger_than_the_table_empties_it() {
        let mut table = DynamicTable::new(100);
        table.insert(b"a1", 1);
        table.insert(&[b'x'; 69], 1);
        assert_eq!(table.get(0), None);
        table.insert(&[b'x'; 68], 1);
        assert_eq!(table.get(0), Some((&[b'x'; 68][..], 1)));
    }

    proptest! {
        /// A table made of a plain list does the same.
        #[test]
        fn entries_are_those_of_a_plain_list(
            first: u32,
            fields in vec((vec(any::<u8>(), 0..60), any::<prop::sample::Index>()), 0..100),
            resizes in vec((0_usize..100, 0_usize..300), 0..4),
        ) {
            let mut table = DynamicTable { first, ..DynamicTable::new(200) };
            let (mut list, mut size_max) = (VecDeque::<(Vec<u8>, usize)>::new(), 200);
            let size = |list: &VecDeque<(Vec<u8>, usize)>| -> usize {
                list.iter().map(|(bytes, _)| bytes.len() + 32).sum()
            };
            for (step, (field, name)) in fields.into_iter().enumerate() {
                if let Some((_, new)) = resizes.iter().find(|(at, _)| *at == step) {
                    size_max = *new;
                    table.resize(size_max);
                }
                let name_bytes = name.index(field.len() + 1);
                table.insert(&field, name_bytes);
                list.push_front((field, name_bytes));
                while size(&list) > size_max {
                    list.pop_back();
                }
                for position in 0..=list.len() {
                    let expected = list.get(position).map(|(bytes, name)| (&bytes[..], *name));
                    prop_assert_eq!(table.get(position), expected);
                }
                prop_assert_eq!(table.size, size(&list));
                prop_assert!(table.bytes.len() <= 2 * size_max.max(200));
            }
        }
    }
}
