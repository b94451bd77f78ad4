//! Limits one client to the byte rate of its identity.
//! In: bytes that were read. Out: a pause before the next read, in which the client's bytes wait in the kernel and TCP holds it
//! back. One per connection, on its worker; the count is shared with the identity's other connections.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use gateway_core::limits;

use super::{ConnectionTimer, Direction, Stream, UsagePermit};
use crate::tls::StreamError;

/// The rate limiter of one connection.
#[derive(Debug)]
pub struct RateLimiter {
    permit: UsagePermit,
    resume_at: Cell<Option<Instant>>,
}

impl RateLimiter {
    /// Limits a connection by its permit. Earlier connections of the identity count: a client that reconnects for every few bytes
    /// is no faster than one that stays.
    pub fn new(permit: UsagePermit) -> Self {
        let resume_at = Cell::new(permit.charge(0));
        RateLimiter { permit, resume_at }
    }

    /// Charges what the client has sent, in bytes of data that cost as much.
    pub fn charge(&self, bytes: u64) {
        self.resume_at.set(self.permit.charge(bytes));
    }

    /// The permit behind it.
    pub fn permit(&self) -> &UsagePermit {
        &self.permit
    }

    /// Whether the next read has to wait.
    pub fn is_due(&self) -> bool {
        let resume_at = self.resume_at.get();
        resume_at.is_some_and(|resume_at| Instant::now() < resume_at)
    }

    /// Waits for bytes, and then for the moment to read them. A client that sends nothing is idle, not paused. Calls `slowed` where
    /// an operator should hear of the pause.
    pub async fn wait(
        &self,
        client: &Stream,
        timer: &ConnectionTimer,
        slowed: impl FnOnce(),
    ) -> Result<(), StreamError> {
        client.readable().await?;
        let mut now = Instant::now();
        let resume_at = self.resume_at.take();
        if let Some(resume_at) = resume_at.filter(|resume_at| now < *resume_at) {
            let _paused = timer.pause();
            if self.permit.pause(now, resume_at) {
                slowed();
            }
            while now < resume_at {
                let look_at = resume_at.min(now + limits::PAUSE_LOOK_INTERVAL);
                monoio::time::sleep_until(look_at.into()).await;
                // Nothing reads during the pause, so nothing else would notice.
                if client.is_gone(timer.has_ended(Direction::Sent)) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
                now = Instant::now();
            }
        }
        Ok(())
    }
}
