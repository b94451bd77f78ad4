//! What the tests run the load generator against: a CA of their own and a TLS-terminating server on loopback.
//! In: which tickets to issue and what stands behind. Out: an address, and the files to reach it with.
//! Real sockets and real TLS; the server knows nothing of the load generator.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Certificates in a folder of their own: `ca.pem` with `ca.key`, another CA in `next.pem`, `server.pem`, agents in `agents/`, a stranger in `foreign/`.
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    pub fn new(agents: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        let ca = authority("tests ca");
        std::fs::write(path.join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(path.join("ca.key"), ca.key().serialize_pem()).unwrap();
        let next = authority("next ca");
        std::fs::write(path.join("next.pem"), next.pem()).unwrap();
        std::fs::write(path.join("next.key"), next.key().serialize_pem()).unwrap();
        issue(
            &ca,
            &path.join("server"),
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        for agent in 1..=agents {
            let name = path.join(format!("agents/agent-{agent}"));
            issue(&ca, &name, ExtendedKeyUsagePurpose::ClientAuth);
        }
        let stranger = path.join("foreign/stranger");
        issue(
            &authority("foreign ca"),
            &stranger,
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(issuer: &CertifiedIssuer<'static, KeyPair>, name: &Path, usage: ExtendedKeyUsagePurpose) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().unwrap()),
        SanType::IpAddress("127.0.0.1".parse().unwrap()),
    ];
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::create_dir_all(name.parent().unwrap()).unwrap();
    std::fs::write(name.with_extension("pem"), certificate.pem()).unwrap();
    std::fs::write(name.with_extension("key"), key.serialize_pem()).unwrap();
}

/// What the server does with a stream it has decrypted.
#[derive(Clone, Copy)]
pub enum Behind {
    /// Passes it to this TCP server and back.
    Backend(SocketAddr),
    /// Returns each byte with one bit turned.
    Corrupt,
    /// Ends without saying goodbye after this many bytes.
    Cut(usize),
    /// Reads to the end and then ends without saying goodbye.
    Mute,
}

/// Starts a TLS 1.3 server that requires a certificate of the test's CA. It lives until the test process ends.
pub fn serve(pki: &Pki, tickets: usize, behind: Behind) -> SocketAddr {
    serve_trusting(pki, tickets, behind, &Trust::of(pki))
}

/// Whom a server trusts, and whom it has seen.
pub struct Trust {
    pub authorities: Vec<PathBuf>,
    /// In DER.
    pub revocation_list: Option<PathBuf>,
    /// The certificates of all clients that it let in.
    pub seen: Seen,
}

pub type Seen = Arc<Mutex<HashSet<Vec<u8>>>>;

impl Trust {
    /// In the CA of the PKI alone.
    pub fn of(pki: &Pki) -> Self {
        Self {
            authorities: vec![pki.path("ca.pem")],
            revocation_list: None,
            seen: Seen::default(),
        }
    }
}

/// The same as `serve`, with a trust of its own.
pub fn serve_trusting(pki: &Pki, tickets: usize, behind: Behind, trust: &Trust) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(pki, tickets, trust)));
    let seen = trust.seen.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                // A connection that fails is the client's to report: that is what the tests look at.
                tokio::spawn(async move { drop(connection(acceptor, socket, behind, seen).await) });
            }
        });
    });
    address
}

async fn connection(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    behind: Behind,
    seen: Seen,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = acceptor.accept(socket).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    seen.lock().unwrap().insert(chain[0].to_vec());
    let mut buffer = vec![0; 65_536];
    match behind {
        Behind::Backend(address) => {
            let mut backend = TcpStream::connect(address).await?;
            backend.set_nodelay(true)?;
            copy_bidirectional(&mut stream, &mut backend).await?;
        }
        Behind::Corrupt => loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return stream.shutdown().await;
            }
            buffer[..count].iter_mut().for_each(|byte| *byte ^= 1);
            stream.write_all(&buffer[..count]).await?;
        },
        Behind::Mute => while stream.read(&mut buffer).await? > 0 {},
        Behind::Cut(bytes) => {
            let mut seen = 0;
            while seen < bytes {
                seen += stream.read(&mut buffer).await?;
            }
        }
    }
    Ok(())
}

fn server_config(pki: &Pki, tickets: usize, trust: &Trust) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in &trust.authorities {
        roots
            .add(CertificateDer::from_pem_file(authority).unwrap())
            .unwrap();
    }
    let lists = trust
        .revocation_list
        .iter()
        .map(|list| CertificateRevocationListDer::from(std::fs::read(list).unwrap()));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(lists)
        .allow_unknown_revocation_status()
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(pki.path("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(pki.path("server.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = tickets;
    if tickets == 0 {
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    config
}

/// One run of the program.
pub struct Run {
    pub code: i32,
    pub report: Value,
    pub errors: String,
}

impl Run {
    /// A number in the report, by JSON pointer.
    pub fn number(&self, pointer: &str) -> f64 {
        self.report
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("no number {pointer} in {:#}", self.report))
    }

    /// How many failures of a kind were counted.
    pub fn failures(&self, kind: &str) -> u64 {
        self.report["failures"][kind]["count"].as_u64().unwrap_or(0)
    }
}

/// Runs a scenario against `address` as the agents of the PKI.
pub fn run(pki: &Pki, scenario: &str, address: SocketAddr, arguments: &[&str]) -> Run {
    let agents = pki.path("agents");
    let mut all = vec!["--identities", agents.to_str().unwrap()];
    all.extend(arguments);
    run_as(pki, scenario, address, &all)
}

/// Runs a scenario against `address` with exactly these arguments, and JSON as output.
pub fn run_as(pki: &Pki, scenario: &str, address: SocketAddr, arguments: &[&str]) -> Run {
    let output = program()
        .arg(scenario)
        .args(["--json", "--target", &address.to_string()])
        .args(["--server-name", "localhost"])
        .arg("--ca")
        .arg(pki.path("ca.pem"))
        .args(arguments)
        .output()
        .unwrap();
    report(&output)
}

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_portcullis-loadgen"))
}

pub fn report(output: &Output) -> Run {
    Run {
        code: output.status.code().expect("ended by itself"),
        report: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
