//! Verifies a client's certificate chain and asks the identity rules.
//! In: the chain from the client. Out: a `ClaimedPeer` in the handshake's context, or an error that rustls turns into an
//! alert. Inside a call into rustls, on the worker. A client without a certificate never gets here: rustls refuses it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::certificate::Chain;
use gateway_core::failure::Failure;
use gateway_core::limits;
use gateway_core::lineage::Lineage;
use gateway_core::trust::{Objection, Trust};
use gateway_x509::client_certificate::{self, ParsedCertificate};
use gateway_x509::{Refused, Roots, Search, Usage};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    SignatureScheme,
};

use super::chain_cache::{self, ChainKey, NewChain, PolicyGeneration, VerifiedChain};
use super::handshake_context;
use super::peer::{ClaimedPeer, Proof};
use crate::config::{Config, Listener};
use crate::crypto::KeyPolicy;

/// Chain verification by webpki, then our own conditions.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Arc<Roots>,
    root_hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    key_policy: Arc<KeyPolicy>,
    trust: Arc<Trust>,
    generation: PolicyGeneration,
}

impl Verifier {
    /// Verifies against the roots of `listener`, and admits the clients that `trust` admits.
    pub(super) fn new(config: &Config, listener: &Listener, trust: Arc<Trust>) -> Self {
        Verifier {
            roots: Arc::clone(&listener.client_roots),
            root_hints: root_hints(&listener.client_roots),
            algorithms: config.provider.signature_verification_algorithms,
            key_policy: Arc::clone(&config.key_policy),
            trust,
            generation: PolicyGeneration::new(),
        }
    }

    /// Reads and verifies a chain that is not known yet.
    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedChain, CertificateError> {
        let refused = |refused: Refused| refuse(refused.failure, refused.detail);
        let sent: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| CertificateDer::from(&certificate[..]))
            .collect();
        // Before anything is parsed: every reader takes time for what a peer sends.
        gateway_x509::within_bounds(&sent).map_err(refused)?;
        // Read before the search, so that a refusal can name the client.
        let presented = client_certificate::parse(end_entity);
        if let Ok(presented) = &presented {
            handshake_context::present(presented.clone());
        }
        let search = Search {
            roots: &self.roots,
            algorithms: self.key_policy.signatures(),
            usage: Usage::Client,
            now,
        };
        let chain = search.find(&sent, &*self.key_policy).map_err(refused)?;
        let presented = presented.map_err(|error| refuse(Failure::Malformed, error.to_string()))?;
        Ok(VerifiedChain { presented, chain })
    }

    /// The conditions beyond the chain: usages, and everything an operator has said about which client may enter.
    fn admit(
        &self,
        presented: ParsedCertificate,
        chain: Chain,
        now: SystemTime,
    ) -> Result<ClaimedPeer, CertificateError> {
        if !presented.may_sign {
            let detail = "the certificate's key usage lacks digitalSignature";
            return Err(refuse(Failure::WrongKeyUsage, detail.to_owned()));
        }
        // webpki lets a certificate without the extension through; RFC 5280 section 4.2.1.12 leaves that to us.
        if !presented.client_usage {
            let detail = "the certificate lacks the clientAuth extended key usage";
            return Err(refuse(Failure::WrongKeyUsage, detail.to_owned()));
        }
        let certificate = presented.certificate;
        match self.trust.admit(&certificate, &chain, now) {
            Ok(admission) => Ok(ClaimedPeer {
                lineage: Lineage {
                    // rustls' time has whole seconds, which are enough for the evaluation.
                    authenticated_at: SystemTime::now(),
                    epoch: 0,
                    certificate,
                    chain,
                },
                admission,
                proof: Proof::Chain,
            }),
            Err(objection) => {
                let (failure, detail) =
                    explain(&objection, &client_certificate::describe(&certificate));
                Err(refuse(failure, detail))
            }
        }
    }
}

/// The names that a CertificateRequest lists (RFC 8446 section 4.2.4); none where they take too much room: the list is
/// optional (section 4.3.2), above 64 KiB it cannot be said, and some clients fail on less.
fn root_hints(roots: &Roots) -> Vec<DistinguishedName> {
    match roots.names_bytes() <= limits::AUTHORITY_NAMES_BYTES_MAX {
        true => roots.names().collect(),
        false => Vec::new(),
    }
}

/// An objection as the reason for refusing, and in words.
pub(super) fn explain(objection: &Objection, names: &str) -> (Failure, String) {
    let (failure, detail) = match objection {
        Objection::Blocked => (Failure::Blocked, "an operator has blocked it"),
        Objection::Revoked => (
            Failure::Revoked,
            "a revocation list names the certificate or one above it",
        ),
        Objection::Expired => (Failure::Expired, "a certificate of the chain has ended"),
        Objection::Untrusted => (Failure::UnknownIssuer, "its root is not trusted any more"),
        Objection::Constrained => (
            Failure::NameConstraint,
            "its root has other name constraints than those it was verified by",
        ),
        Objection::CrlStale(gap) => return (Failure::CrlStale, format!("{gap}: {names}")),
        Objection::NotAuthorized(denial) => {
            return (Failure::NotAuthorized, format!("{denial}: {names}"));
        }
    };
    (failure, format!("{detail}: {names}"))
}

/// Notes the reason and names the error that makes rustls send its alert.
fn refuse(failure: Failure, detail: String) -> CertificateError {
    handshake_context::refuse(failure, detail);
    error_of(failure)
}

/// The error of a certificate for which rustls sends the alert of a failure.
pub(super) fn error_of(failure: Failure) -> CertificateError {
    match failure {
        Failure::Revoked => CertificateError::Revoked,
        Failure::CrlStale => CertificateError::UnknownRevocationStatus,
        Failure::WrongKeyUsage | Failure::CriticalExtension => CertificateError::InvalidPurpose,
        Failure::Expired => CertificateError::Expired,
        Failure::NotYetValid => CertificateError::NotValidYet,
        Failure::UnknownIssuer => CertificateError::UnknownIssuer,
        Failure::BadSignature => CertificateError::BadSignature,
        Failure::NotAuthorized | Failure::Blocked => {
            CertificateError::ApplicationVerificationFailure
        }
        Failure::WeakKey
        | Failure::ChainTooLarge
        | Failure::NameConstraint
        | Failure::PathConstraint
        | Failure::NoCertificate
        | Failure::ClientRejectedServer
        | Failure::NotTls
        | Failure::Malformed
        | Failure::Version
        | Failure::CipherSuite
        | Failure::Group
        | Failure::Alpn
        | Failure::Sni
        | Failure::Timeout
        | Failure::Reset
        | Failure::OverLimit
        | Failure::Banned
        | Failure::Internal => CertificateError::BadEncoding,
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.root_hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let key = ChainKey::of(self.generation, end_entity, intermediates);
        let VerifiedChain { presented, chain } = match chain_cache::find(&key, at) {
            Some(known) => {
                handshake_context::present(known.presented.clone());
                known
            }
            None => {
                let verified = self.verify_chain(end_entity, intermediates, now)?;
                // Not copied in vain: `keep` would not take a larger one.
                if verified.bytes() <= limits::CACHED_CHAIN_BYTES_MAX {
                    handshake_context::remember(NewChain {
                        key,
                        verified: verified.clone(),
                        verified_at: at,
                    });
                }
                verified
            }
        };
        handshake_context::claim(self.admit(presented, chain, at)?);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not compiled in; rustls asks for the method all the same.
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.key_policy.schemes().contains(&signature.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.key_policy.schemes().to_vec()
    }

    // `offer_client_auth` and `client_auth_mandatory` keep their defaults: always, and always.
}

#[cfg(test)]
mod tests {
    use super::*;

    use gateway_core::alert::Alert;
    use rustls::AlertDescription;

    /// The alert that rustls sends when a verifier fails by `error_of(failure)`.
    fn alert_by_rustls(failure: Failure) -> Alert {
        Alert(u8::from(AlertDescription::from(error_of(failure))))
    }

    #[test]
    fn rustls_sends_the_alert_of_the_table_for_each_failure_of_a_certificate() {
        for failure in Failure::ALL {
            let sent = alert_by_rustls(failure);
            match failure {
                // RFC 8446 section 6.2: decode_error is for a message that cannot be decoded, bad_certificate for a
                // corrupt certificate in a message that can.
                Failure::Malformed => assert_eq!(sent, Alert::BAD_CERTIFICATE),
                // No verifier refuses a client by these: they come before its certificate, or behind it.
                Failure::NoCertificate
                | Failure::ClientRejectedServer
                | Failure::NotTls
                | Failure::Version
                | Failure::CipherSuite
                | Failure::Group
                | Failure::Alpn
                | Failure::Sni
                | Failure::Timeout
                | Failure::Reset
                | Failure::OverLimit
                | Failure::Banned
                | Failure::Internal => {}
                _ => assert_eq!(Some(sent), failure.alert(), "{failure}"),
            }
        }
    }
}
