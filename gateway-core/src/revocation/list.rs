//! One revocation list: its entries, what it covers, how new it is and how long it holds.
//! In: fields of a list that was verified when it was loaded. Out: whether it covers a certificate and may still be used.
//! Never parses a list and never verifies one.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{LinkPoint, PointId, Serial};
use crate::expiry::Lifetime;

/// The list of one issuer. A clone shares the entries.
#[derive(Debug, Clone)]
pub struct IssuerList {
    issuer_name: Arc<str>,
    pub(super) rank: Rank,
    next_update: SystemTime,
    pub(super) scope: Arc<Scope>,
    stale_policy: StalePolicy,
    /// Whether it revokes what it names and no more: nobody is refused for its want or its age.
    pub(super) names_only: bool,
    pub(super) serials: Arc<HashSet<Serial>>,
}

impl IssuerList {
    /// A list without entries, made at `this_update`, about all certificates of its issuer.
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

    /// The same list with the name of its issuer, for people.
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

    /// The same list about a part of its issuer's certificates.
    pub fn about(self, scope: Scope) -> Self {
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

    /// The same list, which revokes what it names and makes nothing required: as if it were not there for everybody else.
    pub fn names_only(self) -> Self {
        IssuerList {
            names_only: true,
            ..self
        }
    }

    /// What it says of itself, without what it names.
    pub fn without_entries(&self) -> Self {
        IssuerList {
            serials: Arc::default(),
            ..self.clone()
        }
    }

    /// Makes room for so many entries at once, so that the set does not grow through twice the memory it needs.
    pub fn reserve(&mut self, entries: usize) {
        Arc::make_mut(&mut self.serials).reserve(entries);
    }

    /// Adds an entry. A list whose entries are shared gets entries of its own first.
    pub fn insert(&mut self, serial: Serial) {
        Arc::make_mut(&mut self.serials).insert(serial);
    }

    /// Whether anybody else holds these entries.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.serials) > 1
    }

    /// Whether both are one list, read once, under one policy.
    pub fn is_same(&self, other: &IssuerList) -> bool {
        Arc::ptr_eq(&self.serials, &other.serials)
            && self.stale_policy == other.stale_policy
            && self.names_only == other.names_only
    }

    /// The name of the issuer, for people.
    pub fn issuer_name(&self) -> &str {
        &self.issuer_name
    }

    /// When the issuer made it.
    pub fn this_update(&self) -> SystemTime {
        self.rank.this_update
    }

    /// What tells it from an older one.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// What it covers.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What happens when it has become too old.
    pub fn stale_policy(&self) -> StalePolicy {
        self.stale_policy
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.serials.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From its making until the next one is due.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            begins: self.rank.this_update,
            ends: self.next_update,
        }
    }

    /// Until when the issuer vouches for it.
    pub fn next_update(&self) -> SystemTime {
        self.next_update
    }

    /// Whether it may still be used.
    pub fn is_usable(&self, now: SystemTime) -> bool {
        match self.stale_policy {
            StalePolicy::Allow => true,
            StalePolicy::Refuse => now < self.next_update,
            StalePolicy::Grace(grace) => now < self.next_update + grace,
        }
    }

    /// Whether it is older than its issuer meant it to become.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        now >= self.next_update
    }
}

/// Which of its issuer's certificates a list is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Kinds {
    /// All.
    #[default]
    All,
    /// Those of end entities (onlyContainsUserCerts).
    EndEntities,
    /// Those of other authorities (onlyContainsCACerts).
    Authorities,
}

/// What a list covers, by its issuing distribution point (RFC 5280 section 5.2.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Which certificates.
    pub kinds: Kinds,
    /// Only those that name one of these points; none: whatever points they name. In order, each once.
    pub points: Vec<PointId>,
}

impl Scope {
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
        // A certificate that names no point leaves it to its issuer where the list is: step-ca's do.
        let is_of_its_points = self.points.is_empty()
            || own().next().is_none()
            || own().any(|own| self.points.contains(&own.point));
        is_of_its_kind && is_of_its_points
    }
}

/// What to do when the newest list of an issuer is older than its `nextUpdate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StalePolicy {
    /// Refuse everybody the list is about.
    Refuse,
    /// Use it for this much longer, then refuse.
    Grace(Duration),
    /// Use it for ever.
    Allow,
}

/// The number of a list (RFC 5280 section 5.2.3), of at most 20 bytes: a later list of an issuer has a higher one.
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

/// What tells an older list of one issuer from a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Its number, where it has one.
    pub number: Option<ListNumber>,
    /// When it was made.
    pub this_update: SystemTime,
}

impl Rank {
    /// The number decides (RFC 5280 section 5.2.3), then the time; the time alone where one of them has no number.
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
