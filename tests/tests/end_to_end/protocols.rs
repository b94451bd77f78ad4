//! Application protocols on both sides of the gateway: what is refused, what a server is offered, what an operator is told.
//! In: clients and servers of every mixture. Out: nothing that is lost in silence.

use std::net::SocketAddr;
use std::process::Command;

use rustls::AlertDescription;
use tests::{
    Backend, Behaviour, Closing, Gateway, Process, Request, Setup, TlsFailure, Workspace,
    eventually,
};

use crate::nginx::{backend_tls, mtls, nginx};

/// What `check` says of a configuration that it takes.
fn checked(workspace: &Workspace, setup: &Setup<'_>) -> String {
    let file = workspace.folder().join("checked.toml");
    std::fs::write(&file, setup.text()).unwrap();
    let mut command = Command::new(tests::program("portcullis"));
    let output = command
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn logged(gateway: &Gateway, text: &str) {
    eventually(text, || gateway.log().contains(text).then_some(()));
}

#[test]
fn a_client_without_a_protocol_is_refused_where_http_1_is_not_spoken() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup();
    let setup = setup.route("edge", "alpn = [\"h2\"]", &[backend.address()], "");
    let gateway = setup.start();
    let failure = workspace.client().refused(gateway.address());
    let alert = AlertDescription::NoApplicationProtocol;
    assert!(
        matches!(&failure, TlsFailure::Closed(Closing::Alert(seen)) if *seen == alert),
        "{failure:?}"
    );
    let labels = [("listener", "edge"), ("reason", "alpn")];
    gateway.wait_for("portcullis_handshake_failures_total", &labels, 1);
    logged(&gateway, "the client offers no application protocol");
    assert!(backend.connections().is_empty());
}

/// nginx over mTLS, that answers with the protocol it was offered and chose.
fn nginx_that_chooses(workspace: &Workspace) -> (Process, SocketAddr, String) {
    let listen = workspace.host.at(7000);
    let request = Request::server("backend.test").dns("backend.test");
    let certificate = workspace.gateways.issue("backend", request);
    let own = Request::client("spiffe://example.test/gateway/edge-1");
    let own = workspace.agents.issue("own", own);
    let server = format!(
        "listen {listen} ssl; ssl_alpn h2 http/1.1; {} return \"<$ssl_alpn_protocol>\";",
        mtls(workspace, &certificate)
    );
    let keys = backend_tls(&workspace.gateways.certificate(), &own);
    (nginx(workspace, listen, &server), listen, keys)
}

#[test]
fn a_server_is_offered_what_its_client_speaks_or_what_its_configuration_says() {
    let workspace = Workspace::new();
    let (_nginx, server, keys) = nginx_that_chooses(&workspace);
    let with_alpn = keys.replace(" }", ", alpn = [\"h2\"] }");
    let gateway = workspace
        .setup()
        .route("both", "alpn = [\"h2\", \"http/1.1\"]", &[server], &keys)
        .route("none", "", &[server], &keys)
        .route("own", "", &[server], &with_alpn)
        .start();
    let cases = [
        ("both", Some("h2"), "<h2>"),
        ("both", Some("http/1.1"), "<http/1.1>"),
        // As exporters of OTLP over HTTP come.
        ("both", None, "<http/1.1>"),
        ("none", None, "<>"),
        ("own", None, "<h2>"),
    ];
    for (route, protocol, expected) in cases {
        let client = workspace.client();
        let client = match protocol {
            Some(protocol) => client.alpn(protocol),
            None => client,
        };
        let mut client = client.connect(gateway.address_of(route)).unwrap();
        let (answer, _) = client.receive_to_end();
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            expected,
            "{route} {protocol:?}"
        );
    }
}

#[test]
fn a_client_whose_protocols_are_all_ignored_is_served_counted_and_told_of() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace
        .client()
        .alpn("h2")
        .connect(gateway.address())
        .unwrap();
    client.finish();
    client.receive_to_end();
    let labels = [("listener", "edge")];
    gateway.wait_for("portcullis_handshakes_without_protocol_total", &labels, 1);
    logged(&gateway, "the listener has no alpn");
}

#[test]
fn check_warns_of_protocols_that_cannot_work() {
    let workspace = Workspace::new();
    let (_nginx, server, keys) = nginx_that_chooses(&workspace);
    let plain = workspace.host.at(7001);
    let foreign = keys.replace(" }", ", alpn = [\"http/1.1\"] }");
    let several = keys.replace(" }", ", alpn = [\"h2\", \"http/1.1\"] }");
    let cases = [
        (
            "",
            plain,
            "",
            "clients of gRPC, which port 4317 is used for",
        ),
        (
            "alpn = [\"h2\", \"http/1.1\"]",
            plain,
            "",
            "is not told what they chose",
        ),
        (
            "alpn = [\"h2\"]",
            server,
            &foreign,
            "will not understand each other",
        ),
        ("", server, &several, "no client is told"),
    ];
    for (listener, server, backend, expected) in cases {
        let said = checked(
            &workspace,
            &workspace
                .setup()
                .route("edge", listener, &[server], backend),
        );
        assert!(said.contains(expected), "{listener} {backend}: {said}");
    }
    let good = [
        ("alpn = [\"h2\"]", plain, ""),
        ("alpn = [\"h2\"]", server, keys.as_str()),
    ];
    for (listener, server, backend) in good {
        let said = checked(
            &workspace,
            &workspace
                .setup()
                .route("edge", listener, &[server], backend),
        );
        assert!(!said.contains("alpn"), "{listener} {backend}: {said}");
    }
}

#[test]
fn an_answer_in_another_language_than_the_clients_is_told_of() {
    let workspace = Workspace::new();
    let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    let backend = Backend::start(Behaviour::Source(answer.into()));
    let setup = workspace.setup();
    let both = "alpn = [\"h2\", \"http/1.1\"]";
    let gateway = setup.route("edge", both, &[backend.address()], "").start();
    let mut client = workspace
        .client()
        .alpn("h2")
        .connect(gateway.address())
        .unwrap();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    client.receive_to_end();
    client.finish();
    logged(&gateway, "remove h2 from the listener's alpn");
}
