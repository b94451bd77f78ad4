//! Limits of tenants, over all identities that speak for them.
//! In: requests of several identities of one tenant, and of another. Out: answers in the clients' own protocols, metrics.

use tests::{
    Answer, ClientBuilder, Gateway, Http1Answer, Http1Client, Http2Client, HttpBackend, Reply,
    Request, Speaks, Workspace,
};

const RULES: &str = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/other\" }\ntenant = \"blue\"\n\
                     per_tenant = { requests_per_second = 1000 }\nallow = [{ path = \"/\" }]\n\n\
                     [[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\ntenant = \"red\"\n\
                     per_tenant = { requests_per_second = 1 }\nallow = [{ path = \"/\" }]\n";

const REFUSED: &str = "portcullis_requests_refused_total";

const OK: Option<u32> = Some(0);
const RESOURCE_EXHAUSTED: Option<u32> = Some(8);

/// More than the limit lets through, however slow this host is.
const TRIES: usize = 30;

fn export(client: &mut Http2Client) -> Answer {
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/test.Peer/Talk"),
        (b":authority", b"gateway.test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ];
    let stream = client.request(&fields, b"content");
    client.answer(stream)
}

/// The first answer of a kind of request that is refused.
fn refused_post(
    builder: &ClientBuilder,
    gateway: &Gateway,
    path: &str,
    fields: &str,
) -> Http1Answer {
    let mut answers = (0..TRIES).map(|_| {
        let mut client = Http1Client::connect(builder, gateway.address());
        client.post(path, fields, b"content")
    });
    let refused = answers.find(|answer| answer.status >= 400);
    refused.expect("some of so many are beyond the limit")
}

#[test]
fn identities_of_a_tenant_share_its_limit_and_other_tenants_have_their_own() {
    let workspace = Workspace::new();
    let backend = HttpBackend::clear(workspace.host.free(), Speaks::Http2, |_| Reply::grpc());
    let setup = workspace.setup().http().identities(RULES);
    let gateway = setup
        .route("edge", "", &[backend.address()], "protocol = \"h2\"")
        .start();
    let credentials = |name: &str| {
        let request = Request::client(&format!("spiffe://example.test/agent/{name}"));
        let credentials = workspace.agents.issue(name, request);
        workspace.client().credentials(&credentials)
    };
    let (second, other) = (credentials("second"), credentials("other"));
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let answers: Vec<Answer> = (0..TRIES).map(|_| export(&mut client)).collect();
    assert_eq!(answers[0].grpc_status(), OK, "{:?}", answers[0]);
    let refused = answers.iter().find(|answer| answer.grpc_status() != OK);
    let refused = refused.expect("some of so many are beyond the limit");
    assert_eq!(refused.grpc_status(), RESOURCE_EXHAUSTED, "{refused:?}");
    let words = "the tenant is over its limit";
    assert_eq!(refused.value("grpc-message"), Some(words));
    // Clients of OTLP send again what has a RetryInfo.
    assert!(
        refused.value("grpc-status-details-bin").is_some(),
        "{refused:?}"
    );
    let media_type = "Content-Type: application/x-protobuf\r\n";
    let answer = refused_post(&second, &gateway, "/v1/traces", media_type);
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.value("retry-after").is_some(), "{answer:?}");
    let version = "X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
    let answer = refused_post(&second, &gateway, "/api/v1/push", version);
    assert_eq!(
        answer.status, 503,
        "Prometheus drops what gets 429: {answer:?}"
    );
    let mut client = Http2Client::connect(&other, gateway.address());
    for _ in 0..3 {
        let answer = export(&mut client);
        assert_eq!(answer.grpc_status(), OK, "{answer:?}");
    }
    let labels = [("listener", "edge"), ("reason", "tenant_over_limit")];
    assert!(gateway.metrics().count(REFUSED, &labels) >= 3);
}
