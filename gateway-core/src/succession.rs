//! Succession: which authorities of a bundle have a successor in it, so that their end shuts out no client that
//! renews in time.
//! In: names, keys and lifetimes of all authorities trusted for one use, now. Out: a verdict for each. Reads no
//! clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::SystemTime;

use crate::revocation::{AuthorityId, AuthorityKey};

/// What succession needs to know of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedAuthority {
    /// Its name and key.
    pub id: AuthorityId,
    /// Its key.
    pub key: AuthorityKey,
    /// Its name without the parts that change when a CA is renewed; `None` if nothing is left.
    pub family: Option<Vec<u8>>,
    /// The trust domain of its SPIFFE ID, if it has one.
    pub trust_domain: Option<String>,
    /// The beginning of its validity.
    pub begins: SystemTime,
    /// The end of its validity.
    pub ends: SystemTime,
}

/// Whether an authority has a successor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Succession {
    /// None: it is the last of its kind.
    #[default]
    Last,
    /// An authority with the same key, name or trust domain begins in time and ends later: clients that renew in time
    /// move to it.
    Superseded,
    /// A certificate with the same name and key begins in time and ends later: no client needs another certificate.
    Renewed,
}

/// The succession of each of `authorities`, in their order.
pub fn successions(authorities: &[TrustedAuthority], now: SystemTime) -> Vec<Succession> {
    let ids = Lifetimes::by(authorities, |authority| Some(authority.id));
    let keys = Lifetimes::by(authorities, |authority| Some(authority.key));
    let families = Lifetimes::by(authorities, |authority| authority.family.as_deref());
    let domains = Lifetimes::by(authorities, |authority| authority.trust_domain.as_deref());
    let of = |authority: &TrustedAuthority| {
        let follow =
            |terms: Option<&Lifetimes>| terms.is_some_and(|terms| terms.follow(authority, now));
        if follow(ids.get(&authority.id)) {
            return Succession::Renewed;
        }
        let families = authority.family.as_deref().map(|name| families.get(name));
        let domains = authority
            .trust_domain
            .as_deref()
            .map(|name| domains.get(name));
        let is_superseded = follow(keys.get(&authority.key))
            || follow(families.flatten())
            || follow(domains.flatten());
        match is_superseded {
            true => Succession::Superseded,
            false => Succession::Last,
        }
    };
    authorities.iter().map(of).collect()
}

impl TrustedAuthority {
    /// The latest beginning of a successor to which clients can still move: before the last twentieth of the
    /// lifetime, in which an outage is near. After that, a successor that exists now will do: the gap is over.
    fn needs_successor_by(&self, now: SystemTime) -> SystemTime {
        let lifetime = self.ends.duration_since(self.begins).unwrap_or_default();
        let in_time = self.ends.checked_sub(lifetime / 20).unwrap_or(self.ends);
        in_time.max(now)
    }
}

/// For each trait, its bearers in order of beginning: the beginning of each, and the latest end up to it.
struct Lifetimes(Vec<(SystemTime, SystemTime)>);

impl Lifetimes {
    fn by<'h, K: Hash + Eq>(
        authorities: &'h [TrustedAuthority],
        common: impl Fn(&'h TrustedAuthority) -> Option<K>,
    ) -> HashMap<K, Lifetimes> {
        let mut sorted: Vec<_> = authorities.iter().collect();
        sorted.sort_by_key(|authority| authority.begins);
        let mut all = HashMap::new();
        for authority in sorted {
            if let Some(key) = common(authority) {
                let Lifetimes(terms) = all.entry(key).or_insert(Lifetimes(Vec::new()));
                let latest = terms
                    .last()
                    .map_or(authority.ends, |(_, end)| authority.ends.max(*end));
                terms.push((authority.begins, latest));
            }
        }
        all
    }

    /// Whether one of them begins in time for this one's clients and ends later.
    fn follow(&self, authority: &TrustedAuthority, now: SystemTime) -> bool {
        let needed = authority.needs_successor_by(now);
        let in_time = self.0.partition_point(|(begins, _)| *begins <= needed);
        let latest = self.0[..in_time].last();
        latest.is_some_and(|(_, end)| *end > authority.ends)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn authority(
        name: &str,
        key: u8,
        domain: Option<&str>,
        (begins, ends): (u64, u64),
    ) -> TrustedAuthority {
        let mut id = [0; 32];
        id[..name.len()].copy_from_slice(name.as_bytes());
        id[31] = key;
        TrustedAuthority {
            id: AuthorityId(id),
            key: AuthorityKey([key; 16]),
            family: (!name.is_empty()).then(|| name.as_bytes().to_vec()),
            trust_domain: domain.map(str::to_owned),
            begins: at(begins),
            ends: at(ends),
        }
    }

    #[test]
    fn an_authority_is_superseded_by_a_later_one_of_its_key_name_or_trust_domain_and_by_no_other() {
        use Succession::{Last, Renewed, Superseded};
        let plain = authority("agents", 1, None, (0, 100));
        let spire = authority("", 1, Some("example.org"), (0, 100));
        let net = authority("", 2, Some("example.net"), (0, 200));
        let table = [
            (&plain, authority("agents", 2, None, (0, 200)), Superseded),
            (&plain, authority("others", 1, None, (0, 200)), Superseded),
            (&plain, authority("agents", 1, None, (0, 200)), Renewed),
            (&plain, authority("others", 2, None, (0, 200)), Last),
            // It ends first, or at the same time.
            (&plain, authority("agents", 2, None, (0, 99)), Last),
            (&plain, authority("agents", 1, None, (0, 100)), Last),
            // It begins while clients can still go over to it, when they hardly can, or when all are shut out.
            (&plain, authority("agents", 2, None, (95, 200)), Superseded),
            (&plain, authority("agents", 1, None, (95, 200)), Renewed),
            (&plain, authority("agents", 2, None, (96, 200)), Last),
            (&plain, authority("agents", 1, None, (100, 200)), Last),
            (&plain, authority("agents", 2, None, (150, 200)), Last),
            (&plain, authority("others", 1, None, (150, 200)), Last),
            (
                &spire,
                authority("", 2, Some("example.org"), (0, 200)),
                Superseded,
            ),
            (
                &spire,
                authority("", 2, Some("example.org"), (150, 200)),
                Last,
            ),
            (&spire, net, Last),
            // To have no name is nothing in common.
            (&spire, authority("", 2, None, (0, 200)), Last),
        ];
        for (authority, other, expected) in table {
            let of = successions(&[authority.clone(), other.clone()], at(50));
            assert_eq!(of[0], expected, "{authority:?} beside {other:?}");
        }
    }

    #[test]
    fn one_that_is_there_follows_one_that_has_ended_whatever_lay_between_them() {
        let both = [(0, 100), (150, 300)].map(|term| authority("agents", 1, None, term));
        let first = |now| successions(&both, at(now))[0];
        assert_eq!(first(99), Succession::Last);
        assert_eq!(first(149), Succession::Last);
        assert_eq!(first(150), Succession::Renewed);
    }

    #[test]
    fn one_that_begins_too_late_takes_nothing_away_from_one_that_does_not() {
        let terms = [(0, 100), (150, 900), (50, 200)];
        let all = terms.map(|term| authority("agents", 1, None, term));
        use Succession::{Last, Renewed};
        assert_eq!(successions(&all, at(60)), [Renewed, Last, Renewed]);
    }

    #[test]
    fn of_many_generations_the_last_alone_is_without_a_successor() {
        let generations = (1..=5).map(|number: u8| {
            let ends = 100 * u64::from(number);
            authority("", number, Some("example.org"), (ends - 100, ends))
        });
        let of = successions(&generations.collect::<Vec<_>>(), at(0));
        assert_eq!(
            of[..4],
            [Succession::Last; 4],
            "none begins before another ends"
        );
        let generations = (1..=5).map(|number: u8| {
            let ends = 100 * u64::from(number);
            authority("", number, Some("example.org"), (ends - 100, ends + 50))
        });
        let of = successions(&generations.collect::<Vec<_>>(), at(0));
        assert_eq!(of[..4], [Succession::Superseded; 4]);
        assert_eq!(of[4], Succession::Last);
        assert_eq!(successions(&[], at(0)), []);
    }
}
