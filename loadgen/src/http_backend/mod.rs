//! A server of HTTP/1.1 or HTTP/2 to stand behind the measured proxy: answers every request, and counts.
//! In: connections from the proxy, in clear or by TLS with client certificates. Out: answers as the path asks for them
//! (`behaviour`), `HttpBackendStats`. On one thread of its own, and cheap: hyper serves HTTP/1, the h2 crate HTTP/2.

mod behaviour;
mod counters;
mod h1;
mod h2;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::backend::listen;
use crate::background::Background;
use crate::credentials::{certificates, provider, roots};
use crate::limits::{CONTENT_WHOLE_MAX, LEAVING_MAX, READ_CONTENT_MAX};
use crate::pattern;
use crate::request::HttpVersion;
use counters::HttpCounters;

pub use counters::HttpBackendStats;

/// What to serve.
#[derive(Debug, Clone)]
pub struct HttpBackendOptions {
    /// The version; with HTTP/2 in clear, clients have to know it beforehand (RFC 9113 section 3.3).
    pub version: HttpVersion,
    /// TLS; none is plain TCP.
    pub identity: Option<ServerIdentity>,
    /// Read the content of requests and note which numbers have arrived.
    pub reads_content: bool,
    /// Most streams at once on a connection.
    pub streams_max: u32,
    /// Where the numbers that have arrived stay when the backend is killed; the next one begins with them.
    pub store: Option<PathBuf>,
}

/// A server's certificate, and the clients that it admits.
#[derive(Debug, Clone)]
pub struct ServerIdentity(Arc<ServerConfig>);

impl ServerIdentity {
    /// TLS 1.3 by AES-128-GCM with this certificate, for clients with one of these CAs.
    pub fn load(
        certificate: &Path,
        key: &Path,
        client_ca: &[PathBuf],
        version: HttpVersion,
    ) -> Result<Self> {
        let mut provider = provider();
        // One suite, which every client has (RFC 8446 section 9.1): servers in front of it all spend the same.
        let suite = CipherSuite::TLS13_AES_128_GCM_SHA256;
        provider
            .cipher_suites
            .retain(|known| known.suite() == suite);
        let provider = Arc::new(provider);
        let clients = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots(client_ca)?),
            provider.clone(),
        )
        .build()
        .context("no usable CA of clients; give one with --client-ca")?;
        let private_key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("{}: not a PEM private key", key.display()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates(certificate)?, private_key)
            .with_context(|| format!("{} with {}", certificate.display(), key.display()))?;
        config.alpn_protocols = vec![version.alpn().into()];
        Ok(Self(Arc::new(config)))
    }
}

/// A running backend; dropping it ends it with all its connections.
#[derive(Debug)]
pub struct HttpBackend {
    address: SocketAddr,
    stats_address: Option<SocketAddr>,
    counters: Arc<HttpCounters>,
    leave: watch::Sender<bool>,
    service: Background,
}

impl HttpBackend {
    /// Listens on `address` and serves until dropped. Answers `GET /stats` on the other address, if there is one.
    pub fn start(
        options: HttpBackendOptions,
        address: SocketAddr,
        stats: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let listener = listen(address)?;
        let stats_listener = stats.map(listen).transpose()?;
        let address = listener.local_addr()?;
        let stats_address = stats_listener
            .as_ref()
            .map(|listener| listener.local_addr())
            .transpose()?;
        let counters = Arc::new(HttpCounters::new(
            options.reads_content,
            options.store.as_deref(),
        )?);
        let (leave, leaving) = watch::channel(false);
        let service_counters = counters.clone();
        let service = Background::spawn("http-backend", move || async move {
            let listeners = (listener, stats_listener);
            if let Err(error) = serve(listeners, options, service_counters, leaving).await {
                eprintln!("backend: the listener cannot be watched: {error}");
            }
        })?;
        Ok(Self {
            address,
            stats_address,
            counters,
            leave,
            service,
        })
    }

    /// Leaves as servers do: takes no more connections, says so on those it has, and answers what has come. Waits for
    /// that, but not for ever.
    pub fn leave(&mut self) {
        self.leave.send_replace(true);
        self.service.wait(LEAVING_MAX);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it says what it has seen.
    pub fn stats_address(&self) -> Option<SocketAddr> {
        self.stats_address
    }

    /// What it has seen so far.
    pub fn stats(&self) -> HttpBackendStats {
        self.counters.stats()
    }
}

async fn serve(
    (listener, stats): (std::net::TcpListener, Option<std::net::TcpListener>),
    options: HttpBackendOptions,
    counters: Arc<HttpCounters>,
    mut leaving: Leaving,
) -> io::Result<()> {
    if let Some(stats) = stats {
        tokio::spawn(h1::serve_stats(
            TcpListener::from_std(stats)?,
            counters.clone(),
        ));
    }
    let listener = TcpListener::from_std(listener)?;
    let acceptor = options
        .identity
        .map(|identity| TlsAcceptor::from(identity.0));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            Some(_) = connections.join_next() => continue,
            _ = leaving.changed() => break,
        };
        let (acceptor, counters) = (acceptor.clone(), counters.clone());
        let (version, streams_max) = (options.version, options.streams_max);
        let leaving = leaving.clone();
        connections.spawn(async move {
            // What a connection brought up to its end is counted; its client knows better than we what it lost.
            let _ = match acceptor {
                None => speak(version, streams_max, (stream, leaving), counters).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => {
                        let connection = (Batched(stream), leaving);
                        speak(version, streams_max, connection, counters).await
                    }
                    Err(error) => {
                        counters.refused();
                        Err(error.into())
                    }
                },
            };
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The next connection; waits where there are no descriptors, which come back when connections end.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it a small answer waits for the acknowledgement of the one before.
                if stream.set_nodelay(true).is_ok() {
                    return stream;
                }
            }
            Err(error) => {
                eprintln!("backend: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn speak<S>(
    version: HttpVersion,
    streams_max: u32,
    (stream, leaving): (S, Leaving),
    counters: Arc<HttpCounters>,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = counters.connection();
    let stream = (stream, leaving);
    match version {
        HttpVersion::H2 => h2::serve(stream, streams_max, counters, connection).await,
        HttpVersion::H1 => h1::serve(stream, counters, connection).await,
    }
}

/// Hears that the backend leaves.
type Leaving = watch::Receiver<bool>;

/// The parts of a request that are counted.
struct Received<'a> {
    fields: &'a http::HeaderMap,
    content: &'a ReceivedContent,
}

/// The content of a request, as it comes.
#[derive(Default)]
struct ReceivedContent {
    /// As much of its beginning as is read.
    beginning: Vec<u8>,
    length: u64,
    /// What follows is not what the load generator sends in a long one.
    is_altered: bool,
}

impl ReceivedContent {
    /// Takes the next piece, and counts it.
    fn take(&mut self, piece: &[u8], counters: &HttpCounters) {
        let offset = self.length;
        self.length += piece.len() as u64;
        counters.content(piece.len());
        if !counters.reads_content() {
            return;
        }
        if self.beginning.len() < READ_CONTENT_MAX {
            self.beginning.extend_from_slice(piece);
        }
        let whole = CONTENT_WHOLE_MAX;
        let of_beginning = whole.saturating_sub(offset).min(piece.len() as u64);
        let (_, rest) = piece.split_at(of_beginning as usize);
        self.is_altered |= !pattern::matches(offset.max(whole) - whole, rest);
    }

    /// Waits once, where that was asked for and enough has come.
    async fn pause(&self, pause: &mut Duration) {
        if self.length >= BEFORE_PAUSE {
            tokio::time::sleep(std::mem::take(pause)).await;
        }
    }
}

/// Content that is taken before a pause.
const BEFORE_PAUSE: u64 = 1 << 20;

/// An empty message of gRPC: what collectors acknowledge an export with.
const EMPTY_MESSAGE: Bytes = Bytes::from_static(&[0; 5]);

/// A TLS stream that takes one piece at a time: HTTP/2 then fills its own buffer, and many small frames are one record.
struct Batched<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Batched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
