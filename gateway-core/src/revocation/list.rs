//! One revocation list: its entries, its scope, its age.
//! In: fields of a list that was verified when it was loaded. Out: whether it covers a certificate, and whether it is
//! usable. Never parses or verifies a list.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{LinkPoint, PointId, Serial};
use crate::expiry::Lifetime;

/// The list of one issuer. Clones share the entries.
#[derive(Debug, Clone)]
pub struct IssuerList {
    issuer_name: Arc<str>,
    pub(super) rank: Rank,
    next_update: SystemTime,
    pub(super) scope: Arc<ListScope>,
    stale_policy: StalePolicy,
    /// Whether the list only revokes what it names: it refuses no client for its absence or age.
    pub(super) names_only: bool,
    pub(super) serials: Arc<HashSet<Serial>>,
}

impl IssuerList {
    /// A list without entries, made at `this_update`, that covers all certificates of its issuer.
    pub fn new(
        this_update: SystemTime,
        next_update: SystemTime,
        stale_policy: StalePolicy,
    ) -> Self {
        IssuerList {
            issuer_name: Arc::default(),
            rank: Rank {
                number: None,
                this_update,
            },
            next_update,
            scope: Arc::default(),
            stale_policy,
            names_only: false,
            serials: Arc::default(),
        }
    }

    /// The same list, with the name of its issuer for people.
    pub fn named(self, issuer_name: &str) -> Self {
        IssuerList {
            issuer_name: issuer_name.into(),
            ..self
        }
    }

    /// The same list with its number.
    pub fn numbered(mut self, number: Option<ListNumber>) -> Self {
        self.rank.number = number;
        self
    }

    /// The same list, for a part of its issuer's certificates.
    pub fn about(self, scope: ListScope) -> Self {
        IssuerList {
            scope: Arc::new(scope),
            ..self
        }
    }

    /// The same entries under another policy.
    pub fn with_stale_policy(&self, stale_policy: StalePolicy) -> Self {
        IssuerList {
            stale_policy,
            ..self.clone()
        }
    }

    /// The same list, which revokes what it names and requires nothing of other certificates.
    pub fn names_only(self) -> Self {
        IssuerList {
            names_only: true,
            ..self
        }
    }

    /// The same list, without its entries.
    pub fn without_entries(&self) -> Self {
        IssuerList {
            serials: Arc::default(),
            ..self.clone()
        }
    }

    /// Makes room for `entries`, so that the set does not take twice the memory while it grows.
    pub fn reserve(&mut self, entries: usize) {
        Arc::make_mut(&mut self.serials).reserve(entries);
    }

    /// Adds an entry. A list with shared entries copies them first.
    pub fn insert(&mut self, serial: Serial) {
        Arc::make_mut(&mut self.serials).insert(serial);
    }

    /// Whether another list shares these entries.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.serials) > 1
    }

    /// Whether both are one list, loaded once, under one policy.
    pub fn is_same(&self, other: &IssuerList) -> bool {
        Arc::ptr_eq(&self.serials, &other.serials)
            && self.stale_policy == other.stale_policy
            && self.names_only == other.names_only
    }

    /// The name of the issuer, for people.
    pub fn issuer_name(&self) -> &str {
        &self.issuer_name
    }

    /// Its `thisUpdate`.
    pub fn this_update(&self) -> SystemTime {
        self.rank.this_update
    }

    /// What tells it from an older list.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Its scope.
    pub fn scope(&self) -> &ListScope {
        &self.scope
    }

    /// What happens once it is too old.
    pub fn stale_policy(&self) -> StalePolicy {
        self.stale_policy
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.serials.len()
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time from its `thisUpdate` to its `nextUpdate`.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            begins: self.rank.this_update,
            ends: self.next_update,
        }
    }

    /// Its `nextUpdate`.
    pub fn next_update(&self) -> SystemTime {
        self.next_update
    }

    /// Whether its policy allows its use at `now`.
    pub fn is_usable(&self, now: SystemTime) -> bool {
        match self.stale_policy {
            StalePolicy::Allow => true,
            StalePolicy::Refuse => now < self.next_update,
            StalePolicy::Grace(grace) => now < self.next_update + grace,
        }
    }

    /// Whether `nextUpdate` is past.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        now >= self.next_update
    }
}

/// The kinds of certificates that a list covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Kinds {
    /// All certificates.
    #[default]
    All,
    /// End entities (onlyContainsUserCerts).
    EndEntities,
    /// Authorities (onlyContainsCACerts).
    Authorities,
}

/// The certificates that a list covers, by its issuing distribution point (RFC 5280 section 5.2.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ListScope {
    /// The kinds of certificates.
    pub kinds: Kinds,
    /// The distribution points of the certificates, in order, each once; empty for any.
    pub points: Vec<PointId>,
}

impl ListScope {
    /// Whether it covers the certificate at `position` of a chain with these points (RFC 5280 section 6.3.3 b 2).
    pub(super) fn covers(&self, position: usize, points: &[LinkPoint]) -> bool {
        let is_of_its_kind = match self.kinds {
            Kinds::All => true,
            Kinds::EndEntities => position == 0,
            Kinds::Authorities => position > 0,
        };
        let own = || {
            points
                .iter()
                .filter(|point| usize::from(point.link) == position)
        };
        // A certificate without points, such as step-ca's, leaves the place of the list to its issuer.
        let is_of_its_points = self.points.is_empty()
            || own().next().is_none()
            || own().any(|own| self.points.contains(&own.point));
        is_of_its_kind && is_of_its_points
    }
}

/// What to do when the newest list of an issuer is past its `nextUpdate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StalePolicy {
    /// Refuse all certificates that the list covers.
    Refuse,
    /// Use it for this time, then refuse.
    Grace(Duration),
    /// Use it without an end.
    Allow,
}

/// The number of a list (RFC 5280 section 5.2.3), of at most 20 bytes. An issuer's later list has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListNumber(pub Serial);

impl Ord for ListNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let [one, two] = [&self.0, &other.0].map(Serial::as_bytes);
        one.len().cmp(&two.len()).then_with(|| one.cmp(two))
    }
}

impl PartialOrd for ListNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of one issuer's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Its number, if it has one.
    pub number: Option<ListNumber>,
    /// Its `thisUpdate`.
    pub this_update: SystemTime,
}

impl Rank {
    /// Compares the numbers (RFC 5280 section 5.2.3), then the times; only the times if a number is missing.
    pub fn compare(&self, other: &Rank) -> Ordering {
        let by_time = self.this_update.cmp(&other.this_update);
        match (self.number, other.number) {
            (Some(one), Some(two)) => one.cmp(&two).then(by_time),
            _ => by_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn clones_share_entries_until_one_of_them_changes() {
        let mut first = IssuerList::new(at(0), at(100), StalePolicy::Refuse);
        first.insert(Serial::new(&[7]).unwrap());
        assert!(!first.is_shared());
        let mut second = first.with_stale_policy(StalePolicy::Allow);
        assert!(first.is_shared() && second.is_shared());
        second.insert(Serial::new(&[8]).unwrap());
        assert!(!first.is_shared());
        assert_eq!((first.len(), second.len()), (1, 2));
        assert_eq!(first.stale_policy(), StalePolicy::Refuse);
        assert_eq!(second.stale_policy(), StalePolicy::Allow);
    }
}
