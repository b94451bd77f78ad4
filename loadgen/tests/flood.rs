//! Floods as a program, against servers that end connections in every way there is: what is said about an attempt is
//! what happened to it, and nobody is attacked who might not want it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};
use support::{Behind, Pki, program, serve};

fn flood(kind: &str, target: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .args(["flood", kind, "--json", "--target", &target.to_string()])
        .args(["--server-name", "localhost", "--rate", "200"])
        .args(arguments);
    command
}

/// The exit code and the report, which is null when there is none.
fn run(command: &mut Command) -> (i32, Value, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (
        status.code().unwrap(),
        serde_json::from_slice(&stdout).unwrap_or(Value::Null),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

/// What became of all attempts of a kind; their sum must be what was made.
fn outcomes(report: &Value, kind: &str) -> Value {
    let attempts = &report["flood"]["kinds"][kind];
    let counts = attempts["outcomes"].as_object().unwrap();
    let sum: u64 = counts.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(attempts["made"], sum, "{report:#}");
    attempts["outcomes"].clone()
}

/// A TCP server for the life of the test process, with a thread for each connection.
fn server(behave: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let behave = Arc::new(behave);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let behave = behave.clone();
            thread::spawn(move || behave(socket.unwrap()));
        }
    });
    address
}

/// A port that was free a moment ago.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn reset(socket: TcpStream) {
    let socket = socket2::Socket::from(socket);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads until the client is gone.
fn ignore(mut socket: TcpStream) {
    let mut scratch = [0; 4096];
    while socket.read(&mut scratch).is_ok_and(|count| count > 0) {}
}

/// The first byte, a fatal alert, the end. The rest is read, so that the alert is not lost to a reset.
fn alert(mut socket: TcpStream) {
    const RECORD_OVERFLOW: u8 = 22;
    socket.read_exact(&mut [0]).unwrap();
    socket
        .write_all(&[21, 3, 3, 0, 2, 2, RECORD_OVERFLOW])
        .unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    ignore(socket);
}

#[test]
fn the_way_in_which_the_server_ends_a_connection_is_what_is_reported() {
    let cases = [
        (nobody(), "idle", json!({"refused": 8})),
        (server(drop), "idle", json!({"closed": 8})),
        (server(reset), "idle", json!({"reset": 8})),
        (server(ignore), "idle", json!({"timed_out": 8})),
        (server(ignore), "slow", json!({"timed_out": 8})),
        (server(ignore), "half", json!({"timed_out": 8})),
        (server(alert), "junk", json!({"alert_record_overflow": 8})),
        (server(alert), "slow", json!({"alert_record_overflow": 8})),
        (server(alert), "half", json!({"alert_record_overflow": 8})),
        (
            server(alert),
            "badcert",
            json!({"alert_record_overflow": 8}),
        ),
        (server(reset), "badcert", json!({"reset": 8})),
    ];
    for (address, kind, expected) in cases {
        let arguments = ["--count", "8", "--timeout", "2s", "--for", "60s"];
        let (code, report, errors) = run(&mut flood(kind, address, &arguments));
        assert_eq!(code, 0, "{errors}");
        assert_eq!(outcomes(&report, kind), expected, "{kind}: {report:#}");
    }
}

#[test]
fn half_a_handshake_ends_with_a_reset_and_with_silence_in_turn() {
    let (ended, ends) = mpsc::channel();
    let address = server(move |mut socket| {
        let mut hello = [0; 4096];
        let count = socket.read(&mut hello).unwrap();
        // A record of a handshake, and in it a ClientHello (RFC 8446 section 4).
        let is_hello = count > 100 && hello[0] == 22 && hello[5] == 1;
        socket.write_all(&[22]).unwrap();
        let end = match socket.read(&mut hello) {
            Ok(0) => "closed",
            Ok(_) => "said more",
            Err(_) => "reset",
        };
        ended.send((is_hello, end)).unwrap();
    });
    let arguments = ["--count", "20", "--timeout", "2s"];
    let (code, report, errors) = run(&mut flood("half", address, &arguments));
    assert_eq!(code, 0, "{errors}");
    let expected = json!({"left": 10, "timed_out": 10});
    assert_eq!(outcomes(&report, "half"), expected, "{report:#}");
    let one = |_| ends.recv_timeout(Duration::from_secs(30)).unwrap();
    let mut seen: Vec<_> = (0..20).map(one).collect();
    seen.sort_unstable();
    assert_eq!(seen[..10], [(true, "closed"); 10]);
    assert_eq!(seen[10..], [(true, "reset"); 10]);
}

#[test]
fn connections_still_open_at_the_end_of_the_time_are_called_that() {
    let arguments = ["--count", "8", "--for", "1s", "--timeout", "60s"];
    let (code, report, _) = run(&mut flood("idle", server(ignore), &arguments));
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(outcomes(&report, "idle"), json!({"open_at_the_end": 8}));
}

#[test]
fn attempts_beyond_the_bound_on_held_connections_are_missed_and_never_made_up_for() {
    let cases: [(&[&str], &str); 2] = [
        // Places become free only at the end.
        (&["--for", "1s", "--timeout", "60s"], "open_at_the_end"),
        // They become free when all other attempts are long overdue.
        (&["--for", "60s", "--timeout", "3s"], "timed_out"),
    ];
    for (limits, outcome) in cases {
        let mut command = flood("idle", server(ignore), limits);
        command.args(["--count", "50", "--connections", "5"]);
        let (code, report, _) = run(&mut command);
        assert_eq!(code, 1, "{report:#}");
        assert_eq!(outcomes(&report, "idle"), json!({outcome: 5}));
        assert_eq!(report["failures"]["missed"]["count"], 45, "{report:#}");
    }
}

#[test]
fn a_server_that_checks_certificates_refuses_the_foreign_one_and_one_that_does_not_is_found_out() {
    let pki = Pki::new(0);
    let strict = serve(&pki, 2, Behind::Cut(1));
    let (code, report, errors) = run(&mut flood("badcert", strict, &["--count", "20"]));
    assert_eq!(code, 0, "{errors}");
    let refused = json!({"alert_unknown_ca": 20});
    assert_eq!(outcomes(&report, "badcert"), refused, "{report:#}");

    let (code, report, _) = run(&mut flood("badcert", lax(&pki), &["--count", "20"]));
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(outcomes(&report, "badcert"), json!({"let_in": 20}));
    assert_eq!(report["failures"]["let_in"]["count"], 20, "{report:#}");
}

/// A TLS server that asks nobody for a certificate.
fn lax(pki: &Pki) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(pki.path("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(pki.path("server.key")).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    server(move |socket| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        // The client leaves when it has its ticket.
        let _ = stream.read(&mut [0; 16]);
    })
}

#[test]
fn a_target_that_somebody_else_may_own_is_refused_before_the_first_packet() {
    // Of TEST-NET-1, RFC 5737.
    let foreign = "192.0.2.1:4317".parse().unwrap();
    for kind in ["idle", "syn"] {
        let (code, report, errors) = run(&mut flood(kind, foreign, &["--count", "1"]));
        assert_eq!((code, report), (2, Value::Null), "{kind}: {errors}");
        assert!(
            errors.contains("--i-am-allowed-to-attack-this-target"),
            "{errors}"
        );
    }
    // Forged sources stay inside a namespace, even if the target is this host.
    let (code, _, errors) = run(&mut flood("syn", nobody(), &["--count", "1"]));
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("forged"), "{errors}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_the_reason() {
    let target = nobody();
    let cases: [(&str, &[&str], &str); 5] = [
        ("idle", &["--count", "0"], "--count 0: must be 1"),
        (
            "idle",
            &["--timeout", "1ms"],
            "--timeout 1ms: must be 100ms",
        ),
        (
            "idle",
            &["--sources", "203.0.113.9"],
            "203.0.113.9 is not an address of this host",
        ),
        (
            "idle",
            &["--sources", "::1"],
            "must be of the same family as 127.0.0.1",
        ),
        ("idle", &["syn"], "`syn` goes alone"),
    ];
    for (kind, arguments, reason) in cases {
        let (code, _, errors) = run(&mut flood(kind, target, arguments));
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains(reason), "{errors}");
    }
}

#[test]
fn the_table_says_what_the_json_says() {
    let output = program()
        .args(["flood", "idle", "junk", "--target", &nobody().to_string()])
        .args([
            "--rate",
            "200",
            "--count",
            "10",
            "--sources",
            "127.0.0.2-127.0.0.4",
        ])
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "idle, junk",
        "127.0.0.2-127.0.0.4",
        "5 made, 0 connected: 5 refused",
        "open loop at 200/s",
    ] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
}
