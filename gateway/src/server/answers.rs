//! What a thread waits for that has asked every worker something.
//! In: the workers' answers. Out: their sum. On the thread that asked, for a bounded time: a worker that drains does not answer.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use gateway_core::limits;

use super::matching::Matching;

/// Answers of the workers to a new state.
pub(super) struct Taken {
    workers: usize,
    answers: Receiver<usize>,
}

impl Taken {
    /// Waits for so many workers, which send to `answers`.
    pub(super) fn new(workers: usize, answers: Receiver<usize>) -> Self {
        Taken { workers, answers }
    }

    /// Waits until every worker has taken it, and adds up the connections that each of them closes.
    pub(super) fn wait(self) -> usize {
        let until = Instant::now() + limits::STATE_TIMEOUT;
        let mut closed = 0;
        for _ in 0..self.workers {
            let left = until.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(of_worker) => closed += of_worker,
                Err(RecvTimeoutError::Timeout) => {
                    let waited_seconds = limits::STATE_TIMEOUT.as_secs();
                    tracing::error!(
                        waited_seconds,
                        "not every worker has taken the new state yet"
                    );
                    break;
                }
                // A worker that drains takes nothing any more.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        closed
    }
}

/// Answers of the workers.
#[must_use]
pub struct Asked {
    workers: usize,
    answers: Receiver<Matching>,
}

impl Asked {
    /// Waits for so many workers, which send to `answers`.
    pub(super) fn new(workers: usize, answers: Receiver<Matching>) -> Self {
        Asked { workers, answers }
    }

    /// Waits until every worker has answered, and adds up what they know. One that drains answers no more.
    pub fn wait(self) -> Matching {
        let until = Instant::now() + limits::STATE_TIMEOUT;
        let mut all = Matching::default();
        for _ in 0..self.workers {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(of_worker) = self.answers.recv_timeout(left) else {
                break;
            };
            all.extend(of_worker);
        }
        all
    }
}
