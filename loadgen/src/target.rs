//! Whom the load talks to and as whom, and the way there: TCP, then TLS 1.3, then proof.
//! In: a `Target`. Out: TLS streams, or the `Failure` that says why not. On the load's threads.
//!
//! In TLS 1.3 a client has finished before the server has looked at its certificate, so a finished handshake proves
//! nothing. `confirm_by_close` and `confirm_by_ticket` wait for something a server sends only to an accepted peer.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::credentials::{Identity, provider};
use crate::failure::{Failure, FailureKind};
use crate::limits::SOURCES_DEFAULT;
use crate::sources::Sources;

/// A connection of the load.
pub(crate) type Stream = TlsStream<TcpStream>;

/// The server under load and everything needed to speak TLS to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT` as given, for reports and HTTP authorities.
    pub name: String,
    /// Where it was resolved to, once.
    pub address: SocketAddr,
    /// Client identities, used in turn by the connections; none means no client certificate at all.
    pub identities: Vec<Identity>,
    /// Application protocols to offer (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// Bound on each connection attempt, handshake, echo or export.
    pub timeout: Duration,
    /// Addresses to come from, in turn; none leaves the choice to the kernel. By default there are several for a target on
    /// 127.0.0.0/8, for enough ports.
    pub sources: Option<Sources>,
    server_name: ServerName<'static>,
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

/// Whether tickets are kept and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tickets {
    Ignored,
    Used,
}

impl Target {
    /// A target by `HOST:PORT`, verified against `roots`, by default under its own host name.
    pub fn new(name: &str, roots: RootCertStore) -> Result<Self> {
        let address = resolve(name)?;
        let server_name = parse_server_name(host(name))?;
        let provider = Arc::new(provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .context("no usable root certificate; give the server's CA with --ca")?;
        let target = Self {
            name: name.to_owned(),
            address,
            identities: Vec::new(),
            alpn: Vec::new(),
            timeout: Duration::from_secs(10),
            sources: None,
            server_name,
            provider,
            verifier,
        };
        Ok(target.with_loopback_sources(SOURCES_DEFAULT))
    }

    /// Contacts a target on 127.0.0.0/8 from so many addresses; any other one as before.
    pub fn with_loopback_sources(mut self, number: u8) -> Self {
        if let IpAddr::V4(address) = self.address.ip()
            && address.is_loopback()
        {
            self.sources = (number > 1).then(|| Sources::loopback(number));
        }
        self
    }

    /// Comes from these addresses, which must be this host's own and of the target's family.
    pub fn with_sources(mut self, sources: Sources) -> Result<Self> {
        sources.ensure_usable(self.address.ip())?;
        self.sources = Some(sources);
        Ok(self)
    }

    /// Presents these identities in turn.
    pub fn with_identities(mut self, identities: Vec<Identity>) -> Self {
        self.identities = identities;
        self
    }

    /// Offers these application protocols.
    pub fn with_alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// Expects this name in the server's certificate and sends it as SNI.
    pub fn with_server_name(mut self, name: &str) -> Result<Self> {
        self.server_name = parse_server_name(name)?;
        Ok(self)
    }

    /// Offers only these cipher suites, by their IANA names.
    pub fn with_cipher_suites(mut self, names: &[String]) -> Result<Self> {
        let mut narrowed = (*self.provider).clone();
        narrowed.cipher_suites = names
            .iter()
            .map(|name| {
                let known = &self.provider.cipher_suites;
                let found = known
                    .iter()
                    .find(|suite| suite_name(suite.suite()) == *name);
                found.copied().with_context(|| {
                    let known: Vec<_> = known
                        .iter()
                        .map(|suite| suite_name(suite.suite()))
                        .collect();
                    format!("cipher suite {name:?}: must be one of {}", known.join(", "))
                })
            })
            .collect::<Result<_>>()?;
        self.provider = Arc::new(narrowed);
        Ok(self)
    }

    /// Offers only these key exchange groups, by their IANA names.
    pub fn with_groups(mut self, names: &[String]) -> Result<Self> {
        let mut narrowed = (*self.provider).clone();
        narrowed.kx_groups = names
            .iter()
            .map(|name| {
                let known = &self.provider.kx_groups;
                let found = known
                    .iter()
                    .find(|group| format!("{:?}", group.name()).eq_ignore_ascii_case(name));
                found.copied().with_context(|| {
                    let known: Vec<_> = known
                        .iter()
                        .map(|group| format!("{:?}", group.name()))
                        .collect();
                    format!("group {name:?}: must be one of {}", known.join(", "))
                })
            })
            .collect::<Result<_>>()?;
        self.provider = Arc::new(narrowed);
        Ok(self)
    }

    /// The way to the target for connection `index`, with the identity whose turn it is. With `Tickets::Used` each
    /// dialer has a ticket store of its own.
    pub(crate) fn dialer(&self, index: usize, tickets: Tickets) -> Result<Dialer> {
        let identity = self.identity(index);
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3 with the chosen suites and groups")?
            .with_webpki_verifier(self.verifier.clone());
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(identity.resolver.clone()),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.resumption = match tickets {
            Tickets::Ignored => Resumption::disabled(),
            Tickets::Used => Resumption::in_memory_sessions(8),
        };
        Ok(Dialer {
            address: self.address,
            server_name: self.server_name.clone(),
            connector: TlsConnector::from(Arc::new(config)),
            sources: self.sources.clone(),
            next_source: index as u64,
            timeout: self.timeout,
        })
    }

    /// The identity of connection `index`.
    pub(crate) fn identity(&self, index: usize) -> Option<&Identity> {
        match self.identities.len() {
            0 => None,
            count => Some(&self.identities[index % count]),
        }
    }
}

/// Opens connections to one target as one identity.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: SocketAddr,
    server_name: ServerName<'static>,
    connector: TlsConnector,
    sources: Option<Sources>,
    next_source: u64,
    pub(crate) timeout: Duration,
}

impl Dialer {
    /// TCP and TLS, up to our own Finished. Whether the server accepts us shows only later.
    pub(crate) async fn connect(&mut self) -> Result<Stream, Failure> {
        let limit = self.timeout;
        timeout(limit, self.connect_unbounded())
            .await
            .unwrap_or_else(|_| Err(Failure::timeout("connecting")))
    }

    async fn connect_unbounded(&mut self) -> Result<Stream, Failure> {
        let tcp = self.tcp().await.map_err(|error| Failure::connect(&error))?;
        tcp.set_nodelay(true)?;
        Ok(self
            .connector
            .connect(self.server_name.clone(), tcp)
            .await?)
    }

    async fn tcp(&mut self) -> std::io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(sources) = &self.sources {
            let source = sources.at(self.next_source);
            self.next_source = self.next_source.wrapping_add(1);
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(self.address).await
    }
}

/// Says goodbye and requires the peer to do the same, cleanly. A server that refused our certificate sends an alert
/// instead, one that failed resets or just ends; only one that accepted us answers close_notify with close_notify.
pub(crate) async fn confirm_by_close(stream: &mut Stream, limit: Duration) -> Result<(), Failure> {
    let exchange = async {
        if let Err(error) = stream.shutdown().await {
            return Err(explain(stream, Failure::from(error)).await);
        }
        let mut scratch = [0; 4096];
        while stream.read(&mut scratch).await? > 0 {}
        Ok(())
    };
    timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(Failure::timeout("waiting for the peer's close_notify")))
}

/// Waits for a session ticket: RFC 8446 4.6.1 has a server that asks for a certificate send it after checking it.
pub(crate) async fn confirm_by_ticket(stream: &mut Stream, limit: Duration) -> Result<(), Failure> {
    let wait = poll_fn(|context| {
        let mut scratch = [0; 1024];
        loop {
            if stream.get_ref().1.tls13_tickets_received() > 0 {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(no_ticket("the connection ended without one")));
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::from(error))),
                Poll::Pending if stream.get_ref().1.tls13_tickets_received() > 0 => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    timeout(limit, wait)
        .await
        .unwrap_or_else(|_| Err(no_ticket("none came within the timeout")))
}

/// After a failed write the reason is often still unread: the alert that the server sent before it closed.
pub(crate) async fn explain(stream: &mut Stream, failure: Failure) -> Failure {
    if failure.is_explained() {
        return failure;
    }
    let mut scratch = [0; 4096];
    let read = async {
        loop {
            match stream.read(&mut scratch).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Failure::from(error)),
            }
        }
    };
    match timeout(Duration::from_millis(200), read).await {
        Ok(Some(better)) if better.is_explained() => better,
        _ => failure,
    }
}

fn no_ticket(detail: &str) -> Failure {
    Failure::new(FailureKind::NoTicket, detail)
}

/// The address behind `HOST:PORT`.
pub(crate) fn resolve(name: &str) -> Result<SocketAddr> {
    name.to_socket_addrs()
        .with_context(|| format!("target {name:?}: must be HOST:PORT that can be resolved"))?
        .next()
        .with_context(|| format!("target {name:?}: has no address"))
}

/// The host in `HOST:PORT`.
pub(crate) fn host(name: &str) -> &str {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

pub(crate) fn parse_server_name(name: &str) -> Result<ServerName<'static>> {
    if name.is_empty() {
        bail!("the server name is empty");
    }
    ServerName::try_from(name.to_owned())
        .with_context(|| format!("server name {name:?}: must be a DNS name or an IP address"))
}

/// IANA spells `TLS_AES_128_GCM_SHA256` what rustls spells with a version in it.
fn suite_name(suite: rustls::CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

/// Checks that the descriptor limit allows `connections` with `descriptors_each`, raising the soft limit as needed.
pub(crate) fn ensure_descriptors(connections: usize, descriptors_each: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = connections as u64 * descriptors_each + crate::limits::DESCRIPTORS_RESERVED;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "{connections} connections need {needed} file descriptors, and the limit is {}; see `ulimit -Hn`",
        limit.maximum.unwrap_or(u64::MAX)
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        },
    )
    .context("raising the limit of open files")
}
