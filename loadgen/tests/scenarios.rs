//! Every scenario of the load generator as a program, against a real TLS server with real certificates.
//! What must succeed succeeds; what a server does wrong is found, counted by kind, and turns the exit code.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use loadgen::backend::{Backend, BackendKind};
use loadgen::receiver::Receiver;
use support::{Behind, Pki, Run, program, report, run, run_as, serve};

fn backend(kind: BackendKind) -> Backend {
    Backend::start(kind, "127.0.0.1:0".parse().unwrap()).unwrap()
}

#[test]
fn full_handshakes_are_counted_and_priced() {
    let (pki, echo) = (Pki::new(3), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let own_pid = std::process::id().to_string();
    for confirm in ["close", "ticket", "echo"] {
        let run = run(
            &pki,
            "handshake",
            address,
            &[
                "--count",
                "60",
                "--connections",
                "3",
                "--confirm",
                confirm,
                "--server-pid",
                &own_pid,
            ],
        );
        assert_eq!(run.code, 0, "{confirm}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/completed"), 60.0);
        assert_eq!(run.number("/identities"), 3.0);
        assert_eq!(run.number("/details/full handshakes"), 60.0);
        assert!(run.number("/latency/p50_us") > 50.0);
        assert!(run.number("/server/cpu_per_unit/value") > 0.0);
    }
    assert!(
        echo.counts()
            .connections
            .load(std::sync::atomic::Ordering::Relaxed)
            >= 60
    );
}

#[test]
fn resumed_handshakes_really_are_resumed() {
    let (pki, echo) = (Pki::new(2), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    for confirm in ["close", "ticket"] {
        let arguments = [
            "--mode",
            "resumed",
            "--count",
            "40",
            "--connections",
            "2",
            "--confirm",
            confirm,
        ];
        let run = run(&pki, "handshake", address, &arguments);
        assert_eq!(run.code, 0, "{confirm}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/details/resumed handshakes"), 40.0);
        assert_eq!(run.number("/details/handshakes to fetch a ticket"), 2.0);
    }
}

#[test]
fn resumption_check_fails_against_a_server_without_tickets() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 0, Behind::Backend(echo.address()));
    let arguments = ["--mode", "resumed", "--count", "2"];
    let run = run(&pki, "handshake", address, &arguments);
    assert_eq!(
        (run.code, run.number("/completed")),
        (1, 0.0),
        "{:#}",
        run.report
    );
    // The one that prepares, and each that was to be measured.
    assert_eq!(run.failures("no_ticket"), 3);
}

#[test]
fn client_without_certificate_is_a_failure_that_names_the_alert() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    for confirm in ["close", "ticket", "echo"] {
        let arguments = ["--count", "5", "--confirm", confirm];
        let run = run_as(&pki, "handshake", address, &arguments);
        assert_eq!(
            (run.code, run.number("/completed")),
            (1, 0.0),
            "{:#}",
            run.report
        );
        assert_eq!(
            run.failures("alert_certificate_required"),
            5,
            "{confirm}: {:#}",
            run.report
        );
    }
    assert_eq!(
        echo.counts()
            .connections
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn certificate_of_a_foreign_ca_is_refused_in_every_scenario() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let foreign = pki.path("foreign");
    let cases: [(&str, &[&str]); 5] = [
        ("handshake", &["--count", "2"]),
        ("echo", &["--count", "2"]),
        ("stream", &["--bytes", "1MiB"]),
        ("idle", &["--for", "500ms"]),
        ("otlp", &["--count", "2"]),
    ];
    for (scenario, arguments) in cases {
        let mut all = vec!["--identities", foreign.to_str().unwrap()];
        all.extend(arguments);
        let run = run_as(&pki, scenario, address, &all);
        assert_eq!(
            (run.code, run.number("/completed")),
            (1, 0.0),
            "{scenario}: {:#}",
            run.report
        );
        let explained = run.failures("alert_unknown_ca") + run.failures("alert_decrypt_error");
        assert!(explained > 0, "{scenario}: {:#}", run.report);
    }
}

#[test]
fn allowed_failures_are_reported_and_do_not_fail_the_run() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let run = run_as(
        &pki,
        "handshake",
        address,
        &["--count", "3", "--allow-failures"],
    );
    assert_eq!((run.code, run.number("/failed")), (0, 3.0));
}

#[test]
fn echoes_come_back_at_the_rate_asked_for() {
    let (pki, echo) = (Pki::new(2), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let arguments = [
        "--rate",
        "200",
        "--count",
        "100",
        "--connections",
        "4",
        "--size",
        "4KiB",
    ];
    let run = run(&pki, "echo", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert_eq!(run.number("/completed"), 100.0);
    assert_eq!(run.number("/bytes_down"), 100.0 * 4096.0);
    // 100 turns at 200 per second: the last is due after 495 ms.
    assert!(
        (0.495..10.0).contains(&run.number("/elapsed_seconds")),
        "{:#}",
        run.report
    );
}

#[test]
fn rate_that_cannot_be_reached_is_said() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let arguments = ["--rate", "1000000", "--for", "300ms"];
    let run = run(&pki, "echo", address, &arguments);
    assert_eq!(run.code, 1);
    let missed = run.failures("missed");
    assert_eq!(
        missed + run.number("/completed") as u64,
        300_000,
        "{:#}",
        run.report
    );
    // The turns that ran were late, and their latency says so: at the end, as late as the run was long.
    assert!(
        run.number("/latency/max_us") > 200_000.0,
        "{:#}",
        run.report
    );
}

#[test]
fn corrupted_echo_and_stream_are_mismatches() {
    let pki = Pki::new(1);
    let address = serve(&pki, 2, Behind::Corrupt);
    let echo = run(&pki, "echo", address, &["--count", "1"]);
    assert_eq!(
        (echo.code, echo.failures("mismatch")),
        (1, 1),
        "{:#}",
        echo.report
    );
    let arguments = ["--direction", "both", "--bytes", "1MiB"];
    let stream = run(&pki, "stream", address, &arguments);
    assert_eq!(
        (stream.code, stream.failures("mismatch")),
        (1, 1),
        "{:#}",
        stream.report
    );
}

#[test]
fn streams_account_for_every_byte_in_each_direction() {
    const SIZE: f64 = 5_000_011.0;
    let pki = Pki::new(2);
    let cases = [
        ("up", BackendKind::Sink, SIZE, 0.0),
        ("down", BackendKind::Source, 0.0, SIZE),
        ("both", BackendKind::Echo, SIZE, SIZE),
    ];
    for (direction, kind, up, down) in cases {
        let server = backend(kind);
        let address = serve(&pki, 2, Behind::Backend(server.address()));
        let arguments = [
            "--direction",
            direction,
            "--bytes",
            "5000011B",
            "--connections",
            "2",
            "--for",
            "30s",
        ];
        let run = run(&pki, "stream", address, &arguments);
        assert_eq!(run.code, 0, "{direction}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/completed"), 2.0);
        assert_eq!(run.number("/bytes_up"), 2.0 * up, "{direction}");
        assert_eq!(run.number("/bytes_down"), 2.0 * down, "{direction}");
    }
}

#[test]
fn stream_ended_by_time_still_accounts_for_what_it_sent() {
    let pki = Pki::new(1);
    for (direction, kind) in [
        ("up", BackendKind::Sink),
        ("down", BackendKind::Source),
        ("both", BackendKind::Echo),
    ] {
        let server = backend(kind);
        let address = serve(&pki, 2, Behind::Backend(server.address()));
        let arguments = [
            "--direction",
            direction,
            "--bytes",
            "1TiB",
            "--for",
            "300ms",
        ];
        let run = run(&pki, "stream", address, &arguments);
        assert_eq!(run.code, 0, "{direction}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/details/transfers ended by time"), 1.0);
        assert!(run.number("/bytes_up") + run.number("/bytes_down") > 0.0);
    }
}

#[test]
fn truncated_stream_is_not_taken_for_a_complete_one() {
    let pki = Pki::new(1);
    let address = serve(&pki, 2, Behind::Cut(100_000));
    for direction in ["up", "both"] {
        let run = run(
            &pki,
            "stream",
            address,
            &["--direction", direction, "--bytes", "4MiB"],
        );
        assert_eq!(
            (run.code, run.number("/completed")),
            (1, 0.0),
            "{:#}",
            run.report
        );
    }
}

#[test]
fn an_end_without_close_notify_is_one_only_where_that_is_allowed() {
    let pki = Pki::new(1);
    let address = serve(&pki, 2, Behind::Mute);
    let code = |scenario, arguments: &[&str]| run(&pki, scenario, address, arguments).code;
    assert_eq!(code("handshake", &["--count", "2"]), 1);
    assert_eq!(
        code("handshake", &["--count", "2", "--allow-abrupt-end"]),
        0
    );
    // Nobody counted the bytes.
    let stream = ["--bytes", "1MiB", "--allow-abrupt-end"];
    assert_eq!(code("stream", &stream), 1);
}

#[test]
fn idle_connection_that_the_server_ends_is_a_failure() {
    let pki = Pki::new(1);
    let address = serve(&pki, 2, Behind::Cut(0));
    let run = run(
        &pki,
        "idle",
        address,
        &["--connections", "3", "--for", "2s"],
    );
    assert_eq!(
        (run.code, run.number("/completed"), run.number("/failed")),
        (1, 0.0, 3.0)
    );
}

#[test]
fn nobody_listening_is_counted_as_connect() {
    let pki = Pki::new(1);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let run = run(&pki, "handshake", free, &["--count", "3"]);
    assert_eq!(
        (run.code, run.failures("connect")),
        (1, 3),
        "{:#}",
        run.report
    );
}

#[test]
fn connections_come_from_each_of_the_given_addresses_in_turn() {
    let pki = Pki::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = thread::spawn(move || -> Vec<IpAddr> {
        let peers = listener.incoming().take(5);
        peers
            .map(|stream| stream.unwrap().peer_addr().unwrap().ip())
            .collect()
    });
    let sources = ["--sources", "127.0.0.7-127.0.0.8,127.0.0.44"];
    // Each is hung up on, which is no matter here.
    let run = run(
        &pki,
        "handshake",
        address,
        &[&sources[..], &["--count", "5", "--allow-failures"]].concat(),
    );
    assert_eq!(run.code, 0, "{}", run.errors);
    let expected = [7, 8, 44, 7, 8].map(|last| IpAddr::from([127, 0, 0, last]));
    assert_eq!(heard.join().unwrap(), expected);
}

#[test]
fn a_report_says_when_its_work_began() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let now_us = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        since.as_micros() as f64
    };
    let before = now_us();
    let run = run(&pki, "handshake", address, &["--count", "3"]);
    let (began, lasted) = (
        run.number("/started_at_unix_us"),
        run.number("/elapsed_seconds") * 1e6,
    );
    assert!(
        before < began && began + lasted < now_us(),
        "{:#}",
        run.report
    );
}

#[test]
fn cipher_suite_and_group_narrow_the_offer() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let good = [
        "--count",
        "2",
        "--cipher-suite",
        "TLS_AES_128_GCM_SHA256",
        "--group",
        "secp256r1",
    ];
    assert_eq!(run(&pki, "handshake", address, &good).code, 0);
    let unknown = run(
        &pki,
        "handshake",
        address,
        &["--cipher-suite", "TLS_RSA_WITH_NULL_MD5"],
    );
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.errors.contains("TLS_CHACHA20_POLY1305_SHA256"),
        "{}",
        unknown.errors
    );
    let unknown = run(&pki, "handshake", address, &["--group", "none"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.errors.contains("X25519MLKEM768"),
        "{}",
        unknown.errors
    );
}

#[test]
fn what_is_out_of_bounds_never_starts() {
    let pki = Pki::new(1);
    let address = "127.0.0.1:9".parse().unwrap();
    let cases: [(&str, &[&str], &str); 11] = [
        ("handshake", &["--for", "2h"], "at most 1h"),
        ("handshake", &["--count", "0"], "must be 1 to"),
        (
            "handshake",
            &["--connections", "1000000"],
            "must be 1 to 60000",
        ),
        ("handshake", &["--threads", "0"], "must be 1 to 64"),
        ("echo", &["--rate=-1"], "--rate"),
        ("echo", &["--size", "1MiB"], "must be 1 B to 64.0 KiB"),
        ("otlp", &["--records", "1000000"], "must be 1 to 10000"),
        ("stream", &["--bytes", "0B"], "must be 1 B to"),
        ("idle", &["--sources", "251"], "must be 1 to 250"),
        (
            "idle",
            &["--sources", "203.0.113.9"],
            "203.0.113.9 is not an address of this host",
        ),
        ("idle", &["--sources", "::1"], "same family as 127.0.0.1"),
    ];
    for (scenario, arguments, expected) in cases {
        let run = run(&pki, scenario, address, arguments);
        assert_eq!(run.code, 2, "{scenario} {arguments:?}: {}", run.errors);
        assert!(
            run.errors.contains(expected),
            "{scenario} {arguments:?}: {}",
            run.errors
        );
    }
}

#[test]
fn table_for_people_says_the_same_as_the_json() {
    let (pki, echo) = (Pki::new(1), backend(BackendKind::Echo));
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let output = program()
        .args([
            "handshake",
            "--count",
            "7",
            "--target",
            &address.to_string(),
            "--server-name",
            "localhost",
        ])
        .arg("--ca")
        .arg(pki.path("ca.pem"))
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(table.contains("no client certificate"), "{table}");
    assert!(
        table.contains("failed: alert_certificate_required"),
        "{table}"
    );
}

/// Runs a scenario over plain TCP.
fn run_plaintext(scenario: &str, address: SocketAddr, arguments: &[&str]) -> Run {
    let target = address.to_string();
    let output = program()
        .args([scenario, "--plaintext", "--json", "--target", &target])
        .args(arguments)
        .output()
        .unwrap();
    report(&output)
}

#[test]
fn without_tls_every_scenario_does_the_same_work_and_says_that_there_was_none() {
    let (echo, sink, source) = (
        backend(BackendKind::Echo),
        backend(BackendKind::Sink),
        backend(BackendKind::Source),
    );
    let receiver = Receiver::start(
        "127.0.0.1:0".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
    )
    .unwrap();
    let cases: [(&str, SocketAddr, &[&str], f64); 9] = [
        ("handshake", echo.address(), &["--count", "20"], 20.0),
        (
            "handshake",
            echo.address(),
            &["--count", "20", "--confirm", "echo"],
            20.0,
        ),
        ("echo", echo.address(), &["--count", "20"], 20.0),
        ("stream", sink.address(), &["--bytes", "1MiB"], 1.0),
        (
            "stream",
            source.address(),
            &["--bytes", "1MiB", "--direction", "down"],
            1.0,
        ),
        ("idle", echo.address(), &["--for", "300ms"], 1.0),
        (
            "hold",
            echo.address(),
            &["--for", "300ms", "--beat", "50ms", "--come-back"],
            1.0,
        ),
        ("otlp", receiver.grpc_address(), &["--count", "5"], 5.0),
        (
            "otlp",
            receiver.http_address(),
            &["--count", "5", "--protocol", "http"],
            5.0,
        ),
    ];
    for (scenario, address, arguments, completed) in cases {
        let run = run_plaintext(scenario, address, arguments);
        assert_eq!(run.code, 0, "{scenario}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/completed"), completed, "{scenario}");
        assert_eq!(run.report["transport"], "plaintext", "{scenario}");
    }
}

#[test]
fn a_run_without_tls_is_never_one_by_mistake() {
    let pki = Pki::new(1);
    let echo = backend(BackendKind::Echo);
    let ca = pki.path("ca.pem");
    let cases: [(&[&str], &str); 3] = [
        (&["--ca", ca.to_str().unwrap()], "--ca"),
        (&["--mode", "resumed"], "no tickets without TLS"),
        (&["--confirm", "ticket"], "no tickets without TLS"),
    ];
    for (arguments, expected) in cases {
        let run = run_plaintext("handshake", echo.address(), arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {:#}", run.report);
        assert!(
            run.errors.contains(expected),
            "{arguments:?}: {}",
            run.errors
        );
    }
    // And one against a server that expects TLS does no work.
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let run = run_plaintext("echo", address, &["--count", "2", "--timeout", "2s"]);
    assert_eq!(
        (run.code, run.number("/completed")),
        (1, 0.0),
        "{:#}",
        run.report
    );
}
