//! The master keys of tickets: the first seals, all open.
//! In: randomness, time. Out: rings that follow on each other. Immutable; a rotation makes another one. Secrets are
//! zeroed when dropped.

use std::fmt;
use std::time::{Duration, SystemTime};

use gateway_core::limits;
use rustls::crypto::{GetRandomFailed, SecureRandom};
use zeroize::Zeroizing;

/// Bytes of a master key's secret.
pub const SECRET_BYTES: usize = 32;

/// Names a master key; stands in clear at the front of every ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; KeyId::BYTES]);

impl KeyId {
    /// Length.
    pub const BYTES: usize = 8;
}

/// One master key.
#[derive(Clone)]
pub struct MasterKey {
    pub id: KeyId,
    pub made_at: SystemTime,
    /// The account that made it, for the audit log.
    pub made_by: String,
    pub secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MasterKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl MasterKey {
    fn generate(now: SystemTime, random: &dyn SecureRandom) -> Result<Self, GetRandomFailed> {
        let mut id = [0; KeyId::BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        random.fill(&mut id)?;
        random.fill(&mut *secret)?;
        Ok(MasterKey {
            id: KeyId(id),
            made_at: now,
            made_by: "schedule".to_owned(),
            secret,
        })
    }
}

/// Master keys, newest first, and the policy epoch they belong to.
#[derive(Debug, Clone)]
pub struct KeyRing {
    /// The policy epoch: a ticket of another one is refused.
    pub epoch: u64,
    /// The master keys, newest first; the first one seals.
    pub keys: Vec<MasterKey>,
    /// Keys that were thrown away on purpose; only their names are left, to say why a ticket is refused.
    pub distrusted: Vec<KeyId>,
}

impl KeyRing {
    /// A ring with one new key.
    pub fn generate(now: SystemTime, random: &dyn SecureRandom) -> Result<Self, GetRandomFailed> {
        Ok(KeyRing {
            epoch: 0,
            keys: vec![MasterKey::generate(now, random)?],
            distrusted: Vec::new(),
        })
    }

    /// The ring after this one: a new key seals, the others open, except those that were followed by another more than
    /// `keep` ago: nothing that they sealed can be young enough.
    pub fn rotated(
        &self,
        now: SystemTime,
        keep: Duration,
        random: &dyn SecureRandom,
    ) -> Result<Self, GetRandomFailed> {
        let mut keys = vec![MasterKey::generate(now, random)?];
        let mut followed_at = now;
        for key in &self.keys {
            if now.duration_since(followed_at).unwrap_or_default() <= keep {
                keys.push(key.clone());
            }
            followed_at = key.made_at;
        }
        keys.truncate(limits::TICKET_KEYS_MAX);
        Ok(KeyRing {
            keys,
            ..self.clone()
        })
    }

    /// The ring after this one that opens nothing sealed before it.
    pub fn distrusted(
        &self,
        now: SystemTime,
        random: &dyn SecureRandom,
    ) -> Result<Self, GetRandomFailed> {
        let gone = self.keys.iter().map(|key| key.id);
        let mut distrusted: Vec<_> = gone.chain(self.distrusted.iter().copied()).collect();
        distrusted.truncate(limits::TICKET_KEYS_MAX);
        Ok(KeyRing {
            epoch: self.epoch + 1,
            keys: vec![MasterKey::generate(now, random)?],
            distrusted,
        })
    }

    /// Names the account that made the key that seals.
    pub fn made_by(mut self, account: &str) -> Self {
        if let Some(newest) = self.keys.first_mut() {
            account.clone_into(&mut newest.made_by);
        }
        self
    }

    /// The account that made the key that seals.
    pub fn newest_made_by(&self) -> &str {
        self.keys.first().map_or("", |key| key.made_by.as_str())
    }

    /// The policy epoch: tickets of an earlier one are worth nothing.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Keys that open tickets.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key. There never is: the first one seals.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the same key seals in both.
    pub fn seals_as(&self, other: &KeyRing) -> bool {
        let sealing = |ring: &KeyRing| ring.keys.first().map(|key| key.id);
        sealing(self) == sealing(other)
    }

    /// Whether it is time for another key, where tickets are good for `age`. A key from the future is one of a clock that
    /// has been set back, and would otherwise seal until the time has caught up.
    pub fn is_due(&self, age: Duration, now: SystemTime) -> bool {
        let (least, most) = limits::TICKET_KEY_ROTATION.into_inner();
        let used_for = self
            .keys
            .first()
            .and_then(|key| now.duration_since(key.made_at).ok());
        used_for.is_none_or(|used_for| used_for >= (age / 2).clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_after_half_the_age_within_bounds_and_when_the_clock_was_set_back() {
        let random = rustls::crypto::ring::default_provider().secure_random;
        let made_at = SystemTime::now();
        let ring = KeyRing::generate(made_at, random).unwrap();
        let seconds = Duration::from_secs;
        for (age, due_after) in [(1, 60), (1000, 500), (7 * 24 * 60 * 60, 12 * 60 * 60)] {
            let is_due = |after| ring.is_due(seconds(age), made_at + seconds(after));
            assert!(!is_due(due_after - 1), "{age}");
            assert!(is_due(due_after), "{age}");
        }
        assert!(ring.is_due(seconds(1000), made_at - seconds(1)));
    }
}
