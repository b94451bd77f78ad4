//! OpenSSL on either side, with what it can do to records: every suite, short ones, padded ones, in pieces, under new keys.
//! In: its `s_client` and `s_server`. Out: every byte at the other end, in both directions, and the end of the stream.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tests::{Backend, Behaviour, Client, Closing, Ending, Gateway, Request, Workspace, eventually};

use crate::nginx::backend_tls;

const SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// How its records look. The shortest that it makes have 512 bytes of data.
const RECORDS: [&[&str]; 5] = [
    &[],
    &["-max_send_frag", "512"],
    &["-max_send_frag", "16384", "-split_send_frag", "4096"],
    &["-record_padding", "1000"],
    &["-max_send_frag", "600", "-record_padding", "16384"],
];

fn bulk(seed: usize) -> Vec<u8> {
    (0..400_003)
        .map(|at| (at * 7 + at / 251 + seed) as u8)
        .collect()
}

/// `s_client` with our good certificate.
fn client(workspace: &Workspace, gateway: &Gateway) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-servername", "gateway.test", "-connect"])
        .arg(gateway.address().to_string())
        .arg("-verify_return_error")
        .arg("-CAfile")
        .arg(workspace.gateways.certificate())
        .arg("-cert")
        .arg(&workspace.agent.certificate)
        .arg("-key")
        .arg(&workspace.agent.key);
    command
}

/// A program whose input and output a test holds. It is ended with it.
struct Talk {
    child: Child,
    input: Option<ChildStdin>,
}

impl Talk {
    fn start(command: &mut Command) -> Talk {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        Talk { child, input }
    }

    /// What it prints until so many bytes are there, while it is given `sent`; its input stays open.
    fn exchange(&mut self, sent: &[u8], expected_bytes: usize) -> Vec<u8> {
        let mut output = self.child.stdout.take().unwrap();
        let input = self.input.as_mut().unwrap();
        let mut received = vec![0; expected_bytes];
        thread::scope(|scope| {
            scope.spawn(|| input.write_all(sent).unwrap());
            output.read_exact(&mut received).unwrap();
        });
        self.child.stdout = Some(output);
        received
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pinned_suites_have_their_order_and_others_ours_but_for_a_client_that_puts_chacha20_first() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let [aes_128, aes_256, chacha20] = SUITES;
    let chacha20_first = [chacha20, aes_128, aes_256];
    // What OpenSSL offers unless told otherwise.
    let aes_256_first = [aes_256, chacha20, aes_128];
    let pinned =
        "[tls]\ncipher_suites = [\"TLS_AES_256_GCM_SHA384\", \"TLS_CHACHA20_POLY1305_SHA256\"]\n";
    for (tables, offered, chosen) in [
        (pinned, chacha20_first, aes_256),
        ("", chacha20_first, chacha20),
        ("", aes_256_first, aes_128),
    ] {
        let setup = workspace.setup().tables(tables);
        let gateway = setup.route("edge", "", &[backend.address()], "").start();
        let mut command = client(&workspace, &gateway);
        command.args(["-quiet", "-ciphersuites", &offered.join(":")]);
        let received = Talk::start(&mut command).exchange(b"hello", 5);
        assert_eq!(received, b"hello");
        let labels = [("listener", "edge"), ("suite", chosen)];
        gateway.wait_for("portcullis_handshakes_total", &labels, 1);
    }
}

#[test]
fn every_byte_of_a_client_comes_back_whatever_its_records_look_like() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    for suite in SUITES {
        for records in RECORDS {
            let mut command = client(&workspace, &gateway);
            command
                .args(["-quiet", "-ciphersuites", suite])
                .args(records);
            let sent = bulk(records.len());
            let received = Talk::start(&mut command).exchange(&sent, sent.len());
            assert!(received == sent, "{suite}, {records:?}");
        }
    }
    let metrics = gateway.metrics();
    for suite in SUITES {
        let labels = [("listener", "edge"), ("suite", suite)];
        let handshakes = metrics.count("portcullis_handshakes_total", &labels);
        assert_eq!(handshakes, RECORDS.len() as u64, "{suite}");
    }
}

#[test]
fn the_end_of_a_clients_input_is_a_clean_end_with_every_byte_before_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let gateway = workspace.gateway(backend.address());
    let mut command = client(&workspace, &gateway);
    command.args(["-quiet", "-no_ign_eof", "-max_send_frag", "1000"]);
    let mut talk = Talk::start(&mut command);
    // Digits: some letters at the front of a read would be commands now.
    let sent: Vec<u8> = bulk(1).into_iter().map(|byte| b'0' + byte % 10).collect();
    talk.exchange(&sent, 0);
    talk.input = None;
    assert!(talk.child.wait().unwrap().success());
    let recorded = eventually("the backend sees the end", || {
        let recorded = backend.only_connection();
        recorded.ending.is_some().then_some(recorded)
    });
    assert_eq!(recorded.ending, Some(Ending::Finished));
    assert!(recorded.bytes == sent);
}

#[test]
fn a_client_hears_the_clean_end_of_a_backend_behind_every_byte() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Source(Arc::new(bulk(2))));
    let gateway = workspace.gateway(backend.address());
    let mut command = client(&workspace, &gateway);
    let mut talk = Talk::start(command.arg("-quiet"));
    let mut received = Vec::new();
    let mut output = talk.child.stdout.take().unwrap();
    output.read_to_end(&mut received).unwrap();
    assert!(received == bulk(2));
    // It has ended, and not by an error.
    assert!(talk.child.wait().unwrap().success());
    assert_eq!(backend.only_connection().ending, Some(Ending::Finished));
}

/// `s_server` as the backend behind a gateway, for one connection, and a client that is connected to it.
struct Behind {
    _workspace: Workspace,
    _gateway: Gateway,
    server: Talk,
    client: Client,
}

impl Behind {
    fn start(arguments: &[&str]) -> Behind {
        let workspace = Workspace::new();
        let request = Request::server("backend.test").dns("backend.test");
        let certificate = workspace.gateways.issue("backend", request);
        let own = Request::client("spiffe://example.test/gateway/edge-1");
        let own = workspace.agents.issue("own", own);
        let listen = workspace.host.at(7000);
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-tls1_3", "-Verify", "1", "-naccept", "1"])
            .args(["-verify_return_error", "-accept", &listen.to_string()])
            .arg("-cert")
            .arg(&certificate.certificate)
            .arg("-key")
            .arg(&certificate.key)
            .arg("-CAfile")
            .arg(workspace.agents.certificate())
            .args(arguments);
        let mut server = Talk::start(&mut command);
        // To connect and see would use up its one connection.
        eventually("openssl listens", || {
            let sockets = std::fs::read_to_string("/proc/net/tcp").ok()?;
            let std::net::IpAddr::V4(address) = listen.ip() else {
                return None;
            };
            let address = u32::from_ne_bytes(address.octets());
            let socket = format!("{address:08X}:{:04X} 00000000:0000 0A", listen.port());
            sockets.contains(&socket).then_some(())
        });
        let tls = backend_tls(&workspace.gateways.certificate(), &own);
        let gateway = workspace.setup().route("edge", "", &[listen], &tls).start();
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        // What s_server is given before its handshake is over gets lost.
        client.send(b"first\n").unwrap();
        let output = server.child.stdout.as_mut().unwrap();
        let mut printed = Vec::new();
        while !printed.ends_with(b"first\n") {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            printed.extend(byte);
        }
        Behind {
            _workspace: workspace,
            _gateway: gateway,
            server,
            client,
        }
    }
}

#[test]
fn every_byte_to_and_from_a_backend_arrives_whatever_its_records_look_like() {
    for suite in SUITES {
        for records in RECORDS {
            let arguments = [&["-quiet", "-ciphersuites", suite], records].concat();
            let mut behind = Behind::start(&arguments);
            let (up, down) = (bulk(3), bulk(4));
            let (server, client) = (&mut behind.server, &mut behind.client);
            let at_client = thread::scope(|scope| {
                let client = scope.spawn(|| {
                    client.send(&up).unwrap();
                    client.receive(down.len()).unwrap()
                });
                let at_server = server.exchange(&down, up.len());
                assert!(at_server == up, "up, {suite}, {records:?}");
                client.join().unwrap()
            });
            assert!(at_client == down, "down, {suite}, {records:?}");
            behind.client.finish();
            let (rest, closing) = behind.client.receive_to_end();
            assert_eq!((rest.len(), closing), (0, Closing::CloseNotify));
            assert!(behind.server.child.wait().unwrap().success());
        }
    }
}

#[test]
fn a_backend_may_change_its_keys_and_ask_for_ours() {
    let mut behind = Behind::start(&[]);
    let mut output = BufReader::new(behind.server.child.stdout.take().unwrap());
    // Commands of s_server: `k` changes its own keys, `K` asks for ours as well. They are not sent.
    let commands = ["", "k\n", "K\n", "K\n", "k\n"];
    for (round, command) in commands.into_iter().enumerate() {
        let input = behind.server.input.as_mut().unwrap();
        input.write_all(command.as_bytes()).unwrap();
        // A command counts only when it is a read of its own.
        thread::sleep(Duration::from_millis(300));
        let down = format!("down {round}\n");
        input.write_all(down.as_bytes()).unwrap();
        assert_eq!(behind.client.receive(down.len()).unwrap(), down.as_bytes());
        let up = format!("up {round}\n");
        behind.client.send(up.as_bytes()).unwrap();
        let mut line = String::new();
        while line != up {
            line.clear();
            let count = output.read_line(&mut line).unwrap();
            assert_ne!(count, 0, "the server ended before {up}");
        }
    }
}

#[test]
fn a_backend_that_sends_bytes_in_clear_is_cut_off_and_nothing_of_it_gets_through() {
    let mut behind = Behind::start(&[]);
    let input = behind.server.input.as_mut().unwrap();
    input.write_all(b"good\n").unwrap();
    assert_eq!(behind.client.receive(5).unwrap(), b"good\n");
    // Of s_server: some plain text over the connection below.
    input.write_all(b"P\n").unwrap();
    let (rest, closing) = behind.client.receive_to_end();
    assert_eq!((rest.len(), closing), (0, Closing::Reset));
}
