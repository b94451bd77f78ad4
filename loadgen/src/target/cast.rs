//! Who plays which part: which connections show which certificate, which of them must be refused, who they are later.
//! In: identities with what is wrong with them, shares, a time. Out: an identity for each connection. Checked once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use crate::credentials::Identity;
use crate::tally::Flaw;

/// Certificates with one flaw, and how many of the connections show them.
#[derive(Debug, Clone)]
pub struct Flawed {
    /// What is wrong with them.
    pub flaw: Flaw,
    /// Share of the connections, from 0 to 1.
    pub share: f64,
    /// Used in turn.
    pub identities: Arc<[Identity]>,
    /// The failure that is the right answer, by its label.
    pub expected: String,
}

/// New identities in mid-run.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// When, from the common start.
    pub after: Duration,
    /// They take the places of the first ones.
    pub identities: Arc<[Identity]>,
}

/// How often a client that must be refused tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cadence {
    /// Whenever it has a turn.
    EachTurn,
    /// Every second while the others work.
    EachSecond,
}

/// One connection that must be refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspect<'a> {
    pub(crate) flaw: Flaw,
    pub(crate) name: &'a str,
    pub(crate) expected: &'a str,
    pub(super) identity: &'a Identity,
}

/// The flawed certificate that connection `index` shows, spread evenly over all connections.
pub(super) fn suspect(flawed: &[Flawed], index: usize) -> Option<Suspect<'_>> {
    let total: f64 = flawed.iter().map(|one| one.share).sum();
    let number = place(total, index)?;
    let mut below = 0.0;
    // Of the suspects each flaw has its part, spread in the same way.
    let chosen = flawed.iter().find(|one| {
        let part = one.share / (total - below);
        below += one.share;
        // What is left when all others have had theirs.
        part > 1.0 - ROUNDING || place(part, number).is_some()
    })?;
    let identity = &chosen.identities[number % chosen.identities.len()];
    Some(Suspect {
        flaw: chosen.flaw,
        name: &identity.name,
        expected: &chosen.expected,
        identity,
    })
}

const ROUNDING: f64 = 1e-9;

/// Whether `index` belongs to the `share` of all, and as the how manyth of them.
pub(crate) fn place(share: f64, index: usize) -> Option<usize> {
    let before = (index as f64 * share + ROUNDING) as usize;
    let after = ((index + 1) as f64 * share + ROUNDING) as usize;
    (after > before).then_some(before)
}

/// Shows another identity in every handshake, whoever does it.
#[derive(Debug, Default)]
pub(super) struct Parade {
    identities: Vec<Identity>,
    next: AtomicUsize,
}

impl Parade {
    pub(super) fn new(identities: &[Identity]) -> Arc<Self> {
        Arc::new(Self {
            identities: identities.to_vec(),
            next: AtomicUsize::new(0),
        })
    }

    /// How many different ones were shown.
    pub(super) fn shown(&self) -> usize {
        self.next.load(Ordering::Relaxed).min(self.identities.len())
    }
}

impl ResolvesClientCert for Parade {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let identity = self.identities.get(number % self.identities.len().max(1))?;
        identity.resolver.resolve(root_hint_subjects, schemes)
    }

    fn has_certs(&self) -> bool {
        !self.identities.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::{Authority, Edition};

    #[test]
    fn shares_are_kept_and_spread_over_the_connections() {
        let identities: Arc<[Identity]> = Authority::ephemeral()
            .unwrap()
            .identities(1..=3, Edition::First)
            .unwrap()
            .into();
        let flawed = |flaw, share| Flawed {
            flaw,
            share,
            identities: identities.clone(),
            expected: String::new(),
        };
        for (revoked, expired) in [(0.1, 0.05), (0.3, 0.0), (0.0, 0.25), (0.5, 0.5), (1.0, 0.0)] {
            let both: Vec<Flawed> = [(Flaw::Revoked, revoked), (Flaw::Expired, expired)]
                .into_iter()
                .filter(|(_, share)| *share > 0.0)
                .map(|(flaw, share)| flawed(flaw, share))
                .collect();
            let count = |flaw, range: std::ops::Range<usize>| {
                range
                    .filter_map(|index| suspect(&both, index))
                    .filter(|suspect| suspect.flaw == flaw)
                    .count() as f64
            };
            for (flaw, share) in [(Flaw::Revoked, revoked), (Flaw::Expired, expired)] {
                assert_eq!(
                    count(flaw, 0..1000),
                    1000.0 * share,
                    "{revoked} {expired} {flaw:?}"
                );
                let half = count(flaw, 0..500);
                assert!((half - 500.0 * share).abs() <= 1.0, "{half} {flaw:?}");
            }
        }
    }
}
