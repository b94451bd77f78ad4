//! What a peer's certificates may cost, whoever is on the same worker: whole chains, as clients and backends send them.
//! In: many interchangeable certificates, useless ones, CAs of one name, a CA that ends. Out: a reason, and others who do not
//! notice.

use std::fs;
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, HandshakeKind};
use tests::{
    Authority, Backend, Behaviour, Client, Closing, Credentials, Gateway, Request, TlsFailure,
    WireBackend, Workspace, eventually, forged, interchangeable, program,
};

const AGENT: &str = "spiffe://example.test/agent/impostor";
const ENDED: &str = "portcullis_connections_ended_total";
const FAILURES: &str = "portcullis_handshake_failures_total";
/// As many as fit into a Certificate message.
const MANY: u16 = 400;

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

/// A certificate that an authority named `0` has issued: the lowest layer of the interchangeable ones.
fn impostor(workspace: &Workspace, request: Request) -> Credentials {
    let lowest = Authority::create(workspace.folder(), "lowest", "0");
    lowest.issue("impostor", request)
}

/// A gateway with one worker, which does not wait for its clients at its end.
fn one_worker(workspace: &Workspace, backend: &Backend) -> Gateway {
    let setup = workspace.setup().top("drain_timeout = \"0s\"");
    let setup = setup.tables("[workers]\ncount = 1");
    setup.route("edge", "", &[backend.address()], "").start()
}

fn assert_refused(workspace: &Workspace, gateway: &Gateway, sent: &[CertificateDer<'static>]) {
    let impostor = Credentials {
        certificate: workspace.folder().join("lowest/impostor.pem"),
        key: workspace.folder().join("lowest/impostor.key"),
    };
    let client = workspace.client().credentials(&impostor).appending(sent);
    match client.refused(gateway.address()) {
        TlsFailure::Closed(Closing::Alert(AlertDescription::BadCertificate)) => {}
        other => panic!("{} certificates: {other:?}", sent.len()),
    }
}

#[test]
fn interchangeable_certificates_of_a_client_are_refused_and_nobody_beside_it_notices() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = one_worker(&workspace, &backend);
    let mut beside = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut beside);
    impostor(&workspace, Request::client(AGENT));
    // By their number, and by the ways to put them together where there are few.
    let same: Vec<_> = (0..9).map(|number| forged("0", "0", number)).collect();
    for sent in [&interchangeable(MANY, 3, "nobody"), &same] {
        assert_refused(&workspace, &gateway, sent);
        ping(&mut beside);
    }
    let too_large = [("reason", "chain_too_large")];
    gateway.wait_for(FAILURES, &too_large, 2);
    eventually("the reason is said in words", || {
        let log = gateway.log();
        let said = "it came with 401 certificates, at most 10 are looked at";
        (log.contains(said) && log.contains("could each have issued another")).then_some(())
    });

    // An operator's orders act while more of them come.
    let blocked = Command::new(program("portcullis"))
        .args([
            "block",
            "--identity",
            "spiffe://example.test/agent/agent-1",
            "--config",
        ])
        .arg(workspace.folder().join("portcullis.toml"))
        .output()
        .unwrap();
    assert!(blocked.status.success(), "{blocked:?}");
    assert_refused(&workspace, &gateway, &interchangeable(MANY, 3, "nobody"));
    beside.receive_to_end();
    gateway.wait_for(ENDED, &[("reason", "blocked")], 1);
    assert_refused(&workspace, &gateway, &interchangeable(MANY, 6, "nobody"));
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn interchangeable_certificates_of_a_backend_are_refused_and_nobody_beside_it_notices() {
    let workspace = Workspace::new();
    let good = Backend::start(Behaviour::Echo);
    let own = Request::client("spiffe://example.test/gateway/1");
    let own = workspace.agents.issue("own", own);
    let backend = Request::server("backend.test").dns("backend.test");
    let impostor = impostor(&workspace, backend);
    let sent = interchangeable(MANY, 3, "nobody");
    let agents = workspace.agents.certificate();
    let server = WireBackend::appending(&impostor, &agents, &sent);
    let tls = format!(
        "tls = {{ ca = [{:?}], certificate = {:?}, key = {:?}, server_name = \"backend.test\" }}",
        workspace.gateways.certificate(),
        own.certificate,
        own.key
    );
    let setup = workspace.setup().tables("[workers]\ncount = 1");
    let setup = setup.route("edge", "", &[good.address()], "");
    let gateway = setup.route("far", "", &[server.address()], &tls).start();
    let mut beside = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut beside);
    let far = gateway.address_of("far");
    let attempt = workspace.client().connect(far).unwrap();
    // It is the gateway that ends the handshake: the server's side of it fails.
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.accept()));
    assert!(refused.is_err(), "an impostor was taken for the backend");
    ping(&mut beside);
    eventually("the reason is said in words", || {
        let said = "the server's certificate is refused: it came with 401 certificates";
        gateway.log().contains(said).then_some(())
    });
    drop(attempt);
}

#[test]
fn certificates_that_nobody_needs_are_passed_over() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    // One that is none; one of a client; one with the name of the CA, which has signed nothing.
    let garbage = CertificateDer::from(b"no certificate".to_vec());
    let namesake = forged("Agents of the test", "Agents of the test", 1);
    let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
    let unneeded = foreign.subordinate("branch", "Branch of somebody else");
    let unneeded = fs::read(unneeded.certificate()).unwrap();
    let unneeded = rustls::pki_types::pem::PemObject::from_pem_slice(&unneeded).unwrap();
    let client = workspace.client();
    let client = client.appending(&[garbage, namesake, unneeded]);
    let mut client = client.connect(gateway.address()).unwrap();
    ping(&mut client);
    assert_eq!(gateway.metrics().count(FAILURES, &[]), 0);
}

#[test]
fn the_right_one_of_120_cas_of_one_name_is_found_by_its_key_identifier() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let namesake = |number: usize| {
        Authority::create(workspace.folder(), &format!("ca-{number}"), "One of many")
    };
    let authorities: Vec<_> = (0..120).map(namesake).collect();
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    let all: String = authorities.iter().map(read).collect();
    let bundle = workspace.folder().join("bundle.pem");
    fs::write(&bundle, all).unwrap();
    let setup = workspace.setup().client_ca(&bundle);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    for position in [0, 60, 119] {
        let request = Request::client("spiffe://example.test/agent/one");
        let agent = authorities[position].issue("agent", request);
        let client = workspace.client().credentials(&agent);
        ping(&mut client.connect(gateway.address()).unwrap());
    }
}

#[test]
fn nobody_outlives_the_ca_above_them() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let ca = Authority::ending_in(workspace.folder(), "short", 12);
    let agent = ca.issue(
        "agent",
        Request::client("spiffe://example.test/agent/short"),
    );
    let setup = workspace.setup().client_ca(&ca.certificate());
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let client = workspace.client().credentials(&agent).remembering();
    let mut first = client.connect(gateway.address()).unwrap();
    ping(&mut first);
    first.finish();
    first.receive_to_end();
    let mut open = client.connect(gateway.address()).unwrap();
    ping(&mut open);
    let kind = open.connection().handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    // The agent's own certificate is good for another month.
    open.receive_to_end();
    gateway.wait_for(ENDED, &[("reason", "expired")], 1);
    client.refused(gateway.address());
    workspace
        .client()
        .credentials(&agent)
        .refused(gateway.address());
    gateway.wait_for(FAILURES, &[("reason", "expired")], 2);
    let labels = [("reason", "expired")];
    gateway.wait_for("portcullis_tickets_refused_total", &labels, 1);
    let log = gateway.log();
    assert!(
        log.contains("the CA above it, CN=short, ended on 20"),
        "{log}"
    );
}
