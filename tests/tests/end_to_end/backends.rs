//! The hop behind the gateway: which server, over what, and what happens when there is none.
//! In: backends of every kind. Out: the right one reached, the wrong one refused, failures counted apart.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tests::{
    Backend, Behaviour, Closing, Credentials, Gateway, Process, Request, Workspace, eventually,
};

use crate::nginx::{backend_tls, mtls, nginx};

const CONNECT_FAILURES: &str = "portcullis_backend_connect_failures_total";

fn ping(workspace: &Workspace, gateway: &Gateway) {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    client.finish();
    assert_eq!(client.receive_to_end().1, Closing::CloseNotify);
}

#[test]
fn servers_take_turns() {
    let workspace = Workspace::new();
    let backends: Vec<Backend> = (0..3).map(|_| Backend::start(Behaviour::Echo)).collect();
    let servers: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    // Each worker takes turns by itself.
    let gateway = workspace
        .setup()
        .tables("[workers]\ncount = 1")
        .route("edge", "", &servers, "")
        .start();
    for _ in 0..9 {
        ping(&workspace, &gateway);
    }
    let counts: Vec<usize> = backends
        .iter()
        .map(|backend| backend.connections().len())
        .collect();
    assert_eq!(counts, [3, 3, 3]);
}

#[test]
fn a_server_that_is_down_costs_no_client_anything() {
    let workspace = Workspace::new();
    let alive = Backend::start(Behaviour::Echo);
    let dead = workspace.host.free();
    let gateway = workspace
        .setup()
        .route("edge", "", &[dead, alive.address()], "")
        .start();
    for _ in 0..6 {
        ping(&workspace, &gateway);
    }
    assert_eq!(alive.connections().len(), 6);
    let metrics = gateway.metrics();
    assert!(metrics.count(CONNECT_FAILURES, &[("backend", "edge")]) >= 1);
    assert_eq!(metrics.count("portcullis_handshake_failures_total", &[]), 0);
}

#[test]
fn without_any_server_the_client_is_let_go_and_it_is_not_called_its_fault() {
    let workspace = Workspace::new();
    let gateway = workspace.gateway(workspace.host.free());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let (received, closing) = client.receive_to_end();
    assert!(received.is_empty());
    // Nothing was delivered, so it must not look as if everything had been.
    assert_ne!(closing, Closing::CloseNotify);
    let metrics = gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    assert!(metrics.count(CONNECT_FAILURES, &[("backend", "edge")]) >= 1);
    assert_eq!(metrics.count("portcullis_handshake_failures_total", &[]), 0);
}

#[test]
fn a_server_is_found_by_its_name() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let server = format!("localhost:{}", backend.address().port());
    let gateway = workspace
        .setup()
        .route_to_names("edge", "", &[&server], "")
        .start();
    ping(&workspace, &gateway);
    assert_eq!(backend.connections().len(), 1);
}

#[test]
fn plaintext_to_another_host_has_to_be_asked_for_by_name_and_shows() {
    let workspace = Workspace::new();
    // An address that nobody will ever connect to: what is tested is start-up.
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4317));
    let setup = workspace.setup().route("edge", "", &[elsewhere], "");
    let file = workspace.folder().join("refused.toml");
    fs::write(&file, setup.text()).unwrap();
    let output = Command::new(tests::program("portcullis"))
        .args(["run", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("dangerous_plaintext"), "{text}");
    assert!(text.contains("refused.toml:"), "{text}");

    let gateway = workspace
        .setup()
        .route("edge", "", &[elsewhere], "dangerous_plaintext = true")
        .start();
    let labels = [("backend", "edge")];
    assert_eq!(
        gateway
            .metrics()
            .count("portcullis_dangerous_plaintext", &labels),
        1
    );
    eventually("the log says so too", || {
        gateway.log().contains("dangerous_plaintext").then_some(())
    });
}

/// nginx that wants a client certificate and answers with whose it was.
fn nginx_over_mtls(workspace: &Workspace, certificate: &Credentials) -> (Process, SocketAddr) {
    let listen = workspace.host.at(7000);
    let server = format!(
        "listen {listen} ssl; {} return \"$ssl_client_s_dn|$ssl_server_name|\";",
        mtls(workspace, certificate)
    );
    (nginx(workspace, listen, &server), listen)
}

#[test]
fn a_backend_over_mtls_sees_our_certificate_and_its_name() {
    let workspace = Workspace::new();
    let certificate = workspace.gateways.issue(
        "backend",
        Request::server("backend.test").dns("backend.test"),
    );
    let own = workspace.agents.issue(
        "own",
        Request::client("spiffe://example.test/gateway/edge-1"),
    );
    let (_nginx, listen) = nginx_over_mtls(&workspace, &certificate);
    let keys = backend_tls(&workspace.gateways.certificate(), &own);
    let gateway = workspace
        .setup()
        .route("edge", "", &[listen], &keys)
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let (received, closing) = client.receive_to_end();
    assert_eq!(
        String::from_utf8(received).unwrap(),
        "CN=edge-1|backend.test|"
    );
    assert_eq!(closing, Closing::CloseNotify);
}

/// Nothing of a client may reach a backend that is not who it should be.
fn assert_backend_refused(
    workspace: &Workspace,
    certificate: &Credentials,
    ca: &std::path::Path,
    own: &Credentials,
) {
    let (_nginx, listen) = nginx_over_mtls(workspace, certificate);
    let keys = backend_tls(ca, own);
    let gateway = workspace
        .setup()
        .route("edge", "", &[listen], &keys)
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    // The gateway may have gone already.
    let _ = client.send(b"secret");
    let (received, closing) = client.receive_to_end();
    assert!(
        received.is_empty(),
        "{}",
        String::from_utf8_lossy(&received)
    );
    assert_ne!(closing, Closing::CloseNotify);
    let metrics = gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    assert!(metrics.count(CONNECT_FAILURES, &[("backend", "edge")]) >= 1);
}

#[test]
fn a_backend_with_another_name_gets_nothing() {
    let workspace = Workspace::new();
    let certificate = workspace
        .gateways
        .issue("backend", Request::server("other.test").dns("other.test"));
    let own = workspace
        .agents
        .issue("own", Request::client("spiffe://example.test/gateway/1"));
    assert_backend_refused(
        &workspace,
        &certificate,
        &workspace.gateways.certificate(),
        &own,
    );
}

#[test]
fn a_backend_of_a_foreign_authority_gets_nothing() {
    let workspace = Workspace::new();
    let certificate = workspace.gateways.issue(
        "backend",
        Request::server("backend.test").dns("backend.test"),
    );
    let own = workspace
        .agents
        .issue("own", Request::client("spiffe://example.test/gateway/1"));
    assert_backend_refused(
        &workspace,
        &certificate,
        &workspace.agents.certificate(),
        &own,
    );
}

#[test]
fn a_backend_whose_certificate_has_expired_gets_nothing() {
    let workspace = Workspace::new();
    let request = Request::server("backend.test")
        .dns("backend.test")
        .expired();
    let certificate = workspace.gateways.issue("backend", request);
    let own = workspace
        .agents
        .issue("own", Request::client("spiffe://example.test/gateway/1"));
    assert_backend_refused(
        &workspace,
        &certificate,
        &workspace.gateways.certificate(),
        &own,
    );
}

/// In TLS 1.3 a server says that it refuses our certificate only when the handshake is over for us.
#[test]
fn a_server_that_refuses_our_certificate_is_counted_and_passed_over() {
    let workspace = Workspace::new();
    let request = Request::server("backend.test").dns("backend.test");
    let certificate = workspace.gateways.issue("backend", request);
    let own = Request::client("spiffe://example.test/gateway/1");
    let own = workspace.agents.issue("own", own);
    let (_nginx, good) = nginx_over_mtls(&workspace, &certificate);
    let bad = workspace.host.free();
    let mut command = Command::new("openssl");
    command
        .args([
            "s_server",
            "-tls1_3",
            "-www",
            "-Verify",
            "1",
            "-verify_return_error",
        ])
        .args(["-accept", &bad.to_string()])
        .arg("-cert")
        .arg(&certificate.certificate)
        .arg("-key")
        .arg(&certificate.key)
        // Not the authority of our certificate.
        .arg("-CAfile")
        .arg(workspace.gateways.certificate());
    let _openssl = Process::start(workspace.folder(), "openssl", &mut command);
    eventually("openssl listens", || std::net::TcpStream::connect(bad).ok());
    let keys = backend_tls(&workspace.gateways.certificate(), &own);
    let one_worker = "[workers]\ncount = 1";
    let setup = workspace.setup().tables(one_worker);
    let gateway = setup.route("edge", "", &[bad, good], &keys).start();

    // Turns begin at random.
    eventually("a client's turn is that of the bad server", || {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        // The gateway may have gone already.
        let _ = client.send(b"x");
        (client.receive_to_end().1 != Closing::CloseNotify).then_some(())
    });
    gateway.wait_for(CONNECT_FAILURES, &[("backend", "edge")], 1);
    eventually("the reason is logged", || {
        gateway
            .log()
            .contains("refused the gateway's certificate")
            .then_some(())
    });
    for _ in 0..3 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.finish();
        assert_eq!(
            client.receive_to_end().1,
            Closing::CloseNotify,
            "it went to the good server"
        );
    }
}
