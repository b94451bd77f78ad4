//! What is agreed on in the handshake, told by other people's TLS stacks as well as by ours.
//! In: OpenSSL and rustls clients. Out: suite, group, protocol, certificate; and never a ticket.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup};
use tests::{Backend, Behaviour, Closing, Gateway, Request, TlsFailure, Workspace, eventually};

/// `openssl s_client` with our good certificate.
fn openssl(workspace: &Workspace, gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &gateway.address().to_string()])
        .args(["-verify_return_error", "-CAfile"])
        .arg(workspace.gateways.certificate())
        .arg("-cert")
        .arg(&workspace.agent.certificate)
        .arg("-key")
        .arg(&workspace.agent.key)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn everything(mut child: Child) -> String {
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_gets_its_megabytes_back() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let arguments = [
        "-servername",
        "gateway.test",
        "-verify_hostname",
        "gateway.test",
        "-quiet",
    ];
    let mut child = openssl(&workspace, &gateway, &arguments).spawn().unwrap();
    let sent: Vec<u8> = (0..4_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let mut input = child.stdin.take().unwrap();
    let writer = thread::spawn({
        let sent = sent.clone();
        move || {
            input.write_all(&sent).unwrap();
            // Kept open: at the end of its input s_client would leave before the answer.
            input
        }
    });
    let mut received = vec![0; sent.len()];
    child
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut received)
        .unwrap();
    assert!(received == sent, "what came back differs");
    drop(writer.join().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(backend.received_bytes(), sent.len());
}

#[test]
fn suites_and_groups_are_the_pinned_ones_and_are_counted() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let tables = "[tls]\ncipher_suites = [\"TLS_AES_256_GCM_SHA384\"]\ngroups = [\"secp256r1\"]";
    let gateway = workspace
        .setup()
        .tables(tables)
        .route(
            "edge",
            "alpn = [\"h2\", \"http/1.1\"]",
            &[backend.address()],
            "",
        )
        .start();
    let mut client = workspace
        .client()
        .alpn("http/1.1")
        .connect(gateway.address())
        .unwrap();
    client.send(b"x").unwrap();
    client.receive(1).unwrap();
    let connection = client.connection();
    let suite = connection.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_256_GCM_SHA384);
    let group = connection.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::secp256r1);
    assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));

    let metrics = gateway.metrics();
    let labels = [
        ("listener", "edge"),
        ("suite", "TLS_AES_256_GCM_SHA384"),
        ("group", "secp256r1"),
    ];
    assert_eq!(metrics.count("portcullis_handshakes_total", &labels), 1);
    assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 1);
    assert_eq!(
        metrics.count(
            "portcullis_handshake_duration_seconds_count",
            &[("listener", "edge")]
        ),
        1
    );
}

#[test]
fn the_post_quantum_group_is_negotiated_with_aws_lc() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let tables = "[tls]\nprovider = \"aws-lc-rs\"\ngroups = [\"X25519MLKEM768\", \"X25519\"]";
    let gateway = workspace
        .setup()
        .tables(tables)
        .route("edge", "", &[backend.address()], "")
        .start();
    // One client has the group; the other, with another provider, still gets in.
    for expected in [NamedGroup::X25519MLKEM768, NamedGroup::X25519] {
        let client = workspace.client().only_group(expected);
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(client.receive(1).unwrap(), b"x");
        let group = client.connection().negotiated_key_exchange_group().unwrap();
        assert_eq!(group.name(), expected);
    }
    let labels = [("listener", "edge"), ("group", "X25519MLKEM768")];
    let counted = gateway
        .metrics()
        .count("portcullis_handshakes_total", &labels);
    assert_eq!(counted, 1);
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = workspace
        .gateways
        .issue("other", Request::server("other.test").dns("other.test"));
    let listener = format!(
        "sni = [{{ certificate = {:?}, key = {:?} }}]",
        other.certificate, other.key
    );
    let gateway = workspace
        .setup()
        .route("edge", &listener, &[backend.address()], "")
        .start();
    for name in ["gateway.test", "other.test"] {
        let child = openssl(
            &workspace,
            &gateway,
            &["-servername", name, "-verify_hostname", name],
        )
        .spawn();
        let text = everything(child.unwrap());
        assert!(
            text.contains("Verify return code: 0 (ok)"),
            "{name}: {text}"
        );
        assert!(
            text.contains(&format!("subject=CN = {name}")),
            "{name}: {text}"
        );
    }
    // Without a name the first certificate answers.
    let text = everything(
        openssl(&workspace, &gateway, &["-noservername"])
            .spawn()
            .unwrap(),
    );
    assert!(text.contains("subject=CN = gateway.test"), "{text}");
}

#[test]
fn openssl_may_update_its_keys_in_mid_stream() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let mut child = openssl(&workspace, &gateway, &["-servername", "gateway.test"])
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // Commands of s_client: `k` updates its own key, `K` asks for ours as well. They are not sent.
    for (command, text) in [("", "before\n"), ("k\n", "between\n"), ("K\n", "after\n")] {
        input.write_all(command.as_bytes()).unwrap();
        // A command counts only when it is a read of its own.
        thread::sleep(Duration::from_millis(300));
        input.write_all(text.as_bytes()).unwrap();
        // s_client prints the ticket it was given without ending the last line.
        while !line.ends_with(text) {
            line.clear();
            assert_ne!(
                output.read_line(&mut line).unwrap(),
                0,
                "the connection ended before {text}"
            );
        }
    }
    let mut complaints = String::new();
    child.kill().unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaints)
        .unwrap();
    child.wait().unwrap();
    assert!(complaints.contains("KEYUPDATE"), "{complaints}");
    assert_eq!(backend.connections()[0].bytes, b"before\nbetween\nafter\n");
}

#[test]
fn a_chain_through_an_intermediate_authority_is_followed() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let site = workspace.agents.subordinate("site", "Agents of one site");
    let agent = site.issue(
        "agent",
        Request::client("spiffe://example.test/agent/site-1"),
    );
    let mut client = workspace
        .client()
        .credentials(&agent)
        .connect(gateway.address())
        .unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.receive(1).unwrap(), b"x");

    // The same certificate alone leads nowhere.
    let chain = fs::read_to_string(&agent.certificate).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let alone = &chain[..chain.find(end).unwrap() + end.len()];
    fs::write(&agent.certificate, alone).unwrap();
    let failure = workspace
        .client()
        .credentials(&agent)
        .refused(gateway.address());
    assert!(
        matches!(failure, TlsFailure::Closed(Closing::Alert(_))),
        "{failure:?}"
    );
    gateway.wait_for(
        "portcullis_handshake_failures_total",
        &[("reason", "unknown_issuer")],
        1,
    );
}

#[test]
fn a_stalled_handshake_only_delays_those_who_wait_for_its_place() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route(
            "edge",
            "max_handshakes = 1\nhandshake_timeout = \"6s\"",
            &[backend.address()],
            "",
        )
        .start();
    let mut stalled = TcpStream::connect(gateway.address()).unwrap();
    stalled.write_all(&[22]).unwrap();
    // Waiting for a place counts into the time for the handshake: the client needs some of it after the stalled one is gone.
    thread::sleep(Duration::from_secs(4));
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.receive(1).unwrap(), b"x");
}

#[test]
fn tickets_do_not_wait_for_the_first_data_of_the_backend() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let gateway = workspace.gateway(backend.address());
    for count in 1..=5 {
        let client = workspace.client().connect(gateway.address()).unwrap();
        gateway.wait_for(
            "portcullis_handshakes_total",
            &[("listener", "edge")],
            count,
        );
        // Kept back, they would come a fifth of a second later, and with them the acknowledgement of the client's Finished, for
        // which a client with Nagle's algorithm on keeps back its first data.
        client.socket().set_nonblocking(true).unwrap();
        let ticket = client.socket().peek(&mut [0; 64]);
        assert!(ticket.is_ok_and(|bytes| bytes > 0));
    }
}

#[test]
fn silent_connections_take_no_handshakes_place_and_make_room_for_those_who_come() {
    const SILENT: u64 = 60;
    // A worker lets so many be silent, however few handshakes it may have under way.
    const PLACES: u64 = 16;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    // Beyond the patience of the test.
    let keys = "max_handshakes = 4\nhandshake_timeout = \"1m\"\nfirst_byte_timeout = \"1m\"";
    let gateway = workspace
        .setup()
        .tables("[workers]\ncount = 1")
        .route("edge", keys, &[backend.address()], "")
        .start();
    let _silent: Vec<_> = (0..SILENT)
        .map(|_| TcpStream::connect(gateway.address()).unwrap())
        .collect();
    for _ in 0..10 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(client.receive(1).unwrap(), b"x");
    }
    let labels = [("listener", "edge"), ("reason", "over_limit")];
    let metrics = gateway.metrics();
    let refused = metrics.count("portcullis_handshake_failures_total", &labels);
    assert!((SILENT - PLACES..=SILENT).contains(&refused), "{refused}");
    assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 10);
}

#[test]
fn clients_that_come_together_and_are_silent_for_a_moment_wait_and_none_is_reset() {
    const TOGETHER: usize = 64;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = "max_handshakes = 4\nhandshake_timeout = \"1m\"";
    let gateway = workspace
        .setup()
        .tables("[workers]\ncount = 1")
        .route("edge", keys, &[backend.address()], "")
        .start();
    // As the network has it: connected, and the first bytes a moment later.
    let sockets = (0..TOGETHER).map(|_| TcpStream::connect(gateway.address()).unwrap());
    let sockets: Vec<_> = sockets.collect();
    thread::scope(|scope| {
        for socket in sockets {
            scope.spawn(|| {
                let mut client = workspace.client().connect_over(socket).unwrap();
                client.send(b"x").unwrap();
                assert_eq!(client.receive(1).unwrap(), b"x");
            });
        }
    });
    let metrics = gateway.metrics();
    let handshakes = metrics.count("portcullis_handshakes_total", &[]);
    assert_eq!(handshakes, TOGETHER as u64);
    assert_eq!(metrics.count("portcullis_handshake_failures_total", &[]), 0);
}

/// Clients that stop in the middle of their ClientHello, each of which holds a handshake slot.
fn halves(workspace: &Workspace, gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    let hello = workspace.client().client_hello();
    let half = |_| {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        socket.write_all(&hello[..hello.len() / 2]).unwrap();
        socket
    };
    let halves = (0..count).map(half).collect();
    let labels = [("listener", "edge")];
    gateway.wait_for("portcullis_connections_open", &labels, count as u64);
    halves
}

#[test]
fn handshake_slots_are_one_number_over_all_workers_however_many_there_are() {
    const WORKERS: usize = 64;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let start = |max: usize| {
        let keys = format!("max_handshakes = {max}\nhandshake_timeout = \"1m\"");
        workspace
            .setup()
            .tables(&format!("[workers]\ncount = {WORKERS}"))
            .top("drain_timeout = \"0s\"")
            .route("edge", &keys, &[backend.address()], "")
            .start()
    };
    // Wherever the kernel puts them, half of the slots are free for others.
    let mut gateway = start(WORKERS);
    let _halves = halves(&workspace, &gateway, WORKERS / 2);
    for _ in 0..WORKERS / 2 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.send(b"x").unwrap();
        assert_eq!(client.receive(1).unwrap(), b"x");
    }
    gateway.terminate();
    assert!(gateway.wait().success());
    // And no worker has one more than all of them together.
    let gateway = start(4);
    let mut halves = halves(&workspace, &gateway, 4);
    let next = workspace.client();
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket.write_all(&next.client_hello()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let answer = socket.read(&mut [0; 1]);
    assert!(answer.is_err(), "it waits: {answer:?}");
    // On whichever worker a slot becomes free, it is for the one who waits.
    drop(halves.pop());
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 1);
}

#[test]
fn every_descriptor_is_released() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    // What is opened once and kept: rings, timers, the first buffers.
    let round = |gateway: &Gateway| {
        for _ in 0..20 {
            let mut good = workspace.client().connect(gateway.address()).unwrap();
            good.send(b"x").unwrap();
            good.receive(1).unwrap();
            good.finish();
            good.receive_to_end();
            let mut killed = workspace.client().connect(gateway.address()).unwrap();
            killed.send(b"x").unwrap();
            killed.receive(1).unwrap();
            killed.abort();
            workspace
                .client()
                .without_certificate()
                .refused(gateway.address());
            drop(TcpStream::connect(gateway.address()).unwrap());
        }
        gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    };
    round(&gateway);
    let before = gateway.process().descriptors();
    for _ in 0..5 {
        round(&gateway);
    }
    eventually("the gateway holds no more descriptors than before", || {
        (gateway.process().descriptors() <= before).then_some(())
    });
}
