//! The content of a request or an answer on its way out: bytes at hand, then as much of the pattern as is asked for.
//! In: bytes, a length. Out: pieces, for HTTP/1 by hyper and for HTTP/2 by h2. Holds no more than one piece.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::pattern;

/// Content that is sent piece by piece.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Sent first.
    whole: Bytes,
    /// The part of the pattern that follows.
    pattern: Range<u64>,
}

impl Outgoing {
    /// These bytes, and that many of the pattern behind them.
    pub(crate) fn new(whole: Bytes, pattern_bytes: u64) -> Self {
        Self {
            whole,
            pattern: 0..pattern_bytes,
        }
    }

    /// Bytes still to come.
    pub(crate) fn left(&self) -> u64 {
        self.whole.len() as u64 + (self.pattern.end - self.pattern.start)
    }

    /// The next piece, of at most so many bytes.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        if !self.whole.is_empty() {
            return self.whole.split_to(most.min(self.whole.len()));
        }
        let left = self.pattern.end - self.pattern.start;
        let piece = pattern::run_at(self.pattern.start, left.min(most as u64));
        self.pattern.start += piece.len() as u64;
        Bytes::from_static(piece)
    }
}

/// The longest piece that HTTP/1 gets.
const PIECE: usize = 64 * 1024;

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready((self.left() > 0).then(|| Ok(Frame::data(self.take(PIECE)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_what_was_given_and_the_pattern_behind_it_in_pieces_of_any_size() {
        for most in [1, 7, 1000, 100_000] {
            let mut content = Outgoing::new(Bytes::from_static(b"first"), 300_000);
            let mut sent = Vec::new();
            while content.left() > 0 {
                let piece = content.take(most);
                assert!((1..=most).contains(&piece.len()));
                sent.extend_from_slice(&piece);
            }
            assert_eq!((sent.len(), &sent[..5]), (300_005, &b"first"[..]), "{most}");
            assert!(pattern::matches(0, &sent[5..]), "{most}");
        }
    }
}
