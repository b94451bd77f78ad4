//! What the tests of HPACK share.

use gateway_core::http::hpack::{DecodeError, Decoder};
use gateway_core::http::message::HeaderList;

/// A field: name, value, and whether it must never be indexed.
pub type Owned = (Vec<u8>, Vec<u8>, bool);

/// Bytes from hexadecimal digits with spaces.
pub fn bytes(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

/// A field that may be indexed.
pub fn field(name: &str, value: &str) -> Owned {
    (name.into(), value.into(), false)
}

/// What a block says.
pub fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Owned>, DecodeError> {
    let mut list = HeaderList::new(usize::MAX);
    decoder.decode(block, &mut list)?;
    Ok(owned(&list))
}

/// The fields of a list.
pub fn owned(list: &HeaderList) -> Vec<Owned> {
    list.iter()
        .map(|field| {
            let (name, value) = (field.name.to_vec(), field.value.to_vec());
            (name, value, field.is_never_indexed)
        })
        .collect()
}
