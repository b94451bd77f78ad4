//! A second state of a listener, tried on those who get in by the first: what it would refuse is told, and nobody is
//! refused for it.
//! In: the chain of a client that is in. Out: why the second state would have refused it. On the worker, after the
//! handshake; by the same verifier and the same trust that would refuse.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::block::BlockList;
use gateway_core::failure::Failure;
use gateway_core::trust::Trust;
use gateway_x509::client_certificate;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::config::listener_trust;
use super::failure::classify;
use super::peer::VerifiedPeer;
use super::scratch::{self, Note};
use super::verifier::{Verifier, explain};
use crate::config::{Config, ListenerId};

/// What another configuration would say of a listener's clients.
#[derive(Debug)]
pub struct Observed {
    verifier: Verifier,
    trust: Arc<Trust>,
}

impl Observed {
    /// Takes a listener of `candidate`.
    pub fn new(candidate: &Config, id: ListenerId, blocks: &Arc<BlockList>) -> Self {
        let trust = listener_trust(candidate, id, blocks);
        let listener = &candidate.listeners[id.0];
        Observed {
            verifier: Verifier::new(candidate, listener, Arc::clone(&trust)),
            trust,
        }
    }

    /// Why a client that has just come in with `chain` would have been refused.
    pub fn would_refuse(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Option<(Failure, String)> {
        let (leaf, intermediates) = chain.split_first()?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(since_epoch.unwrap_or(Duration::ZERO));
        let mut note = Note::default();
        let verify = || self.verifier.verify_client_cert(leaf, intermediates, now);
        let error = scratch::observe(&mut note, verify).err()?;
        let noted = note.refusal.take();
        Some(noted.unwrap_or_else(|| (classify(&error), error.to_string())))
    }

    /// Why a client that has been there for a while would lose its connection.
    pub fn would_close(&self, peer: &VerifiedPeer, now: SystemTime) -> Option<(Failure, String)> {
        match peer.object(&self.trust, now) {
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
