//! Who does not get in: each with a reason of its own in the metric, and not one byte at the backend.
//! In: hostile and mistaken clients. Out: exactly one counted refusal each, and a gateway that still serves others.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustls::{AlertDescription, CipherSuite, NamedGroup};
use tests::{
    Authority, Backend, Behaviour, Client, Closing, Gateway, PATIENCE, Request, TlsFailure, Usage,
    Workspace, abort, eventually,
};

const AGENT: &str = "spiffe://example.test/agent/impostor";
const FAILURES: &str = "portcullis_handshake_failures_total";

/// Runs one attempt against a gateway of its own and asserts how it is refused, everywhere where that shows.
fn refused_as(reason: &str, listener: &str, attempt: impl FnOnce(&Workspace, SocketAddr)) {
    refused_with(reason, listener, "", attempt);
}

fn refused_with(
    reason: &str,
    listener: &str,
    tables: &str,
    attempt: impl FnOnce(&Workspace, SocketAddr),
) {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .tables(tables)
        .route(
            "edge",
            &format!("handshake_timeout = \"1s\"\n{listener}"),
            &[backend.address()],
            "",
        )
        .start();
    attempt(&workspace, gateway.address());

    let metrics = gateway.wait_for(FAILURES, &[("listener", "edge"), ("reason", reason)], 1);
    assert_eq!(
        metrics.count(FAILURES, &[]),
        1,
        "{:?}",
        metrics.by_label(FAILURES, "reason")
    );
    assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 0);
    assert_eq!(backend.connections().len(), 0, "the backend was connected");
    eventually("the refusal stands in the log", || {
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains(reason) && line.contains("edge"))
            .then_some(())
    });
    assert_serves(&workspace, &gateway, &backend);
}

/// One refusal must not cost anybody else anything.
fn assert_serves(workspace: &Workspace, gateway: &Gateway, backend: &Backend) {
    let mut client = workspace
        .client()
        .alpn("h2")
        .connect(gateway.address())
        .unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    assert_eq!(backend.connections().len(), 1);
    assert_eq!(backend.received_bytes(), 5);
}

fn assert_alert(failure: &TlsFailure, expected: AlertDescription) {
    match failure {
        TlsFailure::Closed(Closing::Alert(alert)) => assert_eq!(*alert, expected),
        other => panic!("{expected:?} was expected, and came {other:?}"),
    }
}

#[test]
fn a_client_without_a_certificate() {
    refused_as("no_certificate", "", |workspace, address| {
        let failure = workspace.client().without_certificate().refused(address);
        assert_alert(&failure, AlertDescription::CertificateRequired);
    });
}

#[test]
fn a_certificate_of_a_foreign_authority() {
    refused_as("unknown_issuer", "", |workspace, address| {
        let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
        let impostor = foreign.issue("impostor", Request::client(AGENT));
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert_alert(&failure, AlertDescription::UnknownCA);
    });
}

#[test]
fn a_certificate_of_the_authority_that_signed_the_gateways_own() {
    refused_as("unknown_issuer", "", |workspace, address| {
        let impostor = workspace.gateways.issue("impostor", Request::client(AGENT));
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert_alert(&failure, AlertDescription::UnknownCA);
    });
}

#[test]
fn a_certificate_of_an_authority_that_only_bears_the_name() {
    refused_as("bad_signature", "", |workspace, address| {
        let double = Authority::create(workspace.folder(), "double", "Agents of the test");
        let impostor = double.issue("impostor", Request::client(AGENT));
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert!(
            matches!(failure, TlsFailure::Closed(Closing::Alert(_))),
            "{failure:?}"
        );
    });
}

#[test]
fn an_expired_certificate() {
    refused_as("expired", "", |workspace, address| {
        let impostor = workspace
            .agents
            .issue("impostor", Request::client(AGENT).expired());
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert_alert(&failure, AlertDescription::CertificateExpired);
    });
}

#[test]
fn a_certificate_that_is_not_valid_yet() {
    refused_as("not_yet_valid", "", |workspace, address| {
        let impostor = workspace
            .agents
            .issue("impostor", Request::client(AGENT).not_yet_valid());
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert_alert(&failure, AlertDescription::CertificateExpired);
    });
}

#[test]
fn a_certificate_for_servers_only() {
    refused_as("wrong_key_usage", "", |workspace, address| {
        let request = Request::client(AGENT).usage(Usage::Server);
        let impostor = workspace.agents.issue("impostor", request);
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert!(
            matches!(failure, TlsFailure::Closed(Closing::Alert(_))),
            "{failure:?}"
        );
    });
}

#[test]
fn a_certificate_that_states_no_usage() {
    refused_as("wrong_key_usage", "", |workspace, address| {
        let request = Request::client(AGENT).usage(Usage::Unstated);
        let impostor = workspace.agents.issue("impostor", request);
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert!(
            matches!(failure, TlsFailure::Closed(Closing::Alert(_))),
            "{failure:?}"
        );
    });
}

#[test]
fn an_identity_that_no_rule_matches() {
    refused_as("not_authorized", "", |workspace, address| {
        let request = Request::client("spiffe://example.test/visitor/1");
        let impostor = workspace.agents.issue("impostor", request);
        let failure = workspace.client().credentials(&impostor).refused(address);
        assert_alert(&failure, AlertDescription::AccessDenied);
    });
}

#[test]
fn anybody_where_there_are_no_rules() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .identities("")
        .route("edge", "", &[backend.address()], "")
        .start();
    let failure = workspace.client().refused(gateway.address());
    assert_alert(&failure, AlertDescription::AccessDenied);
    gateway.wait_for(FAILURES, &[("reason", "not_authorized")], 1);
    assert!(backend.connections().is_empty());
}

#[test]
fn a_client_that_speaks_tls_1_2_only() {
    refused_as("version", "", |workspace, address| {
        let output = openssl_client(workspace, address, &["-tls1_2"]);
        assert!(output.contains("alert protocol version"), "{output}");
    });
}

#[test]
fn a_client_that_speaks_tls_1_1_at_most() {
    for version in ["-tls1_1", "-tls1"] {
        refused_as("version", "", |workspace, address| {
            let arguments = [version, "-cipher", "ALL:@SECLEVEL=0"];
            let output = openssl_client(workspace, address, &arguments);
            assert!(output.contains("alert protocol version"), "{output}");
        });
    }
}

#[test]
fn a_cipher_suite_that_is_not_pinned() {
    let tables = "[tls]\ncipher_suites = [\"TLS_AES_128_GCM_SHA256\"]";
    refused_with("cipher_suite", "", tables, |workspace, address| {
        let suite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        let failure = workspace.client().only_suite(suite).refused(address);
        assert_alert(&failure, AlertDescription::HandshakeFailure);
    });
}

#[test]
fn a_group_that_is_not_pinned() {
    let tables = "[tls]\ngroups = [\"X25519\", \"secp256r1\"]";
    refused_with("group", "", tables, |workspace, address| {
        let failure = workspace
            .client()
            .only_group(NamedGroup::secp384r1)
            .refused(address);
        assert_alert(&failure, AlertDescription::HandshakeFailure);
    });
}

#[test]
fn an_application_protocol_that_is_not_spoken_here() {
    refused_as("alpn", "alpn = [\"h2\"]", |workspace, address| {
        let failure = workspace.client().alpn("http/1.1").refused(address);
        assert_alert(&failure, AlertDescription::NoApplicationProtocol);
    });
}

#[test]
fn a_server_name_that_no_certificate_covers() {
    refused_as("sni", "", |workspace, address| {
        let failure = workspace
            .client()
            .server_name("other.test")
            .refused(address);
        assert_alert(&failure, AlertDescription::UnrecognisedName);
    });
}

#[test]
fn plain_http() {
    refused_as("not_tls", "", |_, address| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket
            .write_all(b"POST /v1/traces HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
            .unwrap();
        let said = String::from_utf8(received(&mut socket)).unwrap();
        assert!(said.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{said}");
        assert!(
            said.contains("takes TLS 1.3 with a client certificate"),
            "{said}"
        );
    });
}

#[test]
fn plain_grpc() {
    refused_as("not_tls", "", |_, address| {
        let mut socket = TcpStream::connect(address).unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        socket.write_all(preface).unwrap();
        let said = received(&mut socket);
        // SETTINGS, then GOAWAY with INADEQUATE_SECURITY and a text (RFC 9113 sections 6.5, 6.8 and 7).
        assert_eq!(said[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!((said[12], said[25]), (7, 12));
        let text = String::from_utf8_lossy(&said[26..]);
        assert!(
            text.contains("takes TLS 1.3 with a client certificate"),
            "{text}"
        );
    });
}

/// Everything up to the end, however it comes.
fn received(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    let _ = socket.read_to_end(&mut received);
    received
}

#[test]
fn the_log_says_who_was_presented_by_whom_it_was_issued_and_what_is_missing() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
    let impostor = foreign.issue("impostor", Request::client(AGENT));
    let old = workspace.client().without_certificate();
    old.refused(gateway.address());
    let client = workspace.client().credentials(&impostor);
    client.refused(gateway.address());
    let cases = [
        (
            "unknown_issuer",
            "presented=\"uri \\\"spiffe://example.test/agent/impostor\\\"",
        ),
        ("unknown_issuer", "issuer=\"CN=Somebody else\" serial=\""),
        (
            "unknown_issuer",
            "is none of the 1 there, and no intermediate certificate came with it",
        ),
        ("no_certificate", "the client sent no certificate"),
    ];
    for (reason, words) in cases {
        eventually(&format!("the log says {words}"), || {
            let named = |line: &str| line.contains(reason) && line.contains(words);
            gateway.log().lines().any(named).then_some(())
        });
    }
}

#[test]
fn no_line_about_a_refusal_is_long_whatever_is_in_the_certificate() {
    const LINE_BYTES_MAX: usize = 8 << 10;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let foreign = Authority::create(workspace.folder(), "foreign", &"\u{1}".repeat(50_000));
    let names = (0..50).fold(Request::client(AGENT), |names, number| {
        names.dns(&format!("{number}{}.test", "a".repeat(100)))
    });
    let impostor = foreign.issue("impostor", names);
    let client = workspace.client().credentials(&impostor);
    client.refused(gateway.address());
    let line = eventually("the log has the refusal", || {
        let log = gateway.log();
        let mut lines = log.lines();
        lines
            .find(|line| line.contains("unknown_issuer"))
            .map(str::to_owned)
    });
    assert!(line.len() < LINE_BYTES_MAX, "{} bytes", line.len());
    assert!(line.contains("issuer=\"CN=\\\\01\\\\01"), "{line}");
}

#[test]
fn random_bytes() {
    refused_as("not_tls", "", |_, address| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&[0x80; 300]).unwrap();
        assert_no_application_data(socket);
    });
}

#[test]
fn a_record_that_holds_no_client_hello() {
    refused_as("malformed", "", |_, address| {
        let mut socket = TcpStream::connect(address).unwrap();
        // A handshake record whose message is a ServerHello of 32 zeros.
        let mut record = vec![22, 3, 1, 0, 36, 2, 0, 0, 32];
        record.extend_from_slice(&[0; 32]);
        socket.write_all(&record).unwrap();
        assert_no_application_data(socket);
    });
}

#[test]
fn silence() {
    refused_as("timeout", "", |_, address| {
        assert_no_application_data(TcpStream::connect(address).unwrap());
    });
}

#[test]
fn a_hello_of_one_byte_at_a_time() {
    refused_as("timeout", "", |workspace, address| {
        let hello = workspace.client().client_hello();
        let mut socket = TcpStream::connect(address).unwrap();
        // Slow enough that the whole would take a minute, steady enough that no single wait is long.
        for byte in &hello {
            if socket.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(200));
        }
        assert_no_application_data(socket);
    });
}

#[test]
fn a_client_that_falls_silent_after_its_hello() {
    refused_as("timeout", "", |workspace, address| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket
            .write_all(&workspace.client().client_hello())
            .unwrap();
        assert_no_application_data(socket);
    });
}

#[test]
fn a_handshake_that_takes_too_long_is_logged_with_the_setting() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = "handshake_timeout = \"1s\"";
    let setup = workspace.setup();
    let gateway = setup.route("edge", keys, &[backend.address()], "").start();
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket
        .write_all(&workspace.client().client_hello())
        .unwrap();
    assert_no_application_data(socket);
    eventually("the refusal is logged", || {
        let detail = "detail=\"handshake_timeout = 1s\"";
        gateway.log().contains(detail).then_some(())
    });
}

#[test]
fn a_half_open_client_that_never_answers() {
    refused_as("timeout", "", |workspace, address| {
        let hello = workspace.client().client_hello();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&hello[..hello.len() / 2]).unwrap();
        assert_no_application_data(socket);
    });
}

#[test]
fn a_client_that_closes_in_the_middle_of_its_hello() {
    refused_as("reset", "", |workspace, address| {
        let hello = workspace.client().client_hello();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&hello[..hello.len() / 2]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_no_application_data(socket);
    });
}

#[test]
fn a_client_that_is_killed_in_the_middle_of_the_handshake() {
    refused_as("reset", "", |workspace, address| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket
            .write_all(&workspace.client().client_hello())
            .unwrap();
        // The gateway has answered, so it has seen the hello.
        socket.read_exact(&mut [0; 5]).unwrap();
        abort(socket);
    });
}

#[test]
fn a_client_that_does_not_trust_the_gateway() {
    refused_as("client_rejected_server", "", |workspace, address| {
        let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
        let failure = workspace
            .client()
            .roots(foreign.certificate())
            .refused(address);
        assert!(matches!(failure, TlsFailure::Ours(_)), "{failure:?}");
    });
}

#[test]
fn one_connection_too_many() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route("edge", "max_connections = 2", &[backend.address()], "")
        .start();
    let mut inside: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = workspace.client().connect(gateway.address()).unwrap();
            client.send(b"a").unwrap();
            client.receive(1).unwrap();
            client
        })
        .collect();
    let failure = workspace.client().refused(gateway.address());
    assert!(matches!(failure, TlsFailure::Closed(_)), "{failure:?}");
    gateway.wait_for(
        FAILURES,
        &[("listener", "edge"), ("reason", "over_limit")],
        1,
    );
    assert_eq!(backend.connections().len(), 2);

    // Those inside go on, and a place that is given up can be taken.
    let mut leaving = inside.pop().unwrap();
    inside[0].send(b"b").unwrap();
    assert_eq!(inside[0].receive(1).unwrap(), b"b");
    leaving.finish();
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 1);
    let mut next = workspace.client().connect(gateway.address()).unwrap();
    next.send(b"c").unwrap();
    assert_eq!(next.receive(1).unwrap(), b"c");
}

/// Reads what a refused client is sent: alerts at most, then the end, within the test's patience.
fn assert_no_application_data(mut socket: TcpStream) {
    const APPLICATION_DATA: u8 = 23;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    // A reset is an end as good as any.
    if let Err(error) = socket.read_to_end(&mut received) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    // In answer to a whole hello the server's own flight is encrypted, and looks like application data.
    const SERVER_HELLO_RECORD: u8 = 22;
    if received.first() != Some(&SERVER_HELLO_RECORD) {
        assert_ne!(received.first(), Some(&APPLICATION_DATA));
        assert!(received.len() <= 7, "more than one alert: {received:?}");
    }
}

/// What `openssl s_client` says, with our good certificate.
fn openssl_client(workspace: &Workspace, address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-servername",
            "gateway.test",
        ])
        .arg("-CAfile")
        .arg(workspace.gateways.certificate())
        .arg("-cert")
        .arg(&workspace.agent.certificate)
        .arg("-key")
        .arg(&workspace.agent.key)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}
