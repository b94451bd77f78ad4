//! Clients that come back with a ticket: each ticket is worth what the certificate behind it is worth at that moment.
//! In: rustls and OpenSSL as clients, listeners and gateways that share keys or do not, certificates that stop being
//! good. Out: who resumes, who authenticates in full and why, who is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::{AlertDescription, HandshakeKind};
use tests::{
    Backend, Behaviour, ClientBuilder, Closing, Credentials, Excluded, Gateway, PATIENCE, Request,
    RevocationList, TlsFailure, Workspace, program,
};

const RESUMED: &str = "portcullis_handshakes_resumed_total";
const ISSUED: &str = "portcullis_tickets_issued_total";
const TICKETS_REFUSED: &str = "portcullis_tickets_refused_total";

const FULL: HandshakeKind = HandshakeKind::Full;
const AGAIN: HandshakeKind = HandshakeKind::Resumed;

/// A certificate that the default rule admits.
fn agent(workspace: &Workspace, name: &str) -> Credentials {
    let uri = format!("spiffe://example.test/agent/{name}");
    workspace.agents.issue(name, Request::client(&uri))
}

/// Sends and receives, which brings the ticket along, and leaves in peace. How the handshake went.
fn visit(client: &ClientBuilder, address: SocketAddr) -> HandshakeKind {
    let mut client = client.connect(address).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    let kind = client.connection().handshake_kind().unwrap();
    client.finish();
    client.receive_to_end();
    kind
}

/// Waits until a ticket has been refused for this reason, and for no other.
fn assert_ticket_refused(gateway: &Gateway, listener: &str, reason: &str) {
    let labels = [("listener", listener), ("reason", reason)];
    let metrics = gateway.wait_for(TICKETS_REFUSED, &labels, 1);
    let all = metrics.count(TICKETS_REFUSED, &[("listener", listener)]);
    assert_eq!(all, 1, "tickets refused at {listener}");
}

/// Reloads after the configuration has been changed.
fn reload(
    workspace: &Workspace,
    gateway: &mut Gateway,
    count: usize,
    change: impl FnOnce(String) -> String,
) {
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, change(text)).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(count);
}

/// `portcullis keys rotate`.
fn rotate(file: &Path, arguments: &[&str]) {
    let mut command = Command::new(program("portcullis"));
    command.args(["keys", "rotate"]).arg(file).args(arguments);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

/// Sends and receives with `openssl s_client`; everything it prints.
fn openssl(
    workspace: &Workspace,
    address: SocketAddr,
    who: &Credentials,
    arguments: &[&str],
) -> String {
    let mut child = Command::new("timeout")
        .args([&PATIENCE.as_secs().to_string(), "openssl", "s_client"])
        .args(["-connect", &address.to_string()])
        .args(["-servername", "gateway.test", "-CAfile"])
        .arg(workspace.gateways.certificate())
        .arg("-cert")
        .arg(&who.certificate)
        .arg("-key")
        .arg(&who.key)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A refused client may be gone before it has said anything.
    let _ = input.write_all(b"marker\n");
    let mut output = child.stdout.take().unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    // At the end of its input s_client leaves, so that has to wait for the answer.
    while !String::from_utf8_lossy(&text).contains("marker") {
        match output.read(&mut chunk).unwrap() {
            0 => break,
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
    drop(input);
    output.read_to_end(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut text).unwrap();
    child.wait().unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn rustls_and_openssl_resume_and_the_metrics_say_so() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let client = workspace.client().remembering();
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_eq!(visit(&client, gateway.address()), AGAIN);
    assert_eq!(visit(&client, gateway.address()), AGAIN);
    let edge = [("listener", "edge")];
    gateway.wait_for(RESUMED, &edge, 2);
    gateway.wait_for(ISSUED, &edge, 3);

    let session = workspace.folder().join("session.pem");
    let session = session.to_str().unwrap();
    let first = openssl(
        &workspace,
        gateway.address(),
        &workspace.agent,
        &["-sess_out", session],
    );
    assert!(first.contains("New, TLSv1.3"), "{first}");
    let second = openssl(
        &workspace,
        gateway.address(),
        &workspace.agent,
        &["-sess_in", session],
    );
    assert!(second.contains("Reused, TLSv1.3"), "{second}");
    let metrics = gateway.wait_for(RESUMED, &edge, 3);
    assert_eq!(metrics.count(TICKETS_REFUSED, &edge), 0);
}

#[test]
fn without_resumption_no_ticket_is_given() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .tables("[tls.resumption]\nenabled = false")
        .route("edge", "", &[backend.address()], "")
        .start();
    let client = workspace.client().remembering();
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_eq!(visit(&client, gateway.address()), FULL);
    let session = workspace.folder().join("session.pem");
    let arguments = ["-sess_out", session.to_str().unwrap()];
    let text = openssl(&workspace, gateway.address(), &workspace.agent, &arguments);
    assert!(text.contains("marker"), "{text}");
    assert!(!text.contains("New Session Ticket arrived"), "{text}");
    assert!(!session.exists(), "openssl kept a session it could resume");
}

#[test]
fn a_listener_without_resumption_gives_no_ticket_and_the_others_do() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route("with", "", &[backend.address()], "")
        .route("without", "resumption = false", &[backend.address()], "")
        .start();
    let session = workspace.folder().join("session.pem");
    let arguments = ["-sess_out", session.to_str().unwrap()];
    for (route, expected) in [("without", false), ("with", true)] {
        let address = gateway.address_of(route);
        let text = openssl(&workspace, address, &workspace.agent, &arguments);
        assert!(text.contains("marker"), "{text}");
        let arrived = text.contains("New Session Ticket arrived");
        assert_eq!(arrived, expected, "{route}: {text}");
        assert_eq!(session.exists(), expected, "{route}");
    }
}

#[test]
fn no_early_data_is_offered() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let session = workspace.folder().join("session.pem");
    let session = session.to_str().unwrap();
    let text = openssl(
        &workspace,
        gateway.address(),
        &workspace.agent,
        &["-sess_out", session],
    );
    assert!(text.contains("Max Early Data: 0"), "{text}");
    let early = workspace.folder().join("early");
    fs::write(&early, "EARLY").unwrap();
    let arguments = ["-sess_in", session, "-early_data", early.to_str().unwrap()];
    let text = openssl(&workspace, gateway.address(), &workspace.agent, &arguments);
    assert!(!text.contains("Early data was accepted"), "{text}");
    let received = backend.connections();
    assert!(received.iter().all(|one| !one.bytes.starts_with(b"EARLY")));
}

#[test]
fn a_ticket_of_one_listener_is_nothing_to_another() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let others = workspace
        .agents
        .subordinate("others", "Other agents of the test");
    let gateway = workspace
        .setup()
        .route("edge", "", &[backend.address()], "")
        .route("same-ca", "", &[backend.address()], "")
        .client_ca(&others.certificate())
        .route("other-ca", "", &[backend.address()], "")
        .start();
    let client = workspace.client().remembering();
    assert_eq!(visit(&client, gateway.address_of("edge")), FULL);
    // Its certificate suffices there: it gets in, and by that alone.
    assert_eq!(visit(&client, gateway.address_of("same-ca")), FULL);
    assert_ticket_refused(&gateway, "same-ca", "domain");

    assert_eq!(visit(&client, gateway.address_of("edge")), FULL);
    let refused = client.refused(gateway.address_of("other-ca"));
    let unknown = TlsFailure::Closed(Closing::Alert(AlertDescription::UnknownCA));
    assert_eq!(format!("{refused:?}"), format!("{unknown:?}"));
    assert_ticket_refused(&gateway, "other-ca", "domain");
}

#[test]
fn a_revoked_client_loses_its_ticket_and_nobody_else_does() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (good, bad) = (agent(&workspace, "good"), agent(&workspace, "bad"));
    let empty = workspace.agents.revoke("empty", &RevocationList::of(&[]));
    let crl = workspace.folder().join("in-force.crl");
    fs::copy(empty, &crl).unwrap();
    let mut gateway = workspace
        .setup()
        .route(
            "edge",
            &format!("crl = [{crl:?}]"),
            &[backend.address()],
            "",
        )
        .start();
    let good = workspace.client().credentials(&good).remembering();
    let revoked = workspace.client().credentials(&bad).remembering();
    for client in [&good, &revoked] {
        assert_eq!(visit(client, gateway.address()), FULL);
        assert_eq!(visit(client, gateway.address()), AGAIN);
    }
    let list = RevocationList::of(&[&bad.certificate]);
    fs::copy(workspace.agents.revoke("revoked", &list), &crl).unwrap();
    reload(&workspace, &mut gateway, 1, |text| text);
    let refused = revoked.refused(gateway.address());
    let alert = TlsFailure::Closed(Closing::Alert(AlertDescription::CertificateRevoked));
    assert_eq!(format!("{refused:?}"), format!("{alert:?}"));
    assert_ticket_refused(&gateway, "edge", "revoked");
    assert_eq!(visit(&good, gateway.address()), AGAIN);
}

#[test]
fn a_ticket_does_not_outlive_the_ca_or_the_rule_behind_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let others = tests::Authority::create(workspace.folder(), "others", "Other agents of the test");
    let both = workspace.folder().join("both.pem");
    let pem = |file: &Path| fs::read_to_string(file).unwrap();
    let agents = pem(&workspace.agents.certificate());
    fs::write(&both, agents.clone() + &pem(&others.certificate())).unwrap();
    let other = others.issue("other", Request::client("spiffe://example.test/other/1"));
    let rule = "[[identity]]\nmatch = { uri = \"spiffe://example.test/other/*\" }\n";
    let client = workspace.client().remembering();
    let other = workspace.client().credentials(&other).remembering();
    let mut gateway = workspace
        .setup()
        .identities(&format!(
            "[[identity]]\nmatch = {{ uri = \"spiffe://example.test/agent/*\" }}\n{rule}"
        ))
        .client_ca(&both)
        .route("edge", "", &[backend.address()], "")
        .start();
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_eq!(visit(&other, gateway.address()), FULL);

    // The other CA goes: its client's ticket with it, and nobody else's.
    fs::write(&both, &agents).unwrap();
    reload(&workspace, &mut gateway, 1, |text| text);
    other.refused(gateway.address());
    assert_ticket_refused(&gateway, "edge", "anchor");
    assert_eq!(visit(&client, gateway.address()), AGAIN);

    // A CA that is added voids no ticket.
    fs::write(&both, agents.clone() + &pem(&others.certificate())).unwrap();
    reload(&workspace, &mut gateway, 2, |text| text);
    assert_eq!(visit(&client, gateway.address()), AGAIN);

    reload(&workspace, &mut gateway, 3, |text| {
        text.replace("/agent/*", "/nobody/*")
    });
    client.refused(gateway.address());
    let labels = [("listener", "edge"), ("reason", "rule")];
    gateway.wait_for(TICKETS_REFUSED, &labels, 1);
}

#[test]
fn neither_a_ticket_nor_a_connection_outlives_what_the_ca_behind_it_may_issue_for() {
    for excluded in [Excluded::Dns("evil.test"), Excluded::CommonName("evil")] {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        let file = workspace.folder().join("agents.pem");
        fs::copy(workspace.agents.certificate(), &file).unwrap();
        let request = |name: &str| {
            let uri = format!("spiffe://example.test/agent/{name}");
            Request::client(&uri).dns(&format!("{name}.test"))
        };
        let agent = |name: &str| {
            let issued = workspace.agents.issue(name, request(name));
            workspace.client().credentials(&issued).remembering()
        };
        let (evil, good) = (agent("evil"), agent("good"));
        let mut gateway = workspace
            .setup()
            .top("close_spread = \"0s\"")
            .client_ca(&file)
            .route("edge", "", &[backend.address()], "")
            .start();
        let address = gateway.address();
        assert_eq!(visit(&evil, address), FULL);
        assert_eq!(visit(&good, address), FULL);
        let mut open = evil.connect(address).unwrap();
        open.send(b"ping").unwrap();
        assert_eq!(open.receive(4).unwrap(), b"ping");

        // The CA's certificate is replaced by one of the same name and key.
        let replaced = workspace
            .agents
            .renewed_excluding("Agents of the test", excluded);
        fs::write(&file, &replaced).unwrap();
        reload(&workspace, &mut gateway, 1, |text| text);
        assert_ne!(open.receive_to_end().1, Closing::CloseNotify);
        let ended = "portcullis_connections_ended_total";
        gateway.wait_for(ended, &[("reason", "untrusted")], 1);
        evil.refused(address);
        assert_ticket_refused(&gateway, "edge", "anchor");
        let refused = "portcullis_handshake_failures_total";
        gateway.wait_for(refused, &[("reason", "name_constraint")], 1);
        // Whoever it may issue for shows the certificate once more, and resumes from then on.
        assert_eq!(visit(&good, address), FULL);
        assert_eq!(visit(&good, address), AGAIN);

        // Without constraints everything holds that held under them.
        fs::copy(workspace.agents.certificate(), &file).unwrap();
        reload(&workspace, &mut gateway, 2, |text| text);
        assert_eq!(visit(&good, address), AGAIN);
    }
}

#[test]
fn a_ticket_does_not_outlive_its_certificate() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let uri = "spiffe://example.test/agent/short";
    let request = Request::client(uri).seconds(4);
    let short = workspace.agents.issue("short", request);
    let made = Instant::now();
    let short = workspace.client().credentials(&short).remembering();
    assert_eq!(visit(&short, gateway.address()), FULL);
    assert_eq!(visit(&short, gateway.address()), AGAIN);
    sleep(Duration::from_secs(6).saturating_sub(made.elapsed()));
    let refused = short.refused(gateway.address());
    let alert = TlsFailure::Closed(Closing::Alert(AlertDescription::CertificateExpired));
    assert_eq!(format!("{refused:?}"), format!("{alert:?}"));
    assert_ticket_refused(&gateway, "edge", "expired");
}

#[test]
fn a_client_that_resumes_again_and_again_authenticates_in_full_when_the_age_is_over() {
    const AGE: Duration = Duration::from_secs(2);
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .tables("[tls.resumption]\nmax_authentication_age = \"2s\"")
        .route("edge", "", &[backend.address()], "")
        .start();
    let client = workspace.client().remembering();
    let mut authenticated = Instant::now();
    let (mut full, mut resumed) = (0, 0);
    let started = Instant::now();
    while full < 3 && started.elapsed() < PATIENCE {
        let before = Instant::now();
        match visit(&client, gateway.address()) {
            AGAIN => {
                resumed += 1;
                let age = before.duration_since(authenticated);
                assert!(age <= AGE, "resumed {age:?} after the full handshake");
            }
            _ => {
                full += 1;
                // Not before its handshake ended, so that the age is never taken for too long.
                authenticated = Instant::now();
            }
        }
        sleep(Duration::from_millis(50));
    }
    assert_eq!(full, 3, "in {:?}", started.elapsed());
    assert!(resumed >= 2, "{resumed}");
}

#[test]
fn a_ticket_moved_to_a_client_with_another_certificate_gains_nothing() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route("edge", "", &[backend.address()], "proxy_protocol = true")
        .start();
    let (owner, thief) = (agent(&workspace, "owner"), agent(&workspace, "thief"));
    let session = workspace.folder().join("session.pem");
    let session = session.to_str().unwrap();
    let address = gateway.address();
    openssl(&workspace, address, &owner, &["-sess_out", session]);
    let text = openssl(&workspace, address, &thief, &["-sess_in", session]);
    assert!(text.contains("Reused, TLSv1.3"), "{text}");
    // With the session's secret the thief is the owner, as whoever has a secret is, and never itself as well.
    let last = backend.connections().pop().unwrap().bytes;
    let says = |text: &[u8], name: &str| {
        let name = name.as_bytes();
        text.windows(name.len()).any(|window| window == name)
    };
    assert!(says(&last, "spiffe://example.test/agent/owner"));
    assert!(!says(&last, "spiffe://example.test/agent/thief"));
}

#[test]
fn a_ticket_without_its_secret_is_refused() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = workspace.folder().join("tickets.toml");
    rotate(&keys, &[]);
    let gateway = workspace
        .setup()
        .tables(&format!("[tls.resumption]\nkey_file = {keys:?}"))
        .route("edge", "", &[backend.address()], "")
        .start();
    let session = |name: &str| {
        let who = agent(&workspace, name);
        let file = workspace.folder().join("session");
        let path = file.to_str().unwrap();
        openssl(&workspace, gateway.address(), &who, &["-sess_out", path]);
        let der = pem_contents(&fs::read_to_string(&file).unwrap());
        let at = ticket_position(&der, &fs::read_to_string(&keys).unwrap());
        let bytes = usize::from(der[at - 2]) << 8 | usize::from(der[at - 1]);
        (who, der, at..at + bytes)
    };
    let (_, victim, victims_ticket) = session("victim-00");
    // Signatures vary by a byte or two, and one ticket has to fit into the other's place.
    let mut of_mallet = (10..99).map(|number| session(&format!("mallet-{number}")));
    let fitting = of_mallet.find(|(_, _, ticket)| ticket.len() == victims_ticket.len());
    let (mallet, mut forged, own_ticket) = fitting.expect("a ticket of the same length");
    // Mallet's secret with the victim's ticket: what somebody has who saw the ticket on the wire of a broken client.
    forged[own_ticket].copy_from_slice(&victim[victims_ticket]);
    let file = workspace.folder().join("forged.session");
    fs::write(&file, pem(&forged)).unwrap();
    let before = backend.connections().len();
    let arguments = ["-sess_in", file.to_str().unwrap()];
    let text = openssl(&workspace, gateway.address(), &mallet, &arguments);
    assert!(!text.contains("Reused, TLSv1.3"), "{text}");
    assert!(!text.contains("marker"), "{text}");
    let labels = [("listener", "edge"), ("reason", "bad_signature")];
    gateway.wait_for("portcullis_handshake_failures_total", &labels, 1);
    assert_eq!(backend.connections().len(), before);
}

/// Where the ticket begins in an OpenSSL session: with our version and the name of the key.
fn ticket_position(der: &[u8], keys: &str) -> usize {
    let id = keys.split("id = \"").nth(1).unwrap();
    let digits = &id[..16];
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let mut start = vec![4];
    start.extend((0..16).step_by(2).map(byte));
    let mut windows = der.windows(start.len());
    windows.position(|window| window == start).unwrap()
}

fn pem_contents(text: &str) -> Vec<u8> {
    let output = run_openssl(
        &["enc", "-d", "-base64"],
        text.lines().filter(|line| !line.starts_with('-')),
    );
    assert!(!output.is_empty());
    output
}

fn pem(der: &[u8]) -> String {
    let mut child = base64_command(&["enc", "-base64"]);
    child.stdin.take().unwrap().write_all(der).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("-----BEGIN SSL SESSION PARAMETERS-----\n{text}-----END SSL SESSION PARAMETERS-----\n")
}

fn run_openssl<'t>(arguments: &[&str], lines: impl Iterator<Item = &'t str>) -> Vec<u8> {
    let mut child = base64_command(arguments);
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    child.wait_with_output().unwrap().stdout
}

fn base64_command(arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn hosts_and_restarts_that_share_a_key_file_take_each_others_tickets() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = workspace.folder().join("tickets.toml");
    rotate(&keys, &[]);
    let table = format!("[tls.resumption]\nkey_file = {keys:?}");
    let start = || {
        let setup = workspace.setup().tables(&table);
        setup.route("edge", "", &[backend.address()], "").start()
    };
    let client = workspace.client().remembering();
    let mut first = start();
    assert_eq!(visit(&client, first.address()), FULL);
    let setup = workspace.setup().second().tables(&table);
    let second = setup.route("edge", "", &[backend.address()], "").start();
    assert_eq!(visit(&client, second.address()), AGAIN);
    first.terminate();
    first.wait();
    drop(first);
    let restarted = start();
    assert_eq!(visit(&client, restarted.address()), AGAIN);
}

#[test]
fn without_a_key_file_neither_a_restart_nor_another_host_takes_a_ticket() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let client = workspace.client().remembering();
    let mut first = workspace.gateway(backend.address());
    assert_eq!(visit(&client, first.address()), FULL);
    assert_eq!(visit(&client, first.address()), AGAIN);
    let setup = workspace.setup().second();
    let second = setup.route("edge", "", &[backend.address()], "").start();
    assert_eq!(visit(&client, second.address()), FULL);
    assert_ticket_refused(&second, "edge", "unknown_key");
    assert_eq!(visit(&client, first.address()), FULL);
    first.terminate();
    first.wait();
    drop(first);
    let restarted = workspace.gateway(backend.address());
    assert_eq!(visit(&client, restarted.address()), FULL);
    assert_ticket_refused(&restarted, "edge", "unknown_key");
}

#[test]
fn a_ticket_of_another_suite_leads_to_a_full_handshake_that_says_so() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = workspace.folder().join("tickets.toml");
    rotate(&keys, &[]);
    let start = |first: &str| {
        let tables =
            format!("[tls]\ncipher_suites = [{first:?}]\n[tls.resumption]\nkey_file = {keys:?}");
        let setup = workspace.setup().tables(&tables);
        setup.route("edge", "", &[backend.address()], "").start()
    };
    let client = workspace.client().remembering();
    let mut before = start("TLS_AES_256_GCM_SHA384");
    assert_eq!(visit(&client, before.address()), FULL);
    assert_eq!(visit(&client, before.address()), AGAIN);
    before.terminate();
    before.wait();
    drop(before);
    let after = start("TLS_AES_128_GCM_SHA256");
    assert_eq!(visit(&client, after.address()), FULL);
    assert_ticket_refused(&after, "edge", "parameters");
    assert_eq!(visit(&client, after.address()), AGAIN);
}

#[test]
fn rotation_keeps_old_tickets_and_distrust_keeps_none() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = workspace.folder().join("tickets.toml");
    rotate(&keys, &[]);
    let mut gateway = workspace
        .setup()
        .tables(&format!("[tls.resumption]\nkey_file = {keys:?}"))
        .route("edge", "", &[backend.address()], "")
        .start();
    let client = workspace.client().remembering();
    assert_eq!(visit(&client, gateway.address()), FULL);
    rotate(&keys, &[]);
    reload(&workspace, &mut gateway, 1, |text| text);
    assert_eq!(visit(&client, gateway.address()), AGAIN);
    rotate(&keys, &["--distrust"]);
    reload(&workspace, &mut gateway, 2, |text| text);
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_ticket_refused(&gateway, "edge", "epoch");
    assert_eq!(visit(&client, gateway.address()), AGAIN);
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_broken_refuses_the_start() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = workspace.folder().join("tickets.toml");
    rotate(&keys, &[]);
    let refused = || {
        let setup = workspace.setup();
        let setup = setup.tables(&format!("[tls.resumption]\nkey_file = {keys:?}"));
        setup.route("edge", "", &[backend.address()], "").refused()
    };
    let text = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, text.replace("[[key]]", "[[kee]]")).unwrap();
    let said = refused();
    assert!(said.contains("is not a file of ticket keys"), "{said}");
    fs::write(&keys, &text).unwrap();
    fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let said = refused();
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn a_certificate_too_long_for_a_ticket_gets_in_each_time_without_one() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    for (names, kind) in [(100, AGAIN), (400, FULL), (1000, FULL)] {
        let mut request = Request::client("spiffe://example.test/agent/many");
        for number in 0..names {
            request = request.dns(&format!("name-{number:04}.of-many.agents.example.test"));
        }
        let many = workspace.agents.issue(&format!("many-{names}"), request);
        let client = workspace.client().credentials(&many).remembering();
        assert_eq!(visit(&client, gateway.address()), FULL);
        assert_eq!(visit(&client, gateway.address()), kind, "{names} names");
    }
}

#[test]
fn keys_in_memory_outlive_a_reload_and_those_of_a_file_do_not_stay_behind_in_memory() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let keys = workspace.folder().join("tickets.toml");
    rotate(&keys, &[]);
    let key_file = format!("key_file = {keys:?}");
    let setup = workspace
        .setup()
        .tables(&format!("[tls.resumption]\n{key_file}"));
    let mut gateway = setup.route("edge", "", &[backend.address()], "").start();
    let client = workspace.client().remembering();
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_eq!(visit(&client, gateway.address()), AGAIN);
    // From the file to memory: whoever has the file opens nothing any more.
    reload(&workspace, &mut gateway, 1, |text| {
        text.replace(&key_file, "")
    });
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_ticket_refused(&gateway, "edge", "unknown_key");
    assert_eq!(visit(&client, gateway.address()), AGAIN);
    reload(&workspace, &mut gateway, 2, |text| text);
    assert_eq!(visit(&client, gateway.address()), AGAIN);
    // And back: what the memory's keys have sealed is worth nothing.
    let table = "[tls.resumption]";
    reload(&workspace, &mut gateway, 3, |text| {
        text.replace(table, &format!("{table}\n{key_file}"))
    });
    assert_eq!(visit(&client, gateway.address()), FULL);
    assert_eq!(visit(&client, gateway.address()), AGAIN);
}
