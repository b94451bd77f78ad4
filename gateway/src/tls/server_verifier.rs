//! Verifies a backend's certificate chain and its name, and that no list revokes it.
//! In: the chain from the server. Out: a verdict, with the reason in words for the log. Inside a call into rustls, on the
//! worker, before a byte of a client's goes to that server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::certificate::Chain;
use gateway_core::failure::Failure;
use gateway_core::revocation::{Revocation, Status};
use gateway_x509::chain;
use gateway_x509::{PathPolicy, Refused, Roots, Search, Usage, Verified};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use webpki::EndEntityCert;

use super::{handshake_context, verifier};
use crate::config::{BackendTls, Config};

/// Chain verification by webpki, then the revocation lists.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<Roots>,
    algorithms: WebPkiSupportedAlgorithms,
    revocation: Arc<Revocation>,
}

impl ServerVerifier {
    /// Verifies against roots and revocation lists of `backend`.
    pub(super) fn new(config: &Config, backend: &BackendTls) -> Self {
        ServerVerifier {
            roots: Arc::clone(&backend.roots),
            algorithms: config.provider.signature_verification_algorithms,
            revocation: Arc::clone(&backend.revocation),
        }
    }

    /// Looks the chain up. A root that another one's list names is not among the roots any more.
    fn check_revocation(&self, chain: &Chain, now: UnixTime) -> Result<(), CertificateError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        match self.revocation.status(chain, now) {
            Status::Good => Ok(()),
            Status::Revoked => Err(refuse(
                CertificateError::Revoked,
                "a revocation list names it, or one above it",
            )),
            Status::Unknown(gap) => Err(refuse(
                CertificateError::UnknownRevocationStatus,
                self.revocation.describe(gap),
            )),
        }
    }
}

/// Notes the reason in words; the error says it in an alert.
fn refuse(error: CertificateError, reason: impl Into<String>) -> CertificateError {
    handshake_context::refuse_server(reason.into());
    error
}

/// Keeps what revocation and the end of a connection need of a path, and takes every one: what else must hold of a server
/// does not depend on the path.
struct ReadChain;

impl PathPolicy for ReadChain {
    type Accepted = Chain;

    fn accept(&self, verified: &Verified<'_>) -> Result<Chain, Refused> {
        chain::read(verified).map_err(|error| Refused::new(Failure::Malformed, error.to_string()))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused =
            |refused: Refused| refuse(verifier::error_of(refused.failure), refused.detail);
        let sent: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| CertificateDer::from(&certificate[..]))
            .collect();
        let search = Search {
            roots: &self.roots,
            algorithms: self.algorithms.all,
            usage: Usage::Server,
            now,
        };
        let chain = search.find(&sent, &ReadChain).map_err(refused)?;
        EndEntityCert::try_from(end_entity)
            .and_then(|certificate| certificate.verify_is_valid_for_subject_name(server_name))
            .map_err(|_| {
                let reason = format!("it is not valid for the name {}", server_name.to_str());
                refuse(CertificateError::NotValidForName, reason)
            })?;
        self.check_revocation(&chain, now)?;
        handshake_context::believe_server(chain);
        Ok(ServerCertVerified::assertion())
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
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
