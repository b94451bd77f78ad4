//! Limits per identity: open connections, handshakes, requests and bytes per second, over all workers; and per tenant.
//! In: limits, and the time. Out: a permit, an excess, or a pause. Atomics only. Rates are arguments,
//! so a changed limit keeps what has been counted.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::identity::{IdentityLimits, TenantLimits};

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// A rate, as the moment at which everything taken is paid for (the generic cell rate algorithm of ITU-T I.371): one
/// number for any rate. All times are of one clock of the caller, since its start.
#[derive(Debug, Default)]
struct Meter {
    paid_at_nanoseconds: AtomicU64,
}

impl Meter {
    /// Takes one of `per_second`, with a burst of as many. Beyond that it takes nothing, and returns the time until one
    /// can be taken.
    fn try_take(&self, per_second: NonZeroU64, now: Duration) -> Result<(), Duration> {
        let cost = cost(1, per_second);
        // The sum of the costs, not one second: each is rounded up, so they take a little longer.
        let burst = cost.saturating_mul(per_second.get());
        let now = nanoseconds(now);
        let after = |paid_at: u64| paid_at.max(now).saturating_add(cost);
        let take = |paid_at: u64| Some(after(paid_at)).filter(|paid_at| paid_at - now <= burst);
        let taken =
            self.paid_at_nanoseconds
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        match taken {
            Ok(_) => Ok(()),
            Err(paid_at) => Err(Duration::from_nanos(after(paid_at) - now - burst)),
        }
    }

    /// Takes an amount that has been used already. Returns the pause before the next one; a burst needs none.
    fn charge(&self, amount: u64, rate: ByteRate, now: Duration) -> Duration {
        let cost = cost(amount, rate.per_second);
        let now = nanoseconds(now);
        let take = |paid_at: u64| Some(paid_at.max(now).saturating_add(cost));
        let updated =
            self.paid_at_nanoseconds
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let (Ok(paid_at) | Err(paid_at)) = updated;
        let owed = paid_at.max(now).saturating_add(cost) - now;
        Duration::from_nanos(owed).saturating_sub(rate.burst_lasts())
    }

    fn is_paid(&self, now: Duration) -> bool {
        self.paid_at_nanoseconds.load(Ordering::Relaxed) <= nanoseconds(now)
    }
}

/// The time of `amount` at a rate, rounded up: never grants more than the rate.
fn cost(amount: u64, per_second: NonZeroU64) -> u64 {
    let nanoseconds = u128::from(amount) * NANOSECONDS_PER_SECOND;
    let cost = nanoseconds.div_ceil(u128::from(per_second.get()));
    u64::try_from(cost).unwrap_or(u64::MAX)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The limit that an identity has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Its maximum of open connections.
    Connections(u32),
    /// Its maximum of handshakes per second.
    Handshakes(u32),
}

impl fmt::Display for Excess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Connections(max) => write!(formatter, "max_connections = {max}"),
            Excess::Handshakes(rate) => write!(formatter, "handshakes_per_second = {rate}"),
        }
    }
}

/// The limit that a request of an identity is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestExcess {
    /// Its maximum of requests per second. The same request may come again after this time.
    Rate(u32, Duration),
    /// Its maximum of requests in flight: when one ends is not known.
    InFlight(u32),
}

impl fmt::Display for RequestExcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestExcess::Rate(rate, _) => write!(formatter, "requests_per_second = {rate}"),
            RequestExcess::InFlight(max) => write!(formatter, "max_requests_in_flight = {max}"),
        }
    }
}

/// Bytes per second, and the burst after a long enough pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate {
    per_second: NonZeroU64,
    burst_bytes: u64,
}

impl ByteRate {
    /// The rate of `limits`, if they have one. The default burst is one second's worth.
    pub fn of(limits: &IdentityLimits) -> Option<Self> {
        ByteRate::new(limits.bytes_per_second, limits.bytes_burst)
    }

    fn new(per_second: Option<u64>, burst_bytes: Option<u64>) -> Option<Self> {
        let per_second = per_second.and_then(NonZeroU64::new)?;
        Some(ByteRate {
            per_second,
            burst_bytes: burst_bytes.unwrap_or(per_second.get()),
        })
    }

    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.per_second.get()
    }

    /// Burst in bytes.
    pub fn burst_bytes(self) -> u64 {
        self.burst_bytes
    }

    fn burst_lasts(self) -> Duration {
        Duration::from_nanos(cost(self.burst_bytes, self.per_second))
    }
}

/// What one identity uses now.
#[derive(Debug, Default)]
pub struct Usage {
    open: AtomicU32,
    handshakes: Meter,
    requests: Meter,
    requests_in_flight: AtomicU32,
    bytes: Meter,
    slowed: Slowed,
}

/// How an identity was slowed down.
#[derive(Debug, Default)]
struct Slowed {
    /// The end of its last pause; zero before the first.
    until_nanoseconds: AtomicU64,
    /// The sum of its pauses, over its connections.
    total_nanoseconds: AtomicU64,
}

/// The right of an identity to one more connection; released when dropped.
#[derive(Debug)]
pub struct Permit {
    usage: Arc<Usage>,
    rate: Option<ByteRate>,
    requests_per_second: Option<u32>,
    requests_in_flight_max: Option<u32>,
}

impl Usage {
    /// Admits a connection after its handshake. A refused connection has used its handshake all the same.
    ///
    /// # Errors
    ///
    /// The limit that the identity has reached.
    pub fn admit(
        self: &Arc<Self>,
        limits: &IdentityLimits,
        now: Duration,
    ) -> Result<Permit, Excess> {
        if let Some(rate) = limits.handshakes_per_second {
            let per_second = NonZeroU64::new(u64::from(rate));
            if per_second.is_none_or(|rate| self.handshakes.try_take(rate, now).is_err()) {
                return Err(Excess::Handshakes(rate));
            }
        }
        let max = limits.max_connections.unwrap_or(u32::MAX);
        let below_max = |open: u32| (open < max).then(|| open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_max)
            .map_err(|_| Excess::Connections(max))?;
        Ok(Permit {
            usage: Arc::clone(self),
            rate: ByteRate::of(limits),
            requests_per_second: limits.requests_per_second,
            requests_in_flight_max: limits.max_requests_in_flight,
        })
    }

    /// Whether it can be forgotten: it has no connection, and everything taken is paid for.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.open.load(Ordering::Relaxed) == 0
            && self.handshakes.is_paid(now)
            && self.requests.is_paid(now)
            && self.bytes.is_paid(now)
    }

    /// Whether it has paused within the last `memory`.
    pub fn is_slowed(&self, now: Duration, memory: Duration) -> bool {
        let until = self.slowed.until_nanoseconds.load(Ordering::Relaxed);
        until > 0 && nanoseconds(now) <= until.saturating_add(nanoseconds(memory))
    }

    /// The sum of its pauses so far, over its connections.
    pub fn slowed_for(&self) -> Duration {
        Duration::from_nanos(self.slowed.total_nanoseconds.load(Ordering::Relaxed))
    }
}

impl Permit {
    /// Counts bytes from the client. Returns the pause before the next ones are read.
    pub fn charge(&self, bytes: u64, now: Duration) -> Duration {
        match self.rate {
            None => Duration::ZERO,
            Some(rate) => self.usage.bytes.charge(bytes, rate, now),
        }
    }

    /// Admits a request, which is in flight until [`end_request`](Self::end_request). A request beyond the maximum in
    /// flight has used its part of the rate all the same.
    ///
    /// # Errors
    ///
    /// The limit that the identity has reached.
    pub fn begin_request(&self, now: Duration) -> Result<(), RequestExcess> {
        if let Some(rate) = self.requests_per_second
            && let Some(per_second) = NonZeroU64::new(u64::from(rate))
        {
            let taken = self.usage.requests.try_take(per_second, now);
            taken.map_err(|wait| RequestExcess::Rate(rate, wait))?;
        }
        if let Some(max) = self.requests_in_flight_max {
            let below_max = |in_flight: u32| (in_flight < max).then(|| in_flight + 1);
            let in_flight = &self.usage.requests_in_flight;
            in_flight
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_max)
                .map_err(|_| RequestExcess::InFlight(max))?;
        }
        Ok(())
    }

    /// Records that a request is over which was admitted.
    pub fn end_request(&self) {
        if self.requests_in_flight_max.is_some() {
            let in_flight = &self.usage.requests_in_flight;
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Records that received bytes wait for `pause`. Returns true for the identity's first pause within `memory`, so
    /// that an operator reads of it once.
    pub fn pause(&self, pause: Duration, now: Duration, memory: Duration) -> bool {
        let is_known = self.usage.is_slowed(now, memory);
        let slowed = &self.usage.slowed;
        let until = nanoseconds(now + pause);
        let before = slowed.until_nanoseconds.fetch_max(until, Ordering::Relaxed);
        slowed
            .total_nanoseconds
            .fetch_add(nanoseconds(pause), Ordering::Relaxed);
        // Of two connections that pause at once, the first reports.
        !is_known && before < nanoseconds(now)
    }

    /// The identity's rate of bytes, if it has one.
    pub fn rate(&self) -> Option<ByteRate> {
        self.rate
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one tenant uses now.
#[derive(Debug, Default)]
pub struct TenantUsage {
    requests: Meter,
    bytes: Meter,
}

impl TenantUsage {
    /// Admits a request. Its content is [charged](Self::charge) when it is over: until what was charged beyond the burst is paid for,
    /// no other is admitted.
    ///
    /// # Errors
    ///
    /// The tenant is at a limit. The same request may come again after this time.
    pub fn begin_request(&self, limits: &TenantLimits, now: Duration) -> Result<(), Duration> {
        if let Some(rate) = ByteRate::new(limits.bytes_per_second, limits.bytes_burst) {
            let owed = self.bytes.charge(0, rate, now);
            if !owed.is_zero() {
                return Err(owed);
            }
        }
        let per_second = limits.requests_per_second.map(u64::from);
        match per_second.and_then(NonZeroU64::new) {
            Some(per_second) => self.requests.try_take(per_second, now),
            None => Ok(()),
        }
    }

    /// Charges the content of a request that is over.
    pub fn charge(&self, bytes: u64, limits: &TenantLimits, now: Duration) {
        if let Some(rate) = ByteRate::new(limits.bytes_per_second, limits.bytes_burst) {
            self.bytes.charge(bytes, rate, now);
        }
    }

    /// Whether it can be forgotten: everything taken is paid for.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.requests.is_paid(now) && self.bytes.is_paid(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).unwrap()
    }

    fn limits(connections: u32, handshakes: u32, bytes: u64) -> IdentityLimits {
        let given = |limit: u32| (limit > 0).then_some(limit);
        IdentityLimits {
            max_connections: given(connections),
            handshakes_per_second: given(handshakes),
            bytes_per_second: (bytes > 0).then_some(bytes),
            bytes_burst: None,
            ..IdentityLimits::default()
        }
    }

    fn byte_rate(per_second: u64) -> ByteRate {
        ByteRate::of(&limits(0, 0, per_second)).unwrap()
    }

    proptest! {
        #[test]
        fn never_more_is_taken_than_the_rate_and_a_second_of_it_at_once(
            per_second in 1u64..200,
            steps in prop::collection::vec(0u64..3_000_000_000, 1..200),
        ) {
            let meter = Meter::default();
            let (mut now, mut taken) = (SECOND, 0u64);
            for step in steps {
                now += Duration::from_nanos(step);
                // Tries far more than can be granted.
                taken += (0..3 * per_second).take_while(|_| meter.try_take(rate(per_second), now).is_ok()).count() as u64;
                let most = (now - SECOND).as_nanos() * u128::from(per_second) / NANOSECONDS_PER_SECOND;
                prop_assert!(u128::from(taken) <= most + u128::from(per_second));
            }
        }

        #[test]
        fn who_comes_again_as_told_is_served_and_not_sooner(per_second in 1u64..1000, milliseconds in 0u64..1000) {
            let meter = Meter::default();
            let now = SECOND + Duration::from_millis(milliseconds);
            while meter.try_take(rate(per_second), SECOND).is_ok() {}
            if let Err(wait) = meter.try_take(rate(per_second), now) {
                let sooner = now + wait - Duration::from_nanos(1);
                prop_assert!(meter.try_take(rate(per_second), sooner).is_err());
                prop_assert!(meter.try_take(rate(per_second), now + wait).is_ok());
            }
        }

        #[test]
        fn a_quiet_second_gives_the_whole_rate_back(per_second in 1u64..1000, uses in 0u64..10) {
            let meter = Meter::default();
            let take_all = |now| (0..=per_second).filter(|_| meter.try_take(rate(per_second), now).is_ok()).count() as u64;
            for use_number in 1..=uses {
                prop_assert_eq!(take_all(2 * SECOND * use_number as u32), per_second);
            }
        }

        #[test]
        fn whoever_pauses_as_told_sends_no_more_than_the_rate(
            per_second in 1000u64..10_000_000_000,
            amounts in prop::collection::vec(1u64..70_000, 1..300),
        ) {
            let meter = Meter::default();
            let (mut now, mut sent) = (SECOND, 0u64);
            for amount in amounts {
                // The last amount may exceed what was left; nothing else may.
                let most = (now - SECOND).as_nanos() * u128::from(per_second) / NANOSECONDS_PER_SECOND;
                prop_assert!(u128::from(sent) <= most + u128::from(per_second) + 70_000);
                sent += amount;
                now += meter.charge(amount, byte_rate(per_second), now);
            }
        }
    }

    #[test]
    fn threads_share_one_meter() {
        let meter = Meter::default();
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                (0..1000)
                    .filter(|_| meter.try_take(rate(700), SECOND).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 700);
        let charge = || {
            (0..1000)
                .map(|_| meter.charge(1, byte_rate(1000), 10 * SECOND))
                .max()
        };
        let longest = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(charge)).collect();
            let longest = threads.into_iter().map(|thread| thread.join().unwrap());
            longest.max().unwrap()
        });
        // 4000 bytes at 1000 a second, one second's worth of them at once.
        assert_eq!(longest, Some(3 * SECOND));
    }

    #[test]
    fn connections_are_counted_and_released() {
        let usage = Arc::new(Usage::default());
        let two = limits(2, 0, 0);
        let first = usage.admit(&two, SECOND).unwrap();
        let _second = usage.admit(&two, SECOND).unwrap();
        assert_eq!(
            usage.admit(&two, SECOND).unwrap_err(),
            Excess::Connections(2)
        );
        assert!(!usage.is_idle(SECOND));
        drop(first);
        assert!(usage.admit(&two, SECOND).is_ok());
    }

    #[test]
    fn a_refused_connection_has_used_its_handshake_and_a_refused_handshake_has_not() {
        let usage = Arc::new(Usage::default());
        let both = limits(1, 2, 0);
        let _held = usage.admit(&both, SECOND).unwrap();
        assert_eq!(
            usage.admit(&both, SECOND).unwrap_err(),
            Excess::Connections(1)
        );
        for _ in 0..10 {
            assert_eq!(
                usage.admit(&both, SECOND).unwrap_err(),
                Excess::Handshakes(2)
            );
        }
        assert_eq!(
            usage.admit(&both, SECOND + SECOND / 2).unwrap_err(),
            Excess::Connections(1)
        );
    }

    #[test]
    fn requests_beyond_the_rate_hear_when_to_come_again() {
        let usage = Arc::new(Usage::default());
        let two = IdentityLimits {
            requests_per_second: Some(2),
            ..IdentityLimits::default()
        };
        // Connections of one identity share its rate.
        let [one, other] = [(); 2].map(|()| usage.admit(&two, SECOND).unwrap());
        assert_eq!(one.begin_request(SECOND), Ok(()));
        assert_eq!(other.begin_request(SECOND), Ok(()));
        let excess = RequestExcess::Rate(2, SECOND / 2);
        assert_eq!(one.begin_request(SECOND), Err(excess));
        drop((one, other));
        assert!(!usage.is_idle(SECOND));
        let later = SECOND + SECOND / 4;
        let one = usage.admit(&two, later).unwrap();
        assert_eq!(
            one.begin_request(later),
            Err(RequestExcess::Rate(2, SECOND / 4))
        );
        assert_eq!(one.begin_request(later + SECOND / 4), Ok(()));
    }

    #[test]
    fn requests_of_a_tenant_are_limited_by_number_and_by_content() {
        let tenant = TenantUsage::default();
        let limits = TenantLimits {
            requests_per_second: Some(2),
            bytes_per_second: Some(1000),
            bytes_burst: Some(3000),
        };
        assert_eq!(tenant.begin_request(&limits, SECOND), Ok(()));
        assert_eq!(tenant.begin_request(&limits, SECOND), Ok(()));
        let wait = SECOND / 2;
        assert_eq!(tenant.begin_request(&limits, SECOND), Err(wait));
        assert_eq!(tenant.begin_request(&limits, SECOND + wait), Ok(()));
        // A burst, and two seconds of it beyond.
        let now = 10 * SECOND;
        tenant.charge(5000, &limits, now);
        assert_eq!(tenant.begin_request(&limits, now), Err(2 * SECOND));
        assert_eq!(tenant.begin_request(&limits, now + 2 * SECOND), Ok(()));
        assert!(!tenant.is_idle(now + 2 * SECOND));
        assert!(tenant.is_idle(now + 5 * SECOND));
        // Nothing is counted for which there is no limit.
        let unlimited = TenantUsage::default();
        unlimited.charge(u64::MAX, &TenantLimits::default(), now);
        assert_eq!(unlimited.begin_request(&limits, now), Ok(()));
    }

    #[test]
    fn requests_in_flight_are_counted_over_all_connections() {
        let usage = Arc::new(Usage::default());
        let two = IdentityLimits {
            max_requests_in_flight: Some(2),
            ..IdentityLimits::default()
        };
        let [one, other] = [(); 2].map(|()| usage.admit(&two, SECOND).unwrap());
        assert_eq!(one.begin_request(SECOND), Ok(()));
        assert_eq!(other.begin_request(SECOND), Ok(()));
        assert_eq!(one.begin_request(SECOND), Err(RequestExcess::InFlight(2)));
        other.end_request();
        assert_eq!(one.begin_request(SECOND), Ok(()));
    }

    #[test]
    fn it_is_idle_once_everything_is_paid_for() {
        let usage = Arc::new(Usage::default());
        let permit = usage.admit(&limits(0, 1, 1000), SECOND).unwrap();
        assert!(permit.rate().is_some());
        assert_eq!(permit.charge(3000, SECOND), 2 * SECOND);
        drop(permit);
        assert!(!usage.is_idle(3 * SECOND));
        assert!(usage.is_idle(4 * SECOND));
    }

    #[test]
    fn a_batch_that_fits_into_the_burst_passes_at_once_and_the_next_one_late() {
        let usage = Arc::new(Usage::default());
        let burst = IdentityLimits {
            bytes_burst: Some(800_000),
            ..limits(0, 0, 64_000)
        };
        let permit = usage.admit(&burst, SECOND).unwrap();
        // 800 KB, read by 64 KB at a time: five seconds, the time-out of a common exporter, would not do at the rate alone.
        let pauses: Duration = (0..12).map(|_| permit.charge(64_000, SECOND)).sum();
        assert_eq!(pauses, Duration::ZERO);
        // What has not been paid for yet is 768,000 bytes and these.
        assert_eq!(permit.charge(96_000, SECOND), SECOND);
        assert_eq!(permit.charge(0, 2 * SECOND), Duration::ZERO);
    }

    #[test]
    fn an_identity_that_is_slowed_is_told_of_once_and_anew_when_that_is_long_over() {
        const MEMORY: Duration = Duration::from_secs(60);
        let usage = Arc::new(Usage::default());
        let [one, other] = [(); 2].map(|()| usage.admit(&limits(0, 0, 1000), SECOND).unwrap());
        assert!(!usage.is_slowed(SECOND, MEMORY));
        assert!(one.pause(5 * SECOND, SECOND, MEMORY));
        assert!(!other.pause(3 * SECOND, 2 * SECOND, MEMORY));
        assert_eq!(usage.slowed_for(), 8 * SECOND);
        assert!(usage.is_slowed(6 * SECOND + MEMORY, MEMORY));
        assert!(!usage.is_slowed(7 * SECOND + MEMORY, MEMORY));
        assert!(one.pause(SECOND, 7 * SECOND + MEMORY, MEMORY));
    }

    #[test]
    fn without_a_limit_nothing_is_refused_and_nobody_pauses() {
        let usage = Arc::new(Usage::default());
        let permits: Vec<_> = (0..1000)
            .map(|_| usage.admit(&IdentityLimits::default(), SECOND).unwrap())
            .collect();
        assert!(
            permits
                .iter()
                .all(|permit| permit.charge(1 << 30, SECOND).is_zero())
        );
        drop(permits);
        assert!(usage.is_idle(SECOND));
    }
}
