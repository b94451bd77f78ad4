//! Opens connections to one endpoint as one identity: TCP, then TLS 1.3 unless the run is one without.
//! In: a `Dialer` made by the `Target`. Out: a `Stream`, or the `Failure` that says why not. On the load's threads.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Stream;
use crate::failure::Failure;
use crate::sources::Sources;

/// The way to one endpoint.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(super) address: SocketAddr,
    /// None is plain TCP.
    pub(super) tls: Option<Handshaker>,
    pub(super) sources: Option<Sources>,
    pub(super) next_source: u64,
    pub(crate) timeout: Duration,
}

/// TLS as one identity.
#[derive(Clone)]
pub(super) struct Handshaker {
    pub(super) connector: TlsConnector,
    pub(super) server_name: ServerName<'static>,
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
        let Some(tls) = &self.tls else {
            return Ok(Stream::plaintext(tcp));
        };
        let stream = tls.connector.connect(tls.server_name.clone(), tcp).await?;
        Ok(Stream::tls(stream))
    }

    async fn tcp(&mut self) -> io::Result<TcpStream> {
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
