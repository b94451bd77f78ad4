//! A fleet of agents that send OTLP until stopped, each with its own identity and live counters.
//! In: agents with their targets. Out: counters that any thread may read. On one thread of its own.
//! The demo drives it. The `otlp` scenario measures; this one only runs.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::background::Background;
use crate::client::{Target, Tickets};
use crate::otlp::{Exporter, Protocol, Signal, Source};

/// One agent to run.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Name; becomes its `service.instance.id`.
    pub name: String,
    /// `service.name` it reports.
    pub service_name: String,
    /// Transport.
    pub protocol: Protocol,
    /// The server that it sends to. The first identity is the agent's; the protocols must fit the transport.
    pub target: Target,
    /// Pause between two requests.
    pub interval: Duration,
    /// Records in each request.
    pub records: usize,
    /// The tenant that its requests claim to be of.
    pub claimed_tenant: Option<&'static str>,
}

/// Live counts of one agent.
#[derive(Debug, Default)]
pub struct AgentCounts {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    rejected: AtomicU64,
    failed_exports: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

/// The counts of one agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentState {
    /// Name of the agent.
    pub name: String,
    /// Transport.
    pub protocol: Protocol,
    /// Records sent.
    pub sent: u64,
    /// Records the receiver acknowledged.
    pub acknowledged: u64,
    /// Records the receiver rejected in acknowledged requests.
    pub rejected: u64,
    /// Requests that failed.
    pub failed_exports: u64,
    /// What the last failure said.
    pub last_failure: Option<String>,
}

/// Running agents; dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    agents: Vec<(String, Protocol, Arc<AgentCounts>)>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    _service: Background,
}

impl Fleet {
    /// Starts all agents.
    pub fn start(agents: Vec<Agent>) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let mut runs = Vec::new();
        let mut shown = Vec::new();
        for agent in agents {
            let counts = Arc::new(AgentCounts::default());
            shown.push((agent.name.clone(), agent.protocol, counts.clone()));
            let exporter = Exporter::new(
                agent.target.dialer(0, Tickets::Ignored)?,
                agent.protocol,
                &agent.target.endpoint(0).name,
                Source::new(&agent.service_name, &agent.name),
            )
            .claiming(agent.claimed_tenant);
            runs.push((agent, exporter, counts));
        }
        let service = Background::spawn("fleet", move || async move {
            let mut tasks = JoinSet::new();
            for (agent, exporter, counts) in runs {
                tasks.spawn(run_agent(agent, exporter, counts, stopped.clone()));
            }
            tasks.join_all().await;
            end.send_replace(true);
        })?;
        Ok(Self {
            agents: shown,
            stop,
            ended,
            _service: service,
        })
    }

    /// The agents' counts now.
    pub fn states(&self) -> Vec<AgentState> {
        self.agents
            .iter()
            .map(|(name, protocol, counts)| AgentState {
                name: name.clone(),
                protocol: *protocol,
                sent: counts.sent.load(Ordering::Relaxed),
                acknowledged: counts.acknowledged.load(Ordering::Relaxed),
                rejected: counts.rejected.load(Ordering::Relaxed),
                failed_exports: counts.failed_exports.load(Ordering::Relaxed),
                last_failure: counts
                    .last_failure
                    .lock()
                    .expect("nothing panics while it holds the text")
                    .clone(),
            })
            .collect()
    }

    /// Lets every agent finish the request it is in, for at most `limit`, and close its connection. The counts stay.
    pub fn stop(&self, limit: Duration) -> io::Result<()> {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?
            .block_on(async {
                // After the limit the agents are ended in the middle of a request; the counts show it.
                let _ = timeout(limit, ended.wait_for(|ended| *ended)).await;
            });
        Ok(())
    }
}

async fn run_agent(
    agent: Agent,
    mut exporter: Exporter,
    counts: Arc<AgentCounts>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tick = interval(agent.interval.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for &signal in Signal::ALL.iter().cycle() {
        tokio::select! {
            // Ends also when the fleet is gone.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = tick.tick() => {}
        }
        counts
            .sent
            .fetch_add(agent.records as u64, Ordering::Relaxed);
        match exporter.export(signal, agent.records).await {
            Ok(acknowledged) => {
                counts
                    .acknowledged
                    .fetch_add(acknowledged.accepted, Ordering::Relaxed);
                counts
                    .rejected
                    .fetch_add(acknowledged.rejected, Ordering::Relaxed);
            }
            Err(failure) => {
                counts.failed_exports.fetch_add(1, Ordering::Relaxed);
                *counts
                    .last_failure
                    .lock()
                    .expect("nothing panics while it holds the text") = Some(failure.to_string());
            }
        }
    }
    exporter.close().await;
}
