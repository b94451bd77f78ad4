//! What workers ask and tell the guard: may a new connection be looked at, and how did it come out. In: peers, sockets,
//! reasons. Out: yes or no. On every worker, twice per connection and never per byte. With the kernel programs attached,
//! the answers are in their maps; without them, in the gateway's own book, which keeps the same accounts.

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

use super::book::{Admitted, Book};
use super::clock::now_ns;
use super::layout::Plain;
use super::maps::{Bans, Flows, ListMap, map_of, typed};
use super::{GuardError, say};

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

/// The guard, as workers know it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate(Accounts);

/// Who keeps accounts.
#[derive(Clone, Debug, Default)]
enum Accounts {
    #[default]
    Nobody,
    Kernel(Arc<Kernel>),
    Ourselves(Arc<Book>, Sender<(IpAddr, Ban)>),
}

/// A connection that has been let in and is not authenticated yet.
#[derive(Debug)]
#[must_use = "somebody waits to hear how it came out"]
pub struct Pending(Waiting);

/// Who waits to hear how a connection came out.
#[derive(Debug)]
enum Waiting {
    Nobody,
    Kernel(Arc<Kernel>),
    Ourselves(Admitted, IpAddr, Sender<(IpAddr, Ban)>),
}

/// Handles of our own for the kernel's maps.
struct Kernel {
    bans: Bans,
    flows: Flows,
    lists: ListMap,
    unheard: AtomicU64,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate in front of the maps of `loaded`.
    pub(super) fn of(loaded: &Ebpf) -> Result<Self, GuardError> {
        Ok(Self(Accounts::Kernel(Arc::new(Kernel {
            bans: typed(map_of(loaded, BANS_MAP)?)?,
            flows: typed(map_of(loaded, FLOWS_MAP)?)?,
            lists: typed(map_of(loaded, LISTS_MAP)?)?,
            unheard: AtomicU64::default(),
        }))))
    }

    /// A gate in front of our own book. Bans that begin are told to `news`.
    pub fn by_book(book: Arc<Book>, news: Sender<(IpAddr, Ban)>) -> Self {
        Self(Accounts::Ourselves(book, news))
    }

    /// Verdicts that the kernel did not take, because it did not know the flow.
    pub fn unheard(&self) -> u64 {
        match &self.0 {
            Accounts::Kernel(kernel) => kernel.unheard.load(Ordering::Relaxed),
            Accounts::Nobody | Accounts::Ourselves(..) => 0,
        }
    }

    /// Whether a connection of `peer` may be looked at; `local` is our address of it, asked for only where it matters.
    /// In `monitor` every one may.
    ///
    /// # Errors
    /// Why it is refused. Then it has to be closed; that is told to [`Gate::turn_away`] before.
    pub fn admit(
        &self,
        peer: SocketAddr,
        local: impl FnOnce() -> Option<SocketAddr>,
        policy: &Arc<Policy>,
    ) -> Result<Pending, Refusal> {
        let waiting = match &self.0 {
            Accounts::Nobody => Waiting::Nobody,
            Accounts::Kernel(kernel) => {
                if policy.settings.mode == mode::ENFORCE {
                    kernel.admit(peer, local(), policy)?;
                }
                Waiting::Kernel(Arc::clone(kernel))
            }
            Accounts::Ourselves(book, news) => {
                let admitted = book.admit(peer.ip(), policy)?;
                Waiting::Ourselves(admitted, peer.ip(), news.clone())
            }
        };
        Ok(Pending(waiting))
    }

    /// Says that a connection is refused by [`Gate::admit`], before it is closed.
    pub fn turn_away(&self, socket: impl AsFd, why: Refusal) {
        if let Accounts::Kernel(kernel) = &self.0 {
            kernel.say(socket, verdict_on(why));
        }
    }
}

impl Pending {
    /// Says how the connection on `socket` came out: before a byte of it is passed on, and before it is closed.
    pub fn settle(self, socket: impl AsFd, outcome: Outcome) {
        match self.0 {
            Waiting::Nobody => {}
            Waiting::Kernel(kernel) => kernel.say(socket, outcome.verdict),
            Waiting::Ourselves(admitted, source, news) => {
                if let Some(ban) = admitted.settle(outcome) {
                    // Nobody wants to hear it any more at the very end; and what there is no room for is found in the book.
                    let _ = news.try_send((source, ban));
                }
            }
        }
    }
}

impl Kernel {
    /// The packets of whoever is refused here did not come by an interface with the XDP program, which would have dropped
    /// them. What a map does not know, or the kernel does not say, speaks against nobody.
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
        let ban = self.bans.get(&Plain(Source::of(remote)), 0).ok();
        if ban.is_some_and(|Plain(ban)| ban.holds(now_ns())) {
            return Err(Refusal::Banned);
        }
        let flow = local.and_then(|local| {
            let key = FlowKey {
                remote,
                local: local.ip().into(),
                remote_port: peer.port(),
                local_port: local.port(),
            };
            self.flows.get(&Plain(key), 0).ok()
        });
        match flow {
            Some(Plain(flow)) if flow.is_over_cap != 0 => Err(Refusal::TooManyPending),
            _ => Ok(()),
        }
    }

    fn say(&self, socket: impl AsFd, reason: Reason) {
        if say(socket, reason).is_err() {
            self.unheard.fetch_add(1, Ordering::Relaxed);
        }
    }
}
