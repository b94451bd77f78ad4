//! rustls on the other side: it reads what we seal, we read what it seals, in every suite, as client and as server, with
//! changes of keys in both directions at random places. rustls also does our handshake, and derives our keys.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use gateway_core::alert::Alert;
use gateway_core::record::{
    Batch, CONTENT_BYTES_MAX, KeyUpdateRequest, OVERHEAD_BYTES, Opener, Peer, Sealer, Stop, Suite,
    TrafficKey, is_ticket,
};
use proptest::test_runner::{RngAlgorithm, TestRng};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::aead::{AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, Error,
    ExtractedSecrets, RootCertStore, ServerConfig, ServerConnection,
};

use super::support::Real;

/// Both configurations for one suite.
fn configs(suite: usize) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![provider::ALL_CIPHER_SUITES[suite]],
        ..provider::default_provider()
    });
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let versions = &[&rustls::version::TLS13];
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

/// What rustls keeps of our side.
enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn next_received(&mut self) -> TrafficKey<Real> {
        traffic_key(match self {
            Kernel::Client(kernel) => kernel.update_rx_secret().unwrap(),
            Kernel::Server(kernel) => kernel.update_rx_secret().unwrap(),
        })
    }

    fn next_sent(&mut self) -> TrafficKey<Real> {
        traffic_key(match self {
            Kernel::Client(kernel) => kernel.update_tx_secret().unwrap(),
            Kernel::Server(kernel) => kernel.update_tx_secret().unwrap(),
        })
    }
}

fn traffic_key((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> TrafficKey<Real> {
    let (algorithm, suite, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, Suite::AesGcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, Suite::AesGcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (&CHACHA20_POLY1305, Suite::ChaCha20Poly1305, key, iv)
        }
        _ => panic!("a suite of TLS 1.2"),
    };
    let aead = Real::new(algorithm, key.as_ref());
    TrafficKey::new(aead, iv.as_ref().try_into().unwrap(), sequence, suite)
}

/// Our side, by our record layer.
struct Ours {
    kernel: Kernel,
    opener: Opener<Real>,
    sealer: Sealer<Real>,
    received: Vec<u8>,
    owes_update: bool,
    tickets: usize,
    is_closed: bool,
}

/// One state of our handshake. Returns the bytes that are done with, and whether it is over.
fn advance<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Vec<u8>) -> (usize, bool) {
    let is_over = match status.state.unwrap() {
        ConnectionState::EncodeTlsData(mut data) => {
            let mut record = [0; 20_000];
            let count = data.encode(&mut record).unwrap();
            outgoing.extend_from_slice(&record[..count]);
            false
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            false
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
        state => panic!("{state:?}"),
    };
    (status.discard, is_over)
}

impl Ours {
    fn new(extracted: ExtractedSecrets, kernel: Kernel) -> Self {
        let peer = match kernel {
            Kernel::Client(_) => Peer::Server,
            Kernel::Server(_) => Peer::Client,
        };
        Ours {
            kernel,
            opener: Opener::new(traffic_key(extracted.rx), peer),
            sealer: Sealer::new(traffic_key(extracted.tx)),
            received: Vec::new(),
            owes_update: false,
            tickets: 0,
            is_closed: false,
        }
    }

    /// A connection whose our side is the client, or the server.
    fn pair(suite: usize, is_client: bool) -> (Ours, Connection) {
        let (client, server) = configs(suite);
        let name: ServerName<'static> = "localhost".try_into().unwrap();
        if is_client {
            let mut ours = UnbufferedClientConnection::new(client, name).unwrap();
            let mut peer = ServerConnection::new(server).unwrap().into();
            shake_hands(&mut peer, |incoming, outgoing| {
                advance(ours.process_tls_records(incoming), outgoing)
            });
            let (extracted, kernel) = ours.dangerous_into_kernel_connection().unwrap();
            (Ours::new(extracted, Kernel::Client(kernel)), peer)
        } else {
            let mut ours = UnbufferedServerConnection::new(server).unwrap();
            let mut peer = ClientConnection::new(client, name).unwrap().into();
            shake_hands(&mut peer, |incoming, outgoing| {
                advance(ours.process_tls_records(incoming), outgoing)
            });
            let (extracted, kernel) = ours.dangerous_into_kernel_connection().unwrap();
            (Ours::new(extracted, Kernel::Server(kernel)), peer)
        }
    }

    /// Takes what the peer wants to send, in pieces of `piece` bytes.
    fn receive(&mut self, peer: &mut Connection, piece: usize) -> Vec<u8> {
        let mut stream = Vec::new();
        while peer.wants_write() {
            peer.write_tls(&mut stream).unwrap();
        }
        let mut plaintext = Vec::new();
        for piece in stream.chunks(piece) {
            self.received.extend_from_slice(piece);
            let mut batch = Batch::new(&mut self.received);
            loop {
                match self.opener.open(&mut batch).unwrap() {
                    Stop::Incomplete => break,
                    Stop::KeyUpdate(request) => {
                        self.opener.rekey(self.kernel.next_received());
                        self.owes_update |= request == KeyUpdateRequest::Requested;
                    }
                    Stop::Ticket(ticket) => {
                        let Kernel::Client(kernel) = &mut self.kernel else {
                            panic!("a ticket from a client");
                        };
                        kernel.handle_new_session_ticket(&ticket).unwrap();
                        assert!(is_ticket(&ticket));
                        self.tickets += 1;
                    }
                    Stop::Closed => {
                        self.is_closed = true;
                        break;
                    }
                }
            }
            plaintext.extend_from_slice(batch.plaintext());
            let taken = batch.taken();
            self.received.drain(..taken);
        }
        plaintext
    }

    fn update_key(&mut self, request: KeyUpdateRequest) -> Vec<u8> {
        let record = self.sealer.key_update(request).unwrap().to_vec();
        self.sealer.rekey(self.kernel.next_sent());
        self.owes_update = false;
        record
    }

    fn seal(&mut self, plaintext: &[u8], content_bytes_max: usize) -> Vec<u8> {
        let mut stream = match self.owes_update {
            true => self.update_key(KeyUpdateRequest::NotRequested),
            false => Vec::new(),
        };
        let sealed_bytes = Sealer::<Real>::sealed_bytes(plaintext.len(), content_bytes_max);
        let mut buffer = vec![0; sealed_bytes + OVERHEAD_BYTES];
        buffer[..plaintext.len()].copy_from_slice(plaintext);
        let range = 0..plaintext.len();
        let records = self
            .sealer
            .seal(&mut buffer, range, content_bytes_max)
            .unwrap();
        stream.extend_from_slice(&buffer[records]);
        stream
    }
}

/// Runs both sides until neither has anything to say and the peer has not seen our last flight yet: that is where ours ends.
fn shake_hands(
    peer: &mut Connection,
    mut step: impl FnMut(&mut [u8], &mut Vec<u8>) -> (usize, bool),
) {
    let mut incoming = Vec::new();
    loop {
        while peer.wants_write() {
            peer.write_tls(&mut incoming).unwrap();
        }
        let mut outgoing = Vec::new();
        loop {
            let (discard, is_over) = step(&mut incoming, &mut outgoing);
            incoming.drain(..discard);
            if is_over {
                break;
            }
        }
        let was_shaking = peer.is_handshaking();
        give(peer, &outgoing).unwrap();
        if !was_shaking || (!peer.is_handshaking() && matches!(peer, Connection::Server(_))) {
            return;
        }
    }
}

/// What the peer makes of `stream`.
fn give(peer: &mut Connection, mut stream: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plaintext = Vec::new();
    while !stream.is_empty() {
        peer.read_tls(&mut stream).unwrap();
        let state = peer.process_new_packets()?;
        let mut bytes = vec![0; state.plaintext_bytes_to_read()];
        peer.reader().read_exact(&mut bytes).unwrap();
        plaintext.extend(bytes);
    }
    Ok(plaintext)
}

/// Numbers from a seed that stands in the test.
struct Random(TestRng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        use proptest::prelude::Rng;
        self.0.next_u32() as usize % bound
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        use proptest::prelude::Rng;
        let mut bytes = vec![0; self.below(most)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

fn each_pair(mut run: impl FnMut(Ours, Connection, Random)) {
    for suite in 0..3 {
        for is_client in [false, true] {
            let (ours, peer) = Ours::pair(suite, is_client);
            let seed = [suite as u8 + 10 * u8::from(is_client); 32];
            run(
                ours,
                peer,
                Random(TestRng::from_seed(RngAlgorithm::ChaCha, &seed)),
            );
        }
    }
}

#[test]
fn every_byte_arrives_both_ways_whatever_keys_are_changed_in_between() {
    let mut updates = [0; 3];
    each_pair(|mut ours, mut peer, mut random| {
        for round in 0..60 {
            if random.below(4) == 0 {
                peer.refresh_traffic_keys().unwrap();
                updates[0] += 1;
            }
            let sent = random.bytes(40_000);
            let mut rest = &sent[..];
            let mut received = Vec::new();
            // rustls takes no more than its buffer holds.
            while !rest.is_empty() || peer.wants_write() {
                let count = peer.writer().write(rest).unwrap();
                rest = &rest[count..];
                received.extend(ours.receive(&mut peer, 1 + random.below(20_000)));
            }
            assert!(received == sent, "round {round} to us");
            updates[1] += usize::from(ours.owes_update);
            let mut stream = Vec::new();
            if random.below(4) == 0 {
                stream.extend(ours.update_key(KeyUpdateRequest::Requested));
                updates[2] += 1;
            }
            let answer = random.bytes(40_000);
            stream.extend(ours.seal(&answer, 1 + random.below(CONTENT_BYTES_MAX)));
            assert!(
                give(&mut peer, &stream).unwrap() == answer,
                "round {round} from us"
            );
        }
    });
    assert!(updates.iter().all(|count| *count > 20), "{updates:?}");
}

#[test]
fn tickets_of_a_server_are_heard_and_accepted() {
    let (mut ours, mut peer) = Ours::pair(0, true);
    peer.writer().write_all(b"hello").unwrap();
    assert_eq!(ours.receive(&mut peer, 50), b"hello");
    assert!(ours.tickets > 0);
}

#[test]
fn each_side_hears_the_others_close_notify() {
    each_pair(|mut ours, mut peer, _| {
        let mut stream = ours.seal(b"the last", 5);
        stream.extend(ours.sealer.close_notify().unwrap());
        assert_eq!(give(&mut peer, &stream), Ok(b"the last".to_vec()));
        assert!(peer.process_new_packets().unwrap().peer_has_closed());
        peer.writer().write_all(b"and theirs").unwrap();
        peer.send_close_notify();
        assert_eq!(ours.receive(&mut peer, 7), b"and theirs");
        assert!(ours.is_closed);
    });
}

#[test]
fn our_alert_is_heard_as_what_it_is() {
    each_pair(|mut ours, mut peer, _| {
        let alert = ours.sealer.alert(Alert(20)).unwrap();
        let heard = Error::AlertReceived(AlertDescription::BadRecordMac);
        assert_eq!(give(&mut peer, &alert), Err(heard));
    });
}

#[test]
fn rustls_too_refuses_what_we_call_malformed() {
    each_pair(|mut ours, mut peer, mut random| {
        let mut record = ours.seal(b"changed on its way", 100);
        let bit = random.below(record.len() * 8 - 40) + 40;
        record[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(give(&mut peer, &record), Err(Error::DecryptError));
    });
}
