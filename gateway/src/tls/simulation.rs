//! Simulates the admission of a certificate, without a client.
//! In: a configuration, the block list, a certificate chain, the time. Out: what the verifier of a listener's handshakes
//! says of it, word for word: it is that verifier. Never on a worker; proves nothing, because no client has shown the key.

use std::sync::Arc;
use std::time::SystemTime;

use gateway_core::block::BlockList;
use gateway_core::certificate::Chain;
use gateway_core::failure::Failure;
use gateway_core::identity::Admission;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::config::listener_trust;
use super::failure::{classify, describe};
use super::handshake_context::{self, HandshakeContext};
use super::verifier::Verifier;
use crate::config::{Config, ListenerId};

/// What a client would be admitted as, if it holds the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admissible {
    /// What the rule says.
    pub admission: Admission,
    /// The chain that verifies.
    pub chain: Chain,
}

/// Why a client would be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inadmissible {
    /// The reason.
    pub failure: Failure,
    /// The reason in words.
    pub detail: String,
}

/// Asks a listener of `config` about a chain, the client's certificate first.
pub fn simulate(
    config: &Config,
    id: ListenerId,
    blocks: &Arc<BlockList>,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<Admissible, Inadmissible> {
    let Some((end_entity, intermediates)) = chain.split_first() else {
        return Err(Inadmissible {
            failure: Failure::NoCertificate,
            detail: "there is no certificate".to_owned(),
        });
    };
    let trust = listener_trust(config, id, blocks);
    let verifier = Verifier::new(config, &config.listeners[id.0], trust);
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    let time = UnixTime::since_unix_epoch(since_epoch.unwrap_or_default());
    let mut context = HandshakeContext::default();
    let outcome = handshake_context::with_context(&mut context, || {
        verifier.verify_client_cert(end_entity, intermediates, time)
    });
    let inadmissible = |(failure, detail)| Inadmissible { failure, detail };
    outcome.map_err(|error| {
        let named = context.refusal.take();
        inadmissible(named.unwrap_or_else(|| (classify(&error), describe(&error))))
    })?;
    match context.claimed {
        Some(claimed) => Ok(Admissible {
            admission: claimed.admission,
            chain: claimed.lineage.chain,
        }),
        None => Err(inadmissible((
            Failure::Internal,
            "the verifier admitted no client".to_owned(),
        ))),
    }
}
