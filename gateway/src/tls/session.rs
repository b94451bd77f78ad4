//! An established TLS connection without its socket: records in, plaintext out, and the other way, in one buffer each.
//! In: received bytes; plaintext. Out: plaintext; records. Holds keys, what rustls keeps to derive the next ones, and the
//! beginning of a record; no buffer.

use gateway_core::failure::Alert;
use gateway_core::record::{
    Batch, HEADER_BYTES, KeyUpdateRequest, OpenError, Opener, Peer, SealError, Sealer, Stop,
    TrafficKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, ExtractedSecrets, SupportedCipherSuite};

use super::cipher::{Cipher, traffic_key};
use super::stream::StreamError;
use crate::limits;
use crate::rt::Buffer;

/// How the peer broke the protocol, or that it gave up.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// By a record.
    #[error("{0}")]
    Record(#[from] OpenError),
    /// By a ticket that is none.
    #[error("{0}")]
    Ticket(Error),
}

impl ProtocolError {
    fn alert(&self) -> Option<Alert> {
        const DECODE_ERROR: Alert = Alert(50);
        match self {
            ProtocolError::Record(error) => error.alert(),
            ProtocolError::Ticket(_) => Some(DECODE_ERROR),
        }
    }
}

/// What rustls keeps of a connection whose records are not its business.
pub(super) enum Kernel {
    /// Of a client of ours.
    Server(KernelConnection<ServerConnectionData>),
    /// To a backend.
    Client(KernelConnection<ClientConnectionData>),
}

impl Kernel {
    fn suite(&self) -> SupportedCipherSuite {
        match self {
            Kernel::Server(kernel) => kernel.negotiated_cipher_suite(),
            Kernel::Client(kernel) => kernel.negotiated_cipher_suite(),
        }
    }

    /// The peer's next key.
    fn next_received(&mut self) -> Result<TrafficKey<Cipher>, Error> {
        let secrets = match self {
            Kernel::Server(kernel) => kernel.update_rx_secret(),
            Kernel::Client(kernel) => kernel.update_rx_secret(),
        };
        traffic_key(self.suite(), secrets?)
    }

    /// Our next key.
    fn next_sent(&mut self) -> Result<TrafficKey<Cipher>, Error> {
        let secrets = match self {
            Kernel::Server(kernel) => kernel.update_tx_secret(),
            Kernel::Client(kernel) => kernel.update_tx_secret(),
        };
        traffic_key(self.suite(), secrets?)
    }

    fn take_ticket(&mut self, ticket: &[u8]) -> Result<(), ProtocolError> {
        match self {
            // The record layer takes none from a client.
            Kernel::Server(_) => Ok(()),
            Kernel::Client(kernel) => kernel
                .handle_new_session_ticket(ticket)
                .map_err(ProtocolError::Ticket),
        }
    }
}

/// Both directions of a connection.
pub(super) struct Session {
    kernel: Kernel,
    opener: Opener<Cipher>,
    sealer: Sealer<Cipher>,
    /// Received bytes that are not a whole record yet; at first, everything that came behind the handshake.
    partial: Box<[u8]>,
    is_unread: bool,
    peer_closed: bool,
    /// A KeyUpdate that has to go before our next data.
    owed_update: Option<KeyUpdateRequest>,
    /// What the peer has to be told about its error.
    owed_alert: Option<Alert>,
    /// Bytes until records become long.
    short_bytes_left: usize,
}

impl Session {
    /// Takes over from rustls. `received` is what came behind the handshake.
    pub(super) fn new(
        secrets: ExtractedSecrets,
        kernel: Kernel,
        received: &Buffer,
    ) -> Result<Self, Error> {
        let peer = match kernel {
            Kernel::Server(_) => Peer::Client,
            Kernel::Client(_) => Peer::Server,
        };
        let suite = kernel.suite();
        Ok(Session {
            opener: Opener::new(traffic_key(suite, secrets.rx)?, peer),
            sealer: Sealer::new(traffic_key(suite, secrets.tx)?),
            kernel,
            partial: received.filled().into(),
            is_unread: !received.is_empty(),
            peer_closed: false,
            owed_update: None,
            owed_alert: None,
            short_bytes_left: limits::SHORT_RECORDS_BYTES,
        })
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether bytes wait that came behind the handshake.
    pub(super) fn is_unread(&self) -> bool {
        self.is_unread
    }

    /// Puts what is kept of received bytes to the front of an empty `buffer`.
    pub(super) fn restore(&mut self, buffer: &mut Buffer) {
        buffer.append(&self.partial);
        self.partial = Box::default();
        self.is_unread = false;
    }

    /// Opens the whole records in `buffer`, which then holds their plaintext alone; keeps the rest.
    pub(super) fn open(&mut self, buffer: &mut Buffer) -> Result<(), StreamError> {
        let mut batch = Batch::new(buffer.filled_mut());
        let opened = self.open_batch(&mut batch);
        let (plaintext_bytes, taken) = (batch.opened(), batch.taken());
        if let Err(StreamError::Protocol(error)) = &opened {
            self.owed_alert = error.alert();
        }
        opened?;
        if self.opener.asks_for_update() {
            self.owed_update = Some(KeyUpdateRequest::Requested);
        }
        self.partial = buffer.filled()[taken..].into();
        buffer.truncate(plaintext_bytes);
        Ok(())
    }

    fn open_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), StreamError> {
        loop {
            match self.opener.open(batch).map_err(ProtocolError::Record)? {
                Stop::Incomplete => return Ok(()),
                Stop::Closed => {
                    self.peer_closed = true;
                    return Ok(());
                }
                Stop::Ticket(ticket) => self.kernel.take_ticket(&ticket)?,
                Stop::KeyUpdate(request) => {
                    self.opener.rekey(self.kernel.next_received()?);
                    if request == KeyUpdateRequest::Requested && self.owed_update.is_none() {
                        self.owed_update = Some(KeyUpdateRequest::NotRequested);
                    }
                }
            }
        }
    }

    /// Makes records of the plaintext in `buffer`, in place. Returns the record that has to be sent before them, if there is one.
    pub(super) fn seal(&mut self, buffer: &mut Buffer) -> Result<Option<Buffer>, StreamError> {
        let plaintext_bytes = buffer.len();
        let content_bytes_max = self.content_bytes_max(buffer);
        let records = plaintext_bytes.div_ceil(content_bytes_max) as u64;
        if self.sealer.needs_update_before(records) {
            self.owed_update = Some(KeyUpdateRequest::Requested);
        }
        let first = match self.owed_update.take() {
            Some(request) => Some(self.update_key(request)?),
            None => None,
        };
        let sealed_bytes = sealed_bytes(plaintext_bytes, content_bytes_max);
        buffer.reserve(sealed_bytes - plaintext_bytes);
        let (bytes, plaintext) = buffer.parts_mut();
        let records = self.sealer.seal(bytes, plaintext, content_bytes_max)?;
        buffer.refill(records);
        self.short_bytes_left = self.short_bytes_left.saturating_sub(plaintext_bytes);
        Ok(first)
    }

    /// The first bytes go out in short records, so that the peer can open them as they arrive, unless that would take
    /// another buffer.
    fn content_bytes_max(&self, buffer: &Buffer) -> usize {
        let sealed = sealed_bytes(buffer.len(), limits::SHORT_RECORD_CONTENT_BYTES);
        match self.short_bytes_left > 0 && sealed <= buffer.capacity() {
            true => limits::SHORT_RECORD_CONTENT_BYTES,
            false => limits::RECORD_PLAINTEXT_BYTES_MAX,
        }
    }

    /// A KeyUpdate; what is sealed behind it is under our next key.
    fn update_key(&mut self, request: KeyUpdateRequest) -> Result<Buffer, StreamError> {
        let record = self.sealer.key_update(request)?;
        self.sealer.rekey(self.kernel.next_sent()?);
        Ok(Buffer::of(&record))
    }

    /// The record of a close_notify.
    pub(super) fn close_notify(&mut self) -> Result<Buffer, SealError> {
        Ok(Buffer::of(&self.sealer.close_notify()?))
    }

    /// The record of the alert that the peer's error calls for, if it calls for one.
    pub(super) fn alert(&mut self) -> Result<Option<Buffer>, SealError> {
        let Some(alert) = self.owed_alert.take() else {
            return Ok(None);
        };
        Ok(Some(Buffer::of(&self.sealer.alert(alert)?)))
    }
}

const fn sealed_bytes(plaintext_bytes: usize, content_bytes_max: usize) -> usize {
    Sealer::<Cipher>::sealed_bytes(plaintext_bytes, content_bytes_max)
}

/// Room before plaintext for a record's header.
pub(super) const ROOM_BEFORE: usize = HEADER_BYTES;

/// Room behind plaintext that fills the rest of an I/O buffer, so that records can be made of it in place.
pub(super) const ROOM_BEHIND: usize = {
    let records = limits::IO_BUFFER_BYTES.div_ceil(limits::SHORT_RECORD_CONTENT_BYTES);
    sealed_bytes(1, 1) * records
};

const _: () = {
    let plaintext_bytes = limits::IO_BUFFER_BYTES - ROOM_BEFORE - ROOM_BEHIND;
    let sealed = sealed_bytes(plaintext_bytes, limits::SHORT_RECORD_CONTENT_BYTES);
    assert!(sealed <= limits::IO_BUFFER_BYTES);
};
