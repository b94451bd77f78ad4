//! What other threads send to a worker.
//! In: news of the control thread, reloads, an operator's questions. Out: messages for a worker's mailbox. Decides nothing.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use gateway_core::balance::Server;

use super::matching::{Matching, Wanted};
use super::state::SharedState;
use crate::config::BackendId;

/// A message to a worker.
#[derive(Debug)]
pub(super) enum Message {
    /// The servers of a backend have changed.
    Servers {
        /// The backend.
        backend: BackendId,
        /// All that are known.
        servers: Vec<Server>,
    },
    /// Trust and serve this from now on, and evaluate all open connections under it.
    Reload {
        /// What to trust and serve.
        shared: Box<SharedState>,
        /// Takes how many connections close for it.
        closed: Sender<usize>,
    },
    /// The wall clock was set: close connections whose certificates have expired by it.
    ClockSet,
    /// The handshake slot that a client waits for under this number is free.
    GoOn(u64),
    /// Count the clients by the time until their certificates expire.
    CountClients,
    /// Answer which clients an entry of the block list matches.
    WhoMatches {
        /// The entry.
        wanted: Arc<Wanted>,
        /// Takes the clients.
        matching: Sender<Matching>,
    },
    /// Accept what waits in the accept queues, then nothing more. End when all connections have ended, or at the deadline.
    Drain {
        /// When connections that are still open are closed.
        deadline: Instant,
        /// Takes how many those were.
        cut: Sender<usize>,
    },
}
