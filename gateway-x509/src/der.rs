//! Writes the little DER (X.690) that is put together here. In: a tag and content. Out: the header that goes before it.

/// Tag of a sequence.
pub const SEQUENCE: u8 = 0x30;
/// Tag of an integer.
pub const INTEGER: u8 = 0x02;
/// Tag of an octet string.
pub const OCTET_STRING: u8 = 0x04;
/// Tag of a bit string.
pub const BIT_STRING: u8 = 0x03;

/// Tag and length of an element whose content has `length` bytes (X.690 section 10.1: in as few bytes as can be).
pub fn header(tag: u8, length: usize) -> Vec<u8> {
    let digits = length.to_be_bytes();
    let first = digits.iter().position(|digit| *digit != 0);
    let digits = &digits[first.unwrap_or(digits.len() - 1)..];
    match digits {
        [short @ 0..=0x7f] => vec![tag, *short],
        long => [&[tag, 0x80 | long.len() as u8], long].concat(),
    }
}

/// An element with its header.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    [&header(tag, content.len()), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::asn1_rs::{Any, FromDer};

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 65535, 65536] {
            let content = vec![7; length];
            let written = element(SEQUENCE, &content);
            let (rest, read) = Any::from_der(&written).unwrap();
            assert_eq!((rest.len(), read.data), (0, &content[..]), "{length}");
        }
    }
}
