//! Who the client is, in two steps that the types keep apart.
//! rustls asks the verifier about a chain before the client has proven that it holds the key: that makes a
//! `ClaimedPeer`. Only after Finished does the handshake turn it into a `VerifiedPeer`, and everything that grants
//! something takes a `&VerifiedPeer`.

use std::rc::Rc;
use std::time::SystemTime;

use gateway_core::certificate::{Certificate, Chain, Fingerprint};
use gateway_core::identity::{Admission, IdentityLimits, Tenant};
use gateway_core::revocation::Serial;
use gateway_core::trust::{Objection, Trust};

use crate::relay::End;

/// A certificate that verifies and that a rule admits; whoever sent it may have copied it.
#[derive(Debug, Clone)]
pub(super) struct ClaimedPeer {
    /// What the certificate says.
    pub(super) certificate: Certificate,
    /// The chain that was verified.
    pub(super) chain: Chain,
    /// What the first rule that matches admits it as.
    pub(super) admission: Admission,
}

/// A client that proved possession of an admitted certificate's key.
#[derive(Debug, Clone)]
pub struct VerifiedPeer(Rc<ClaimedPeer>);

impl VerifiedPeer {
    /// To be called once rustls has verified CertificateVerify and Finished, and by nobody else.
    pub(super) fn after_finished(claimed: ClaimedPeer) -> Self {
        VerifiedPeer(Rc::new(claimed))
    }

    /// What the client's certificate says.
    pub fn certificate(&self) -> &Certificate {
        &self.0.certificate
    }

    /// The name to show and to count by; empty for a certificate without names.
    pub fn identity(&self) -> String {
        self.0.certificate.identity().unwrap_or_default()
    }

    /// Names the client's very certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.certificate.fingerprint
    }

    /// The certificate's number at its issuer.
    pub fn serial(&self) -> Option<Serial> {
        self.0.chain.serial()
    }

    /// Position of the rule that admitted the client, counted from 0.
    pub fn rule(&self) -> usize {
        self.0.admission.rule
    }

    /// The tenant the client sends as.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.0.admission.tenant.as_ref()
    }

    /// What the client's identity may use, over all its connections.
    pub fn limits(&self) -> IdentityLimits {
        self.0.admission.limits
    }

    /// When its certificate begins.
    pub fn not_before(&self) -> SystemTime {
        self.0.chain.not_before
    }

    /// When the first certificate of its chain ends: from then on nothing is proven.
    pub fn not_after(&self) -> SystemTime {
        self.0.chain.not_after
    }

    /// Judges the client anew, by what a listener trusts now. `None`: it may stay.
    pub fn judge(&self, trust: &Trust, now: SystemTime) -> Option<End> {
        let ClaimedPeer {
            certificate, chain, ..
        } = &*self.0;
        match trust.judge(certificate, chain, now) {
            // A backend may have been told the tenant, so another one takes another connection.
            Ok(admission) if admission.tenant == self.0.admission.tenant => None,
            Ok(_) => Some(End::NotAuthorized),
            Err(objection) => End::of_objection(&objection),
        }
    }
}

impl End {
    /// How a connection ends whose client is objected to.
    fn of_objection(objection: &Objection) -> Option<Self> {
        match objection {
            Objection::Blocked => Some(End::Blocked),
            Objection::Revoked => Some(End::Revoked),
            Objection::Expired => Some(End::Expired),
            Objection::Untrusted => Some(End::Untrusted),
            Objection::NotAuthorized(_) => Some(End::NotAuthorized),
            // Refuses newcomers and takes nobody's connection away.
            Objection::CrlStale => None,
        }
    }
}
