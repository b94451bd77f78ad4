//! The identities of a load: thousands of them, some that must be refused, new ones in mid-run, several addresses.
//! In: real TLS servers that trust some of them. Out: reports, which must say what the server saw.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use loadgen::backend::{Backend, BackendKind};
use support::{Behind, Pki, Run, Trust, program, run, run_as, serve, serve_trusting};

fn echo() -> Backend {
    Backend::start(BackendKind::Echo, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Arguments that have `number` identities issued by the CA of the PKI.
fn issued(pki: &Pki, number: &str) -> Vec<String> {
    let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
    vec![
        "--issue".to_owned(),
        number.to_owned(),
        "--authority".to_owned(),
        file("ca.pem"),
        "--authority-key".to_owned(),
        file("ca.key"),
    ]
}

fn run_issued(
    pki: &Pki,
    number: &str,
    scenario: &str,
    address: SocketAddr,
    arguments: &[&str],
) -> Run {
    let issued = issued(pki, number);
    let all: Vec<&str> = issued
        .iter()
        .map(String::as_str)
        .chain(arguments.iter().copied())
        .collect();
    run_as(pki, scenario, address, &all)
}

/// A list that takes back the first `number` of the issued identities.
fn revocation_list(pki: &Pki, number: &str) -> PathBuf {
    let out = pki.path("agents.crl");
    let status = program()
        .args(["crl", "--identities", number])
        .arg("--authority")
        .arg(pki.path("ca.pem"))
        .arg("--authority-key")
        .arg(pki.path("ca.key"))
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    out
}

/// A server that honours a list of the first `revoked` identities, before an echo.
fn careful(pki: &Pki, revoked: &str, echo: &Backend) -> SocketAddr {
    let trust = Trust {
        revocation_list: Some(revocation_list(pki, revoked)),
        ..Trust::of(pki)
    };
    serve_trusting(pki, 2, Behind::Backend(echo.address()), &trust)
}

#[test]
fn two_thousand_connections_show_two_thousand_certificates() {
    let (pki, echo) = (Pki::new(0), echo());
    let trust = Trust::of(&pki);
    let address = serve_trusting(&pki, 0, Behind::Backend(echo.address()), &trust);
    let arguments = ["--connections", "2000", "--for", "1s", "--timeout", "60s"];
    let run = run_issued(&pki, "2000", "idle", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert_eq!(run.number("/identities"), 2000.0);
    assert_eq!(trust.seen.lock().unwrap().len(), 2000);
}

#[test]
fn every_handshake_shows_another_certificate_when_asked_to() {
    let (pki, echo) = (Pki::new(0), echo());
    for (number, seen) in [("300", 300), ("40", 40)] {
        let trust = Trust::of(&pki);
        let address = serve_trusting(&pki, 0, Behind::Backend(echo.address()), &trust);
        let arguments = [
            "--identity-per-handshake",
            "--connections",
            "3",
            "--count",
            "300",
        ];
        let run = run_issued(&pki, number, "handshake", address, &arguments);
        assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
        assert_eq!(trust.seen.lock().unwrap().len(), seen);
        assert_eq!(run.number("/identities"), seen as f64);
    }
}

#[test]
fn full_and_resumed_handshakes_mix_in_the_ratio_asked_for_with_figures_apart() {
    let (pki, echo) = (Pki::new(3), echo());
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let arguments = [
        "--resume-ratio",
        "0.75",
        "--count",
        "200",
        "--connections",
        "4",
    ];
    let run = run(&pki, "handshake", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert_eq!(run.number("/handshakes/resumed/completed"), 150.0);
    assert_eq!(run.number("/handshakes/full/completed"), 50.0);
    // What rustls says of each connection, not what was planned.
    assert_eq!(run.number("/details/resumed handshakes"), 150.0);
    assert_eq!(run.number("/details/full handshakes"), 50.0);
    for kind in ["full", "resumed"] {
        for figure in [
            format!("/handshakes/{kind}/latency/p50_us"),
            format!("/phases/{kind}/handshake/p50_us"),
        ] {
            assert!(run.number(&figure) > 0.0, "{figure}");
        }
    }
}

#[test]
fn a_mix_that_the_server_does_not_resume_is_a_failure() {
    let (pki, echo) = (Pki::new(1), echo());
    let address = serve(&pki, 0, Behind::Backend(echo.address()));
    let arguments = ["--resume-ratio", "0.5", "--count", "10"];
    let run = run(&pki, "handshake", address, &arguments);
    assert_eq!(run.code, 1);
    assert_eq!(
        run.number("/handshakes/full/completed"),
        5.0,
        "{:#}",
        run.report
    );
    assert_eq!(
        run.number("/handshakes/resumed/failed"),
        5.0,
        "{:#}",
        run.report
    );
}

#[test]
fn revoked_and_expired_shares_are_refused_for_their_own_reasons_and_the_others_served() {
    let (pki, echo) = (Pki::new(0), echo());
    let address = careful(&pki, "4", &echo);
    let shares = ["--revoked-share", "0.2", "--expired-share", "0.1"];
    let cases: [(&str, &[&str]); 4] = [
        ("handshake", &["--count", "100"]),
        ("echo", &["--count", "200"]),
        ("idle", &["--for", "1200ms"]),
        ("stream", &["--direction", "both", "--bytes", "64KiB"]),
    ];
    for (scenario, arguments) in cases {
        let all = [&shares[..], &["--connections", "10"], arguments].concat();
        let run = run_issued(&pki, "20", scenario, address, &all);
        assert_eq!(run.code, 0, "{scenario}: {:#} {}", run.report, run.errors);
        assert!(run.number("/completed") > 0.0);
        for flaw in ["revoked", "expired"] {
            let figure = |name: &str| run.number(&format!("/refusals/{flaw}/{name}"));
            assert!(figure("attempts") >= 1.0, "{scenario}: {:#}", run.report);
            assert_eq!(figure("as_expected"), figure("attempts"), "{scenario}");
            assert_eq!(figure("let_in"), 0.0);
        }
        if scenario == "handshake" {
            let refused =
                run.number("/refusals/revoked/attempts") + run.number("/refusals/expired/attempts");
            assert_eq!(run.number("/completed") + refused, 100.0);
        }
    }
}

#[test]
fn a_server_that_lets_a_revoked_client_in_fails_the_run() {
    let (pki, echo) = (Pki::new(0), echo());
    // It knows of no list.
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    for scenario in ["handshake", "echo"] {
        let arguments = [
            "--revoked-share",
            "0.5",
            "--connections",
            "2",
            "--count",
            "20",
        ];
        let run = run_issued(&pki, "4", scenario, address, &arguments);
        assert_eq!(run.code, 1, "{:#}", run.report);
        let let_in = run.number("/refusals/revoked/let_in");
        assert!(let_in >= 1.0, "{:#}", run.report);
        assert_eq!(run.failures("let_in") as f64, let_in);
        assert_eq!(run.number("/refusals/revoked/as_expected"), 0.0);
    }
}

#[test]
fn a_refusal_for_another_reason_fails_the_run() {
    let (pki, echo) = (Pki::new(0), echo());
    let address = careful(&pki, "1", &echo);
    let arguments = [
        "--revoked-share",
        "0.5",
        "--connections",
        "2",
        "--count",
        "20",
        "--revoked-as",
        "alert_access_denied",
    ];
    let run = run_issued(&pki, "2", "handshake", address, &arguments);
    assert_eq!(run.code, 1, "{:#}", run.report);
    let refused = run.number("/refusals/revoked/otherwise/alert_certificate_revoked");
    assert!(refused >= 1.0, "{:#}", run.report);
    assert_eq!(run.failures("wrong_refusal") as f64, refused);
}

#[test]
fn nobody_there_is_not_taken_for_a_refusal() {
    let pki = Pki::new(0);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let arguments = ["--expired-share", "1", "--count", "3"];
    let run = run_issued(&pki, "1", "handshake", free, &arguments);
    assert_eq!(
        (run.code, run.failures("connect")),
        (1, 3),
        "{:#}",
        run.report
    );
    assert_eq!(run.number("/refusals/expired/as_expected"), 0.0);
}

#[test]
fn new_certificates_in_mid_run_are_used_by_every_connection_and_nothing_fails() {
    let (pki, echo) = (Pki::new(0), echo());
    let cases: [(&str, &[&str]); 3] = [
        ("handshake", &["--mode", "full"]),
        ("handshake", &["--resume-ratio", "0.5"]),
        ("echo", &[]),
    ];
    for (scenario, arguments) in cases {
        let rotation = [
            "--rotate-at",
            "500ms",
            "--connections",
            "4",
            "--rate",
            "100",
            "--count",
            "150",
        ];
        let all = [&rotation[..], arguments].concat();
        let trust = Trust::of(&pki);
        let address = serve_trusting(&pki, 2, Behind::Backend(echo.address()), &trust);
        let run = run_issued(&pki, "4", scenario, address, &all);
        assert_eq!(run.code, 0, "{scenario}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/rotation/connections"), 4.0);
        let (before, after) = (
            run.number("/rotation/before/completed"),
            run.number("/rotation/after/completed"),
        );
        assert!(before > 0.0 && after > 0.0, "{:#}", run.report);
        assert_eq!(before + after, run.number("/completed"));
        assert_eq!(trust.seen.lock().unwrap().len(), 8, "{scenario}");
    }
}

#[test]
fn agents_that_get_a_new_ca_in_mid_run_are_served_only_where_it_is_trusted() {
    let (pki, echo) = (Pki::new(0), echo());
    let both = Trust {
        authorities: vec![pki.path("ca.pem"), pki.path("next.pem")],
        ..Trust::of(&pki)
    };
    let prepared = serve_trusting(&pki, 2, Behind::Backend(echo.address()), &both);
    let unprepared = serve(&pki, 2, Behind::Backend(echo.address()));
    let (next, key) = (pki.path("next.pem"), pki.path("next.key"));
    let arguments = [
        "--rotate-at",
        "400ms",
        "--rotate-authority",
        next.to_str().unwrap(),
        "--rotate-authority-key",
        key.to_str().unwrap(),
        "--connections",
        "2",
        "--rate",
        "50",
        "--count",
        "50",
    ];
    let good = run_issued(&pki, "2", "echo", prepared, &arguments);
    assert_eq!(good.code, 0, "{:#} {}", good.report, good.errors);
    assert!(good.number("/rotation/after/completed") > 0.0);
    let bad = run_issued(&pki, "2", "echo", unprepared, &arguments);
    assert_eq!(bad.code, 1, "{:#}", bad.report);
    assert_eq!(bad.number("/rotation/before/failed"), 0.0);
    assert_eq!(bad.number("/rotation/after/completed"), 0.0);
    // The first handshakes as the new ones, and that none of the work was done as them.
    assert!(bad.number("/rotation/after/failed") > 0.0);
    assert_eq!(bad.failures("untried"), 1);
}

#[test]
fn exporters_change_their_identity_between_two_requests() {
    let pki = Pki::new(2);
    let any = "127.0.0.1:0".parse().unwrap();
    let receiver = loadgen::receiver::Receiver::start(any, any).unwrap();
    let folder = pki.path("agents");
    for (protocol, backend) in [
        ("grpc", receiver.grpc_address()),
        ("http", receiver.http_address()),
    ] {
        let address = serve(&pki, 2, Behind::Backend(backend));
        let arguments = [
            "--protocol",
            protocol,
            "--rotate-at",
            "400ms",
            "--rotate-identities",
            folder.to_str().unwrap(),
            "--connections",
            "2",
            "--rate",
            "40",
            "--count",
            "40",
            "--records",
            "2",
        ];
        let run = run(&pki, "otlp", address, &arguments);
        assert_eq!(run.code, 0, "{protocol}: {:#} {}", run.report, run.errors);
        assert_eq!(run.number("/rotation/connections"), 2.0);
        assert_eq!(
            run.number("/details/records acknowledged"),
            run.number("/details/records sent")
        );
    }
}

#[test]
fn several_addresses_get_their_turns_and_their_own_figures() {
    let (pki, echo) = (Pki::new(2), echo());
    let one = serve(&pki, 2, Behind::Backend(echo.address()));
    let other = serve(&pki, 2, Behind::Backend(echo.address()));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (other, nobody) = (other.to_string(), nobody.to_string());
    let arguments = ["--target", &other, "--connections", "4", "--count", "80"];
    let both = run(&pki, "handshake", one, &arguments);
    assert_eq!(both.code, 0, "{:#} {}", both.report, both.errors);
    let completed = |run: &Run, name: &str| run.report["targets"][name]["completed"].as_f64();
    let sum = completed(&both, &one.to_string())
        .zip(completed(&both, &other))
        .map(|(one, other)| {
            assert!(one > 0.0 && other > 0.0, "{:#}", both.report);
            one + other
        });
    assert_eq!(sum, Some(80.0));
    let arguments = ["--target", &nobody, "--connections", "2", "--count", "40"];
    let half = run(&pki, "handshake", one, &arguments);
    assert_eq!(half.code, 1);
    assert_eq!(completed(&half, &nobody), Some(0.0), "{:#}", half.report);
    assert_eq!(
        half.report["targets"][&nobody]["failed"].as_f64(),
        Some(half.number("/failed"))
    );
    let few = run(&pki, "handshake", one, &["--target", &other]);
    assert_eq!(few.code, 2);
    assert!(few.errors.contains("at least as many"), "{}", few.errors);
    let same = one.to_string();
    let twice = ["--connections", "2", "--target", &same];
    let twice = run(&pki, "handshake", one, &twice);
    assert_eq!(twice.code, 2);
    assert!(twice.errors.contains("given twice"), "{}", twice.errors);
}
