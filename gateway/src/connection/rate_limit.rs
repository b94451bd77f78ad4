//! Slows one client down to what its identity may send.
//! In: bytes that were read. Out: a pause before the next read, while the client's bytes wait in the kernel and TCP tells it
//! to wait. One per connection, on its worker; what it counts by is shared with the identity's other connections.

use std::cell::Cell;
use std::io;
use std::time::Instant;

use gateway_core::limits;

use super::Share;
use super::{Direction, Stream, Watch};
use crate::tls::StreamError;

/// The pace of one connection.
#[derive(Debug)]
pub struct Pace {
    share: Share,
    resume_at: Cell<Option<Instant>>,
}

impl Pace {
    /// Paces a connection by its share. What the identity's other connections have used before counts: who comes back for
    /// every few bytes is no faster than who stays.
    pub fn new(share: Share) -> Self {
        let resume_at = Cell::new(share.charge(0));
        Pace { share, resume_at }
    }

    /// Notes what the client has sent, in bytes of data that cost as much.
    pub fn charge(&self, bytes: u64) {
        self.resume_at.set(self.share.charge(bytes));
    }

    /// Whether the next read has to wait.
    pub fn is_due(&self) -> bool {
        let resume_at = self.resume_at.get();
        resume_at.is_some_and(|resume_at| Instant::now() < resume_at)
    }

    /// Waits for bytes, and then for the moment to read them. A client that sends nothing is idle, not paused. `slowed` is
    /// called where an operator should hear of the pause.
    pub async fn wait(
        &self,
        client: &Stream,
        watch: &Watch,
        slowed: impl FnOnce(),
    ) -> Result<(), StreamError> {
        client.readable().await?;
        let mut now = Instant::now();
        let resume_at = self.resume_at.take();
        if let Some(resume_at) = resume_at.filter(|resume_at| now < *resume_at) {
            let _pausing = watch.pausing();
            if self.share.pause(now, resume_at) {
                slowed();
            }
            while now < resume_at {
                let look_at = resume_at.min(now + limits::PAUSE_LOOK_INTERVAL);
                monoio::time::sleep_until(look_at.into()).await;
                // Nobody reads, so nobody else would notice for as long as the pause lasts.
                if client.is_gone(watch.has_ended(Direction::Sent)) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
                now = Instant::now();
            }
        }
        Ok(())
    }
}
