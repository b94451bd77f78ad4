//! Verifies a client's certificate chain and asks the identity rules.
//! In: the chain from the client. Out: a noted `ClaimedPeer`, or an error that rustls turns into an alert. Inside a
//! call into rustls, on the worker. A client without a certificate never gets here: rustls refuses it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway_core::failure::Failure;
use gateway_core::identity::Rules;
use gateway_core::revocation::{Revocation, Status};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::chain::Chain;
use super::key_policy::KeyPolicy;
use super::peer::ClaimedPeer;
use super::scratch;
use crate::config::{Config, Listener};
use crate::identity;

/// Chain verification by webpki, then our own conditions.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    root_hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    key_policy: Arc<KeyPolicy>,
    revocation: Arc<Revocation>,
    rules: Arc<Rules>,
}

impl Verifier {
    /// Verifies against roots and revocation lists of `listener` and the rules of `config`.
    pub(super) fn new(config: &Config, listener: &Listener) -> Self {
        Verifier {
            roots: Arc::clone(&listener.client_roots),
            root_hints: listener.client_roots.subjects(),
            algorithms: config.provider.signature_verification_algorithms,
            key_policy: Arc::clone(&config.key_policy),
            revocation: Arc::clone(&listener.revocation),
            rules: Arc::clone(&config.rules),
        }
    }

    /// Builds and verifies the chain up to a root: signatures, validity, constraints, client usage.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Chain, CertificateError> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(translate)?;
        let algorithms = self.key_policy.signatures();
        let usage = KeyUsage::client_auth();
        let roots = &self.roots.roots;
        let path = certificate
            .verify_for_usage(algorithms, roots, intermediates, now, usage, None, None)
            .map_err(
                |error| match self.key_policy.explain(&error, intermediates) {
                    Some(detail) => refuse(Failure::WeakKey, detail),
                    None => translate(error),
                },
            )?;
        self.key_policy
            .judge_keys(&path)
            .map_err(|detail| refuse(Failure::WeakKey, detail))?;
        self.key_policy
            .judge_depth(&path)
            .map_err(|detail| refuse(Failure::UnknownIssuer, detail))?;
        Chain::of(&path).map_err(|error| refuse(Failure::Malformed, error.to_string()))
    }

    /// Looks the chain up in the revocation lists.
    fn check_revocation(&self, chain: &Chain, now: SystemTime) -> Result<(), CertificateError> {
        match self.revocation.status(&chain.links, now) {
            Status::Good => Ok(()),
            Status::Revoked => {
                let detail = "a revocation list names the certificate or one above it";
                Err(refuse(Failure::Revoked, detail.to_owned()))
            }
            Status::Unknown => {
                let detail = "the revocation list of one of its issuers is missing or too old";
                Err(refuse(Failure::CrlStale, detail.to_owned()))
            }
        }
    }

    /// The conditions beyond the chain: usages, and a rule that admits the names.
    fn admit(
        &self,
        end_entity: &CertificateDer<'_>,
        chain: Chain,
    ) -> Result<ClaimedPeer, CertificateError> {
        let certificate = identity::parse(end_entity)
            .map_err(|error| refuse(Failure::Malformed, error.to_string()))?;
        if !certificate.may_sign {
            let detail = "the certificate's key usage lacks digitalSignature";
            return Err(refuse(Failure::WrongKeyUsage, detail.to_owned()));
        }
        // webpki lets a certificate without the extension through; RFC 5280 section 4.2.1.12 leaves that to us.
        if !certificate.client_usage {
            let detail = "the certificate lacks the clientAuth extended key usage";
            return Err(refuse(Failure::WrongKeyUsage, detail.to_owned()));
        }
        let Some((rule, admitted)) = self.rules.decide(&certificate.names) else {
            let names = identity::describe(&certificate.names);
            let detail = format!("no identity rule matches {names}");
            return Err(refuse(Failure::NotAuthorized, detail));
        };
        Ok(ClaimedPeer {
            rule,
            tenant: admitted.tenant.clone(),
            names: certificate.names,
            chain,
        })
    }
}

/// Notes the reason and names the error that makes rustls send its alert.
fn refuse(failure: Failure, detail: String) -> CertificateError {
    scratch::refuse(failure, detail);
    match failure {
        Failure::Revoked => CertificateError::Revoked,
        Failure::CrlStale => CertificateError::UnknownRevocationStatus,
        // As common stacks say of a chain that is too long: no issuer was reached.
        Failure::UnknownIssuer => CertificateError::UnknownIssuer,
        Failure::WrongKeyUsage => CertificateError::InvalidPurpose,
        Failure::NotAuthorized => CertificateError::ApplicationVerificationFailure,
        _ => CertificateError::BadEncoding,
    }
}

/// webpki's words in rustls' (both lists are open-ended; what is left over is a chain that leads to no root of ours).
fn translate(error: webpki::Error) -> CertificateError {
    use webpki::Error as Webpki;
    match error {
        Webpki::BadDer
        | Webpki::BadDerTime
        | Webpki::TrailingData(_)
        | Webpki::MalformedExtensions
        | Webpki::ExtensionValueInvalid
        | Webpki::InvalidSerialNumber
        | Webpki::UnsupportedCertVersion => CertificateError::BadEncoding,
        Webpki::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Webpki::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Webpki::InvalidCertValidity => CertificateError::Expired,
        Webpki::UnknownIssuer => CertificateError::UnknownIssuer,
        Webpki::InvalidSignatureForPublicKey
        | Webpki::SignatureAlgorithmMismatch
        | Webpki::UnsupportedSignatureAlgorithmContext(_)
        | Webpki::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            scratch::refuse(Failure::BadSignature, error.to_string());
            CertificateError::BadSignature
        }
        Webpki::RequiredEkuNotFoundContext(_) | Webpki::EmptyEkuExtension => {
            CertificateError::InvalidPurpose
        }
        other => {
            scratch::refuse(Failure::UnknownIssuer, other.to_string());
            CertificateError::UnknownIssuer
        }
    }
}

/// Refuses a chain with a certificate in it that must not issue any.
fn require_issuers(intermediates: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    for intermediate in intermediates {
        if !identity::may_issue(intermediate).unwrap_or(false) {
            let detail = "the key usage of an intermediate certificate lacks keyCertSign";
            return Err(refuse(Failure::WrongKeyUsage, detail.to_owned()));
        }
    }
    Ok(())
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
        let chain = self.verify(end_entity, intermediates, now)?;
        require_issuers(intermediates)?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        self.check_revocation(&chain, now)?;
        scratch::claim(self.admit(end_entity, chain)?);
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
