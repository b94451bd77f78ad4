//! The servers of a backend as one worker sees them: how the hop to them is protected, and what is known of them.
//! In: the configuration, resolved addresses, outcomes of attempts. Out: which server is next, and by what name an operator
//! knows it. On the worker; a reload keeps what is known.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gateway_core::balance::{Balance, Patience, Server};
use gateway_core::certificate::Chain;
use gateway_core::descriptors::Descriptors;
use gateway_core::endpoint::Endpoint;
use gateway_core::http::forward::HttpVersion;
use gateway_core::limits;
use gateway_core::names::Name;
use gateway_core::server_trust::{ServerObjection, ServerTrust};
use gateway_rt::BufferPool;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::connect::is_ours;
use crate::config::{Backend, BackendTransport, Config, ProxyProtocol, ServerAddress};
use crate::tls::{BackendConfigs, HandshakeError};

/// How the hop is protected, ready to use.
#[derive(Clone)]
pub enum Transport {
    /// Plain TCP, because the configuration allows it for this backend.
    Plain,
    /// mTLS.
    Tls {
        /// One configuration per application protocol.
        configs: BackendConfigs,
        /// The name in the server's certificate.
        server_name: ServerName<'static>,
        /// What connected servers are evaluated by.
        trust: Arc<ServerTrust>,
    },
}

impl Transport {
    /// Prepares the transport of `backend` for clients that choose among `protocols`.
    pub fn new(config: &Config, backend: &Backend, protocols: &[Vec<u8>]) -> anyhow::Result<Self> {
        match &backend.transport {
            BackendTransport::LoopbackPlaintext | BackendTransport::DangerousPlaintext => {
                Ok(Transport::Plain)
            }
            BackendTransport::Tls(own) => Ok(Transport::Tls {
                configs: BackendConfigs::new(
                    config,
                    own,
                    protocols,
                    backend.http.protocol.offer(),
                )?,
                server_name: own.server_name.clone(),
                trust: Arc::new(ServerTrust {
                    anchors: gateway_x509::anchors(&own.roots),
                    revocation: Arc::clone(&own.revocation),
                }),
            }),
        }
    }

    /// The TLS configuration for requests; none over plain TCP.
    pub(super) fn config_for_requests(&self) -> Option<Arc<ClientConfig>> {
        match self {
            Transport::Plain => None,
            Transport::Tls { configs, .. } => Some(Arc::clone(configs.for_requests())),
        }
    }

    /// The TLS configuration for a client that speaks `protocol`; none over plain TCP.
    pub(super) fn config(&self, protocol: Option<&[u8]>) -> Option<Arc<ClientConfig>> {
        match self {
            Transport::Plain => None,
            Transport::Tls { configs, .. } => Some(Arc::clone(configs.for_protocol(protocol))),
        }
    }
}

/// The servers of one backend, as one worker sees them.
pub struct Servers {
    pub(super) backend: Arc<Backend>,
    pub(super) transport: Transport,
    pub(super) buffers: Rc<BufferPool>,
    pub(super) descriptors: Descriptors,
    pub(super) known: Rc<Known>,
}

impl Servers {
    /// The servers of `backend`, none of which has an address yet. Turns begin at `random`.
    pub fn new(
        backend: Arc<Backend>,
        transport: Transport,
        (buffers, descriptors): (Rc<BufferPool>, Descriptors),
        random: usize,
    ) -> Self {
        Servers {
            backend,
            transport,
            buffers,
            descriptors,
            known: Rc::new(Known::new(random)),
        }
    }

    /// These servers by another configuration, with what is known of them from `before`.
    pub fn after(self, before: &Servers) -> Self {
        Servers {
            known: Rc::clone(&before.known),
            ..self
        }
    }

    /// Remembers that `server` has refused the gateway's certificate. In TLS 1.3 a server says so only when the handshake is
    /// over for us. Nothing else that ends a connection later counts: a client could bring it about.
    pub fn refused_us(&self, server: Endpoint) {
        self.known
            .balance
            .borrow_mut()
            .failed(server, Instant::now());
    }

    /// Whether the hop is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls { .. })
    }

    /// The version of HTTP that requests are sent by to a server that chose `protocol`.
    pub fn version(&self, protocol: Option<&[u8]>) -> HttpVersion {
        self.backend.http.protocol.version(protocol)
    }

    /// What requests of our own name as their authority: the name that is verified, else as the configuration writes the server.
    pub fn authority_of(&self, address: Endpoint) -> String {
        match (&self.transport, address) {
            (Transport::Plain, Endpoint::Ip(ip)) => match self.written(address) {
                // A service is no host; its records name many.
                Some(ServerAddress::Name(Name::Service(_))) => ip.to_string(),
                Some(_) | None => self.name_of(address),
            },
            // A path is no authority (RFC 3986 section 3.2).
            (Transport::Plain, Endpoint::Unix(_)) => "localhost".to_owned(),
            (Transport::Tls { server_name, .. }, _) => server_name.to_str().into_owned(),
        }
    }

    /// Whether a PROXY header goes first.
    pub fn has_proxy_header(&self) -> bool {
        self.backend.proxy_protocol != ProxyProtocol::Off
    }

    /// How the configuration writes the server with this address. One that a reload or a resolver has taken away since is called by
    /// its address.
    pub fn name_of(&self, address: Endpoint) -> String {
        self.written(address)
            .map_or_else(|| address.to_string(), ToString::to_string)
    }

    /// The server with this address in the configuration.
    fn written(&self, address: Endpoint) -> Option<&ServerAddress> {
        let source = self.known.balance.borrow().source_of(address);
        self.backend.servers.get(source?)
    }

    /// Evaluates a connected server by the trust in force: what speaks against it.
    pub fn evaluate_server(&self, chain: &Chain) -> Option<ServerObjection> {
        match &self.transport {
            Transport::Plain => None,
            Transport::Tls { trust, .. } => trust.evaluate_chain(chain, SystemTime::now()),
        }
    }

    /// Takes the servers to use from now on. Where none is known yet those before go on, as far as they can be trusted to be
    /// the backend's: by their certificate, or because they are on this host.
    pub fn replace(&self, servers: &[Server]) {
        let mut balance = self.known.balance.borrow_mut();
        match (servers, &self.transport) {
            ([], Transport::Plain) => {
                balance.retain(|server| server.is_this_host());
            }
            ([], Transport::Tls { .. }) => {}
            (servers, _) => balance.replace(servers),
        }
    }
}

/// What is known of the servers, whatever the configuration is.
pub(super) struct Known {
    pub(super) balance: RefCell<Balance>,
    /// The remarks that were logged, by server.
    pub(super) remarked: RefCell<HashSet<(Endpoint, Remark)>>,
    /// Failures of abandoned attempts, which the next client reports.
    pub(super) unreported: RefCell<Vec<ServerFailure>>,
}

impl Known {
    /// Nothing yet. Turns begin at `random`.
    pub(super) fn new(random: usize) -> Self {
        let patience = Patience {
            first: limits::SERVER_COOL_DOWN,
            longest: limits::SERVER_COOL_DOWN_MAX,
            longest_beside: limits::ADDRESS_COOL_DOWN_MAX,
            retry: limits::SERVER_RETRY,
            head_start: limits::HEAD_START,
            head_start_max: limits::HEAD_START_MAX,
        };
        Known {
            balance: RefCell::new(Balance::new(patience, random)),
            remarked: RefCell::default(),
            unreported: RefCell::default(),
        }
    }
}

/// An attempt at a server. While there is one, others may wait for its outcome; at its end, however it ends, they wait no
/// longer.
pub(super) struct Probe {
    known: Rc<Known>,
    pub(super) server: Endpoint,
}

impl Probe {
    pub(super) fn new(known: &Rc<Known>, server: Endpoint) -> Self {
        Probe {
            known: Rc::clone(known),
            server,
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // What the attempt has found out was noted before.
        if let Ok(mut balance) = self.known.balance.try_borrow_mut() {
            balance.given_up(self.server);
        }
    }
}

/// What an operator should know of a server, and is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Remark {
    /// It does not ask for our certificate.
    NoCertificateRequest,
    /// It chose no protocol although its client speaks HTTP/2.
    ChoseNoProtocol,
}

/// An attempt at a server that failed.
#[derive(Debug)]
pub struct ServerFailure {
    /// The server.
    pub server: Endpoint,
    /// Why.
    pub error: HandshakeError,
    /// Another address of the same name serves.
    pub is_spared: bool,
}

impl ServerFailure {
    /// Whether it says something about the server: a want of descriptors or of memory on this host does not.
    pub fn is_servers(&self) -> bool {
        !is_ours(&self.error)
    }
}
