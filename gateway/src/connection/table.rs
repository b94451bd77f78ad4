//! Orders to end, from a worker to its connections.
//! In: what a connection is and who its client is. Out: the reason and the time to end, once there is one. Also counts the
//! connections, so that a drain knows when all are gone, and wakes each at the time it asks for: one timer for all, because one of
//! the runtime's own takes three quarters of a kibibyte. One per worker, nothing shared.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::select;
use gateway_core::certificate::Chain;
use gateway_core::close_reason::CloseReason;

use crate::tls::VerifiedPeer;

/// The order to end: from one instant on at the first quiet moment, and at another in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Why.
    pub reason: CloseReason,
    /// When the connection starts to look for a quiet moment.
    pub from: Instant,
    /// When it goes even if bytes are moving.
    pub at_the_latest: Instant,
    /// When the change came about that it goes for, if it does.
    pub changed_at: Option<Instant>,
}

/// A server that is connected over TLS.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Position of its backend. The listener may have got another one since.
    pub backend: usize,
    /// Its verified chain.
    pub chain: Chain,
}

/// Where a client stands that has got in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Position of its listener.
    pub position: usize,
    /// No byte of it has been passed on yet: it is judged like one that comes now.
    pub is_new: bool,
}

/// The connections of one worker, and the orders to them.
#[derive(Debug, Default)]
pub struct Orders {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    to_all: Option<Order>,
    next: u64,
    entries: HashMap<u64, Entry>,
    empty: Option<Waker>,
    /// When connections want to be woken, by their numbers.
    due: BTreeSet<(Instant, u64)>,
    /// Somebody sees to it that they are.
    is_kept: bool,
    keeper: Option<Waker>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Position of the listener and the client, once it has got in.
    established: Option<(usize, VerifiedPeer)>,
    /// Bytes have been passed on.
    has_begun: bool,
    /// The server behind it, once that is connected over TLS.
    server: Option<Box<Reached>>,
    /// Boxed: hardly anybody has one.
    order: Option<Box<Order>>,
    /// When the connection wants to see whether what it has sent has arrived.
    look_at: Option<Instant>,
    wake_at: Option<Instant>,
    waker: Option<Waker>,
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
        let order = inner.to_all;
        inner.entries.insert(
            number,
            Entry {
                order: order.map(Box::new),
                ..Entry::default()
            },
        );
        Place {
            orders: Rc::clone(self),
            number,
        }
    }

    /// Connections that hold a place.
    pub fn open(&self) -> usize {
        self.inner.borrow().entries.len()
    }

    /// Orders every connection to end. Those that are there begin to look for their quiet moment at moments of their own, which
    /// `delay` draws; those that come later do at once.
    pub fn give_to_all(&self, order: Order, mut delay: impl FnMut() -> Duration) {
        let mut inner = self.inner.borrow_mut();
        inner.to_all = Some(order);
        for entry in inner.entries.values_mut() {
            let from = (order.from + delay()).min(order.at_the_latest);
            entry.give(Order { from, ..order });
        }
    }

    /// Asks `judge` about every client that has got in, and the server behind it: gives its order, or takes an earlier one back where the client
    /// may stay after all. Returns how many got a new order.
    pub fn judge(
        &self,
        mut judge: impl FnMut(Judged, &VerifiedPeer, Option<&Reached>) -> Option<Order>,
    ) -> usize {
        let mut inner = self.inner.borrow_mut();
        let to_all = inner.to_all;
        let mut ordered = 0;
        for entry in inner.entries.values_mut() {
            let Some((position, peer)) = &entry.established else {
                continue;
            };
            let judged = Judged {
                position: *position,
                is_new: !entry.has_begun,
            };
            let judgement = judge(judged, peer, entry.server.as_deref());
            ordered += usize::from(entry.take(judgement, to_all));
        }
        ordered
    }

    /// Shows every client that has got in, with the position of its listener and the server behind it.
    pub fn for_each(&self, mut show: impl FnMut(usize, &VerifiedPeer, Option<&Reached>)) {
        let inner = self.inner.borrow();
        for entry in inner.entries.values() {
            if let Some((position, peer)) = &entry.established {
                show(*position, peer, entry.server.as_deref());
            }
        }
    }

    /// Waits until no connection holds a place.
    pub async fn until_empty(&self) {
        poll_fn(|context| {
            let mut inner = self.inner.borrow_mut();
            if inner.entries.is_empty() {
                return Poll::Ready(());
            }
            inner.empty = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Entry {
    fn order(&self) -> Option<Order> {
        self.order.as_deref().copied()
    }

    /// Takes the outcome of a judgement; an order that it takes back leaves the one `to_all`. Returns whether there is a new one.
    fn take(&mut self, judgement: Option<Order>, to_all: Option<Order>) -> bool {
        let known = self.order().map(|order| order.reason);
        match judgement {
            // Drawn anew at each reload, the earliest of many random moments would count.
            Some(order) if known == Some(order.reason) => false,
            Some(order) => {
                self.give(order);
                true
            }
            None if known.is_some_and(CloseReason::is_loss_of_trust) => {
                self.order = to_all.map(Box::new);
                self.waker.take().into_iter().for_each(Waker::wake);
                false
            }
            None => false,
        }
    }

    /// Of several orders the one that ends the connection first counts.
    fn give(&mut self, order: Order) {
        if self
            .order()
            .is_none_or(|known| order.at_the_latest < known.at_the_latest)
        {
            self.order = Some(Box::new(order));
            self.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Place {
    /// Number of the connection on this worker; no other gets it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Says who the client is, so that it can be judged again.
    pub fn establish(&self, position: usize, peer: VerifiedPeer) {
        if let Some(entry) = self.orders.inner.borrow_mut().entries.get_mut(&self.number) {
            entry.established = Some((position, peer));
        }
    }

    /// Says that bytes are passed on.
    pub(super) fn begin(&self) {
        if let Some(entry) = self.orders.inner.borrow_mut().entries.get_mut(&self.number) {
            entry.has_begun = true;
        }
    }

    /// Says which server is behind the client, so that it can be judged again.
    pub(super) fn reach(&self, server: Reached) {
        if let Some(entry) = self.orders.inner.borrow_mut().entries.get_mut(&self.number) {
            entry.server = Some(Box::new(server));
        }
    }

    /// Wakes `ordered` at this time too, and from then on, until another time is set or none.
    pub(super) fn look_at(&self, at: Option<Instant>) {
        let mut inner = self.orders.inner.borrow_mut();
        let Some(entry) = inner.entries.get_mut(&self.number) else {
            return;
        };
        entry.look_at = at;
        let is_earlier = |at: &Instant| entry.wake_at.is_some_and(|wake_at| *at < wake_at);
        if let Some(at) = at.filter(is_earlier) {
            inner.wake_at(self.number, at);
        }
    }

    /// Whether the time to look has come.
    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        let inner = self.orders.inner.borrow();
        let look_at = inner
            .entries
            .get(&self.number)
            .and_then(|entry| entry.look_at);
        look_at.is_some_and(|look_at| now >= look_at)
    }

    /// Gives this connection an order.
    pub fn give(&self, order: Order) {
        if let Some(entry) = self.orders.inner.borrow_mut().entries.get_mut(&self.number) {
            entry.give(order);
        }
    }

    /// Waits until the order is another than `known`, or is taken back; `None` when it is `wake_at` before that.
    pub(super) fn ordered(
        &self,
        known: &Option<Order>,
        wake_at: Instant,
    ) -> impl Future<Output = Option<Option<Order>>> {
        poll_fn(move |context| {
            let mut inner = self.orders.inner.borrow_mut();
            let entry = inner.entries.entry(self.number).or_default();
            if entry.order() != *known {
                return Poll::Ready(Some(entry.order()));
            }
            let wake_at = entry
                .look_at
                .map_or(wake_at, |look_at| wake_at.min(look_at));
            if Instant::now() >= wake_at {
                return Poll::Ready(None);
            }
            entry.waker = Some(context.waker().clone());
            inner.wake_at(self.number, wake_at);
            if !inner.is_kept {
                inner.is_kept = true;
                monoio::spawn(keep_time(Rc::downgrade(&self.orders)));
            }
            Poll::Pending
        })
    }
}

impl Inner {
    /// Notes when a connection wants to be woken, instead of when it wanted before.
    fn wake_at(&mut self, number: u64, at: Instant) {
        let entry = self.entries.entry(number).or_default();
        let before = entry.wake_at.replace(at);
        if before == Some(at) {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, number));
        }
        self.due.insert((at, number));
        if self.due.first() == Some(&(at, number)) {
            self.keeper.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Wakes every connection whose time has come.
    fn wake_due(&mut self, now: Instant) {
        while let Some((at, number)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, number));
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.wake_at = None;
                entry.waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }
}

/// Wakes the connections at their times, until none wants to be woken any more.
async fn keep_time(orders: Weak<Orders>) {
    loop {
        let Some(earliest) = earliest(&orders) else {
            return;
        };
        let earlier = poll_fn(|context| {
            let Some(orders) = orders.upgrade() else {
                return Poll::Ready(());
            };
            let mut inner = orders.inner.borrow_mut();
            if inner.due.first().is_some_and(|(at, _)| *at < earliest) {
                return Poll::Ready(());
            }
            inner.keeper = Some(context.waker().clone());
            Poll::Pending
        });
        select(
            pin!(earlier),
            pin!(monoio::time::sleep_until(earliest.into())),
        )
        .await;
        if let Some(orders) = orders.upgrade() {
            orders.inner.borrow_mut().wake_due(Instant::now());
        }
    }
}

/// The next time at which somebody wants to be woken. `None` ends the keeping; whoever comes then begins it anew.
fn earliest(orders: &Weak<Orders>) -> Option<Instant> {
    let orders = orders.upgrade()?;
    let mut inner = orders.inner.borrow_mut();
    let earliest = inner.due.first().map(|(at, _)| *at);
    inner.is_kept = earliest.is_some();
    earliest
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.orders.inner.borrow_mut();
        let entry = inner.entries.remove(&self.number);
        if let Some(at) = entry.and_then(|entry| entry.wake_at) {
            inner.due.remove(&(at, self.number));
        }
        if inner.entries.is_empty() {
            inner.empty.take().into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(reason: CloseReason, wait_seconds: u64) -> Order {
        let now = Instant::now();
        Order {
            reason,
            from: now,
            at_the_latest: now + Duration::from_secs(wait_seconds),
            changed_at: None,
        }
    }

    fn order_of(place: &Place) -> Option<Order> {
        place.orders.inner.borrow().entries[&place.number].order()
    }

    #[test]
    fn of_several_orders_the_one_that_ends_first_counts_whichever_came_first() {
        let (soon, late) = (
            order(CloseReason::Revoked, 1),
            order(CloseReason::Untrusted, 2),
        );
        for given in [[soon, late], [late, soon]] {
            let place = Rc::new(Orders::default()).register();
            given.into_iter().for_each(|order| place.give(order));
            assert_eq!(order_of(&place), Some(soon));
        }
    }

    #[test]
    fn every_connection_is_woken_at_its_own_time_and_those_that_are_gone_are_forgotten() {
        let all = Rc::new(Orders::default());
        let woken = gateway_rt::block_on(|_| {
            let all = Rc::clone(&all);
            async move {
                let begin = Instant::now();
                let wait = |milliseconds| {
                    let place = all.register();
                    monoio::spawn(async move {
                        let at = begin + Duration::from_millis(milliseconds);
                        let order = place.ordered(&None, at).await;
                        (order, Instant::now() >= at)
                    })
                };
                // The second is due before the first, the third long after the test.
                let waiting = [wait(60), wait(30), wait(30)];
                let long = wait(3_600_000);
                let mut woken = Vec::new();
                for waiting in waiting {
                    woken.push(waiting.await);
                }
                // Nobody else is left but the one who waits for an hour: an order still gets through.
                let order = order(CloseReason::Drained, 1);
                all.give_to_all(order, || Duration::ZERO);
                assert_eq!(long.await, (Some(Some(order)), false));
                woken
            }
        });
        assert_eq!(woken.unwrap(), [(None, true); 3]);
        let inner = all.inner.borrow();
        assert!(inner.due.is_empty() && inner.entries.is_empty());
    }

    #[test]
    fn an_order_to_all_is_given_to_those_who_come_later_too() {
        let all = Rc::new(Orders::default());
        let before = all.register();
        let drained = order(CloseReason::Drained, 1);
        let delay = Duration::from_millis(300);
        all.give_to_all(drained, || delay);
        let delayed = Order {
            from: drained.from + delay,
            ..drained
        };
        assert_eq!(order_of(&before), Some(delayed));
        assert_eq!(order_of(&all.register()), Some(drained));
    }

    #[test]
    fn a_judgement_repeated_keeps_its_moment_and_one_taken_back_leaves_what_holds_for_all() {
        let mut entry = Entry::default();
        let (first, earlier) = (
            order(CloseReason::Untrusted, 9),
            order(CloseReason::Untrusted, 5),
        );
        assert!(entry.take(Some(first), None));
        assert!(!entry.take(Some(earlier), None));
        assert_eq!(entry.order(), Some(first));
        let revoked = order(CloseReason::Revoked, 0);
        assert!(entry.take(Some(revoked), None));
        assert_eq!(entry.order(), Some(revoked));
        let drained = order(CloseReason::Drained, 1);
        assert!(!entry.take(None, Some(drained)));
        assert_eq!(entry.order(), Some(drained));
        assert!(!entry.take(None, None), "a drain is no judgement");
        assert_eq!(entry.order(), Some(drained));
    }
}
