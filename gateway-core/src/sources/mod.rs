//! Sources of connections, for a gateway without the kernel program: the same caps, debts and bans, by the same
//! arithmetic.
//! In: a connection's address, later the outcome of its handshake, and the time. Out: admission or a refusal, and a
//! ban when one begins. No clock, no lock, no I/O: the caller brings the time and lets one thread in at a time.
//!
//! With too many sources, the state that is evicted is the one that costs an attacker most to evict:
//!
//! - An account with a pending flow is never evicted: an open connection holds it, and those are bounded.
//! - Of the other accounts the smallest debt goes first. To evict a debt, an attacker needs as many sources as there is
//!   room for, each with a larger debt.
//! - Of the bans the ones long over go first, then those that end soonest, then an operator's. To evict a ban, an
//!   attacker needs as many sources as there is room for, each banned for longer than the rest of that ban: many new
//!   offenders evict each other.

mod bounded_map;
mod lists;

use std::net::IpAddr;

use gateway_common::{
    Account, Address, Ban, COUNTERS, DropReason, Evidence, Listed, Reason, Settings, Source,
    closed_list, first_bytes, mode, settled_by,
};

use bounded_map::{BoundedMap, Prioritized, Priority};
pub use lists::Lists;

/// The operator's policy: bounds, weights, and the lists of allowed and denied networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Mode, bounds, weights.
    pub settings: Settings,
    /// Allowed and denied networks.
    pub lists: Lists,
}

/// The source of a new connection, and the operator's list that its address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is held responsible for it.
    pub source: Source,
    listed: Option<Listed>,
}

impl Policy {
    /// Looks up the address of a new connection. Apart from [`Sources::admit`] because it needs no lock.
    pub fn candidate(&self, address: IpAddr) -> Candidate {
        let address = Address::from(address);
        Candidate {
            source: Source::of(address),
            listed: self.lists.find(address),
        }
    }
}

closed_list! {
    /// Why a connection is refused before a byte of it is read. Labels are those of the kernel's drops.
    pub enum Refusal: Reason {
        /// The operator's lists deny its address.
        Denied = DropReason::Denied.label(), Reason::Banned;
        /// Its source is banned.
        Banned = DropReason::Banned.label(), Reason::Banned;
        /// Its source has too many pending flows.
        TooManyPending = DropReason::TooManyPending.label(), Reason::TooManyPending;
    }
}

impl Refusal {
    /// The reason that its flow is counted under.
    pub const fn reason(self) -> Reason {
        self.row()
    }
}

/// An admitted connection without a verdict. Its owner must call [`Sources::settle`] once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its source has a pending flow until it is settled"]
pub struct PendingFlow {
    /// What is held responsible for it.
    pub source: Source,
    liability: Liability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liability {
    /// Nothing is charged to its source: the lists allow it, or the mode is `off`.
    Exempt,
    Counted,
    /// As `Counted`, and mode `enforce` would have refused it for the cap.
    OverCap,
}

/// The outcome of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The gateway's verdict.
    pub verdict: Reason,
    /// Bytes received from the client.
    pub received_bytes: u64,
}

/// What is held against one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Its debt and pending flows.
    pub account: Account,
    /// Its last ban, in force or past.
    pub ban: Option<Ban>,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Admitted connections.
    pub admitted: u64,
    /// Refused connections by reason, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Admitted connections that mode `enforce` would have refused, in the same order.
    pub would_refuse: [u64; Refusal::ALL.len()],
    /// Flows by reason, at [`Reason::index`]; refused ones are among them.
    pub flows: [u64; COUNTERS],
    /// Bans that began for a failure.
    pub bans_begun: u64,
}

impl Counts {
    /// All connections.
    pub fn opened(&self) -> u64 {
        self.admitted + self.refused.iter().sum::<u64>()
    }

    /// Connections that were refused for this reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }

    /// Connections that mode `enforce` would have refused for this reason.
    pub fn would_refuse(&self, refusal: Refusal) -> u64 {
        self.would_refuse[refusal as usize]
    }

    /// Flows with this reason.
    pub fn flow(&self, reason: Reason) -> u64 {
        self.flows[reason.index()]
    }

    /// Adds the counts of another part.
    pub fn add(&mut self, other: &Self) {
        let sum = |to: &mut [u64], from: &[u64]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        };
        self.admitted += other.admitted;
        self.bans_begun += other.bans_begun;
        sum(&mut self.refused, &other.refused);
        sum(&mut self.would_refuse, &other.would_refuse);
        sum(&mut self.flows, &other.flows);
    }
}

/// Maximum of remembered sources: about 135 bytes for each account and for each ban, allocated on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sources with a debt and no pending flow. Those with a pending flow come on top: each holds a connection.
    pub accounts_max: usize,
    /// Bans, in force or past.
    pub bans_max: usize,
}

/// Every source with a pending flow, a debt or a recent ban.
#[derive(Debug)]
pub struct Sources {
    accounts: BoundedMap<Account>,
    bans: BoundedMap<Ban>,
    counts: Counts,
}

impl Prioritized for Account {
    fn priority(&self) -> Option<Priority> {
        (self.pending == 0).then_some((false, self.clear_at_ns))
    }
}

impl Prioritized for Ban {
    fn priority(&self) -> Option<Priority> {
        Some((self.ordered_by().is_some(), self.until_ns))
    }
}

impl Sources {
    /// No sources.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            accounts: BoundedMap::new(bounds.accounts_max),
            bans: BoundedMap::new(bounds.bans_max),
            counts: Counts::default(),
        }
    }

    /// Decides on a new connection. An admitted one is pending until it is settled.
    ///
    /// # Errors
    /// Why it is refused. Mode `monitor` refuses none, and counts what `enforce` would refuse.
    pub fn admit(
        &mut self,
        candidate: Candidate,
        now_ns: u64,
        settings: &Settings,
    ) -> Result<PendingFlow, Refusal> {
        let Candidate { source, listed } = candidate;
        let objection = match listed {
            _ if settings.mode == mode::OFF => None,
            Some(Listed::Allowed) => None,
            Some(Listed::Denied) => Some(Refusal::Denied),
            None => self.objection(&source, now_ns, settings),
        };
        if let Some(refusal) = objection {
            if settings.mode == mode::ENFORCE {
                self.counts.refused[refusal as usize] += 1;
                self.counts.flows[refusal.reason().index()] += 1;
                return Err(refusal);
            }
            self.counts.would_refuse[refusal as usize] += 1;
        }
        self.counts.admitted += 1;
        let liability = match objection {
            _ if settings.mode == mode::OFF => Liability::Exempt,
            _ if listed == Some(Listed::Allowed) => Liability::Exempt,
            Some(Refusal::TooManyPending) => Liability::OverCap,
            Some(Refusal::Denied | Refusal::Banned) | None => Liability::Counted,
        };
        if liability != Liability::Exempt {
            let mut account = self.account(&source, now_ns);
            account.pending += 1;
            self.accounts.put(source, account);
        }
        Ok(PendingFlow { source, liability })
    }

    fn objection(&self, source: &Source, now_ns: u64, settings: &Settings) -> Option<Refusal> {
        if self.bans.get(source).is_some_and(|ban| ban.holds(now_ns)) {
            return Some(Refusal::Banned);
        }
        let pending = self.accounts.get(source).map_or(0, |known| known.pending);
        (pending >= settings.pending_max).then_some(Refusal::TooManyPending)
    }

    /// Settles a flow: it is no longer pending, and its source is charged. Returns a ban if one begins.
    pub fn settle(
        &mut self,
        flow: PendingFlow,
        outcome: Outcome,
        now_ns: u64,
        settings: &Settings,
    ) -> Option<Ban> {
        let PendingFlow { source, liability } = flow;
        let evidence = Evidence {
            // TCP counts a FIN as one, and so does `Evidence`.
            received_bytes: outcome.received_bytes.saturating_add(1),
            first_bytes: first_bytes::UNSEEN,
            is_over_cap: liability == Liability::OverCap,
        };
        let reason = settled_by(outcome.verdict, &evidence);
        self.counts.flows[reason.index()] += 1;
        if liability == Liability::Exempt {
            return None;
        }
        let mut account = self.account(&source, now_ns);
        account.pending = account
            .pending
            .checked_sub(1)
            .expect("a flow is counted from its admission on, and accounts with one are kept");
        let weight = settings.weights[reason.index()];
        let is_too_much = weight > 0 && account.charge(weight, now_ns, settings);
        self.keep(source, account, now_ns);
        self.forget_past(now_ns, settings);
        if is_too_much {
            self.begin_ban(source, reason, now_ns, settings)
        } else {
            None
        }
    }

    /// Begins the next ban, unless one is in force: what was in flight when that began is not a new offence.
    fn begin_ban(
        &mut self,
        source: Source,
        reason: Reason,
        now_ns: u64,
        settings: &Settings,
    ) -> Option<Ban> {
        let before = self.bans.get(&source).copied();
        if before.is_some_and(|before| before.holds(now_ns)) {
            return None;
        }
        let ban = Ban::next(before, reason, now_ns, settings);
        self.bans.put(source, ban);
        self.counts.bans_begun += 1;
        Some(ban)
    }

    /// The account of a source; a new one if there is none.
    fn account(&self, source: &Source, now_ns: u64) -> Account {
        let fresh = Account {
            clear_at_ns: now_ns,
            pending: 0,
        };
        self.accounts.get(source).copied().unwrap_or(fresh)
    }

    /// Stores an account, or removes it if it is empty.
    fn keep(&mut self, source: Source, account: Account, now_ns: u64) {
        if account.pending == 0 && account.clear_at_ns <= now_ns {
            self.accounts.remove(&source);
        } else {
            self.accounts.put(source, account);
        }
    }

    /// Removes what has decayed: a few of each at a time, more than come in.
    fn forget_past(&mut self, now_ns: u64, settings: &Settings) {
        const AT_ONCE: usize = 2;
        self.accounts.forget_before(now_ns, AT_ONCE);
        let remembered_from_ns = now_ns.saturating_sub(settings.ban_memory_ns);
        self.bans.forget_before(remembered_from_ns, AT_ONCE);
    }

    /// Bans a source for an operator, whatever ban it had.
    pub fn ban(&mut self, source: Source, ban: Ban) {
        self.bans.put(source, ban);
    }

    /// Lifts the ban of a source and forgives its debt, so that its next ban is a first one. Returns whether one was
    /// in force.
    pub fn unban(&mut self, source: &Source, now_ns: u64) -> bool {
        if let Some(mut account) = self.accounts.get(source).copied() {
            account.clear_at_ns = now_ns;
            self.keep(*source, account, now_ns);
        }
        self.bans
            .remove(source)
            .is_some_and(|ban| ban.holds(now_ns))
    }

    /// All remembered bans, in force or past, in no order.
    pub fn bans(&self) -> impl Iterator<Item = (Source, Ban)> {
        self.bans.iter()
    }

    /// All known sources, in no order.
    pub fn sources(&self, now_ns: u64) -> impl Iterator<Item = (Source, SourceState)> {
        let owing = self.accounts.iter().map(|(source, account)| {
            let ban = self.bans.get(&source).copied();
            (source, SourceState { account, ban })
        });
        let banned_only = self.bans.iter().filter_map(move |(source, ban)| {
            let is_new = self.accounts.get(&source).is_none();
            let account = self.account(&source, now_ns);
            let ban = Some(ban);
            is_new.then_some((source, SourceState { account, ban }))
        });
        owing.chain(banned_only)
    }

    /// What has happened since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests;
