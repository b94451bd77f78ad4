//! Durations in buckets, counted on one worker.
//! In: durations. Out: numbers that another thread may read at any time. Counting costs a search in a short table, and nothing
//! is allocated.

use std::time::Duration;

use super::counters::Counter;

/// A histogram of `N` buckets and one more, which takes the rest.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    /// Upper bounds in seconds.
    bounds: &'static [f64; N],
    buckets: [Counter; N],
    rest: Counter,
    sum_nanoseconds: Counter,
}

/// What the histograms of all workers have counted together.
#[derive(Debug, Default, PartialEq)]
pub(super) struct HistogramSum {
    /// Upper bounds in seconds, and how many were between one and the one before.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) seconds: f64,
    pub(super) count: u64,
}

impl<const N: usize> Histogram<N> {
    /// An empty one with these upper bounds in seconds, from the lowest to the highest.
    pub(super) fn new(bounds: &'static [f64; N]) -> Self {
        Histogram {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            rest: Counter::default(),
            sum_nanoseconds: Counter::default(),
        }
    }

    /// Counts a duration.
    pub(super) fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets.get(bucket).unwrap_or(&self.rest).add(1);
        self.sum_nanoseconds.add(took.as_nanos() as u64);
    }

    /// Adds up what several have counted.
    pub(super) fn sum<'h>(histograms: impl Iterator<Item = &'h Self>) -> HistogramSum {
        let mut sum = HistogramSum::default();
        for histogram in histograms {
            let bounds = histogram.bounds.iter().chain([&f64::INFINITY]);
            sum.buckets
                .extend(bounds.skip(sum.buckets.len()).map(|bound| (*bound, 0)));
            let counts = histogram.buckets.iter().chain([&histogram.rest]);
            for (total, counter) in sum.buckets.iter_mut().zip(counts) {
                let count = counter.value();
                total.1 += count;
                sum.count += count;
            }
            sum.seconds += histogram.sum_nanoseconds.value() as f64 / 1e9;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 2] = [0.1, 1.0];

    #[test]
    fn each_duration_is_in_the_first_bucket_that_reaches_it_and_workers_add_up() {
        let [one, two] = [(); 2].map(|()| Histogram::new(&BOUNDS));
        for milliseconds in [0, 100, 101] {
            one.record(Duration::from_millis(milliseconds));
        }
        for milliseconds in [1000, 1001, 60_000] {
            two.record(Duration::from_millis(milliseconds));
        }
        let sum = Histogram::sum([&one, &two].into_iter());
        assert_eq!(sum.buckets, [(0.1, 2), (1.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(sum.count, 6);
        assert!((sum.seconds - 62.202).abs() < 1e-6, "{sum:?}");
    }
}
