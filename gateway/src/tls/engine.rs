//! Drives rustls' state machine without I/O.
//! In: received bytes. Out: plaintext, bytes to send, and whether the handshake is done. One engine per connection,
//! server or client; it holds keys and no buffers.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use crate::limits;
use crate::rt::Buffer;

/// A rustls connection of either role.
pub(super) enum Engine {
    /// We are the server; the peer is a client of ours.
    Server(Box<UnbufferedServerConnection>),
    /// We are the client; the peer is a backend.
    Client(Box<UnbufferedClientConnection>),
}

/// Where the engine puts what it finds.
pub(super) struct Output<'a> {
    /// Decrypted application data.
    pub(super) plaintext: &'a mut Buffer,
    /// Handshake records and alerts to send.
    pub(super) outgoing: &'a mut Buffer,
    /// Set when the peer sent close_notify.
    pub(super) peer_closed: &'a mut bool,
}

/// How far the engine got with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The handshake needs more bytes from the peer.
    Handshaking,
    /// Application data may flow; everything received has been processed.
    Established,
}

/// What to do once everything received has been processed and we may send.
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    CloseNotify,
}

impl Engine {
    /// Processes `incoming` as far as it goes and drops what was processed from it. After an error, `alert` has
    /// what to tell the peer, and nothing else may be called.
    pub(super) fn advance(
        &mut self,
        incoming: &mut Buffer,
        output: &mut Output<'_>,
    ) -> Result<Progress, Error> {
        self.run(incoming, output, Then::Nothing)
    }

    /// Seals `plaintext` into records behind whatever `output.outgoing` holds. `unprocessed` is what has been
    /// received and is not a whole record yet.
    pub(super) fn seal(
        &mut self,
        plaintext: &[u8],
        unprocessed: &mut Buffer,
        output: &mut Output<'_>,
    ) -> Result<Progress, Error> {
        self.run(unprocessed, output, Then::Encrypt(plaintext))
    }

    /// Puts a close_notify alert behind whatever `output.outgoing` holds.
    pub(super) fn close_notify(
        &mut self,
        unprocessed: &mut Buffer,
        output: &mut Output<'_>,
    ) -> Result<Progress, Error> {
        self.run(unprocessed, output, Then::CloseNotify)
    }

    /// Takes what rustls still wants to send after an error: the alert, and records that were queued before it.
    ///
    /// Only as long as something is queued: rustls hands that out before it looks at received bytes, and looking at
    /// those again after an error fails an assertion inside it.
    pub(super) fn alert(&mut self, outgoing: &mut Buffer) {
        while self.common().wants_write() {
            let handed_out = match self {
                Engine::Server(connection) => {
                    encode_queued(connection.process_tls_records(&mut []), outgoing)
                }
                Engine::Client(connection) => {
                    encode_queued(connection.process_tls_records(&mut []), outgoing)
                }
            };
            if !handed_out {
                return;
            }
        }
    }

    /// State both roles share: negotiated parameters, peer certificates.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Engine::Server(connection) => connection,
            Engine::Client(connection) => connection,
        }
    }

    fn run(
        &mut self,
        incoming: &mut Buffer,
        output: &mut Output<'_>,
        then: Then<'_>,
    ) -> Result<Progress, Error> {
        loop {
            let bytes = incoming.filled_mut();
            let (discard, step) = match self {
                Engine::Server(connection) => absorb::<ServerConnectionData>(
                    connection.process_tls_records(bytes),
                    output,
                    &then,
                ),
                Engine::Client(connection) => absorb::<ClientConnectionData>(
                    connection.process_tls_records(bytes),
                    output,
                    &then,
                ),
            };
            incoming.consume(discard);
            if let Some(progress) = step? {
                return Ok(progress);
            }
        }
    }
}

/// Handles one state. Returns how many received bytes are done with, and the progress once nothing is left to do.
fn absorb<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    output: &mut Output<'_>,
    then: &Then<'_>,
) -> (usize, Result<Option<Progress>, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut step = Ok(None);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        output.plaintext.append(record.payload);
                    }
                    Err(error) => step = Err(error),
                }
            }
            step
        }
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output.outgoing).map(|()| None),
        // What was encoded is in `outgoing`, which every caller sends before it waits for anything.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(None)
        }
        Ok(ConnectionState::PeerClosed) => {
            *output.peer_closed = true;
            Ok(None)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => {
            send(traffic, then, output.outgoing).map(|()| Some(Progress::Established))
        }
        Ok(ConnectionState::Closed) => Ok(Some(Progress::Established)),
        Ok(ConnectionState::BlockedHandshake) => Ok(Some(Progress::Handshaking)),
        Ok(_) => Err(Error::General(
            "early data on a connection that does not offer it".to_owned(),
        )),
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

fn send<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    then: &Then<'_>,
    outgoing: &mut Buffer,
) -> Result<(), Error> {
    loop {
        let sealed = match then {
            Then::Nothing => return Ok(()),
            Then::Encrypt(plaintext) => {
                outgoing.reserve(sealed_bytes_max(plaintext.len()));
                traffic.encrypt(plaintext, outgoing.spare_mut())
            }
            Then::CloseNotify => traffic.queue_close_notify(outgoing.spare_mut()),
        };
        match sealed {
            Ok(written) => {
                outgoing.advance(written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(needed)) => outgoing.reserve(needed.required_size),
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}

/// Room for the records of `plaintext_bytes` and for a KeyUpdate that may go before them.
fn sealed_bytes_max(plaintext_bytes: usize) -> usize {
    let records = plaintext_bytes.div_ceil(limits::RECORD_PLAINTEXT_BYTES_MAX) + 1;
    plaintext_bytes + records * (limits::RECORD_BYTES_MAX - limits::RECORD_PLAINTEXT_BYTES_MAX)
}
