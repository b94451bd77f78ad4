//! The static table (RFC 7541 appendix A). In: an index, or a field. Out: the other. Constant.

use super::Index;

/// A name and a value.
type Entry = (&'static [u8], &'static [u8]);

/// The entries, in the order of their indices, which begin at 1.
const ENTRIES: [Entry; 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// Number of entries: the dynamic table's indices follow.
pub(super) const LENGTH: usize = ENTRIES.len();

/// Length of the longest name in bytes.
const NAME_BYTES_MAX: usize = 27;

/// Names of one length, at most.
const SAME_LENGTH_MAX: usize = 6;

/// For each length of a name, where names of that length begin in `ENTRIES`: indices, and zeros behind them.
const BY_LENGTH: [[u8; SAME_LENGTH_MAX]; NAME_BYTES_MAX + 1] = {
    let mut by_length = [[0; SAME_LENGTH_MAX]; NAME_BYTES_MAX + 1];
    let mut counts = [0; NAME_BYTES_MAX + 1];
    let mut position = 0;
    while position < ENTRIES.len() {
        if position == 0 || !is_same(ENTRIES[position].0, ENTRIES[position - 1].0) {
            let length = ENTRIES[position].0.len();
            by_length[length][counts[length]] = position as u8 + 1;
            counts[length] += 1;
        }
        position += 1;
    }
    by_length
};

/// How many entries have the name of the one at each position, from there on.
const OF_NAME: [u8; ENTRIES.len()] = {
    let mut of_name = [1; ENTRIES.len()];
    let mut position = ENTRIES.len() - 1;
    while position > 0 {
        position -= 1;
        if is_same(ENTRIES[position].0, ENTRIES[position + 1].0) {
            of_name[position] = of_name[position + 1] + 1;
        }
    }
    of_name
};

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut position = 0;
    while position < one.len() && position < other.len() && one[position] == other[position] {
        position += 1;
    }
    position == one.len() && position == other.len()
}

/// The entry at an index.
pub(super) fn get(index: usize) -> Option<Entry> {
    ENTRIES.get(index.checked_sub(1)?).copied()
}

/// Where a field, or at least its name, stands.
pub(super) fn find(name: &[u8], value: &[u8]) -> Index {
    let Some(candidates) = BY_LENGTH.get(name.len()) else {
        return Index::Nowhere;
    };
    let last = name.last();
    let first = candidates
        .iter()
        .take_while(|index| **index > 0)
        .map(|index| usize::from(*index))
        // Most names of one length differ in their last byte.
        .find(|index| ENTRIES[index - 1].0.last() == last && ENTRIES[index - 1].0 == name);
    let Some(first) = first else {
        return Index::Nowhere;
    };
    let of_name = &ENTRIES[first - 1..][..usize::from(OF_NAME[first - 1])];
    match of_name.iter().position(|entry| entry.1 == value) {
        Some(offset) => Index::Field(first + offset),
        None => Index::Name(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_name_and_value() {
        for (position, (name, value)) in ENTRIES.iter().enumerate() {
            assert_eq!(find(name, value), Index::Field(position + 1));
            assert_eq!(get(position + 1), Some((*name, *value)));
        }
    }

    #[test]
    fn another_value_leaves_the_first_entry_of_the_name() {
        assert_eq!(find(b":status", b"201"), Index::Name(8));
        assert_eq!(find(b":path", b"/v1/traces"), Index::Name(4));
        assert_eq!(find(b"www-authenticate", b"Basic"), Index::Name(61));
    }

    #[test]
    fn other_names_and_indices_are_not_there() {
        assert_eq!(find(b"x-scope-orgid", b""), Index::Nowhere);
        assert_eq!(find(b"Content-Type", b""), Index::Nowhere);
        assert_eq!(find(b"", b""), Index::Nowhere);
        assert_eq!(find(&[b'a'; 100], b""), Index::Nowhere);
        assert_eq!((get(0), get(62)), (None, None));
    }
}
