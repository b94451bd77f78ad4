//! PROXY protocol version 2, read by nginx 1.31: who the client is, said to a backend that asked for it.
//! In: a backend with `proxy_protocol = true`. Out: addresses, common name, tenant and URI as nginx understood them.

use tests::{Request, Workspace};

use crate::nginx::{backend_tls, mtls, nginx};

#[test]
fn nginx_learns_address_name_tenant_and_uri_of_the_client() {
    let workspace = Workspace::new();
    let listen = workspace.host.at(7000);
    let answer = "$proxy_protocol_addr|$proxy_protocol_port|$proxy_protocol_server_addr|$proxy_protocol_server_port|\
                  $proxy_protocol_tlv_ssl_cn|$proxy_protocol_tlv_ssl_verify|$proxy_protocol_tlv_ssl_version|\
                  $proxy_protocol_tlv_ssl_cipher|$proxy_protocol_tlv_0xe0|$proxy_protocol_tlv_0xe1|\
                  $proxy_protocol_tlv_alpn|";
    let _nginx = nginx(
        &workspace,
        listen,
        &format!("listen {listen} proxy_protocol; return \"{answer}\";"),
    );
    let gateway = workspace
        .setup()
        .route(
            "edge",
            "alpn = [\"h2\"]",
            &[listen],
            "proxy_protocol = true",
        )
        .start();
    let uri = "spiffe://example.test/agent/checkout-7";
    let agent = workspace.agents.issue(
        "checkout",
        Request::client(uri).common_name("checkout-7.example.test"),
    );
    let mut client = workspace
        .client()
        .credentials(&agent)
        .alpn("h2")
        .connect(gateway.address())
        .unwrap();
    let own = client.socket().local_addr().unwrap();
    let suite = client
        .connection()
        .negotiated_cipher_suite()
        .unwrap()
        .suite();
    // The gateway's label is the name in the standard.
    let suite = format!("{suite:?}").replace("TLS13_", "TLS_");
    let (received, _) = client.receive_to_end();
    let received = String::from_utf8(received).unwrap();
    let expected = format!(
        "{}|{}|{}|{}|checkout-7.example.test|0|TLSv1.3|{suite}|team-a|{uri}|h2|",
        own.ip(),
        own.port(),
        gateway.address().ip(),
        gateway.address().port()
    );
    assert_eq!(received, expected);
}

#[test]
fn the_header_goes_before_tls_to_a_backend_over_mtls() {
    let workspace = Workspace::new();
    let listen = workspace.host.at(7000);
    let backend = workspace.gateways.issue(
        "backend",
        Request::server("backend.test").dns("backend.test"),
    );
    let own = workspace
        .agents
        .issue("own", Request::client("spiffe://example.test/gateway/1"));
    let server = format!(
        "listen {listen} ssl proxy_protocol; {} \
         return \"$proxy_protocol_tlv_ssl_cn|$ssl_client_s_dn|$ssl_protocol|\";",
        mtls(&workspace, &backend)
    );
    let _nginx = nginx(&workspace, listen, &server);
    let tls = backend_tls(&workspace.gateways.certificate(), &own);
    let keys = format!("proxy_protocol = true\n{tls}");
    let gateway = workspace
        .setup()
        .route("edge", "", &[listen], &keys)
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let (received, _) = client.receive_to_end();
    // The client's name in the header, the gateway's own in the handshake.
    assert_eq!(
        String::from_utf8(received).unwrap(),
        "agent-1|CN=1|TLSv1.3|"
    );
}

#[test]
fn inside_tls_the_header_is_the_first_that_the_backend_decrypts() {
    let workspace = Workspace::new();
    let (listen, inner) = (workspace.host.at(7000), workspace.host.at(7001));
    let backend = workspace.gateways.issue(
        "backend",
        Request::server("backend.test").dns("backend.test"),
    );
    let own = workspace
        .agents
        .issue("own", Request::client("spiffe://example.test/gateway/1"));
    // The outer one ends TLS and knows nothing of headers; the inner one takes what was inside.
    let server = format!(
        "listen {listen} ssl; {} proxy_pass {inner}; }} server {{ listen {inner} proxy_protocol; \
         return \"$proxy_protocol_tlv_ssl_cn|$proxy_protocol_tlv_0xe1|\";",
        mtls(&workspace, &backend)
    );
    let _nginx = nginx(&workspace, listen, &server);
    let tls = backend_tls(&workspace.gateways.certificate(), &own);
    let keys = format!("proxy_protocol = \"inside\"\n{tls}");
    let gateway = workspace
        .setup()
        .route("edge", "", &[listen], &keys)
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let (received, _) = client.receive_to_end();
    assert_eq!(
        String::from_utf8(received).unwrap(),
        "agent-1|spiffe://example.test/agent/agent-1|"
    );
}

#[test]
fn the_first_rule_that_matches_decides_the_tenant() {
    let workspace = Workspace::new();
    let listen = workspace.host.at(7000);
    let server = format!("listen {listen} proxy_protocol; return \"$proxy_protocol_tlv_0xe0\";");
    let _nginx = nginx(&workspace, listen, &server);
    let gateway = workspace
        .setup()
        .identities(
            "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/special\" }\ntenant = \"special\"\n\
             [[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\ntenant = \"by-uri\"\n\
             [[identity]]\nmatch = { dns = \"db.example.test\", cn = \"db\" }\ntenant = \"by-both\"\n\
             [[identity]]\nmatch = { dns = \"db.example.*\" }\ntenant = \"by-dns\"\n",
        )
        .route("edge", "", &[listen], "proxy_protocol = true")
        .start();
    let request = |uri: &str| Request::client(&format!("spiffe://example.test/{uri}"));
    let cases = [
        ("special", request("agent/special"), "special"),
        ("uri", request("agent/special-not"), "by-uri"),
        (
            "both",
            request("other").dns("db.example.test").common_name("db"),
            "by-both",
        ),
        (
            "dns",
            request("other")
                .dns("db.example.test")
                .common_name("not-db"),
            "by-dns",
        ),
    ];
    for (name, request, tenant) in cases {
        let agent = workspace.agents.issue(name, request);
        let mut client = workspace
            .client()
            .credentials(&agent)
            .connect(gateway.address())
            .unwrap();
        let (received, _) = client.receive_to_end();
        assert_eq!(String::from_utf8(received).unwrap(), tenant, "{name}");
    }
}
