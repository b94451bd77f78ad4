//! Field compression of HTTP/2, HPACK (RFC 7541).
//!
//! In: field blocks, or header lists. Out: the other. A decoder or encoder belongs to one direction of a connection
//! and sees all of its blocks, in their order: what it learns from one it needs for the next.

mod decoder;
mod dynamic_table;
mod encoder;
mod huffman;
mod integer;
mod static_table;

pub use decoder::{DecodeError, Decoder};
pub use encoder::{Encoder, encode_without_state};

/// Bytes of a dynamic table to begin with (RFC 9113 section 6.5.2), which we never change.
pub const TABLE_BYTES: usize = 4096;

/// Where a field stands in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    /// Here, name and value.
    Field(usize),
    /// Its name alone stands here.
    Name(usize),
    /// Not even its name is there.
    Nowhere,
}
