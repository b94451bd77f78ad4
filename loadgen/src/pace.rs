//! When the next unit of work starts: as soon as the last one ended (closed loop) or at its place in a schedule
//! (open loop). In: rate, count and span of the plan. Out: turns, each with its intended start.
//! All connections of the process draw from one schedule; a turn that waits for a free connection keeps its intended
//! start, so that its latency contains the wait (coordinated omission).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits::START_GRACE;
use crate::timer::Timer;

/// The schedule shared by all connections.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<f64>,
    count: Option<u64>,
    span: Duration,
    claimed: AtomicU64,
    started: AtomicU64,
}

/// One connection's view of the schedule.
#[derive(Debug)]
pub(crate) struct Turns {
    pace: Arc<Pace>,
    start: Instant,
    timer: Option<Timer>,
}

impl Pace {
    /// `rate` in units per second; without one the loop is closed.
    pub(crate) fn new(rate: Option<f64>, count: Option<u64>, span: Duration) -> Self {
        Self {
            rate,
            count,
            span,
            claimed: AtomicU64::new(0),
            started: AtomicU64::new(0),
        }
    }

    /// Turns of the open loop that never started because every connection was busy until the end.
    pub(crate) fn missed(&self) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let in_span = (self.span.as_secs_f64() * rate).ceil() as u64;
        let scheduled = self.count.map_or(in_span, |count| count.min(in_span));
        scheduled.saturating_sub(self.started.load(Ordering::Relaxed))
    }

    /// The time of turn `index` in the schedule, from the start; `None` is as soon as possible.
    fn offset(&self, index: u64) -> Option<Duration> {
        self.rate
            .map(|rate| Duration::from_secs_f64(index as f64 / rate))
    }
}

impl Turns {
    pub(crate) fn new(pace: Arc<Pace>, start: Instant) -> io::Result<Self> {
        let timer = pace.rate.map(|_| Timer::new()).transpose()?;
        Ok(Self { pace, start, timer })
    }

    /// Another view of the same schedule, for work that goes on beside this one's.
    pub(crate) fn beside(&self) -> io::Result<Self> {
        Self::new(self.pace.clone(), self.start)
    }

    /// The end of the run.
    pub(crate) fn deadline(&self) -> Instant {
        self.start + self.pace.span
    }

    /// Waits for the next turn and returns its intended start; `None` when count or time are used up.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Instant>> {
        let index = self.pace.claimed.fetch_add(1, Ordering::Relaxed);
        if self.pace.count.is_some_and(|count| index >= count) {
            return Ok(None);
        }
        let now = Instant::now();
        let intended = self
            .pace
            .offset(index)
            .map_or(now, |offset| self.start + offset);
        if intended >= self.deadline() {
            return Ok(None);
        }
        if let Some(timer) = &self.timer
            && intended > now
        {
            timer.sleep_until(intended).await?;
        }
        // Without this bound an overloaded open loop would work off its backlog for as long as it likes.
        if Instant::now() >= self.deadline() + START_GRACE {
            return Ok(None);
        }
        self.pace.started.fetch_add(1, Ordering::Relaxed);
        Ok(Some(intended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn closed_loop_ends_after_its_count() {
        run(async {
            let pace = Arc::new(Pace::new(None, Some(3), Duration::from_secs(60)));
            let mut turns = Turns::new(pace.clone(), Instant::now()).unwrap();
            let mut taken = 0;
            while turns.next().await.unwrap().is_some() {
                taken += 1;
            }
            assert_eq!((taken, pace.missed()), (3, 0));
        });
    }

    #[test]
    fn open_loop_keeps_intended_starts_when_the_work_is_late() {
        run(async {
            let pace = Arc::new(Pace::new(Some(1000.0), Some(20), Duration::from_secs(60)));
            let start = Instant::now();
            let mut turns = Turns::new(pace, start).unwrap();
            let mut intended = Vec::new();
            while let Some(instant) = turns.next().await.unwrap() {
                if intended.is_empty() {
                    // Slow work: the following turns are due in the meantime.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                intended.push((instant - start).as_micros());
            }
            let expected: Vec<u128> = (0..20).map(|index| index * 1000).collect();
            assert_eq!(intended, expected);
        });
    }

    #[test]
    fn turns_that_never_started_are_missed() {
        run(async {
            let pace = Arc::new(Pace::new(Some(1000.0), None, Duration::from_millis(200)));
            let mut turns = Turns::new(pace.clone(), Instant::now()).unwrap();
            let mut taken = 0;
            while turns.next().await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                taken += 1;
            }
            assert!((1..=4).contains(&taken), "{taken}");
            assert_eq!(pace.missed(), 200 - taken);
        });
    }
}
