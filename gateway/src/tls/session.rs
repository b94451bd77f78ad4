//! An established TLS connection without its socket: records in, plaintext out, and the other way, in one buffer each.
//! In: received bytes; plaintext. Out: plaintext; records. Holds keys, the secrets that the next ones come from, and the
//! beginning of a record; no buffer.

use std::time::Instant;

use gateway_core::alert::Alert;
use gateway_core::limits;
use gateway_core::record::{
    Batch, HEADER_BYTES, KeyUpdateRequest, OpenError, Opener, Peer, SealError, Sealer, Stop,
    UpdateBudget, is_ticket,
};
use gateway_rt::Buffer;
use rustls::{Error, ExtractedSecrets};

use super::secrets::DataSecrets;
use super::stream::StreamError;
use crate::crypto::{Cipher, traffic_key};

/// Both directions of a connection.
pub(super) struct Session {
    secrets: DataSecrets,
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
    /// Changes of keys that the peer may still ask us to follow.
    updates: UpdateBudget,
    /// What the peer has sent since the relay last asked, in bytes of data that would have cost us as much.
    cost_bytes: u64,
}

impl Session {
    /// Takes over from rustls. `received` is what came behind the handshake.
    pub(super) fn new(
        peer: Peer,
        keys: ExtractedSecrets,
        secrets: DataSecrets,
        received: &Buffer,
    ) -> Result<Self, Error> {
        let suite = secrets.suite();
        Ok(Session {
            opener: Opener::new(traffic_key(suite, keys.rx)?, peer),
            sealer: Sealer::new(traffic_key(suite, keys.tx)?),
            secrets,
            partial: received.filled().into(),
            is_unread: !received.is_empty(),
            peer_closed: false,
            owed_update: None,
            owed_alert: None,
            short_bytes_left: limits::SHORT_RECORDS_BYTES,
            updates: UpdateBudget::default(),
            cost_bytes: 0,
        })
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// What the peer has cost since this was asked last, in bytes of data.
    pub(super) fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.cost_bytes)
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
        // Whole records, whatever is in them: data, padding, or nothing at all.
        self.cost_bytes += taken as u64;
        self.updates.note_data(plaintext_bytes);
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
            match self.opener.open(batch)? {
                Stop::Incomplete => return Ok(()),
                Stop::Closed => {
                    self.peer_closed = true;
                    return Ok(());
                }
                // Tickets of a backend: none is ever used.
                Stop::Ticket(ticket) if is_ticket(&ticket) => {}
                Stop::Ticket(_) => return Err(OpenError::MalformedMessage.into()),
                Stop::KeyUpdate(request) => {
                    self.cost_bytes += limits::KEY_UPDATE_COST_BYTES;
                    if !self.updates.try_take(Instant::now()) {
                        return Err(OpenError::TooManyKeyUpdates.into());
                    }
                    let key = self.secrets.next_received();
                    self.opener.rekey(key.ok_or(StreamError::Keys)?);
                    if request == KeyUpdateRequest::Requested && self.owed_update.is_none() {
                        self.owed_update = Some(KeyUpdateRequest::NotRequested);
                    }
                }
            }
        }
    }

    /// Makes records of the plaintext in `buffer`, in place. A KeyUpdate that has to go before them stands before them in a
    /// larger buffer: that is rare.
    pub(super) fn seal(&mut self, buffer: &mut Buffer) -> Result<(), StreamError> {
        let plaintext_bytes = buffer.len();
        let content_bytes_max = self.content_bytes_max(buffer);
        let records = plaintext_bytes.div_ceil(content_bytes_max) as u64;
        if self.sealer.needs_update_before(records) {
            // One that the peer has asked for does as well.
            self.owed_update.get_or_insert(KeyUpdateRequest::Requested);
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
        if let Some(mut all) = first {
            all.append(buffer.filled());
            *buffer = all;
        }
        Ok(())
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
        let key = self.secrets.next_sent();
        self.sealer.rekey(key.ok_or(StreamError::Keys)?);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_core::record::{RECORD_BYTES_MAX, Suite};
    use rcgen::generate_simple_self_signed;
    use rustls::client::UnbufferedClientConnection;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::UnbufferedServerConnection;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};

    use super::*;
    use crate::tls::engine::{Engine, HandshakeProgress};
    use crate::tls::handshake_context::{self, HandshakeContext};
    use crate::tls::secrets::SecretLog;

    /// One end of a handshake that is done, with its secrets.
    struct End {
        engine: Engine,
        secrets: DataSecrets,
    }

    impl End {
        fn new(engine: Engine, mut context: HandshakeContext) -> Self {
            let suite = engine.common().negotiated_cipher_suite().unwrap();
            let secrets = DataSecrets::take(suite, &mut context).unwrap();
            End { engine, secrets }
        }

        fn into_session(self, received: &Buffer) -> Session {
            self.engine.into_session(self.secrets, received).unwrap()
        }
    }

    /// Both ends of a handshake that is done, client first, with what has been sent behind it to either.
    fn ends(tickets: usize) -> ([End; 2], [Buffer; 2]) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let versions = &[&rustls::version::TLS13];
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap();
        let mut server = server
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        server.send_tls13_tickets = tickets;
        client.enable_secret_extraction = true;
        server.enable_secret_extraction = true;
        client.key_log = Arc::new(SecretLog::Client);
        server.key_log = Arc::new(SecretLog::Server);
        let name = "localhost".try_into().unwrap();
        let client = UnbufferedClientConnection::new(Arc::new(client), name).unwrap();
        let server = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
        let (mut client, mut server) = (Engine::client(client), Engine::server(server));
        let (mut to_client, mut to_server) = (Buffer::of(b""), Buffer::of(b""));
        let mut contexts = [HandshakeContext::default(), HandshakeContext::default()];
        loop {
            let progress = handshake_context::with_context(&mut contexts[0], || {
                client.advance(&mut to_client, &mut to_server).unwrap()
            });
            let answer = handshake_context::with_context(&mut contexts[1], || {
                server.advance(&mut to_server, &mut to_client).unwrap()
            });
            if (progress, answer)
                == (
                    HandshakeProgress::Established,
                    HandshakeProgress::Established,
                )
            {
                let [of_client, of_server] = contexts;
                let ends = [End::new(client, of_client), End::new(server, of_server)];
                return (ends, [to_client, to_server]);
            }
        }
    }

    /// Both ends of a connection, client first. Each direction's key has protected `sequence` records.
    fn sessions(sequence: u64) -> [Session; 2] {
        let (ends, received) = ends(0);
        let mut received = received.iter();
        ends.map(|End { engine, secrets }| {
            let (peer, mut keys) = engine.into_keys().unwrap();
            (keys.tx.0, keys.rx.0) = (sequence, sequence);
            Session::new(peer, keys, secrets, received.next().unwrap()).unwrap()
        })
    }

    /// Moves `text` from one end to the other; whether a KeyUpdate went before it.
    fn moves(from: &mut Session, to: &mut Session, text: &[u8]) -> bool {
        let mut records = Buffer::of(text);
        from.seal(&mut records).unwrap();
        let sealed_bytes = sealed_bytes(text.len(), limits::RECORD_PLAINTEXT_BYTES_MAX);
        let is_update_before = records.len() != sealed_bytes;
        let mut stream = Buffer::with_capacity(0);
        to.restore(&mut stream);
        stream.append(records.filled());
        to.open(&mut stream).unwrap();
        assert_eq!(stream.filled(), text);
        assert!(to.partial.is_empty());
        is_update_before
    }

    #[test]
    fn keys_are_changed_before_they_have_protected_too_much_and_the_peers_answer_is_followed() {
        let [mut client, mut server] = sessions(Suite::AesGcm.update_after() - 3);
        // Of client and server in turn: the fourth record of the client's is one too many. Its KeyUpdate asks for one of the
        // server's, which so goes before the server's own limit.
        let changes: Vec<(bool, bool)> = (0..12)
            .map(|round| {
                let there = moves(&mut client, &mut server, &[round; 100]);
                (there, moves(&mut server, &mut client, &[round; 300]))
            })
            .collect();
        let mut expected = vec![(false, false); 12];
        expected[3] = (true, true);
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_peer_that_does_not_change_its_key_in_time_is_asked_to() {
        let [mut asked, mut asking] = sessions(Suite::AesGcm.ask_after());
        let mut records = Buffer::of(b"text");
        records.reserve(RECORD_BYTES_MAX);
        let (bytes, plaintext) = records.parts_mut();
        let range = asked.sealer.seal(bytes, plaintext, 100).unwrap();
        records.refill(range);
        asking.open(&mut records).unwrap();
        assert_eq!(records.filled(), b"text");
        assert_eq!(asking.owed_update, Some(KeyUpdateRequest::Requested));
    }

    #[test]
    fn tickets_behind_the_handshake_are_taken_and_nothing_of_them_is_handed_out() {
        let ([client, server], [to_client, to_server]) = ends(2);
        assert!(!to_client.is_empty(), "two tickets");
        let mut client = client.into_session(&to_client);
        let mut server = server.into_session(&to_server);
        assert!(client.is_unread() && !server.is_unread());
        let mut received = Buffer::with_capacity(0);
        client.restore(&mut received);
        client.open(&mut received).unwrap();
        assert!(received.is_empty() && client.partial.is_empty());
        assert!(!moves(&mut server, &mut client, b"data"));
        assert!(!moves(&mut client, &mut server, b"answer"));
    }

    #[test]
    fn the_first_records_are_short_and_the_others_are_not() {
        let [mut client, _] = sessions(0);
        let lengths: Vec<Vec<usize>> = (0..3)
            .map(|_| {
                let mut buffer = Buffer::with_capacity(limits::IO_BUFFER_BYTES);
                buffer.keep_room(ROOM_BEFORE, ROOM_BEHIND);
                buffer.append(&[7; 40_000]);
                client.seal(&mut buffer).unwrap();
                assert_eq!(buffer.capacity(), limits::IO_BUFFER_BYTES, "in place");
                content_lengths(buffer.filled())
            })
            .collect();
        let mut short = vec![4096; 9];
        short.push(40_000 - 9 * 4096);
        let long = vec![16_384, 16_384, 40_000 - 2 * 16_384];
        assert_eq!(lengths, [short, long.clone(), long]);
    }

    fn content_lengths(mut records: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let [23, 3, 3, high, low, rest @ ..] = records {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            lengths.push(length - 17);
            records = &rest[length..];
        }
        lengths
    }
}
