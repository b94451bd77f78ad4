//! Requests over HTTP/1.1 and HTTP/2 to the bundled backend, over TLS with certificates on both sides: what is counted,
//! and that an acknowledged request which never arrived is found.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use loadgen::http_backend::{HttpBackend, HttpBackendOptions, ServerIdentity};
use loadgen::request::HttpVersion;
use support::{Pki, Run, run};

const KINDS: [(HttpVersion, &str, &str); 8] = [
    (HttpVersion::H2, "h2", "grpc"),
    (HttpVersion::H2, "h2", "grpc-stream"),
    (HttpVersion::H2, "h2", "otlp"),
    (HttpVersion::H2, "h2", "remote-write"),
    (HttpVersion::H2, "h2", "post"),
    (HttpVersion::H1, "h1", "otlp"),
    (HttpVersion::H1, "h1", "remote-write"),
    (HttpVersion::H1, "h1", "post"),
];

fn backend(pki: &Pki, version: HttpVersion, reads_content: bool) -> HttpBackend {
    start(pki, version, reads_content, None)
}

fn start(
    pki: &Pki,
    version: HttpVersion,
    reads_content: bool,
    store: Option<PathBuf>,
) -> HttpBackend {
    let identity = ServerIdentity::load(
        &pki.path("server.pem"),
        &pki.path("server.key"),
        &[pki.path("ca.pem")],
        version,
    );
    let options = HttpBackendOptions {
        version,
        identity: Some(identity.unwrap()),
        reads_content,
        streams_max: 100,
        store,
    };
    let any = "127.0.0.1:0".parse().unwrap();
    HttpBackend::start(options, any, Some(any)).unwrap()
}

fn load(pki: &Pki, backend: &HttpBackend, scenario: &str, arguments: &str) -> Run {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run(pki, scenario, backend.address(), &arguments)
}

fn detail(run: &Run, name: &str) -> u64 {
    run.report["details"][name].as_u64().unwrap_or(0)
}

#[test]
fn each_kind_of_request_is_acknowledged_and_arrives_over_each_version() {
    let pki = Pki::new(2);
    for (version, scenario, kind) in KINDS {
        let backend = backend(&pki, version, true);
        let stats = backend.stats_address().unwrap();
        let load = load(
            &pki,
            &backend,
            scenario,
            &format!("--kind {kind} --connections 2 --count 60 --arrivals {stats}"),
        );
        let what = format!("{scenario} {kind}: {:#} {}", load.report, load.errors);
        assert_eq!(load.code, 0, "{what}");
        assert_eq!(load.number("/completed"), 60.0, "{what}");
        for count in ["acknowledged", "answers 2xx", "arrived"] {
            assert_eq!(detail(&load, count), 60, "{count}: {what}");
        }
        assert_eq!(detail(&load, "arrived more than once"), 0, "{what}");
        let stats = backend.stats();
        assert_eq!(
            (stats.connections, stats.unreadable),
            (2, Some(0)),
            "{what}"
        );
        let by_connection: u64 = stats.requests_by_connection.iter().sum();
        assert_eq!((by_connection, stats.requests), (60, 60), "{what}");
    }
}

#[test]
fn streams_of_a_connection_are_busy_at_the_same_time() {
    let (pki, path) = (Pki::new(1), "/delay=100ms");
    let backend = backend(&pki, HttpVersion::H2, false);
    let arguments = format!("--streams 16 --count 64 --path {path}");
    let load = load(&pki, &backend, "h2", &arguments);
    assert_eq!(load.code, 0, "{:#} {}", load.report, load.errors);
    assert_eq!(backend.stats().requests_by_connection, [64]);
    // One at a time would take 6.4 s.
    let elapsed = load.number("/elapsed_seconds");
    assert!((0.4..3.2).contains(&elapsed), "{elapsed}");
}

#[test]
fn messages_of_a_stream_each_have_a_number() {
    let pki = Pki::new(1);
    let backend = backend(&pki, HttpVersion::H2, true);
    let stats = backend.stats_address().unwrap();
    let arguments = format!("--kind grpc-stream --messages 50 --count 10 --arrivals {stats}");
    let load = load(&pki, &backend, "h2", &arguments);
    assert_eq!(load.code, 0, "{:#} {}", load.report, load.errors);
    assert_eq!(detail(&load, "arrived"), 500);
    assert_eq!(load.number("/bytes_up"), 500.0 * 526.0);
}

#[test]
fn an_acknowledged_request_that_did_not_arrive_fails_the_run() {
    let pki = Pki::new(1);
    let backend = backend(&pki, HttpVersion::H2, true);
    let stats = backend.stats_address().unwrap();
    // The backend answers before it has read what was sent.
    let arguments = format!("--kind post --path /early --count 5 --arrivals {stats}");
    let load = load(&pki, &backend, "h2", &arguments);
    assert_eq!(load.code, 1, "{:#} {}", load.report, load.errors);
    assert_eq!(detail(&load, "acknowledged"), 5);
    assert_eq!(detail(&load, "acknowledged and not arrived"), 5);
    assert_eq!(load.failures("lost"), 5);
}

#[test]
fn a_backend_that_leaves_answers_what_has_come() {
    let pki = Pki::new(1);
    for (version, scenario, streams) in [(HttpVersion::H2, "h2", 8), (HttpVersion::H1, "h1", 1)] {
        let mut backend = backend(&pki, version, false);
        let address = backend.address();
        let arguments = match version {
            HttpVersion::H2 => "--streams 8 --count 8 --path /delay=400ms",
            HttpVersion::H1 => "--count 1 --path /delay=400ms",
        };
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let load = thread::scope(|scope| {
            let load = scope.spawn(|| run(&pki, scenario, address, &arguments));
            while backend.stats().requests < streams {
                thread::sleep(Duration::from_millis(5));
            }
            backend.leave();
            load.join().unwrap()
        });
        assert_eq!(load.code, 0, "{:#} {}", load.report, load.errors);
        assert_eq!(detail(&load, "acknowledged"), streams);
        assert!(TcpStream::connect(address).is_err(), "nothing listens");
    }
}

#[test]
fn what_a_backend_has_stored_is_known_to_the_next_one() {
    let pki = Pki::new(1);
    let file = pki.path("arrived.txt");
    let first = start(&pki, HttpVersion::H2, true, Some(file.clone()));
    let sent = load(&pki, &first, "h2", "--count 20");
    assert_eq!(sent.code, 0, "{:#} {}", sent.report, sent.errors);
    let arrived = first.stats().arrivals;
    drop(first);
    let next = start(&pki, HttpVersion::H2, true, Some(file));
    assert_eq!(next.stats().arrivals, arrived);
    let mut senders = arrived.iter().flat_map(|arrived| arrived.senders.values());
    assert_eq!(senders.next().map(|numbers| numbers.count()), Some(20));
}

#[test]
fn long_content_arrives_whole_with_a_pause_in_the_middle() {
    let pki = Pki::new(1);
    for (version, scenario) in [(HttpVersion::H2, "h2"), (HttpVersion::H1, "h1")] {
        let backend = backend(&pki, version, true);
        let stats = backend.stats_address().unwrap();
        let arguments =
            format!("--kind post --size 4MiB --path /pause=300ms --count 2 --arrivals {stats}");
        let load = load(&pki, &backend, scenario, &arguments);
        assert_eq!(load.code, 0, "{:#} {}", load.report, load.errors);
        assert_eq!(detail(&load, "arrived"), 2);
        let stats = backend.stats();
        assert_eq!((stats.content_bytes, stats.unreadable), (8 << 20, Some(0)));
        let elapsed = load.number("/elapsed_seconds");
        assert!(elapsed > 0.6, "{elapsed}");
    }
}

#[test]
fn answers_are_counted_by_status_and_by_what_an_agent_does_next() {
    let pki = Pki::new(1);
    let cases = [
        ("h2", "grpc", "/status=503", "http_503", "answers 5xx", true),
        (
            "h2",
            "grpc",
            "/grpc-status=14",
            "grpc_unavailable",
            "grpc unavailable",
            true,
        ),
        (
            "h2",
            "grpc",
            "/grpc-status=7",
            "grpc_permission_denied",
            "grpc permission_denied",
            false,
        ),
        (
            "h2",
            "grpc",
            "/reset=7",
            "stream_reset_refused_stream",
            "unanswered",
            false,
        ),
        ("h1", "otlp", "/status=429", "http_429", "answers 4xx", true),
        (
            "h1",
            "remote-write",
            "/status=429",
            "http_429",
            "answers 4xx",
            false,
        ),
        ("h1", "post", "/reset=2", "truncated", "unanswered", false),
    ];
    for (scenario, kind, path, failure, count, is_sent_again) in cases {
        let version = match scenario {
            "h2" => HttpVersion::H2,
            _ => HttpVersion::H1,
        };
        let backend = backend(&pki, version, false);
        let arguments = format!("--kind {kind} --path {path} --count 3");
        let load = load(&pki, &backend, scenario, &arguments);
        let what = format!("{kind} {path}: {:#} {}", load.report, load.errors);
        assert_eq!(load.code, 1, "{what}");
        assert_eq!(
            (load.failures(failure), detail(&load, count)),
            (3, 3),
            "{what}"
        );
        let again = detail(&load, "an agent sends it again");
        assert_eq!(again, 3 * u64::from(is_sent_again), "{what}");
    }
}

#[test]
fn a_backend_that_stalls_costs_the_time_out_and_no_more() {
    let pki = Pki::new(1);
    for (version, scenario) in [(HttpVersion::H1, "h1"), (HttpVersion::H2, "h2")] {
        let backend = backend(&pki, version, false);
        let arguments = "--kind post --path /stall --count 2 --timeout 300ms --size 4MiB";
        let load = load(&pki, &backend, scenario, arguments);
        assert_eq!(load.failures("timeout"), 2, "{:#}", load.report);
    }
}

#[test]
fn large_content_is_made_while_it_is_sent_and_comes_whole() {
    let pki = Pki::new(1);
    for (version, scenario) in [(HttpVersion::H1, "h1"), (HttpVersion::H2, "h2")] {
        let backend = backend(&pki, version, false);
        let arguments = "--kind post --path /bytes=3000000 --count 2 --size 20MiB";
        let load = load(&pki, &backend, scenario, arguments);
        assert_eq!(load.code, 0, "{:#} {}", load.report, load.errors);
        assert_eq!(backend.stats().content_bytes, 40 << 20);
        assert_eq!(load.number("/bytes_down"), 6e6);
    }
}

#[test]
fn a_field_is_sent_as_given_and_counted_by_its_values() {
    let pki = Pki::new(1);
    for (version, scenario) in [(HttpVersion::H1, "h1"), (HttpVersion::H2, "h2")] {
        let backend = backend(&pki, version, false);
        load(&pki, &backend, scenario, "--count 2");
        let forged = "--count 3 --header x-scope-orgid=one --header X-Scope-OrgID=two";
        load(&pki, &backend, scenario, forged);
        let tenants = backend.stats().tenants;
        let counted: Vec<_> = tenants
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(counted, [("(none)", 2), ("one, two", 3)]);
    }
}

#[test]
fn a_held_connection_has_had_a_request_and_is_noticed_when_it_ends() {
    let pki = Pki::new(1);
    for (version, scenario) in [(HttpVersion::H1, "h1"), (HttpVersion::H2, "h2")] {
        let backend = backend(&pki, version, false);
        let held = load(
            &pki,
            &backend,
            scenario,
            "--hold --connections 5 --for 500ms",
        );
        assert_eq!(held.code, 0, "{:#} {}", held.report, held.errors);
        assert_eq!(held.number("/completed"), 5.0);
        let stats = backend.stats();
        assert_eq!((stats.connections, stats.requests), (5, 5));
        let address = backend.address();
        let arguments = ["--hold", "--for", "20s"];
        thread::scope(|scope| {
            let held = scope.spawn(|| run(&pki, scenario, address, &arguments));
            while backend.stats().requests < 6 {
                thread::sleep(Duration::from_millis(20));
            }
            drop(backend);
            let held = held.join().unwrap();
            assert_eq!(held.code, 1, "{:#} {}", held.report, held.errors);
            assert_eq!(held.number("/failed"), 1.0, "{:#}", held.report);
            assert!(held.number("/elapsed_seconds") < 15.0);
        });
    }
}

#[test]
fn what_fits_together_badly_is_refused_before_any_load() {
    let pki = Pki::new(1);
    let backend = backend(&pki, HttpVersion::H2, false);
    for (scenario, arguments) in [
        ("h1", "--kind grpc"),
        ("h2", "--messages 2"),
        ("h2", "--size 10B"),
        ("h2", "--streams 0"),
        ("h2", "--path v1/traces"),
        ("h2", "--header forged"),
    ] {
        let load = load(&pki, &backend, scenario, arguments);
        assert_eq!(load.code, 2, "{scenario} {arguments}: {}", load.errors);
    }
    assert_eq!(backend.stats().connections, 0);
}
