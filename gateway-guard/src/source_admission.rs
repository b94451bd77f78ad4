//! Admits sources: may a worker look at a new connection, and how did it come out? In: peers, sockets, reasons. Out: yes
//! or no. On every worker, twice per connection and never per byte. With the kernel programs attached, the answers are in
//! their maps; without them, in the gateway's own table of sources, which keeps the same accounts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use gateway_common::{
    Address, BANS_MAP, Ban, FLOWS_MAP, FlowKey, LISTS_MAP, Listed, Reason, Source, mode,
};
use gateway_core::sources::{Outcome, Policy, Refusal};
use tokio::sync::mpsc::Sender;

use super::clock::now_ns;
use super::layout::PodValue;
use super::maps::{Bans, Flows, ListMap, map_of, typed};
use super::source_table::{Admitted, SourceTable};
use super::{GuardError, send_verdict};

/// The words for the log.
pub const fn refusal_detail(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Denied => "its address is on the list [guard] deny",
        Refusal::Banned => "its source is banned for earlier failures",
        Refusal::TooManyPending => {
            "too many connections of its source wait to be authenticated ([guard] max_pending)"
        }
    }
}

/// The kernel's word for a refusal.
const fn verdict_on(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Denied | Refusal::Banned => Reason::Banned,
        // The kernel knows by itself that the flow was one too many, and counts it so.
        Refusal::TooManyPending => Reason::Reset,
    }
}

/// The guard, as workers see it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SourceAdmission(Accounts);

/// What keeps the accounts of sources.
#[derive(Clone, Debug, Default)]
enum Accounts {
    #[default]
    None,
    Kernel(Arc<Kernel>),
    SourceTable(Arc<SourceTable>, Sender<(IpAddr, Ban)>),
}

/// A connection that has been admitted and is not authenticated yet.
#[derive(Debug)]
#[must_use = "its source has a pending flow until the verdict"]
pub struct PendingVerdict(VerdictSink);

/// What gets the verdict on a connection.
#[derive(Debug)]
enum VerdictSink {
    None,
    Kernel(Arc<Kernel>),
    SourceTable(Admitted, IpAddr, Sender<(IpAddr, Ban)>),
}

/// Handles of our own for the kernel's maps.
struct Kernel {
    bans: Bans,
    flows: Flows,
    lists: ListMap,
    undelivered: AtomicU64,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl SourceAdmission {
    /// Admission by the maps of `loaded`.
    pub(super) fn of(loaded: &Ebpf) -> Result<Self, GuardError> {
        Ok(Self(Accounts::Kernel(Arc::new(Kernel {
            bans: typed(map_of(loaded, BANS_MAP)?)?,
            flows: typed(map_of(loaded, FLOWS_MAP)?)?,
            lists: typed(map_of(loaded, LISTS_MAP)?)?,
            undelivered: AtomicU64::default(),
        }))))
    }

    /// Admission by our own table of sources. Reports bans that begin to `news`.
    pub fn by_source_table(table: Arc<SourceTable>, news: Sender<(IpAddr, Ban)>) -> Self {
        Self(Accounts::SourceTable(table, news))
    }

    /// Verdicts that the kernel did not take, because it did not know the flow.
    pub fn undelivered(&self) -> u64 {
        match &self.0 {
            Accounts::Kernel(kernel) => kernel.undelivered.load(Ordering::Relaxed),
            Accounts::None | Accounts::SourceTable(..) => 0,
        }
    }

    /// Whether a connection of `peer` may be looked at; `local` is our address of it, asked for only where it matters.
    /// In `monitor` every one may.
    ///
    /// # Errors
    /// Why it is refused. Then it has to be closed; that is told to [`SourceAdmission::reject`] before.
    pub fn admit(
        &self,
        peer: SocketAddr,
        local: impl FnOnce() -> Option<SocketAddr>,
        policy: &Arc<Policy>,
    ) -> Result<PendingVerdict, Refusal> {
        let sink = match &self.0 {
            Accounts::None => VerdictSink::None,
            Accounts::Kernel(kernel) => {
                if policy.settings.mode == mode::ENFORCE {
                    kernel.admit(peer, local(), policy)?;
                }
                VerdictSink::Kernel(Arc::clone(kernel))
            }
            Accounts::SourceTable(table, news) => {
                let admitted = table.admit(peer.ip(), policy)?;
                VerdictSink::SourceTable(admitted, peer.ip(), news.clone())
            }
        };
        Ok(PendingVerdict(sink))
    }

    /// Says that a connection is refused by [`SourceAdmission::admit`], before it is closed.
    pub fn reject(&self, socket: impl AsFd, why: Refusal) {
        if let Accounts::Kernel(kernel) = &self.0 {
            kernel.send(socket, verdict_on(why));
        }
    }
}

impl PendingVerdict {
    /// Says how the connection on `socket` came out: before a byte of it is passed on, and before it is closed.
    pub fn settle(self, socket: impl AsFd, outcome: Outcome) {
        match self.0 {
            VerdictSink::None => {}
            VerdictSink::Kernel(kernel) => kernel.send(socket, outcome.verdict),
            VerdictSink::SourceTable(admitted, source, news) => {
                if let Some(ban) = admitted.settle(outcome) {
                    // At the very end no receiver is left. What there is no room for is found in the table.
                    let _ = news.try_send((source, ban));
                }
            }
        }
    }
}

impl Kernel {
    /// The packets of a source that is refused here did not come by an interface with the XDP program, which would have
    /// dropped them. What a map does not know, or the kernel does not say, speaks against no source.
    fn admit(
        &self,
        peer: SocketAddr,
        local: Option<SocketAddr>,
        policy: &Policy,
    ) -> Result<(), Refusal> {
        let remote = Address::from(peer.ip());
        if !policy.lists.is_empty() {
            let listed = self.lists.get(&Key::new(128, remote.octets()), 0).ok();
            match listed.and_then(Listed::from_byte) {
                Some(Listed::Denied) => return Err(Refusal::Denied),
                Some(Listed::Allowed) => return Ok(()),
                None => {}
            }
        }
        let ban = self.bans.get(&PodValue(Source::of(remote)), 0).ok();
        if ban.is_some_and(|PodValue(ban)| ban.holds(now_ns())) {
            return Err(Refusal::Banned);
        }
        let flow = local.and_then(|local| {
            let key = FlowKey {
                remote,
                local: local.ip().into(),
                remote_port: peer.port(),
                local_port: local.port(),
            };
            self.flows.get(&PodValue(key), 0).ok()
        });
        match flow {
            Some(PodValue(flow)) if flow.is_over_cap != 0 => Err(Refusal::TooManyPending),
            _ => Ok(()),
        }
    }

    fn send(&self, socket: impl AsFd, reason: Reason) {
        if send_verdict(socket, reason).is_err() {
            self.undelivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}
