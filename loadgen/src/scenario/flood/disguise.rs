//! The TLS of a hostile client: a real ClientHello, and a certificate of a foreign CA.
//! In: the server name and protocols to offer. Out: bytes of a hello, or a connector. Made before the flood.
//! Accepts any server certificate, as an attacker does.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::credentials::provider;
use crate::issuer::{Authority, Edition};

/// What an attacker needs of TLS.
#[derive(Debug, Clone)]
pub(super) struct Disguise {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl Disguise {
    /// With a certificate of an authority that is made here and forgotten at once.
    pub(super) fn new(server_name: ServerName<'static>, alpn: &[String]) -> Result<Self> {
        let identity = Authority::ephemeral()?
            .identities(1..=1, Edition::First)?
            .pop()
            .context("one identity was asked for")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("the provider speaks TLS 1.3")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_cert_resolver(identity.resolver);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            server_name,
        })
    }

    /// A ClientHello, as the first record carries it.
    pub(super) fn hello(&self) -> Result<Vec<u8>> {
        let mut connection = ClientConnection::new(self.config.clone(), self.server_name.clone())
            .context("making a ClientHello")?;
        let mut hello = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut hello)?;
        }
        Ok(hello)
    }

    pub(super) fn connector(&self) -> tokio_rustls::TlsConnector {
        self.config.clone().into()
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }
}

/// Takes any certificate, and does not spend its time on signatures.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
