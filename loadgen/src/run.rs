//! Runs a scenario: threads, connections and the three phases all scenarios share.
//! In: a `Plan` and a future per connection. Out: an `Outcome` with counts and what the server spent.
//!
//! Each thread has a runtime and a tally of its own. All connections prepare, wait for each other, work, wait again,
//! and end; the server's cost is read at those two seams, so that it contains the work and nothing else.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::failure::{Failure, FailureKind};
use crate::limits::CONNECTING_MAX;
use crate::pace::{Pace, Turns};
use crate::process::{self, Sample};
use crate::progress::{Bar, Counts};
use crate::tally::Tally;

/// How much load, for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Connections at once; also the bound on units of work in flight.
    pub connections: usize,
    /// Threads they are spread over.
    pub threads: usize,
    /// Units of work per second over all connections; none is a closed loop.
    pub rate: Option<f64>,
    /// Units of work in total.
    pub count: Option<u64>,
    /// The longest time the work may take.
    pub span: Duration,
    /// Processes of the server whose cost is measured.
    pub server_pids: Vec<u32>,
    /// Draw a progress bar when standard error is a terminal.
    pub progress: bool,
}

/// What a run brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// The common start of the work.
    pub(crate) started_at: SystemTime,
    /// From the common start of the work to the end of its last unit.
    pub(crate) elapsed: Duration,
    /// CPU time of the load generator itself during the work.
    pub(crate) own_cpu: Duration,
    /// Before the first connection, at the start of the work, at its end.
    pub(crate) samples: Option<[Sample; 3]>,
}

/// One connection's place in the run.
pub(crate) struct Worker {
    /// 0 up to the number of connections.
    pub(crate) index: usize,
    tally: Arc<Mutex<Tally>>,
    counts: Arc<Counts>,
    pace: Arc<Pace>,
    connecting: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
    arrivals: Arrivals,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Prepare,
    Work(Instant),
    Finish,
}

/// Reports that a connection reached the end of a phase. Whatever is left is reported on drop, so that a worker that
/// returns early or panics never keeps the others waiting.
struct Arrivals {
    sender: mpsc::UnboundedSender<()>,
    left: u8,
}

impl Arrivals {
    fn arrive(&mut self) {
        self.left = self.left.saturating_sub(1);
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
    /// Waits for a free place among the connections being opened. Hold it until the connection stands.
    pub(crate) async fn connecting(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.connecting
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// Says that the connection is prepared and waits for the common start of the work.
    pub(crate) async fn ready(&mut self) -> Result<Turns> {
        self.arrivals.arrive();
        let phase = *self
            .phase
            .wait_for(|phase| !matches!(phase, Phase::Prepare))
            .await?;
        match phase {
            Phase::Work(start) => Ok(Turns::new(self.pace.clone(), start)?),
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

    /// Counts one unit of work, from its intended start.
    pub(crate) fn record(&self, intended: Instant, result: &Result<(), Failure>) {
        match result {
            Ok(()) => self.complete(intended.elapsed()),
            Err(failure) => self.fail(failure),
        }
    }

    pub(crate) fn complete(&self, latency: Duration) {
        self.tally(|tally| tally.complete(latency));
        self.counts
            .completed
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, failure: &Failure) {
        self.tally(|tally| tally.fail(failure));
        self.counts
            .failed
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Changes the thread's tally. Never contended: its connections share one thread.
    pub(crate) fn tally(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.lock().expect("no change to a tally panics"));
    }
}

/// Runs `work` once per connection and measures.
pub(crate) fn drive<W, F>(plan: &Plan, work: W) -> Result<Outcome>
where
    W: Fn(Worker) -> F + Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (phase, phase_receiver) = watch::channel(Phase::Prepare);
    let (arrivals, arrivals_receiver) = mpsc::unbounded_channel();
    let crew = Crew {
        counts: Arc::new(Counts::default()),
        pace: Arc::new(Pace::new(plan.rate, plan.count, plan.span)),
        connecting: Arc::new(Semaphore::new(CONNECTING_MAX)),
        phase: phase_receiver,
        arrivals,
    };
    let before = process::sample(&plan.server_pids)?;
    let threads: Vec<_> = (0..plan.threads)
        .map(|thread| {
            let (crew, work, plan) = (crew.clone(), work.clone(), plan.clone());
            thread::Builder::new()
                .name(format!("load-{thread}"))
                .spawn(move || crew.run_thread(thread, &plan, work))
        })
        .collect::<Result<_, _>>()
        .context("starting the load's threads")?;
    let director = Director {
        plan,
        phase,
        arrivals: arrivals_receiver,
        counts: crew.counts.clone(),
    };
    let pace = crew.pace.clone();
    // The director's channel must end when the threads do.
    drop(crew);
    let measured = director.direct()?;

    let mut tally = Tally::new();
    for thread in threads {
        let one = thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread of the load generator panicked"))??;
        tally.merge(&one);
    }
    note_missed(&mut tally, pace.missed());
    Ok(Outcome {
        tally,
        started_at: measured.started_at,
        elapsed: measured.elapsed,
        own_cpu: measured.own_cpu,
        samples: before
            .zip(measured.at_start)
            .zip(measured.at_end)
            .map(|((before, start), end)| [before, start, end]),
    })
}

fn note_missed(tally: &mut Tally, missed: u64) {
    if missed > 0 {
        let failure = Failure::new(
            FailureKind::Missed,
            "the rate was not reached: every connection was busy; more --connections or a lower --rate",
        );
        tally.fail_many(&failure, missed);
    }
}

/// What all threads share.
#[derive(Clone)]
struct Crew {
    counts: Arc<Counts>,
    pace: Arc<Pace>,
    connecting: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
    arrivals: mpsc::UnboundedSender<()>,
}

impl Crew {
    fn run_thread<W, F>(self, thread: usize, plan: &Plan, work: W) -> Result<Tally>
    where
        W: Fn(Worker) -> F,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let tally = Arc::new(Mutex::new(Tally::new()));
        // Made first: whatever fails below, the arrivals of this thread's connections are reported.
        let workers: Vec<Worker> = (thread..plan.connections)
            .step_by(plan.threads)
            .map(|index| self.worker(index, tally.clone()))
            .collect();
        drop(self);
        runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime")?
            .block_on(async {
                let mut tasks = JoinSet::new();
                for worker in workers {
                    tasks.spawn(work(worker));
                }
                while let Some(result) = tasks.join_next().await {
                    result.context("a connection's task panicked")??;
                }
                Ok::<_, anyhow::Error>(())
            })?;
        let tally = tally.lock().expect("no change to a tally panics").clone();
        Ok(tally)
    }

    fn worker(&self, index: usize, tally: Arc<Mutex<Tally>>) -> Worker {
        Worker {
            index,
            tally,
            counts: self.counts.clone(),
            pace: self.pace.clone(),
            connecting: self.connecting.clone(),
            phase: self.phase.clone(),
            arrivals: Arrivals {
                sender: self.arrivals.clone(),
                left: 2,
            },
        }
    }
}

/// Leads the phases from the main thread.
struct Director<'a> {
    plan: &'a Plan,
    phase: watch::Sender<Phase>,
    arrivals: mpsc::UnboundedReceiver<()>,
    counts: Arc<Counts>,
}

struct Measured {
    started_at: SystemTime,
    elapsed: Duration,
    own_cpu: Duration,
    at_start: Option<Sample>,
    at_end: Option<Sample>,
}

impl Director<'_> {
    fn direct(mut self) -> Result<Measured> {
        runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("starting a runtime")?
            .block_on(async {
                let bar = Bar::new(self.plan.progress, self.plan.span);
                let total = self.plan.connections;
                self.gather(|arrived, _| bar.preparing(arrived, total))
                    .await;
                let at_start = process::sample(&self.plan.server_pids)?;
                let own_cpu = process::own_cpu()?;
                let (start, started_at) = (Instant::now(), SystemTime::now());
                self.phase.send_replace(Phase::Work(start));
                self.gather(|_, counts| bar.working(start, counts)).await;
                let measured = Measured {
                    started_at,
                    elapsed: start.elapsed(),
                    own_cpu: process::own_cpu()?.saturating_sub(own_cpu),
                    at_start,
                    at_end: process::sample(&self.plan.server_pids)?,
                };
                self.phase.send_replace(Phase::Finish);
                Ok(measured)
            })
    }

    /// Waits until every connection has arrived at the end of the phase.
    async fn gather(&mut self, show: impl Fn(usize, &Counts)) {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut arrived = 0;
        while arrived < self.plan.connections {
            tokio::select! {
                arrival = self.arrivals.recv() => match arrival {
                    Some(()) => arrived += 1,
                    // All threads have ended; joining them says why.
                    None => return,
                },
                _ = tick.tick() => show(arrived, &self.counts),
            }
        }
    }
}
