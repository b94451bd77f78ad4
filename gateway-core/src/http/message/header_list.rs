//! A header list (RFC 7541 section 1.3): the fields of a message's header or trailer section, in order.
//! In: names and values. Out: fields. All bytes lie in one piece of memory, which is used again for the next list.

/// What a field costs in a table or a list beyond its bytes (RFC 7541 section 4.1, RFC 9113 section 10.5.1).
pub const FIELD_OVERHEAD_BYTES: usize = 32;

/// A field of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Whether no intermediary may put it into a table (RFC 7541 section 7.1.3).
    pub is_never_indexed: bool,
}

impl<'a> Field<'a> {
    /// A field that may be indexed.
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Field {
            name,
            value,
            is_never_indexed: false,
        }
    }

    /// Its size as RFC 7541 section 4.1 counts it.
    pub const fn size(&self) -> usize {
        self.name.len() + self.value.len() + FIELD_OVERHEAD_BYTES
    }
}

/// Where a field lies: its name, and its value behind it.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    name_bytes: usize,
    value_bytes: usize,
    is_never_indexed: bool,
}

/// Where a part of a list lies in it.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Span {
    start: usize,
    bytes: usize,
}

/// Fields in order, within a bound. One list serves all messages of a worker, one after the other.
#[derive(Debug)]
pub struct HeaderList {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Where the fields end in `bytes`.
    end: usize,
    size: usize,
    size_max: usize,
    is_too_large: bool,
}

impl HeaderList {
    /// An empty list that takes fields up to this size, as RFC 9113 section 10.5.1 counts it.
    pub fn new(size_max: usize) -> Self {
        HeaderList {
            bytes: Vec::new(),
            places: Vec::new(),
            end: 0,
            size: 0,
            size_max,
            is_too_large: false,
        }
    }

    /// Empties the list. It keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.end = 0;
        self.size = 0;
        self.is_too_large = false;
    }

    /// Appends a field. One that does not fit is left out, and so is every later one: see [`Self::is_too_large`].
    pub fn push(&mut self, field: Field<'_>) {
        if self.has_room(field.size()) {
            self.bytes.extend_from_slice(field.name);
            self.bytes.extend_from_slice(field.value);
            self.finish(field.name.len(), field.is_never_indexed);
        }
    }

    /// Whether a field was left out.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Its size: names, values, and [`FIELD_OVERHEAD_BYTES`] for each field.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The field at a position.
    pub fn get(&self, position: usize) -> Option<Field<'_>> {
        self.places.get(position).map(|place| self.at(place))
    }

    /// All fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'_>> + Clone {
        self.places.iter().map(|place| self.at(place))
    }

    /// Where a part of the list lies, so that it is found again by [`Self::part`] when the list has moved. The part is of this list.
    pub(super) fn span(&self, part: &[u8]) -> Span {
        let start = part
            .as_ptr()
            .addr()
            .wrapping_sub(self.bytes.as_ptr().addr());
        debug_assert!(start + part.len() <= self.end, "of this list");
        Span {
            start,
            bytes: part.len(),
        }
    }

    /// A part of the list, as long as no field of it was dropped.
    pub(super) fn part(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..][..span.bytes]
    }

    /// The names and values of all fields, one behind the other.
    pub(super) fn all_bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    fn at(&self, place: &Place) -> Field<'_> {
        let bytes = &self.bytes[place.start..];
        let (name, bytes) = bytes.split_at(place.name_bytes);
        Field {
            name,
            value: &bytes[..place.value_bytes],
            is_never_indexed: place.is_never_indexed,
        }
    }

    /// Whether a field of this size fits. If not, it counts as left out.
    pub(in crate::http) fn has_room(&mut self, size: usize) -> bool {
        self.is_too_large |= self.size + size > self.size_max;
        !self.is_too_large
    }

    /// Where bytes of the next field are appended, its name first: no copy in between.
    pub(in crate::http) fn unfinished(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The bytes that were appended since the last field.
    pub(in crate::http) fn unfinished_field(&self) -> &[u8] {
        &self.bytes[self.end..]
    }

    /// Drops them.
    pub(in crate::http) fn drop_unfinished(&mut self) {
        self.bytes.truncate(self.end);
    }

    /// Makes a field of the bytes that were appended, if there is room for it; else drops them.
    pub(in crate::http) fn finish(&mut self, name_bytes: usize, is_never_indexed: bool) {
        let start = self.end;
        let field_bytes = self.bytes.len() - start;
        let size = field_bytes + FIELD_OVERHEAD_BYTES;
        if !self.has_room(size) {
            self.bytes.truncate(start);
            return;
        }
        self.end = self.bytes.len();
        self.size += size;
        self.places.push(Place {
            start,
            name_bytes,
            value_bytes: field_bytes - name_bytes,
            is_never_indexed,
        });
    }

    /// Puts a field before others: a pseudo-header field that is known after regular ones. One that does not fit is
    /// left out.
    pub(in crate::http) fn insert(&mut self, position: usize, field: Field<'_>) {
        let before = self.len();
        self.push(field);
        if self.len() > before {
            self.places[position..].rotate_right(1);
        }
    }

    /// Removes all fields of a name, in whatever case.
    pub(in crate::http) fn remove(&mut self, name: &[u8]) {
        let HeaderList {
            bytes,
            places,
            size,
            ..
        } = self;
        places.retain(|place| {
            let found = &bytes[place.start..place.start + place.name_bytes];
            let stays = !found.eq_ignore_ascii_case(name);
            if !stays {
                *size -= place.name_bytes + place.value_bytes + FIELD_OVERHEAD_BYTES;
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_out_in_the_order_in_which_they_went_in() {
        let fields = [
            Field::new(b":path", b"/"),
            Field {
                is_never_indexed: true,
                ..Field::new(b"authorization", b"secret")
            },
            Field::new(b"empty", b""),
        ];
        let mut list = HeaderList::new(1000);
        for _ in 0..2 {
            fields.iter().for_each(|field| list.push(*field));
            assert!(list.iter().eq(fields));
            assert_eq!(list.get(1), Some(fields[1]));
            assert_eq!(list.get(3), None);
            assert_eq!(list.size(), 6 + 19 + 5 + 3 * 32);
            list.clear();
            assert!(list.is_empty() && list.size() == 0);
        }
    }

    #[test]
    fn a_field_beyond_the_bound_is_left_out_with_all_that_follow() {
        let mut list = HeaderList::new(2 * 34 + 33);
        for _ in 0..2 {
            for name in [b"a", b"b", b"c", b"d"] {
                list.push(Field::new(name, b"1"));
            }
            list.push(Field::new(b"", b""));
            assert!(list.is_too_large());
            assert_eq!((list.len(), list.size()), (2, 68));
            list.clear();
            assert!(!list.is_too_large());
        }
    }

    #[test]
    fn fields_are_put_before_others_and_removed_by_any_spelling_of_their_name() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| Field::new(name, b"1"));
        let mut list = HeaderList::new(5 * 34);
        for _ in 0..2 {
            [a, c, a].into_iter().for_each(|field| list.push(field));
            list.insert(1, b);
            assert!(list.iter().eq([a, b, c, a]));
            list.remove(b"A");
            assert!(list.iter().eq([b, c]));
            assert_eq!(list.size(), 2 * 34);
            // What is appended goes behind what was removed.
            list.unfinished().extend_from_slice(b"d");
            list.drop_unfinished();
            list.unfinished().extend_from_slice(b"e5");
            assert_eq!(list.unfinished_field(), b"e5");
            list.finish(1, false);
            assert_eq!(list.get(2), Some(Field::new(b"e", b"5")));
            list.clear();
        }
    }

    #[test]
    fn a_field_that_does_not_fit_moves_none() {
        let mut list = HeaderList::new(2 * 34);
        for name in [b"a", b"b"] {
            list.push(Field::new(name, b"1"));
        }
        list.insert(0, Field::new(b"c", b"1"));
        let names: Vec<&[u8]> = list.iter().map(|field| field.name).collect();
        assert_eq!(names, [b"a", b"b"]);
        assert!(list.is_too_large());
    }
}
