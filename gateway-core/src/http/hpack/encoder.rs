//! Encodes field blocks (RFC 7541 section 6). In: fields. Out: a block.
//!
//! Towards clients without state: nothing to remember for ten thousand connections. Towards backends, where one
//! connection carries the requests of many clients, with a table of the few names whose values hardly change. It
//! never evicts: what varies stays out, so what has been said once is one byte from then on. Strings are not Huffman
//! coded: that would cost more here than the bytes that it saves.

use super::{Index, TABLE_BYTES, integer, static_table};
use crate::http::message::Field;

/// Names whose values are the same in most requests.
const STABLE_NAMES: [&[u8]; 11] = [
    b":authority",
    b":path",
    b"accept",
    b"accept-encoding",
    b"content-encoding",
    b"content-type",
    b"grpc-accept-encoding",
    b"grpc-encoding",
    b"te",
    b"user-agent",
    b"x-scope-orgid",
];

/// Values of one name that are remembered, so that no client can fill the table with its own paths.
const VALUES_PER_NAME_MAX: usize = 16;

const INDEXED: (u8, u32) = (0x80, 7);
const WITH_INDEXING: (u8, u32) = (0x40, 6);
const SIZE_UPDATE: (u8, u32) = (0x20, 5);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);
const WITHOUT_INDEXING: (u8, u32) = (0x00, 4);

/// Appends a field, without a table on either side. One that must never be indexed stays so (RFC 7541 section 6.2.3).
pub fn encode_without_state(field: Field<'_>, block: &mut Vec<u8>) {
    let index = static_table::find(field.name, field.value);
    let form = match (index, field.is_never_indexed) {
        (Index::Field(index), false) => {
            integer::encode(block, INDEXED.0, INDEXED.1, index);
            return;
        }
        (_, true) => NEVER_INDEXED,
        (_, false) => WITHOUT_INDEXING,
    };
    write_literal(field, index, form, block);
}

/// Writes a literal field in one of its three forms, its name by an index if there is one.
fn write_literal(field: Field<'_>, index: Index, form: (u8, u32), block: &mut Vec<u8>) {
    let (pattern, prefix_bits) = form;
    match index {
        Index::Field(index) | Index::Name(index) => {
            integer::encode(block, pattern, prefix_bits, index);
        }
        Index::Nowhere => {
            block.push(pattern);
            write_string(field.name, block);
        }
    }
    write_string(field.value, block);
}

fn write_string(string: &[u8], block: &mut Vec<u8>) {
    integer::encode(block, 0, 7, string.len());
    block.extend_from_slice(string);
}

/// A value in the peer's table.
#[derive(Debug)]
struct Inserted {
    value: Box<[u8]>,
    /// How many fields had been inserted before it.
    number: usize,
}

/// Encodes the blocks of one direction of a connection, with a table that never evicts.
#[derive(Debug)]
pub struct Encoder {
    /// For each of `STABLE_NAMES`, the values in the peer's table.
    values: [Vec<Inserted>; STABLE_NAMES.len()],
    inserted: usize,
    size: usize,
    size_max: usize,
    /// Whether the next block says the size of the table first.
    has_resized: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            values: Default::default(),
            inserted: 0,
            size: 0,
            size_max: TABLE_BYTES,
            has_resized: false,
        }
    }
}

impl Encoder {
    /// Takes the size of the table that the peer decodes with, from its SETTINGS_HEADER_TABLE_SIZE.
    pub fn resize(&mut self, peers_size_max: usize) {
        let size_max = peers_size_max.min(TABLE_BYTES);
        if size_max != self.size_max {
            self.size_max = size_max;
            self.has_resized = true;
        }
    }

    /// Begins a block. After a change of the table's size it empties the table and says the size (RFC 7541
    /// section 4.2): of all sizes since the last block, none was smaller than zero.
    pub fn begin_block(&mut self, block: &mut Vec<u8>) {
        if std::mem::take(&mut self.has_resized) {
            self.values.iter_mut().for_each(Vec::clear);
            (self.inserted, self.size) = (0, 0);
            let (pattern, prefix_bits) = SIZE_UPDATE;
            integer::encode(block, pattern, prefix_bits, 0);
            integer::encode(block, pattern, prefix_bits, self.size_max);
        }
    }

    /// Appends a field to the block that was begun.
    pub fn encode(&mut self, field: Field<'_>, block: &mut Vec<u8>) {
        // Lengths tell most names apart.
        let is_it = |name: &&[u8]| name.len() == field.name.len() && *name == field.name;
        let stable = STABLE_NAMES.iter().position(is_it);
        match (stable, field.is_never_indexed) {
            (Some(stable), false) => self.encode_stable(stable, field, block),
            _ => encode_without_state(field, block),
        }
    }

    fn encode_stable(&mut self, stable: usize, field: Field<'_>, block: &mut Vec<u8>) {
        let (pattern, prefix_bits) = INDEXED;
        let values = &mut self.values[stable];
        let is_it = |inserted: &&Inserted| *inserted.value == *field.value;
        if let Some(inserted) = values.iter().find(is_it) {
            // The newest entry comes first.
            let index = static_table::LENGTH + self.inserted - inserted.number;
            return integer::encode(block, pattern, prefix_bits, index);
        }
        let size = field.size();
        let has_room = values.len() < VALUES_PER_NAME_MAX && self.size + size <= self.size_max;
        match static_table::find(field.name, field.value) {
            Index::Field(index) => integer::encode(block, pattern, prefix_bits, index),
            index if has_room => {
                values.push(Inserted {
                    value: field.value.into(),
                    number: self.inserted,
                });
                self.inserted += 1;
                self.size += size;
                write_literal(field, index, WITH_INDEXING, block);
            }
            index => write_literal(field, index, WITHOUT_INDEXING, block),
        }
    }
}
