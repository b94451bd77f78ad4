//! OpenTelemetry's Collector as agent and as backend, with mTLS on both sides of the gateway.
//! In: an agent with a queue on disk, and what happens on a bad day between the two. Out: what arrived, record by record.

use std::fs;
use std::ops::Range;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tests::{
    Collector, Exporter, Gateway, Metrics, Request, SIGNALS, Setup, Workspace, eventually, program,
};

const HANDSHAKES: &str = "portcullis_handshakes_total";
const ENDED: &str = "portcullis_connections_ended_total";
const FAILURES: &str = "portcullis_handshake_failures_total";

/// Records in one request.
const REQUEST: usize = 10;

/// Listeners as docs/clients.md has them for a Collector, with further keys for each.
fn start(workspace: &Workspace, top: &str, listener: &str) -> Gateway {
    let backend = workspace.backend_keys();
    setup(workspace, &backend, top, listener).start()
}

fn setup<'w>(workspace: &'w Workspace, backend: &str, top: &str, listener: &str) -> Setup<'w> {
    let grpc = format!("alpn = [\"h2\"]\n{listener}");
    workspace
        .setup()
        .top(top)
        .route(
            "otlp-grpc",
            &grpc,
            &[Collector::backend_grpc(workspace)],
            backend,
        )
        .route(
            "otlp-http",
            listener,
            &[Collector::backend_http(workspace)],
            backend,
        )
}

/// Has another process take over from the gateway, which ends when its connections have.
fn succeed(gateway: &mut Gateway, setup: Setup<'_>) {
    let next = setup.takes_over().start();
    assert!(gateway.wait().success(), "{}", gateway.log());
    *gateway = next;
}

/// An agent that exports over gRPC.
fn agent(workspace: &Workspace, gateway: &Gateway) -> Collector {
    let exporter = Exporter::grpc("grpc", gateway.address_of("otlp-grpc"), "gzip");
    Collector::agent(workspace, &workspace.agent, vec![exporter])
}

/// Hands spans to the agent, a request at a time, as a program would that makes some all the time.
fn trickle(agent: &Collector, numbers: Range<usize>) {
    for first in numbers.step_by(REQUEST) {
        agent.send(0, "grpc", "traces", first..first + REQUEST, 0);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn three_signals_arrive_once_each_whatever_the_transport_and_compression() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = start(&workspace, "", "");
    let grpc = gateway.address_of("otlp-grpc");
    let ways = ["gzip", "zstd", "snappy", "http-gzip", "http-zstd"];
    let exporters = vec![
        Exporter::grpc(ways[0], grpc, "gzip"),
        Exporter::grpc(ways[1], grpc, "zstd"),
        Exporter::grpc(ways[2], grpc, "snappy"),
        Exporter::http(ways[3], gateway.address_of("otlp-http"), "gzip"),
        Exporter::http(ways[4], gateway.address_of("otlp-http"), "zstd"),
    ];
    let agent = Collector::agent(&workspace, &workspace.agent, exporters);
    let records = 100;
    for (exporter, way) in ways.into_iter().enumerate() {
        for signal in SIGNALS {
            for first in (0..records).step_by(REQUEST) {
                agent.send(exporter, way, signal, first..first + REQUEST, 0);
            }
        }
    }
    for way in ways {
        for signal in SIGNALS {
            let doubled = Collector::wait_for_all(&workspace, signal, way, records);
            assert_eq!(doubled, 0, "{way}, {signal}");
        }
    }
    // Three exporters, and a connection for each signal of theirs.
    let metrics = gateway.metrics();
    assert_eq!(metrics.count(HANDSHAKES, &[("listener", "otlp-grpc")]), 9);
    assert_eq!(metrics.by_label(FAILURES, "reason").len(), 0);
}

#[test]
fn nothing_is_lost_when_the_backend_is_killed_and_comes_back() {
    let workspace = Workspace::new();
    let (mut backend, _store) = Collector::backend_with_a_queue(&workspace);
    let gateway = start(&workspace, "", "");
    let agent = agent(&workspace, &gateway);
    trickle(&agent, 0..200);
    for round in 1..3 {
        backend.kill();
        trickle(&agent, round * 400 - 200..round * 400);
        backend.start_again();
        trickle(&agent, round * 400..round * 400 + 200);
    }
    Collector::wait_for_all(&workspace, "traces", "grpc", 1000);
}

#[test]
fn nothing_is_lost_when_the_gateway_is_stopped_or_killed_and_started_again() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let top = "drain_timeout = \"2s\"";
    let mut gateway = start(&workspace, top, "");
    let agent = agent(&workspace, &gateway);
    trickle(&agent, 0..200);
    for round in 0..2 {
        thread::scope(|scope| {
            let sending = scope.spawn(|| trickle(&agent, 200 + round * 200..400 + round * 200));
            if round == 0 {
                gateway.terminate();
                assert!(gateway.wait().success());
            } else {
                gateway.process().kill();
            }
            sending.join().unwrap();
        });
        gateway.start_again();
    }
    trickle(&agent, 600..800);
    Collector::wait_for_all(&workspace, "traces", "grpc", 800);
}

#[test]
fn nothing_is_lost_when_one_process_of_the_gateway_takes_over_from_another() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let backend = workspace.backend_keys();
    let setup = || setup(&workspace, &backend, "drain_timeout = \"2s\"", "");
    let mut gateway = setup().start();
    let agent = agent(&workspace, &gateway);
    trickle(&agent, 0..200);
    for round in 1..3 {
        thread::scope(|scope| {
            let sending = scope.spawn(|| trickle(&agent, round * 200..round * 200 + 200));
            succeed(&mut gateway, setup());
            sending.join().unwrap();
        });
    }
    Collector::wait_for_all(&workspace, "traces", "grpc", 600);
}

#[test]
fn nothing_is_lost_when_connections_have_a_greatest_age() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = start(&workspace, "", "max_connection_age = \"1s\"");
    let agent = agent(&workspace, &gateway);
    trickle(&agent, 0..1000);
    Collector::wait_for_all(&workspace, "traces", "grpc", 1000);
    let ended = gateway.metrics().by_label(ENDED, "reason");
    assert!(
        ended.get("age").is_some_and(|count| *count > 0),
        "{ended:?}"
    );
}

/// Gives the agent a certificate of so many seconds, in place of the one it has.
fn renew(workspace: &Workspace, number: usize, seconds: i64) {
    let request = Request::client("spiffe://example.test/agent/agent-1").seconds(seconds);
    let issued = workspace.agents.issue(&format!("short-{number}"), request);
    for (from, to) in [
        (&issued.key, &workspace.agent.key),
        (&issued.certificate, &workspace.agent.certificate),
    ] {
        fs::rename(from, to).unwrap();
    }
}

#[test]
fn an_agent_whose_certificates_last_seconds_renews_them_and_loses_nothing() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = start(
        &workspace,
        "",
        "at_expiry = \"drain\"\nexpiry_drain = \"3s\"",
    );
    let renew = |number| renew(&workspace, number, 9);
    renew(0);
    let agent = agent(&workspace, &gateway);
    let renewals = 5;
    for round in 0..renewals {
        trickle(&agent, round * 400..round * 400 + 400);
        // Two seconds of sending, and one of pause: a certificate lives three rounds.
        thread::sleep(Duration::from_secs(1));
        renew(round + 1);
    }
    let doubled = Collector::wait_for_all(&workspace, "traces", "grpc", renewals * 400);
    assert_eq!(doubled, 0);
    let metrics = gateway.metrics();
    assert!(metrics.count(HANDSHAKES, &[("listener", "otlp-grpc")]) >= 2);
    let failures = metrics.by_label(FAILURES, "reason");
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn what_a_blocked_agent_could_not_send_arrives_once_it_is_unblocked() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = start(&workspace, "", "");
    let agent = agent(&workspace, &gateway);
    trickle(&agent, 0..100);
    Collector::wait_for_all(&workspace, "traces", "grpc", 100);
    // It connects for each signal, whether it has data or not; on a busy host some time after the first has arrived.
    let at_least_three = |name: &str, labels: &[(&str, &str)]| {
        eventually(&format!("{name}{labels:?} becomes 3 or more"), || {
            (gateway.metrics().count(name, labels) >= 3).then_some(())
        });
    };
    at_least_three(HANDSHAKES, &[("listener", "otlp-grpc")]);
    let block = |command: &str, more: &[&str]| {
        let mut portcullis = Command::new(program("portcullis"));
        portcullis.args([command, "--identity", "spiffe://example.test/agent/agent-1"]);
        portcullis.args(more).arg("--config");
        let output = portcullis
            .arg(workspace.folder().join("portcullis.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    };
    block("block", &["--reason", "test"]);
    // More than three, where it was back on one worker before the block was in force on the other.
    at_least_three(ENDED, &[("listener", "otlp-grpc"), ("reason", "blocked")]);
    trickle(&agent, 100..300);
    eventually("the agent is refused again and again", || {
        let refused = [("listener", "otlp-grpc"), ("reason", "blocked")];
        (gateway.metrics().count(FAILURES, &refused) >= 2).then_some(())
    });
    assert_eq!(Collector::delivered(&workspace, "traces").len(), 100);
    block("unblock", &[]);
    trickle(&agent, 300..400);
    Collector::wait_for_all(&workspace, "traces", "grpc", 400);
}

#[test]
fn with_a_rate_at_which_a_batch_passes_within_the_exporters_timeout_everything_arrives_late() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = limited(&workspace, "256KiB");
    // One batch at a time, of 300 KiB: a second and a quarter of the rate, well within five.
    let exporter = one_at_a_time(&gateway, "5s");
    let agent = Collector::agent(&workspace, &workspace.agent, vec![exporter]);
    for number in 0..8 {
        agent.send(0, "grpc", "logs", number..number + 1, 300 << 10);
    }
    let doubled = Collector::wait_for_all(&workspace, "logs", "grpc", 8);
    assert_eq!(doubled, 0, "a batch timed out and was sent again");
    let slowed = "portcullis_identity_slowed_seconds_total";
    let slowed = gateway.metrics().by_label(slowed, "identity");
    let named = |text: &String| text.contains("spiffe://example.test/agent/agent-1");
    assert!(slowed.keys().any(named), "{slowed:?}");
    let log = gateway.log();
    assert!(log.contains("slowed down to bytes_per_second"), "{log}");
}

#[test]
fn whom_a_rate_below_what_it_sends_keeps_from_delivering_is_named() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = limited(&workspace, "64KiB");
    // Ten seconds of the rate in one export, of which the exporter waits for one.
    let exporter = one_at_a_time(&gateway, "1s");
    let agent = Collector::agent(&workspace, &workspace.agent, vec![exporter]);
    agent.send(0, "grpc", "logs", 0..1, 640 << 10);
    let named = |metrics: &Metrics| {
        let slowed = "portcullis_identity_slowed_seconds_total";
        let slowed = metrics.by_label(slowed, "identity");
        let named = |text: &String| text.contains("spiffe://example.test/agent/agent-1");
        slowed.keys().any(named)
    };
    eventually("the metric and the log name the identity", || {
        let log = gateway.log();
        let told = log
            .lines()
            .find(|line| line.contains("slowed down to bytes_per_second"));
        let told = told.is_some_and(|line| line.contains("spiffe://example.test/agent/agent-1"));
        (told && named(&gateway.metrics())).then_some(())
    });
    eventually("the exporter has given up at least twice", || {
        let log = agent.log();
        (log.matches("DeadlineExceeded").count() >= 2).then_some(())
    });
    assert!(Collector::delivered(&workspace, "logs").is_empty());
}

/// A gateway that takes so much a second of each agent.
fn limited(workspace: &Workspace, bytes_per_second: &str) -> Gateway {
    let limits = format!(
        "[[identity]]\nmatch = {{ uri = \"spiffe://example.test/agent/*\" }}\ntenant = \"team-a\"\n\
         bytes_per_second = \"{bytes_per_second}\"\n"
    );
    let backend = workspace.backend_keys();
    setup(workspace, &backend, "", "")
        .identities(&limits)
        .start()
}

/// An exporter that sends one batch after another, and waits so long for the answer.
fn one_at_a_time(gateway: &Gateway, timeout: &str) -> Exporter {
    Exporter::grpc("grpc", gateway.address_of("otlp-grpc"), "none")
        .with("timeout", json!(timeout))
        .with(
            "sending_queue",
            json!({ "enabled": true, "queue_size": 1000, "num_consumers": 1, "storage": "file_storage" }),
        )
}

/// Two minutes of 200 spans a second, beside which something is done again and again; all of them arrive.
fn two_minutes_beside(workspace: &Workspace, agent: &Collector, mut disturb: impl FnMut()) {
    let records = 24_000;
    thread::scope(|scope| {
        let sending = scope.spawn(|| trickle(agent, 0..records));
        while !sending.is_finished() {
            thread::sleep(Duration::from_secs(20));
            disturb();
        }
        sending.join().unwrap();
    });
    Collector::wait_for_all(workspace, "traces", "grpc", records);
}

#[test]
#[ignore = "long: two minutes"]
fn of_24_000_spans_none_is_lost_while_the_backend_is_killed_every_20_seconds() {
    let workspace = Workspace::new();
    let (mut backend, _store) = Collector::backend_with_a_queue(&workspace);
    let gateway = start(&workspace, "", "");
    let agent = agent(&workspace, &gateway);
    two_minutes_beside(&workspace, &agent, || {
        backend.kill();
        thread::sleep(Duration::from_secs(3));
        backend.start_again();
    });
}

#[test]
#[ignore = "long: two minutes"]
fn of_24_000_spans_none_is_lost_while_the_gateway_is_stopped_every_20_seconds() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let mut gateway = start(&workspace, "drain_timeout = \"2s\"", "");
    let agent = agent(&workspace, &gateway);
    two_minutes_beside(&workspace, &agent, || {
        gateway.terminate();
        assert!(gateway.wait().success());
        thread::sleep(Duration::from_secs(3));
        gateway.start_again();
    });
}

#[test]
#[ignore = "long: two minutes"]
fn of_24_000_spans_none_is_lost_while_gateways_take_over_from_each_other_every_20_seconds() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let backend = workspace.backend_keys();
    let setup = || setup(&workspace, &backend, "drain_timeout = \"2s\"", "");
    let mut gateway = setup().start();
    let agent = agent(&workspace, &gateway);
    two_minutes_beside(&workspace, &agent, || succeed(&mut gateway, setup()));
}

#[test]
#[ignore = "long: two minutes"]
fn of_24_000_spans_none_is_lost_while_certificates_of_45_seconds_are_renewed() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let gateway = start(
        &workspace,
        "",
        "at_expiry = \"drain\"\nexpiry_drain = \"10s\"",
    );
    renew(&workspace, 0, 45);
    let agent = agent(&workspace, &gateway);
    let mut number = 0;
    two_minutes_beside(&workspace, &agent, || {
        number += 1;
        renew(&workspace, number, 45);
    });
    let failures = gateway.metrics().by_label(FAILURES, "reason");
    assert!(failures.is_empty(), "{failures:?}");
}
