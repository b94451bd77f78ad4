//! Watches one connection: how long nothing has moved, how old it is, and whether it has been ordered to end.
//! In: notes of writes, orders from the worker. Out: the reason to end it. One timer per connection, on its worker.

use std::cell::Cell;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};

use super::End;
use super::orders::{Order, Place};
use crate::limits;

/// What one connection is watched for.
#[derive(Debug)]
pub struct Watch {
    place: Place,
    idle_timeout: Duration,
    aged_at: Option<Instant>,
    expires_at: Instant,
    last_moved: Cell<Instant>,
    writes: Cell<u32>,
}

/// A write that is under way; ends when dropped.
#[derive(Debug)]
pub struct Writing<'a>(&'a Watch);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writes.set(self.0.writes.get() - 1);
        self.0.last_moved.set(Instant::now());
    }
}

impl Watch {
    /// Watches a connection that has just been established, that is to go at `aged_at`, and whose client has proven
    /// something until `expires_at`.
    pub fn new(
        place: Place,
        idle_timeout: Duration,
        aged_at: Option<Instant>,
        expires_at: Instant,
    ) -> Self {
        let last_moved = Cell::new(Instant::now());
        Watch {
            place,
            idle_timeout,
            aged_at,
            expires_at,
            last_moved,
            writes: Cell::new(0),
        }
    }

    /// Notes that bytes arrived and are being written.
    pub fn writing(&self) -> Writing<'_> {
        self.writes.set(self.writes.get() + 1);
        self.last_moved.set(Instant::now());
        Writing(self)
    }

    /// Whether bytes are being written in either direction.
    pub fn is_writing(&self) -> bool {
        self.writes.get() > 0
    }

    /// Waits until the connection has to end.
    pub async fn until_end(&self) -> End {
        let mut order: Option<Order> = None;
        loop {
            let idle_at = self.last_moved.get() + self.idle_timeout;
            let aged_at = self.aged_at.unwrap_or(idle_at);
            let ordered_at = order.map_or(idle_at, |order| order.from);
            let wake_at = idle_at.min(self.expires_at).min(aged_at).min(ordered_at);
            let timer = monoio::time::sleep_until(wake_at.into());
            let ordered = self.place.ordered(order);
            if let Either::Left((given, _)) = select(pin!(ordered), pin!(timer)).await {
                order = Some(given);
                continue;
            }
            let now = Instant::now();
            if now >= self.expires_at {
                return End::Expired;
            }
            if let Some(order) = order.filter(|order| now >= order.from) {
                self.until_quiet(order.at_the_latest).await;
                return order.reason;
            }
            if self.aged_at.is_some_and(|aged_at| now >= aged_at) {
                self.until_quiet(now + limits::AGE_GRACE).await;
                return End::Age;
            }
            if now >= self.last_moved.get() + self.idle_timeout {
                return End::Idle;
            }
        }
    }

    /// Waits until nothing has moved for a moment, and not beyond `at_the_latest`.
    async fn until_quiet(&self, at_the_latest: Instant) {
        loop {
            let now = Instant::now();
            let quiet_at = self.last_moved.get() + limits::QUIET_PERIOD;
            if now >= at_the_latest || (now >= quiet_at && !self.is_writing()) {
                return;
            }
            let wake_at = quiet_at
                .max(now + Duration::from_millis(1))
                .min(at_the_latest);
            monoio::time::sleep_until(wake_at.into()).await;
        }
    }
}
