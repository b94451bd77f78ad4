//! What `cargo xtask count` counts the instructions of: handshakes of a listener, full or resumed, the framing of records, and
//! requests over HTTP/2.
//!
//! In: `full N`, `resumed N`, `framing N` or `requests N`. Out: nothing; under callgrind, the difference between two N is that of so many.
//! The client is a process of its own, so that nothing of it is counted. Framing has no cipher: records are sealed and
//! opened as ever, by one that does nothing.

#![allow(clippy::unwrap_used, reason = "not part of the program")]

mod request;

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway::config;
use gateway::crypto::KeyRing;
use gateway::tls::{self, Received, ServerConfigs, TlsStream};
use gateway_core::record::{
    Aead, Batch, CONTENT_BYTES_MAX, Forged, HEADER_BYTES, Header, IV_BYTES, Opener, Peer, Sealer,
    Stop, Suite, TAG_BYTES, TrafficKey,
};
use gateway_pki::{Authority, Profile, Request};
use gateway_rt::{AcceptStop, BufferPool, Listener, block_on};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

const CONFIGURATION: &str = r#"
[[listener]]
name = "edge"
address = "127.0.0.1:4317"
certificate = "server.pem"
key = "server.key"
client_ca = ["ca.pem"]
backend = "collector"

[[backend]]
name = "collector"
servers = ["127.0.0.1:14317"]

[[identity]]
match = { uri = "spiffe://example.org/agent/*" }
tenant = "team-a"
"#;

/// Nobody is slow here.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["framing", count] => (0..number(count)).for_each(|_| frame_a_mebibyte()),
        ["requests", count] => request::pass_sixteen(number(count)),
        [kind @ ("full" | "resumed"), count] => serve(kind, number(count)),
        ["client", kind, count, address, folder] => {
            let address = address.parse().unwrap();
            be_the_client(kind, number(count), address, Path::new(folder));
        }
        _ => panic!("full, resumed, framing or requests, and how many"),
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

/// Takes in so many clients, one after the other.
fn serve(kind: &str, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let config = server_configs(folder.path());
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr().unwrap();
    let mut client = Command::new(env::current_exe().unwrap())
        .args(["client", kind, &count.to_string(), &address.to_string()])
        .arg(folder.path())
        .spawn()
        .unwrap();
    // A client that resumes has to come once before.
    let count = count + usize::from(kind == "resumed");
    let serving = block_on(async |_| {
        let listener = Listener::new(bound).unwrap();
        let pool = Rc::new(BufferPool::default());
        for _ in 0..count {
            let stop = AcceptStop::new();
            let (socket, _) = listener.accept(stop.handle()).await.unwrap().unwrap();
            let accepted = tls::accept(socket, &config, Rc::clone(&pool), PATIENCE).await;
            let Ok(accepted) = accepted else {
                panic!("the client has a certificate");
            };
            // The client goes when it has its ticket.
            until_gone(&accepted.stream).await;
        }
    });
    serving.unwrap();
    assert!(client.wait().unwrap().success());
}

async fn until_gone(client: &TlsStream) {
    while client.socket().readable().await.is_ok() {
        match client.receive(usize::MAX) {
            Ok(None | Some(Received::Bytes(_))) => {}
            Ok(Some(Received::End)) | Err(_) => return,
        }
    }
}

fn make_certificates(folder: &Path) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let authority = Authority::init(folder, "Example CA", 10 * DAY).unwrap();
    for (name, profile) in [("server", Profile::Server), ("agent", Profile::Client)] {
        let request = Request {
            name: name.to_owned(),
            profile,
            uris: vec![format!("spiffe://example.org/agent/{name}")],
            dns_names: vec!["localhost".to_owned()],
            ip_addresses: Vec::new(),
            lifetime: DAY,
            not_before: None,
        };
        authority.issue(&request).unwrap();
    }
}

fn server_configs(folder: &Path) -> ServerConfigs {
    let file = folder.join("portcullis.toml");
    std::fs::write(&file, CONFIGURATION).unwrap();
    let config = config::load(&file).unwrap().config;
    let trust = tls::listener_trust(&config, config::ListenerId(0), &Arc::default());
    let random = config.provider.secure_random;
    let keys = KeyRing::generate(SystemTime::now(), random).unwrap();
    tls::server_configs(&config, &config.listeners[0], &trust, Some(&keys)).unwrap()
}

fn be_the_client(kind: &str, count: usize, address: SocketAddr, folder: &Path) {
    let mut config = client_config(folder);
    if kind == "resumed" {
        let config = Arc::new(config);
        assert_eq!(connect(&config, address), HandshakeKind::Full);
        for _ in 0..count {
            assert_eq!(connect(&config, address), HandshakeKind::Resumed);
        }
    } else {
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        for _ in 0..count {
            assert_eq!(connect(&config, address), HandshakeKind::Full);
        }
    }
}

fn client_config(folder: &Path) -> ClientConfig {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(file("ca.pem")).unwrap();
    roots.add(root).unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("agent.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("agent.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap()
}

/// Shakes hands, says that nothing more comes, and reads to the end: a ticket is on its way.
fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let name = "localhost".try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    while connection.is_handshaking() {
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        socket.write_all(&flight).unwrap();
        connection.read_tls(&mut socket).unwrap();
        connection.process_new_packets().unwrap();
    }
    // Finished alone, in one piece, so that each handshake takes as many reads as the one before.
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight).unwrap();
    }
    socket.write_all(&flight).unwrap();
    // The tickets are the first that comes behind it.
    connection.read_tls(&mut socket).unwrap();
    connection.process_new_packets().unwrap();
    connection.send_close_notify();
    while connection.wants_write() {
        connection.write_tls(&mut socket).unwrap();
    }
    // How it is closed is not looked at.
    let _ = socket.read_to_end(&mut Vec::new());
    connection.handshake_kind().unwrap()
}

/// Does nothing to the bytes: what is counted is all around it.
struct Nothing;

impl Aead for Nothing {
    fn open(
        &self,
        _: [u8; IV_BYTES],
        _: &Header,
        bytes: &mut [u8],
        from: usize,
    ) -> Result<(), Forged> {
        let end = bytes.len() - TAG_BYTES;
        bytes.copy_within(from..end, 0);
        Ok(())
    }

    fn seal(&self, _: [u8; IV_BYTES], _: &Header, _: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        Some([0; TAG_BYTES])
    }
}

/// Seals and opens a mebibyte in records of the longest, four at once as in an I/O buffer.
fn frame_a_mebibyte() {
    const ROUND_BYTES: usize = 4 * CONTENT_BYTES_MAX;
    let key = || TrafficKey::new(Nothing, [0; IV_BYTES], 0, Suite::AesGcm);
    let mut sealer = Sealer::new(key());
    let mut opener = Opener::new(key(), Peer::Client);
    let sealed_bytes = Sealer::<Nothing>::sealed_bytes(ROUND_BYTES, CONTENT_BYTES_MAX);
    let mut buffer = vec![1; sealed_bytes];
    for _ in 0..(1 << 20) / ROUND_BYTES {
        let plaintext = HEADER_BYTES..HEADER_BYTES + ROUND_BYTES;
        let records = sealer.seal(&mut buffer, plaintext, CONTENT_BYTES_MAX);
        let mut batch = Batch::new(&mut buffer[records.unwrap()]);
        assert_eq!(opener.open(&mut batch), Ok(Stop::Incomplete));
        assert_eq!(batch.opened(), ROUND_BYTES);
    }
}
