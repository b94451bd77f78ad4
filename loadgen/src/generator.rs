//! Whether the generator's own figures can be trusted: how busy its threads were, and how late.
//! In: the kernel's accounts of each thread (/proc), wake-ups that should be punctual. Out: `Generator`, with its
//! doubts.
//!
//! A generator that is short of CPU measures itself: replies wait in its sockets, and turns start late. Two things show
//! it, each without the other. A thread that runs, or waits for a CPU, nearly all the time has nothing to spare. And
//! a wake-up on each thread that is due every few milliseconds tells how long a reply had to wait to be read.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limits::LAG_INTERVAL;
use crate::report::{Latency, Quantity};
use crate::tally::{histogram, record};
use crate::timer::Timer;

/// From this share of the time on a thread has nothing left to give.
const BUSY_MAX: f64 = 0.9;

/// The share of the time that a thread may wait for a CPU before another process is to blame.
const WAITING_MAX: f64 = 0.2;

/// Later than this share of the latency at the same quantile, lag distorts what is measured.
const LAG_SHARE_MAX: f64 = 0.25;

/// What any program may take to wake up.
const LAG_ALWAYS_US: f64 = 200.0;

/// The generator's account of itself.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// CPU time of the whole process for each unit; null when no unit completed, and for idle connections.
    pub cpu_per_unit: Option<Quantity>,
    /// Each thread of the load; empty where the kernel does not say.
    pub threads: Vec<ThreadUse>,
    /// Share of the time that the busiest of them ran or waited for a CPU; null where the kernel does not say.
    pub busiest_thread_ratio: Option<f64>,
    /// How late the threads were to notice that something had happened.
    pub lag: Option<Latency>,
    /// Why the figures cannot be trusted.
    pub doubts: Vec<String>,
    /// Whether there are no doubts.
    pub is_trustworthy: bool,
}

/// What one thread did with its time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ThreadUse {
    /// Share of the time that it ran.
    pub running_ratio: f64,
    /// Share of the time that it could have run, and another had the CPU.
    pub waiting_ratio: f64,
}

/// What a thread had spent at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    running: Duration,
    waiting: Duration,
}

/// Reads what each of these threads has spent; `None` where the kernel does not say.
pub(crate) fn spent(threads: &[i32]) -> Option<Vec<Spent>> {
    let read = |thread: &i32| {
        let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
        parse(&text)
    };
    threads.iter().map(read).collect()
}

/// Time on a CPU and time waiting for one, in nanoseconds: the first two fields, see the kernel's sched-stats.rst.
fn parse(text: &str) -> Option<Spent> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = || Some(Duration::from_nanos(fields.next()?.parse().ok()?));
    Some(Spent {
        running: next()?,
        waiting: next()?,
    })
}

/// Wakes up on a schedule that begins at `start`, and notes how late each time. It never returns: drop it.
pub(crate) async fn watch_lag(start: Instant, lag: &mut Histogram<u64>) -> Result<()> {
    let timer = Timer::new()?;
    let mut due = start;
    loop {
        due += LAG_INTERVAL;
        // What is long past is noted one by one: a thread that stood still for a second was late for a whole second.
        timer.sleep_until(due).await?;
        record(lag, due.elapsed());
    }
}

/// An empty account of lag.
pub(crate) fn no_lag() -> Histogram<u64> {
    histogram(2)
}

/// What was measured of the generator.
pub(crate) struct Account<'a> {
    pub(crate) elapsed: Duration,
    pub(crate) cpu_per_unit: Option<Quantity>,
    /// Each thread at the start and at the end of the work.
    pub(crate) threads: Option<(&'a [Spent], &'a [Spent])>,
    pub(crate) lag: Option<Latency>,
    /// Of the units of work.
    pub(crate) latency: Option<Latency>,
}

impl Generator {
    pub(crate) fn new(account: &Account<'_>) -> Self {
        let threads = account.thread_uses();
        let busiest = threads
            .iter()
            .map(|thread| thread.running_ratio + thread.waiting_ratio)
            .reduce(f64::max);
        let doubts = doubts(&threads, account.lag, account.latency);
        Self {
            cpu_per_unit: account.cpu_per_unit,
            threads,
            busiest_thread_ratio: busiest,
            lag: account.lag,
            is_trustworthy: doubts.is_empty(),
            doubts,
        }
    }
}

impl Account<'_> {
    fn thread_uses(&self) -> Vec<ThreadUse> {
        let Some((start, end)) = self.threads else {
            return Vec::new();
        };
        let ratio = |from: Duration, to: Duration| {
            to.saturating_sub(from).as_secs_f64() / self.elapsed.as_secs_f64().max(f64::EPSILON)
        };
        start
            .iter()
            .zip(end)
            .map(|(start, end)| ThreadUse {
                running_ratio: ratio(start.running, end.running),
                waiting_ratio: ratio(start.waiting, end.waiting),
            })
            .collect()
    }
}

fn doubts(threads: &[ThreadUse], lag: Option<Latency>, latency: Option<Latency>) -> Vec<String> {
    let mut doubts = Vec::new();
    let percent = |ratio: f64| format!("{:.0} %", 100.0 * ratio);
    if threads.is_empty() {
        doubts.push("the kernel does not say how busy its threads were".to_owned());
    }
    let waiting = threads
        .iter()
        .map(|thread| thread.waiting_ratio)
        .fold(0.0, f64::max);
    if waiting >= WAITING_MAX {
        // Threads that have nothing to spare, and replies that lie unread, follow from that.
        doubts.push(format!(
            "a thread waited for a CPU {} of the time: others run where it does; see taskset(1)",
            percent(waiting)
        ));
        return doubts;
    }
    let full = |thread: &ThreadUse| thread.running_ratio + thread.waiting_ratio;
    let busiest = threads.iter().map(full).fold(0.0, f64::max);
    if busiest >= BUSY_MAX {
        doubts.push(format!(
            "a thread had nothing to spare ({} of the time): the rate is what the generator could do; more --threads on more \
             CPUs, or a lower --rate",
            percent(busiest)
        ));
    }
    if let (Some(lag), Some(latency)) = (lag, latency) {
        let quantiles = [
            ("median", lag.p50_us, latency.p50_us),
            ("p99", lag.p99_us, latency.p99_us),
        ];
        let late = quantiles
            .into_iter()
            .find(|(_, lag, latency)| *lag > LAG_ALWAYS_US && *lag > LAG_SHARE_MAX * latency);
        if let Some((name, lag, latency)) = late {
            doubts.push(format!(
                "replies waited {lag:.0} us ({name}) to be read, and the {name} of the latency is {latency:.0} us: part of it \
                 is the generator's; fewer --connections for each of the --threads, or a lower --rate"
            ));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(running_ratio: f64, waiting_ratio: f64) -> ThreadUse {
        ThreadUse {
            running_ratio,
            waiting_ratio,
        }
    }

    fn times(p50_us: f64, p99_us: f64) -> Option<Latency> {
        Some(Latency {
            p50_us,
            p90_us: p50_us,
            p99_us,
            p999_us: p99_us,
            max_us: p99_us,
        })
    }

    #[test]
    fn each_way_to_be_the_bottleneck_is_a_doubt_of_its_own() {
        type Case<'a> = (
            &'a [ThreadUse],
            Option<Latency>,
            Option<Latency>,
            &'a [&'a str],
        );
        let cases: [Case<'_>; 8] = [
            (
                &[thread(0.5, 0.05)],
                times(50.0, 100.0),
                times(80.0, 200.0),
                &[],
            ),
            (
                &[thread(0.3, 0.0), thread(0.95, 0.0)],
                None,
                None,
                &["nothing to spare"],
            ),
            (&[thread(0.5, 0.45)], None, None, &["waited for a CPU"]),
            (&[thread(0.2, 0.25)], None, None, &["waited for a CPU"]),
            (
                &[thread(0.2, 0.0)],
                times(300.0, 400.0),
                times(900.0, 9000.0),
                &["(median)"],
            ),
            (
                &[thread(0.2, 0.0)],
                times(50.0, 4000.0),
                times(900.0, 9000.0),
                &["(p99)"],
            ),
            // Late, but nothing beside what is measured.
            (
                &[thread(0.2, 0.0)],
                times(300.0, 400.0),
                times(9000.0, 9000.0),
                &[],
            ),
            (&[], None, None, &["the kernel does not say"]),
        ];
        for (threads, lag, latency, expected) in cases {
            let doubts = doubts(threads, lag, latency);
            assert_eq!(doubts.len(), expected.len(), "{doubts:?}");
            for (doubt, word) in doubts.iter().zip(expected) {
                assert!(doubt.contains(word), "{doubt}");
            }
        }
    }

    #[test]
    fn the_kernel_tells_what_this_thread_has_spent() {
        assert_eq!(
            parse("100848414 319733328 1638\n"),
            Some(Spent {
                running: Duration::from_nanos(100_848_414),
                waiting: Duration::from_nanos(319_733_328),
            })
        );
        assert_eq!(parse("100848414"), None);
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        assert_eq!(spent(&[own]).map(|threads| threads.len()), Some(1));
        assert_eq!(spent(&[own, i32::MAX]), None);
    }

    #[test]
    fn a_thread_that_stood_still_was_late_for_as_long() {
        let mut lag = no_lag();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let stop = async {
                    std::thread::sleep(Duration::from_millis(300));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                };
                tokio::select! {
                    biased;
                    () = stop => {}
                    ended = watch_lag(Instant::now(), &mut lag) => panic!("{ended:?}"),
                }
            });
        // Due every 5 ms: each of them until the thread woke up, the first the latest.
        assert!(lag.len() >= 60, "{}", lag.len());
        assert!(lag.max() > 250_000_000, "{}", lag.max());
    }
}
