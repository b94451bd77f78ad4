//! The identity of each connection: which certificate it presents, whether the server must refuse it, when it changes.
//! In: identities and their flaws, shares, a time. Out: an identity for each connection. Checked once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use crate::credentials::Identity;
use crate::tally::Flaw;

/// Certificates with one flaw, and the share of the connections that presents them.
#[derive(Debug, Clone)]
pub struct Flawed {
    /// Why the server must refuse them.
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
    /// They replace the first ones.
    pub identities: Arc<[Identity]>,
}

/// How often a client that must be refused tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cadence {
    /// In each of its turns.
    EachTurn,
    /// Once a second while the other clients work.
    EachSecond,
}

/// One connection that must be refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FlawedClient<'a> {
    pub(crate) flaw: Flaw,
    pub(crate) name: &'a str,
    pub(crate) expected: &'a str,
    pub(super) identity: &'a Identity,
}

/// The flawed certificate that connection `index` presents. Flaws are spread evenly over all connections.
pub(super) fn flawed_client(flawed: &[Flawed], index: usize) -> Option<FlawedClient<'_>> {
    let total: f64 = flawed.iter().map(|one| one.share).sum();
    let number = place(total, index)?;
    let mut below = 0.0;
    // Each flaw has its part of the flawed clients, spread in the same way.
    let chosen = flawed.iter().find(|one| {
        let part = one.share / (total - below);
        below += one.share;
        // The last flaw takes what is left.
        part > 1.0 - ROUNDING || place(part, number).is_some()
    })?;
    let identity = &chosen.identities[number % chosen.identities.len()];
    Some(FlawedClient {
        flaw: chosen.flaw,
        name: &identity.name,
        expected: &chosen.expected,
        identity,
    })
}

const ROUNDING: f64 = 1e-9;

/// The position of `index` within the `share` of all, if it belongs to it.
pub(crate) fn place(share: f64, index: usize) -> Option<usize> {
    let before = (index as f64 * share + ROUNDING) as usize;
    let after = ((index + 1) as f64 * share + ROUNDING) as usize;
    (after > before).then_some(before)
}

/// Presents another identity in each handshake, on any connection.
#[derive(Debug, Default)]
pub(super) struct IdentityPerHandshake {
    identities: Vec<Identity>,
    next: AtomicUsize,
}

impl IdentityPerHandshake {
    pub(super) fn new(identities: &[Identity]) -> Arc<Self> {
        Arc::new(Self {
            identities: identities.to_vec(),
            next: AtomicUsize::new(0),
        })
    }

    /// How many different identities were presented.
    pub(super) fn shown(&self) -> usize {
        self.next.load(Ordering::Relaxed).min(self.identities.len())
    }
}

impl ResolvesClientCert for IdentityPerHandshake {
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
                    .filter_map(|index| flawed_client(&both, index))
                    .filter(|flawed_client| flawed_client.flaw == flaw)
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
