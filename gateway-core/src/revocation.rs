//! Revocation: whether a certificate, or one above it, has been taken back before its time.
//! In: a verified chain, the lists that were verified when they were loaded, now. Out: one answer. A lookup
//! costs the same for ten entries as for a million. Never parses a list and never verifies one.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::certificate::Chain;
use crate::expiry::Lifetime;
use serde::{Deserialize, Serialize};

/// Names a certificate authority: a digest over its subject name and its public key, so that another authority of the
/// same name is another authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuthorityId(pub [u8; 32]);

/// Names the key of a certificate authority: the beginning of a digest over it. Several certificates, under several names,
/// may be about one key (RFC 5280 section 3.2 calls them cross-certificates), and what is said of the key holds for them all.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct AuthorityKey(pub [u8; 16]);

/// A serial number as it stands in certificates and lists: big-endian, without leading zeros (RFC 5280 section
/// 4.1.2.2 allows 20 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Serial {
    bytes: [u8; Serial::BYTES_MAX],
    length: u8,
}

/// A serial number that is longer than RFC 5280 allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a serial number of more than {} bytes (RFC 5280 section 4.1.2.2)",
    Serial::BYTES_MAX
)]
pub struct SerialTooLong;

impl Serial {
    /// Longest serial number.
    pub const BYTES_MAX: usize = 20;

    /// Takes the content bytes of the DER integer.
    pub fn new(integer: &[u8]) -> Result<Self, SerialTooLong> {
        let first = integer
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(integer.len());
        let significant = &integer[first..];
        let mut bytes = [0; Self::BYTES_MAX];
        bytes
            .get_mut(..significant.len())
            .ok_or(SerialTooLong)?
            .copy_from_slice(significant);
        Ok(Serial {
            bytes,
            length: significant.len() as u8,
        })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl TryFrom<Vec<u8>> for Serial {
    type Error = SerialTooLong;

    fn try_from(integer: Vec<u8>) -> Result<Self, Self::Error> {
        Serial::new(&integer)
    }
}

impl From<Serial> for Vec<u8> {
    fn from(serial: Serial) -> Self {
        serial.as_bytes().to_vec()
    }
}

/// Hexadecimal, two digits a byte, as `openssl x509 -serial` prints it but in lower case.
impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == 0 {
            return formatter.write_str("00");
        }
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// One certificate of a verified chain: who issued it, under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The authority above.
    pub issuer: AuthorityId,
    /// The key of that authority.
    pub key: AuthorityKey,
    /// The certificate's number there.
    pub serial: Serial,
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

/// Names a distribution point: the beginning of a digest over its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PointId(pub [u8; 8]);

/// A distribution point that a certificate of a chain names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkPoint {
    /// Position of the certificate in the chain; 0 is the end entity's.
    pub link: u8,
    /// The point.
    pub point: PointId,
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
    fn covers(&self, position: usize, points: &[LinkPoint]) -> bool {
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

/// Why nobody can say whether a certificate has been revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// There is no list of this issuer.
    Missing(AuthorityId),
    /// The list of this issuer may not be used any more.
    TooOld(AuthorityId),
    /// The lists of this issuer are about other certificates of its.
    NotCovered(AuthorityId),
}

/// The answer for one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No list names any of its certificates.
    Good,
    /// A list names one of them.
    Revoked,
    /// The list of one of its issuers is too old to be trusted, or there is none.
    Unknown(Gap),
}

/// The list of one issuer. A clone shares the entries.
#[derive(Debug, Clone)]
pub struct IssuerList {
    issuer_name: Arc<str>,
    rank: Rank,
    next_update: SystemTime,
    scope: Arc<Scope>,
    stale_policy: StalePolicy,
    /// Whether it revokes what it names and no more: nobody is refused for its want or its age.
    names_only: bool,
    serials: Arc<HashSet<Serial>>,
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

/// All lists that one listener trusts.
#[derive(Debug, Default)]
pub struct Revocation {
    /// By issuer; several where they cover different certificates, or say that they are equally new.
    lists: HashMap<AuthorityId, Vec<IssuerList>>,
    authorities: HashSet<AuthorityId>,
    /// Who issued an authority that is trusted by itself, where that one is trusted as well. Several bear the same name.
    above: HashMap<AuthorityId, Vec<AuthorityId>>,
    /// What authorities are called, for people.
    names: HashMap<AuthorityId, Arc<str>>,
}

impl Revocation {
    /// Takes the lists; of two lists of one issuer about the same certificates the newer counts.
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
                // Nobody can say which one the issuer means by now: what either names is revoked.
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

    /// Remembers what an authority is called.
    pub fn name(&mut self, authority: AuthorityId, name: &str) {
        self.names.insert(authority, name.into());
    }

    /// Remembers that an authority that had been trusted by itself is named by the list of another one.
    pub fn revoke_authority(&mut self, authority: AuthorityId) {
        self.authorities.insert(authority);
    }

    /// Remembers that an authority that is trusted by itself was issued by another one: chains end at the former, and the
    /// list of the latter has to be fresh all the same.
    pub fn place_below(&mut self, authority: AuthorityId, issuers: Vec<AuthorityId>) {
        self.above.insert(authority, issuers);
    }

    /// Whether the authority has been taken back, and with it every chain that ends at it.
    pub fn is_authority_revoked(&self, authority: AuthorityId) -> bool {
        self.authorities.contains(&authority)
    }

    /// Whether there is any list that is more than names. Without one nothing is asked of anybody.
    pub fn is_configured(&self) -> bool {
        self.lists.values().flatten().any(|list| !list.names_only)
    }

    /// The lists of an authority that vouch for what they do not name.
    pub fn vouching(&self, authority: &AuthorityId) -> impl Iterator<Item = &IssuerList> + Clone {
        let of_issuer = self.lists.get(authority).into_iter().flatten();
        of_issuer.filter(|list| !list.names_only)
    }

    /// Whether there is a list of this authority about certificates of these kinds.
    pub fn has_list(&self, authority: AuthorityId, kinds: Kinds) -> bool {
        let mut kinds_known = self.vouching(&authority).map(|list| list.scope.kinds);
        kinds_known.any(|known| known == Kinds::All || known == kinds)
    }

    /// Whether a list of its issuer names this certificate. Even an old list is right about what it names, and no serial
    /// number stands for two certificates: neither its age nor what it covers is asked.
    pub fn is_named(&self, link: &Link) -> bool {
        let of_issuer = self.lists.get(&link.issuer).into_iter().flatten();
        of_issuer
            .into_iter()
            .any(|list| list.serials.contains(&link.serial))
    }

    /// Looks every certificate of a chain up: revoked if any is, unknown if the list of any issuer is missing or may
    /// not be used any more, good otherwise.
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

    /// Why nothing can be said of a certificate of this issuer, if nothing can.
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

    /// Why nobody can say any more that an authority has not been taken back: there are lists of whoever issued it, or
    /// of somebody further up, and all of them are too old.
    fn gap_above(&self, authority: AuthorityId, now: SystemTime) -> Option<Gap> {
        let mut at = authority;
        // Authorities may have certified each other: no walk is longer than there are authorities.
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

    /// A gap in words, with the name of the CA.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn a_serial_longer_than_the_standard_allows_is_refused() {
        assert_eq!(Serial::new(&[1; 21]), Err(SerialTooLong));
        assert!(
            Serial::new(&[&[0][..], &[1; 20]].concat()).is_ok(),
            "the sign byte of DER"
        );
    }

    #[test]
    fn clones_share_entries_until_one_of_them_changes() {
        let first = list(StalePolicy::Refuse, &[&[7]]);
        assert!(!first.is_shared());
        let mut second = first.with_stale_policy(StalePolicy::Allow);
        assert!(first.is_shared() && second.is_shared());
        second.insert(Serial::new(&[8]).unwrap());
        assert!(!first.is_shared());
        assert_eq!((first.len(), second.len()), (1, 2));
        assert_eq!(first.stale_policy(), StalePolicy::Refuse);
        assert_eq!(second.stale_policy(), StalePolicy::Allow);
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
