//! Waiting for an outcome: tests assert what happens, never how long it takes.
//! In: a check. Out: what it found, or a panic that says what never happened.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: it only bounds a failure.
pub const PATIENCE: Duration = Duration::from_secs(40);

const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to see.
///
/// # Panics
///
/// When nothing was seen for `PATIENCE`.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_named(|| what.to_owned(), look)
}

/// Like `eventually`, where the panic can say what was there instead.
pub(crate) fn eventually_named<T>(
    what: impl Fn() -> String,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never happened: {}", what());
        thread::sleep(PAUSE);
    }
}
