//! Decodes field blocks (RFC 7541 section 3). In: whole blocks, in the order in which they came. Out: header lists.
//! Every block has to pass through, also one whose message is refused: later ones build on it.

use super::dynamic_table::DynamicTable;
use super::{TABLE_BYTES, huffman, integer, static_table};
use crate::http::message::{FIELD_OVERHEAD_BYTES, HeaderList};

/// Why a block cannot be decoded. Nothing later of the connection can be either (RFC 9113 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends within a field.
    #[error("the block ends within a field")]
    Truncated,
    /// It names an entry that is not there (RFC 7541 sections 2.3.3, 6.1).
    #[error("an index that no table has")]
    Index,
    /// An integer is larger than any that makes sense (RFC 7541 section 5.1).
    #[error("an integer that is too large")]
    Integer,
    /// A string is no Huffman code (RFC 7541 section 5.2).
    #[error("a string that is no Huffman code")]
    Huffman,
    /// The table's size changes after a field, or beyond what we allow (RFC 7541 sections 4.2, 6.3).
    #[error("a change of the table's size that is not allowed")]
    SizeUpdate,
}

/// How a field is written (RFC 7541 section 6), by the bits on top of its first byte.
enum Representation {
    Indexed,
    LiteralWithIndexing,
    LiteralWithoutIndexing,
    LiteralNeverIndexed,
    SizeUpdate,
}

impl Representation {
    /// What the byte begins, and how many of its bits belong to an integer.
    fn of(byte: u8) -> (Self, u32) {
        match byte.leading_zeros() {
            0 => (Representation::Indexed, 7),
            1 => (Representation::LiteralWithIndexing, 6),
            2 => (Representation::SizeUpdate, 5),
            3 => (Representation::LiteralNeverIndexed, 4),
            _ => (Representation::LiteralWithoutIndexing, 4),
        }
    }
}

/// Decodes the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            table: DynamicTable::new(TABLE_BYTES),
        }
    }
}

impl Decoder {
    /// Appends the fields of a block to `list`. Those that do not fit are left out, see
    /// [`HeaderList::is_too_large`], and the table learns them all the same.
    ///
    /// # Errors
    ///
    /// The block is not one of RFC 7541. The decoder cannot be used any more.
    pub fn decode(&mut self, block: &[u8], list: &mut HeaderList) -> Result<(), DecodeError> {
        let mut rest = block;
        // RFC 7541 section 4.2: the size changes before the first field or not at all.
        let mut may_resize = true;
        while let Some(first) = rest.first() {
            let (representation, prefix_bits) = Representation::of(*first);
            let number = integer::decode(&mut rest, prefix_bits)?;
            match representation {
                Representation::SizeUpdate if may_resize && number <= TABLE_BYTES => {
                    self.table.resize(number);
                    continue;
                }
                Representation::SizeUpdate => return Err(DecodeError::SizeUpdate),
                Representation::Indexed => {
                    self.take_indexed(number, list)?;
                    if list.is_too_large() {
                        self.pass_over_indexed(&mut rest);
                    }
                }
                Representation::LiteralWithIndexing => {
                    let name_bytes = self.take_literal(number, &mut rest, list)?;
                    self.table.insert(list.unfinished_field(), name_bytes);
                    list.finish(name_bytes, false);
                }
                Representation::LiteralWithoutIndexing => {
                    let name_bytes = self.take_literal(number, &mut rest, list)?;
                    list.finish(name_bytes, false);
                }
                Representation::LiteralNeverIndexed => {
                    let name_bytes = self.take_literal(number, &mut rest, list)?;
                    list.finish(name_bytes, true);
                }
            }
            may_resize = false;
        }
        Ok(())
    }

    /// RFC 7541 section 6.1. One byte can stand for a field as long as the table, so nothing is copied that does not
    /// fit into the list.
    fn take_indexed(&self, index: usize, list: &mut HeaderList) -> Result<(), DecodeError> {
        let (name, value) = self.entry(index)?;
        if list.has_room(name.len() + value.len() + FIELD_OVERHEAD_BYTES) {
            list.unfinished().extend_from_slice(name);
            list.unfinished().extend_from_slice(value);
            list.finish(name.len(), false);
        }
        Ok(())
    }

    /// Passes over indexed fields of one byte each that would be left out. They change nothing, but have to exist. A block can hold
    /// thousands, and others wait meanwhile.
    fn pass_over_indexed(&self, rest: &mut &[u8]) {
        let last = static_table::LENGTH + self.table.len();
        let exists = |byte: &&u8| matches!(byte, 0x81..=0xfe) && usize::from(**byte & 0x7f) <= last;
        let passed_over = rest.iter().take_while(exists).count();
        *rest = &rest[passed_over..];
    }

    /// Leaves a literal field unfinished in the list, and says how long its name is (RFC 7541 section 6.2).
    fn take_literal(
        &self,
        name_index: usize,
        rest: &mut &[u8],
        list: &mut HeaderList,
    ) -> Result<usize, DecodeError> {
        match name_index {
            0 => take_string(rest, list.unfinished())?,
            index => {
                let (name, _) = self.entry(index)?;
                list.unfinished().extend_from_slice(name);
            }
        }
        let name_bytes = list.unfinished_field().len();
        take_string(rest, list.unfinished())?;
        Ok(name_bytes)
    }

    /// The field at an index of both tables together (RFC 7541 section 2.3.3).
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
        if let Some(entry) = static_table::get(index) {
            return Ok(entry);
        }
        let position = index.checked_sub(static_table::LENGTH + 1);
        let entry = position.and_then(|position| self.table.get(position));
        let (bytes, name_bytes) = entry.ok_or(DecodeError::Index)?;
        Ok(bytes.split_at(name_bytes))
    }
}

/// Takes a string (RFC 7541 section 5.2) to the end of `output`.
fn take_string(rest: &mut &[u8], output: &mut Vec<u8>) -> Result<(), DecodeError> {
    let is_huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::decode(rest, 7)?;
    let (string, after) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Truncated)?;
    *rest = after;
    if is_huffman {
        return huffman::decode(string, output);
    }
    output.extend_from_slice(string);
    Ok(())
}
