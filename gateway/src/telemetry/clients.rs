//! The connected clients, counted by what is left of their certificates: those that an expiry will hit.
//! In: lifetimes, one client at a time. Out: sums for each listener and rule, which the metrics page adds up over the
//! workers. Made on each worker now and then; never on the way of a byte.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gateway_core::certificate::Chain;
use gateway_core::expiry::{Band, Lifetime};
use gateway_core::revocation::AuthorityId;

use crate::config::{BackendId, ListenerId};

/// Sums for each listener and each position of a rule.
#[derive(Debug, Clone, Default)]
pub struct ClientCounts {
    sums: BTreeMap<(ListenerId, usize), Sum>,
    standing: BTreeMap<(AuthorityUse, AuthorityId), u64>,
}

/// Whose CA it is: that of the clients of a listener or of the servers of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityUse {
    /// Clients.
    Clients(ListenerId),
    /// Servers.
    Servers(BackendId),
}

/// The clients of one rule on one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    /// When the first certificate ends.
    pub(super) first_end: SystemTime,
    /// How many are in each band, in the order of `Band::ALL`.
    pub(super) in_band: [u64; Band::ALL.len()],
}

impl ClientCounts {
    /// Counts a client.
    pub fn count(
        &mut self,
        listener: ListenerId,
        rule: usize,
        lifetime: Lifetime,
        now: SystemTime,
    ) {
        let sum = self.sums.entry((listener, rule)).or_insert(Sum {
            first_end: lifetime.ends,
            in_band: Default::default(),
        });
        sum.first_end = sum.first_end.min(lifetime.ends);
        sum.in_band[lifetime.band(now).index()] += 1;
    }

    /// Counts the chain of a client or server, if it ends with its CA.
    pub fn count_chain(&mut self, side: AuthorityUse, chain: &Chain) {
        if chain.ends_with_anchor {
            *self.standing.entry((side, chain.anchor)).or_default() += 1;
        }
    }

    /// Adds what another worker counted.
    pub(super) fn add(&mut self, other: ClientCounts) {
        for (key, count) in other.standing {
            *self.standing.entry(key).or_default() += count;
        }
        for (key, counted) in other.sums {
            let sum = self.sums.entry(key).or_insert(Sum {
                in_band: Default::default(),
                ..counted
            });
            sum.first_end = sum.first_end.min(counted.first_end);
            for (total, count) in sum.in_band.iter_mut().zip(counted.in_band) {
                *total += count;
            }
        }
    }

    /// Listener, position of the rule, and the sums.
    pub(super) fn sums(&self) -> impl Iterator<Item = ((ListenerId, usize), &Sum)> {
        self.sums.iter().map(|(key, sum)| (*key, sum))
    }

    /// Chains that end with their CA.
    pub(super) fn standing(&self) -> impl Iterator<Item = (AuthorityUse, AuthorityId, u64)> {
        let standing = self.standing.iter();
        standing.map(|((side, authority), count)| (*side, *authority, *count))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn until(ends: u64) -> Lifetime {
        Lifetime {
            begins: at(0),
            ends: at(ends),
        }
    }

    #[test]
    fn workers_add_up_by_listener_and_rule() {
        let (mut one, mut two) = (ClientCounts::default(), ClientCounts::default());
        let now = at(100);
        one.count(ListenerId(0), 0, until(1000), now);
        one.count(ListenerId(0), 0, until(110), now);
        one.count(ListenerId(1), 0, until(90), now);
        two.count(ListenerId(0), 0, until(105), now);
        two.count(ListenerId(0), 2, until(1000), now);
        one.add(two);
        let sums: Vec<_> = one.sums().map(|(key, sum)| (key, *sum)).collect();
        let sum = |first_end, in_band| Sum {
            first_end: at(first_end),
            in_band,
        };
        let expected = [
            ((ListenerId(0), 0), sum(105, [1, 0, 1, 1, 0])),
            ((ListenerId(0), 2), sum(1000, [1, 0, 0, 0, 0])),
            ((ListenerId(1), 0), sum(90, [0, 0, 0, 0, 1])),
        ];
        assert_eq!(sums, expected);
    }
}
