//! A dry run: another configuration of a listener, tried on the clients that the one in force admits. It refuses no client.
//! In: the chain of an admitted client. Out: why the other configuration would have refused it. On the worker, after the
//! handshake; by the same verifier and the same trust that would refuse.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::block::BlockList;
use gateway_core::failure::Failure;
use gateway_core::identity::{Admission, Rule};
use gateway_core::trust::Trust;
use gateway_x509::client_certificate;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::config::listener_trust;
use super::failure::classify;
use super::handshake_context::{self, HandshakeContext};
use super::peer::VerifiedPeer;
use super::verifier::{Verifier, explain};
use crate::config::{Config, Listener, ListenerId};

/// What another configuration would say of a listener's clients.
#[derive(Debug)]
pub struct DryRun {
    verifier: Verifier,
    trust: Arc<Trust>,
    listener: Arc<Listener>,
}

impl DryRun {
    /// Takes a listener of `candidate`.
    pub fn new(candidate: &Config, id: ListenerId, blocks: &Arc<BlockList>) -> Self {
        let trust = listener_trust(candidate, id, blocks);
        let listener = &candidate.listeners[id.0];
        DryRun {
            verifier: Verifier::new(candidate, listener, Arc::clone(&trust)),
            trust,
            listener: Arc::clone(listener),
        }
    }

    /// Why the dry run would have refused a client that was just admitted with `chain`.
    pub fn would_refuse(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Option<(Failure, String)> {
        let (leaf, intermediates) = chain.split_first()?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(since_epoch.unwrap_or(Duration::ZERO));
        let mut context = HandshakeContext::default();
        let verify = || self.verifier.verify_client_cert(leaf, intermediates, now);
        let error = handshake_context::with_context(&mut context, verify).err()?;
        let named = context.refusal.take();
        Some(named.unwrap_or_else(|| (classify(&error), error.to_string())))
    }

    /// The listener in the other configuration.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// The rule of the other configuration that would admit a client, and what it would admit it as; `None`: none does.
    pub fn admission(&self, peer: &VerifiedPeer, now: SystemTime) -> Option<(&Rule, Admission)> {
        let admission = peer.evaluate_chain(&self.trust, now).ok()?;
        let rule = self.trust.rules.as_slice().get(admission.rule)?;
        Some((rule, admission))
    }

    /// Why the dry run would close the connection of a client that was admitted earlier.
    pub fn would_close(&self, peer: &VerifiedPeer, now: SystemTime) -> Option<(Failure, String)> {
        match peer.evaluate_chain(&self.trust, now) {
            Err(objection) => {
                let names = client_certificate::describe(peer.certificate());
                Some(explain(&objection, &names))
            }
            Ok(admission) if admission.tenant.as_ref() != peer.tenant() => {
                let detail =
                    "a rule with another tenant admits it, and its connection would be closed";
                Some((Failure::NotAuthorized, detail.to_owned()))
            }
            Ok(_) => None,
        }
    }
}
