//! What is told of requests in HTTP mode: metrics of each, lines of the audit log of those that failed.
//! In: a client's requests, good and bad, and a backend that answers as their paths say. Out: metrics and lines.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::{Gateway, Http2Client, HttpBackend, Reply, Speaks, Workspace, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const REQUESTS: &str = "portcullis_requests_total";
const REFUSED: &str = "portcullis_requests_refused_total";

const RULE: &str = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\ntenant = \"team-a\"\n\
                    allow = [{ methods = [\"POST\"], path = \"/api\" }]\n";

/// A backend that answers as the end of the path says.
fn backend(workspace: &Workspace) -> HttpBackend {
    HttpBackend::clear(workspace.host.free(), Speaks::Http2, |arrived| {
        let path = arrived.path.split('?').next().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("missing") => Reply::status(404),
            Some("unavailable") => Reply::status(200).trailer("grpc-status", "14"),
            Some("slow") => Reply::status(200)
                .content(b"late")
                .after(Duration::from_millis(120)),
            _ => Reply::status(200).content(b"done"),
        }
    })
}

fn start(workspace: &Workspace, backend: &HttpBackend, requests: &str) -> Gateway {
    let audit = format!("[audit]\nfile = \"audit.jsonl\"\n{requests}");
    let setup = workspace.setup().tables(&audit).http().identities(RULE);
    let listener = "alpn = [\"h2\"]";
    setup
        .route("edge", listener, &[backend.address()], "protocol = \"h2\"")
        .start()
}

/// The status of the answer to a request.
fn post(client: &mut Http2Client, path: &str, trace: &str) -> Option<u16> {
    let kind: &[u8] = match path.ends_with("unavailable") {
        true => b"application/grpc",
        false => b"text/plain",
    };
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"gateway.test"),
        (b":path", path.as_bytes()),
        (b"content-type", kind),
        (b"traceparent", trace.as_bytes()),
    ];
    let stream = client.request(&fields, b"content");
    client.answer(stream).status()
}

/// The lines about requests.
fn lines(workspace: &Workspace) -> Vec<Value> {
    let text = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parsed = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    parsed.filter(|line| line["event"] == "request").collect()
}

#[test]
fn requests_are_counted_by_what_they_came_to_and_timed_apart() {
    let workspace = Workspace::new();
    let backend = backend(&workspace);
    let gateway = start(&workspace, &backend, "");
    assert!(
        gateway
            .metrics()
            .has(REFUSED, &[("listener", "edge"), ("reason", "not_allowed")]),
        "what can happen is there from the start"
    );
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    assert_eq!(post(&mut client, "/api/slow", ""), Some(200));
    assert_eq!(post(&mut client, "/api/good", ""), Some(200));
    assert_eq!(post(&mut client, "/api/missing", ""), Some(404));
    assert_eq!(post(&mut client, "/admin", ""), Some(403));
    let of_edge = |status| {
        [
            ("listener", "edge"),
            ("backend", "edge"),
            ("status", status),
        ]
    };
    gateway.wait_for(REQUESTS, &of_edge("2xx"), 2);
    gateway.wait_for(REQUESTS, &of_edge("4xx"), 1);
    let refused = [("listener", "edge"), ("backend", ""), ("status", "4xx")];
    gateway.wait_for(REQUESTS, &refused, 1);
    let not_allowed = [("listener", "edge"), ("reason", "not_allowed")];
    gateway.wait_for(REFUSED, &not_allowed, 1);
    let tenant = [("tenant", "team-a"), ("status", "2xx")];
    gateway.wait_for("portcullis_tenant_requests_total", &tenant, 2);
    let metrics = gateway.metrics();
    let places = [("listener", "edge"), ("backend", "edge")];
    let sum = |name: &str| metrics.sum(&format!("portcullis_{name}_seconds_sum"), &places);
    let (whole, wait, server) = (
        sum("request_duration"),
        sum("request_wait"),
        sum("backend_response"),
    );
    assert!(
        server >= 0.12 && whole >= server + wait,
        "{whole} {wait} {server}"
    );
    assert!(wait < server, "{wait} {server}");
    let received = [
        ("listener", "edge"),
        ("backend", "edge"),
        ("direction", "received"),
    ];
    let content = "portcullis_request_content_bytes_total";
    assert_eq!(metrics.count(content, &received), 3 * 7);
}

#[test]
fn a_request_that_failed_has_a_line_and_one_that_went_well_has_one_where_all_have() {
    for (requests, expected) in [
        ("", 3),
        ("requests = \"errors\"", 3),
        ("requests = \"all\"", 4),
    ] {
        let workspace = Workspace::new();
        let backend = backend(&workspace);
        let gateway = start(&workspace, &backend, requests);
        let mut client = Http2Client::connect(&workspace.client(), gateway.address());
        let traced = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for (path, trace) in [
            ("/api/good", ""),
            ("/api/missing?token=secret", traced.as_str()),
            ("/api/unavailable", "nonsense"),
            ("/admin", ""),
        ] {
            post(&mut client, path, trace);
        }
        let lines = eventually("the lines", || {
            let lines = lines(&workspace);
            (lines.len() >= expected).then_some(lines)
        });
        assert_eq!(lines.len(), expected, "{lines:?}");
        let of = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap();
        let missing = of("/api/missing");
        assert_eq!(missing["method"], "POST");
        assert_eq!(
            (&missing["status"], &missing["trace_id"]),
            (&404.into(), &TRACE.into())
        );
        assert_eq!(
            (&missing["tenant"], &missing["backend"]),
            (&"team-a".into(), &"edge".into())
        );
        assert_eq!(missing["identity"], "spiffe://example.test/agent/agent-1");
        assert_eq!(missing["server"], backend.address().to_string());
        assert_eq!(
            (&missing["received_bytes"], &missing["complete"]),
            (&7.into(), &true.into())
        );
        let unavailable = of("/api/unavailable");
        assert_eq!(unavailable["grpc_status"], 14);
        assert!(unavailable.get("trace_id").is_none(), "{unavailable}");
        let refused = of("/admin");
        assert_eq!(
            (&refused["reason"], &refused["status"]),
            (&"not_allowed".into(), &403.into())
        );
        assert!(refused.get("server").is_none(), "{refused}");
        let handshake = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
        let connection = format!("\"connection\":{}", refused["connection"]);
        assert!(
            handshake
                .lines()
                .any(|line| line.contains("\"handshake\"") && line.contains(&connection))
        );
        assert!(!handshake.contains("secret"), "no query is written");
    }
}

#[test]
fn a_client_that_breaks_http_and_a_server_that_does_are_counted_each_by_its_own() {
    let workspace = Workspace::new();
    let backend = backend(&workspace);
    let gateway = start(&workspace, &backend, "");
    let flood = [("listener", "edge"), ("fault", "ping_flood")];
    let faults = "portcullis_http_faults_total";
    assert!(
        gateway.metrics().has(faults, &flood),
        "floods are there from the start"
    );
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    // A window of 2^31 (RFC 9113 section 6.9.1).
    client.send(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    client.read_to_end();
    gateway.wait_for(
        faults,
        &[("listener", "edge"), ("fault", "window_overflow")],
        1,
    );
    assert_eq!(gateway.metrics().count(faults, &flood), 0);
}
