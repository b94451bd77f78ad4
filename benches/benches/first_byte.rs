//! From the connection of a client to its first byte of data at the server, over the loopback, with a client that turns Nagle's
//! algorithm off and with one that does not: that one keeps its byte back until its Finished is acknowledged. In: nothing. Out: times by
//! Criterion.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::config;
use gateway::crypto::KeyRing;
use gateway::tls::{self, Received, ServerConfigs};
use gateway_pki::{Authority, Profile, Request};
use gateway_rt::{AcceptStop, BufferPool, Listener, block_on};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

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
"#;

/// A guard against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that says when the first byte of a connection has come.
struct Server {
    address: SocketAddr,
    arrived: Receiver<()>,
}

fn start(folder: &Path, with_tickets: bool) -> Server {
    let config = server_configs(folder, with_tickets);
    let bound = TcpListener::bind("127.0.0.1:0").expect("the loopback has a port");
    let address = bound.local_addr().expect("it is bound");
    let (arrived, hears) = channel();
    thread::spawn(move || block_on(|_| serve(bound, config, arrived)));
    Server {
        address,
        arrived: hears,
    }
}

async fn serve(bound: TcpListener, config: ServerConfigs, arrived: Sender<()>) {
    let listener = Listener::new(bound).expect("it listens");
    let pool = Rc::new(BufferPool::default());
    loop {
        let stop = AcceptStop::new();
        let Ok(Some((socket, _))) = listener.accept(stop.handle()).await else {
            return;
        };
        let accepted = tls::accept(socket, &config, Rc::clone(&pool), PATIENCE).await;
        let Ok(accepted) = accepted else { continue };
        let stream = accepted.stream;
        loop {
            if !stream.is_waiting() && stream.socket().readable().await.is_err() {
                break;
            }
            match stream.receive(usize::MAX) {
                Ok(None) => {}
                Ok(Some(Received::Bytes(_))) => {
                    if arrived.send(()).is_err() {
                        return;
                    }
                }
                Ok(Some(Received::End)) | Err(_) => break,
            }
        }
    }
}

/// Time from the connection to the first byte at the server.
fn first_byte(server: &Server, config: &Arc<ClientConfig>, nodelay: bool) -> Duration {
    let started = Instant::now();
    let mut socket = TcpStream::connect(server.address).expect("the server listens");
    socket.set_nodelay(nodelay).expect("it is a socket");
    let name = "localhost".try_into().expect("it is a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("a client");
    while client.is_handshaking() {
        client
            .complete_io(&mut socket)
            .expect("the handshake succeeds");
    }
    let mut stream = Stream::new(&mut client, &mut socket);
    stream.write_all(b"x").expect("the server is there");
    server.arrived.recv().expect("the byte arrives");
    started.elapsed()
}

fn make_certificates(folder: &Path) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let authority = Authority::init(folder, "Example CA", 10 * DAY).expect("a CA");
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
        authority.issue(&request).expect("a certificate");
    }
}

fn server_configs(folder: &Path, with_tickets: bool) -> ServerConfigs {
    let file = folder.join("portcullis.toml");
    fs::write(&file, CONFIGURATION).expect("the folder can be written");
    let config = config::load(&file).expect("it is right").config;
    let trust = tls::listener_trust(&config, config::ListenerId(0), &Arc::default());
    let random = config.provider.secure_random;
    let keys = KeyRing::generate(SystemTime::now(), random).expect("the system has randomness");
    let keys = with_tickets.then_some(&keys);
    tls::server_configs(&config, &config.listeners[0], &trust, keys).expect("it can be served")
}

fn client_config(folder: &Path) -> Arc<ClientConfig> {
    let read =
        |name: &str| CertificateDer::from_pem_file(folder.join(name)).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(read("ca.pem")).expect("it is a CA");
    let key = PrivateKeyDer::from_pem_file(folder.join("agent.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is there")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![read("agent.pem")], key)
        .expect("key and certificate fit");
    Arc::new(config)
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

fn benches(criterion: &mut Criterion) {
    let folder = folder();
    make_certificates(&folder);
    let config = client_config(&folder);
    let mut group = criterion.benchmark_group("first byte");
    for (tickets, with_tickets) in [("with tickets", true), ("without tickets", false)] {
        let server = start(&folder, with_tickets);
        for (nagle, nodelay) in [("TCP_NODELAY", true), ("Nagle", false)] {
            group.bench_function(format!("{tickets}, {nagle}"), |bencher| {
                bencher.iter_custom(|count| {
                    (0..count)
                        .map(|_| first_byte(&server, &config, nodelay))
                        .sum()
                });
            });
        }
    }
    group.finish();
    let _ = fs::remove_dir_all(folder);
}

criterion_group!(first_bytes, benches);
criterion_main!(first_bytes);
