//! What a report says beyond the figures of the work: phases, a page to send around, and whether to trust it.
//! The program against real servers; a generator that is made to miss things must say that it did.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use loadgen::backend::{Backend, BackendKind};
use rustix::process::{Pid, Signal, kill_process};
use support::{Behind, Pki, program, report, run, serve};

#[test]
fn a_server_that_ends_in_the_middle_costs_its_own_figures_and_not_the_report() {
    let (pki, echo) = (Pki::new(1), echo());
    let address = serve(&pki, 1, Behind::Backend(echo.address()));
    let mut measured = std::process::Command::new("sleep")
        .arg("1")
        .spawn()
        .unwrap();
    let pid = measured.id().to_string();
    let arguments = ["--for", "3s", "--server-pid", &pid];
    let run = run(&pki, "echo", address, &arguments);
    measured.wait().unwrap();
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert!(run.number("/completed") > 0.0);
    assert!(run.report["server"].is_null(), "{:#}", run.report);
    let lost = run.report["server_lost"].as_str().unwrap_or_default();
    assert!(lost.contains(&pid), "{:#}", run.report);
}

#[test]
fn a_report_says_where_how_and_over_what_it_was_measured() {
    let (pki, echo) = (Pki::new(1), echo());
    let address = serve(&pki, 1, Behind::Backend(echo.address()));
    let run = run(&pki, "echo", address, &["--count", "3"]);
    let negotiated = run.report["negotiated"].as_str().unwrap_or_default();
    assert!(negotiated.starts_with("TLS_AES_"), "{:#}", run.report);
    let environment = &run.report["environment"];
    let command = environment["command"].as_str().unwrap();
    assert!(
        command.contains("echo") && command.contains("--count 3"),
        "{command}"
    );
    for part in ["host", "kernel", "cpus", "load_average"] {
        let said = environment[part].as_str().unwrap_or_default();
        assert!(!said.is_empty(), "{part}: {environment:#}");
    }
}

fn echo() -> Backend {
    Backend::start(BackendKind::Echo, "127.0.0.1:0".parse().unwrap()).unwrap()
}

#[test]
fn each_phase_of_a_connection_has_its_own_latency_however_it_is_confirmed() {
    let (pki, echo) = (Pki::new(1), echo());
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    for confirm in ["close", "ticket", "echo"] {
        let arguments = ["--count", "20", "--confirm", confirm];
        let run = run(&pki, "handshake", address, &arguments);
        assert_eq!(run.code, 0, "{confirm}: {:#} {}", run.report, run.errors);
        let phase = |name: &str| run.number(&format!("/phases/full/{name}/p50_us"));
        let phases = [phase("connect"), phase("handshake"), phase("first_byte")];
        assert!(
            phases.iter().all(|time| *time > 0.0),
            "{confirm}: {phases:?}"
        );
        // Cryptography on both sides against an answer of this host's kernel.
        assert!(phases[1] > phases[0], "{confirm}: {phases:?}");
        assert!(run.report["phases"].get("resumed").is_none());
    }
    let held = run(&pki, "echo", address, &["--count", "20"]);
    assert!(held.number("/phases/full/first_byte/p50_us") > 0.0);
}

#[test]
fn connections_that_only_fetch_tickets_are_in_no_phase() {
    let (pki, echo) = (Pki::new(1), echo());
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let arguments = ["--mode", "resumed", "--count", "20"];
    let run = run(&pki, "handshake", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert!(run.number("/phases/resumed/handshake/p50_us") > 0.0);
    assert!(
        run.report["phases"].get("full").is_none(),
        "{:#}",
        run.report
    );
}

#[test]
fn a_page_shows_the_same_run_with_charts_and_loads_nothing() {
    let (pki, echo) = (Pki::new(2), echo());
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let file = pki.path("report.html");
    let arguments = [
        "--resume-ratio",
        "0.5",
        "--rate",
        "50",
        "--count",
        "125",
        "--connections",
        "2",
        "--html",
        file.to_str().unwrap(),
    ];
    let run = run(&pki, "handshake", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    let page = std::fs::read_to_string(&file).unwrap();
    let completed = format!(">{} (", run.number("/completed"));
    for part in [
        &address.to_string(),
        &completed,
        "Latency",
        "Phases",
        "In the course of the run",
        "The load generator itself",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert_eq!(page.matches("<svg").count(), 4);
    for word in ["src=", "href=", "<script", "@import"] {
        assert!(!page.contains(word), "{word}");
    }
    // One entry for each second, and each unit in one of them.
    let seconds = run.report["seconds"].as_array().unwrap();
    let sum: f64 = seconds
        .iter()
        .map(|second| second["completed"].as_f64().unwrap())
        .sum();
    assert!(seconds.len() >= 3, "{seconds:?}");
    assert_eq!(sum, run.number("/completed"));
}

#[test]
fn a_page_of_a_run_without_tls_says_so_first() {
    let (pki, echo) = (Pki::new(0), echo());
    let file = pki.path("report.html");
    let status = program()
        .args(["echo", "--plaintext", "--count", "5", "--target"])
        .arg(echo.address().to_string())
        .arg("--html")
        .arg(&file)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let page = std::fs::read_to_string(&file).unwrap();
    let (lead, _) = page.split_once("<h2>").unwrap();
    assert!(lead.contains("Without TLS"), "{lead}");
}

#[test]
fn a_generator_that_stood_still_does_not_trust_its_own_figures() {
    let echo = echo();
    let running = program()
        .args(["echo", "--plaintext", "--json", "--for", "3s"])
        .args(["--fail-when-untrusted", "--target"])
        .arg(echo.address().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&running);
    let patience = Instant::now() + Duration::from_secs(30);
    while echo.counts().received.load(Ordering::Relaxed) < 100_000 {
        assert!(Instant::now() < patience, "the load never began");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(pid, Signal::STOP).unwrap();
    thread::sleep(Duration::from_secs(1));
    kill_process(pid, Signal::CONT).unwrap();
    let run = report(&running.wait_with_output().unwrap());
    // The server did nothing wrong, and all work was done.
    assert_eq!(
        run.number("/failed"),
        0.0,
        "{:#} {}",
        run.report,
        run.errors
    );
    assert!(run.number("/completed") > 0.0);
    assert_eq!(run.code, 1, "{:#}", run.report["generator"]);
    assert_eq!(run.report["generator"]["is_trustworthy"], false);
    // Whoever reads only the latency would not have noticed: it was one echo among thousands.
    assert!(run.number("/generator/lag/max_us") > 900_000.0);
    let doubts = run.report["generator"]["doubts"].to_string();
    assert!(doubts.contains("waited"), "{doubts}");
}

#[test]
fn a_server_of_known_speed_is_never_measured_as_faster() {
    let delay = Duration::from_millis(20);
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Backend::start_slow(BackendKind::Echo, delay, any).unwrap();
    for threads in ["1", "2"] {
        let output = program()
            .args(["echo", "--plaintext", "--json", "--connections", "8"])
            .args(["--count", "200", "--threads", threads, "--target"])
            .arg(server.address().to_string())
            .output()
            .unwrap();
        let run = report(&output);
        assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
        // Three digits are kept of a latency.
        assert!(run.number("/latency/p50_us") > 19_900.0, "{:#}", run.report);
        assert!(run.number("/per_second") <= 8.0 / 0.02, "{:#}", run.report);
        let uses = run.report["generator"]["threads"].as_array().unwrap().len();
        assert_eq!(uses.to_string(), threads);
    }
}
