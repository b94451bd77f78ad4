//! The stream mode against a TLS stack whose every byte the test holds in its hand: rustls as the client, driven
//! without a socket. In: one gateway per test, an echoing backend. Out: what the client and the backend saw.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gateway::backend::Resolver;
use gateway::config::{self, Config};
use gateway::server::{Gateway, Ports, Privileges};
use gateway_core::block::BlockList;
use gateway_pki::{Authority, Profile, Request};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A guard against hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a connection ended at the backend, and what it had received until then.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    clean: bool,
}

/// A backend that echoes and tells what it saw of each connection.
fn echoing_backend() -> (SocketAddr, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, seen) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut chunk = [0; 65536];
                let clean = loop {
                    match stream.read(&mut chunk) {
                        Ok(0) => break true,
                        Ok(count) => {
                            bytes.extend_from_slice(&chunk[..count]);
                            if stream.write_all(&chunk[..count]).is_err() {
                                break false;
                            }
                        }
                        Err(_) => break false,
                    }
                };
                // The test may be over.
                let _ = tell.send(Seen { bytes, clean });
            });
        }
    });
    (address, seen)
}

/// A running gateway in front of an echoing backend, and a client configuration that gets in.
struct RunningGateway {
    gateway: Gateway,
    config: Config,
    client: Arc<ClientConfig>,
    seen: Receiver<Seen>,
}

impl RunningGateway {
    fn new() -> Self {
        RunningGateway::with("")
    }

    /// With more tables in its configuration.
    fn with(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(folder.path(), "Test CA", 10 * DAY).unwrap();
        let request = |name: &str, profile, dns_names: &[&str]| Request {
            name: name.to_owned(),
            profile,
            uris: Vec::new(),
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            ip_addresses: Vec::new(),
            lifetime: DAY,
            not_before: None,
        };
        authority
            .issue(&request("server", Profile::Server, &["localhost"]))
            .unwrap();
        let agent = authority
            .issue(&request("agent", Profile::Client, &[]))
            .unwrap();
        let (backend, seen) = echoing_backend();
        let file = folder.path().join("portcullis.toml");
        let text = format!(
            "drain_timeout = \"1s\"\n[workers]\ncount = 1\n{tables}[[listener]]\nname = \"edge\"\n\
             address = \"127.0.0.1:4317\"\nmode = \"stream\"\ncertificate = \"server.pem\"\n\
             key = \"server.key\"\nclient_ca = [\"ca.pem\"]\nbackend = \"echo\"\n\
             [[backend]]\nname = \"echo\"\nservers = [\"{backend}\"]\n\
             [[identity]]\nmatch = {{ cn = \"agent\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut config = config::load(&file).unwrap().config;
        // Any free port; a configuration file has to name one.
        Arc::make_mut(&mut config.listeners[0]).address.set_port(0);
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(authority.certificate_file()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from_pem_file(agent.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(agent.key).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        client.enable_secret_extraction = true;
        RunningGateway {
            gateway: Gateway::start(
                config.clone(),
                BlockList::default(),
                Privileges::of_this_thread(),
                &Resolver::start(&config.backends).unwrap(),
                Ports::Own,
            )
            .unwrap(),
            config,
            client: Arc::new(client),
            seen,
        }
    }

    /// A client whose handshake is done but for sending its last flight, which is still in its hand.
    fn client_before_its_last_flight(&self) -> Client {
        let stream = TcpStream::connect(self.gateway.addresses()[0].1).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        let mut client = Client { stream, tls };
        client.flush();
        while client.tls.is_handshaking() {
            client.receive();
        }
        client
    }

    fn client(&self) -> Client {
        let mut client = self.client_before_its_last_flight();
        client.flush();
        client
    }

    fn seen(&self) -> Seen {
        self.seen
            .recv_timeout(PATIENCE)
            .expect("the backend saw a connection and its end")
    }
}

/// A TLS client whose records the test sends by hand.
struct Client {
    stream: TcpStream,
    tls: ClientConnection,
}

impl Client {
    /// The records that are ready to be sent.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// The records of `plaintext`.
    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plaintext).unwrap();
        self.records()
    }

    fn flush(&mut self) {
        let records = self.records();
        self.stream.write_all(&records).unwrap();
    }

    fn receive(&mut self) {
        assert!(
            self.tls.read_tls(&mut self.stream).unwrap() > 0,
            "the gateway closed"
        );
        self.tls.process_new_packets().unwrap();
    }

    fn expect(&mut self, expected: &[u8]) {
        let mut received = Vec::new();
        while received.len() < expected.len() {
            self.receive();
            let plaintext = self
                .tls
                .process_new_packets()
                .unwrap()
                .plaintext_bytes_to_read();
            let mut bytes = vec![0; plaintext];
            self.tls.reader().read_exact(&mut bytes).unwrap();
            received.extend_from_slice(&bytes);
        }
        assert!(
            received == expected,
            "{} bytes differ from what was sent",
            expected.len()
        );
    }

    /// What comes before the end of the stream, be it FIN or reset.
    fn rest(mut self) -> Result<usize, rustls::Error> {
        loop {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) | Err(_) => return Ok(0),
                Ok(_) => {
                    let state = self.tls.process_new_packets()?;
                    if state.plaintext_bytes_to_read() > 0 {
                        return Ok(state.plaintext_bytes_to_read());
                    }
                }
            }
        }
    }
}

#[test]
fn finished_data_and_close_notify_in_one_segment_are_all_taken() {
    let running = RunningGateway::new();
    let mut client = running.client_before_its_last_flight();
    let mut flight = client.records();
    flight.extend(client.seal(b"in the same segment"));
    client.tls.send_close_notify();
    flight.extend(client.records());
    client.stream.write_all(&flight).unwrap();
    client.expect(b"in the same segment");
    assert_eq!(
        running.seen(),
        Seen {
            bytes: b"in the same segment".to_vec(),
            clean: true
        }
    );
    running.gateway.drain();
}

#[test]
fn records_may_come_byte_by_byte() {
    let running = RunningGateway::new();
    let mut client = running.client_before_its_last_flight();
    let mut flight = client.records();
    flight.extend(client.seal(b"slowly"));
    for byte in flight {
        client.stream.write_all(&[byte]).unwrap();
    }
    client.expect(b"slowly");
    running.gateway.drain();
}

#[test]
fn key_updates_of_the_client_are_followed_in_both_directions() {
    let running = RunningGateway::new();
    let mut client = running.client();
    for round in 0..20u8 {
        // rustls asks the peer to update its keys too; the answer goes out before the peer's next data.
        client.tls.refresh_traffic_keys().unwrap();
        let message = vec![round; 20_000 + usize::from(round)];
        let records = client.seal(&message);
        let (first, second) = records.split_at(usize::from(round) + 1);
        client.stream.write_all(first).unwrap();
        client.stream.write_all(second).unwrap();
        client.expect(&message);
    }
    running.gateway.drain();
}

#[test]
fn a_changed_a_replayed_and_a_reordered_record_end_the_connection_without_a_byte_of_them_at_the_backend()
 {
    let running = RunningGateway::new();
    type Tamper = fn(Vec<u8>, Vec<u8>) -> Vec<u8>;
    let tampers: [(&str, Tamper); 4] = [
        ("changed", |first, mut second| {
            let last = second.len() - 1;
            second[last] ^= 1;
            [first, second].concat()
        }),
        ("replayed", |first, _| [first.clone(), first].concat()),
        ("reordered", |first, second| [second, first].concat()),
        ("left out", |_, second| second),
    ];
    for (what, tamper) in tampers {
        let mut client = running.client();
        let good = client.seal(b"good");
        client.stream.write_all(&good).unwrap();
        client.expect(b"good");
        let (first, second) = (client.seal(b"first"), client.seal(b"second"));
        client.stream.write_all(&tamper(first, second)).unwrap();
        let answer = client.rest();
        let alert = rustls::AlertDescription::BadRecordMac;
        let echoed_first = matches!(what, "changed" | "replayed") && answer == Ok(5);
        assert!(
            echoed_first || answer == Err(rustls::Error::AlertReceived(alert)),
            "{what}: {answer:?}"
        );
        let Seen { bytes, clean } = running.seen();
        assert!(!clean, "{what}: the backend saw a clean end");
        assert!(
            [&b"good"[..], b"goodfirst"].contains(&bytes.as_slice()),
            "{what}: {bytes:?}"
        );
    }
    running.gateway.drain();
}

#[test]
fn what_cannot_be_a_record_is_answered_with_its_alert_and_is_no_end() {
    let running = RunningGateway::new();
    let cases: [(&str, &[u8], AlertDescription); 6] = [
        (
            "a change_cipher_spec after Finished",
            &[20, 3, 3, 0, 1, 1],
            AlertDescription::UnexpectedMessage,
        ),
        (
            "a close_notify in clear",
            &[21, 3, 3, 0, 2, 1, 0],
            AlertDescription::UnexpectedMessage,
        ),
        (
            "no TLS",
            b"GET / HTTP/1.1\r\n\r\n",
            AlertDescription::UnexpectedMessage,
        ),
        (
            "2^14 + 257 bytes",
            &[23, 3, 3, 0x41, 0x01],
            AlertDescription::RecordOverflow,
        ),
        (
            "no room for a tag",
            &[23, 3, 3, 0, 15],
            AlertDescription::BadRecordMac,
        ),
        (
            "nothing but zeros",
            &[[23, 3, 3, 0, 40].as_slice(), &[0; 40]].concat(),
            AlertDescription::BadRecordMac,
        ),
    ];
    for (what, record, alert) in cases {
        let mut client = running.client();
        let good = client.seal(b"good");
        client.stream.write_all(&good).unwrap();
        client.expect(b"good");
        client.stream.write_all(record).unwrap();
        let heard = Err(rustls::Error::AlertReceived(alert));
        assert_eq!(client.rest(), heard, "{what}");
        let expected = Seen {
            bytes: b"good".to_vec(),
            clean: false,
        };
        assert_eq!(running.seen(), expected, "{what}");
    }
    running.gateway.drain();
}

#[test]
fn a_change_of_keys_in_the_same_segment_as_finished_is_followed_in_both_directions() {
    let running = RunningGateway::new();
    let mut client = running.client_before_its_last_flight();
    let mut flight = client.records();
    flight.extend(client.seal(b"before, "));
    client.tls.refresh_traffic_keys().unwrap();
    flight.extend(client.seal(b"after"));
    client.stream.write_all(&flight).unwrap();
    client.expect(b"before, after");
    let records = client.seal(&[7; 50_000]);
    client.stream.write_all(&records).unwrap();
    client.expect(&[7; 50_000]);
    running.gateway.drain();
}

#[test]
fn every_suite_of_both_libraries_carries_every_byte_both_ways() {
    let suites = [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ];
    for provider in ["ring", "aws-lc-rs"] {
        for suite in suites {
            let tls = format!("[tls]\nprovider = \"{provider}\"\ncipher_suites = [\"{suite}\"]\n");
            let running = RunningGateway::with(&tls);
            let mut client = running.client();
            for length in [1, 1000, 4096, 16_384, 16_385, 40_000] {
                let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
                let records = client.seal(&bytes);
                client.stream.write_all(&records).unwrap();
                client.expect(&bytes);
                client.tls.refresh_traffic_keys().unwrap();
            }
            client.tls.send_close_notify();
            client.flush();
            assert!(running.seen().clean, "{provider}, {suite}");
            running.gateway.drain();
        }
    }
}

#[test]
fn the_end_of_the_bytes_is_not_taken_for_the_end_of_the_message() {
    let running = RunningGateway::new();
    let mut client = running.client();
    let records = client.seal(b"half a message");
    client.stream.write_all(&records).unwrap();
    client.expect(b"half a message");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(
        running.seen(),
        Seen {
            bytes: b"half a message".to_vec(),
            clean: false
        }
    );
    running.gateway.drain();
}

#[test]
fn a_handshake_message_that_never_ends_ends_the_connection() {
    let running = RunningGateway::new();
    let client = running.client();
    let Client { mut stream, tls } = client;
    let secrets = tls.dangerous_extract_secrets().unwrap();
    let (mut sequence, secrets) = secrets.tx;
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
        panic!("another suite than our first");
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    // A KeyUpdate (24) that claims 65520 bytes, in records of 100.
    let message = [&[24, 0, 0xff, 0xf0][..], &[0; 65_520]].concat();
    for part in message.chunks(100) {
        const HANDSHAKE: u8 = 22;
        let mut record = [part, &[HANDSHAKE]].concat();
        let length = (record.len() + AES_128_GCM.tag_len()) as u16;
        let header = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
        let mut nonce = [0; 12];
        nonce.copy_from_slice(iv.as_ref());
        for (byte, counted) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= counted;
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut record)
            .unwrap();
        sequence += 1;
        if stream.write_all(&[header, record].concat()).is_err() {
            break;
        }
    }
    assert_eq!(
        running.seen(),
        Seen {
            bytes: Vec::new(),
            clean: false
        }
    );
    let ends = "portcullis_connections_ended_total{listener=\"edge\",reason=\"client_protocol\"} 1";
    let metrics = running.gateway.metrics();
    assert!(metrics.lines().any(|line| line == ends), "{metrics}");
    running.gateway.drain();
}

#[test]
fn a_client_in_mid_handshake_is_evaluated_by_what_a_reload_brought() {
    let running = RunningGateway::new();
    let mut late = running.client_before_its_last_flight();
    let mut config = running.config.clone();
    config.rules = Arc::default();
    running.gateway.reload(config, Instant::now()).unwrap();
    // The worker has taken the news once it refuses a newcomer.
    let denied = rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied);
    let mut served = 0;
    loop {
        let mut newcomer = running.client();
        let records = newcomer.seal(b"x");
        newcomer.stream.write_all(&records).unwrap();
        if newcomer.rest() == Err(denied.clone()) {
            break;
        }
        served += 1;
    }
    let mut flight = late.records();
    flight.extend(late.seal(b"secret"));
    late.stream.write_all(&flight).unwrap();
    assert_eq!(late.rest(), Ok(0), "nothing but the end of the connection");
    let ended = "portcullis_connections_ended_total{listener=\"edge\",reason=\"not_authorized\"}";
    let metrics = running.gateway.metrics();
    let count = metrics.lines().find_map(|line| line.strip_prefix(ended));
    assert!(count.is_some_and(|count| count.trim() != "0"), "{metrics}");
    running.gateway.drain();
    let seen: Vec<Seen> = running.seen.try_iter().collect();
    assert!(seen.len() <= served, "the late client reached the backend");
    assert!(seen.iter().all(|seen| seen.bytes != b"secret"));
}
