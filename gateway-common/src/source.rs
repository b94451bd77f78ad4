//! The account of one source of connections: its debt, its pending flows, its bans. In: the time and a failure. Out:
//! a ban, or none. Only additions and comparisons: no division, no panic.

use crate::address::Address;
use crate::reason::Reason;
use crate::settings::Settings;

/// What a failure is charged to: an IPv4 address, or the /64 of an IPv6 address, which one host may use as a whole.
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

/// The debt of a source and its pending flows.
///
/// The debt is the moment at which it is forgiven: it decays by itself, a point in [`Settings::point_ns`]. Two
/// processors that charge the same source at the same instant may count one charge: then the ban comes one failure
/// later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Account {
    /// The moment at which the debt is forgiven, in nanoseconds of the kernel's monotonic clock.
    pub clear_at_ns: u64,
    /// Flows without a verdict. Changed by atomic additions: a lost change would stay forever.
    pub pending: u64,
}

/// A ban, in force or past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ban {
    /// Its end, in nanoseconds of the kernel's monotonic clock.
    pub until_ns: u64,
    /// Its length when it began, in nanoseconds: the next one is twice as long.
    pub lasts_ns: u64,
    /// [`Reason::index`] of the failure that tipped it, or [`Ban::NO_REASON`].
    pub reason: u32,
    /// Zero for a ban of the kernel; one more than the user's number for one of an operator.
    pub operator: u32,
}

const _: () = assert!(size_of::<Source>() == 16);
const _: () = assert!(size_of::<Account>() == 16 && align_of::<Account>() == 8);
const _: () = assert!(size_of::<Ban>() == 24 && align_of::<Ban>() == 8);

impl Account {
    /// Adds `weight` points. Returns whether the debt is too high, and then forgives it: the ban pays for it.
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
    /// Stands for no reason: an operator's ban.
    pub const NO_REASON: u32 = u32::MAX;

    /// The longest ban, 292 years: moments are compared as signed.
    const LASTS_NS_MAX: u64 = i64::MAX as u64;

    /// A ban by the operator with the number `user`.
    pub fn by_operator(user: u32, now_ns: u64, lasts_ns: u64) -> Self {
        let lasts_ns = lasts_ns.min(Self::LASTS_NS_MAX);
        Self {
            until_ns: now_ns.wrapping_add(lasts_ns),
            lasts_ns,
            reason: Self::NO_REASON,
            operator: user.saturating_add(1),
        }
    }

    /// The failure that tipped it; `None` for an operator's ban.
    pub fn tipped_by(&self) -> Option<Reason> {
        Reason::ALL.get(self.reason as usize).copied()
    }

    /// The number of the operator's user; `None` for a ban of the kernel.
    pub const fn ordered_by(&self) -> Option<u32> {
        self.operator.checked_sub(1)
    }

    /// Whether it is in force at `now_ns`.
    #[inline(always)]
    pub fn holds(&self, now_ns: u64) -> bool {
        !is_past(self.until_ns, now_ns)
    }

    /// The ban that follows `before`, tipped by `reason`. It is twice as long, up to the longest. It has the first
    /// length again if `before` ended long ago or was an operator's, whose lengths have other reasons. A ban in force
    /// stays as it is: what was in flight when it began is not a new offence.
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

/// Whether `moment` is now or before. Another processor's clock may be a little ahead, so the difference is signed.
#[inline(always)]
pub(crate) fn is_past(moment_ns: u64, now_ns: u64) -> bool {
    now_ns.wrapping_sub(moment_ns) as i64 >= 0
}
