//! Handshakes in memory between rustls and rustls, both sides authenticated. In: certificates, a library. Out: what one
//! handshake took the server, without sockets and without the client's part.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ProducesTickets, ServerConnection, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::clock::spent;

/// How a handshake proves who the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By certificates.
    Full,
    /// By the ticket of the handshake before.
    Resumed,
}

/// Certificate chain and key of one peer.
pub struct Identity {
    /// Its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of that.
    pub key: PrivateKeyDer<'static>,
}

/// Both peers of a handshake, and the CAs that they trust.
pub struct Identities {
    /// The CAs of both.
    pub authority: Vec<CertificateDer<'static>>,
    /// `localhost`.
    pub server: Identity,
    /// A client that the server accepts.
    pub client: Identity,
}

/// What computes, and with which algorithms.
pub struct Library {
    /// All it can do.
    pub provider: CryptoProvider,
    /// The only group.
    pub group: &'static dyn SupportedKxGroup,
    /// The only suite.
    pub suite: SupportedCipherSuite,
    /// For tickets.
    pub ticketer: Arc<dyn ProducesTickets>,
}

impl Identity {
    /// Reads two PEM files.
    pub fn read(chain: &Path, key: &Path) -> Result<Self> {
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("a key in {}", key.display()))?;
        Ok(Self {
            chain: certificates(chain)?,
            key,
        })
    }
}

/// All certificates of a PEM file.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("certificates in {}", file.display()))
}

/// CPU time of the server for one handshake in microseconds, the mean of so many.
pub fn measure(identities: &Identities, library: &Library, kind: Kind, count: u32) -> Result<f64> {
    let (server, client) = (
        server(identities, library)?,
        client(identities, library, kind)?,
    );
    // The first one brings the ticket and warms up what there is to warm.
    shake_hands(&server, &client)?;
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let (took, found) = shake_hands(&server, &client)?;
        let expected = match kind {
            Kind::Full => HandshakeKind::Full,
            Kind::Resumed => HandshakeKind::Resumed,
        };
        ensure!(found == Some(expected), "{found:?} instead of {expected:?}");
        total += took;
    }
    Ok(total.as_secs_f64() * 1e6 / f64::from(count))
}

fn provider(library: &Library) -> Arc<CryptoProvider> {
    let mut provider = library.provider.clone();
    provider.kx_groups = vec![library.group];
    provider.cipher_suites = vec![library.suite];
    Arc::new(provider)
}

fn roots(identities: &Identities) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in &identities.authority {
        roots.add(certificate.clone())?;
    }
    Ok(Arc::new(roots))
}

fn server(identities: &Identities, library: &Library) -> Result<Arc<ServerConfig>> {
    let provider = provider(library);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(identities)?, provider.clone())
            .build()?;
    let Identity { chain, key } = &identities.server;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    config.ticketer = library.ticketer.clone();
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn client(identities: &Identities, library: &Library, kind: Kind) -> Result<Arc<ClientConfig>> {
    let Identity { chain, key } = &identities.client;
    let mut config = ClientConfig::builder_with_provider(provider(library))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(identities)?)
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    config.resumption = match kind {
        Kind::Full => Resumption::disabled(),
        Kind::Resumed => Resumption::in_memory_sessions(8),
    };
    Ok(Arc::new(config))
}

/// One handshake to its end, the ticket included: what the server took, and of which kind it was.
fn shake_hands(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(Duration, Option<HandshakeKind>)> {
    let name = ServerName::try_from("localhost").context("a name of a host")?;
    let mut client = ClientConnection::new(client.clone(), name)?;
    let started = spent();
    let mut server = ServerConnection::new(server.clone())?;
    let mut took = spent() - started;
    while client.wants_write() {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent)?;
        }
        let started = spent();
        let mut received = sent.as_slice();
        while !received.is_empty() {
            server.read_tls(&mut received)?;
            server.process_new_packets()?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer)?;
        }
        took += spent() - started;
        let mut received = answer.as_slice();
        while !received.is_empty() {
            client.read_tls(&mut received)?;
            client.process_new_packets()?;
        }
    }
    ensure!(
        !client.is_handshaking() && !server.is_handshaking(),
        "the handshake has no end"
    );
    Ok((took, server.handshake_kind()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::crypto::ring;

    fn identities() -> Identities {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let side = || {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            Identity {
                chain: vec![certificate.der().clone()],
                key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            }
        };
        Identities {
            authority: vec![authority.der().clone()],
            server: side(),
            client: side(),
        }
    }

    #[test]
    fn handshakes_are_of_the_kind_that_was_asked_for() {
        let library = Library {
            provider: ring::default_provider(),
            group: ring::kx_group::X25519,
            suite: ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ticketer: ring::Ticketer::new().unwrap(),
        };
        let identities = identities();
        for kind in [Kind::Full, Kind::Resumed] {
            // Fails by itself when one is of the other kind.
            assert!(
                measure(&identities, &library, kind, 3).unwrap() > 0.0,
                "{kind:?}"
            );
        }
    }
}
