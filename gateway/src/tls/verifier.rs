//! Verifies a client's certificate chain and asks the identity rules.
//! In: the chain from the client. Out: a noted `ClaimedPeer`, or an error that rustls turns into an alert. Inside a
//! call into rustls, on the worker. A client without a certificate never gets here: rustls refuses it.

use std::sync::Arc;

use gateway_core::failure::Failure;
use gateway_core::identity::Rules;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::peer::ClaimedPeer;
use super::scratch;
use crate::config::{Config, Listener};
use crate::identity;

/// Chain verification by webpki, then our own conditions.
#[derive(Debug)]
pub(super) struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    rules: Arc<Rules>,
}

impl Verifier {
    /// Verifies against the roots of `listener` and the rules of `config`.
    pub(super) fn new(config: &Config, listener: &Listener) -> anyhow::Result<Self> {
        let roots = Arc::clone(&listener.client_roots);
        let provider = Arc::clone(&config.provider);
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        Ok(Verifier {
            chain,
            rules: Arc::clone(&config.rules),
        })
    }

    /// The conditions beyond the chain: client usage, and a rule that admits the names.
    fn admit(&self, end_entity: &CertificateDer<'_>) -> Result<ClaimedPeer, CertificateError> {
        let certificate = identity::parse(end_entity).map_err(|error| {
            scratch::refuse(Failure::Malformed, error.to_string());
            CertificateError::BadEncoding
        })?;
        if !certificate.may_sign {
            let detail = "the certificate's key usage lacks digitalSignature".to_owned();
            scratch::refuse(Failure::WrongKeyUsage, detail);
            return Err(CertificateError::InvalidPurpose);
        }
        // webpki lets a certificate without the extension through; RFC 5280 section 4.2.1.12 leaves that to us.
        if !certificate.client_usage {
            let detail = "the certificate lacks the clientAuth extended key usage".to_owned();
            scratch::refuse(Failure::WrongKeyUsage, detail);
            return Err(CertificateError::InvalidPurpose);
        }
        let Some((rule, admitted)) = self.rules.decide(&certificate.names) else {
            let detail = format!(
                "no identity rule matches {}",
                identity::describe(&certificate.names)
            );
            scratch::refuse(Failure::NotAuthorized, detail);
            return Err(CertificateError::ApplicationVerificationFailure);
        };
        Ok(ClaimedPeer {
            rule,
            tenant: admitted.tenant.clone(),
            names: certificate.names,
        })
    }
}

/// Refuses a chain with a certificate in it that must not issue any.
fn require_issuers(intermediates: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    for intermediate in intermediates {
        if !identity::may_issue(intermediate).unwrap_or(false) {
            let detail =
                "the key usage of an intermediate certificate lacks keyCertSign".to_owned();
            scratch::refuse(Failure::WrongKeyUsage, detail);
            return Err(CertificateError::InvalidPurpose);
        }
    }
    Ok(())
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        require_issuers(intermediates)?;
        scratch::claim(self.admit(end_entity)?);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }

    // `offer_client_auth` and `client_auth_mandatory` keep their defaults: always, and always.
}
