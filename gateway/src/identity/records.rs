//! What each identity uses, for those that have limits: one record for all workers, looked up once per connection.
//! In: a client that has proven who it is. Out: its share of the record, or the limit it has reached. A lock, held for a
//! map's lookup; bounded, and what is idle is forgotten. Outlives every reload.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateway_core::certificate::Fingerprint;
use gateway_core::limit::{Excess, Permit, Usage};

use crate::limits;
use crate::tls::VerifiedPeer;

/// The records of all identities.
#[derive(Debug)]
pub struct Records {
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    usages: HashMap<Key, Arc<Usage>>,
    /// How many records there may be before idle ones are looked for.
    sweep_at: usize,
}

/// What an identity is counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// The name that stands in the log.
    Name(String),
    /// The certificate, where it has no name.
    Certificate(Fingerprint),
}

/// Why a client that has proven who it is gets no further.
#[derive(Debug, thiserror::Error)]
pub enum OverLimit {
    /// Its identity has reached a limit of its rule.
    #[error("{0} of the identity {1:?}")]
    Identity(Excess, String),
    /// There are more identities than are kept.
    #[error(
        "more than {} identities with limits at once",
        limits::IDENTITY_RECORDS_MAX
    )]
    Records,
}

/// One connection's share of what its identity may use; given back when dropped.
#[derive(Debug)]
pub struct Share {
    started: Instant,
    permit: Permit,
}

impl Default for Records {
    fn default() -> Self {
        Records {
            started: Instant::now(),
            inner: Mutex::default(),
        }
    }
}

impl Records {
    /// Counts a connection of `peer`. `None`: its rule sets no limit, and nothing is counted.
    pub fn admit(&self, peer: &VerifiedPeer) -> Result<Option<Share>, OverLimit> {
        let limits = peer.limits();
        if limits == Default::default() {
            return Ok(None);
        }
        let name = peer.identity();
        let key = match name.is_empty() {
            true => Key::Certificate(peer.fingerprint()),
            false => Key::Name(name.clone()),
        };
        let now = self.started.elapsed();
        // The guard lasts over `admit`, so that a record is never forgotten between its lookup and its first use.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = inner.usage(key, now).ok_or(OverLimit::Records)?;
        let permit = usage.admit(&limits, now);
        Ok(Some(Share {
            started: self.started,
            permit: permit.map_err(|excess| OverLimit::Identity(excess, name))?,
        }))
    }
}

impl Inner {
    /// The record of an identity, a new one if need be; `None` when there are too many.
    fn usage(&mut self, key: Key, now: Duration) -> Option<&Arc<Usage>> {
        if self.usages.len() >= self.sweep_at && !self.usages.contains_key(&key) {
            self.usages.retain(|_, usage| !usage.is_idle(now));
            if self.usages.len() >= limits::IDENTITY_RECORDS_MAX {
                return None;
            }
            // Twice as many until the next sweep: each record pays for looking at two.
            self.sweep_at = (2 * self.usages.len())
                .clamp(limits::IDENTITY_RECORDS_MIN, limits::IDENTITY_RECORDS_MAX);
        }
        Some(self.usages.entry(key).or_default())
    }
}

impl Share {
    /// Notes bytes from the client, and says until when no more are to be read.
    pub fn charge(&self, bytes: usize) -> Option<Instant> {
        if !self.permit.limits_bytes() {
            return None;
        }
        let now = Instant::now();
        let pause = self.permit.charge(bytes, now - self.started);
        (!pause.is_zero()).then(|| now + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::identity::IdentityLimits;

    const LIMITS: IdentityLimits = IdentityLimits {
        max_connections: Some(1),
        handshakes_per_second: Some(1),
        bytes_per_second: None,
    };

    fn key(number: usize) -> Key {
        Key::Name(format!("agent-{number}"))
    }

    #[test]
    fn idle_records_are_forgotten_and_those_in_use_are_not() {
        let mut inner = Inner::default();
        let in_use = Arc::clone(inner.usage(key(0), Duration::ZERO).unwrap());
        let _permit = in_use.admit(&LIMITS, Duration::ZERO).unwrap();
        for number in 1..10 * limits::IDENTITY_RECORDS_MIN {
            let now = Duration::from_secs(10 * number as u64);
            let usage = inner.usage(key(number), now).unwrap();
            drop(usage.admit(&LIMITS, now));
            assert!(inner.usages.len() <= limits::IDENTITY_RECORDS_MIN + 1);
        }
        let again = inner.usage(key(0), Duration::MAX).unwrap();
        assert!(Arc::ptr_eq(again, &in_use));
    }

    #[test]
    fn a_full_house_refuses_newcomers_and_serves_whom_it_knows() {
        let mut inner = Inner::default();
        let now = Duration::ZERO;
        for number in 0..limits::IDENTITY_RECORDS_MAX {
            let usage = inner.usage(key(number), now).unwrap();
            // A handshake that is not paid for yet keeps the record.
            drop(usage.admit(&LIMITS, now).unwrap());
        }
        let newcomer = key(limits::IDENTITY_RECORDS_MAX);
        assert!(inner.usage(newcomer.clone(), now).is_none());
        assert!(inner.usage(key(0), now).is_some());
        assert!(inner.usage(newcomer, Duration::from_secs(2)).is_some());
    }
}
