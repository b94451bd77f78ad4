//! Drives rustls' state machine through a handshake, without I/O.
//! In: received bytes. Out: bytes to send, and whether the handshake is done. rustls gets one record at a time, so that it
//! takes nothing of what follows the handshake: that is for the record layer, which `into_session` hands over to. It gets
//! no record that RFC 8446 forbids and rustls would take.

use gateway_core::handshake_record::{HandshakeScreen, RecordFault};
use gateway_core::record::{HEADER_BYTES, Peer};
use gateway_rt::Buffer;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets};

use super::handshake_context;
use super::secrets::DataSecrets;
use super::session::Session;

/// A rustls connection of either role, in its handshake.
pub(super) struct Engine {
    connection: RustlsConnection,
    /// Bytes of the incoming ones that rustls has been shown.
    shown: usize,
    /// Of them, those that are whole records.
    whole: usize,
    /// What each record passes before rustls is shown it.
    screen: HandshakeScreen,
}

/// How the peer has ended a handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// By a record that rustls has not been shown.
    #[error("{0}")]
    Record(#[from] RecordFault),
    /// As rustls says.
    #[error("{0}")]
    Tls(#[from] Error),
}

enum RustlsConnection {
    /// We are the server; the peer is a client of ours.
    Server(Box<UnbufferedServerConnection>),
    /// We are the client; the peer is a backend.
    Client(Box<UnbufferedClientConnection>),
}

/// How far the engine got with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeProgress {
    /// The handshake needs more bytes from the peer.
    Handshaking,
    /// The handshake is done; what is left of the incoming bytes came behind it.
    Established,
}

impl Engine {
    /// The server's side of a handshake.
    pub(super) fn server(connection: UnbufferedServerConnection) -> Self {
        Engine::new(
            RustlsConnection::Server(Box::new(connection)),
            HandshakeScreen::of_client(),
        )
    }

    /// The client's side of a handshake.
    pub(super) fn client(connection: UnbufferedClientConnection) -> Self {
        Engine::new(
            RustlsConnection::Client(Box::new(connection)),
            HandshakeScreen::of_server(),
        )
    }

    fn new(connection: RustlsConnection, screen: HandshakeScreen) -> Self {
        Engine {
            connection,
            shown: 0,
            whole: 0,
            screen,
        }
    }

    /// Processes `incoming` as far as the handshake goes and drops what was processed from it. Puts what is to be sent behind
    /// whatever `outgoing` holds. After an error, `alert` has what to tell the peer, and nothing else may be called.
    pub(super) fn advance(
        &mut self,
        incoming: &mut Buffer,
        outgoing: &mut Buffer,
    ) -> Result<HandshakeProgress, Broken> {
        loop {
            let bytes = &mut incoming.filled_mut()[..self.shown];
            let (discard, step) = match &mut self.connection {
                RustlsConnection::Server(connection) => {
                    absorb::<ServerConnectionData>(connection.process_tls_records(bytes), outgoing)
                }
                RustlsConnection::Client(connection) => {
                    absorb::<ClientConnectionData>(connection.process_tls_records(bytes), outgoing)
                }
            };
            incoming.consume(discard);
            self.shown -= discard;
            self.whole = self.whole.saturating_sub(discard);
            match step? {
                None => {}
                Some(HandshakeProgress::Handshaking) if self.shown < incoming.len() => {
                    self.show_more(incoming.filled())?;
                }
                Some(HandshakeProgress::Established) if self.whole > 0 => {
                    return Err(Error::General("a record was left unread".to_owned()).into());
                }
                Some(progress) => return Ok(progress),
            }
        }
    }

    /// Shows the next whole record, or the beginning of one, which rustls looks at but does not take.
    fn show_more(&mut self, incoming: &[u8]) -> Result<(), RecordFault> {
        let next = &incoming[self.whole..];
        let Some(header) = next.first_chunk::<HEADER_BYTES>() else {
            self.shown = incoming.len();
            return Ok(());
        };
        let protection = handshake_context::protection();
        self.screen.header(*header, protection)?;
        let [content_type, _, _, high, low] = *header;
        let record_bytes = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        match next.get(HEADER_BYTES..record_bytes) {
            Some(content) => {
                self.screen.content(content_type, content, protection)?;
                self.whole += record_bytes;
                self.shown = self.whole;
            }
            None => self.shown = incoming.len(),
        }
        Ok(())
    }

    /// Takes what rustls still wants to send after an error: the alert, and records that were queued before it.
    ///
    /// Only as long as something is queued: rustls hands that out before it looks at received bytes, and looking at
    /// those again after an error fails an assertion inside it.
    pub(super) fn alert(&mut self, outgoing: &mut Buffer) {
        while self.common().wants_write() {
            let handed_out = match &mut self.connection {
                RustlsConnection::Server(connection) => {
                    encode_queued(connection.process_tls_records(&mut []), outgoing)
                }
                RustlsConnection::Client(connection) => {
                    encode_queued(connection.process_tls_records(&mut []), outgoing)
                }
            };
            if !handed_out {
                return;
            }
        }
    }

    /// Whether the peer's hello is of a version before TLS 1.2.
    pub(super) fn is_hello_before_tls_1_2(&self) -> bool {
        self.screen.is_hello_before_tls_1_2()
    }

    /// State both roles share: negotiated parameters, peer certificates.
    pub(super) fn common(&self) -> &CommonState {
        match &self.connection {
            RustlsConnection::Server(connection) => connection,
            RustlsConnection::Client(connection) => connection,
        }
    }

    /// Hands over to the record layer, once the handshake is done. `received` is what came behind it.
    pub(super) fn into_session(
        self,
        secrets: DataSecrets,
        received: &Buffer,
    ) -> Result<Session, Error> {
        let (peer, keys) = self.into_keys()?;
        Session::new(peer, keys, secrets, received)
    }

    /// The peer's role, and the keys for data with the numbers of their next records.
    pub(super) fn into_keys(self) -> Result<(Peer, ExtractedSecrets), Error> {
        Ok(match self.connection {
            RustlsConnection::Server(connection) => {
                let (keys, _) = connection.dangerous_into_kernel_connection()?;
                (Peer::Client, keys)
            }
            RustlsConnection::Client(connection) => {
                let (keys, _) = connection.dangerous_into_kernel_connection()?;
                (Peer::Server, keys)
            }
        })
    }
}

/// Handles one state. Returns how many received bytes are done with, and the progress once nothing is left to do.
fn absorb<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Buffer,
) -> (usize, Result<Option<HandshakeProgress>, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing).map(|()| None),
        // What was encoded is in `outgoing`, which every caller sends before it waits for anything.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(None)
        }
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Some(HandshakeProgress::Established)),
        Ok(ConnectionState::BlockedHandshake) => Ok(Some(HandshakeProgress::Handshaking)),
        Ok(state) => Err(Error::General(format!("{state:?} during a handshake"))),
    };
    (discard, step)
}

/// Whether the state was a queued record, now in `outgoing`.
fn encode_queued<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Buffer) -> bool {
    match status.state {
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing).is_ok(),
        _ => false,
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Buffer) -> Result<(), Error> {
    loop {
        match data.encode(outgoing.spare_mut()) {
            Ok(written) => {
                outgoing.advance(written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => outgoing.reserve(needed.required_size),
            Err(EncodeError::AlreadyEncoded) => {
                return Err(Error::General(
                    "a handshake record was encoded twice".to_owned(),
                ));
            }
        }
    }
}
