//! Shares of the window of a backend's connection, which the content of many clients goes through. In: whose content a stream
//! carries, what is sent of it, credit. Out: how much may be sent now. A backend that does not read what one client sends gives no
//! credit for it: without shares that client's content would fill the whole window, and everybody's requests would wait.

use std::collections::VecDeque;
use std::time::Instant;

use super::Connection;
use crate::http::h2::StreamId;
use crate::http::limits::{
    CREDIT_LATE_MAX, WINDOW_SHARE, WINDOW_SHARE_BYTES_MIN, WINDOW_SHARED_BYTES_MAX,
    WINDOW_SHARED_EIGHTHS, WINDOW_SPENT,
};

/// What clients hold of a window. Takes eight bytes for each client of the worker while requests are under way.
#[derive(Debug)]
pub(super) struct Shares {
    /// Whether clients are held to them.
    are_in_force: bool,
    /// When they were lifted, and how much credit has come since.
    lifted: Option<(Instant, usize)>,
    /// The peer has been seen to give credit only when more of its window is used than shares let clients use.
    credits_late: bool,
    /// The widest that the window was, in bytes.
    widest: usize,
    /// When the peer has widened it last.
    credit_at: Instant,
    /// What each client has sent for which its streams have got no credit, by its number, in bytes.
    held: Vec<usize>,
    /// Streams whose content waits because their clients have their shares, in the order in which they were held back. Some may be gone.
    waiting: VecDeque<StreamId>,
    /// How many of them are not.
    held_back: usize,
    /// Whether there has been more to share since they were looked at.
    is_due: bool,
    /// When content that had waited was sent last.
    moved_at: Instant,
}

impl Shares {
    pub(super) fn new(window: usize, now: Instant) -> Self {
        Shares {
            are_in_force: true,
            lifted: None,
            credits_late: false,
            widest: window,
            credit_at: now,
            held: Vec::new(),
            waiting: VecDeque::new(),
            held_back: 0,
            is_due: false,
            moved_at: now,
        }
    }

    /// The peer has widened the window by so much.
    pub(super) fn widen(&mut self, credit: usize, available: usize, now: Instant) {
        self.widest = self.widest.max(available);
        self.credit_at = now;
        self.note_more();
        let free = self.widest - self.shared();
        if let Some((at, credited)) = &mut self.lifted {
            *credited += credit;
            let is_soon = now.saturating_duration_since(*at) < CREDIT_LATE_MAX;
            // What it takes nothing of, it gives no credit for.
            self.credits_late |= is_soon && *credited >= free;
        }
    }

    /// The part of the window that is shared.
    fn shared(&self) -> usize {
        (self.widest / 8 * WINDOW_SHARED_EIGHTHS).min(WINDOW_SHARED_BYTES_MAX)
    }

    /// Content that is held back may have a share by now.
    pub(super) fn note_more(&mut self) {
        self.is_due = self.held_back > 0;
    }

    /// How many of `wanted` bytes of a client's content a window takes of which so many are available.
    pub(super) fn of(&self, client: u32, available: usize, wanted: usize) -> usize {
        if !self.are_in_force {
            return available;
        }
        let free = available.saturating_sub(self.shared());
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
        self.note_more();
    }

    /// A stream is gone.
    pub(super) fn forget(&mut self, is_held_back: bool) {
        self.held_back -= usize::from(is_held_back);
    }

    /// Content that had waited was sent.
    pub(super) fn note_moved(&mut self, now: Instant) {
        self.moved_at = now;
    }

    /// Since when, at the least, nothing passes, where so much of the window is left: it is as good as spent, or content waits of which
    /// nothing is sent because its clients have their shares.
    pub(super) fn stalled(&self, available: usize) -> Option<Stall> {
        let is_spent = available < self.widest / WINDOW_SPENT;
        let since = match is_spent {
            true => self.credit_at,
            false => (self.held_back > 0).then_some(self.moved_at)?,
        };
        Some(Stall { since, is_spent })
    }

    /// Gives back memory. No stream is open: nothing is held.
    pub(super) fn shrink(&mut self) {
        self.held = Vec::new();
        self.waiting = VecDeque::new();
    }
}

/// That nothing passes to a peer because it gives no credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// Since when, at the least.
    pub since: Instant,
    /// Nearly nothing is left of the connection's window; otherwise clients have their shares.
    pub is_spent: bool,
}

impl Connection {
    /// Notes whose content a stream carries, before it carries any; a small number for each client.
    pub fn set_client(&mut self, stream: StreamId, client: u32) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.client = Some(client);
        }
    }

    /// Has clients keep to their shares of the connection's window, as they do at first, or no more. Of five eighths of it everybody
    /// takes what is there; of the rest each client's streams together hold at most a part of what they leave to others, by
    /// [`WINDOW_SHARE`]. A peer that gives credit only when all of its window is used gives none then: see [`Self::credits_late`].
    pub fn enforce_shares(&mut self, are_in_force: bool, now: Instant) {
        if let Some(shares) = &mut self.shares {
            shares.are_in_force = are_in_force;
            shares.lifted = (!are_in_force).then_some((now, 0));
            shares.note_more();
        }
    }

    /// Whether the peer has been seen to give credit as soon as its window is used by more than shares let clients use, and not
    /// before: on such a connection there can be none.
    pub fn credits_late(&self) -> bool {
        let shares = self.shares.as_ref();
        shares.is_some_and(|shares| shares.credits_late)
    }

    /// The stream whose turn it is has the share of its client: others have theirs.
    pub(super) fn hold_back(&mut self) {
        let Some(stream) = self.row.pop_front() else {
            return;
        };
        let open = self.streams.get_mut(stream);
        if let (Some(shares), Some(open)) = (&mut self.shares, open) {
            (open.is_in_row, open.is_held_back) = (false, true);
            shares.waiting.push_back(stream);
            shares.held_back += 1;
        }
    }

    /// Content that was held back stands in the row again where its client has a share by now: all that waits, or enough for a frame
    /// that is worth its header. What has waited longest comes first. Looks at all that is held back, and so at most once for each
    /// output that is taken: where there is some now, this is called again behind it.
    pub(super) fn join_held_back(&mut self) {
        let shares = self.shares.as_deref_mut().filter(|shares| shares.is_due);
        let Some(shares) = shares.filter(|_| self.output.is_empty()) else {
            return;
        };
        shares.is_due = false;
        let available = self.send_window.available();
        let enough = WINDOW_SHARE_BYTES_MIN.min(shares.widest / WINDOW_SPENT);
        for _ in 0..shares.waiting.len() {
            let Some(id) = shares.waiting.pop_front() else {
                break;
            };
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            let waits = stream.queue.data().len();
            let wanted = waits.min(stream.send_window.available()).min(enough);
            let share = match stream.client {
                Some(client) => shares.of(client, available, wanted),
                None => available,
            };
            if share < wanted {
                shares.waiting.push_back(id);
                continue;
            }
            // Without credit of its own it joins when that comes.
            (stream.is_held_back, stream.is_in_row) = (false, wanted > 0);
            shares.held_back -= 1;
            if stream.is_in_row {
                self.row.push_back(id);
            }
        }
    }
}
