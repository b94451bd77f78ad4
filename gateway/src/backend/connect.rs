//! Connects a client's stream to one of a backend's servers.
//! In: the client. Out: a stream, over the first server in turn that can be reached. On the worker; nothing has been
//! sent to a server that failed, so the next may be tried.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gateway_core::balance::{Balance, Server};
use gateway_core::certificate::Chain;
use gateway_core::server_trust::{ServerObjection, ServerTrust};
use rustix::io::Errno;
use rustls::pki_types::ServerName;

use super::proxy_protocol;
use crate::config::{Backend, BackendTransport, Config, ProxyProtocol};
use crate::limits;
use crate::relay::{PlainStream, Stream};
use crate::rt::{BufferPool, Socket};
use crate::tls::{self, BackendConfigs, Connected, HandshakeError, VerifiedPeer};

/// The client on whose behalf a connection is made.
pub struct Client<'a> {
    /// Who it is.
    pub peer: &'a VerifiedPeer,
    /// Its address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub listener_address: SocketAddr,
    /// Its cipher suite.
    pub cipher_suite: &'a str,
    /// Whether it came back with a ticket: its certificate was presented before, not on this connection.
    pub is_resumed: bool,
    /// The application protocol it chose.
    pub protocol: Option<&'a [u8]>,
}

/// No server of the backend could be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    /// How many are known; none where no name could be resolved.
    pub known: usize,
}

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
        /// What servers that are connected are judged by.
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
                configs: BackendConfigs::new(config, own, protocols)?,
                server_name: own.server_name.clone(),
                trust: Arc::new(ServerTrust {
                    anchors: own
                        .roots
                        .iter()
                        .map(|root| tls::authority_id(&root.anchor))
                        .collect(),
                    revocation: Arc::clone(&own.revocation),
                }),
            }),
        }
    }
}

/// The servers of one backend, as one worker sees them.
pub struct Servers {
    backend: Arc<Backend>,
    transport: Transport,
    balance: Rc<RefCell<Balance>>,
    buffers: Rc<BufferPool>,
    /// Servers that did not ask for our certificate, which has been said.
    careless: Rc<RefCell<HashSet<SocketAddr>>>,
}

/// A connection to one of the servers.
pub struct Connection {
    /// The stream to read and write.
    pub stream: Stream,
    /// The server.
    pub server: SocketAddr,
    /// Its verified chain; none over plain TCP.
    pub chain: Option<Chain>,
}

/// A server took the connection and ended it without a word. In TLS 1.3 a server that refuses our certificate says so
/// only after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ended the connection before it sent a byte; it may have refused our certificate")]
pub struct EndedAtOnce;

impl Servers {
    /// The servers of `backend`, none of which has an address yet.
    pub fn new(backend: Arc<Backend>, transport: Transport, buffers: Rc<BufferPool>) -> Self {
        let balance = Balance::new(limits::SERVER_COOL_DOWN);
        Servers {
            backend,
            transport,
            balance: Rc::new(RefCell::new(balance)),
            buffers,
            careless: Rc::default(),
        }
    }

    /// These servers by another configuration, with what is known of them from `before`.
    pub fn after(self, before: &Servers) -> Self {
        Servers {
            balance: Rc::clone(&before.balance),
            careless: Rc::clone(&before.careless),
            ..self
        }
    }

    /// Remembers that a connection to `server` was ended before a byte came from it. `None` where that means nothing:
    /// a plain TCP server may do so for the client's fault.
    pub fn ended_at_once(&self, server: SocketAddr) -> Option<EndedAtOnce> {
        match self.transport {
            Transport::Plain => None,
            Transport::Tls { .. } => {
                self.balance.borrow_mut().failed(server, Instant::now());
                Some(EndedAtOnce)
            }
        }
    }

    /// What speaks against a server that is connected, by what is believed at this moment.
    pub fn judge(&self, chain: &Chain) -> Option<ServerObjection> {
        match &self.transport {
            Transport::Plain => None,
            Transport::Tls { trust, .. } => trust.judge(chain, SystemTime::now()),
        }
    }

    /// Takes the servers to use from now on. Where none is known yet those before go on, as far as they can be trusted to be
    /// the backend's: by their certificate, or because they are on this host.
    pub fn replace(&self, servers: &[Server]) {
        let mut balance = self.balance.borrow_mut();
        match (servers, &self.transport) {
            ([], Transport::Plain) => {
                balance.retain(|address| address.ip().to_canonical().is_loopback());
            }
            ([], Transport::Tls { .. }) => {}
            (servers, _) => balance.replace(servers),
        }
    }

    /// Connects to the first server in turn that can be reached; tells `failed` of each that could not.
    pub async fn connect(
        &self,
        client: &Client<'_>,
        mut failed: impl FnMut(SocketAddr, &HandshakeError),
    ) -> Result<Connection, Unreachable> {
        let candidates = self.balance.borrow_mut().candidates(Instant::now());
        let known = candidates.len();
        for address in candidates {
            let attempt = self.attempt(address, client);
            let outcome = monoio::time::timeout(self.backend.connect_timeout, attempt).await;
            match outcome.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
                Ok((stream, chain)) => {
                    self.balance.borrow_mut().succeeded(address);
                    return Ok(Connection {
                        stream,
                        server: address,
                        chain,
                    });
                }
                Err(error) => {
                    if !is_ours(&error) {
                        self.balance.borrow_mut().failed(address, Instant::now());
                    }
                    failed(address, &error);
                }
            }
        }
        Err(Unreachable { known })
    }

    async fn attempt(
        &self,
        address: SocketAddr,
        client: &Client<'_>,
    ) -> Result<(Stream, Option<Chain>), HandshakeError> {
        let socket = Socket::connect(address).await?;
        if self.backend.proxy_protocol == ProxyProtocol::Outside {
            proxy_protocol::send_outside(&socket, client).await?;
        }
        let buffers = Rc::clone(&self.buffers);
        match &self.transport {
            Transport::Plain => Ok((Stream::Plain(PlainStream::new(socket, buffers)), None)),
            Transport::Tls {
                configs,
                server_name,
                ..
            } => {
                let config = configs.for_protocol(client.protocol);
                let connecting = tls::connect(socket, config, server_name.clone(), buffers);
                let Connected {
                    stream,
                    chain,
                    asked_who_we_are,
                } = connecting.await?;
                if !asked_who_we_are && self.careless.borrow_mut().insert(address) {
                    let backend = self.backend.name.as_str();
                    tracing::warn!(backend, server = %address, "the server does not ask for our certificate: it takes telemetry from anybody who reaches it");
                }
                if self.backend.proxy_protocol == ProxyProtocol::Inside {
                    proxy_protocol::send_inside(&stream, &self.buffers, client).await?;
                }
                Ok((Stream::Tls(stream), chain))
            }
        }
    }
}

/// Whether this host is to blame, out of descriptors, memory or ports, and not the server.
fn is_ours(error: &HandshakeError) -> bool {
    const OURS: [Errno; 5] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    match error {
        HandshakeError::Io(error) => {
            Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno))
        }
        HandshakeError::Closed
        | HandshakeError::TooLarge(_)
        | HandshakeError::Certificate(_)
        | HandshakeError::Tls(_) => false,
    }
}
