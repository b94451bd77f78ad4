//! Connections that have sent nothing yet. They hold no handshake slot, and their number is bounded: while all places are taken the
//! worker accepts no further connection, until one sends a byte, or one has been silent for longer than an honest client ever is.
//! The oldest of those makes room for the next. So clients that connect together, and are silent for a round trip, wait in the
//! kernel's queue; and connections that stay silent do not delay others for long.
//! In: connections, their first bytes, now. Out: which one has to go. One per worker and listener, nothing shared.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use gateway_core::limits;

/// The silent connections of one listener on one worker.
#[derive(Debug)]
pub(super) struct SilentConnections {
    max: usize,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// By their age, the oldest first.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    waker: Option<Waker>,
}

/// A silent connection's place; dropping it releases it.
#[derive(Debug)]
pub(super) struct SilentPlace {
    connections: Rc<SilentConnections>,
    number: u64,
}

impl SilentConnections {
    /// Room for `max` of them.
    pub(super) fn new(max: usize) -> Self {
        SilentConnections {
            max,
            inner: RefCell::default(),
        }
    }

    /// Whether there is room for one more: a place is free, or the oldest connection has had its time.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        let inner = self.inner.borrow();
        inner.waiting.len() < self.max || inner.is_oldest_due(now)
    }

    /// Takes a place, the oldest one's if all are taken and it has had its time.
    pub(super) fn enter(self: &Rc<Self>, now: Instant) -> SilentPlace {
        if self.inner.borrow().waiting.len() >= self.max {
            self.give_way(now);
        }
        let mut inner = self.inner.borrow_mut();
        inner.next += 1;
        let number = inner.next;
        let waiting = Waiting {
            since: now,
            waker: None,
        };
        inner.waiting.insert(number, waiting);
        SilentPlace {
            connections: Rc::clone(self),
            number,
        }
    }

    /// Takes the oldest connection's place from it, if it has had its time.
    pub(super) fn give_way(&self, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        if inner.is_oldest_due(now)
            && let Some((_, oldest)) = inner.waiting.pop_first()
        {
            oldest.waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Inner {
    fn is_oldest_due(&self, now: Instant) -> bool {
        let oldest = self.waiting.first_key_value();
        oldest.is_some_and(|(_, oldest)| now >= oldest.since + limits::SILENCE_GRACE)
    }
}

impl SilentPlace {
    /// Waits until another connection has taken the place.
    pub(super) fn lost(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            let mut inner = self.connections.inner.borrow_mut();
            match inner.waiting.get_mut(&self.number) {
                None => Poll::Ready(()),
                Some(waiting) => {
                    waiting.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for SilentPlace {
    fn drop(&mut self) {
        let mut inner = self.connections.inner.borrow_mut();
        inner.waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn is_lost(place: &SilentPlace) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_makes_room_when_it_has_had_its_time_and_those_who_spoke_have_left_theirs() {
        let now = Instant::now();
        let later = now + limits::SILENCE_GRACE;
        let all = Rc::new(SilentConnections::new(3));
        let [first, second, third] = [(); 3].map(|()| all.enter(now));
        assert!(!all.has_room(now));
        drop(second);
        assert!(all.has_room(now));
        let fourth = all.enter(later);
        assert!(![&first, &third, &fourth].into_iter().any(is_lost));
        assert!(all.has_room(later), "the first one has had its time");
        let fifth = all.enter(later);
        assert!(is_lost(&first) && ![&third, &fourth, &fifth].into_iter().any(is_lost));
        // Lost before it is dropped, and not once more.
        drop(first);
        assert_eq!(all.inner.borrow().waiting.len(), 3);
    }

    #[test]
    fn nobody_who_has_been_silent_for_a_moment_only_has_to_go() {
        let now = Instant::now();
        let moment = now + limits::SILENCE_GRACE / 2;
        let all = Rc::new(SilentConnections::new(1));
        let first = all.enter(now);
        assert!(!all.has_room(moment));
        all.give_way(moment);
        // Accepted all the same: it has a place, and no other loses one.
        let second = all.enter(moment);
        assert!(!is_lost(&first) && !is_lost(&second));
        all.give_way(now + limits::SILENCE_GRACE);
        assert!(is_lost(&first) && !is_lost(&second));
    }
}
