//! The client's identity, in two steps that the types keep apart.
//! In: a claim of the verifier or the ticketer, a handshake that is done. Out: a `VerifiedPeer`, or none. On the worker.
//!
//! rustls asks the verifier about a chain before the client has proven that it holds the key: that makes a
//! `ClaimedPeer`. Only after Finished does the handshake turn it into a `VerifiedPeer`, and everything that grants
//! something takes a `&VerifiedPeer`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

use gateway_core::certificate::{Certificate, Chain, Fingerprint, Identity};
use gateway_core::close_reason::CloseReason;
use gateway_core::expiry::Lifetime;
use gateway_core::identity::{Admission, IdentityLimits, Tenant};
use gateway_core::lineage::Lineage;
use gateway_core::revocation::Serial;
use gateway_core::trust::{Objection, Trust};
use gateway_x509::client_certificate;
use rustls::HandshakeKind;

use super::engine::Engine;

/// What a claim rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A certificate chain that verifies; CertificateVerify has yet to prove possession of the key.
    Chain,
    /// A ticket that opens; its binder has yet to prove possession of the session's secret.
    Ticket,
}

/// A certificate that verifies and that a rule admits. Its sender may have copied it.
#[derive(Debug, Clone)]
pub(super) struct ClaimedPeer {
    /// The full handshake it stands for: certificate, chain, and when that was.
    pub(super) lineage: Lineage,
    /// What the first rule that matches admits it as.
    pub(super) admission: Admission,
    /// What it rests on.
    pub(super) proof: Proof,
}

/// A client that proved possession of an admitted certificate's key.
#[derive(Debug, Clone)]
pub struct VerifiedPeer(Rc<Admitted>);

#[derive(Debug)]
struct Admitted {
    claimed: ClaimedPeer,
    /// Position of the rule that admits it by now: a reload may have changed their order.
    rule: Cell<usize>,
}

impl VerifiedPeer {
    /// The handshake alone calls it, once rustls has verified Finished. Two claims count: a chain, in a full handshake; a
    /// ticket, in a resumed one, of the very certificate that rustls resumed. `None` where the claim does not fit the
    /// handshake.
    pub(super) fn after_finished(claimed: ClaimedPeer, engine: &Engine) -> Option<Self> {
        let common = engine.common();
        let fits = match (claimed.proof, common.handshake_kind()?) {
            (Proof::Chain, HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => true,
            (Proof::Ticket, HandshakeKind::Resumed) => {
                let leaf = common.peer_certificates()?.first()?;
                client_certificate::fingerprint(leaf) == claimed.lineage.certificate.fingerprint
            }
            _ => false,
        };
        let rule = Cell::new(claimed.admission.rule);
        fits.then(|| VerifiedPeer(Rc::new(Admitted { claimed, rule })))
    }

    /// When the client proved possession of its key: now, or before the resumptions that led here.
    pub fn authenticated_at(&self) -> SystemTime {
        self.0.claimed.lineage.authenticated_at
    }

    /// What the client's certificate says.
    pub fn certificate(&self) -> &Certificate {
        &self.0.claimed.lineage.certificate
    }

    /// The chain above that certificate.
    pub fn chain(&self) -> &Chain {
        &self.0.claimed.lineage.chain
    }

    /// What the client is shown and counted by: the name that its rule matched, with its kind and trust domain.
    pub fn identity(&self) -> &Identity {
        &self.0.claimed.admission.identity
    }

    /// Names the client's very certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.claimed.lineage.certificate.fingerprint
    }

    /// The certificate's number at its issuer.
    pub fn serial(&self) -> Option<Serial> {
        self.0.claimed.lineage.chain.serial()
    }

    /// Position of the rule that admits the client, counted from 0.
    pub fn rule(&self) -> usize {
        self.0.rule.get()
    }

    /// The tenant the client sends as.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.0.claimed.admission.tenant.as_ref()
    }

    /// What the client's identity may use, over all its connections.
    pub fn limits(&self) -> IdentityLimits {
        self.0.claimed.admission.limits()
    }

    /// When its certificate begins.
    pub fn not_before(&self) -> SystemTime {
        self.0.claimed.lineage.chain.not_before
    }

    /// When the first certificate of its chain ends: from then on nothing is proven.
    pub fn not_after(&self) -> SystemTime {
        self.0.claimed.lineage.chain.not_after
    }

    /// From its certificate's begin to the end of the first certificate of its chain.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime {
            begins: self.not_before(),
            ends: self.not_after(),
        }
    }

    /// What a listener that trusts `trust` says of the client.
    pub(super) fn evaluate_chain(
        &self,
        trust: &Trust,
        now: SystemTime,
    ) -> Result<Admission, Objection> {
        let Lineage {
            certificate, chain, ..
        } = &self.0.claimed.lineage;
        trust.evaluate_chain(certificate, chain, now)
    }

    /// Evaluates the connected client by what a listener trusts now. Returns why its connection ends; `None`: it may stay.
    pub fn evaluate(&self, trust: &Trust, now: SystemTime) -> Option<CloseReason> {
        match self.evaluate_chain(trust, now) {
            // A backend may know tenant and name from the connection, so another one takes another connection.
            Ok(admission) if self.stays_who_it_was(&admission) => {
                self.0.rule.set(admission.rule);
                None
            }
            Ok(_) => Some(CloseReason::NotAuthorized),
            Err(objection) => CloseReason::from_objection(&objection),
        }
    }
}

impl VerifiedPeer {
    /// Whether a backend would hear the same about the client as it did. It does not hear that the CA has been bound to a
    /// trust domain since.
    fn stays_who_it_was(&self, admission: &Admission) -> bool {
        let (was, is) = (&self.0.claimed.admission, admission);
        was.tenant == is.tenant
            && was.identity.kind == is.identity.kind
            && was.identity.name == is.identity.name
    }

    /// Why a listener that trusts `trust` would not admit the client, if it came now. `None`: it would.
    pub fn refused_by(&self, trust: &Trust, now: SystemTime) -> Option<CloseReason> {
        let Lineage {
            certificate, chain, ..
        } = &self.0.claimed.lineage;
        match trust.admit(certificate, chain, now) {
            Ok(_) => None,
            Err(Objection::CrlStale(_)) => Some(CloseReason::CrlStale),
            Err(objection) => CloseReason::from_objection(&objection),
        }
    }
}
