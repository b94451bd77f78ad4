//! The account of one source of connections: what its failures have cost, whether it is banned, how many of its flows
//! wait. In: the time and what happened. Out: a ban, or none. Only additions and comparisons: no division, no panic.

use crate::address::Address;
use crate::reason::Reason;
use crate::settings::Settings;

/// What is held responsible: an IPv4 address, or the /64 of an IPv6 address, all of which one host can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Source(pub Address);

impl Source {
    /// The source that an address belongs to.
    #[inline(always)]
    pub fn of(address: impl Into<Address>) -> Self {
        Self(address.into().network())
    }
}

/// What a source owes and how many of its flows are open.
///
/// The debt is kept as the moment at which it will be forgiven: it then leaks away by itself, a point in
/// [`Settings::point_ns`]. Two processors that charge the same source in the same instant may count one charge: the
/// ban comes a failure later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Account {
    /// When nothing is owed any more.
    pub clear_at_ns: u64,
    /// Flows that are not authenticated yet. Added to and subtracted from atomically: a lost change would stay.
    pub pending: u64,
}

/// A ban, in force or past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ban {
    /// When it ends.
    pub until_ns: u64,
    /// How long it was when it began: the next one is twice as long.
    pub lasts_ns: u64,
    /// [`Reason::index`] of the failure that was one too many, or [`Ban::NO_REASON`].
    pub reason: u32,
    /// Who said so: zero for the kernel, one more than the user's number for an operator.
    pub operator: u32,
}

const _: () = assert!(size_of::<Source>() == 16);
const _: () = assert!(size_of::<Account>() == 16 && align_of::<Account>() == 8);
const _: () = assert!(size_of::<Ban>() == 24 && align_of::<Ban>() == 8);

impl Account {
    /// Adds `weight` points. Says whether that is too much, and begins anew if it is: the ban is the answer to what
    /// was owed.
    #[inline(always)]
    #[must_use]
    pub fn charge(&mut self, weight: u16, now_ns: u64, settings: &Settings) -> bool {
        let from = if is_past(self.clear_at_ns, now_ns) {
            now_ns
        } else {
            self.clear_at_ns
        };
        let cost = u64::from(weight).wrapping_mul(settings.point_ns);
        let clear_at = from.wrapping_add(cost);
        let is_too_much = clear_at.wrapping_sub(now_ns) > settings.ban_debt_ns;
        self.clear_at_ns = if is_too_much { now_ns } else { clear_at };
        is_too_much
    }
}

impl Ban {
    /// In place of a reason: no failure led to it.
    pub const NO_REASON: u32 = u32::MAX;

    /// The longest there can be, 292 years: moments are compared as signed.
    const LASTS_NS_MAX: u64 = i64::MAX as u64;

    /// A ban that the operator with the number `user` orders.
    pub fn by_operator(user: u32, now_ns: u64, lasts_ns: u64) -> Self {
        let lasts_ns = lasts_ns.min(Self::LASTS_NS_MAX);
        Self {
            until_ns: now_ns.wrapping_add(lasts_ns),
            lasts_ns,
            reason: Self::NO_REASON,
            operator: user.saturating_add(1),
        }
    }

    /// The failure that was one too many; `None` for an operator's ban.
    pub fn tipped_by(&self) -> Option<Reason> {
        Reason::ALL.get(self.reason as usize).copied()
    }

    /// The number of the user who ordered it; `None` where the kernel did.
    pub const fn ordered_by(&self) -> Option<u32> {
        self.operator.checked_sub(1)
    }

    /// Whether it is in force.
    #[inline(always)]
    pub fn holds(&self, now_ns: u64) -> bool {
        !is_past(self.until_ns, now_ns)
    }

    /// The ban that follows `before`, tipped by `reason`: twice as long, up to the longest, unless that one is long
    /// over, or was an operator's, whose lengths have their own reasons. A source that is banned already stays so to
    /// the same end: what was in flight when the ban began is not a new offence.
    #[inline(always)]
    pub fn next(before: Option<Self>, reason: Reason, now_ns: u64, settings: &Settings) -> Self {
        let lasts_ns = match before {
            Some(before) if before.holds(now_ns) => return before,
            Some(before)
                if before.operator == 0
                    && now_ns.wrapping_sub(before.until_ns) < settings.ban_memory_ns =>
            {
                let doubled = before.lasts_ns.wrapping_mul(2);
                // Wrapped or too long: the longest there is.
                if doubled > settings.ban_longest_ns || doubled < before.lasts_ns {
                    settings.ban_longest_ns
                } else {
                    doubled
                }
            }
            _ => settings.ban_first_ns,
        };
        Self {
            until_ns: now_ns.wrapping_add(lasts_ns),
            lasts_ns,
            reason: reason.index() as u32,
            operator: 0,
        }
    }
}

/// Whether `moment` is now or before. Other processors read the clock too: a moment may be a little ahead, so the
/// difference is taken as signed.
#[inline(always)]
pub(crate) fn is_past(moment_ns: u64, now_ns: u64) -> bool {
    now_ns.wrapping_sub(moment_ns) as i64 >= 0
}
