//! Shares of the window of a backend's connection, which the content of many clients goes through. In: whose content a stream
//! carries, what is sent of it, credit. Out: how much may be sent now. A backend that does not read what one client sends gives no
//! credit for it: without shares that client's content would fill the whole window, and everybody's requests would wait.

use std::time::Instant;

use super::Connection;
use crate::http::h2::StreamId;
use crate::http::limits::{
    WINDOW_SHARE, WINDOW_SHARE_BYTES_MIN, WINDOW_SHARED_EIGHTHS, WINDOW_SPENT,
};

/// What clients hold of a window. Takes eight bytes for each client of the worker while requests are under way.
#[derive(Debug)]
pub(super) struct Shares {
    /// The widest that the window was, in bytes.
    widest: usize,
    /// When the peer has widened it last.
    credit_at: Instant,
    /// What each client has sent for which its streams have got no credit, by its number, in bytes.
    held: Vec<usize>,
    /// Whether content waits because its client has its share.
    has_held_back: bool,
    /// Whether there has been more to share since that was looked at.
    is_due: bool,
    /// When content that had waited was sent last.
    moved_at: Instant,
}

impl Shares {
    pub(super) fn new(window: usize, now: Instant) -> Self {
        Shares {
            widest: window,
            credit_at: now,
            held: Vec::new(),
            has_held_back: false,
            is_due: false,
            moved_at: now,
        }
    }

    /// The peer has widened the window.
    pub(super) fn widen(&mut self, available: usize, now: Instant) {
        self.widest = self.widest.max(available);
        self.credit_at = now;
        self.is_due = self.has_held_back;
    }

    /// How many of `wanted` bytes of a client's content a window takes of which so many are available.
    pub(super) fn of(&self, client: u32, available: usize, wanted: usize) -> usize {
        let free = available.saturating_sub(self.widest / 8 * WINDOW_SHARED_EIGHTHS);
        if free >= wanted {
            return free;
        }
        let held = self.held.get(client as usize).copied().unwrap_or(0);
        let share = available.saturating_sub(WINDOW_SHARE * held) / (WINDOW_SHARE + 1);
        free.max(share)
    }

    /// Counts content of a client that is sent.
    pub(super) fn hold(&mut self, client: u32, bytes: usize) {
        let client = client as usize;
        if self.held.len() <= client {
            self.held.resize(client + 1, 0);
        }
        self.held[client] += bytes;
    }

    /// A client's content is held no more: what it has to send besides may have a share.
    pub(super) fn give_back(&mut self, client: u32, bytes: usize) {
        if let Some(held) = self.held.get_mut(client as usize) {
            *held -= bytes;
        }
        self.is_due = self.has_held_back;
    }

    /// Content that had waited was sent.
    pub(super) fn note_moved(&mut self, now: Instant) {
        self.moved_at = now;
    }

    /// Since when, at the least, nothing passes, where so much of the window is left: it is as good as spent, or content waits of which
    /// nothing is sent because its clients have their shares.
    pub(super) fn stalled(&self, available: usize) -> Option<Instant> {
        match available < self.widest / WINDOW_SPENT {
            true => Some(self.credit_at),
            false => self.has_held_back.then_some(self.moved_at),
        }
    }

    /// Gives back memory. No stream is open: nothing is held.
    pub(super) fn shrink(&mut self) {
        self.held = Vec::new();
    }
}

impl Connection {
    /// Notes whose content a stream carries, before it carries any; a small number for each client. Of five eighths of the
    /// connection's window everybody takes what is there; of the rest each client's streams together hold at most a part of what they
    /// leave to others, by [`WINDOW_SHARE`].
    pub fn set_client(&mut self, stream: StreamId, client: u32) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.client = Some(client);
        }
    }

    /// Whether content waits on a stream.
    pub(super) fn has_content(&mut self, stream: StreamId) -> bool {
        let open = self.streams.get_mut(stream);
        open.is_some_and(|open| !open.queue.data().is_empty())
    }

    /// The stream whose turn it is has the share of its client: others have theirs.
    pub(super) fn hold_back(&mut self) {
        self.leave_row();
        if let Some(shares) = &mut self.shares {
            shares.has_held_back = true;
        }
    }

    /// Content that was held back stands in the row again where its client has a share by now: all that waits, or enough for a frame
    /// that is worth its header. Looks at all streams, and so at most once for each output that is taken: where there is some now,
    /// this is called again behind it.
    pub(super) fn join_held_back(&mut self) {
        let shares = self.shares.as_deref_mut().filter(|shares| shares.is_due);
        let Some(shares) = shares.filter(|_| self.output.is_empty()) else {
            return;
        };
        (shares.is_due, shares.has_held_back) = (false, false);
        let available = self.send_window.available();
        let enough = WINDOW_SHARE_BYTES_MIN.min(shares.widest / WINDOW_SPENT);
        for stream in self.streams.iter_mut().filter(|one| !one.is_in_row) {
            let waits = stream.queue.data().len();
            let (Some(client), Some(wanted)) = (
                stream.client,
                Some(waits.min(stream.send_window.available())).filter(|bytes| *bytes > 0),
            ) else {
                continue;
            };
            let wanted = wanted.min(enough);
            if shares.of(client, available, wanted) >= wanted {
                stream.is_in_row = true;
                self.row.push_back(stream.id);
            } else {
                shares.has_held_back = true;
            }
        }
    }
}
