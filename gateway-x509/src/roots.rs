//! The CAs that are trusted, found by name.
//! In: CA certificates as the configuration has read them. Out: those of one name, with what tells them apart. Made when a
//! configuration is checked, immutable, shared by all workers.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use gateway_core::anchors::ConstraintsId;
use gateway_core::identity::Pattern;
use rustls::pki_types::{CertificateDer, Der, TrustAnchor};
use rustls::{DistinguishedName, RootCertStore};

use super::candidate::Candidate;
use super::certificate::CertificateInfo;
use super::constraints::{self, Constraints};
use super::name;

/// A CA that is trusted.
#[derive(Debug)]
pub struct Root {
    /// What webpki works with.
    pub anchor: TrustAnchor<'static>,
    /// Its name, as RFC 4514 text.
    pub subject: String,
    /// The first moment at which it is valid no more: the last second belongs to it (RFC 5280 section 4.1.2.5).
    pub not_after: SystemTime,
    /// Names all of its name constraints, those that webpki sees and the others.
    pub constraints_id: Option<ConstraintsId>,
    /// Subject key identifier.
    pub(super) key_id: Option<Vec<u8>>,
    /// DER values of which its name constraints are made.
    pub(super) constraint_values: usize,
    /// Those of its name constraints that webpki is not shown.
    pub(super) constraints: Constraints,
}

/// All CAs that the other side's certificates may chain to.
#[derive(Debug, Default)]
pub struct Roots {
    roots: Vec<Root>,
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    /// By name as RFC 5280 section 7.1 compares names.
    by_canonical_name: HashMap<Vec<u8>, Vec<usize>>,
    /// By name as text, in lower case: a CA may be named in another string type by those it has issued.
    by_text: HashMap<String, usize>,
}

impl Roots {
    /// Those of `store`, whose certificates `certificates` are, in the same order.
    pub fn new(store: RootCertStore, certificates: &[CertificateDer<'_>]) -> Self {
        let mut roots = Roots::default();
        for (anchor, certificate) in store.roots.into_iter().zip(certificates) {
            roots.add(Root::new(anchor, certificate));
        }
        roots.put_the_longest_first();
        roots
    }

    /// Their names, as a CertificateRequest lists them (RFC 8446 section 4.2.4).
    pub fn names(&self) -> impl Iterator<Item = DistinguishedName> {
        let names = self.iter().map(|root| root.anchor.subject.as_ref());
        names.map(DistinguishedName::in_sequence)
    }

    /// What the list of their names takes in a CertificateRequest, in bytes: each name has two bytes of length.
    pub fn names_bytes(&self) -> usize {
        self.names().map(|name| 2 + name.as_ref().len()).sum()
    }

    /// Those of one name change places: of a CA and its renewed certificate, which bears the same name and key, the one is tried
    /// first that keeps a connection the longest.
    fn put_the_longest_first(&mut self) {
        let mut roots: Vec<_> = self.roots.drain(..).map(Some).collect();
        for places in self.by_name.values().filter(|places| places.len() > 1) {
            let mut of_one_name: Vec<_> = places.iter().map(|place| roots[*place].take()).collect();
            of_one_name.sort_by_key(|root| Reverse(root.as_ref().map(|root| root.not_after)));
            for (place, root) in places.iter().zip(of_one_name) {
                roots[*place] = root;
            }
        }
        self.roots = roots.into_iter().flatten().collect();
    }

    fn add(&mut self, root: Root) {
        let position = self.roots.len();
        let name = root.anchor.subject.as_ref().to_vec();
        if let Some(name) = name::canonical(&name) {
            let alike = self.by_canonical_name.entry(name).or_default();
            alike.push(position);
        }
        self.by_name.entry(name).or_default().push(position);
        self.by_text.insert(root.subject.to_lowercase(), position);
        self.roots.push(root);
    }

    /// All, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    pub(super) fn at(&self, position: usize) -> &Root {
        &self.roots[position]
    }

    /// Positions of those that bear this name, in DER without tag and length.
    pub(super) fn named(&self, name: &[u8]) -> &[usize] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Positions of those that bear this name in other bytes (RFC 5280 section 7.1).
    pub(super) fn named_otherwise(&self, name: &[u8]) -> impl Iterator<Item = usize> {
        let known = self.named(name);
        // Where all bear it by its bytes already, nothing is looked for.
        let canonical = (known.len() < self.roots.len()).then(|| name::canonical(name));
        let alike = canonical
            .flatten()
            .and_then(|name| self.by_canonical_name.get(&name));
        let alike = alike.map_or(&[][..], Vec::as_slice).iter().copied();
        alike.filter(|position| !known.contains(position))
    }

    /// One that bears this name as text.
    pub(super) fn spelled(&self, name: &str) -> Option<&Root> {
        let position = self.by_text.get(&name.to_lowercase())?;
        self.roots.get(*position)
    }
}

impl Root {
    /// The CA as those it has issued may call it: by its own name in other bytes, which webpki compares.
    pub(super) fn called<'r>(&'r self, name: &'r [u8]) -> TrustAnchor<'r> {
        let constraints = self.anchor.name_constraints.as_ref();
        TrustAnchor {
            subject: Der::from_slice(name),
            subject_public_key_info: Der::from_slice(&self.anchor.subject_public_key_info),
            name_constraints: constraints.map(|constraints| Der::from_slice(constraints)),
        }
    }

    fn new(mut anchor: TrustAnchor<'static>, certificate: &CertificateDer<'_>) -> Self {
        let constraints_id = anchor.name_constraints.as_deref().map(constraints::id);
        let (shown, constraints) = constraints::split(anchor.name_constraints.take());
        anchor.name_constraints = shown;
        let info = CertificateInfo::parse(certificate).ok();
        let candidate = Candidate::read(certificate).ok();
        let end = info.as_ref().map(|info| info.not_after);
        Root {
            subject: info.map_or_else(String::new, |info| info.subject),
            // What cannot be read has not been taken by the configuration.
            not_after: end.map_or(SystemTime::UNIX_EPOCH, |end| end + Duration::from_secs(1)),
            key_id: candidate
                .as_ref()
                .and_then(|candidate| candidate.key_id.map(<[u8]>::to_vec)),
            // Name constraints of a root that has more values than are counted count for too many.
            constraint_values: candidate
                .map_or(usize::MAX, |candidate| candidate.constraint_values),
            constraints_id,
            constraints,
            anchor,
        }
    }

    /// Whether a certificate below it may have a URI that this pattern matches, as far as the pattern says which host that has.
    pub fn may_certify(&self, uri: &Pattern) -> bool {
        self.constraints.may_permit(uri)
    }
}
