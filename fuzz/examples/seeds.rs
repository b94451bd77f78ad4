//! Writes the seeds of every fuzz target into `fuzz/seeds`: real frames, the documented configurations, certificates
//! of `pki`, the ClientHellos of real clients. Run by hand when those change:
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. Files that are there are replaced, but
//! for what a fuzzer has found (`learnt-`).

#[path = "../../gateway-common/tests/frames/mod.rs"]
#[allow(dead_code, missing_docs)]
mod frames;
#[path = "seeds/http.rs"]
mod http;
#[path = "../../gateway-common/tests/scenes/mod.rs"]
#[allow(dead_code, missing_docs)]
mod scenes;

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use fuzz::chain::{Plan, write_raw};
use fuzz::scene::Known;
use fuzz::ticket::{KEY_FILE, edge};
use gateway_core::certificate::{Certificate, Chain};
use gateway_core::lineage::Lineage;
use gateway_core::revocation::{AuthorityId, AuthorityKey, Link, Serial};
use gateway_pki::{Authority, Profile, Request};
use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, SanType};
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// What a fuzzer has found is kept under names that begin so.
const LEARNT: &str = "learnt-";

/// Frames beyond this say nothing that a shorter one does not.
const FRAME_BYTES_MAX: usize = 200;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    packets(&Seeds::of(root, "packet")?)?;
    evaluations(&Seeds::of(root, "evaluation")?)?;
    configurations(&Seeds::of(root, "configuration")?)?;
    certificates(&Seeds::of(root, "certificate")?)?;
    chains(&Seeds::of(root, "chain")?)?;
    handshakes(&Seeds::of(root, "handshake")?)?;
    field_blocks(&Seeds::of(root, "hpack")?)?;
    http::http1_requests(&Seeds::of(root, "http1_request")?)?;
    http::http1_responses(&Seeds::of(root, "http1_response")?)?;
    http::http2(&Seeds::of(root, "http2")?)?;
    pems(&Seeds::of(root, "pem")?)?;
    records(&Seeds::of(root, "record")?)?;
    tickets(&Seeds::of(root, "ticket")?)
}

/// The folder of one target's seeds.
struct Seeds(PathBuf);

impl Seeds {
    fn of(root: &Path, target: &str) -> Result<Self> {
        let folder = root.join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(LEARNT) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Seeds(folder))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.0.join(name), bytes).with_context(|| format!("seed {name}"))
    }
}

fn packets(seeds: &Seeds) -> Result<()> {
    for case in frames::table() {
        if case.frame.len() <= FRAME_BYTES_MAX {
            let name = case.name.replace(", ", "-").replace([' ', '.'], "-");
            seeds.write(&name.to_lowercase(), &case.frame)?;
        }
    }
    Ok(())
}

/// The scenes of the kernel tests in `enforce`: from one mode to another it is a byte.
fn evaluations(seeds: &Seeds) -> Result<()> {
    const NOW_NS: u64 = 1 << 50;
    for scene in scenes::table(NOW_NS) {
        let Some((family, name)) = scene.name.split_once(", enforce: ") else {
            continue;
        };
        let known = Known {
            now_ns: scene.now_ns,
            settings: scene.settings,
            flow: scene.flow,
            account: scene.account,
            ban: scene.ban,
            listed: scene.listed,
            key: Cell::new(None),
        };
        let name = format!("{family}-{name}")
            .replace(", ", "-")
            .replace(['/', ' '], "-")
            .replace('\'', "");
        seeds.write(&name.to_lowercase(), &[known.write(), scene.frame].concat())?;
    }
    Ok(())
}

/// The blocks of TOML in the reference, with the names that the target's folder has for the files.
fn configurations(seeds: &Seeds) -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = fs::read_to_string(page)?;
    let blocks = page.split("```toml\n").skip(1);
    for (index, block) in blocks
        .filter_map(|block| block.split("```").next())
        .enumerate()
    {
        // In one block our client certificate has the name that is our server certificate's in another.
        let text = match block.contains("\"server.pem\"") {
            true => block.replace("\"gateway.", "\"gateway-client."),
            false => block.to_owned(),
        };
        seeds.write(&format!("documented-{}.toml", index + 1), text.as_bytes())?;
    }
    Ok(())
}

fn certificates(seeds: &Seeds) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lifetime = Duration::from_secs(365 * 24 * 60 * 60);
    let authority = Authority::init(folder.path(), "Example CA", 2 * lifetime)?;
    let request = |name: &str, profile, uris: &[&str]| Request {
        name: name.to_owned(),
        profile,
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        dns_names: match profile {
            Profile::Authority => Vec::new(),
            Profile::Server | Profile::Client | Profile::Component => {
                vec![format!("{name}.example.org")]
            }
        },
        ip_addresses: match profile {
            Profile::Server => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            Profile::Client | Profile::Component | Profile::Authority => Vec::new(),
        },
        lifetime,
        not_before: None,
    };
    authority.issue(&request("server", Profile::Server, &[]))?;
    authority.issue(&request("intermediate", Profile::Authority, &[]))?;
    let uris = ["spiffe://example.org/agent/1", "urn:example:agent"];
    authority.issue(&request("client", Profile::Client, &uris))?;
    for name in ["ca", "server", "intermediate", "client"] {
        let file = folder.path().join(name).with_extension("pem");
        seeds.write(
            &format!("{name}.der"),
            &CertificateDer::from_pem_file(file)?,
        )?;
    }
    seeds.write("rare.der", &rare_certificate()?)
}

/// Chains of plans, orderly and not, and the certificates that `pki` makes, as they are sent.
fn chains(seeds: &Seeds) -> Result<()> {
    const RAW: u8 = 0;
    const PLANNED: u8 = 1;
    let plan = |subject, key, issuer, signer, names_signer| Plan {
        subject,
        key,
        issuer,
        signer,
        names_signer,
    };
    let orderly = vec![
        plan(3, 3, 2, 2, true),
        plan(2, 2, 1, 1, true),
        plan(1, 1, 0, 0, true),
    ];
    let new_with_old = vec![plan(3, 3, 0, 1, false), plan(0, 1, 0, 0, false)];
    let interchangeable = [
        vec![plan(3, 3, 1, 2, false)],
        vec![plan(1, 1, 1, 2, false); 9],
    ]
    .concat();
    let plans = [
        ("orderly", orderly.clone()),
        ("new-with-old", new_with_old),
        ("interchangeable", interchangeable),
    ];
    for (name, plans) in plans {
        let bytes: Vec<_> = plans.iter().flat_map(Plan::write).collect();
        seeds.write(name, &[&[PLANNED], &bytes[..]].concat())?;
    }
    let (leaf, above) = orderly.split_first().context("three plans")?;
    let mut sent = vec![leaf.make(false)];
    sent.extend(above.iter().map(|plan| plan.make(true)));
    sent.push(CertificateDer::from(rare_certificate()?));
    seeds.write("as-sent", &[&[RAW], &write_raw(&sent)[..]].concat())
}

/// A certificate with what `pki` never writes: other kinds of names and texts, years far away, foreign extensions.
fn rare_certificate() -> Result<Vec<u8>> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    let subject = &mut parameters.distinguished_name;
    subject.push(
        DnType::CountryName,
        DnValue::PrintableString("AQ".try_into()?),
    );
    subject.push(DnType::OrganizationName, "Example, \"Inc.\" + Söhne");
    subject.push(DnType::CommonName, DnValue::BmpString("agent".try_into()?));
    subject.push(
        DnType::CommonName,
        DnValue::TeletexString("agent".try_into()?),
    );
    parameters.subject_alt_names = vec![
        SanType::Rfc822Name("agent@example.org".try_into()?),
        SanType::URI("spiffe://example.org/agent/2".try_into()?),
        SanType::DnsName("*.Example.ORG".try_into()?),
        SanType::IpAddress(IpAddr::from([0x20; 16])),
    ];
    parameters.not_before = rcgen::date_time_ymd(1950, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(9999, 12, 31);
    parameters.custom_extensions = vec![CustomExtension::from_oid_content(
        &[2, 5, 29, 99],
        vec![5, 0],
    )];
    let key = rcgen::KeyPair::generate()?;
    Ok(parameters.self_signed(&key)?.der().to_vec())
}

fn handshakes(seeds: &Seeds) -> Result<()> {
    let kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
    ];
    let post_quantum = CryptoProvider {
        kx_groups,
        ..aws_lc_rs::default_provider()
    };
    let hybrid = rustls_hello(post_quantum, "h2")?;
    let plain = rustls_hello(ring::default_provider(), "h2")?;
    let change_cipher_spec = [20, 3, 3, 0, 1, 1];
    let fatal_alert = [21, 3, 3, 0, 2, 2, 48];
    seeds.write("hybrid", &hybrid)?;
    seeds.write("hello-then-alert", &[&plain[..], &fatal_alert].concat())?;
    let sealed = [23, 3, 3, 0, 17].into_iter().chain([0; 17]);
    let sealed: Vec<u8> = change_cipher_spec.into_iter().chain(sealed).collect();
    seeds.write("hello-then-data", &[&plain[..], &sealed].concat())?;
    seeds.write(
        "other-protocol",
        &rustls_hello(ring::default_provider(), "http/1.1")?,
    )?;
    for version in ["-tls1_2", "-tls1_3"] {
        seeds.write(&format!("openssl{version}"), &openssl_hello(version)?)?;
    }
    seeds.write("http", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
}

/// The first bytes that rustls sends as a client.
fn rustls_hello(provider: CryptoProvider, protocol: &str) -> Result<Vec<u8>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let mut client = ClientConnection::new(Arc::new(config), "agents.example.org".try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// The first bytes that OpenSSL sends as a client.
fn openssl_hello(version: &str) -> Result<Vec<u8>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = Command::new("openssl")
        .args(["s_client", version, "-alpn", "h2", "-connect"])
        .arg(listener.local_addr()?.to_string())
        .args(["-servername", "agents.example.org"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("openssl cannot be run")?;
    let (mut stream, _) = listener.accept()?;
    let mut hello = vec![0; 4096];
    let length = stream.read(&mut hello)?;
    hello.truncate(length);
    drop(stream);
    client.wait()?;
    Ok(hello)
}

/// Streams as they are where no cipher hides them: two bytes that choose, then records with an empty tag.
/// A certificate with its key as it is, and as editors, shells and other programs leave it. The key opens nothing.
fn pems(seeds: &Seeds) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["pem.example".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let both = format!("{certificate}{key}");
    seeds.write("certificate", certificate.as_bytes())?;
    seeds.write("key", key.as_bytes())?;
    seeds.write("certificate-and-key", both.as_bytes())?;
    seeds.write(
        "glued",
        both.replace("-----\n-----", "----------").as_bytes(),
    )?;
    seeds.write("written-out-breaks", both.replace('\n', "\\n").as_bytes())?;
    seeds.write(
        "crlf-and-byte-order-mark",
        format!("\u{feff}{}", both.replace('\n', "\r\n")).as_bytes(),
    )?;
    seeds.write("indented", both.replace('\n', "\n  ").as_bytes())?;
    seeds.write(
        "another-label",
        certificate.replace("CERTIFICATE", "X509 CRL").as_bytes(),
    )?;
    seeds.write(
        "four-hyphens",
        both.replace("-----BEGIN", "----BEGIN").as_bytes(),
    )?;
    seeds.write("der", made.cert.der())?;
    seeds.write("no-end", &certificate.as_bytes()[..certificate.len() - 10])
}

fn records(seeds: &Seeds) -> Result<()> {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const DATA: u8 = 23;
    let record = |content: &[u8], content_type: u8, padding: usize| {
        let inner = [content, &[content_type], &vec![0; padding]].concat();
        let [high, low] = (inner.len() as u16 + 16).to_be_bytes();
        [&[DATA, 3, 3, high, low], &inner[..], &[0; 16]].concat()
    };
    let ticket = [&[4, 0, 0, 20][..], &[1; 20]].concat();
    let close = record(&[1, 0], ALERT, 0);
    let streams = [
        (
            "data",
            [
                record(b"hello", DATA, 0),
                record(b"", DATA, 7),
                close.clone(),
            ]
            .concat(),
        ),
        (
            "key-update",
            [
                record(&[24, 0, 0, 1, 1], HANDSHAKE, 0),
                record(b"under the next key", DATA, 0),
                record(&[24, 0], HANDSHAKE, 2),
                record(&[0, 1, 0], HANDSHAKE, 0),
                close,
            ]
            .concat(),
        ),
        (
            "tickets",
            [
                record(&ticket.repeat(2), HANDSHAKE, 0),
                record(&ticket[..7], HANDSHAKE, 0),
                record(&ticket[7..], HANDSHAKE, 3),
                record(b"data", DATA, 0),
            ]
            .concat(),
        ),
        (
            "interleaved",
            [record(&ticket[..7], HANDSHAKE, 0), record(b"x", DATA, 0)].concat(),
        ),
        (
            "alert",
            [record(&[1, 90], ALERT, 0), record(&[2, 40], ALERT, 0)].concat(),
        ),
        ("padding-alone", record(&[], 0, 5)),
        ("change-cipher-spec", vec![20, 3, 3, 0, 1, 1]),
        ("overflow", vec![DATA, 3, 3, 0x41, 1]),
    ];
    for (index, (name, stream)) in streams.into_iter().enumerate() {
        // Odd ones come from a server.
        seeds.write(name, &[&[2 * index as u8 + 1, 90], &stream[..]].concat())?;
    }
    Ok(())
}

/// The key file of the target's listener, a ticket that it has sealed, and the lineage that is inside one.
fn tickets(seeds: &Seeds) -> Result<()> {
    seeds.write("key-file.toml", KEY_FILE.as_bytes())?;
    let folder = tempfile::tempdir()?;
    fuzz::make_certificates(folder.path());
    let certificate = folder.path().join("agent");
    Authority::open(folder.path())?.issue(&Request {
        name: "agent".to_owned(),
        profile: Profile::Client,
        uris: vec!["spiffe://example.org/agent/1".to_owned()],
        dns_names: vec!["agent.example.org".to_owned()],
        ip_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        lifetime: Duration::from_secs(365 * 24 * 60 * 60),
        not_before: None,
    })?;
    seeds.write("ticket", &sealed_ticket(folder.path(), &certificate)?)?;
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let issuer = AuthorityId([7; 32]);
    let link = |serial: &[u8]| {
        let serial = Serial::new(serial)?;
        anyhow::Ok(Link {
            issuer,
            key: AuthorityKey::default(),
            serial,
        })
    };
    let lineage = Lineage {
        authenticated_at: at(1_800_000_000),
        epoch: 3,
        certificate: Certificate {
            uris: vec!["spiffe://example.org/agent/1".to_owned()],
            ip_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            common_name: Some("agent".to_owned()),
            issuer: "CN=Example CA".to_owned(),
            ..Certificate::default()
        },
        chain: Chain {
            links: vec![link(&[1, 2, 3])?, link(&[0x7f; 20])?],
            points: Vec::new(),
            anchor: issuer,
            constraints: None,
            not_before: at(1_700_000_000),
            not_after: at(1_900_000_000),
            ends_with_anchor: false,
        },
    };
    seeds.write("lineage", &[&lineage.encode()[..], b"session"].concat())
}

/// The first ticket that the target's listener gives to a client with this certificate.
fn sealed_ticket(folder: &Path, certificate: &Path) -> Result<Vec<u8>> {
    let mut server = ServerConfig::clone(&edge(folder).server);
    let sealed = Arc::new(Recording::of(&server));
    server.ticketer = Arc::clone(&sealed) as _;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let chain = CertificateDer::pem_file_iter(certificate.with_extension("pem"))?;
    let key = PrivateKeyDer::from_pem_file(certificate.with_extension("key"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
    let mut client = ClientConnection::new(Arc::new(config), "edge.example.org".try_into()?)?;
    let mut wire = Vec::new();
    while sealed.ticket().is_none() {
        wire.clear();
        client.write_tls(&mut wire)?;
        server.read_tls(&mut &wire[..])?;
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire)?;
        client.read_tls(&mut &wire[..])?;
        client.process_new_packets()?;
    }
    sealed.ticket().context("it was there a moment ago")
}

/// Remembers what another ticketer has sealed.
#[derive(Debug)]
struct Recording {
    ticketer: Arc<dyn ProducesTickets>,
    sealed: Mutex<Option<Vec<u8>>>,
}

impl Recording {
    fn of(server: &ServerConfig) -> Self {
        Recording {
            ticketer: Arc::clone(&server.ticketer),
            sealed: Mutex::default(),
        }
    }

    fn ticket(&self) -> Option<Vec<u8>> {
        self.sealed.lock().ok()?.clone()
    }
}

impl ProducesTickets for Recording {
    fn enabled(&self) -> bool {
        self.ticketer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.ticketer.lifetime()
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.ticketer.encrypt(session);
        if let Ok(mut sealed) = self.sealed.lock() {
            sealed.clone_from(&ticket);
        }
        ticket
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.ticketer.decrypt(ticket)
    }
}

/// Blocks that build on each other, behind a byte for the bound of their lists.
fn field_blocks(seeds: &Seeds) -> Result<()> {
    let literal = b"\x82\x86\x84\x41\x0fwww.example.com";
    let huffman = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let names: [(&str, &[&[u8]]); 3] = [
        ("literal", &[literal, b"\x82\x86\x84\xbe\x58\x08no-cache"]),
        (
            "huffman",
            &[huffman, b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf"],
        ),
        (
            "table-sizes",
            &[
                b"\x20\x3f\xe1\x1f\x40\x01a\x01b",
                b"\x3e\xbe",
                b"\x10\x02te\x01x",
            ],
        ),
    ];
    for (name, blocks) in names {
        let mut seed = vec![0xff];
        for block in blocks {
            seed.push(block.len() as u8);
            seed.extend_from_slice(block);
        }
        seeds.write(name, &seed)?;
    }
    Ok(())
}
