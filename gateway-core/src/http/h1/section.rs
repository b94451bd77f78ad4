//! Sections (RFC 9112 section 2.1): a first line, field lines and the empty line behind them, or trailers and the empty
//! line. In: pieces of input. Out: a section, once all of it is there. Holds the beginning of one, within a bound.
//!
//! What it decides depends on the bytes alone and not on how they are cut.

use std::borrow::Cow;

use super::Fault;
use crate::http::limits::{HEAD_BYTES_MAX, REQUEST_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// What a section is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request: an empty line may stand before it (RFC 9112 section 2.2).
    Request,
    Response,
    Trailers,
}

impl Kind {
    const fn bytes_max(self) -> usize {
        match self {
            Kind::Request | Kind::Response => HEAD_BYTES_MAX,
            Kind::Trailers => TRAILER_BYTES_MAX,
        }
    }

    /// Why a first line of this length cannot be.
    const fn check_first_line(self, bytes: usize) -> Result<(), Fault> {
        match self {
            Kind::Request if bytes > REQUEST_LINE_BYTES_MAX => Err(Fault::RequestLineTooLong),
            Kind::Request | Kind::Response | Kind::Trailers => Ok(()),
        }
    }
}

/// A section that is arriving.
#[derive(Debug, Default)]
pub(super) struct ArrivingSection {
    bytes: Vec<u8>,
    /// How far its lines have been looked at.
    progress: Progress,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// What has been looked at.
    scanned: usize,
    /// Where the line begins that is not complete.
    line: usize,
    /// Whether it is not the first line.
    has_line: bool,
}

impl ArrivingSection {
    /// Takes a section, once it is there, with the line ends and the empty line behind it.
    ///
    /// # Errors
    ///
    /// It is too long, or a line of it does not end as lines do.
    pub(super) fn take<'a>(
        &mut self,
        input: &mut &'a [u8],
        kind: Kind,
    ) -> Result<Option<Cow<'a, [u8]>>, Fault> {
        if self.bytes.is_empty() {
            if let Some(end) = self.progress.find_end(input, kind)? {
                let (section, rest) = input.split_at(end);
                *input = rest;
                self.progress = Progress::default();
                return Ok(Some(Cow::Borrowed(section)));
            }
            self.bytes.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        let before = self.bytes.len();
        // No more than can be of use: the rest may be content of any length.
        let room = (kind.bytes_max() + 1).saturating_sub(before);
        let (more, _) = input.split_at(room.min(input.len()));
        self.bytes.extend_from_slice(more);
        let Some(end) = self.progress.find_end(&self.bytes, kind)? else {
            *input = &input[more.len()..];
            return Ok(None);
        };
        *input = &input[end - before..];
        self.progress = Progress::default();
        let mut section = std::mem::take(&mut self.bytes);
        section.truncate(end);
        Ok(Some(Cow::Owned(section)))
    }

    /// Whether nothing of one has come.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what has come.
    pub(super) fn clear(&mut self) {
        *self = ArrivingSection::default();
    }
}

impl Progress {
    /// Where the section ends, if its empty line is there.
    fn find_end(&mut self, bytes: &[u8], kind: Kind) -> Result<Option<usize>, Fault> {
        while let Some(distance) = find_line_feed(&bytes[self.scanned..]) {
            let line_feed = self.scanned + distance;
            let end = line_feed + 1;
            if !self.has_line {
                kind.check_first_line(end - self.line)?;
            }
            if end > kind.bytes_max() {
                return Err(Fault::SectionTooLarge);
            }
            if line_feed == self.line || bytes[line_feed - 1] != b'\r' {
                return Err(Fault::BareLineFeed);
            }
            let is_empty = line_feed == self.line + 1;
            let goes_before = kind == Kind::Request && self.line == 0;
            (self.scanned, self.line) = (end, end);
            if is_empty && !goes_before {
                return Ok(Some(end));
            }
            self.has_line |= !is_empty;
        }
        if !self.has_line {
            kind.check_first_line(bytes.len() - self.line)?;
        }
        if bytes.len() > kind.bytes_max() {
            return Err(Fault::SectionTooLarge);
        }
        self.scanned = bytes.len();
        Ok(None)
    }
}

/// Where the first line feed is: eight bytes at once, since all of a head has to be looked at.
fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let (words, _) = bytes.as_chunks::<8>();
    for (position, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ (ONES * b'\n' as u64);
        // The lowest high bit stands where a byte is zero; those above it may be wrong.
        let found = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if found != 0 {
            return Some(8 * position + found.trailing_zeros() as usize / 8);
        }
    }
    let start = 8 * words.len();
    let rest = bytes[start..].iter().position(|byte| *byte == b'\n');
    rest.map(|distance| start + distance)
}

/// The lines of a whole section, without their ends and without the empty one.
pub(super) fn lines(mut section: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let line_feed = find_line_feed(section)?;
        let line = section[..line_feed].strip_suffix(b"\r")?;
        section = &section[line_feed + 1..];
        (!line.is_empty()).then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn take(
        bytes: &[u8],
        piece_bytes: usize,
        kind: Kind,
    ) -> (Result<Option<Vec<u8>>, Fault>, usize) {
        let mut section = ArrivingSection::default();
        let mut read = 0;
        for piece in bytes.chunks(piece_bytes) {
            let mut rest = piece;
            let taken = section.take(&mut rest, kind);
            read += piece.len() - rest.len();
            match taken {
                Ok(Some(section)) => return (Ok(Some(section.into_owned())), read),
                Ok(None) => assert!(rest.is_empty()),
                Err(fault) => return (Err(fault), 0),
            }
        }
        (Ok(None), read)
    }

    #[test]
    fn a_section_ends_with_its_empty_line() {
        for (bytes, kind, expected) in [
            ("a\r\nb\r\n\r\nc", Kind::Request, 8),
            ("\r\na\r\n\r\n\r\n", Kind::Request, 7),
            ("\r\n\r\na\r\n\r\n", Kind::Request, 4),
            ("\r\na\r\n\r\n", Kind::Response, 2),
            ("\r\nGET", Kind::Trailers, 2),
            ("a: b\r\n\r\n", Kind::Trailers, 8),
        ] {
            let (section, read) = take(bytes.as_bytes(), usize::MAX, kind);
            assert_eq!(section, Ok(Some(bytes.as_bytes()[..expected].to_vec())));
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn lengths_are_bounded_to_the_byte() {
        let line = |bytes: usize| [vec![b'a'; bytes - 2], b"\r\n".to_vec()].concat();
        let head = |first: usize, rest: usize| [line(first), line(rest), b"\r\n".to_vec()].concat();
        for (bytes, kind, expected) in [
            (head(REQUEST_LINE_BYTES_MAX, 9), Kind::Request, None),
            (
                head(REQUEST_LINE_BYTES_MAX + 1, 9),
                Kind::Request,
                Some(Fault::RequestLineTooLong),
            ),
            (head(REQUEST_LINE_BYTES_MAX + 1, 9), Kind::Response, None),
            (head(9, HEAD_BYTES_MAX - 11), Kind::Request, None),
            (
                head(9, HEAD_BYTES_MAX - 10),
                Kind::Request,
                Some(Fault::SectionTooLarge),
            ),
            (head(9, TRAILER_BYTES_MAX - 11), Kind::Trailers, None),
            (
                head(9, TRAILER_BYTES_MAX - 10),
                Kind::Trailers,
                Some(Fault::SectionTooLarge),
            ),
        ] {
            for piece_bytes in [usize::MAX, 1, 1000] {
                let (section, _) = take(&bytes, piece_bytes, kind);
                assert_eq!(section.err(), expected);
            }
            // Without an end it is refused as soon.
            let (section, _) = take(&vec![b'a'; kind.bytes_max() + 1], 7, kind);
            assert!(section.is_err());
        }
    }

    proptest! {
        #[test]
        fn pieces_of_a_section_are_the_same_as_a_whole(
            bytes in "[a\r\n]{0,40}|(\r\n)?(a{0,9}\r\n){0,5}\r\n[a\r\n]{0,9}",
            piece_bytes in 1_usize..9,
            kind in prop::sample::select(&[Kind::Request, Kind::Response, Kind::Trailers][..]),
        ) {
            let whole = take(bytes.as_bytes(), usize::MAX, kind);
            prop_assert_eq!(take(bytes.as_bytes(), piece_bytes, kind), whole);
        }

        #[test]
        fn a_line_feed_is_found_where_it_is(bytes in vec(prop::sample::select(&[b'\n', b'\r', 0x0b, 0x8a, b'a', 0, 0xff][..]), 0..40)) {
            prop_assert_eq!(find_line_feed(&bytes), bytes.iter().position(|byte| *byte == b'\n'));
        }
    }
}
