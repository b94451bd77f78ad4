//! Makes rustls configurations from the checked ones.
//! In: a listener, a backend. Out: what a handshake is started with. Once at start, never on a worker's hot path.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_core::alpn;
use gateway_core::block::BlockList;
use gateway_core::limits;
use gateway_core::lineage::ResumptionPolicy;
use gateway_core::trust::Trust;
use gateway_x509::chain::anchors;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use super::certificates::Certificates;
use super::handshake_context;
use super::secrets::SecretLog;
use super::server_verifier::ServerVerifier;
use super::tickets::Ticketer;
use super::verifier::Verifier;
use crate::config::{BackendTls, Config, Listener, ListenerId};
use crate::crypto::KeyRing;

/// The configurations of a listener: they differ in whose order of cipher suites counts.
#[derive(Debug, Clone)]
pub struct ServerConfigs {
    own_order: Arc<ServerConfig>,
    clients_order: Arc<ServerConfig>,
}

impl ServerConfigs {
    /// For most clients: our order, which by default has the fastest suite first. OpenSSL, Java and rustls name AES-256 first, and
    /// the SHA-384 that comes with it makes a handshake dearer on both sides.
    pub fn own_order(&self) -> &Arc<ServerConfig> {
        &self.own_order
    }

    /// For clients that would rather have ChaCha20-Poly1305, unless the operator has set an order.
    pub fn clients_order(&self) -> &Arc<ServerConfig> {
        &self.clients_order
    }
}

/// The configurations of a listener: TLS 1.3, client certificates always, tickets with `keys` if there are any.
pub fn server_configs(
    config: &Config,
    listener: &Listener,
    trust: &Arc<Trust>,
    keys: Option<&KeyRing>,
) -> anyhow::Result<ServerConfigs> {
    let verifier = Verifier::new(config, listener, Arc::clone(trust));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&config.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Certificates {
            certificates: listener.certificates.clone(),
            protocols: listener.alpn.clone(),
        }));
    server.alpn_protocols = listener.alpn.clone();
    // What rustls keeps by itself it hands out unchecked.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    // For our record layer; they go nowhere else.
    server.enable_secret_extraction = true;
    // For our own alerts, and for the next keys; it goes nowhere else either.
    server.key_log = Arc::new(SecretLog::Server);
    server.ignore_client_order = true;
    let resumption = config.resumption.as_ref().filter(|_| listener.resumption);
    if let (Some(resumption), Some(keys)) = (resumption, keys) {
        let policy = ResumptionPolicy {
            max_authentication_age: resumption.max_authentication_age,
            epoch: keys.epoch(),
        };
        let random = config.provider.secure_random;
        let domain = security_domain(config, listener);
        let ticketer = Ticketer::new(keys, &domain, Arc::clone(trust), policy, random);
        server.ticketer = Arc::new(ticketer);
        server.send_tls13_tickets = limits::TICKETS_ISSUED;
    }
    let mut clients_order = server.clone();
    clients_order.ignore_client_order = config.suites_are_pinned;
    Ok(ServerConfigs {
        own_order: Arc::new(server),
        clients_order: Arc::new(clients_order),
    })
}

/// What a ticket is good for: the listener, and the keys and signatures it asks for. A ticket does not say by which of them
/// it was earned, so another policy takes another proof.
fn security_domain(config: &Config, listener: &Listener) -> String {
    let policy = &config.key_policy;
    let (keys, signatures) = (policy.key_names(), policy.signature_names());
    // A name has no line breaks: no two pairs read the same.
    format!(
        "{}\n{keys}\n{signatures}\n{}",
        listener.name,
        policy.depth_max()
    )
}

/// What a listener of `config` trusts, with the blocks of an operator.
pub fn listener_trust(
    config: &Config,
    ListenerId(position): ListenerId,
    blocks: &Arc<BlockList>,
) -> Arc<Trust> {
    let listener = &config.listeners[position];
    Arc::new(Trust {
        listener: position,
        anchors: anchors(&listener.client_roots),
        scopes: Arc::clone(&listener.client_scopes),
        revocation: Arc::clone(&listener.revocation),
        blocks: Arc::clone(blocks),
        rules: Arc::clone(config.rules_of(listener)),
    })
}

/// The configurations of a backend, one for each application protocol a client may have chosen: what the client
/// speaks is what the backend is offered, because the gateway does not look into the stream. Where the client chose none, or
/// one that the backend's own `alpn` does not have, the backend is offered that.
#[derive(Debug, Clone)]
pub struct BackendConfigs {
    without_protocol: Arc<ClientConfig>,
    by_protocol: HashMap<Vec<u8>, Arc<ClientConfig>>,
    for_requests: Arc<ClientConfig>,
}

impl BackendConfigs {
    /// Prepares for streams of clients that chose one of `protocols`, or none; and for requests, which are sent by one of
    /// `versions`.
    pub fn new(
        config: &Config,
        backend: &BackendTls,
        protocols: &[Vec<u8>],
        versions: &[&[u8]],
    ) -> anyhow::Result<Self> {
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&config.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous() // what rustls calls every verifier but its own
            .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(config, backend)))
            .with_client_cert_resolver(Arc::new(OurCertificate(Arc::clone(&backend.key))));
        client.resumption = Resumption::disabled();
        client.enable_secret_extraction = true;
        client.key_log = Arc::new(SecretLog::Client);
        let with_protocol = |protocol: &Vec<u8>| {
            let mut with_protocol = client.clone();
            with_protocol.alpn_protocols = alpn::offer(&backend.alpn, Some(protocol));
            (protocol.clone(), Arc::new(with_protocol))
        };
        let by_protocol = protocols.iter().map(with_protocol).collect();
        let mut for_requests = client.clone();
        for_requests.alpn_protocols = versions.iter().map(|version| version.to_vec()).collect();
        client.alpn_protocols = alpn::offer(&backend.alpn, None);
        Ok(BackendConfigs {
            by_protocol,
            without_protocol: Arc::new(client),
            for_requests: Arc::new(for_requests),
        })
    }

    /// The configuration for requests.
    pub fn for_requests(&self) -> &Arc<ClientConfig> {
        &self.for_requests
    }

    /// The configuration for a client that chose `protocol`.
    pub fn for_protocol(&self, protocol: Option<&[u8]>) -> &Arc<ClientConfig> {
        protocol
            .and_then(|protocol| self.by_protocol.get(protocol))
            .unwrap_or(&self.without_protocol)
    }
}

/// Presents our one client certificate to whichever backend asks.
#[derive(Debug)]
struct OurCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OurCertificate {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        handshake_context::certificate_requested();
        self.0
            .key
            .choose_scheme(schemes)
            .map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
