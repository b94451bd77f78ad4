//! What one client is given of its worker before others have their turn. In: events, and the bytes that they took. Out: whether the
//! turn is over. Counts bytes that are no content: a frame, a chunk or a request costs the same for every length of its content.

use crate::http::h2::Event;
use crate::http::limits::{TURN_BYTES_MAX, TURN_REQUEST_BYTES};

/// What a client has used of a turn, in bytes.
#[derive(Debug, Default)]
pub(super) struct ClientTurn {
    bytes: usize,
}

impl ClientTurn {
    /// Whether others come first now.
    pub(super) fn is_over(&self) -> bool {
        self.bytes >= TURN_BYTES_MAX
    }

    /// Counts an event that took so many bytes of input.
    pub(super) fn count(&mut self, bytes: usize, event: &Event<'_>) {
        self.bytes += match event {
            Event::Request { .. } => bytes + TURN_REQUEST_BYTES,
            Event::Data { data, .. } => bytes - data.len(),
            _ => bytes,
        };
    }
}
