//! The chunked transfer coding (RFC 9112 section 7.1), as it is received. In: bytes, in whatever pieces. Out: where
//! content begins and how much of it, and where the trailer section begins. Byte by byte between chunks, holding none.

use super::Fault;
use crate::http::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX};
use crate::http::message::character::is_value_character;

/// What comes next in chunked content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextPart {
    /// It is not known before more has come.
    Unknown,
    /// So many bytes of content.
    Content(u64),
    /// The trailer section.
    Trailers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within the size; so many digits of it have come.
    Size {
        digits: u8,
    },
    /// White space before an extension, which RFC 9112 section 7.1.1 has us take.
    BeforeExtension,
    Extension,
    /// Behind the carriage return of a size.
    SizeEnd,
    Content,
    /// Behind the content of a chunk.
    ContentEnd,
    /// Behind the carriage return there.
    ContentLineFeed,
}

/// Where the decoder is.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// What is to come of the chunk.
    left: u64,
    extension_bytes: usize,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Chunks {
            state: State::Size { digits: 0 },
            left: 0,
            extension_bytes: 0,
        }
    }

    /// Takes what stands between content.
    ///
    /// # Errors
    ///
    /// It is malformed.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<NextPart, Fault> {
        while self.state != State::Content {
            let [byte, rest @ ..] = *input else {
                return Ok(NextPart::Unknown);
            };
            *input = rest;
            if self.take_byte(*byte)? {
                return Ok(NextPart::Trailers);
            }
        }
        Ok(NextPart::Content(self.left))
    }

    /// Counts content that was taken.
    pub(super) fn take(&mut self, bytes: usize) {
        self.left -= bytes as u64;
        if self.left == 0 {
            self.state = State::ContentEnd;
        }
    }

    /// Takes a byte that is no content. Returns whether the last chunk is complete, which has none.
    fn take_byte(&mut self, byte: u8) -> Result<bool, Fault> {
        match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                self.take_digit(digits, byte)?;
            }
            (State::Size { digits: 0 }, _) => return Err(Fault::ChunkSize),
            (State::Size { .. } | State::Extension, b'\r') => self.state = State::SizeEnd,
            (State::Size { .. } | State::BeforeExtension, b';') => {
                self.take_extension(State::Extension)?
            }
            (State::Size { .. } | State::BeforeExtension, b' ' | b'\t') => {
                self.take_extension(State::BeforeExtension)?;
            }
            (State::Extension, _) if is_value_character(byte) => {
                self.take_extension(State::Extension)?
            }
            (State::Size { .. }, _) => return Err(Fault::ChunkSize),
            (State::BeforeExtension | State::Extension, _) => return Err(Fault::ChunkExtension),
            (State::SizeEnd, b'\n') if self.left == 0 => return Ok(true),
            (State::SizeEnd, b'\n') => self.state = State::Content,
            (State::SizeEnd, _) => return Err(Fault::ChunkSize),
            (State::ContentEnd, b'\r') => self.state = State::ContentLineFeed,
            (State::ContentLineFeed, b'\n') => self.state = State::Size { digits: 0 },
            (State::Content | State::ContentEnd | State::ContentLineFeed, _) => {
                return Err(Fault::ChunkEnd);
            }
        }
        Ok(false)
    }

    fn take_digit(&mut self, digits: u8, digit: u8) -> Result<(), Fault> {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit.to_ascii_lowercase() - b'a' + 10,
        };
        if self.left >> 59 != 0 {
            return Err(Fault::LengthTooLarge);
        }
        if digits == CHUNK_SIZE_DIGITS_MAX {
            return Err(Fault::ChunkSize);
        }
        self.left = self.left << 4 | u64::from(value);
        self.state = State::Size { digits: digits + 1 };
        Ok(())
    }

    fn take_extension(&mut self, state: State) -> Result<(), Fault> {
        self.state = state;
        self.extension_bytes += 1;
        match self.extension_bytes <= CHUNK_EXTENSION_BYTES_MAX {
            true => Ok(()),
            false => Err(Fault::ChunkExtension),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content, and what is left behind the last chunk.
    fn decode(mut input: &[u8]) -> Result<(Vec<u8>, &[u8]), Fault> {
        let (mut chunks, mut content) = (Chunks::new(), Vec::new());
        loop {
            match chunks.next(&mut input)? {
                NextPart::Unknown => panic!("it ends early"),
                NextPart::Trailers => return Ok((content, input)),
                NextPart::Content(bytes) => {
                    let (data, rest) = input.split_at(bytes as usize);
                    content.extend_from_slice(data);
                    chunks.take(data.len());
                    input = rest;
                }
            }
        }
    }

    #[test]
    fn chunks_are_put_together() {
        for (input, content) in [
            ("3\r\nabc\r\n0\r\nx", "abc"),
            ("0000000000000003\r\nabc\r\n00\r\nx", "abc"),
            (
                "a;b=c\r\n0123456789\r\nB;c=\"d;e\"\r\n0123456789a\r\n0;x\r\nx",
                "01234567890123456789a",
            ),
            ("1 ; a\r\nb\r\n0\r\nx", "b"),
        ] {
            assert_eq!(
                decode(input.as_bytes()),
                Ok((content.into(), &b"x"[..])),
                "{input:?}"
            );
        }
    }

    #[test]
    fn each_fault_of_a_chunk_has_its_name() {
        let long = format!("1;{}\r\n", "a".repeat(CHUNK_EXTENSION_BYTES_MAX));
        let many = "1;aaaaaaa\r\nb\r\n".repeat(CHUNK_EXTENSION_BYTES_MAX / 8 + 1);
        for (input, fault) in [
            ("\r\n", Fault::ChunkSize),
            (";a\r\n", Fault::ChunkSize),
            (" 1\r\n", Fault::ChunkSize),
            ("+1\r\n", Fault::ChunkSize),
            ("-1\r\n", Fault::ChunkSize),
            ("0x1\r\n", Fault::ChunkSize),
            ("1g\r\n", Fault::ChunkSize),
            ("1\n", Fault::ChunkSize),
            ("1\r\r\n", Fault::ChunkSize),
            ("1 \r\n", Fault::ChunkExtension),
            ("1 2\r\n", Fault::ChunkExtension),
            ("1;a\nb\r\n", Fault::ChunkExtension),
            ("1;a\0\r\n", Fault::ChunkExtension),
            ("1;a\rb\r\n", Fault::ChunkSize),
            (&long, Fault::ChunkExtension),
            (&many, Fault::ChunkExtension),
            ("00000000000000001\r\n", Fault::ChunkSize),
            ("8000000000000000\r\n", Fault::LengthTooLarge),
            ("fffffffffffffffff\r\n", Fault::LengthTooLarge),
            ("10000000000000001\r\n", Fault::LengthTooLarge),
            ("1\r\nab\r\n", Fault::ChunkEnd),
            ("1\r\na\n", Fault::ChunkEnd),
            ("1\r\na\rb", Fault::ChunkEnd),
            ("2\r\na\r\n0\r\n", Fault::ChunkEnd),
        ] {
            assert_eq!(decode(input.as_bytes()), Err(fault), "{input:?}");
        }
    }
}
