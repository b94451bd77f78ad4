//! Runs a handshake over a socket, as server or as client.
//! In: a fresh socket. Out: a `TlsStream`, with the client's proven identity; or a refusal with its reason and the
//! alert that says so. As server it has a time limit; as client the caller sets one. Releases its small buffers at the end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::alert::Alert;
use gateway_core::certificate::Chain;
use gateway_core::client_hello::prefers_chacha20;
use gateway_core::failure::Failure;
use gateway_core::handshake_record::RecordFault;
use gateway_core::limits;
use gateway_core::lineage::TicketRefusal;
use gateway_core::protocol_detection::{DetectedProtocol, detect_protocol};
use gateway_rt::{Buffer, BufferPool, Socket};
use gateway_x509::client_certificate::ParsedCertificate;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, Error, ServerConfig};

use super::alert;
use super::chain_cache;
use super::config::ServerConfigs;
use super::engine::{Broken, Engine, HandshakeProgress};
use super::failure::{alert_of, classify, describe, describe_server};
use super::handshake_context::{self, HandshakeContext};
use super::negotiated::Negotiated;
use super::peer::VerifiedPeer;
use super::secrets::DataSecrets;
use super::session::Session;
use super::stream::{TlsStream, linger};

/// A client that is in.
pub struct Accepted {
    /// The stream to read and write.
    pub stream: TlsStream,
    /// The client's proven identity.
    pub peer: VerifiedPeer,
    /// What was agreed on.
    pub negotiated: Negotiated,
    /// Its certificates, its own first; of a client that resumed, those of its full handshake.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Why a client is not in, and the records that tell it so.
#[derive(Debug)]
pub struct Refusal {
    /// The reason.
    pub failure: Failure,
    /// The reason in words, for the log.
    pub detail: String,
    /// The certificate that was presented, where it could be read. Nothing about it is proven.
    pub presented: Option<Box<ParsedCertificate>>,
    /// The server name that was asked for.
    pub server_name: Option<String>,
    /// Why the client's ticket was refused before, if it came with one.
    pub ticket_refusal: Option<TicketRefusal>,
    /// Bytes of the client's that were read.
    pub received_bytes: usize,
    alert: Buffer,
}

/// Why a backend could not be connected over TLS.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The backend closed the connection in the handshake.
    #[error("closed during the TLS handshake")]
    Closed,
    /// The backend's handshake has become too long or came in too many pieces.
    #[error("TLS: {0}")]
    TooLarge(String),
    /// The backend sent a record that RFC 8446 does not allow.
    #[error("TLS: {0}")]
    Record(#[from] RecordFault),
    /// The backend's certificate was refused, for this reason.
    #[error("the server's certificate is refused: {0}")]
    Certificate(String),
    /// The backend's protocol was refused, or it refused us.
    #[error("TLS: {}", describe_server(.0))]
    Tls(#[from] Error),
}

/// A handshake in progress.
struct Handshake {
    engine: Engine,
    incoming: Buffer,
    outgoing: Buffer,
    received_bytes: usize,
    reads: usize,
    /// What the callbacks found so far.
    context: HandshakeContext,
    /// Something has been sent: from our first flight on, records are encrypted.
    has_answered: bool,
}

impl Handshake {
    fn new(engine: Engine) -> Self {
        Handshake {
            engine,
            incoming: Buffer::with_capacity(0),
            outgoing: Buffer::with_capacity(0),
            received_bytes: 0,
            reads: 0,
            context: HandshakeContext::default(),
            has_answered: false,
        }
    }

    fn advance(&mut self) -> Result<HandshakeProgress, Broken> {
        let (engine, incoming) = (&mut self.engine, &mut self.incoming);
        let outgoing = &mut self.outgoing;
        handshake_context::with_context(&mut self.context, || engine.advance(incoming, outgoing))
    }

    /// Reads once; 0 is the end of the stream.
    async fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        // A client's first bytes are there already, as a rule: it sends them as soon as it is connected.
        let is_first = self.reads == 0;
        let arrived = match is_first {
            true => self.read_now(socket)?,
            false => None,
        };
        let count = match arrived {
            Some(count) => count,
            None => {
                if self.incoming.is_empty() {
                    // A silent peer costs no buffer.
                    self.incoming = Buffer::with_capacity(0);
                }
                socket.readable().await?;
                self.incoming.reserve(limits::HANDSHAKE_READ_BYTES);
                socket.read(&mut self.incoming).await?
            }
        };
        self.reads += 1;
        self.received_bytes += count;
        Ok(count)
    }

    fn read_now(&mut self, socket: &Socket) -> io::Result<Option<usize>> {
        self.incoming.reserve(limits::HANDSHAKE_READ_BYTES);
        socket.read_now(&mut self.incoming)
    }

    async fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        self.has_answered |= !self.outgoing.is_empty();
        socket.write_all(&mut self.outgoing).await
    }

    /// Sends what is left when the client's Finished is verified: tickets, which it needs for its next connection. At once, and
    /// without any an acknowledgement alone: a client with Nagle's algorithm on (RFC 9293 section 3.7.4) keeps its first data
    /// back until its Finished is acknowledged, which the kernel would put off for 40 ms.
    async fn send_tickets(&mut self, socket: &Socket) {
        if self.outgoing.is_empty() {
            socket.acknowledge();
        }
        let _ = socket.write_all(&mut self.outgoing).await;
    }

    /// Refuses a handshake that has become too long or came in too many pieces.
    fn within_limits(&self) -> Result<(), String> {
        if self.received_bytes > limits::HANDSHAKE_BYTES_MAX {
            Err(format!(
                "more than {} bytes of handshake",
                limits::HANDSHAKE_BYTES_MAX
            ))
        } else if self.reads >= limits::HANDSHAKE_READS_MAX {
            Err(format!(
                "a handshake in more than {} pieces",
                limits::HANDSHAKE_READS_MAX
            ))
        } else {
            Ok(())
        }
    }

    /// The refusal of a client that is gone, with what had happened by then and what that usually means.
    fn left(&self, how: &str) -> Refusal {
        let meaning = match (self.received_bytes, self.has_answered) {
            (0, _) => "the client had sent no byte: usually a health check or a port scan",
            (_, false) => "the gateway had not sent its certificate yet",
            (_, true) => {
                "the gateway had sent its certificate: clients that do not trust it and do not say so (Node, \
                 browsers) leave like this"
            }
        };
        let bytes = self.received_bytes;
        let detail = format!("{how} after {bytes} bytes of handshake; {meaning}");
        Refusal::without_alert(Failure::Reset, detail)
    }

    /// Puts an alert of ours behind what is still to be sent.
    fn append_alert(&mut self, alert: Alert) {
        let suite = self.engine.common().negotiated_cipher_suite();
        let record = alert::record(alert, self.context.secrets.of_alert(), suite);
        self.outgoing.append(record.filled());
    }

    /// Puts the alert for rustls' `error` behind what is still to be sent: the one that the standard wants, else rustls' own.
    fn append_alert_for(&mut self, error: &Error, failure: Failure) {
        let mut own = Buffer::with_capacity(0);
        self.engine.alert(&mut own);
        match alert_of(error).or(failure.alert().filter(|_| own.is_empty())) {
            // What rustls would have said is forgotten: it is under the same number of the same key.
            Some(alert) => self.append_alert(alert),
            None => self.outgoing.append(own.filled()),
        }
    }

    /// Ends the handshake with an alert, if there is one for this.
    fn refusal(&mut self, failure: Failure, alert: Option<Alert>, detail: String) -> Refusal {
        alert.into_iter().for_each(|alert| self.append_alert(alert));
        self.refusal_as_told(failure, detail)
    }

    /// Ends the handshake with what is still to be sent, alerts included.
    fn refusal_as_told(&mut self, failure: Failure, detail: String) -> Refusal {
        let alert = std::mem::replace(&mut self.outgoing, Buffer::with_capacity(0));
        Refusal {
            alert,
            ..Refusal::without_alert(failure, detail)
        }
    }

    /// What the next keys are derived from, once the handshake is done.
    fn take_secrets(&mut self) -> Option<DataSecrets> {
        let suite = self.engine.common().negotiated_cipher_suite()?;
        DataSecrets::take(suite, &mut self.context)
    }

    /// Hands over to the record layer, with what came behind the handshake.
    fn into_session(self, secrets: Option<DataSecrets>) -> Result<Session, Error> {
        let secrets = secrets.ok_or_else(|| Error::General("a secret is missing".to_owned()))?;
        self.engine.into_session(secrets, &self.incoming)
    }
}

/// Admits a client within `timeout`, or refuses it. A refusal returns the socket, so that the caller can tell the client.
pub async fn accept(
    socket: Socket,
    configs: &ServerConfigs,
    pool: Rc<BufferPool>,
    timeout: Duration,
) -> Result<Accepted, (Socket, Refusal)> {
    let engine = match server(configs.own_order()) {
        Ok(engine) => engine,
        Err(refusal) => return Err((socket, refusal)),
    };
    let mut handshake = Handshake::new(engine);
    let establishing = establish(&mut handshake, configs, &socket);
    let established = monoio::time::timeout(timeout, establishing).await;
    let in_time = established.unwrap_or_else(|_| {
        let detail = "the handshake was not complete in time".to_owned();
        Err(Refusal::without_alert(Failure::Timeout, detail))
    });
    match in_time {
        Ok(peer) => {
            let secrets = handshake.take_secrets();
            let context = std::mem::take(&mut handshake.context);
            let negotiated = Negotiated::of(&handshake.engine, context);
            let certificates = handshake.engine.common().peer_certificates();
            let certificates = certificates.unwrap_or_default().to_vec();
            match handshake.into_session(secrets) {
                Ok(session) => Ok(Accepted {
                    stream: TlsStream::new(socket, pool, session),
                    peer,
                    negotiated,
                    certificates,
                }),
                Err(error) => {
                    let detail = error.to_string();
                    Err((socket, Refusal::without_alert(Failure::Internal, detail)))
                }
            }
        }
        Err(refusal) => {
            let HandshakeContext {
                server_name,
                presented,
                ticket_refusal,
                ..
            } = handshake.context;
            let refusal = Refusal {
                server_name,
                presented,
                ticket_refusal,
                received_bytes: handshake.received_bytes,
                ..refusal
            };
            Err((socket, refusal))
        }
    }
}

/// The server's side of a handshake that begins.
fn server(config: &Arc<ServerConfig>) -> Result<Engine, Refusal> {
    UnbufferedServerConnection::new(Arc::clone(config))
        .map(Engine::server)
        .map_err(|error| Refusal::without_alert(Failure::Internal, error.to_string()))
}

/// Runs the server's side until the client's Finished has been verified.
async fn establish(
    handshake: &mut Handshake,
    configs: &ServerConfigs,
    socket: &Socket,
) -> Result<VerifiedPeer, Refusal> {
    loop {
        let progress = handshake.advance();
        let progress = progress.map_err(|error| refuse_for(handshake, &error))?;
        // An authenticated client that leaves before its tickets arrive is no failure: the relay ends the connection.
        if progress == HandshakeProgress::Established {
            handshake.send_tickets(socket).await;
            let unverified = || {
                let detail = "the verifier verified no client".to_owned();
                Refusal::without_alert(Failure::Internal, detail)
            };
            let claimed = handshake.context.claimed.take();
            let verified = claimed
                .and_then(|claimed| VerifiedPeer::after_finished(claimed, &handshake.engine))
                .ok_or_else(unverified)?;
            if let Some(new_chain) = handshake.context.new_chain.take() {
                chain_cache::keep(*new_chain);
            }
            return Ok(verified);
        }
        let flushed = handshake.flush(socket).await;
        flushed.map_err(|error| Refusal::reset(&error))?;
        if let Err(detail) = handshake.within_limits() {
            let failure = Failure::Malformed;
            return Err(handshake.refusal(failure, failure.alert(), detail));
        }
        let first = handshake.received_bytes == 0;
        let received = handshake
            .receive(socket)
            .await
            .map_err(|error| handshake.left(&error.to_string()))?;
        if received == 0 {
            return Err(handshake.left("closed"));
        }
        if first {
            look_at_first_bytes(handshake, configs)?;
        }
    }
}

/// Refuses what is not TLS, and takes the client's order of cipher suites where that counts.
fn look_at_first_bytes(handshake: &mut Handshake, configs: &ServerConfigs) -> Result<(), Refusal> {
    let bytes = handshake.incoming.filled();
    match detect_protocol(bytes) {
        DetectedProtocol::Tls if prefers_chacha20(bytes) => {
            // The engine has been shown nothing yet.
            handshake.engine = server(configs.clients_order())?;
            Ok(())
        }
        DetectedProtocol::Tls => Ok(()),
        other @ (DetectedProtocol::Http1 | DetectedProtocol::Http2 | DetectedProtocol::NotTls) => {
            Err(not_tls(handshake, other))
        }
    }
}

/// The refusal for `broken`, with the alert to send.
fn refuse_for(handshake: &mut Handshake, broken: &Broken) -> Refusal {
    let error = match broken {
        Broken::Record(fault) => {
            return handshake.refusal(fault.failure(), Some(fault.alert()), fault.to_string());
        }
        Broken::Tls(error) => error,
    };
    let named = handshake.context.refusal.take();
    let is_too_old =
        matches!(error, Error::PeerIncompatible(_)) && handshake.engine.is_hello_before_tls_1_2();
    if named.is_none() && is_too_old {
        // rustls misses an extension before it looks at the version.
        let failure = Failure::Version;
        let detail = "the client offers TLS 1.1 at most".to_owned();
        return handshake.refusal(failure, failure.alert(), detail);
    }
    let (failure, detail) = named.unwrap_or_else(|| (classify(error), describe(error)));
    if matches!(failure, Failure::Sni | Failure::Alpn) {
        // rustls would say access_denied; RFC 6066 section 3 wants unrecognized_name, RFC 7301 section 3.2
        // no_application_protocol.
        return handshake.refusal(failure, failure.alert(), detail);
    }
    handshake.append_alert_for(error, failure);
    handshake.refusal_as_told(failure, detail)
}

/// The refusal of another protocol than TLS, in that protocol where agents speak it.
fn not_tls(handshake: &mut Handshake, bytes: DetectedProtocol) -> Refusal {
    let (failure, detail) = (Failure::NotTls, bytes.describe().to_owned());
    match bytes.answer() {
        Some(answer) => Refusal {
            alert: Buffer::of(answer),
            ..Refusal::without_alert(failure, detail)
        },
        None => handshake.refusal(failure, failure.alert(), detail),
    }
}

impl Refusal {
    /// A refusal of which the client learns nothing but the end of the connection.
    pub fn without_alert(failure: Failure, detail: String) -> Self {
        Refusal {
            failure,
            detail,
            presented: None,
            server_name: None,
            ticket_refusal: None,
            received_bytes: 0,
            alert: Buffer::with_capacity(0),
        }
    }

    /// What the client is told. Releases the names and texts, as many as the client chose to send: they do not stay in memory
    /// until the client reads.
    pub fn into_alert(self) -> Buffer {
        self.alert
    }

    fn reset(error: &io::Error) -> Self {
        Refusal::without_alert(Failure::Reset, error.to_string())
    }
}

/// Tells a client that it is refused: sends the alert of its refusal and gives the client a moment to read it, because closing
/// a socket on which unread bytes wait would throw the alert away.
pub async fn refuse(socket: Socket, mut alert: Buffer) {
    if alert.is_empty() {
        socket.reset_on_close();
        return;
    }
    let telling = async {
        socket.write_ahead(&mut alert).await?;
        linger(&socket, limits::LINGER_BYTES_MAX).await
    };
    // Whether the client listened changes nothing.
    let _ = monoio::time::timeout(limits::LINGER_TIMEOUT, telling).await;
}

/// A backend that is connected over TLS.
pub struct ConnectedBackend {
    /// The stream to read and write.
    pub stream: TlsStream,
    /// The server's verified chain.
    pub chain: Option<Chain>,
    /// Whether the backend asked for our certificate. If not, it takes telemetry from any client.
    pub certificate_requested: bool,
    /// The application protocol that it chose.
    pub protocol: Option<Vec<u8>>,
}

/// Connects over TLS to a backend whose TCP connection stands.
pub async fn connect(
    socket: Socket,
    config: &Arc<ClientConfig>,
    server_name: ServerName<'static>,
    pool: Rc<BufferPool>,
) -> Result<ConnectedBackend, HandshakeError> {
    let connection = UnbufferedClientConnection::new(Arc::clone(config), server_name)?;
    let mut handshake = Handshake::new(Engine::client(connection));
    loop {
        let progress = handshake.advance();
        match &progress {
            Ok(_) => {}
            Err(Broken::Record(fault)) => handshake.append_alert(fault.alert()),
            Err(Broken::Tls(error)) => handshake.append_alert_for(error, classify(error)),
        }
        handshake.flush(&socket).await?;
        let progress =
            progress.map_err(
                |broken| match (broken, handshake.context.server_refusal.take()) {
                    (_, Some(reason)) => HandshakeError::Certificate(reason),
                    (Broken::Record(fault), None) => HandshakeError::Record(fault),
                    (Broken::Tls(error), None) => HandshakeError::Tls(error),
                },
            )?;
        match progress {
            HandshakeProgress::Established => {
                let certificate_requested = handshake.context.certificate_requested;
                let chain = handshake.context.server_chain.take();
                let protocol = handshake.engine.common().alpn_protocol();
                let protocol = protocol.map(<[u8]>::to_vec);
                let secrets = handshake.take_secrets();
                let session = handshake.into_session(secrets)?;
                return Ok(ConnectedBackend {
                    stream: TlsStream::new(socket, pool, session),
                    chain,
                    certificate_requested,
                    protocol,
                });
            }
            HandshakeProgress::Handshaking => {
                if let Err(detail) = handshake.within_limits() {
                    let alert = Failure::Malformed.alert();
                    alert
                        .into_iter()
                        .for_each(|alert| handshake.append_alert(alert));
                    handshake.flush(&socket).await?;
                    return Err(HandshakeError::TooLarge(detail));
                }
                if handshake.receive(&socket).await? == 0 {
                    return Err(HandshakeError::Closed);
                }
            }
        }
    }
}
