//! Waiting on a worker for what another thread provides.
//! In: a future whose waker any thread may use. Out: its value. The runtime's own wakers must not leave their thread, so the
//! future gets another one, which wakes the worker through its mailbox.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

/// Tells the worker that what has this number can go on. Called on any thread.
type Ring = Arc<dyn Fn(u64) + Send + Sync>;

/// The tasks of a worker that wait for another thread.
pub struct Across {
    ring: Ring,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waker>>,
}

/// What the other thread wakes.
struct Bell {
    number: u64,
    ring: Ring,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        (self.ring)(self.number);
    }
}

/// Leaves nothing behind, whether it was waited for to the end or not.
struct Registration<'a> {
    across: &'a Across,
    number: u64,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.across.waiting.borrow_mut().remove(&self.number);
    }
}

impl Across {
    /// `ring` has `wake` called with the same number on the worker's own thread.
    pub fn new(ring: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Across {
            ring: Arc::new(ring),
            next: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// Waits for `future`, which another thread may wake.
    pub async fn wait<F: Future>(&self, future: F) -> F::Output {
        let number = self.next.get();
        self.next.set(number + 1);
        let ring = Arc::clone(&self.ring);
        let bell = Waker::from(Arc::new(Bell { number, ring }));
        let registration = Registration {
            across: self,
            number,
        };
        let mut future = pin!(future);
        let outcome = poll_fn(|context| {
            // Before the question: the answer may come while it is asked.
            let waker = context.waker().clone();
            self.waiting.borrow_mut().insert(number, waker);
            future.as_mut().poll(&mut Context::from_waker(&bell))
        });
        let outcome = outcome.await;
        drop(registration);
        outcome
    }

    /// Lets the task with this number go on, if it still waits.
    pub fn wake(&self, number: u64) {
        let waker = self.waiting.borrow_mut().remove(&number);
        waker.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::{mailbox, on_each_driver};

    #[test]
    fn what_another_thread_gives_back_is_had_by_the_task_that_waits_and_one_that_gave_up_takes_nothing()
     {
        on_each_driver(async || {
            let (mailbox, receiver) = mailbox().unwrap();
            let across = Rc::new(Across::new(move |number| mailbox.send(number)));
            let woken = Rc::clone(&across);
            monoio::spawn(receiver.receive(move |number| {
                woken.wake(number);
                true
            }));
            let slots = Arc::new(tokio::sync::Semaphore::new(1));
            let held = Arc::clone(&slots).try_acquire_owned().unwrap();
            let impatient = across.wait(slots.acquire());
            let waited = monoio::time::timeout(Duration::from_millis(1), impatient).await;
            assert!(waited.is_err() && across.waiting.borrow().is_empty());
            let other = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                drop(held);
            });
            let waiting = across.wait(slots.acquire());
            let had = monoio::time::timeout(Duration::from_secs(20), waiting).await;
            assert!(had.is_ok_and(|permit| permit.is_ok()));
            assert!(across.waiting.borrow().is_empty());
            other.join().unwrap();
        });
    }
}
