//! Adverse clients against the bundled backend, whose HTTP/2 is the h2 crate's: that each kind is what it says, by what a
//! server with known bounds does with it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use loadgen::http_backend::{HttpBackend, HttpBackendOptions, ServerIdentity};
use loadgen::request::HttpVersion;
use serde_json::Value;
use support::{Pki, run};

fn backend(pki: &Pki) -> HttpBackend {
    let identity = ServerIdentity::load(
        &pki.path("server.pem"),
        &pki.path("server.key"),
        &[pki.path("ca.pem")],
        HttpVersion::H2,
    );
    let options = HttpBackendOptions {
        version: HttpVersion::H2,
        identity: Some(identity.unwrap()),
        reads_content: false,
        streams_max: 100,
        store: None,
    };
    HttpBackend::start(options, "127.0.0.1:0".parse().unwrap(), None).unwrap()
}

/// The outcomes of attempts of one kind.
fn outcomes(pki: &Pki, backend: &HttpBackend, kind: &str, arguments: &str) -> Value {
    let mut all = vec![kind];
    all.extend(arguments.split_whitespace());
    let run = run(pki, "adverse", backend.address(), &all);
    assert_eq!(run.code, 0, "{kind}: {:#} {}", run.report, run.errors);
    let attempts = &run.report["flood"]["kinds"][kind];
    assert_eq!(attempts["made"], attempts["connected"], "{:#}", run.report);
    attempts["outcomes"].clone()
}

#[test]
fn floods_that_a_server_bounds_end_by_its_words_and_others_are_served() {
    let pki = Pki::new(1);
    let calm = "goaway_enhance_your_calm";
    let cases = [
        ("rapid-reset", calm),
        ("made-you-reset", calm),
        ("continuation", calm),
        ("settings", "served"),
        ("ping", "served"),
        ("empty-data", calm),
        ("tiny-data", "served"),
        ("window-update", "served"),
        ("unknown-frames", "served"),
        ("hpack-bomb", "served"),
    ];
    for (kind, expected) in cases {
        let backend = backend(&pki);
        let frames = match kind {
            "hpack-bomb" => "20",
            _ => "5000",
        };
        let arguments = format!("--count 2 --frames {frames}");
        let outcomes = outcomes(&pki, &backend, kind, &arguments);
        assert_eq!(outcomes[expected], 2, "{kind}: {outcomes}");
    }
}

#[test]
fn a_client_without_credit_or_haste_is_held_until_the_time_out() {
    let pki = Pki::new(1);
    for (kind, path) in [
        ("zero-window", "/bytes=100000"),
        ("slow-reader", "/bytes=10000000"),
        ("slow-writer", "/"),
        ("open-windows", "/stall"),
    ] {
        let backend = backend(&pki);
        let arguments = format!("--count 1 --streams 5 --timeout 1s --path {path}");
        let outcomes = outcomes(&pki, &backend, kind, &arguments);
        assert_eq!(outcomes["held"], 1, "{kind}: {outcomes}");
        let expected = if kind == "slow-writer" { 1 } else { 5 };
        assert_eq!(backend.stats().requests, expected, "{kind}");
    }
}

#[test]
fn open_windows_are_filled_and_no_more_than_filled() {
    let pki = Pki::new(1);
    // A backend that takes content gives credit for ever: the most content is what ends the sending.
    let backend = backend(&pki);
    let arguments = "--count 1 --streams 3 --timeout 2s --path / --size 5MiB";
    let held = outcomes(&pki, &backend, "open-windows", arguments);
    assert_eq!(held["held"], 1, "{held}");
    assert_eq!(backend.stats().content_bytes, 15 << 20);
}

#[test]
fn only_a_target_that_is_ours_is_attacked() {
    let pki = Pki::new(1);
    let target = "192.0.2.1:4317".parse().unwrap();
    let run = run(&pki, "adverse", target, &["ping", "--count", "1"]);
    assert_eq!(run.code, 2);
    assert!(run.errors.contains("neither loopback"), "{}", run.errors);
}
