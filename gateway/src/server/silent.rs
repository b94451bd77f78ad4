//! Connections that have sent nothing yet. They hold no handshake slot, and their number is bounded: the one that has been silent
//! for the longest makes room for the next. A client that means it sends its first bytes within a round trip, so whoever wants to
//! keep it out has to come up with as many connections in that time.
//! In: connections that come and speak. Out: which one has to go. One per worker and listener, nothing shared.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

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
    waiting: BTreeMap<u64, Option<Waker>>,
}

/// A silent connection's place; given back when dropped.
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

    /// Takes a place, the oldest one's if all are taken.
    pub(super) fn enter(self: &Rc<Self>) -> SilentPlace {
        let mut inner = self.inner.borrow_mut();
        if inner.waiting.len() >= self.max
            && let Some((_, waker)) = inner.waiting.pop_first()
        {
            waker.into_iter().for_each(Waker::wake);
        }
        inner.next += 1;
        let number = inner.next;
        inner.waiting.insert(number, None);
        SilentPlace {
            connections: Rc::clone(self),
            number,
        }
    }
}

impl SilentPlace {
    /// Waits until another connection has taken the place.
    pub(super) fn lost(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            match self
                .connections
                .inner
                .borrow_mut()
                .waiting
                .get_mut(&self.number)
            {
                None => Poll::Ready(()),
                Some(waker) => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for SilentPlace {
    fn drop(&mut self) {
        self.connections
            .inner
            .borrow_mut()
            .waiting
            .remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_oldest_makes_room_and_those_who_spoke_have_left_theirs() {
        let all = Rc::new(SilentConnections::new(3));
        let [first, second, third] = [(); 3].map(|()| all.enter());
        drop(second);
        let fourth = all.enter();
        let is_lost = |place: &SilentPlace| place.lost().now_or_never().is_some();
        assert!(![&first, &third, &fourth].into_iter().any(is_lost));
        let fifth = all.enter();
        assert!(is_lost(&first) && ![&third, &fourth, &fifth].into_iter().any(is_lost));
        // Lost before it is dropped, and not once more.
        drop(first);
        assert_eq!(all.inner.borrow().waiting.len(), 3);
    }
}
