//! Session tickets that are worth exactly as much as the certificate behind them at the moment they come back.
//!
//! In: what rustls wants to remember, tickets from clients. Out: sealed tickets with their lineage in them; rustls' bytes
//! again, if the lineage still holds. Inside calls into rustls, on the worker; `handshake_context` carries the lineage.
//! rustls re-checks nothing when it resumes a session, so this module checks everything again.

mod seal;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::SecureRandom;
use rustls::server::ProducesTickets;

use super::handshake_context;
use super::peer::{ClaimedPeer, Proof};
use crate::crypto::KeyRing;

use gateway_core::limits;
use gateway_core::lineage::{Lineage, ResumptionPolicy, TicketRefusal};
use gateway_core::trust::Trust;
pub use seal::Sealer;

/// Seals and opens the tickets of one listener.
#[derive(Debug)]
pub(super) struct Ticketer {
    sealer: Sealer,
    trust: Arc<Trust>,
    policy: ResumptionPolicy,
    random: &'static dyn SecureRandom,
}

impl Ticketer {
    /// Seals with keys derived from `keys` for the listener called `domain`, and opens what `trust` and `policy` still
    /// admit.
    pub(super) fn new(
        keys: &KeyRing,
        domain: &str,
        trust: Arc<Trust>,
        policy: ResumptionPolicy,
        random: &'static dyn SecureRandom,
    ) -> Self {
        Ticketer {
            sealer: Sealer::new(keys, domain),
            trust,
            policy,
            random,
        }
    }

    fn seal(&self, lineage: &Lineage, session: &[u8]) -> Option<Vec<u8>> {
        let contents = [&lineage.encode(), session].concat();
        self.sealer.seal(contents, self.random)
    }

    fn open(
        &self,
        ticket: &[u8],
        now: SystemTime,
    ) -> Result<(ClaimedPeer, Vec<u8>), TicketRefusal> {
        let contents = self.sealer.open(ticket)?;
        // Only a gateway with the key can have sealed it, so this is the layout of another version.
        let (lineage, session) = Lineage::decode(&contents).ok_or(TicketRefusal::UnknownKey)?;
        let admission = lineage.evaluate_ticket(&self.trust, &self.policy, now)?;
        let session = session.to_vec();
        let claimed = ClaimedPeer {
            lineage,
            admission,
            proof: Proof::Ticket,
        };
        Ok((claimed, session))
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let left = handshake_context::with_claimed(|claimed| {
            claimed.lineage.time_left(&self.policy, SystemTime::now())
        });
        // RFC 8446 section 4.6.1: zero means that the ticket is to be discarded at once.
        left.flatten()
            .map_or(0, |left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        // rustls gives out tickets after the client's Finished, when the claim has been proven.
        let ticket = handshake_context::with_claimed(|claimed| {
            let lineage = &mut claimed.lineage;
            lineage.epoch = lineage.epoch.max(self.policy.epoch);
            self.seal(lineage, session)
        });
        // RFC 8446 section 4.6.1 has room for 64 KiB, and a client must be able to send it back.
        let ticket = ticket
            .flatten()
            .filter(|ticket| ticket.len() <= limits::TICKET_BYTES_MAX);
        ticket.inspect(|_| handshake_context::issue_ticket())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        // A ClientHello may carry hundreds of tickets, and each costs us a key derivation.
        if handshake_context::try_ticket() > limits::TICKETS_TRIED_MAX {
            return None;
        }
        match self.open(ticket, SystemTime::now()) {
            Ok((claimed, session)) => {
                handshake_context::claim(claimed);
                Some(session)
            }
            Err(refusal) => {
                handshake_context::refuse_ticket(refusal);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::anchors::{Anchors, Terms};
    use gateway_core::certificate::{Certificate, Chain};
    use gateway_core::identity::{Pattern, Rule, Rules};
    use gateway_core::revocation::{AuthorityId, AuthorityKey, Link, Serial};
    use proptest::prelude::*;
    use std::time::Duration;

    const ANCHOR: AuthorityId = AuthorityId([1; 32]);
    const POLICY: ResumptionPolicy = ResumptionPolicy {
        max_authentication_age: Duration::from_secs(3600),
        epoch: 2,
    };

    fn random() -> &'static dyn SecureRandom {
        rustls::crypto::ring::default_provider().secure_random
    }

    fn lineage(now: SystemTime) -> Lineage {
        Lineage {
            authenticated_at: now,
            epoch: 2,
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
                not_before: now,
                not_after: now + Duration::from_secs(3600),
                ends_with_anchor: false,
            },
        }
    }

    fn ticketer(keys: &KeyRing, domain: &str, epoch: u64) -> Ticketer {
        let rule = Rule {
            common_name: Some(Pattern::parse("agent").unwrap()),
            ..Rule::default()
        };
        let terms = Terms {
            constraints: None,
            ends: SystemTime::now() + Duration::from_secs(1 << 30),
        };
        let trust = Trust {
            anchors: Anchors::from_iter([(ANCHOR, terms)]),
            rules: Arc::new(Rules::new(vec![rule])),
            ..Trust::default()
        };
        let policy = ResumptionPolicy { epoch, ..POLICY };
        Ticketer::new(keys, domain, Arc::new(trust), policy, random())
    }

    #[test]
    fn a_ticket_opens_where_it_was_sealed_with_its_lineage_and_nowhere_else() {
        let now = SystemTime::now();
        let keys = KeyRing::generate(now, random()).unwrap();
        let sealing = ticketer(&keys, "a", 2);
        let ticket = sealing.seal(&lineage(now), b"session").unwrap();
        let (claimed, session) = sealing.open(&ticket, now).unwrap();
        assert_eq!(session, b"session");
        assert_eq!(claimed.proof, Proof::Ticket);
        assert_eq!(claimed.lineage, lineage(now));
        let refused = |ticketer: &Ticketer| ticketer.open(&ticket, now).unwrap_err();
        assert_eq!(
            refused(&ticketer(&keys, "b", 2)),
            TicketRefusal::NotAuthentic
        );
        assert_eq!(refused(&ticketer(&keys, "a", 3)), TicketRefusal::Epoch);
        let other_keys = KeyRing::generate(now, random()).unwrap();
        assert_eq!(
            refused(&ticketer(&other_keys, "a", 2)),
            TicketRefusal::UnknownKey
        );
    }

    #[test]
    fn rotation_leaves_old_tickets_open_and_distrust_leaves_none() {
        let now = SystemTime::now();
        let keep = Duration::from_secs(3600);
        let keys = KeyRing::generate(now, random()).unwrap();
        let ticket = ticketer(&keys, "a", keys.epoch())
            .seal(&lineage(now), b"session")
            .unwrap();
        let open = |keys: &KeyRing| {
            let opened = ticketer(keys, "a", keys.epoch()).open(&ticket, now);
            opened.map(|(_, session)| session)
        };
        let rotated = keys.rotated(now, keep, random()).unwrap();
        assert_eq!(open(&rotated), Ok(b"session".to_vec()));
        let newer = ticketer(&rotated, "a", 0).seal(&lineage(now), b"").unwrap();
        assert!(ticketer(&keys, "a", 0).open(&newer, now).is_err());
        let distrusting = rotated.distrusted(now, random()).unwrap();
        assert_eq!(open(&distrusting), Err(TicketRefusal::Epoch));
        let soon = rotated.rotated(now + keep, keep, random()).unwrap();
        assert_eq!(open(&soon), Ok(b"session".to_vec()));
        let late = rotated.rotated(now + 2 * keep, keep, random()).unwrap();
        assert_eq!(open(&late), Err(TicketRefusal::UnknownKey));
    }

    #[test]
    fn of_one_connection_only_so_many_tickets_are_tried() {
        let now = SystemTime::now();
        let keys = KeyRing::generate(now, random()).unwrap();
        let ticketer = ticketer(&keys, "a", 2);
        let ticket = ticketer.seal(&lineage(now), b"session").unwrap();
        let opens_after = |others: usize| {
            let mut context = handshake_context::HandshakeContext::default();
            let opened = handshake_context::with_context(&mut context, || {
                (0..others).for_each(|_| assert_eq!(ticketer.decrypt(b"no ticket"), None));
                ticketer.decrypt(&ticket)
            });
            assert_eq!(context.claimed.is_some(), opened.is_some());
            opened.is_some()
        };
        assert!(opens_after(limits::TICKETS_TRIED_MAX - 1));
        assert!(!opens_after(limits::TICKETS_TRIED_MAX));
    }

    #[test]
    fn a_client_is_told_to_keep_a_ticket_for_what_is_left_of_the_age_and_not_longer() {
        let now = SystemTime::now();
        let keys = KeyRing::generate(now, random()).unwrap();
        let ticketer = ticketer(&keys, "a", 2);
        let ticket = ticketer.seal(&lineage(now), b"session").unwrap();
        let told_after = |age: Duration| {
            let (mut claimed, _) = ticketer.open(&ticket, now).unwrap();
            claimed.lineage.authenticated_at = now - age;
            let mut context = handshake_context::HandshakeContext {
                claimed: Some(claimed),
                ..handshake_context::HandshakeContext::default()
            };
            handshake_context::with_context(&mut context, || ticketer.lifetime())
        };
        let left = 600;
        let told = told_after(POLICY.max_authentication_age - Duration::from_secs(left));
        assert!((left as u32 - 60..=left as u32).contains(&told), "{told}");
        assert_eq!(told_after(POLICY.max_authentication_age), 0);
        // Nothing is given out, or promised, where no client was verified.
        let mut unverified = handshake_context::HandshakeContext::default();
        let given = handshake_context::with_context(&mut unverified, || {
            (ticketer.lifetime(), ticketer.encrypt(b"session"))
        });
        assert_eq!(given, (0, None));
    }

    proptest! {
        #[test]
        fn a_ticket_that_was_changed_anywhere_is_refused(position in any::<prop::sample::Index>(), bit in 0u8..8) {
            let now = SystemTime::now();
            let keys = KeyRing::generate(now, random()).unwrap();
            let ticketer = ticketer(&keys, "a", 2);
            let mut ticket = ticketer.seal(&lineage(now), b"session").unwrap();
            let position = position.index(ticket.len());
            ticket[position] ^= 1 << bit;
            let refused = ticketer.open(&ticket, now).unwrap_err();
            prop_assert!(matches!(refused, TicketRefusal::NotAuthentic | TicketRefusal::UnknownKey));
        }

        #[test]
        fn any_bytes_are_refused_as_a_ticket(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let now = SystemTime::now();
            let keys = KeyRing::generate(now, random()).unwrap();
            prop_assert!(ticketer(&keys, "a", 2).open(&bytes, now).is_err());
        }
    }
}
