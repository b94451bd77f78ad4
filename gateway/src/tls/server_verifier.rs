//! Verifies a backend's certificate chain, its name, and that nobody has taken it back.
//! In: the chain from the server. Out: a verdict, with the reason in words for the log. Inside a call into rustls, on the
//! worker, before a byte of a client's goes to that server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::certificate::Chain;
use gateway_core::revocation::{Revocation, Status};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use super::{chain, scratch, verifier};
use crate::config::{BackendTls, Config};
use crate::identity;
use crate::pki::date;

/// Chain verification by webpki, then the revocation lists.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<RootCertStore>,
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
        match self.revocation.status(&chain.links, now) {
            Status::Good => Ok(()),
            Status::Revoked => Err(refuse(
                CertificateError::Revoked,
                "a revocation list names it, or one above it",
            )),
            Status::Unknown => Err(refuse(
                CertificateError::UnknownRevocationStatus,
                "the revocation list of one of its issuers is missing or too old",
            )),
        }
    }
}

/// Notes the reason in words; the error says it in an alert.
fn refuse(error: CertificateError, reason: impl Into<String>) -> CertificateError {
    scratch::refuse_server(reason.into());
    error
}

fn explain(error: webpki::Error) -> CertificateError {
    let reason = in_words(&error);
    refuse(verifier::translate(error), reason)
}

/// webpki's reasons as an operator reads them. What is not in its open-ended list is said by its own name.
fn in_words(error: &webpki::Error) -> String {
    use webpki::Error as Webpki;
    let at = |seconds: u64| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    match error {
        Webpki::UnknownIssuer => "it leads to no CA in ca".to_owned(),
        Webpki::CertExpired { not_after, .. } => {
            format!("it, or one above it, ended on {}", at(not_after.as_secs()))
        }
        Webpki::CertNotValidYet { not_before, .. } => {
            let from = at(not_before.as_secs());
            format!("it, or one above it, is not valid before {from}")
        }
        Webpki::InvalidSignatureForPublicKey => {
            "a signature of its chain does not verify: a CA of the same name, or a forgery"
                .to_owned()
        }
        Webpki::RequiredEkuNotFoundContext(_) | Webpki::EmptyEkuExtension => {
            "it lacks the serverAuth extended key usage".to_owned()
        }
        Webpki::UnsupportedSignatureAlgorithmContext(_)
        | Webpki::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "a signature is of a kind that is not accepted (RSA below 2048 bits, SHA-1)".to_owned()
        }
        other => format!("{other}"),
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
        let certificate = EndEntityCert::try_from(end_entity).map_err(explain)?;
        let (algorithms, roots) = (self.algorithms.all, &self.roots.roots);
        let usage = KeyUsage::server_auth();
        let path = certificate
            .verify_for_usage(algorithms, roots, intermediates, now, usage, None, None)
            .map_err(explain)?;
        let must_not_issue = |intermediate| !identity::may_issue(intermediate).unwrap_or(false);
        if intermediates.iter().any(must_not_issue) {
            let reason = "the key usage of an intermediate certificate lacks keyCertSign";
            return Err(refuse(CertificateError::InvalidPurpose, reason).into());
        }
        certificate
            .verify_is_valid_for_subject_name(server_name)
            .map_err(|_| {
                let reason = format!("it is not valid for the name {}", server_name.to_str());
                refuse(CertificateError::NotValidForName, reason)
            })?;
        let chain = chain::read(&path)
            .map_err(|error| refuse(CertificateError::BadEncoding, error.to_string()))?;
        self.check_revocation(&chain, now)?;
        scratch::believe_server(chain);
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
