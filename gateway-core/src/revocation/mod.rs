//! Revocation: whether a certificate of a chain is revoked.
//! In: a verified chain, revocation lists that were verified when they were loaded, now. Out: its status. A lookup
//! costs the same for ten entries and for a million. Never parses or verifies a list.

mod link;
mod list;
mod serial;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::certificate::Chain;

pub use link::{AuthorityId, AuthorityKey, Link, LinkPoint, PointId};
pub use list::{IssuerList, Kinds, ListNumber, ListScope, Rank, StalePolicy};
pub use serial::{Serial, SerialError, SerialTooLong};

/// All revocation lists that one listener trusts.
#[derive(Debug, Default)]
pub struct Revocation {
    /// Lists by issuer: several if they cover different certificates, or if none is newer than the others.
    lists: HashMap<AuthorityId, Vec<IssuerList>>,
    authorities: HashSet<AuthorityId>,
    /// The issuers of a trusted authority that are trusted as well. Several may have one name.
    above: HashMap<AuthorityId, Vec<AuthorityId>>,
    /// Names of authorities, for people.
    names: HashMap<AuthorityId, Arc<str>>,
}

impl Revocation {
    /// Takes the lists. Of two lists of one issuer about the same certificates, the newer one counts.
    pub fn new(lists: impl IntoIterator<Item = (AuthorityId, IssuerList)>) -> Self {
        let mut revocation = Revocation::default();
        for (issuer, list) in lists {
            revocation.add(issuer, list);
        }
        revocation
    }

    fn add(&mut self, issuer: AuthorityId, list: IssuerList) {
        let known = self.lists.entry(issuer).or_default();
        let mut is_older = false;
        known.retain(|other| {
            if other.scope != list.scope || other.names_only != list.names_only {
                return true;
            }
            match other.rank.compare(&list.rank) {
                Ordering::Less => false,
                // The gateway cannot tell which one the issuer meant last: both revoke.
                Ordering::Equal => other.serials != list.serials,
                Ordering::Greater => {
                    is_older = true;
                    true
                }
            }
        });
        if !is_older {
            known.push(list);
        }
    }

    /// Sets the name of an authority.
    pub fn name(&mut self, authority: AuthorityId, name: &str) {
        self.names.insert(authority, name.into());
    }

    /// Records that the list of another authority names this trusted one.
    pub fn revoke_authority(&mut self, authority: AuthorityId) {
        self.authorities.insert(authority);
    }

    /// Records the issuers of a trusted authority: chains end at the authority, and the lists of its issuers must be
    /// fresh all the same.
    pub fn place_below(&mut self, authority: AuthorityId, issuers: Vec<AuthorityId>) {
        self.above.insert(authority, issuers);
    }

    /// Whether the authority is revoked, and with it every chain that ends at it.
    pub fn is_authority_revoked(&self, authority: AuthorityId) -> bool {
        self.authorities.contains(&authority)
    }

    /// Whether there is a list that is more than names. Without one, no chain needs a list.
    pub fn is_configured(&self) -> bool {
        self.lists.values().flatten().any(|list| !list.names_only)
    }

    /// The lists of an authority that vouch for certificates they do not name.
    pub fn vouching(&self, authority: &AuthorityId) -> impl Iterator<Item = &IssuerList> + Clone {
        let of_issuer = self.lists.get(authority).into_iter().flatten();
        of_issuer.filter(|list| !list.names_only)
    }

    /// Whether there is a list of this authority for certificates of these kinds.
    pub fn has_list(&self, authority: AuthorityId, kinds: Kinds) -> bool {
        let mut kinds_known = self.vouching(&authority).map(|list| list.scope.kinds);
        kinds_known.any(|known| known == Kinds::All || known == kinds)
    }

    /// Whether a list of its issuer names this certificate. The list's age and scope do not matter: a serial number
    /// stands for one certificate, and an old list is right about what it names.
    pub fn is_named(&self, link: &Link) -> bool {
        let of_issuer = self.lists.get(&link.issuer).into_iter().flatten();
        of_issuer
            .into_iter()
            .any(|list| list.serials.contains(&link.serial))
    }

    /// The status of a chain: revoked if any certificate is, unknown if the list of an issuer is missing or no longer
    /// usable, else good.
    pub fn status(&self, chain: &Chain, now: SystemTime) -> Status {
        if self.lists.is_empty() {
            return Status::Good;
        }
        let is_configured = self.is_configured();
        let mut status = Status::Good;
        for (position, link) in chain.links.iter().enumerate() {
            if self.is_named(link) {
                return Status::Revoked;
            }
            if !is_configured {
                continue;
            }
            if let Some(gap) = self.gap(position, link.issuer, &chain.points, now) {
                status = Status::Unknown(gap);
            }
        }
        let anchor = chain.links.last().map(|last| last.issuer);
        match anchor.and_then(|anchor| self.gap_above(anchor, now)) {
            Some(gap) => Status::Unknown(gap),
            None => status,
        }
    }

    /// Why the status of a certificate of this issuer is unknown; `None` if it is known.
    fn gap(
        &self,
        position: usize,
        issuer: AuthorityId,
        points: &[LinkPoint],
        now: SystemTime,
    ) -> Option<Gap> {
        let lists = self.vouching(&issuer);
        if lists.clone().next().is_none() {
            return Some(Gap::Missing(issuer));
        }
        let mut covering = lists.filter(|list| list.scope.covers(position, points));
        let is_covered = covering.clone().next().is_some();
        match is_covered {
            false => Some(Gap::NotCovered(issuer)),
            true => (!covering.any(|list| list.is_usable(now))).then_some(Gap::TooOld(issuer)),
        }
    }

    /// Why it is unknown whether an authority is revoked: an issuer at any height has lists, and all of them are too
    /// old.
    fn gap_above(&self, authority: AuthorityId, now: SystemTime) -> Option<Gap> {
        let mut at = authority;
        // Authorities may have certified each other: a walk has at most as many steps as there are authorities.
        for _ in 0..self.above.len() {
            let issuers = self.above.get(&at)?;
            let of_issuers = issuers.iter().flat_map(|issuer| self.vouching(issuer));
            let about_it = |list: &&IssuerList| list.scope.kinds != Kinds::EndEntities;
            let mut lists = of_issuers.filter(about_it);
            let is_listed = lists.clone().next().is_some();
            if is_listed && !lists.any(|list| list.is_usable(now)) {
                return issuers.first().map(|issuer| Gap::TooOld(*issuer));
            }
            at = *issuers.first()?;
        }
        None
    }

    /// The gap in words, with the name of the CA.
    pub fn describe(&self, gap: Gap) -> String {
        let name = |authority: AuthorityId| match self.names.get(&authority) {
            Some(name) => name.to_string(),
            None => "an intermediate CA that the peer sent".to_owned(),
        };
        match gap {
            Gap::Missing(issuer) => format!("there is no revocation list of {}", name(issuer)),
            Gap::TooOld(issuer) => {
                format!(
                    "the revocation list of {} is too old (nextUpdate)",
                    name(issuer)
                )
            }
            Gap::NotCovered(issuer) => format!(
                "the revocation lists of {} do not cover the certificate (issuing distribution point)",
                name(issuer)
            ),
        }
    }

    /// The lists, for metrics.
    pub fn lists(&self) -> impl Iterator<Item = (&AuthorityId, &IssuerList)> {
        let of_issuer = |(issuer, lists)| std::iter::repeat(issuer).zip(lists);
        self.lists.iter().flat_map(of_issuer)
    }
}

/// Why the status of a certificate is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// There is no list of this issuer.
    Missing(AuthorityId),
    /// The list of this issuer is too old.
    TooOld(AuthorityId),
    /// The lists of this issuer cover other certificates.
    NotCovered(AuthorityId),
}

/// The status of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No list names one of its certificates.
    Good,
    /// A list names one of them.
    Revoked,
    /// The list of one of its issuers is missing or too old.
    Unknown(Gap),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const ISSUER: AuthorityId = AuthorityId([1; 32]);
    const ROOT: AuthorityId = AuthorityId([2; 32]);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn link(issuer: AuthorityId, serial: &[u8]) -> Link {
        Link {
            issuer,
            key: AuthorityKey::default(),
            serial: Serial::new(serial).unwrap(),
        }
    }

    fn chain(links: &[Link]) -> Chain {
        Chain {
            links: links.to_vec(),
            points: Vec::new(),
            anchor: links.last().unwrap().issuer,
            constraints: None,
            not_before: at(0),
            not_after: at(0),
            ends_with_anchor: false,
        }
    }

    fn list(policy: StalePolicy, serials: &[&[u8]]) -> IssuerList {
        let mut list = IssuerList::new(at(0), at(100), policy);
        for serial in serials {
            list.insert(Serial::new(serial).unwrap());
        }
        list
    }

    #[test]
    fn an_anchor_below_another_needs_the_fresh_list_of_that_one() {
        let other = AuthorityId([3; 32]);
        let fresh = IssuerList::new(at(0), at(1000), StalePolicy::Refuse);
        let lists = [
            (ISSUER, fresh.clone()),
            (ROOT, list(StalePolicy::Refuse, &[])),
        ];
        let mut revocation = Revocation::new(lists.clone());
        let status =
            |revocation: &Revocation, now| revocation.status(&chain(&[link(ISSUER, &[1])]), now);
        assert_eq!(status(&revocation, at(100)), Status::Good);
        revocation.place_below(ISSUER, vec![ROOT]);
        // Certified by each other: the walk ends.
        revocation.place_below(ROOT, vec![ISSUER]);
        assert_eq!(status(&revocation, at(99)), Status::Good);
        assert_eq!(
            status(&revocation, at(100)),
            Status::Unknown(Gap::TooOld(ROOT))
        );
        // Of two that bear the issuer's name one is enough.
        revocation.place_below(ISSUER, vec![ROOT, other]);
        assert_eq!(
            status(&revocation, at(100)),
            Status::Unknown(Gap::TooOld(ROOT))
        );
        let mut revocation = Revocation::new(lists.into_iter().chain([(other, fresh)]));
        revocation.place_below(ISSUER, vec![ROOT, other]);
        assert_eq!(status(&revocation, at(100)), Status::Good);
        // Further up, and an issuer without a list asks nothing.
        revocation.place_below(ISSUER, vec![AuthorityId([4; 32])]);
        assert_eq!(status(&revocation, at(100)), Status::Good);
        revocation.place_below(AuthorityId([4; 32]), vec![ROOT]);
        assert_eq!(
            status(&revocation, at(100)),
            Status::Unknown(Gap::TooOld(ROOT))
        );
    }

    #[test]
    fn any_revoked_certificate_of_a_chain_revokes_it() {
        let lists = [
            (ISSUER, list(StalePolicy::Refuse, &[&[7]])),
            (ROOT, list(StalePolicy::Refuse, &[&[9]])),
        ];
        let revocation = Revocation::new(lists);
        let status = |leaf: u8, intermediate: u8| {
            revocation.status(
                &chain(&[link(ISSUER, &[leaf]), link(ROOT, &[intermediate])]),
                at(1),
            )
        };
        assert_eq!(status(1, 1), Status::Good);
        assert_eq!(status(7, 1), Status::Revoked);
        assert_eq!(status(1, 9), Status::Revoked);
        assert_eq!(
            status(9, 7),
            Status::Good,
            "a number counts at its own issuer only"
        );
    }

    #[test]
    fn the_stale_policy_decides_about_the_good_and_never_frees_the_revoked() {
        let day = Duration::from_secs(24 * 60 * 60);
        let table = [
            (StalePolicy::Refuse, at(99), Status::Good),
            (
                StalePolicy::Refuse,
                at(100),
                Status::Unknown(Gap::TooOld(ISSUER)),
            ),
            (
                StalePolicy::Grace(day),
                at(100) + day - Duration::from_secs(1),
                Status::Good,
            ),
            (
                StalePolicy::Grace(day),
                at(100) + day,
                Status::Unknown(Gap::TooOld(ISSUER)),
            ),
            (StalePolicy::Allow, at(100) + 1000 * day, Status::Good),
        ];
        for (policy, now, expected) in table {
            let revocation = Revocation::new([(ISSUER, list(policy, &[&[7]]))]);
            assert_eq!(
                revocation.status(&chain(&[link(ISSUER, &[1])]), now),
                expected,
                "{policy:?}"
            );
            assert_eq!(
                revocation.status(&chain(&[link(ISSUER, &[7])]), now),
                Status::Revoked
            );
        }
    }

    #[test]
    fn once_there_is_a_list_every_issuer_of_a_chain_needs_one() {
        let revocation = Revocation::new([(ISSUER, list(StalePolicy::Allow, &[]))]);
        let chain = chain(&[link(ISSUER, &[1]), link(ROOT, &[1])]);
        assert_eq!(
            revocation.status(&chain, at(1)),
            Status::Unknown(Gap::Missing(ROOT))
        );
        assert_eq!(Revocation::default().status(&chain, at(1)), Status::Good);
    }

    #[test]
    fn a_list_of_names_only_revokes_and_asks_nothing_of_others() {
        let names = list(StalePolicy::Refuse, &[&[1]]).names_only();
        let status = |revocation: &Revocation, issuer, serial, now| {
            revocation.status(&chain(&[link(issuer, &[serial])]), now)
        };
        // It has ended, and there is none of the other issuer.
        let revocation = Revocation::new([(ISSUER, names.clone())]);
        assert_eq!(status(&revocation, ISSUER, 1, at(500)), Status::Revoked);
        assert_eq!(status(&revocation, ISSUER, 2, at(500)), Status::Good);
        assert_eq!(status(&revocation, ROOT, 1, at(500)), Status::Good);
        // Beside a list that is required it takes the place of none.
        let old = list(StalePolicy::Refuse, &[&[3]]);
        let revocation = Revocation::new([(ISSUER, old), (ROOT, names.clone()), (ISSUER, names)]);
        assert_eq!(status(&revocation, ISSUER, 1, at(50)), Status::Revoked);
        assert_eq!(status(&revocation, ISSUER, 3, at(50)), Status::Revoked);
        assert_eq!(status(&revocation, ISSUER, 2, at(50)), Status::Good);
        let too_old = Status::Unknown(Gap::TooOld(ISSUER));
        assert_eq!(status(&revocation, ISSUER, 2, at(100)), too_old);
        let missing = Status::Unknown(Gap::Missing(ROOT));
        assert_eq!(status(&revocation, ROOT, 2, at(50)), missing);
    }

    #[test]
    fn of_two_lists_of_one_issuer_the_newer_counts_whichever_ends_first() {
        for flip in [false, true] {
            let mut lists = vec![
                (ISSUER, list(StalePolicy::Refuse, &[&[7]])),
                (ISSUER, {
                    let mut later = IssuerList::new(at(10), at(50), StalePolicy::Refuse);
                    later.insert(Serial::new(&[8]).unwrap());
                    later
                }),
            ];
            if flip {
                lists.reverse();
            }
            let revocation = Revocation::new(lists);
            assert_eq!(
                revocation.status(&chain(&[link(ISSUER, &[8])]), at(1)),
                Status::Revoked
            );
            assert_eq!(
                revocation.status(&chain(&[link(ISSUER, &[7])]), at(1)),
                Status::Good
            );
        }
    }

    fn numbered(number: &[u8], made: u64, serial: u8) -> (AuthorityId, IssuerList) {
        let mut list = IssuerList::new(at(made), at(made + 100), StalePolicy::Refuse);
        list.insert(Serial::new(&[serial]).unwrap());
        let number = (!number.is_empty()).then(|| ListNumber(Serial::new(number).unwrap()));
        (ISSUER, list.numbered(number))
    }

    #[test]
    fn the_number_of_a_list_decides_before_its_date_and_equals_both_count() {
        // (number, made) of the list that names 7 and of the one that names 8; which of them counts.
        let table = [
            ((&[2][..], 10), (&[1][..], 20), [true, false]),
            ((&[1, 0], 10), (&[255], 20), [true, false]),
            ((&[], 10), (&[9], 20), [false, true]),
            ((&[9], 20), (&[], 10), [true, false]),
            ((&[3], 10), (&[3], 20), [false, true]),
            ((&[3], 10), (&[3], 10), [true, true]),
        ];
        for ((one, made), (other, other_made), expected) in table {
            for flip in [false, true] {
                let mut lists = [numbered(one, made, 7), numbered(other, other_made, 8)];
                if flip {
                    lists.reverse();
                }
                let revocation = Revocation::new(lists);
                let named = [7, 8].map(|serial| revocation.is_named(&link(ISSUER, &[serial])));
                assert_eq!(named, expected, "{one:?} {made} {other:?} {other_made}");
            }
        }
    }

    #[test]
    fn a_gap_says_the_name_of_the_ca() {
        let mut revocation = Revocation::new([(ISSUER, list(StalePolicy::Refuse, &[]))]);
        revocation.name(ISSUER, "CN=Issuer");
        let Status::Unknown(gap) = revocation.status(&chain(&[link(ISSUER, &[1])]), at(100)) else {
            panic!("the list has ended");
        };
        assert!(revocation.describe(gap).contains("CN=Issuer"));
        assert!(
            revocation
                .describe(Gap::Missing(ROOT))
                .contains("intermediate")
        );
    }

    proptest! {
        #[test]
        fn a_set_knows_exactly_what_was_put_in(
            inside in proptest::collection::hash_set(proptest::collection::vec(any::<u8>(), 0..20), 0..200),
            outside in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut list = IssuerList::new(at(0), at(100), StalePolicy::Allow);
            for serial in &inside {
                list.insert(Serial::new(serial).unwrap());
            }
            let significant = |bytes: &[u8]| Serial::new(bytes).unwrap();
            let expected = inside.iter().any(|serial| significant(serial) == significant(&outside));
            let revocation = Revocation::new([(ISSUER, list)]);
            let revoked = revocation.status(&chain(&[link(ISSUER, &outside)]), at(1)) == Status::Revoked;
            prop_assert_eq!(revoked, expected);
        }
    }
}
