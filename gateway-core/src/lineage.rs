//! Lineage: decides whether a session ticket may resume.
//! In: what the full handshake behind the ticket proved, what the listener trusts now. Out: an admission, or why the
//! ticket is refused and the client authenticates in full. Other code seals and opens tickets.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use std::time::{Duration, SystemTime};

use gateway_common::closed_list;
use serde::{Deserialize, Serialize};

use crate::certificate::{Certificate, Chain};
use crate::identity::Admission;
use crate::trust::{Objection, Trust};

/// The full handshake behind a ticket, over any number of resumptions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The moment at which the client proved possession of its key.
    pub authenticated_at: SystemTime,
    /// The policy epoch of the host that sealed the ticket.
    pub epoch: u64,
    /// The client's certificate.
    pub certificate: Certificate,
    /// The chain above it.
    pub chain: Chain,
}

/// The limits of resumption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumptionPolicy {
    /// Maximum time from the full handshake to a resumption.
    pub max_authentication_age: Duration,
    /// Tickets of an earlier epoch are refused.
    pub epoch: u64,
}

closed_list! {
    /// Why a ticket was refused.
    pub enum TicketRefusal {
        /// The full handshake is too long ago.
        Age = "age";
        /// A certificate of the chain has expired.
        Expired = "expired";
        /// A revocation list names the certificate or one above it.
        Revoked = "revoked";
        /// The revocation list of one of its issuers is missing or too old.
        CrlStale = "crl_stale";
        /// An operator has blocked the client.
        Blocked = "blocked";
        /// The chain's root is not trusted any more, or has other name constraints.
        Anchor = "anchor";
        /// No rule admits the client any more.
        Rule = "rule";
        /// Sealed before the operator distrusted all tickets.
        Epoch = "epoch";
        /// Does not open under the listener's key: sealed by another listener, or tampered with.
        NotAuthentic = "domain";
        /// Sealed with a key that is unknown here, or no longer known.
        UnknownKey = "unknown_key";
        /// Good, but of a handshake with another cipher suite or server name: the TLS library resumes with neither.
        Parameters = "parameters";
    }
}

impl From<Objection> for TicketRefusal {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Blocked => TicketRefusal::Blocked,
            Objection::Revoked => TicketRefusal::Revoked,
            Objection::Expired => TicketRefusal::Expired,
            Objection::Untrusted | Objection::Constrained => TicketRefusal::Anchor,
            Objection::NotAuthorized(_) => TicketRefusal::Rule,
            Objection::CrlStale(_) => TicketRefusal::CrlStale,
        }
    }
}

/// Maximum lead of another host's clock.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

impl Lineage {
    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data always has a length known in advance")
    }

    /// Reads a lineage from the front of `bytes`. Returns it with the rest; `None` if there is none.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        postcard::take_from_bytes(bytes).ok()
    }

    /// The time left in which its descendants may resume; `None` if there is none.
    pub fn time_left(&self, policy: &ResumptionPolicy, now: SystemTime) -> Option<Duration> {
        let age = match now.duration_since(self.authenticated_at) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= CLOCK_SKEW_MAX => Duration::ZERO,
            Err(_) => return None,
        };
        let left = policy.max_authentication_age.checked_sub(age)?;
        (left > Duration::ZERO).then_some(left)
    }

    /// Evaluates a ticket that a client has sent.
    ///
    /// # Errors
    ///
    /// Why the client must authenticate in full.
    pub fn evaluate_ticket(
        &self,
        trust: &Trust,
        policy: &ResumptionPolicy,
        now: SystemTime,
    ) -> Result<Admission, TicketRefusal> {
        if self.epoch < policy.epoch {
            return Err(TicketRefusal::Epoch);
        }
        let admission = trust.admit(&self.certificate, &self.chain, now)?;
        match self.time_left(policy, now) {
            Some(_) => Ok(admission),
            None => Err(TicketRefusal::Age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::{Anchors, ConstraintsId, Terms};
    use crate::identity::{Pattern, Rule, Rules};
    use crate::revocation::{
        AuthorityId, AuthorityKey, IssuerList, Link, Revocation, Serial, StalePolicy,
    };
    use proptest::prelude::*;
    use std::sync::Arc;

    const ANCHOR: AuthorityId = AuthorityId([1; 32]);
    const POLICY: ResumptionPolicy = ResumptionPolicy {
        max_authentication_age: Duration::from_secs(50),
        epoch: 3,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn lineage() -> Lineage {
        Lineage {
            authenticated_at: at(1000),
            epoch: 3,
            certificate: Certificate {
                common_name: Some("agent".to_owned()),
                ..Certificate::default()
            },
            chain: Chain {
                links: vec![Link {
                    issuer: ANCHOR,
                    key: AuthorityKey::default(),
                    serial: Serial::new(&[5]).unwrap(),
                }],
                points: Vec::new(),
                anchor: ANCHOR,
                constraints: None,
                not_before: at(0),
                not_after: at(5000),
                ends_with_anchor: false,
            },
        }
    }

    fn anchors(ids: &[AuthorityId], constraints: Option<ConstraintsId>) -> Anchors {
        let ends = at(1 << 40);
        let terms = Terms { constraints, ends };
        ids.iter().map(|id| (*id, terms)).collect()
    }

    fn trust() -> Trust {
        let rule = Rule {
            common_name: Some(Pattern::parse("agent").unwrap()),
            ..Rule::default()
        };
        Trust {
            anchors: anchors(&[ANCHOR], None),
            rules: Arc::new(Rules::new(vec![rule])),
            ..Trust::default()
        }
    }

    #[test]
    fn a_lineage_is_worth_something_for_its_age_and_not_a_moment_longer() {
        let evaluate = |now: u64| {
            let evaluated = lineage().evaluate_ticket(&trust(), &POLICY, at(now));
            evaluated.map(|admission| admission.rule)
        };
        assert_eq!(evaluate(1000), Ok(0));
        assert_eq!(evaluate(1049), Ok(0));
        assert_eq!(evaluate(1050), Err(TicketRefusal::Age));
        // Another host's clock may lead a little; beyond that, a lineage from the future is refused.
        assert_eq!(evaluate(941), Ok(0));
        assert_eq!(evaluate(900), Err(TicketRefusal::Age));
    }

    #[test]
    fn an_earlier_epoch_is_refused_and_a_later_one_is_not() {
        let evaluate = |epoch: u64| {
            let lineage = Lineage { epoch, ..lineage() };
            lineage.evaluate_ticket(&trust(), &POLICY, at(1001))
        };
        assert_eq!(evaluate(2), Err(TicketRefusal::Epoch));
        assert!(evaluate(3).is_ok());
        assert!(evaluate(4).is_ok());
    }

    #[test]
    fn what_speaks_against_a_newcomer_speaks_against_a_ticket() {
        let evaluate = |trust: &Trust| lineage().evaluate_ticket(trust, &POLICY, at(1001));
        let nobody = Trust {
            rules: Arc::default(),
            ..trust()
        };
        assert_eq!(evaluate(&nobody), Err(TicketRefusal::Rule));
        let no_anchor = Trust {
            anchors: Anchors::default(),
            ..trust()
        };
        assert_eq!(evaluate(&no_anchor), Err(TicketRefusal::Anchor));
        let mut list = IssuerList::new(at(0), at(1001), StalePolicy::Refuse);
        let listed = |list: &IssuerList| Trust {
            revocation: Arc::new(Revocation::new([(ANCHOR, list.clone())])),
            ..trust()
        };
        assert_eq!(evaluate(&listed(&list)), Err(TicketRefusal::CrlStale));
        list.insert(Serial::new(&[5]).unwrap());
        assert_eq!(evaluate(&listed(&list)), Err(TicketRefusal::Revoked));
        let mut more_anchors = trust();
        more_anchors.anchors = anchors(&[ANCHOR, AuthorityId([9; 32])], None);
        assert!(
            evaluate(&more_anchors).is_ok(),
            "a CA added voids no ticket"
        );
        let constrained = Trust {
            anchors: anchors(&[ANCHOR], Some(ConstraintsId([7; 16]))),
            ..trust()
        };
        assert_eq!(evaluate(&constrained), Err(TicketRefusal::Anchor));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_with_everything_behind_it(
            seconds in 0u64..1 << 40,
            name in ".{0,40}",
            serial in proptest::collection::vec(any::<u8>(), 0..20),
            rest in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut lineage = Lineage { authenticated_at: at(seconds), ..lineage() };
            lineage.certificate.uris.push(name);
            lineage.chain.links[0].serial = Serial::new(&serial).unwrap();
            let bytes = [lineage.encode(), rest.clone()].concat();
            prop_assert_eq!(Lineage::decode(&bytes), Some((lineage, rest.as_slice())));
        }

        #[test]
        fn any_bytes_decode_to_a_lineage_or_to_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some((lineage, _)) = Lineage::decode(&bytes) {
                let _ = lineage.evaluate_ticket(&trust(), &POLICY, at(1));
            }
        }
    }
}
