//! Succession: which authorities of a bundle have another one in it that takes their place, so that their end shuts out no
//! client that keeps its certificate fresh.
//! In: names, keys and ends of all authorities that are trusted for one use. Out: a word for each. Reads no clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::SystemTime;

use crate::revocation::{AuthorityId, AuthorityKey};

/// An authority, as far as it may follow another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heir {
    /// Its name and key.
    pub id: AuthorityId,
    /// Its key.
    pub key: AuthorityKey,
    /// Its name without the parts that a CA changes when it makes itself anew; `None` where nothing is left of it.
    pub family: Option<Vec<u8>>,
    /// The trust domain of its SPIFFE ID, if it has one.
    pub trust_domain: Option<String>,
    /// When it ends.
    pub ends: SystemTime,
}

/// What comes after an authority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Succession {
    /// Nothing: with it the last of its kind ends.
    #[default]
    Last,
    /// An authority with the same key, name or trust domain ends later: clients that renew their certificates in time go over to it.
    Superseded,
    /// The same name and key stand in a certificate that ends later: no client needs another certificate.
    Renewed,
}

/// What comes after each of `heirs`, in their order.
pub fn successions(heirs: &[Heir]) -> Vec<Succession> {
    let ids = latest(heirs, |heir| Some(heir.id));
    let keys = latest(heirs, |heir| Some(heir.key));
    let families = latest(heirs, |heir| heir.family.as_deref());
    let domains = latest(heirs, |heir| heir.trust_domain.as_deref());
    let of = |heir: &Heir| {
        let ends_later = |latest: Option<&SystemTime>| latest.is_some_and(|end| *end > heir.ends);
        if ends_later(ids.get(&heir.id)) {
            return Succession::Renewed;
        }
        let is_superseded = ends_later(keys.get(&heir.key))
            || ends_later(heir.family.as_deref().and_then(|name| families.get(name)))
            || ends_later(
                heir.trust_domain
                    .as_deref()
                    .and_then(|name| domains.get(name)),
            );
        match is_superseded {
            true => Succession::Superseded,
            false => Succession::Last,
        }
    };
    heirs.iter().map(of).collect()
}

/// The latest end of those that have a trait in common.
fn latest<'h, K: Hash + Eq>(
    heirs: &'h [Heir],
    common: impl Fn(&'h Heir) -> Option<K>,
) -> HashMap<K, SystemTime> {
    let mut latest = HashMap::new();
    for heir in heirs {
        if let Some(key) = common(heir) {
            let end = latest.entry(key).or_insert(heir.ends);
            *end = heir.ends.max(*end);
        }
    }
    latest
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heir(name: &str, key: u8, domain: Option<&str>, ends: u64) -> Heir {
        let mut id = [0; 32];
        id[..name.len()].copy_from_slice(name.as_bytes());
        id[31] = key;
        Heir {
            id: AuthorityId(id),
            key: AuthorityKey([key; 16]),
            family: (!name.is_empty()).then(|| name.as_bytes().to_vec()),
            trust_domain: domain.map(str::to_owned),
            ends: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
        }
    }

    #[test]
    fn an_authority_is_superseded_by_a_later_one_of_its_key_name_or_trust_domain_and_by_no_other() {
        use Succession::{Last, Renewed, Superseded};
        let plain = heir("agents", 1, None, 100);
        let spire = heir("", 1, Some("example.org"), 100);
        let table = [
            (&plain, heir("agents", 2, None, 200), Superseded),
            (&plain, heir("others", 1, None, 200), Superseded),
            (&plain, heir("agents", 1, None, 200), Renewed),
            (&plain, heir("others", 2, None, 200), Last),
            // It ends first, or at the same time.
            (&plain, heir("agents", 2, None, 99), Last),
            (&plain, heir("agents", 1, None, 100), Last),
            (&spire, heir("", 2, Some("example.org"), 200), Superseded),
            (&spire, heir("", 2, Some("example.net"), 200), Last),
            // To have no name is nothing in common.
            (&spire, heir("", 2, None, 200), Last),
        ];
        for (heir, other, expected) in table {
            let of = successions(&[heir.clone(), other.clone()]);
            assert_eq!(of[0], expected, "{heir:?} beside {other:?}");
        }
    }

    #[test]
    fn of_many_generations_the_last_alone_is_without_a_successor() {
        let generations =
            (1..=5).map(|number| heir("", number, Some("example.org"), 100 * u64::from(number)));
        let of = successions(&generations.collect::<Vec<_>>());
        assert_eq!(of[..4], [Succession::Superseded; 4]);
        assert_eq!(of[4], Succession::Last);
        assert_eq!(successions(&[]), []);
    }
}
