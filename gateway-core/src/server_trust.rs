//! Server trust: what one backend trusts of its servers, for the servers that are connected.
//! In: the verified chain of a server, now. Out: an objection, or none. The verifier asks webpki about new servers; a
//! reload asks here about connected ones.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use std::sync::Arc;
use std::time::SystemTime;

use crate::anchors::{AnchorObjection, Anchors};
use crate::certificate::Chain;
use crate::revocation::{Revocation, Status};

/// What one backend trusts of its servers.
#[derive(Debug, Clone, Default)]
pub struct ServerTrust {
    /// Roots that chains may lead to.
    pub anchors: Anchors,
    /// What their authorities have revoked.
    pub revocation: Arc<Revocation>,
}

/// Why a connected server is not trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerObjection {
    /// A revocation list names its certificate or one above it.
    Revoked,
    /// Its chain leads to no root of the backend, or the root has other name constraints than those that verified it.
    Untrusted,
}

impl ServerTrust {
    /// Evaluates the chain of a connected server. A list that is too old closes no connection; expiry is left to a
    /// timer.
    pub fn evaluate_chain(&self, chain: &Chain, now: SystemTime) -> Option<ServerObjection> {
        let is_anchor_revoked = self.revocation.is_authority_revoked(chain.anchor);
        if is_anchor_revoked || self.revocation.status(chain, now) == Status::Revoked {
            return Some(ServerObjection::Revoked);
        }
        match self.anchors.check(chain, now) {
            Ok(()) | Err(AnchorObjection::Expired) => None,
            Err(AnchorObjection::Untrusted | AnchorObjection::Constrained) => {
                Some(ServerObjection::Untrusted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::{ConstraintsId, Terms};
    use crate::revocation::{AuthorityId, AuthorityKey, IssuerList, Link, Serial, StalePolicy};

    #[test]
    fn a_server_is_objected_to_for_its_lists_and_for_its_root() {
        let (anchor, now) = (AuthorityId([1; 32]), SystemTime::now());
        let serial = Serial::new(&[5]).unwrap();
        let chain = Chain {
            links: vec![Link {
                issuer: anchor,
                key: AuthorityKey::default(),
                serial,
            }],
            points: Vec::new(),
            anchor,
            constraints: None,
            not_before: now,
            not_after: now,
            ends_with_anchor: false,
        };
        let ends = now;
        let anchors = |constraints| Anchors::from_iter([(anchor, Terms { constraints, ends })]);
        let trust = |revocation| ServerTrust {
            anchors: anchors(None),
            revocation: Arc::new(revocation),
        };
        // A list that ends now: too old for new servers, and no reason to close a connection.
        let mut list = IssuerList::new(now, now, StalePolicy::Refuse);
        let stale = trust(Revocation::new([(anchor, list.clone())]));
        assert_eq!(stale.evaluate_chain(&chain, now), None);
        list.insert(serial);
        let named = trust(Revocation::new([(anchor, list)]));
        assert_eq!(
            named.evaluate_chain(&chain, now),
            Some(ServerObjection::Revoked)
        );
        let mut revocation = Revocation::default();
        revocation.revoke_authority(anchor);
        let above = trust(revocation);
        assert_eq!(
            above.evaluate_chain(&chain, now),
            Some(ServerObjection::Revoked)
        );
        let constrained = ServerTrust {
            anchors: anchors(Some(ConstraintsId([7; 16]))),
            ..ServerTrust::default()
        };
        assert_eq!(
            constrained.evaluate_chain(&chain, now),
            Some(ServerObjection::Untrusted)
        );
        let elsewhere = ServerTrust::default();
        assert_eq!(
            elsewhere.evaluate_chain(&chain, now),
            Some(ServerObjection::Untrusted)
        );
    }
}
