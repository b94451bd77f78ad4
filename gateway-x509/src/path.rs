//! Finds the path from a certificate to a CA, with bounded work.
//! In: the certificates that a peer sent, its own first; the CAs; what else must hold. Out: one path that webpki has verified,
//! or the reason in words. What it may cost is in `limits`: certificates, candidates, paths, signatures.
//!
//! webpki tries every order of the certificates it gets, which is exponential where they are interchangeable. So this module
//! searches over names and key identifiers (RFC 4158 section 2.4), best guess first, and gives webpki one path at a time, in
//! its order, and only if every signature on it holds. It ignores certificates that no path needs: RFC 8446 section 4.4.2
//! wants them tolerated. It finds a CA by its name as RFC 5280 section 7.1 compares names; between two certificates that
//! were sent the bytes have to be the same, because webpki compares them.
//!
//! Two kinds of paths are not found although trying every order would find them:
//! - through a CA that has the name and the key of the first certificate: a loop (RFC 4158 section 5.2), which webpki refuses. Other
//!   loops have a shorter path without them, which is found.
//! - beyond the limits. The reason is `ChainTooLarge` then, unless another path was refused for one that says more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use gateway_core::failure::Failure;
use gateway_core::limits;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::candidate::{self, Candidate, CandidateError};
use super::ledger::{self, Recorded};
use super::refusal::{self, Refused};
use super::roots::{Root, Roots};
use super::signed::Signed;

/// What the certificate at the beginning is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// By a client, towards us.
    Client,
    /// By a server that we connect to.
    Server,
}

impl Usage {
    fn for_webpki(self) -> KeyUsage {
        match self {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        }
    }
}

/// A path that webpki has verified.
pub struct Verified<'p> {
    /// The certificates.
    pub path: &'p VerifiedPath<'p>,
    /// The CA they lead to.
    pub root: &'p Root,
}

/// What must hold of a path beyond RFC 5280: a local policy.
pub trait PathPolicy {
    /// What is kept of a path.
    type Accepted;

    /// Takes a verified path, or says what speaks against it: then other paths are tried.
    ///
    /// # Errors
    ///
    /// Why not this one.
    fn accept(&self, verified: &Verified<'_>) -> Result<Self::Accepted, Refused>;

    /// A better reason than webpki's, if there is one. `above` are the certificates between the first one and the CA, of which
    /// nothing is verified.
    fn explain(&self, error: &webpki::Error, above: &[CertificateDer<'_>]) -> Option<Refused> {
        let _ = (error, above);
        None
    }
}

/// Takes every path that is one.
#[derive(Debug, Clone, Copy)]
pub struct AnyPath;

impl PathPolicy for AnyPath {
    type Accepted = ();

    fn accept(&self, _verified: &Verified<'_>) -> Result<(), Refused> {
        Ok(())
    }
}

/// What a search took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// Beginnings of paths that were looked at.
    pub candidates: usize,
    /// Whole paths that webpki was shown.
    pub paths: usize,
    /// Orders of certificates that webpki may have tried on those that it refused, counted by certificates.
    pub orders: usize,
    /// Signatures that were checked.
    pub signatures: usize,
    /// What that may have cost with the slowest library, in microseconds.
    pub signature_work_us: usize,
}

/// A search for a path.
#[derive(Debug, Clone, Copy)]
pub struct Search<'s> {
    /// Where a path may end.
    pub roots: &'s Roots,
    /// What certificates may be signed with.
    pub algorithms: &'s [&'static dyn SignatureVerificationAlgorithm],
    /// What the first certificate is used for.
    pub usage: Usage,
    /// The time.
    pub now: UnixTime,
}

/// A certificate that may have issued another: one that was sent, or a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Issuer {
    Root(usize),
    Sent(usize),
}

/// The beginning of a path: positions of certificates, the first one's own not included.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Beginning {
    above: Vec<usize>,
    root: Option<usize>,
}

impl Search<'_> {
    /// Finds a path that `policy` accepts.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn find<P: PathPolicy>(
        &self,
        sent: &[CertificateDer<'_>],
        policy: &P,
    ) -> Result<P::Accepted, Refused> {
        self.find_counting(sent, policy).0
    }

    /// As `find`, and what it took.
    pub fn find_counting<P: PathPolicy>(
        &self,
        sent: &[CertificateDer<'_>],
        policy: &P,
    ) -> (Result<P::Accepted, Refused>, Steps) {
        if let Err(refused) = within_bounds(sent) {
            return (Err(refused), Steps::default());
        }
        ledger::open();
        let mut walk = match Walk::new(self, sent) {
            Ok(walk) => walk,
            Err(refused) => return (Err(refused), Steps::default()),
        };
        let found = walk.run(policy);
        walk.steps.signatures = ledger::checks();
        walk.steps.signature_work_us = ledger::work_us();
        (found, walk.steps)
    }
}

/// Refuses a message by what it costs nothing to find out. `Search` asks itself; for those that read a certificate before.
///
/// # Errors
///
/// More certificates, bytes, or values in the first certificate than are looked at, or its DER is broken.
pub fn within_bounds(sent: &[CertificateDer<'_>]) -> Result<(), Refused> {
    let (count, count_max) = (sent.len(), limits::CHAIN_CERTIFICATES_MAX);
    let bytes: usize = sent.iter().map(|certificate| certificate.len()).sum();
    let (bytes_max, values_max) = (limits::CHAIN_BYTES_MAX, limits::CERTIFICATE_VALUES_MAX);
    let advice = "send the certificate and those between it and the CA, nothing else";
    let detail = if count > count_max {
        format!("it came with {count} certificates, at most {count_max} are looked at: {advice}")
    } else if bytes > bytes_max {
        format!("its certificates have {bytes} bytes, at most {bytes_max} are looked at: {advice}")
    } else {
        let Some(leaf) = sent.first() else {
            return Ok(());
        };
        match candidate::count_values(leaf, values_max) {
            Ok(_) => return Ok(()),
            Err(error @ CandidateError::Broken(_)) => return Err(unreadable(&error)),
            Err(CandidateError::TooManyValues) => format!(
                "the certificate is made of more than {values_max} DER values: issue it with fewer names and extensions"
            ),
        }
    };
    Err(Refused::new(Failure::ChainTooLarge, detail))
}

fn unreadable(error: &CandidateError) -> Refused {
    let detail = format!("the certificate cannot be read: {error}");
    Refused::new(Failure::Malformed, detail)
}

/// One search under way.
struct Walk<'w> {
    search: &'w Search<'w>,
    sent: &'w [CertificateDer<'w>],
    leaf: Candidate<'w>,
    /// Those behind the first one. What cannot be read has issued none of them.
    above: Vec<Option<Candidate<'w>>>,
    algorithms: Vec<Recorded>,
    steps: Steps,
    refusal: Option<Refused>,
    /// A path was not followed because it had become too long.
    is_cut: bool,
    /// A path was not followed because so many of one name would have been in it that webpki would try too many orders.
    is_crowded: bool,
}

impl<'w> Walk<'w> {
    fn new(search: &'w Search<'w>, sent: &'w [CertificateDer<'w>]) -> Result<Self, Refused> {
        let (leaf, above) = sent.split_first().ok_or_else(|| {
            Refused::new(Failure::NoCertificate, "there is no certificate".to_owned())
        })?;
        let leaf = Candidate::read(leaf).map_err(|error| unreadable(&error))?;
        Ok(Walk {
            search,
            sent,
            leaf,
            above: above.iter().map(|der| Candidate::read(der).ok()).collect(),
            algorithms: search.algorithms.iter().copied().map(Recorded).collect(),
            steps: Steps::default(),
            refusal: None,
            is_cut: false,
            is_crowded: false,
        })
    }

    fn run<P: PathPolicy>(&mut self, policy: &P) -> Result<P::Accepted, Refused> {
        let mut pending = BinaryHeap::from([Reverse((0, Beginning::default()))]);
        while let Some(Reverse((cost, beginning))) = pending.pop() {
            if self.steps.candidates >= limits::CHAIN_CANDIDATES_MAX
                || self.steps.paths >= limits::CHAIN_PATHS_MAX
            {
                return Err(self.exhausted());
            }
            self.steps.candidates += 1;
            if let Some(root) = beginning.root {
                match self.try_path(&beginning.above, root, policy) {
                    Ok(accepted) => return Ok(accepted),
                    Err(_) if ledger::is_exhausted() => return Err(self.exhausted()),
                    Err(refused) => self.note(refused),
                }
                continue;
            }
            for (step, issuer) in self.issuers(&beginning) {
                let next = match issuer {
                    Issuer::Root(position) => Beginning {
                        above: beginning.above.clone(),
                        root: Some(position),
                    },
                    Issuer::Sent(position) => Beginning {
                        above: [&beginning.above[..], &[position]].concat(),
                        root: None,
                    },
                };
                pending.push(Reverse((cost + step, next)));
            }
        }
        match self.refusal.take() {
            Some(refused) if refused.says_much() || !self.is_crowded => Err(refused),
            _ if self.is_crowded => Err(self.exhausted()),
            _ => Err(self.without_path(policy)),
        }
    }

    /// Keeps the reason that says most.
    fn note(&mut self, refused: Refused) {
        let weight = |refused: &Refused| refused.weight();
        if self
            .refusal
            .as_ref()
            .is_none_or(|kept| weight(kept) < weight(&refused))
        {
            self.refusal = Some(refused);
        }
    }

    fn head(&self, beginning: &Beginning) -> &Candidate<'w> {
        let last = beginning.above.last();
        last.and_then(|position| self.above[*position].as_ref())
            .unwrap_or(&self.leaf)
    }

    /// The possible issuers of the last certificate of a path, with what each step costs: the cheaper, the likelier.
    fn issuers(&mut self, beginning: &Beginning) -> Vec<(usize, Issuer)> {
        let head = self.head(beginning);
        let named = self.search.roots.named(head.issuer).iter().copied();
        let mut issuers: Vec<_> = named
            .chain(self.search.roots.named_otherwise(head.issuer))
            .map(|position| (position, self.search.roots.at(position)))
            .filter(|(_, root)| !ledger::refutes(&root.anchor.subject_public_key_info, head.der))
            .map(|(position, root)| {
                let likeness = likeness(head.issuer_key_id, root.key_id.as_deref());
                let is_over = root.not_after <= time(self.search.now);
                (likeness + over(is_over), Issuer::Root(position))
            })
            .collect();
        let depth_max = *limits::CHAIN_DEPTH.end() as usize;
        let (mut is_cut, mut is_crowded) = (false, false);
        for (position, candidate) in self.above.iter().enumerate() {
            let Some(candidate) = candidate else { continue };
            if candidate.subject != head.issuer
                || beginning.above.contains(&position)
                || self.is_loop(beginning, candidate)
                || ledger::refutes(candidate.der, head.der)
            {
                continue;
            }
            let above = [&beginning.above[..], &[position]].concat();
            if self.orders(&above) > limits::CHAIN_ORDERS_MAX {
                is_crowded = true;
                continue;
            }
            if beginning.above.len() + 2 > depth_max {
                is_cut = true;
                continue;
            }
            let likeness = likeness(head.issuer_key_id, candidate.key_id);
            let now = self.search.now.as_secs() as i64;
            let (begins, ends) = candidate.validity;
            let is_over = !(begins..=ends).contains(&now);
            issuers.push((likeness + over(is_over), Issuer::Sent(position)));
        }
        self.is_cut |= is_cut;
        self.is_crowded |= is_crowded;
        issuers.sort();
        issuers.truncate(limits::CHAIN_CANDIDATES_MAX);
        issuers
    }

    /// Whether a certificate of this name and key is in the path already: webpki takes none twice (RFC 4158 section 5.2).
    fn is_loop(&self, beginning: &Beginning, candidate: &Candidate<'_>) -> bool {
        let same = |known: &Candidate<'_>| {
            (known.subject, known.key) == (candidate.subject, candidate.key)
        };
        same(&self.leaf) || self.read(&beginning.above).any(same)
    }

    fn read(&self, above: &[usize]) -> impl Iterator<Item = &Candidate<'w>> {
        above
            .iter()
            .filter_map(|position| self.above[*position].as_ref())
    }

    /// How many certificates webpki looks at in all orders of a path that it refuses: those of one name may change places.
    fn orders(&self, above: &[usize]) -> usize {
        let earlier = |position: usize, name: &[u8]| {
            let before = self.read(&above[..position]);
            before.filter(|known| known.subject == name).count()
        };
        let own_places = self
            .read(above)
            .enumerate()
            .map(|(position, known)| 1 + earlier(position, known.subject));
        own_places.fold(above.len(), usize::saturating_mul)
    }

    /// Shows webpki one path.
    fn try_path<P: PathPolicy>(
        &mut self,
        above: &[usize],
        root: usize,
        policy: &P,
    ) -> Result<P::Accepted, Refused> {
        let root = self.search.roots.at(root);
        let checks = ledger::checks();
        if !self.signatures_hold(above, root) {
            // Asked once for each signature, because the answer may take as long: no algorithm may verify the key.
            let is_new = ledger::checks() > checks;
            let sent = || {
                above
                    .iter()
                    .map(|position| CertificateDer::from(&self.sent[1 + position][..]))
            };
            let error = webpki::Error::InvalidSignatureForPublicKey;
            let better = is_new.then(|| policy.explain(&error, &sent().collect::<Vec<_>>()));
            return Err(better.flatten().unwrap_or_else(Refused::bad_signature));
        }
        let orders = self.orders(above);
        if self.steps.orders + orders > limits::CHAIN_ORDERS_MAX {
            self.is_crowded = true;
            return Err(Refused::bad_signature());
        }
        self.steps.paths += 1;
        if root.not_after <= time(self.search.now) {
            return Err(refusal::ended_root(root));
        }
        self.bound_constraints(above, root)?;
        let last = above.last().and_then(|last| self.above[*last].as_ref());
        let anchor = root.called(last.unwrap_or(&self.leaf).issuer);
        let roots = std::slice::from_ref(&anchor);
        let above: Vec<_> = above
            .iter()
            .map(|position| CertificateDer::from(&self.sent[1 + position][..]))
            .collect();
        let explain = |error: webpki::Error| {
            let better = policy.explain(&error, &above);
            better.unwrap_or_else(|| {
                refusal::explain(&error, self.search.usage, &self.sent[0], &above)
            })
        };
        let leaf = EndEntityCert::try_from(&self.sent[0]).map_err(explain)?;
        let algorithms: Vec<_> = self.algorithms.iter().map(|one| one as _).collect();
        let usage = self.search.usage.for_webpki();
        let now = self.search.now;
        // Taken off again where the first order was good: then no other was tried.
        self.steps.orders += orders;
        let verified = ledger::closed(|| {
            leaf.verify_for_usage(&algorithms, roots, &above, now, usage, None, None)
        });
        let path = verified.map_err(explain)?;
        self.steps.orders -= orders;
        refusal::require_issuers(&path)?;
        // webpki has verified that these are the path, and honoured the other constraints.
        let certificates = std::iter::once(&self.sent[0]).chain(&above);
        root.constraints.check(certificates)?;
        policy.accept(&Verified { path: &path, root })
    }

    /// Whether every signature of a path holds, from the CA down, as far as that can be told. webpki asks for each again, and the
    /// ledger knows them then. Signatures that no algorithm here verifies are left to webpki, which says so in words.
    fn signatures_hold(&self, above: &[usize], root: &Root) -> bool {
        let mut key = root.anchor.subject_public_key_info.as_ref();
        let positions = above.iter().rev().map(|position| 1 + position).chain([0]);
        for position in positions {
            let certificate: &CertificateDer<'_> = &self.sent[position];
            let issued = match position {
                0 => Some(&self.leaf),
                _ => self.above[position - 1].as_ref(),
            };
            let algorithms = self.algorithms.iter().map(|one| one as _);
            let holds = Signed::parse(certificate).and_then(|signed| signed.holds(key, algorithms));
            if holds == Some(false) {
                return false;
            }
            key = issued.map_or(key, |issued| issued.key);
        }
        true
    }

    /// webpki compares every name below a CA with every constraint of that one.
    fn bound_constraints(&self, above: &[usize], root: &Root) -> Result<(), Refused> {
        let above = above
            .iter()
            .filter_map(|position| self.above[*position].as_ref());
        let path = || std::iter::once(&self.leaf).chain(above.clone());
        let names: usize = path().map(|candidate| candidate.values).sum();
        let constraints = path().map(|candidate| candidate.constraint_values);
        let constraints = constraints.fold(root.constraint_values, usize::saturating_add);
        if names.saturating_mul(constraints) <= limits::CHAIN_CONSTRAINT_WORK_MAX {
            return Ok(());
        }
        let detail = "the name constraints of its CAs and the names below them are too many to compare: \
                      issue it with fewer names, or a CA with fewer constraints";
        Err(Refused::new(Failure::ChainTooLarge, detail.to_owned()))
    }

    /// The reason where no path was tried. The certificate's own faults come first: they are known without any CA.
    fn without_path<P: PathPolicy>(&self, policy: &P) -> Refused {
        if self.is_cut {
            return refusal::too_deep();
        }
        let own_fault = || -> Result<(), webpki::Error> {
            let leaf = EndEntityCert::try_from(&self.sent[0])?;
            let usage = self.search.usage.for_webpki();
            leaf.verify_for_usage(&[], &[], &[], self.search.now, usage, None, None)?;
            Ok(())
        };
        match own_fault() {
            Err(webpki::Error::UnknownIssuer) | Ok(()) => {
                refusal::unknown_issuer(self.search, &self.leaf, &self.above)
            }
            Err(error) => policy
                .explain(&error, &[])
                .unwrap_or_else(|| refusal::explain(&error, self.search.usage, &self.sent[0], &[])),
        }
    }

    /// The reason where the search was given up.
    fn exhausted(&mut self) -> Refused {
        let detail = format!(
            "{} certificates came with it, and too many of them and of the CAs could each have issued another: none of the \
             first {} paths and {} signatures leads to a CA. Send only those between the certificate and the CA, and issue \
             them with authority key identifiers (RFC 5280 section 4.2.1.1)",
            self.above.len(),
            self.steps.paths,
            ledger::checks(),
        );
        Refused::new(Failure::ChainTooLarge, detail)
    }
}

fn time(now: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs())
}

/// The price of a step to an issuer by its key identifier. A path of sure steps, however long, is cheaper than a guess.
fn likeness(named: Option<&[u8]>, own: Option<&[u8]>) -> usize {
    const SURE: usize = 1;
    const POSSIBLE: usize = 8;
    const UNLIKELY: usize = 64;
    match (named, own) {
        (Some(named), Some(own)) if named == own => SURE,
        (Some(_), Some(_)) => UNLIKELY,
        (None, _) | (_, None) => POSSIBLE,
    }
}

/// The price of an issuer that is valid no more, or not yet: it is tried last, to say so.
fn over(is_over: bool) -> usize {
    const OVER: usize = 1024;
    usize::from(is_over) * OVER
}
