//! The workers' answers to a message that another thread has sent to all of them.
//! In: one answer a worker. Out: their sum. On the thread that asked, for a bounded time.

use std::iter::Sum;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use gateway_core::limits;

/// Answers that are still to come.
#[must_use]
pub struct Answers<T> {
    workers: usize,
    answers: Receiver<T>,
}

impl<T> Answers<T> {
    /// Those of so many workers, which send them to `answers`.
    pub(super) fn new(workers: usize, answers: Receiver<T>) -> Self {
        Answers { workers, answers }
    }
}

impl<T: Sum> Answers<T> {
    /// Waits until every worker has answered, and adds the answers up. A worker that drains does not answer.
    pub fn wait(self) -> T {
        let until = Instant::now() + limits::STATE_TIMEOUT;
        let next = |_| {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left);
            if matches!(answer, Err(RecvTimeoutError::Timeout)) {
                let waited_seconds = limits::STATE_TIMEOUT.as_secs();
                tracing::error!(
                    waited_seconds,
                    "not every worker has answered yet: one may still act by the state before"
                );
            }
            answer.ok()
        };
        (0..self.workers).map_while(next).sum()
    }
}
