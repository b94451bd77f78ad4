//! What other threads tell a worker.
//! In: news of the control thread, reloads, an operator's questions. Out: messages for a worker's mailbox. Decides nothing.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use gateway_core::balance::Server;

use super::matching::{Matching, Wanted};
use super::state::Seed;
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
    /// Trust and serve this from now on, and judge the connections that are open by it.
    Reload {
        /// What to trust and serve.
        seed: Box<Seed>,
        /// Takes how many connections are closed for it.
        taken: Sender<usize>,
    },
    /// The wall clock has been set: whose certificate has ended by it has to go.
    ClockSet,
    /// A handshake slot that was waited for is there, on whichever worker it has become free.
    GoOn(u64),
    /// Count the clients by what is left of their certificates.
    CountClients,
    /// Say which clients an entry of the block list is about.
    WhoMatches {
        /// The entry.
        wanted: Arc<Wanted>,
        /// Where to tell.
        answer: Sender<Matching>,
    },
    /// Take what waits in the accept queues, then nothing more; end when all connections have, or at the deadline.
    Drain {
        /// When connections that are still open are closed.
        deadline: Instant,
        /// Takes how many those were.
        cut: Sender<usize>,
    },
}
