//! Opens connections to one endpoint as one identity: TCP, then TLS 1.3 unless the run goes without.
//! In: a `Dialer` made by the `Target`. Out: a `Stream`, or the `Failure` that says why not. On the load's threads.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Stream, TicketStore};
use crate::failure::Failure;
use crate::sources::Sources;
use crate::tally::{ConnectionKind, SharedTally, record};

/// The way to one endpoint.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(super) address: SocketAddr,
    /// None is plain TCP.
    pub(super) tls: Option<Handshaker>,
    /// The identity after the rotation.
    pub(super) later: Option<Handshaker>,
    pub(super) sources: Option<Sources>,
    pub(super) next_source: u64,
    pub(crate) timeout: Duration,
    pub(super) may_end_abruptly: bool,
    /// Cipher suite and group of the target's first handshake.
    pub(super) negotiated: Arc<OnceLock<String>>,
    /// Takes the times of the phases of each connection.
    pub(super) tally: Option<SharedTally>,
}

/// TLS as one identity.
#[derive(Clone)]
pub(super) struct Handshaker {
    pub(super) connector: TlsConnector,
    pub(super) server_name: ServerName<'static>,
    /// None takes no tickets.
    pub(super) tickets: Option<Arc<TicketStore>>,
}

impl Dialer {
    /// Notes how long each phase of the connections takes.
    pub(crate) fn noting(mut self, tally: SharedTally) -> Self {
        self.tally = Some(tally);
        self
    }

    /// Connects with the next identity from now on, without the tickets of the one before.
    pub(crate) fn rotate(&mut self) {
        if let Some(later) = self.later.take() {
            self.tls = Some(later);
        }
    }

    /// Whether the next handshakes may use a ticket, if there is one.
    pub(crate) fn use_tickets(&self, is_wanted: bool) {
        if let Some(tickets) = self.tls.as_ref().and_then(|tls| tls.tickets.as_ref()) {
            tickets.shut(!is_wanted);
        }
    }

    /// Connects without any note of it in the tally.
    pub(crate) async fn connect_aside(&mut self) -> Result<Stream, Failure> {
        let tally = self.tally.take();
        let result = self.connect().await;
        self.tally = tally;
        result
    }

    /// TCP and TLS, up to our own Finished. Whether the server accepts us shows only later.
    pub(crate) async fn connect(&mut self) -> Result<Stream, Failure> {
        let limit = self.timeout;
        timeout(limit, self.connect_unbounded())
            .await
            .unwrap_or_else(|_| Err(Failure::timeout("connecting")))
    }

    async fn connect_unbounded(&mut self) -> Result<Stream, Failure> {
        let began = Instant::now();
        let tcp = self.tcp().await.map_err(|error| Failure::connect(&error))?;
        tcp.set_nodelay(true)?;
        let connected = Instant::now();
        let mut stream = match &self.tls {
            None => Stream::plaintext(tcp),
            Some(tls) => {
                let stream = tls.connector.connect(tls.server_name.clone(), tcp).await?;
                self.negotiated
                    .get_or_init(|| negotiated(stream.get_ref().1));
                Stream::tls(stream, self.may_end_abruptly)
            }
        };
        if let Some(tally) = &self.tally {
            let kind = stream.kind();
            let mut noted = tally.lock().expect("no change to a tally panics");
            let phases = noted.phases(kind);
            record(&mut phases.connect, connected - began);
            if kind != ConnectionKind::Plaintext {
                record(&mut phases.handshake, connected.elapsed());
            }
            drop(noted);
            stream.note_first_byte(tally.clone());
        }
        Ok(stream)
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

/// Cipher suite and key exchange group of a handshake, by their IANA names.
fn negotiated(connection: &rustls::ClientConnection) -> String {
    let suite = connection
        .negotiated_cipher_suite()
        .map(|suite| super::suite_name(suite.suite()));
    let group = connection
        .negotiated_key_exchange_group()
        .map(|group| format!("{:?}", group.name()));
    [suite, group]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}
