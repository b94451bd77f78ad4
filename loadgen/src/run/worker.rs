//! One connection's place in a run: when it may begin, what it counts, when it changes its identity.
//! In: the phases of the run, results of units of work. Out: arrivals for the director, counts for the tally of its
//! thread. On the load's threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::{Semaphore, mpsc, watch};

use super::Phase;
use crate::client::{Dialer, Target, Tickets};
use crate::failure::Failure;
use crate::pace::{Pace, Turns};
use crate::progress::ProgressCounts;
use crate::tally::{self, Group, SharedTally, Tally};

/// One connection's place in the run.
pub(crate) struct Worker {
    /// 0 up to the number of connections.
    pub(crate) index: usize,
    pub(super) tally: SharedTally,
    pub(super) counts: Arc<ProgressCounts>,
    pub(super) pace: Arc<Pace>,
    pub(super) connecting: Arc<Semaphore>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) arrivals: Arrivals,
    /// Where there are several addresses, which one.
    pub(super) endpoint: Option<usize>,
    pub(super) rotation: Option<RotationState>,
    /// The common start, once it was given.
    pub(super) start: Option<Instant>,
}

/// When the connection changes its identity, and whether it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct RotationState {
    pub(super) after: Duration,
    pub(super) is_done: bool,
}

/// Reports that a connection reached the end of a phase. Whatever is left is reported on drop, so that a worker that
/// returns early or panics never keeps the others waiting.
pub(super) struct Arrivals {
    pub(super) sender: mpsc::UnboundedSender<()>,
    pub(super) left: u8,
    /// Connections whose work decides how long the run lasts, unless this is none of them.
    pub(super) working: Option<Arc<watch::Sender<usize>>>,
}

impl Arrivals {
    fn arrive(&mut self) {
        self.left = self.left.saturating_sub(1);
        if let Some(working) = self.working.take_if(|_| self.left == 0) {
            working.send_modify(|count| *count -= 1);
        }
        // The receiver is gone only when the run was given up.
        let _ = self.sender.send(());
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        while self.left > 0 {
            self.arrive();
        }
    }
}

impl Worker {
    /// Waits for a free place among the connections being opened. Hold it until the connection is open.
    pub(crate) async fn connecting(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.connecting
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// The way to this connection's endpoint, which notes how long each phase takes.
    pub(crate) fn dialer(&self, target: &Target, tickets: Tickets) -> Result<Dialer> {
        Ok(target
            .dialer(self.index, tickets)?
            .noting(self.tally.clone()))
    }

    /// Says that the connection is prepared and waits for the common start of the work.
    pub(crate) async fn ready(&mut self) -> Result<Turns> {
        self.arrivals.arrive();
        let phase = *self
            .phase
            .wait_for(|phase| !matches!(phase, Phase::Prepare))
            .await?;
        match phase {
            Phase::Work(start) => {
                self.start = Some(start);
                Ok(Turns::new(self.pace.clone(), start)?)
            }
            Phase::Prepare | Phase::Finish => bail!("the run was given up"),
        }
    }

    /// Says that the work is over and waits until its cost has been read.
    pub(crate) async fn done(&mut self) {
        self.arrivals.arrive();
        // An error means that the run was given up: there is nothing left to wait for.
        let _ = self
            .phase
            .wait_for(|phase| matches!(phase, Phase::Finish))
            .await;
    }

    /// Gives the dialer its new identity when it is time; `true` when that was now.
    pub(crate) fn rotate(&mut self, dialer: &mut Dialer) -> bool {
        let (Some(rotation), Some(start)) = (&mut self.rotation, self.start) else {
            return false;
        };
        let is_due = !rotation.is_done && start.elapsed() >= rotation.after;
        if is_due {
            rotation.is_done = true;
            dialer.rotate();
            self.tally(|tally| tally.rotated += 1);
        }
        is_due
    }

    /// Counts one unit of work, from its intended start.
    pub(crate) fn record(&self, intended: Instant, result: &Result<(), Failure>) {
        self.record_in(None, intended, result);
    }

    /// Counts one unit of work, and once more among its like.
    pub(crate) fn record_in(
        &self,
        group: Option<Group>,
        intended: Instant,
        result: &Result<(), Failure>,
    ) {
        let latency = intended.elapsed();
        let groups = [
            group,
            self.endpoint.map(Group::Endpoint),
            self.rotation.map(|rotation| match rotation.is_done {
                false => Group::BeforeRotation,
                true => Group::AfterRotation,
            }),
        ];
        self.tally(|tally| {
            for group in groups.into_iter().flatten() {
                match result {
                    Ok(()) => tally.group(group).complete(latency),
                    Err(_) => tally.group(group).failed += 1,
                }
            }
        });
        match result {
            Ok(()) => self.complete(latency),
            Err(failure) => self.fail(failure),
        }
    }

    pub(crate) fn complete(&self, latency: Duration) {
        self.tally(|tally| {
            tally.total.complete(latency);
            self.count_second(tally, |second| second.completed += 1);
        });
        self.counts.completed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, failure: &Failure) {
        self.tally(|tally| {
            tally.fail(failure);
            self.count_second(tally, |second| second.failed += 1);
        });
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an event in its second after the common start. Notes nothing before that.
    pub(crate) fn count_second(&self, tally: &mut Tally, change: impl FnOnce(&mut tally::Second)) {
        if let Some(start) = self.start {
            change(tally.second(start.elapsed()));
        }
    }

    /// Changes the thread's tally. Never contended: its connections share one thread.
    pub(crate) fn tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().expect("no change to a tally panics"));
    }
}
