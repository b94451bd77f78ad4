//! Anchors: the trusted roots, each by name and key and with the name constraints of its certificates.
//! In: the roots of a configuration; later a chain that was verified once. Out: whether the chain still ends at one
//! of them. For tickets, open connections and new clients alike. Verifies no names: that needs the certificates,
//! which are not kept.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::certificate::Chain;
use crate::revocation::AuthorityId;

/// Identifies the name constraints of a CA (RFC 5280 section 4.2.1.10): the beginning of a SHA-256 over their DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConstraintsId(pub [u8; 16]);

/// What one certificate of a root says beside its name and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Its name constraints, if it has any.
    pub constraints: Option<ConstraintsId>,
    /// The first moment at which it is no longer valid.
    pub ends: SystemTime,
}

/// The roots that chains may lead to. Several certificates may have one name and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchors(HashMap<AuthorityId, Vec<Terms>>);

/// Why no root supports the end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorObjection {
    /// No root has its name and key.
    Untrusted,
    /// All roots with this name and key have name constraints that did not verify the chain.
    Constrained,
    /// The roots that it may lead to have expired.
    Expired,
}

impl Anchors {
    /// Checks the end of a chain that was verified before. It holds without constraints, and under the same ones as
    /// then. Under other constraints the client has to show its certificates again: only they could tell.
    ///
    /// # Errors
    ///
    /// Why no root supports the chain.
    pub fn check(&self, chain: &Chain, now: SystemTime) -> Result<(), AnchorObjection> {
        let named = self.0.get(&chain.anchor);
        let named = named.ok_or(AnchorObjection::Untrusted)?;
        let mut holding = named
            .iter()
            .filter(|terms| terms.constraints.is_none() || terms.constraints == chain.constraints)
            .peekable();
        if holding.peek().is_none() {
            return Err(AnchorObjection::Constrained);
        }
        match holding.any(|terms| now < terms.ends) {
            true => Ok(()),
            false => Err(AnchorObjection::Expired),
        }
    }
}

impl FromIterator<(AuthorityId, Terms)> for Anchors {
    fn from_iter<I: IntoIterator<Item = (AuthorityId, Terms)>>(roots: I) -> Self {
        let mut anchors = Anchors::default();
        for (id, terms) in roots {
            anchors.0.entry(id).or_default().push(terms);
        }
        anchors
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROOT: AuthorityId = AuthorityId([1; 32]);
    const ONE: Option<ConstraintsId> = Some(ConstraintsId([1; 16]));
    const OTHER: Option<ConstraintsId> = Some(ConstraintsId([2; 16]));

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_chain_ends_at_a_root_of_its_name_and_key_that_constrains_it_no_further_and_has_not_ended()
    {
        use AnchorObjection::{Constrained, Expired};
        let table: [(_, &[_], _); 9] = [
            (None, &[(None, 100)], Ok(())),
            (ONE, &[(ONE, 100)], Ok(())),
            (ONE, &[(None, 100)], Ok(())),
            (None, &[(ONE, 100)], Err(Constrained)),
            (ONE, &[(OTHER, 100)], Err(Constrained)),
            (ONE, &[(OTHER, 100), (ONE, 100)], Ok(())),
            (None, &[(None, 50)], Err(Expired)),
            // The one that lasts has constraints.
            (None, &[(None, 50), (ONE, 100)], Err(Expired)),
            (None, &[(None, 50), (None, 100)], Ok(())),
        ];
        for (verified_by, roots, expected) in table {
            let roots = roots.iter().map(|(constraints, ends)| {
                let (constraints, ends) = (*constraints, at(*ends));
                (ROOT, Terms { constraints, ends })
            });
            let anchors: Anchors = roots.collect();
            let chain = Chain {
                links: Vec::new(),
                points: Vec::new(),
                anchor: ROOT,
                constraints: verified_by,
                not_before: at(0),
                not_after: at(200),
                ends_with_anchor: false,
            };
            let checked = anchors.check(&chain, at(50));
            assert_eq!(checked, expected, "{verified_by:?} under {anchors:?}");
            let of_another = Chain {
                anchor: AuthorityId([2; 32]),
                ..chain
            };
            let checked = anchors.check(&of_another, at(0));
            assert_eq!(checked, Err(AnchorObjection::Untrusted));
        }
    }
}
