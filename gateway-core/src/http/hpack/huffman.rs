//! The Huffman code of strings (RFC 7541 appendix B). In: encoded bytes. Out: the bytes they stand for. Encoding is
//! for tests alone: it would cost us more than the bytes that it saves.
//!
//! The code is canonical (RFC 7541 appendix B): codes of one length follow each other in the order of their symbols,
//! and longer ones follow shorter ones. So the lengths say everything.

use super::DecodeError;

/// All symbols by the length of their code in bits, in the order of their codes. EOS follows, with 30 bits.
const SYMBOLS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"),
    (30, b"\x0a\x0d\x16"),
];

/// Length of the shortest code in bits.
const CODE_BITS_MIN: usize = 5;
/// Length of the longest code in bits.
const CODE_BITS_MAX: u32 = 30;

/// So many bits are looked up at once: two codes of those that fields are mostly made of.
const WINDOW_BITS: u32 = 12;

/// What so many bits begin with.
#[derive(Clone, Copy)]
struct Codes {
    /// The symbols of the first codes, two at most.
    symbols: [u8; 2],
    /// How many there are; none if the first code is longer.
    count: u8,
    /// How long they are together.
    bits: u8,
}

/// For each window, the codes that it begins with.
static WINDOWS: [Codes; 1 << WINDOW_BITS] = {
    let none = Codes {
        symbols: [0; 2],
        count: 0,
        bits: 0,
    };
    let mut windows = [none; 1 << WINDOW_BITS];
    let mut window = 0;
    while window < windows.len() {
        let mut codes = none;
        while codes.count < 2 && (codes.bits as u32) < WINDOW_BITS {
            // The bits behind the codes that are known, with zeros behind them.
            let rest = (window as u32) << (32 - WINDOW_BITS + codes.bits as u32);
            let mut row = 0;
            while ROWS[row].1 <= rest {
                row += 1;
            }
            let (bits, symbols) = SYMBOLS[row];
            if codes.bits as u32 + bits > WINDOW_BITS {
                break;
            }
            let position = (rest - ROWS[row].0) >> (32 - bits);
            codes.symbols[codes.count as usize] = symbols[position as usize];
            codes.count += 1;
            codes.bits += bits as u8;
        }
        windows[window] = codes;
        window += 1;
    }
    windows
};

/// For each row of `SYMBOLS`, its first code, and the first code that is longer than those of the row, each with zeros
/// behind it up to 32 bits.
const ROWS: [(u32, u32); SYMBOLS.len()] = {
    let mut rows = [(0, 0); SYMBOLS.len()];
    let mut next: u32 = 0;
    let mut row = 0;
    while row < SYMBOLS.len() {
        let (bits, symbols) = SYMBOLS[row];
        let first = next;
        next += (symbols.len() as u32) << (32 - bits);
        rows[row] = (first, next);
        row += 1;
    }
    // What is left is EOS.
    assert!(next == u32::MAX << (32 - CODE_BITS_MAX));
    rows
};

/// The symbol that the first of 32 bits encode, and its length in bits; `None` for EOS.
fn symbol(window: u32) -> Option<(u8, u32)> {
    let row = ROWS.iter().position(|(_, end)| window < *end)?;
    let (bits, symbols) = SYMBOLS[row];
    let position = (window - ROWS[row].0) >> (32 - bits);
    Some((symbols[position as usize], bits))
}

/// Decodes a string to the end of `output`.
///
/// # Errors
///
/// EOS is part of the string, or its padding is longer than 7 bits or not made of ones (RFC 7541 section 5.2).
pub(super) fn decode(encoded: &[u8], output: &mut Vec<u8>) -> Result<(), DecodeError> {
    let start = output.len();
    // As many symbols as there can be, and room for two to be written at once.
    output.resize(start + encoded.len() * 8 / CODE_BITS_MIN + 2, 0);
    let decoded = decode_into(encoded, &mut output[start..]);
    output.truncate(start + *decoded.as_ref().unwrap_or(&0));
    decoded.map(drop)
}

/// Returns how many symbols there are.
fn decode_into(mut encoded: &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
    // The next bits, the first of them on top, each inverted: so behind the end of the string stands the padding, ones for ever. Below
    // those that are counted may stand some of the next byte already.
    let (mut inverted, mut bits_left) = (0_u64, 0_u32);
    let mut decoded = 0;
    loop {
        if bits_left < CODE_BITS_MAX {
            match encoded.first_chunk() {
                Some(next) => {
                    inverted |= !u64::from_be_bytes(*next) >> bits_left;
                    encoded = &encoded[((63 - bits_left) / 8) as usize..];
                    bits_left |= 56;
                }
                None => {
                    while bits_left <= 56
                        && let Some((byte, rest)) = encoded.split_first()
                    {
                        inverted |= u64::from(!byte) << (56 - bits_left);
                        bits_left += 8;
                        encoded = rest;
                    }
                }
            }
            if bits_left < 8 && inverted == 0 {
                return Ok(decoded);
            }
        }
        let bits = !inverted;
        let codes = WINDOWS[(bits >> (64 - WINDOW_BITS)) as usize];
        let codes_bits = u32::from(codes.bits);
        if codes.count > 0 && codes_bits <= bits_left {
            output[decoded..decoded + 2].copy_from_slice(&codes.symbols);
            decoded += usize::from(codes.count);
            inverted <<= codes_bits;
            bits_left -= codes_bits;
            continue;
        }
        match symbol((bits >> 32) as u32) {
            Some((symbol, code_bits)) if code_bits <= bits_left => {
                output[decoded] = symbol;
                decoded += 1;
                inverted <<= code_bits;
                bits_left -= code_bits;
            }
            _ => return Err(DecodeError::Huffman),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Encodes a string by the same table, bit by bit.
    fn encode(string: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in string {
            let (row, position) = (0..SYMBOLS.len())
                .find_map(|row| Some((row, SYMBOLS[row].1.iter().position(|one| one == byte)?)))
                .unwrap();
            let length = SYMBOLS[row].0;
            let code = (ROWS[row].0 >> (32 - length)) + position as u32;
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        bits.chunks(8).map(byte).collect()
    }

    fn decoded(encoded: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut output = Vec::new();
        decode(encoded, &mut output).map(|()| output)
    }

    #[test]
    fn the_table_has_every_byte_once() {
        let mut all: Vec<u8> = SYMBOLS
            .iter()
            .flat_map(|(_, symbols)| *symbols)
            .copied()
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..=255).collect::<Vec<u8>>());
    }

    // The codes of RFC 7541 appendix B, one of each kind.
    #[test]
    fn codes_are_those_of_the_standard() {
        assert_eq!(encode(b"0"), [0b0000_0111]);
        assert_eq!(encode(b"&"), [0xf8]);
        assert_eq!(encode(b"a~"), [0b0001_1111, 0b1111_1111, 0b0111_1111]);
        assert_eq!(encode(&[0]), [0xff, 0xc7]);
        assert_eq!(encode(&[255]), [0xff, 0xff, 0xfb, 0xbf]);
        assert_eq!(encode(&[22]), [0xff, 0xff, 0xff, 0xfb]);
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte() {
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(DecodeError::Huffman));
        assert_eq!(decoded(&[0b0000_0000]), Err(DecodeError::Huffman));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(DecodeError::Huffman));
        assert_eq!(decoded(&[0xff]), Err(DecodeError::Huffman));
        assert_eq!(decoded(&[]), Ok(vec![]));
        // A whole byte that is a code is not padding.
        assert_eq!(decoded(&[0xf8]), Ok(b"&".to_vec()));
    }

    #[test]
    fn the_end_of_string_symbol_is_refused() {
        assert_eq!(decoded(&[0xff; 4]), Err(DecodeError::Huffman));
        assert_eq!(
            decoded(&[0x07, 0xff, 0xff, 0xff, 0xff]),
            Err(DecodeError::Huffman)
        );
    }

    proptest! {
        #[test]
        fn a_string_is_decoded_as_it_was_encoded(string in vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decoded(&encode(&string)), Ok(string));
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic_and_only_their_own_encoding_is_accepted(
            encoded in vec(any::<u8>(), 0..40),
        ) {
            if let Ok(string) = decoded(&encoded) {
                prop_assert_eq!(encode(&string), encoded);
            }
        }
    }
}
