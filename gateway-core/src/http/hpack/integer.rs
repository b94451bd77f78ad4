//! Integers with a prefix (RFC 7541 section 5.1). In: bytes. Out: a number, or the other way round. Pure.

use super::DecodeError;

/// Bytes that may follow the prefix: with four the number is below 2^28 + 255, more than any length or index here.
const FURTHER_BYTES_MAX: usize = 4;

/// Takes an integer whose prefix are the low `prefix_bits` of the first byte.
///
/// # Errors
///
/// The bytes end within it, or it is larger than anything here.
pub(super) fn decode(input: &mut &[u8], prefix_bits: u32) -> Result<usize, DecodeError> {
    let (first, mut rest) = input.split_first().ok_or(DecodeError::Truncated)?;
    let prefix_max = (1 << prefix_bits) - 1;
    let mut number = usize::from(*first) & prefix_max;
    if number == prefix_max {
        for position in 0.. {
            if position == FURTHER_BYTES_MAX {
                return Err(DecodeError::Integer);
            }
            let (byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
            number += usize::from(byte & 0x7f) << (7 * position);
            rest = after;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *input = rest;
    Ok(number)
}

/// Writes an integer. `pattern` are the bits of the first byte above the prefix.
pub(super) fn encode(output: &mut Vec<u8>, pattern: u8, prefix_bits: u32, number: usize) {
    let prefix_max = (1 << prefix_bits) - 1;
    if number < prefix_max {
        output.push(pattern | number as u8);
        return;
    }
    output.push(pattern | prefix_max as u8);
    let mut rest = number - prefix_max;
    while rest >= 0x80 {
        output.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    output.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // RFC 7541 appendix C.1.
    #[test]
    fn examples_of_the_standard_are_read_and_written() {
        for (bytes, prefix_bits, number) in [
            (&[0b0000_1010][..], 5, 10),
            (&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5, 1337),
            (&[0b0010_1010], 8, 42),
        ] {
            assert_eq!(decode(&mut &bytes[..], prefix_bits), Ok(number));
            let mut written = Vec::new();
            encode(&mut written, 0, prefix_bits, number);
            assert_eq!(written, bytes);
        }
    }

    #[test]
    fn a_longer_integer_than_any_here_is_refused_however_small_it_is() {
        let mut padded = &[0xff, 0x80, 0x80, 0x80, 0x00][..];
        assert_eq!(decode(&mut padded, 7), Ok(0x7f));
        let mut too_long = &[0xff, 0x80, 0x80, 0x80, 0x80, 0x00][..];
        assert_eq!(decode(&mut too_long, 7), Err(DecodeError::Integer));
        let mut too_large = &[0xff; 12][..];
        assert_eq!(decode(&mut too_large, 7), Err(DecodeError::Integer));
    }

    #[test]
    fn an_integer_that_does_not_end_is_truncated() {
        for bytes in [&[][..], &[0x7f], &[0x7f, 0x80]] {
            assert_eq!(decode(&mut &bytes[..], 7), Err(DecodeError::Truncated));
        }
    }

    proptest! {
        #[test]
        fn an_integer_is_read_as_it_is_written(number in 0_usize..1 << 28, prefix_bits in 4_u32..=7) {
            let mut bytes = Vec::new();
            encode(&mut bytes, 0, prefix_bits, number);
            bytes.push(0xaa);
            let mut input = &bytes[..];
            prop_assert_eq!(decode(&mut input, prefix_bits), Ok(number));
            prop_assert_eq!(input, &[0xaa]);
        }
    }
}
