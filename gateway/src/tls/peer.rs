//! Who the client is, in two steps that the types keep apart.
//! rustls asks the verifier about a chain before the client has proven that it holds the key: that makes a
//! `ClaimedPeer`. Only after Finished does the handshake turn it into a `VerifiedPeer`, and everything that grants
//! something takes a `&VerifiedPeer`.

use std::rc::Rc;
use std::time::SystemTime;

use gateway_core::identity::{CertificateNames, Rule, Rules, Tenant};
use gateway_core::revocation::Status;

use super::chain::{Chain, authority_id};
use crate::config::Listener;
use crate::relay::End;

/// A certificate that verifies and that a rule admits; whoever sent it may have copied it.
#[derive(Debug, Clone)]
pub(super) struct ClaimedPeer {
    /// Names in the certificate.
    pub(super) names: CertificateNames,
    /// Position of the rule that admits it.
    pub(super) rule: usize,
    /// Tenant of that rule.
    pub(super) tenant: Option<Tenant>,
    /// The chain that was verified.
    pub(super) chain: Chain,
}

/// A client that proved possession of an admitted certificate's key.
#[derive(Debug, Clone)]
pub struct VerifiedPeer(Rc<ClaimedPeer>);

impl VerifiedPeer {
    /// To be called once rustls has verified CertificateVerify and Finished, and by nobody else.
    pub(super) fn after_finished(claimed: ClaimedPeer) -> Self {
        VerifiedPeer(Rc::new(claimed))
    }

    /// Names in the client's certificate.
    pub fn names(&self) -> &CertificateNames {
        &self.0.names
    }

    /// The name to show: the first URI, else the first DNS name, else the common name.
    pub fn identity(&self) -> &str {
        let CertificateNames {
            uris,
            dns_names,
            common_name,
        } = &self.0.names;
        uris.first()
            .or(dns_names.first())
            .or(common_name.as_ref())
            .map_or("", String::as_str)
    }

    /// Position of the rule that admitted the client, counted from 0.
    pub fn rule(&self) -> usize {
        self.0.rule
    }

    /// When the first certificate of its chain ends: from then on nothing is proven.
    pub fn not_after(&self) -> SystemTime {
        self.0.chain.not_after
    }

    /// Judges the client anew, by what a listener trusts now. `None`: it may stay.
    ///
    /// A stale list takes nobody's connection away; it refuses newcomers.
    pub fn judge(&self, listener: &Listener, rules: &Rules, now: SystemTime) -> Option<End> {
        let ClaimedPeer {
            names,
            tenant,
            chain,
            ..
        } = &*self.0;
        let revocation = &listener.revocation;
        let is_anchor_revoked = revocation.is_authority_revoked(chain.anchor);
        if is_anchor_revoked || revocation.status(&chain.links, now) == Status::Revoked {
            return Some(End::Revoked);
        }
        let roots = &listener.client_roots.roots;
        if !roots.iter().any(|root| authority_id(root) == chain.anchor) {
            return Some(End::Untrusted);
        }
        // A backend may have been told the tenant, so another one takes another connection.
        let unchanged = |(_, rule): (usize, &Rule)| rule.tenant == *tenant;
        (!rules.decide(names).is_some_and(unchanged)).then_some(End::NotAuthorized)
    }

    /// The tenant the client sends as.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.0.tenant.as_ref()
    }
}
