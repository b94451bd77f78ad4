//! The progress bar on standard error, when that is a terminal.
//! In: counts that the connections publish. Drawn by the main thread; the load itself never waits for it.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Counts shared by all threads, for the eye only; the report is made from the tallies.
#[derive(Debug, Default)]
pub(crate) struct ProgressCounts {
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// A bar over the span of the run.
pub(crate) struct Bar {
    bar: ProgressBar,
    span: Duration,
}

impl Bar {
    /// A bar for a run of at most `span`; invisible when standard error is not a terminal.
    pub(crate) fn new(wanted: bool, span: Duration) -> Self {
        let bar = ProgressBar::new(span.as_millis() as u64);
        bar.set_draw_target(if wanted && stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        bar.set_style(
            ProgressStyle::with_template("{spinner} [{elapsed}] {wide_bar} {msg}")
                .expect("the template is a constant that indicatif accepts"),
        );
        Self { bar, span }
    }

    /// Shows how many of `total` connections are ready.
    pub(crate) fn preparing(&self, ready: usize, total: usize) {
        self.bar.set_message(format!("ready {ready} of {total}"));
    }

    /// Shows the state of the run since `start`.
    pub(crate) fn working(&self, start: Instant, counts: &ProgressCounts) {
        let elapsed = start.elapsed();
        let completed = counts.completed.load(Ordering::Relaxed);
        let failed = counts.failed.load(Ordering::Relaxed);
        self.bar
            .set_position(elapsed.min(self.span).as_millis() as u64);
        self.bar.set_message(format!(
            "{completed} done, {failed} failed, {:.0}/s",
            completed as f64 / elapsed.as_secs_f64().max(0.001)
        ));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
