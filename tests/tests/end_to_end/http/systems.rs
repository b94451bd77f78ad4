//! Systems that users run, request by request through the gateway: a Collector and SkyWalking's agents.
//! In: their telemetry. Out: all of it at the backend, once, under the tenant of the certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use tests::{
    Collector, Exporter, HttpBackend, Reply, Request, SIGNALS, Speaks, Workspace, eventually,
};

use crate::java;
use crate::prometheus;
use crate::skywalking::{run_agent, start_server};

/// Records in one request, and of each signal.
const REQUEST: usize = 10;
const RECORDS: usize = 100;

fn send(agent: &Collector, ways: &[&str]) {
    for (exporter, way) in ways.iter().enumerate() {
        for signal in SIGNALS {
            for first in (0..RECORDS).step_by(REQUEST) {
                agent.send(exporter, way, signal, first..first + REQUEST, 0);
            }
        }
    }
}

#[test]
fn three_signals_reach_a_collector_once_each_whatever_the_transport_and_compression() {
    let workspace = Workspace::new();
    let _backend = Collector::backend(&workspace);
    let keys = workspace.backend_keys();
    let setup = workspace.setup().http();
    let gateway = setup
        .route(
            "otlp-grpc",
            "",
            &[Collector::backend_grpc(&workspace)],
            &keys,
        )
        .route(
            "otlp-http",
            "",
            &[Collector::backend_http(&workspace)],
            &keys,
        )
        .start();
    let grpc = gateway.address_of("otlp-grpc");
    let http = gateway.address_of("otlp-http");
    let ways = ["gzip", "zstd", "http-gzip", "http-none"];
    let exporters = vec![
        Exporter::grpc(ways[0], grpc, "gzip"),
        Exporter::grpc(ways[1], grpc, "zstd"),
        Exporter::http(ways[2], http, "gzip"),
        Exporter::http(ways[3], http, "none"),
    ];
    let agent = Collector::agent(&workspace, &workspace.agent, exporters);
    send(&agent, &ways);
    for way in ways {
        for signal in SIGNALS {
            let doubled = Collector::wait_for_all(&workspace, signal, way, RECORDS);
            assert_eq!(doubled, 0, "{way}, {signal}");
        }
    }
}

#[test]
fn the_tenant_of_each_collectors_certificate_comes_with_its_requests() {
    let workspace = Workspace::new();
    let backend = HttpBackend::over_mtls(&workspace, 14317, Speaks::Http2, |request| {
        // An empty response of `Export`, as each transport writes it.
        match request.path.starts_with("/v1/") {
            true => Reply::status(200).field("content-type", "application/x-protobuf"),
            false => Reply::status(200)
                .field("content-type", "application/grpc")
                .content(&[0; 5])
                .trailer("grpc-status", "0"),
        }
    });
    let keys = workspace.backend_keys();
    let rules = ["a", "b"].map(|team| {
        format!(
            "[[identity]]\nmatch = {{ uri = \"spiffe://example.test/{team}/*\" }}\n\
             tenant = \"team-{team}\"\nallow = [\"otlp\"]\n\n"
        )
    });
    let setup = workspace.setup().http().identities(&rules.concat());
    let gateway = setup.route("edge", "", &[backend.address()], &keys).start();
    let mut expected = 0;
    for team in ["a", "b"] {
        let uri = format!("spiffe://example.test/{team}/collector");
        let own = workspace.agents.issue(team, Request::client(&uri));
        let ways = ["grpc", "http"];
        let exporters = vec![
            Exporter::grpc(ways[0], gateway.address(), "gzip"),
            Exporter::http(ways[1], gateway.address(), "gzip"),
        ];
        // What a client would like to be is not asked for.
        let exporters = exporters.into_iter().map(|exporter| {
            exporter.with("headers", serde_json::json!({ "X-Scope-OrgID": "forged" }))
        });
        let mut agent = Collector::agent(&workspace, &own, exporters.collect());
        send(&agent, &ways);
        expected += ways.len() * SIGNALS.len() * RECORDS / REQUEST;
        eventually(
            &format!("{expected} requests of the Collector arrive"),
            || (backend.requests().len() >= expected).then_some(()),
        );
        agent.stop();
    }
    let mut tenants: BTreeMap<String, usize> = BTreeMap::new();
    for request in backend.ended(expected) {
        let values = request.values("x-scope-orgid").join(", ");
        *tenants.entry(values).or_default() += 1;
    }
    let each = expected / 2;
    let expected = ["team-a", "team-b"].map(|tenant| (tenant.to_owned(), each));
    assert_eq!(tenants, expected.into());
}

/// What SkyWalking's server on the stubs of its Python package was sent.
fn received(file: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn segments_and_heartbeats_of_skywalkings_python_agent_arrive() {
    let workspace = Workspace::new();
    let server = workspace.host.at(21800);
    let file = workspace.folder().join("received.jsonl");
    let _server = start_server(&workspace, server, &file);
    let setup = workspace.setup().http();
    let gateway = setup
        .route("skywalking", "", &[server], "protocol = \"h2\"")
        .start();
    let sent = run_agent(&workspace, gateway.address(), 40);
    let received = received(&file);
    let segments = received.iter().filter_map(|line| line["segment"].as_str());
    assert_eq!(
        segments.collect::<BTreeSet<_>>(),
        sent.keys().map(String::as_str).collect()
    );
    for message in ["properties", "heartbeat"] {
        let has = received.iter().any(|line| line[message] == "checkout");
        assert!(has, "no {message}: {received:?}");
    }
}

#[test]
fn segments_of_skywalkings_java_agent_arrive_by_its_own_mtls() {
    let workspace = Workspace::new();
    let server = workspace.host.at(21800);
    let file = workspace.folder().join("received.jsonl");
    let _server = start_server(&workspace, server, &file);
    let setup = workspace.setup().http();
    let gateway = setup
        .route("skywalking", "", &[server], "protocol = \"h2\"")
        .start();
    java::send_segments(&workspace, gateway.address(), 40);
    let received = received(&file);
    let operations = received
        .iter()
        .filter(|line| line["segment"].is_string())
        .map(|line| line["operation"].as_str().unwrap().to_owned());
    assert_eq!(operations.collect::<BTreeSet<_>>(), java::operations(40));
}

#[test]
fn remote_write_of_prometheus_delivers_every_series() {
    let workspace = Workspace::new();
    let (sender, receiver) = (workspace.host.at(9090), workspace.host.at(19090));
    let arguments = ["--web.enable-remote-write-receiver"];
    let _receiver = prometheus::start(&workspace, "receiver", receiver, "{}", &arguments);
    let setup = workspace.setup().http();
    let gateway = setup.route("remote-write", "", &[receiver], "").start();
    let configuration = prometheus::writing(&workspace, sender, gateway.address());
    let _sender = prometheus::start(&workspace, "sender", sender, &configuration, &[]);
    prometheus::wait_for_series(sender, receiver);
}
