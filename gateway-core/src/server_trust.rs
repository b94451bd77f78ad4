//! Server trust: what is believed of one backend's servers, asked again about those that are connected.
//! In: the verified chain of a server, now. Out: what speaks against it. The verifier asks webpki about newcomers; a reload
//! asks here about those that are there.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use std::sync::Arc;
use std::time::SystemTime;

use crate::anchors::{AnchorObjection, Anchors};
use crate::certificate::Chain;
use crate::revocation::{Revocation, Status};

/// What one backend's servers are believed by.
#[derive(Debug, Clone, Default)]
pub struct ServerTrust {
    /// Roots that chains may lead to.
    pub anchors: Anchors,
    /// What their authorities have taken back.
    pub revocation: Arc<Revocation>,
}

/// What speaks against a server that is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerObjection {
    /// A revocation list names its certificate or one above it.
    Revoked,
    /// The root its chain leads to is none of the backend's, or has other name constraints than those it was verified by.
    Untrusted,
}

impl ServerTrust {
    /// Judges a server that is connected already. A list that has become too old takes no connection away; its end is a timer's.
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
        // A list that ends this moment: too old for newcomers, and no reason to end what stands.
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
