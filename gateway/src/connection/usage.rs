//! What each identity with limits uses: one entry for all workers, looked up once per connection.
//! In: a verified peer. Out: a permit, or the limit that its identity has reached. One lock, held for a map's lookup; bounded, and
//! idle entries are removed. Outlives every reload.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateway_core::certificate::Identity;
use gateway_core::limit::{ByteRate, Excess, Permit, RequestExcess, Usage};
use gateway_core::limits;

use super::TenantTable;
use super::sweep::Sweep;
use crate::tls::VerifiedPeer;

/// The usage of all identities and tenants with limits.
#[derive(Debug)]
pub struct UsageTable {
    started: Instant,
    tenants: TenantTable,
    inner: Mutex<UsageState>,
}

#[derive(Debug)]
struct UsageState {
    usages: HashMap<Identity, Arc<Usage>>,
    sweep: Sweep,
    /// Identities that were slowed down lately.
    slowed: HashMap<Identity, Arc<Usage>>,
}

impl Default for UsageState {
    fn default() -> Self {
        let bounds = limits::IDENTITY_RECORDS_MIN..=limits::IDENTITY_RECORDS_MAX;
        UsageState {
            usages: HashMap::new(),
            sweep: Sweep::new(bounds),
            slowed: HashMap::new(),
        }
    }
}

/// Why an authenticated client is rejected.
#[derive(Debug, thiserror::Error)]
pub enum OverLimit {
    /// Its identity has reached a limit of its rule.
    #[error("{0} of the identity {kind} {name:?}", kind = .1.kind.label(), name = .1.name)]
    Identity(Excess, Identity),
    /// The table is full.
    #[error(
        "more than {} identities with limits at once",
        limits::IDENTITY_RECORDS_MAX
    )]
    TooManyIdentities,
}

/// One connection's permit from its identity's limits; dropping it releases it.
#[derive(Debug)]
pub struct UsagePermit {
    started: Instant,
    permit: Permit,
}

impl Default for UsageTable {
    fn default() -> Self {
        UsageTable {
            started: Instant::now(),
            tenants: TenantTable::default(),
            inner: Mutex::default(),
        }
    }
}

impl UsageTable {
    /// Counts a connection of `peer`. `None`: its rule sets no limit, so nothing is counted.
    pub fn admit(&self, peer: &VerifiedPeer) -> Result<Option<UsagePermit>, OverLimit> {
        let limits = peer.limits();
        if limits == Default::default() {
            return Ok(None);
        }
        let identity = peer.identity();
        let now = self.started.elapsed();
        // The lock lasts over `admit`, so that an entry is never removed between its lookup and its first use.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = inner
            .usage(identity, now)
            .ok_or(OverLimit::TooManyIdentities)?;
        let permit = usage.admit(&limits, now);
        Ok(Some(UsagePermit {
            started: self.started,
            permit: permit.map_err(|excess| OverLimit::Identity(excess, identity.clone()))?,
        }))
    }

    /// What tenants use.
    pub fn tenants(&self) -> &TenantTable {
        &self.tenants
    }

    /// Lists `peer`'s identity among those that are slowed down.
    pub fn note_slowed(&self, peer: &VerifiedPeer) {
        let now = self.started.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.note_slowed(peer.identity(), now);
    }

    /// Which identities were slowed down lately, and for how long in all.
    pub fn slowed(&self) -> Vec<(Identity, Duration)> {
        let now = self.started.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget_slowed(now);
        let slowed = inner.slowed.iter();
        slowed
            .map(|(key, usage)| (key.clone(), usage.slowed_for()))
            .collect()
    }
}

impl UsageState {
    /// The usage of an identity, new if need be; `None` when the table is full.
    fn usage(&mut self, identity: &Identity, now: Duration) -> Option<&Arc<Usage>> {
        if !self.usages.contains_key(identity) {
            let has_room = self
                .sweep
                .has_room(&mut self.usages, now, |usage| usage.is_idle(now));
            if !has_room {
                return None;
            }
        }
        Some(self.usages.entry(identity.clone()).or_default())
    }

    /// Beyond the bound no identity is listed; the log has named it.
    fn note_slowed(&mut self, identity: &Identity, now: Duration) {
        let Some(usage) = self.usages.get(identity) else {
            return;
        };
        let usage = Arc::clone(usage);
        if self.slowed.len() >= limits::SLOWED_IDENTITIES_MAX {
            self.forget_slowed(now);
        }
        if self.slowed.len() < limits::SLOWED_IDENTITIES_MAX {
            self.slowed.insert(identity.clone(), usage);
        }
    }

    fn forget_slowed(&mut self, now: Duration) {
        self.slowed
            .retain(|_, usage| usage.is_slowed(now, limits::SLOWED_MEMORY));
    }
}

impl UsagePermit {
    /// Charges bytes from the client, and returns until when the next read has to wait.
    pub fn charge(&self, bytes: u64) -> Option<Instant> {
        self.permit.rate()?;
        let now = Instant::now();
        let pause = self.permit.charge(bytes, now - self.started);
        (!pause.is_zero()).then(|| now + pause)
    }

    /// Notes that received bytes wait until then. Returns true where an operator should hear of it.
    pub fn pause(&self, now: Instant, until: Instant) -> bool {
        let pause = until.saturating_duration_since(now);
        self.permit
            .pause(pause, now - self.started, limits::SLOWED_MEMORY)
    }

    /// Admits a request, which is in flight until [`Self::end_request`].
    pub fn begin_request(&self, now: Instant) -> Result<(), RequestExcess> {
        self.permit
            .begin_request(now.saturating_duration_since(self.started))
    }

    /// Notes that a request is over which was admitted.
    pub fn end_request(&self) {
        self.permit.end_request();
    }

    /// The rate of its bytes, if it has one.
    pub fn rate(&self) -> Option<ByteRate> {
        self.permit.rate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::authority::TrustDomain;
    use gateway_core::certificate::NameKind;
    use gateway_core::identity::IdentityLimits;

    const LIMITS: IdentityLimits = IdentityLimits {
        max_connections: Some(1),
        handshakes_per_second: Some(1),
        bytes_per_second: None,
        bytes_burst: None,
        requests_per_second: None,
        max_requests_in_flight: None,
    };

    fn key(number: usize) -> Identity {
        Identity {
            name: format!("agent-{number}"),
            ..Identity::default()
        }
    }

    #[test]
    fn the_same_text_of_another_kind_or_trust_domain_is_counted_by_itself() {
        let mut inner = UsageState::default();
        let of_kind = |kind| Identity { kind, ..key(1) };
        let of_domain = |text: &str| Identity {
            trust_domain: Some(TrustDomain::parse(text).unwrap()),
            ..of_kind(NameKind::Uri)
        };
        let identities = [
            of_kind(NameKind::Uri),
            of_kind(NameKind::CommonName),
            of_domain("example.org"),
            of_domain("example.net"),
        ];
        for identity in &identities {
            inner.usage(identity, Duration::ZERO).unwrap();
        }
        assert_eq!(inner.usages.len(), identities.len());
    }

    #[test]
    fn idle_entries_are_removed_and_those_in_use_are_not() {
        let mut inner = UsageState::default();
        let in_use = Arc::clone(inner.usage(&key(0), Duration::ZERO).unwrap());
        let _permit = in_use.admit(&LIMITS, Duration::ZERO).unwrap();
        for number in 1..10 * limits::IDENTITY_RECORDS_MIN {
            let now = Duration::from_secs(10 * number as u64);
            let usage = inner.usage(&key(number), now).unwrap();
            drop(usage.admit(&LIMITS, now));
            assert!(inner.usages.len() <= limits::IDENTITY_RECORDS_MIN + 1);
        }
        let again = inner.usage(&key(0), Duration::MAX).unwrap();
        assert!(Arc::ptr_eq(again, &in_use));
    }

    #[test]
    fn no_more_identities_are_listed_as_slowed_than_there_is_room_for_and_old_ones_make_it() {
        let mut inner = UsageState::default();
        let slow = |inner: &mut UsageState, number, now| {
            let limits = IdentityLimits {
                bytes_per_second: Some(1000),
                ..IdentityLimits::default()
            };
            let permit = inner.usage(&key(number), now).unwrap().admit(&limits, now);
            assert!(
                permit
                    .unwrap()
                    .pause(Duration::ZERO, now, limits::SLOWED_MEMORY)
            );
            inner.note_slowed(&key(number), now);
        };
        let now = Duration::from_secs(1);
        for number in 0..limits::SLOWED_IDENTITIES_MAX + 10 {
            slow(&mut inner, number, now);
        }
        assert_eq!(inner.slowed.len(), limits::SLOWED_IDENTITIES_MAX);
        slow(&mut inner, 1_000_000, now + 2 * limits::SLOWED_MEMORY);
        assert_eq!(inner.slowed.len(), 1);
    }

    #[test]
    fn a_full_table_refuses_new_identities_and_serves_those_it_has() {
        let mut inner = UsageState::default();
        let now = Duration::ZERO;
        for number in 0..limits::IDENTITY_RECORDS_MAX {
            let usage = inner.usage(&key(number), now).unwrap();
            // A handshake that is not paid for yet keeps the entry.
            drop(usage.admit(&LIMITS, now).unwrap());
        }
        let newcomer = key(limits::IDENTITY_RECORDS_MAX);
        assert!(inner.usage(&newcomer, now).is_none());
        assert!(inner.usage(&key(0), now).is_some());
        assert!(inner.usage(&newcomer, Duration::from_secs(2)).is_some());
    }
}
