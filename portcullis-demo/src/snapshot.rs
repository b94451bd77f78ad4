//! Everything that the demo shows, at one moment. In: agents, impostors, receiver, metrics, kernel. Out: plain numbers.

use std::time::Duration;

use gateway_core::failure::Failure;
use gateway_guard::PortCount;
use loadgen::fleet::AgentState;

use crate::impostors::ImpostorState;
use crate::metrics::Page;
use crate::setup::DemoSetup;
use gateway::server::Gateway;

/// The sources of the numbers.
pub struct Sources<'a> {
    pub setup: &'a DemoSetup,
    pub elapsed: Duration,
    pub metrics: String,
    pub kernel: Kernel,
}

/// The numbers.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub elapsed: Duration,
    pub agents: Vec<AgentRow>,
    /// Records of the reader's own SDK: those of senders other than the demo's agents.
    pub reader_records: u64,
    pub impostors: Vec<ImpostorState>,
    pub handshakes: u64,
    pub connections_open: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Refused clients by each reason that occurred.
    pub refused: Vec<(Failure, u64)>,
    pub kernel: Kernel,
}

/// An agent and what arrived from it.
#[derive(Debug, Clone)]
pub struct AgentRow {
    pub state: AgentState,
    pub tenant: &'static str,
    /// Records that arrived as of that tenant.
    pub arrived: u64,
    /// The tenant that it claims instead, and the records that arrived as of any other.
    pub claimed: Option<&'static str>,
    pub forged: u64,
}

/// What the kernel counted.
#[derive(Debug, Clone)]
pub enum Kernel {
    /// Packets and bytes by port.
    Counts(Vec<PortCount>),
    /// It does not count, for this reason.
    Silent(String),
}

impl Kernel {
    /// The counts of the gateway's guard; without one, the reason, which the trial before the start may have found.
    pub fn of(gateway: &Gateway, trial_refusal: Option<&str>) -> Self {
        match gateway.guard_counts() {
            Some(Ok(counts)) => Self::Counts(counts),
            Some(Err(error)) => Self::Silent(error.to_string()),
            None => {
                let reason = gateway.guard_obstacle().or(trial_refusal);
                Self::Silent(reason.unwrap_or("there is no guard").to_owned())
            }
        }
    }
}

impl Snapshot {
    pub fn take(
        sources: &Sources<'_>,
        agents: Vec<AgentState>,
        impostors: Vec<ImpostorState>,
    ) -> Self {
        // Read after the agents' own counts: what was acknowledged by then must have arrived.
        let arrived = sources.setup.arrived();
        let agents: Vec<AgentRow> = agents
            .into_iter()
            .map(|state| {
                let tenant = DemoSetup::tenant(&state.name);
                let of =
                    |counts: &dyn Fn(&str) -> bool| arrived.records_of(&state.name, counts).total();
                AgentRow {
                    tenant,
                    arrived: of(&|other| other == tenant),
                    claimed: DemoSetup::claimed_tenant(&state.name),
                    forged: of(&|other| other != tenant),
                    state,
                }
            })
            .collect();
        let of_agent = |agent: &AgentRow| agent.arrived + agent.forged;
        let of_agents: u64 = agents.iter().map(of_agent).sum();
        let page = Page::new(sources.metrics.clone());
        let relayed = |direction| {
            page.sum(
                "portcullis_relayed_bytes_total",
                Some(("direction", direction)),
            )
        };
        let refused = |failure: &Failure| {
            let label = Some(("reason", failure.label()));
            let count = page.sum("portcullis_handshake_failures_total", label);
            (count > 0).then_some((*failure, count))
        };
        Self {
            elapsed: sources.elapsed,
            agents,
            reader_records: arrived.records.total().saturating_sub(of_agents),
            impostors,
            handshakes: page.sum("portcullis_handshakes_total", None),
            connections_open: page.sum("portcullis_connections_open", None),
            received_bytes: relayed("received"),
            sent_bytes: relayed("sent"),
            refused: Failure::ALL.iter().filter_map(refused).collect(),
            kernel: sources.kernel.clone(),
        }
    }

    /// How many clients the gateway refused for this reason.
    pub fn refused_for(&self, reason: Failure) -> u64 {
        self.refused
            .iter()
            .find(|(failure, _)| *failure == reason)
            .map_or(0, |(_, count)| *count)
    }

    /// Records that arrived from the demo's agents.
    pub fn arrived(&self) -> u64 {
        self.agents.iter().map(|agent| agent.arrived).sum()
    }
}
