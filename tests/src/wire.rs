//! TLS 1.3 records by hand, right ones and wrong ones, behind a handshake that rustls has done.
//! In: the secrets of that handshake, by rustls' key log. Out: records to send, and what was heard. Shares no code with the
//! gateway's record layer, nor with rustls': keys, nonces and framing are made here from RFC 8446, with ring's ciphers.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CipherSuite, Connection, KeyLog, RootCertStore, ServerConfig, ServerConnection, version,
};

use crate::authority::Credentials;
use crate::backend::Ending;
use crate::client::{ClientBuilder, end_writing};
use crate::wait::PATIENCE;

/// Content types (RFC 8446 section 5.1).
pub const ALERT: u8 = 21;
/// The same.
pub const HANDSHAKE: u8 = 22;
/// The same.
pub const DATA: u8 = 23;

const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
const KEY_UPDATE: u8 = 24;
const NEW_SESSION_TICKET: u8 = 4;

/// A KeyUpdate message, which asks for one of the receiver's own or does not.
pub fn key_update(asks: bool) -> [u8; 5] {
    [KEY_UPDATE, 0, 0, 1, u8::from(asks)]
}

/// The secrets of the handshake that was done last.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(label.to_owned(), secret.to_owned());
    }
}

impl Secrets {
    fn direction(&self, sender: &str, suite: CipherSuite) -> Direction {
        self.named(&format!("{sender}_TRAFFIC_SECRET_0"), suite)
    }

    fn named(&self, label: &str, suite: CipherSuite) -> Direction {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Direction::new(suite, &secrets[label])
    }
}

/// The records of one direction, and its keys one after the other.
#[derive(Debug)]
pub struct Direction {
    suite: CipherSuite,
    secret: Vec<u8>,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new(suite: CipherSuite, secret: &[u8]) -> Direction {
        let algorithm = match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => &aead::AES_128_GCM,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => &aead::AES_256_GCM,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &aead::CHACHA20_POLY1305,
            other => panic!("{other:?} is no suite of TLS 1.3"),
        };
        // Section 7.3.
        let key = expand(suite, secret, "key", algorithm.key_len());
        let iv = expand(suite, secret, "iv", 12);
        let key = UnboundKey::new(algorithm, &key).expect("it was expanded to this length");
        Direction {
            suite,
            secret: secret.to_owned(),
            key: LessSafeKey::new(key),
            iv: iv.try_into().expect("it was expanded to this length"),
            sequence: 0,
        }
    }

    /// Goes on to the next key (section 7.2).
    pub fn update(&mut self) {
        let next = expand(self.suite, &self.secret, "traffic upd", self.secret.len());
        *self = Direction::new(self.suite, &next);
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, counted) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counted;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// A record of this content and type, with so many bytes of padding. None of it need be allowed.
    pub fn record(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let inner = [content, &[content_type], &vec![0; padding]].concat();
        self.inner(&inner)
    }

    /// A record of data.
    pub fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(DATA, content, 0)
    }

    /// A KeyUpdate. What is sealed next is under the next key.
    pub fn key_update(&mut self, asks: bool) -> Vec<u8> {
        let record = self.record(HANDSHAKE, &key_update(asks), 0);
        self.update();
        record
    }

    /// A close_notify.
    pub fn close_notify(&mut self) -> Vec<u8> {
        self.record(ALERT, &[1, 0], 0)
    }

    /// A record that protects just these bytes.
    pub fn inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + TAG_BYTES).expect("a record has two bytes for it");
        let [high, low] = length.to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let mut sealed = inner.to_owned();
        let nonce = self.nonce();
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed)
            .expect("a short record can be sealed");
        [&header[..], &sealed].concat()
    }

    /// Content type and content of a whole record.
    ///
    /// # Panics
    ///
    /// When the record is not authentic.
    pub fn open(&mut self, record: &[u8]) -> (u8, Vec<u8>) {
        let (header, sealed) = record.split_at(HEADER_BYTES);
        let mut inner = sealed.to_owned();
        let nonce = self.nonce();
        let inner = self
            .key
            .open_in_place(nonce, Aad::from(header), &mut inner)
            .expect("the gateway's record is authentic");
        let end = inner.iter().rposition(|byte| *byte != 0);
        let end = end.expect("the gateway's record has a content type");
        (inner[end], inner[..end].to_owned())
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (section 7.1).
fn expand(suite: CipherSuite, secret: &[u8], label: &str, length: usize) -> Vec<u8> {
    let algorithm = match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => hkdf::HKDF_SHA384,
        _ => hkdf::HKDF_SHA256,
    };
    let label = format!("tls13 {label}");
    let [high, low] = u16::try_from(length).expect("keys are short").to_be_bytes();
    let label_bytes = u8::try_from(label.len()).expect("labels are short");
    let info = [&[high, low, label_bytes], label.as_bytes(), &[0]].concat();
    let mut expanded = vec![0; length];
    hkdf::Prk::new_less_safe(algorithm, secret)
        .expand(&[&info], Length(length))
        .and_then(|key| key.fill(&mut expanded))
        .expect("keys are short");
    expanded
}

/// What a peer of the gateway's hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Data.
    Data(Vec<u8>),
    /// A KeyUpdate, and whether it asks for one. It has been followed.
    KeyUpdate(bool),
    /// Another handshake message than that and a ticket.
    Message(Vec<u8>),
    /// A close_notify.
    CloseNotify,
    /// A fatal alert.
    Alert(u8),
    /// A record that is not encrypted.
    Clear(Vec<u8>),
    /// Nothing more.
    End(Ending),
}

/// A connection whose records a test makes and hears one by one.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    /// What we send.
    pub sent: Direction,
    /// What the gateway sends.
    pub received: Direction,
}

impl Wire {
    /// Connects as a client, up to and with its Finished.
    pub fn connect(client: &ClientBuilder, address: SocketAddr) -> Wire {
        let (mut wire, last_flight) = Wire::connect_without_finished(client, address);
        wire.send(&last_flight);
        wire
    }

    /// Connects as a client; its last flight has not been sent.
    pub fn connect_without_finished(
        client: &ClientBuilder,
        address: SocketAddr,
    ) -> (Wire, Vec<u8>) {
        let mut established = Established::client(client, address);
        let last_flight = flight(&mut established.connection);
        (established.into(), last_flight)
    }

    /// Connects as a client that has the server's Finished and has sent nothing for it: what it sends is under its key for the
    /// handshake, what it hears under the server's first key for data.
    pub fn connect_within_handshake(client: &ClientBuilder, address: SocketAddr) -> Wire {
        let secrets = Arc::new(Secrets::default());
        let connection = client.logged_connection(&secrets).into();
        let socket = TcpStream::connect(address).expect("the gateway listens");
        let established =
            Established::shake_hands(connection, socket, (&secrets, ["CLIENT", "SERVER"]));
        let suite = established.connection.negotiated_cipher_suite();
        let suite = suite.expect("the handshake is done").suite();
        Wire {
            sent: secrets.named("CLIENT_HANDSHAKE_TRAFFIC_SECRET", suite),
            ..established.into()
        }
    }

    /// Sends bytes as they are. Whether the gateway is still there, is seen by what is heard.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Sends data in one record.
    pub fn send_data(&mut self, content: &[u8]) {
        let record = self.sent.data(content);
        self.send(&record);
    }

    /// FIN.
    pub fn finish(&self) {
        end_writing(&self.socket);
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The next thing that the gateway says. Tickets are passed over.
    pub fn hear(&mut self) -> Heard {
        loop {
            let record = match read_record(&mut self.socket) {
                Ok(Some(record)) => record,
                Ok(None) => return Heard::End(Ending::Finished),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Heard::End(Ending::Reset);
                }
                Err(error) => panic!("the gateway says nothing: {error}"),
            };
            if record[0] != DATA {
                return Heard::Clear(record);
            }
            match self.received.open(&record) {
                (DATA, content) => return Heard::Data(content),
                (ALERT, content) => {
                    return match content[..] {
                        [1, 0] => Heard::CloseNotify,
                        [2, description] => Heard::Alert(description),
                        _ => panic!("the gateway sent a malformed alert: {content:?}"),
                    };
                }
                (HANDSHAKE, content) if content == key_update(false) => {
                    self.received.update();
                    return Heard::KeyUpdate(false);
                }
                (HANDSHAKE, content) if content == key_update(true) => {
                    self.received.update();
                    return Heard::KeyUpdate(true);
                }
                (HANDSHAKE, content) if content.first() == Some(&NEW_SESSION_TICKET) => {}
                (_, content) => return Heard::Message(content),
            }
        }
    }

    /// Hears exactly these bytes of data and nothing else.
    ///
    /// # Panics
    ///
    /// When something else is heard.
    pub fn expect_data(&mut self, expected: &[u8]) {
        let mut received = Vec::new();
        while received.len() < expected.len() {
            match self.hear() {
                Heard::Data(data) => received.extend(data),
                other => panic!("{other:?} after {} bytes", received.len()),
            }
        }
        assert!(received == expected, "what came back differs");
    }

    /// Everything up to the end.
    pub fn rest(&mut self) -> Vec<Heard> {
        let mut rest = Vec::new();
        loop {
            let heard = self.hear();
            let is_over = matches!(heard, Heard::End(_));
            rest.push(heard);
            if is_over {
                return rest;
            }
        }
    }
}

/// A connection whose handshake is done, still with rustls.
#[derive(Debug)]
pub struct Established {
    /// What did the handshake. It has the last flight still to send, if it is a client.
    pub connection: Connection,
    /// The socket, from which nothing behind the handshake has been read.
    pub socket: TcpStream,
    /// What goes to the gateway, if it is made by hand.
    pub sent: Direction,
    /// What comes from it.
    pub received: Direction,
}

impl Established {
    /// A client's side.
    pub fn client(client: &ClientBuilder, address: SocketAddr) -> Established {
        let secrets = Arc::new(Secrets::default());
        let connection = client.logged_connection(&secrets).into();
        let socket = TcpStream::connect(address).expect("the gateway listens");
        Established::shake_hands(connection, socket, (&secrets, ["CLIENT", "SERVER"]))
    }

    fn shake_hands(
        mut connection: Connection,
        mut socket: TcpStream,
        (secrets, [ours, theirs]): (&Secrets, [&str; 2]),
    ) -> Established {
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        socket.set_nodelay(true).expect("an option can be set");
        while connection.is_handshaking() {
            step(&mut connection, &mut socket);
        }
        let suite = connection.negotiated_cipher_suite();
        let suite = suite.expect("the handshake is done").suite();
        Established {
            connection,
            socket,
            sent: secrets.direction(ours, suite),
            received: secrets.direction(theirs, suite),
        }
    }
}

impl From<Established> for Wire {
    fn from(established: Established) -> Wire {
        let Established {
            socket,
            sent,
            received,
            ..
        } = established;
        Wire {
            socket,
            sent,
            received,
        }
    }
}

/// A TLS server that the gateway takes for a backend, each of whose records a test makes.
#[derive(Debug)]
pub struct WireBackend {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    secrets: Arc<Secrets>,
}

impl WireBackend {
    /// Listens with a certificate, and wants one of this authority.
    pub fn start(own: &Credentials, clients: &std::path::Path) -> WireBackend {
        WireBackend::appending(own, clients, &[])
    }

    /// The same, which sends further certificates behind those of its file.
    pub fn appending(
        own: &Credentials,
        clients: &std::path::Path,
        appended: &[CertificateDer<'static>],
    ) -> WireBackend {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(clients).expect("the CA can be read");
        roots.add(root).expect("it is a certificate");
        let provider = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .expect("there is a root");
        let mut chain: Vec<_> = CertificateDer::pem_file_iter(&own.certificate)
            .and_then(Iterator::collect)
            .expect("the certificate can be read");
        chain.extend_from_slice(appended);
        let key = PrivateKeyDer::from_pem_file(&own.key).expect("the key can be read");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("the key belongs to the certificate");
        // Tickets are for tests to make.
        config.send_tls13_tickets = 0;
        let secrets = Arc::new(Secrets::default());
        config.key_log = secrets.clone();
        WireBackend {
            listener: TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"),
            config: Arc::new(config),
            secrets,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener
            .local_addr()
            .expect("a bound socket has an address")
    }

    /// Takes the next connection of the gateway's, up to and with its Finished. Several at once would mix up their secrets.
    pub fn accept(&self) -> Wire {
        self.accept_established().into()
    }

    /// The same, left with rustls.
    pub fn accept_established(&self) -> Established {
        let (socket, _) = self.listener.accept().expect("the gateway connects");
        let connection =
            ServerConnection::new(Arc::clone(&self.config)).expect("the configuration is complete");
        let secrets = (&*self.secrets, ["SERVER", "CLIENT"]);
        Established::shake_hands(connection.into(), socket, secrets)
    }
}

/// Sends what is to be sent and takes one record: what follows the handshake stays in the socket.
fn step(connection: &mut Connection, socket: &mut TcpStream) {
    let flight = flight(connection);
    socket.write_all(&flight).expect("the gateway is there");
    let record = read_record(socket).expect("the gateway answers");
    let record = record.expect("the gateway does not end the handshake");
    connection
        .read_tls(&mut &record[..])
        .expect("a vector can be read");
    connection
        .process_new_packets()
        .expect("the gateway's handshake is right");
}

fn flight(connection: &mut Connection) -> Vec<u8> {
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection
            .write_tls(&mut flight)
            .expect("a vector takes any number of bytes");
    }
    flight
}

/// One record with its header; nothing at the end of the stream.
fn read_record(socket: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut record = vec![0; HEADER_BYTES];
    if socket.read(&mut record[..1])? == 0 {
        return Ok(None);
    }
    socket.read_exact(&mut record[1..])?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(HEADER_BYTES + length, 0);
    socket.read_exact(&mut record[HEADER_BYTES..])?;
    Ok(Some(record))
}
