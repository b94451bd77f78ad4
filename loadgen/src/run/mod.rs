//! Runs a scenario: threads, connections and the three phases all scenarios share.
//! In: a `Plan` and a future per connection. Out: a `RunOutcome` with counts and what the server spent.
//!
//! Each thread has a runtime and a tally of its own. All connections prepare, wait for each other, work, wait again,
//! and end; the server's cost is read at those two seams, so that it contains the work and nothing else.

mod worker;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::client::Target;
use crate::failure::{Failure, FailureKind};
use crate::generator::{self, Spent};
use crate::limits::CONNECTING_MAX;
use crate::pace::Pace;
use crate::process::{self, Sample};
use crate::progress::{Bar, ProgressCounts};
use crate::scenario::refusal;
use crate::tally::{self, SharedTally, Tally};

pub(crate) use worker::Worker;
use worker::{Arrivals, RotationState};

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
pub(crate) struct RunOutcome {
    pub(crate) tally: Tally,
    /// The common start of the work.
    pub(crate) started_at: SystemTime,
    /// From the common start of the work to the end of its last unit.
    pub(crate) elapsed: Duration,
    /// CPU time of the load generator itself during the work.
    pub(crate) own_cpu: Duration,
    /// How late the threads noticed what had happened.
    pub(crate) lag: Histogram<u64>,
    /// What each thread had spent at the start of the work and at its end, where the kernel says.
    pub(crate) threads: Option<[Vec<Spent>; 2]>,
    /// Before the first connection, at the start of the work, at its end; or why a process could not be read any more.
    pub(crate) samples: Result<Option<[Sample; 3]>, String>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Prepare,
    Work(Instant),
    Finish,
}

/// Runs `work` once per connection and measures. Of the target, connections that it says must be refused are tried
/// instead, and its addresses and its rotation are figured apart.
pub(crate) fn drive<W, F>(plan: &Plan, target: Option<&Target>, work: W) -> Result<RunOutcome>
where
    W: Fn(Worker) -> F + Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (phase, phase_receiver) = watch::channel(Phase::Prepare);
    let (arrivals, arrivals_receiver) = mpsc::unbounded_channel();
    let crew = Crew {
        target: target.cloned(),
        counts: Arc::new(ProgressCounts::default()),
        pace: Arc::new(Pace::new(plan.rate, plan.count, plan.span)),
        connecting: Arc::new(Semaphore::new(CONNECTING_MAX)),
        phase: phase_receiver,
        arrivals,
        working: Arc::new(watch::Sender::new(working(plan, target))),
        threads: Arc::default(),
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
        threads: crew.threads.clone(),
    };
    let pace = crew.pace.clone();
    // The director's channel must end when the threads do.
    drop(crew);
    let measured = director.direct()?;

    let (mut tally, mut lag) = (Tally::new(), generator::no_lag());
    for thread in threads {
        let (one, late) = thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread of the load generator panicked"))??;
        tally.merge(&one);
        tally::add(&mut lag, &late);
    }
    note_missed(&mut tally, pace.missed());
    Ok(RunOutcome {
        tally,
        started_at: measured.started_at,
        elapsed: measured.elapsed,
        own_cpu: measured.own_cpu,
        lag,
        threads: measured
            .threads_at_start
            .zip(measured.threads_at_end)
            .map(|(start, end)| [start, end]),
        samples: measured.samples.map(|samples| {
            let [start, end] = samples;
            let samples = before.zip(start).zip(end);
            samples.map(|((before, start), end)| [before, start, end])
        }),
    })
}

/// Connections that are not only there to be refused.
fn working(plan: &Plan, target: Option<&Target>) -> usize {
    let is_suspect =
        |index: &usize| target.is_some_and(|target| target.flawed_client(*index).is_some());
    (0..plan.connections)
        .filter(|index| !is_suspect(index))
        .count()
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
    target: Option<Target>,
    counts: Arc<ProgressCounts>,
    pace: Arc<Pace>,
    connecting: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
    arrivals: mpsc::UnboundedSender<()>,
    working: Arc<watch::Sender<usize>>,
    /// The kernel's numbers of the threads.
    threads: Arc<Mutex<Vec<i32>>>,
}

impl Crew {
    fn run_thread<W, F>(
        self,
        thread: usize,
        plan: &Plan,
        work: W,
    ) -> Result<(Tally, Histogram<u64>)>
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
        self.threads
            .lock()
            .expect("nothing panics while it holds the list")
            .push(rustix::thread::gettid().as_raw_nonzero().get());
        let Self {
            target,
            phase,
            working,
            ..
        } = self;
        let lag = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting a runtime")?
            .block_on(async {
                let lag = tokio::spawn(lag(phase));
                let mut tasks = JoinSet::new();
                for worker in workers {
                    match &target {
                        Some(target) if target.flawed_client(worker.index).is_some() => {
                            let working = working.subscribe();
                            tasks.spawn(refusal::work(worker, target.clone(), working));
                        }
                        _ => {
                            tasks.spawn(work(worker));
                        }
                    }
                }
                while let Some(result) = tasks.join_next().await {
                    result.context("a connection's task panicked")??;
                }
                lag.await.context("watching the lag")?
            })?;
        let tally = tally.lock().expect("no change to a tally panics").clone();
        Ok((tally, lag))
    }

    fn worker(&self, index: usize, tally: SharedTally) -> Worker {
        let target = self.target.as_ref();
        let is_suspect = target.is_some_and(|target| target.flawed_client(index).is_some());
        let rotate_after = target.and_then(Target::rotate_after);
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
                working: (!is_suspect).then(|| self.working.clone()),
            },
            endpoint: target.and_then(|target| target.endpoint_apart(index)),
            rotation: rotate_after.map(|after| RotationState {
                after,
                is_done: false,
            }),
            start: None,
        }
    }
}

/// How late this thread is woken up, during the work.
async fn lag(mut phase: watch::Receiver<Phase>) -> Result<Histogram<u64>> {
    let mut lag = generator::no_lag();
    let started = *phase
        .wait_for(|phase| !matches!(phase, Phase::Prepare))
        .await?;
    if let Phase::Work(start) = started {
        tokio::select! {
            ended = generator::watch_lag(start, &mut lag) => ended?,
            // An error means that the run was given up.
            _ = phase.wait_for(|phase| matches!(phase, Phase::Finish)) => {}
        }
    }
    Ok(lag)
}

/// Leads the phases from the main thread.
struct Director<'a> {
    plan: &'a Plan,
    phase: watch::Sender<Phase>,
    arrivals: mpsc::UnboundedReceiver<()>,
    counts: Arc<ProgressCounts>,
    threads: Arc<Mutex<Vec<i32>>>,
}

struct Measured {
    started_at: SystemTime,
    elapsed: Duration,
    own_cpu: Duration,
    threads_at_start: Option<Vec<Spent>>,
    threads_at_end: Option<Vec<Spent>>,
    samples: Result<[Option<Sample>; 2], String>,
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
                // A server that ends in the middle is something to report on, and no reason to lose the report.
                let sample = || {
                    process::sample(&self.plan.server_pids).map_err(|error| format!("{error:#}"))
                };
                let at_start = sample();
                let own_cpu = process::own_cpu()?;
                let threads_at_start = self.threads_spent();
                let (start, started_at) = (Instant::now(), SystemTime::now());
                self.phase.send_replace(Phase::Work(start));
                self.gather(|_, counts| bar.working(start, counts)).await;
                let measured = Measured {
                    started_at,
                    elapsed: start.elapsed(),
                    own_cpu: process::own_cpu()?.saturating_sub(own_cpu),
                    threads_at_start,
                    threads_at_end: self.threads_spent(),
                    samples: at_start.and_then(|start| Ok([start, sample()?])),
                };
                self.phase.send_replace(Phase::Finish);
                Ok(measured)
            })
    }

    fn threads_spent(&self) -> Option<Vec<Spent>> {
        generator::spent(
            &self
                .threads
                .lock()
                .expect("nothing panics while it holds the list"),
        )
    }

    /// Waits until every connection has arrived at the end of the phase.
    async fn gather(&mut self, show: impl Fn(usize, &ProgressCounts)) {
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
