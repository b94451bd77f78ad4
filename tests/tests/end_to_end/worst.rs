//! The worst known input of each message, to a worker on which others are: none of it costs them anything.
//! In: hellos in thousands of pieces and of thousands of extensions and tickets, certificates of every bad shape, a proof
//! that is none, records of one byte, the longest tickets of a backend. Out: an echo beside them, a block and a SIGTERM that act.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use rustls::pki_types::CertificateDer;
use tests::{
    Authority, Backend, Behaviour, Client, Direction, Gateway, HANDSHAKE, PATIENCE, Request, Wire,
    WireBackend, Workspace, forged, interchangeable, program,
};

/// What a handshake may take, in bytes.
const HANDSHAKE_BYTES: usize = 64 * 1024;

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

/// Sends all of it and waits for whatever end there is.
fn throw(address: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The gateway may end it in the middle.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let _ = socket.read_to_end(&mut Vec::new());
}

/// A handshake message in records of so many bytes.
fn records(message: &[u8], record_bytes: usize) -> Vec<u8> {
    let record = |content: &[u8]| {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE, 3, 3, high, low], content].concat()
    };
    message.chunks(record_bytes).flat_map(record).collect()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    [&kind.to_be_bytes(), &length.to_be_bytes(), content].concat()
}

/// A good ClientHello whose extensions are followed by more.
fn hello_with(workspace: &Workspace, more: &[u8]) -> Vec<u8> {
    let hello = workspace.client().client_hello();
    let message = &hello[5..];
    // Type and length, version and random; then the session, the suites and the compression, each behind its length.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    at += 1 + usize::from(message[at]);
    let extensions = [&message[at + 2..], more].concat();
    let length = u16::try_from(extensions.len()).unwrap().to_be_bytes();
    let body = [&message[4..at], &length, &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

/// As many tickets as fit, each with its binder (RFC 8446 section 4.2.11).
fn tickets() -> Vec<u8> {
    const PRE_SHARED_KEY: u16 = 41;
    let identity = [&[0, 100][..], &[0x5a; 100], &[0; 4]].concat();
    let binder = [&[32][..], &[0; 32]].concat();
    let list = |one: &[u8]| {
        let all = one.repeat(400);
        [&u16::try_from(all.len()).unwrap().to_be_bytes()[..], &all].concat()
    };
    let modes = extension(45, &[1, 1]);
    let keys = [list(&identity), list(&binder)].concat();
    [modes, extension(PRE_SHARED_KEY, &keys)].concat()
}

fn hellos(workspace: &Workspace, address: SocketAddr, beside: &mut Client) {
    let unknown = |number: u16| extension(0x1000 + number, &[]);
    let many: Vec<u8> = (0..14_000).flat_map(unknown).collect();
    let few = many[..HANDSHAKE_BYTES / 8].to_vec();
    for (more, record_bytes) in [(&many, 1 << 14), (&few, 1), (&tickets(), 1 << 14)] {
        throw(
            address,
            &records(&hello_with(workspace, more), record_bytes),
        );
        ping(beside);
    }
}

fn certificates(workspace: &Workspace, address: SocketAddr, beside: &mut Client) {
    let lowest = Authority::create(workspace.folder(), "lowest", "0");
    let agent = "spiffe://example.test/agent/impostor";
    let impostor = lowest.issue("impostor", Request::client(agent));
    let same: Vec<_> = (0..9).map(|number| forged("0", "0", number)).collect();
    let junk = vec![CertificateDer::from(vec![0x30; 60]); 800];
    let long = vec![CertificateDer::from(vec![0x30; 20_000]); 2];
    for sent in [
        interchangeable(400, 3, "Agents of the test"),
        interchangeable(9, 2, "Agents of the test"),
        same,
        junk,
        long,
    ] {
        let client = workspace.client().credentials(&impostor).appending(&sent);
        client.refused(address);
        ping(beside);
    }
    let mut names = Request::client("spiffe://example.test/agent/many");
    for number in 0..2500 {
        names = names.dns(&format!("{number}.test"));
    }
    let many = workspace.agents.issue("many", names);
    workspace.client().credentials(&many).refused(address);
    ping(beside);
    // A proof by another key.
    workspace.client().without_its_key().refused(address);
    ping(beside);
}

fn one_byte_records(sent: &mut Direction, count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| sent.data(b"x")).collect()
}

fn one_worker(
    workspace: &Workspace,
    servers: [&Backend; 1],
    far: SocketAddr,
    tls: &str,
) -> Gateway {
    let setup = workspace.setup().top("drain_timeout = \"0s\"");
    let setup = setup.tables("[workers]\ncount = 1");
    let setup = setup.route("edge", "", &[servers[0].address()], "");
    setup.route("far", "", &[far], tls).start()
}

#[test]
fn the_worst_input_of_each_message_costs_nobody_on_the_same_worker_anything() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let own = workspace
        .agents
        .issue("own", Request::client("spiffe://example.test/gateway/1"));
    let server = workspace
        .gateways
        .issue("far", Request::server("far.test").dns("far.test"));
    let far = WireBackend::start(&server, &workspace.agents.certificate());
    let tls = format!(
        "tls = {{ ca = [{:?}], certificate = {:?}, key = {:?}, server_name = \"far.test\" }}",
        workspace.gateways.certificate(),
        own.certificate,
        own.key
    );
    let mut gateway = one_worker(&workspace, [&backend], far.address(), &tls);
    let address = gateway.address();
    let mut beside = workspace.client().connect(address).unwrap();
    ping(&mut beside);

    hellos(&workspace, address, &mut beside);
    certificates(&workspace, address, &mut beside);
    let mut client = Wire::connect(&workspace.client(), address);
    let bytes = one_byte_records(&mut client.sent, 20_000);
    client.send(&bytes);
    ping(&mut beside);
    // The longest tickets that a backend can send, and records of one byte behind them.
    let behind = workspace
        .client()
        .connect(gateway.address_of("far"))
        .unwrap();
    let mut backend = far.accept();
    let mut ticket = vec![4, 0, 0x3f, 0xf0];
    ticket.extend([0x11; 0x3ff0]);
    for _ in 0..40 {
        let record = backend.sent.record(HANDSHAKE, &ticket[..0x3ff4], 0);
        backend.send(&record);
    }
    let bytes = one_byte_records(&mut backend.sent, 20_000);
    backend.send(&bytes);
    ping(&mut beside);
    drop(behind);

    let blocked = Command::new(program("portcullis"))
        .args([
            "block",
            "--identity",
            "spiffe://example.test/agent/agent-1",
            "--config",
        ])
        .arg(workspace.folder().join("portcullis.toml"))
        .output()
        .unwrap();
    assert!(blocked.status.success(), "{blocked:?}");
    beside.receive_to_end();
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
}
