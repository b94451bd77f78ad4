//! The panic boundary around one connection.
//! In: a connection's future. Out: its value, or the text of its panic. Without it a panic would unwind through
//! the runtime and end the worker with all its connections.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs `future`; a panic inside it becomes `Err` with its message.
///
/// What the future shares with others (pool, registry, counters) must stay usable when it unwinds: all of it is
/// changed in single steps that do not panic halfway. Not an `async fn`, whose state would hold `future` twice.
pub fn catch_panic<F: Future>(future: F) -> impl Future<Output = Result<F::Output, String>> {
    AssertUnwindSafe(future)
        .catch_unwind()
        .map(|outcome| outcome.map_err(|panic| message(panic.as_ref())))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    #[test]
    fn a_panic_in_one_task_leaves_the_worker_running() {
        let value = block_on(|_| async {
            let failing = monoio::spawn(catch_panic(async { panic!("a broken connection") }));
            let outcome: Result<(), String> = failing.await;
            assert_eq!(outcome, Err("a broken connection".to_owned()));
            monoio::spawn(catch_panic(async { 7 })).await
        });
        assert_eq!(value.unwrap(), Ok(7));
    }
}
