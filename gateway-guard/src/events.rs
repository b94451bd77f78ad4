//! What the kernel programs tell of their own accord: bans that begin. In: their ring buffer. Out: events, each once. On
//! the control thread, which sleeps until there is one.
#![allow(unsafe_code, reason = "a descriptor is registered with the runtime")]

use std::io;

use aya::maps::{MapData, RingBuf};
use gateway_common::BanEvent;
use tokio::io::unix::AsyncFd;

/// The kernel's events.
pub struct Events(AsyncFd<RingBuf<MapData>>);

impl Events {
    /// Of this ring. On a thread with a tokio runtime.
    pub(super) fn of(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its map, and with it the descriptor, which is always the same one and is closed when
        // the ring is dropped: together with its registration, or after it.
        let registered = unsafe { AsyncFd::register(ring) };
        Ok(Self(registered?))
    }

    /// Waits for the next event. Dropped before it is ready, it loses none.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub async fn next(&mut self) -> io::Result<BanEvent> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let record = ready.get_inner_mut().next();
            let is_empty = record.is_none();
            // Records of other lengths would be those of another version's program.
            if let Some(event) = record.and_then(|record| BanEvent::read(&record)) {
                return Ok(event);
            }
            if is_empty {
                ready.clear_ready();
            }
        }
    }
}
