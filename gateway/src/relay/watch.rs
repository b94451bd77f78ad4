//! Watches one connection: how long nothing has moved, how old it is, and whether it has been ordered to end.
//! In: notes of writes, orders from the worker. Out: the reason to end it. One timer per connection, on its worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use std::pin::pin;

use super::End;
use crate::limits;

/// The order to end, at the first quiet moment and at the latest at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// When the connection goes even if bytes are moving.
    pub at_the_latest: Instant,
}

/// Orders to the connections of one worker, and the count of those connections.
#[derive(Debug, Default)]
pub struct Orders {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    order: Option<Order>,
    next: u64,
    wakers: HashMap<u64, Option<Waker>>,
    empty: Option<Waker>,
}

/// One connection's place in `Orders`; gives it back when dropped.
#[derive(Debug)]
pub struct Place {
    orders: Rc<Orders>,
    number: u64,
}

impl Orders {
    /// Takes a place for a new connection.
    pub fn register(self: &Rc<Self>) -> Place {
        let mut inner = self.inner.borrow_mut();
        inner.next += 1;
        let number = inner.next;
        inner.wakers.insert(number, None);
        Place {
            orders: Rc::clone(self),
            number,
        }
    }

    /// Connections that hold a place.
    pub fn open(&self) -> usize {
        self.inner.borrow().wakers.len()
    }

    /// Orders every connection, present and future, to end.
    pub fn give(&self, order: Order) {
        let mut inner = self.inner.borrow_mut();
        inner.order = Some(order);
        inner
            .wakers
            .values_mut()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }

    /// Waits until no connection holds a place.
    pub async fn until_empty(&self) {
        poll_fn(|context| {
            let mut inner = self.inner.borrow_mut();
            if inner.wakers.is_empty() {
                return Poll::Ready(());
            }
            inner.empty = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Place {
    /// Waits for an order.
    async fn ordered(&self) -> Order {
        poll_fn(|context| {
            let mut inner = self.orders.inner.borrow_mut();
            if let Some(order) = inner.order {
                return Poll::Ready(order);
            }
            inner
                .wakers
                .insert(self.number, Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.orders.inner.borrow_mut();
        inner.wakers.remove(&self.number);
        if inner.wakers.is_empty()
            && let Some(waker) = inner.empty.take()
        {
            waker.wake();
        }
    }
}

/// What one connection is watched for.
#[derive(Debug)]
pub struct Watch {
    place: Place,
    idle_timeout: Duration,
    aged_at: Option<Instant>,
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
    /// Watches a connection that has just been established and that is to go at `aged_at`.
    pub fn new(place: Place, idle_timeout: Duration, aged_at: Option<Instant>) -> Self {
        let last_moved = Cell::new(Instant::now());
        Watch {
            place,
            idle_timeout,
            aged_at,
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
        loop {
            let idle_at = self.last_moved.get() + self.idle_timeout;
            let wake_at = self.aged_at.map_or(idle_at, |aged_at| aged_at.min(idle_at));
            let timer = monoio::time::sleep_until(wake_at.into());
            if let Either::Left((order, _)) = select(pin!(self.place.ordered()), pin!(timer)).await
            {
                self.until_quiet(order.at_the_latest).await;
                return End::Drained;
            }
            let now = Instant::now();
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
