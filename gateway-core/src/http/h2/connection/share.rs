//! Shares of the window of a backend's connection, which the content of many clients goes through. In: whose content a stream
//! carries, what is sent of it, credit. Out: how much may be sent now. A backend that does not read what one client sends gives no
//! credit for it: without shares that client's content would fill the whole window, and everybody's requests would wait.

use std::time::Instant;

use super::Connection;
use crate::http::h2::StreamId;
use crate::http::limits::{WINDOW_SHARE, WINDOW_SHARED, WINDOW_SPENT, WINDOW_WHOLE};

/// What clients hold of a window.
#[derive(Debug)]
pub(super) struct Shares {
    /// The widest that the window was, in bytes.
    widest: usize,
    /// What each client has sent for which its streams have got no credit, by its number, in bytes.
    held: Vec<usize>,
    /// What was left of the window when content was held back last, because its client has its share.
    held_back_at: Option<usize>,
    /// When content that had waited was sent last.
    moved_at: Instant,
}

impl Shares {
    pub(super) fn new(window: usize, now: Instant) -> Self {
        Shares {
            widest: window,
            held: Vec::new(),
            held_back_at: None,
            moved_at: now,
        }
    }

    /// The window has become wider. Whether so much that content which is held back is worth another try.
    fn widen(&mut self, available: usize) -> bool {
        self.widest = self.widest.max(available);
        let step = self.widest / WINDOW_SPENT;
        self.held_back_at
            .take_if(|before| available >= *before + step)
            .is_some()
    }

    /// How many of `wanted` bytes of a client's content a window takes of which so many are available.
    pub(super) fn of(&self, client: Option<u32>, available: usize, wanted: usize) -> usize {
        let Some(client) = client else {
            return available;
        };
        let free = available.saturating_sub(self.widest / WINDOW_WHOLE * WINDOW_SHARED);
        if free >= wanted {
            return free;
        }
        let held = self.held.get(client as usize).copied().unwrap_or(0);
        let share = available.saturating_sub(WINDOW_SHARE * held) / (WINDOW_SHARE + 1);
        free.max(share)
    }

    /// Counts content of a client that is sent.
    pub(super) fn hold(&mut self, client: Option<u32>, bytes: usize) {
        let Some(client) = client.map(|client| client as usize) else {
            return;
        };
        if self.held.len() <= client {
            self.held.resize(client + 1, 0);
        }
        self.held[client] += bytes;
    }

    /// A client's content is held no more.
    fn give_back(&mut self, client: Option<u32>, bytes: usize) {
        let held = client.and_then(|client| self.held.get_mut(client as usize));
        if let Some(held) = held {
            *held -= bytes;
        }
    }

    /// Since when, at the least, nothing passes, where so much of the window is left: it is as good as spent, or content waits of which
    /// nothing is sent because its clients have their shares.
    pub(super) fn stalled(
        &self,
        (available, credit_at): (usize, Instant),
        waits: bool,
    ) -> Option<Instant> {
        if available < self.widest / WINDOW_SPENT {
            return Some(credit_at);
        }
        self.held_back_at.filter(|_| waits).map(|_| self.moved_at)
    }

    /// Gives back memory, if no stream is open.
    pub(super) fn shrink(&mut self) {
        if self.held.iter().all(|held| *held == 0) {
            self.held = Vec::new();
        }
    }
}

impl Connection {
    /// Notes whose content a stream carries, before it carries any; a small number for each client. Of one part of
    /// the connection's window everybody takes what is there; of [`WINDOW_SHARED`] each client's streams together hold at most a part of
    /// what they leave to others, by [`WINDOW_SHARE`].
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

    /// Content that waited has been sent.
    pub(super) fn note_moved(&mut self) {
        self.shares.moved_at = self.heard_at;
    }

    /// The stream whose turn it is has the share of its client: others have theirs.
    pub(super) fn hold_back(&mut self) {
        self.leave_row();
        self.shares.held_back_at = Some(self.send_window.available());
    }

    /// The peer has widened the connection's window.
    pub(super) fn widen(&mut self) {
        if self.shares.widen(self.send_window.available()) {
            self.join_all();
        }
    }

    /// Content is held no more: what its client has to send besides may have a share.
    pub(super) fn give_back(&mut self, client: Option<u32>, bytes: usize) {
        self.shares.give_back(client, bytes);
        if self.shares.held_back_at.is_none() {
            return;
        }
        let waiting = self.streams.iter_mut();
        let waiting = waiting.filter(|one| one.client == client && !one.queue.is_empty());
        for stream in waiting {
            if !std::mem::replace(&mut stream.is_in_row, true) {
                self.row.push_back(stream.id);
            }
        }
    }
}
