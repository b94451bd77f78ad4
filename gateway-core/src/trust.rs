//! Trust: what one listener trusts now, and the one place that evaluates a client by it.
//! In: a certificate, its verified chain, now. Out: an admission, or an objection. The verifier asks for new clients,
//! the ticketer for tickets, a reload for open connections.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::anchors::{AnchorObjection, Anchors};
use crate::authority::{Scope, TrustDomain};
use crate::block::BlockList;
use crate::certificate::{Certificate, Chain};
use crate::identity::{Admission, Denial, Rules};
use crate::revocation::{AuthorityKey, Revocation, Status};

/// What one listener trusts.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Position of the listener, which rules may name.
    pub listener: usize,
    /// Roots that chains may lead to.
    pub anchors: Anchors,
    /// The scopes of authorities with a trust domain, by key, at any height of a chain.
    pub scopes: Arc<HashMap<AuthorityKey, Arc<Scope>>>,
    /// What their authorities have revoked.
    pub revocation: Arc<Revocation>,
    /// The clients that an operator has blocked.
    pub blocks: Arc<BlockList>,
    /// The rules that admit clients.
    pub rules: Arc<Rules>,
}

/// Why a client is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// An operator has blocked it.
    Blocked,
    /// A revocation list names its certificate or one above it.
    Revoked,
    /// A certificate of its chain has expired.
    Expired,
    /// Its chain leads to no root of the listener.
    Untrusted,
    /// The root of its chain has other name constraints than those that verified it: the client must show its
    /// certificates again.
    Constrained,
    /// No rule admits it.
    NotAuthorized(Denial),
    /// The revocation list of one of its issuers is missing, too old or does not cover the certificate; in words,
    /// with the CA's name.
    CrlStale(String),
}

impl From<AnchorObjection> for Objection {
    fn from(objection: AnchorObjection) -> Self {
        match objection {
            AnchorObjection::Untrusted => Objection::Untrusted,
            AnchorObjection::Constrained => Objection::Constrained,
            AnchorObjection::Expired => Objection::Expired,
        }
    }
}

impl Trust {
    /// Evaluates the chain of a client. A revocation list that is too old is no objection here, so it closes no
    /// connection.
    ///
    /// # Errors
    ///
    /// What is held against the client.
    pub fn evaluate_chain(
        &self,
        certificate: &Certificate,
        chain: &Chain,
        now: SystemTime,
    ) -> Result<Admission, Objection> {
        if self.blocks.blocks(certificate, chain, self.bound_to(chain)) {
            return Err(Objection::Blocked);
        }
        let is_anchor_revoked = self.revocation.is_authority_revoked(chain.anchor);
        if is_anchor_revoked || self.revocation.status(chain, now) == Status::Revoked {
            return Err(Objection::Revoked);
        }
        if now >= chain.not_after {
            return Err(Objection::Expired);
        }
        self.anchors.check(chain, now)?;
        let trust_domain = self.trust_domain(certificate, chain)?;
        self.rules
            .decide(certificate, trust_domain, self.listener)
            .map_err(Objection::NotAuthorized)
    }

    /// The trust domain of the nearest authority of a chain that is bound to one, whatever names the client has.
    pub fn bound_to(&self, chain: &Chain) -> Option<&TrustDomain> {
        let mut scopes = chain
            .links
            .iter()
            .filter_map(|link| self.scopes.get(&link.key));
        scopes.next().map(|scope| &scope.trust_domain)
    }

    /// The trust domain of the client: that of the nearest authority with one. Every authority with a trust domain
    /// must be allowed to issue all of the client's names, also a root that another one has certified.
    fn trust_domain(
        &self,
        certificate: &Certificate,
        chain: &Chain,
    ) -> Result<Option<&TrustDomain>, Objection> {
        let mut nearest = None;
        // The issuer of the last link is the root.
        for link in &chain.links {
            if let Some(scope) = self.scopes.get(&link.key) {
                let in_scope = scope.check(certificate);
                in_scope.map_err(|error| Objection::NotAuthorized(error.into()))?;
                nearest = nearest.or(Some(&scope.trust_domain));
            }
        }
        Ok(nearest)
    }

    /// Evaluates a new client: as [`Trust::evaluate_chain`], and every revocation list it needs must be usable.
    ///
    /// # Errors
    ///
    /// What is held against the client.
    pub fn admit(
        &self,
        certificate: &Certificate,
        chain: &Chain,
        now: SystemTime,
    ) -> Result<Admission, Objection> {
        let admission = self.evaluate_chain(certificate, chain, now)?;
        match self.revocation.status(chain, now) {
            Status::Unknown(gap) => Err(Objection::CrlStale(self.revocation.describe(gap))),
            Status::Good | Status::Revoked => Ok(admission),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::{ConstraintsId, Terms};
    use crate::block::Block;
    use crate::identity::{Pattern, Rule, RuleList};
    use crate::revocation::{AuthorityId, IssuerList, Link, Serial, StalePolicy};
    use std::time::Duration;

    const ANCHOR: AuthorityId = AuthorityId([1; 32]);
    const KEY: AuthorityKey = AuthorityKey([1; 16]);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn client() -> (Certificate, Chain) {
        let certificate = Certificate {
            common_name: Some("agent".to_owned()),
            ..Certificate::default()
        };
        let link = Link {
            issuer: ANCHOR,
            key: KEY,
            serial: Serial::new(&[5]).unwrap(),
        };
        let chain = Chain {
            links: vec![link],
            points: Vec::new(),
            anchor: ANCHOR,
            constraints: None,
            not_before: at(0),
            not_after: at(100),
            ends_with_anchor: false,
        };
        (certificate, chain)
    }

    fn terms(constraints: Option<ConstraintsId>) -> Terms {
        Terms {
            constraints,
            ends: at(1000),
        }
    }

    fn trust(common_name: &str) -> Trust {
        let rule = Rule {
            common_name: Some(Pattern::parse(common_name).unwrap()),
            ..Rule::default()
        };
        Trust {
            anchors: Anchors::from_iter([(ANCHOR, terms(None))]),
            rules: Arc::new(Rules::new(vec![rule])),
            ..Trust::default()
        }
    }

    fn list(serials: &[u8], next_update: u64) -> Arc<Revocation> {
        let mut list = IssuerList::new(at(0), at(next_update), StalePolicy::Refuse);
        for serial in serials {
            list.insert(Serial::new(&[*serial]).unwrap());
        }
        Arc::new(Revocation::new([(ANCHOR, list)]))
    }

    #[test]
    fn each_objection_is_raised_by_what_it_is_about() {
        let (certificate, chain) = client();
        let evaluate = |trust: &Trust, now: u64| {
            let evaluated = trust.evaluate_chain(&certificate, &chain, at(now));
            evaluated.map(|admission| admission.rule)
        };
        let good = trust("agent");
        assert_eq!(evaluate(&good, 99), Ok(0));
        assert_eq!(evaluate(&good, 100), Err(Objection::Expired));
        assert_eq!(
            evaluate(&trust("other"), 1),
            Err(Objection::NotAuthorized(Denial::NoRule(RuleList::Identity)))
        );
        let block = Block::Serial(Serial::new(&[5]).unwrap());
        let blocked = Trust {
            blocks: Arc::new(BlockList::new([block])),
            ..good.clone()
        };
        assert_eq!(evaluate(&blocked, 1), Err(Objection::Blocked));
        let revoked = Trust {
            revocation: list(&[5], 50),
            ..good.clone()
        };
        assert_eq!(evaluate(&revoked, 1), Err(Objection::Revoked));
        let without_anchor = Trust {
            anchors: Anchors::default(),
            ..good.clone()
        };
        assert_eq!(evaluate(&without_anchor, 1), Err(Objection::Untrusted));
        let constraints = Some(ConstraintsId([7; 16]));
        let constrained = Trust {
            anchors: Anchors::from_iter([(ANCHOR, terms(constraints))]),
            ..good
        };
        assert_eq!(evaluate(&constrained, 1), Err(Objection::Constrained));
        assert_eq!(evaluate(&constrained, 100), Err(Objection::Expired));
    }

    #[test]
    fn an_old_list_stops_newcomers_and_leaves_those_who_are_there() {
        let (certificate, chain) = client();
        let stale = Trust {
            revocation: list(&[], 50),
            ..trust("agent")
        };
        assert!(stale.admit(&certificate, &chain, at(49)).is_ok());
        assert!(matches!(
            stale.admit(&certificate, &chain, at(50)),
            Err(Objection::CrlStale(_))
        ));
        assert!(stale.evaluate_chain(&certificate, &chain, at(50)).is_ok());
    }

    #[test]
    fn an_anchor_that_was_revoked_takes_its_chains_along() {
        let (certificate, chain) = client();
        let mut revocation = Revocation::default();
        revocation.revoke_authority(ANCHOR);
        let trust = Trust {
            revocation: Arc::new(revocation),
            ..trust("agent")
        };
        assert_eq!(
            trust.evaluate_chain(&certificate, &chain, at(1)),
            Err(Objection::Revoked)
        );
    }

    #[test]
    fn an_authority_that_is_bound_speaks_for_its_trust_domain_and_its_clients_are_told_apart() {
        let (mut certificate, chain) = client();
        let trust_domain = TrustDomain::parse("example.net").unwrap();
        let scope = Scope {
            trust_domain: trust_domain.clone(),
            dns: Vec::new(),
        };
        let rule = Rule {
            uri: Some(Pattern::parse_uri("spiffe://*").unwrap()),
            ..Rule::default()
        };
        let bound = Trust {
            scopes: Arc::new([(KEY, Arc::new(scope))].into()),
            rules: Arc::new(Rules::new(vec![rule])),
            ..trust("agent")
        };
        let unbound = Trust {
            scopes: Arc::default(),
            ..bound.clone()
        };
        certificate.uris = vec!["spiffe://example.org/agent/evil".to_owned()];
        assert!(unbound.admit(&certificate, &chain, at(1)).is_ok());
        let Err(Objection::NotAuthorized(denial)) = bound.admit(&certificate, &chain, at(1)) else {
            panic!("admitted");
        };
        assert_eq!(
            denial.to_string(),
            "its CA is bound to the trust domain example.net and may not speak for the URI \
             \"spiffe://example.org/agent/evil\""
        );
        certificate.uris = vec!["spiffe://example.net/agent/1".to_owned()];
        let of_bound = bound.admit(&certificate, &chain, at(1)).unwrap().identity;
        let of_unbound = unbound.admit(&certificate, &chain, at(1)).unwrap().identity;
        assert_eq!(of_bound.trust_domain, Some(trust_domain));
        assert_ne!(of_bound, of_unbound);
    }

    #[test]
    fn an_authority_that_is_bound_stays_bound_below_another_one_that_certified_its_key() {
        let (mut certificate, mut chain) = client();
        // The same key under another name, as a cross-certificate may have it.
        let cross = Link {
            issuer: AuthorityId([9; 32]),
            key: AuthorityKey([2; 16]),
            serial: Serial::new(&[6]).unwrap(),
        };
        chain.links.insert(0, cross);
        let scope = |trust_domain: &str| {
            Arc::new(Scope {
                trust_domain: TrustDomain::parse(trust_domain).unwrap(),
                dns: Vec::new(),
            })
        };
        let rule = Rule {
            common_name: Some(Pattern::parse("agent").unwrap()),
            trust_domain: Some(TrustDomain::parse("example.net").unwrap()),
            ..Rule::default()
        };
        let uri = Rule {
            uri: Some(Pattern::parse_uri("spiffe://*").unwrap()),
            ..Rule::default()
        };
        let bound = |scopes: &[(AuthorityKey, Arc<Scope>)]| Trust {
            scopes: Arc::new(scopes.iter().cloned().collect()),
            rules: Arc::new(Rules::new(vec![uri.clone(), rule.clone()])),
            ..trust("agent")
        };
        let below = (cross.key, scope("example.net"));
        let above = (KEY, scope("example.org"));
        let admit = |trust: &Trust, certificate: &Certificate| {
            let admitted = trust.admit(certificate, &chain, at(1));
            admitted.map(|admission| admission.identity.trust_domain)
        };
        let net = Ok(Some(below.1.trust_domain.clone()));
        let one = bound(std::slice::from_ref(&below));
        let both = bound(&[below, above]);
        // Without a name of any trust domain, the authority next to the client decides.
        assert_eq!(admit(&one, &certificate), net);
        assert_eq!(admit(&both, &certificate), net);
        certificate.uris = vec!["spiffe://example.net/agent/1".to_owned()];
        assert_eq!(admit(&one, &certificate), net);
        // What the upper one may not say, it may not say through another.
        assert!(matches!(
            admit(&both, &certificate),
            Err(Objection::NotAuthorized(Denial::OutOfScope(_)))
        ));
        certificate.uris = vec!["spiffe://example.org/agent/evil".to_owned()];
        for trust in [one, both] {
            assert!(matches!(
                admit(&trust, &certificate),
                Err(Objection::NotAuthorized(Denial::OutOfScope(_)))
            ));
        }
    }
}
