//! The table of sources, for hosts where the kernel may not keep one: every worker writes in it.
//! In: a connection that was accepted, later how its handshake came out. Out: admission or a refusal; a ban when one
//! begins. On all workers, twice per connection and never per byte. Each source belongs to one of many shards: a worker
//! locks one for the change of one account, and two workers rarely meet at it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::{ACCOUNTS_MAX, BANS_MAX, Ban, Reason, Source};
use gateway_core::sources::{
    Bounds, Counts, Outcome, PendingFlow, Policy, Refusal, SourceState, Sources,
};

use super::clock::now_ns;

/// Far more than workers, so that two of them rarely want the same shard. A shard without sources takes 300 bytes.
const SHARDS: usize = 256;

/// What a shard may hold; all of them together hold as much as the kernel's maps.
const BOUNDS: Bounds = Bounds {
    accounts_max: ACCOUNTS_MAX as usize / SHARDS,
    bans_max: BANS_MAX as usize / SHARDS,
};

/// Every source, for all workers.
#[derive(Debug)]
pub struct SourceTable {
    shards: Box<[Shard]>,
    /// Keyed by chance: no peer can choose sources that fall into one shard.
    spread: RandomState,
}

/// In cache lines of its own: neighbours do not slow each other down.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Sources>);

/// A connection that was admitted, until it is settled. One that is dropped instead counts as the gateway's own fault,
/// and is not held against its source.
#[derive(Debug)]
#[must_use = "its source has a pending flow until it is settled"]
pub struct Admitted {
    table: Arc<SourceTable>,
    /// As it was when the connection came.
    policy: Arc<Policy>,
    flow: Option<PendingFlow>,
}

impl Default for SourceTable {
    fn default() -> Self {
        let shard = || Shard(Mutex::new(Sources::new(BOUNDS)));
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            spread: RandomState::new(),
        }
    }
}

impl SourceTable {
    /// Decides on a connection that was just accepted.
    ///
    /// # Errors
    /// Why it is refused; mode `monitor` refuses no source.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        policy: &Arc<Policy>,
    ) -> Result<Admitted, Refusal> {
        let candidate = policy.candidate(address);
        let now_ns = now_ns();
        let flow = self
            .shard(&candidate.source)
            .admit(candidate, now_ns, &policy.settings)?;
        Ok(Admitted {
            table: Arc::clone(self),
            policy: Arc::clone(policy),
            flow: Some(flow),
        })
    }

    /// Bans the source of an address by an operator's word, in the place of any ban that it has.
    pub fn ban(&self, address: IpAddr, ban: Ban) {
        let source = Source::of(address);
        self.shard(&source).ban(source, ban);
    }

    /// Lifts the ban of the source of an address. Returns whether one was in force.
    pub fn unban(&self, address: IpAddr) -> bool {
        let source = Source::of(address);
        self.shard(&source).unban(&source, now_ns())
    }

    /// What is held against each source that is known, by address; of an IPv6 /64, its first address. Reads one shard after
    /// the other, so what happens meanwhile may be in it or not.
    pub fn sources(&self) -> BTreeMap<IpAddr, SourceState> {
        let now_ns = now_ns();
        let mut known = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.lock();
            known.extend(shard.sources(now_ns).map(|(source, state)| {
                let address = Ipv6Addr::from(source.0).to_canonical();
                (address, state)
            }));
        }
        known
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<(Source, Ban)> {
        let now_ns = now_ns();
        let mut bans = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            bans.extend(shard.bans().filter(|(_, ban)| ban.holds(now_ns)));
        }
        bans
    }

    /// What has happened since the start.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            sum.add(shard.lock().counts());
        }
        sum
    }

    /// The shard that a source belongs to, locked.
    fn shard(&self, source: &Source) -> MutexGuard<'_, Sources> {
        let index = self.spread.hash_one(source) as usize % self.shards.len();
        self.shards[index].lock()
    }
}

impl Shard {
    /// A worker that panicked in here has left one account as it was before or after, and that is good enough.
    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Says how the handshake came out. Returns the ban of its source if one begins.
    pub fn settle(mut self, outcome: Outcome) -> Option<Ban> {
        self.end(outcome)
    }

    fn end(&mut self, outcome: Outcome) -> Option<Ban> {
        let flow = self.flow.take()?;
        let source = flow.source;
        let now_ns = now_ns();
        let settings = &self.policy.settings;
        self.table
            .shard(&source)
            .settle(flow, outcome, now_ns, settings)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let ours = Outcome {
            verdict: Reason::Internal,
            received_bytes: 0,
        };
        let _ = self.end(ours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_common::{Settings, mode};
    use gateway_core::sources::Lists;

    fn enforce() -> Arc<Policy> {
        Arc::new(Policy {
            settings: Settings::new(mode::ENFORCE),
            lists: Lists::default(),
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn failed() -> Outcome {
        Outcome {
            verdict: Reason::UnknownIssuer,
            received_bytes: 2000,
        }
    }

    #[test]
    fn the_shards_together_hold_as_much_as_the_kernels_maps() {
        assert_eq!(BOUNDS.accounts_max * SHARDS, ACCOUNTS_MAX as usize);
        assert_eq!(BOUNDS.bans_max * SHARDS, BANS_MAX as usize);
    }

    #[test]
    fn the_eleventh_heavy_failure_is_a_ban_for_that_source_alone() {
        let (table, policy) = (Arc::<SourceTable>::default(), enforce());
        let offender = ip("192.0.2.1");
        for attempt in 1..=11 {
            let ban = table.admit(offender, &policy).unwrap().settle(failed());
            assert_eq!(ban.is_some(), attempt == 11, "attempt {attempt}");
        }
        let refused = table.admit(offender, &policy).unwrap_err();
        assert_eq!(refused, Refusal::Banned);
        // As a listener on `[::]` sees the same address.
        let refused = table.admit(ip("::ffff:192.0.2.1"), &policy).unwrap_err();
        assert_eq!(refused, Refusal::Banned);
        assert!(table.admit(ip("192.0.2.2"), &policy).is_ok());
        let sources = table.sources();
        let ban = sources[&offender].ban.unwrap();
        assert_eq!(ban.lasts_ns, policy.settings.ban_first_ns);
        assert!(table.unban(offender));
        assert!(table.admit(offender, &policy).is_ok());
        assert_eq!(table.counts().flow(Reason::UnknownIssuer), 11);
    }

    #[test]
    fn an_operators_ban_holds_until_it_ends() {
        let (table, policy) = (Arc::<SourceTable>::default(), enforce());
        let hour_ns = 3_600_000_000_000;
        let ban = Ban::by_operator(0, now_ns(), hour_ns);
        table.ban(ip("2001:db8::1"), ban);
        let refused = table.admit(ip("2001:db8::2"), &policy).unwrap_err();
        assert_eq!(refused, Refusal::Banned, "the /64 is one source");
        let past = Ban::by_operator(0, now_ns(), 0);
        table.ban(ip("2001:db8::1"), past);
        assert!(table.admit(ip("2001:db8::2"), &policy).is_ok());
    }

    #[test]
    fn a_connection_that_is_dropped_is_not_held_against_its_source() {
        let (table, policy) = (Arc::<SourceTable>::default(), enforce());
        for _ in 0..1000 {
            drop(table.admit(ip("192.0.2.1"), &policy).unwrap());
        }
        assert_eq!(table.counts().flow(Reason::Internal), 1000);
        assert!(table.sources().is_empty());
    }

    #[test]
    fn workers_share_one_cap_per_source_and_lose_no_count() {
        let (table, policy) = (Arc::<SourceTable>::default(), enforce());
        let one = ip("192.0.2.1");
        let most = policy.settings.pending_max as usize;
        let held: Vec<Admitted> = std::thread::scope(|scope| {
            let take = || -> Vec<Admitted> {
                let tries = (0..most).map(|_| table.admit(one, &policy));
                tries.flatten().collect()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            let taken = threads.into_iter().map(|thread| thread.join().unwrap());
            taken.flatten().collect()
        });
        assert_eq!(held.len(), most);
        let others: u64 = std::thread::scope(|scope| {
            let work = |thread: u8| {
                let mut bans = 0;
                for number in 0..=255 {
                    let address = IpAddr::from([10, 0, thread, number]);
                    for _ in 0..11 {
                        let admitted = table.admit(address, &policy).unwrap();
                        bans += u64::from(admitted.settle(failed()).is_some());
                    }
                }
                bans
            };
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || work(n))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(others, 4 * 256);
        assert_eq!(table.sources()[&one].account.pending, most as u64);
        drop(held);
        let counts = table.counts();
        assert_eq!(counts.bans_begun, 4 * 256);
        assert_eq!(counts.flow(Reason::UnknownIssuer), 4 * 256 * 11);
        assert_eq!(counts.refused(Refusal::TooManyPending), 3 * most as u64);
        assert_eq!(table.sources().len(), 4 * 256);
    }
}
