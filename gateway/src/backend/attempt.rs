//! An attempt at a server that runs to its end even if it is abandoned: no client waits for it any more.
//! In: what to do. Out: its outcome, to the client that waits or to a handler. On the worker. What an attempt finds out about
//! a server is worth knowing also when its client has gone, or has found another server.
//!
//! Each is a task from its beginning: the runtime's timers go on waking the task that asked first, so a future that waits
//! for one cannot be handed to another task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use gateway_rt::catch_panic;

/// Takes the outcome of an abandoned attempt.
type AbandonedHandler<T> = Box<dyn FnOnce(T)>;

/// An attempt under way.
pub struct Attempt<T: 'static>(Rc<AttemptState<T>>);

struct AttemptState<T> {
    outcome: Cell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    is_awaited: Cell<bool>,
    on_abandoned: Cell<Option<AbandonedHandler<T>>>,
}

impl<T> AttemptState<T> {
    fn abandon(&self, outcome: T) {
        if let Some(handle) = self.on_abandoned.take() {
            handle(outcome);
        }
    }
}

impl<T> Attempt<T> {
    /// Begins it. If it is abandoned, `on_abandoned` gets its outcome. That is `panicked` where the work panics.
    pub fn begin(
        work: impl Future<Output = T> + 'static,
        panicked: impl FnOnce() -> T + 'static,
        on_abandoned: impl FnOnce(T) + 'static,
    ) -> Self {
        let shared = Rc::new(AttemptState {
            outcome: Cell::new(None),
            waker: RefCell::new(None),
            is_awaited: Cell::new(true),
            on_abandoned: Cell::new(Some(Box::new(on_abandoned))),
        });
        let ending = Rc::clone(&shared);
        monoio::spawn(async move {
            // A panic ends this attempt and nothing else.
            let outcome = catch_panic(work).await.unwrap_or_else(|message| {
                tracing::error!(
                    panic = message,
                    "an attempt to reach a server panicked; please report this"
                );
                panicked()
            });
            if !ending.is_awaited.get() {
                return ending.abandon(outcome);
            }
            ending.outcome.set(Some(outcome));
            ending.waker.take().into_iter().for_each(Waker::wake);
        });
        Attempt(shared)
    }

    fn poll(&self, context: &Context<'_>) -> Poll<T> {
        if let Some(outcome) = self.0.outcome.take() {
            return Poll::Ready(outcome);
        }
        self.0.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl<T: 'static> Drop for Attempt<T> {
    fn drop(&mut self) {
        self.0.is_awaited.set(false);
        if let Some(outcome) = self.0.outcome.take() {
            self.0.abandon(outcome);
        }
    }
}

/// Waits for the first of `attempts` that comes to an end, and takes it out. Waits for ever if there are none.
pub async fn first_of<T>(attempts: &mut Vec<Attempt<T>>) -> T {
    poll_fn(|context| {
        for position in 0..attempts.len() {
            if let Poll::Ready(outcome) = attempts[position].poll(context) {
                attempts.swap_remove(position);
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use gateway_rt::on_each_driver;

    #[test]
    fn an_abandoned_attempt_comes_to_its_end_and_is_noted() {
        on_each_driver(async || {
            let noted = Rc::new(Cell::new(0));
            let note = |noted: &Rc<Cell<u32>>| {
                let noted = Rc::clone(noted);
                move |found| noted.set(noted.get() + found)
            };
            let slow = async {
                monoio::time::sleep(Duration::from_millis(30)).await;
                7
            };
            let mut attempts = vec![
                Attempt::begin(slow, || 0, note(&noted)),
                Attempt::begin(async { 1 }, || 0, note(&noted)),
            ];
            assert_eq!(first_of(&mut attempts).await, 1);
            drop(attempts);
            monoio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(noted.get(), 7, "only the abandoned one");
        });
    }

    #[test]
    fn an_attempt_that_panics_ends_nothing_else_and_is_waited_for_no_longer() {
        on_each_driver(async || {
            let broken = || Attempt::begin(async { panic!("a broken attempt") }, || 0, |_: u32| {});
            let mut attempts = vec![broken()];
            assert_eq!(first_of(&mut attempts).await, 0);
            let slow = async {
                monoio::time::sleep(Duration::from_millis(30)).await;
                1
            };
            let mut attempts = vec![broken(), Attempt::begin(slow, || 0, |_| {})];
            assert_eq!(first_of(&mut attempts).await, 0);
            assert_eq!(first_of(&mut attempts).await, 1);
        });
    }
}
