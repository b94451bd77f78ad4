//! What could not be taken when it was published, and is taken later although no file changes any more.
//! In: lists, CAs and certificates that begin in a moment; files that are written while the gateway has no descriptor left.
//! Out: who is cut off, who gets in, what is served, once the time has come or there are descriptors again.

use std::fs;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tests::{
    Authority, Backend, Behaviour, Client, Closing, Gateway, Request, RevocationList, Workspace,
    eventually,
};

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

fn wait_for_log(gateway: &Gateway, words: &[&str]) {
    eventually(&format!("the log says {words:?}"), || {
        let log = gateway.log();
        let mut lines = log.lines();
        lines
            .any(|line| words.iter().all(|word| line.contains(word)))
            .then_some(())
    });
}

/// A gateway whose listener has an empty list, and a client that is connected.
fn with_a_list(workspace: &Workspace, backend: &Backend) -> (Gateway, Client) {
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let crl = format!("crl = [{list:?}]");
    let setup = workspace.setup().top("drain_timeout = \"0s\"");
    let gateway = setup.route("edge", &crl, &[backend.address()], "").start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    (gateway, client)
}

/// More than clocks may differ, by a few seconds.
const TOO_FAR_AHEAD: i64 = 5 * 60 + 4;

#[test]
fn a_list_from_the_future_acts_when_its_time_has_come() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, mut revoked) = with_a_list(&workspace, &backend);
    let list = RevocationList::of(&[&workspace.agent.certificate]);
    let list = list.ahead(TOO_FAR_AHEAD);
    workspace.agents.revoke("agents.crl", &list);
    wait_for_log(&gateway, &["reload refused", "issued in the future"]);
    ping(&mut revoked);
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    workspace.client().refused(gateway.address());
}

#[test]
fn a_list_a_minute_ahead_acts_at_once() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, mut revoked) = with_a_list(&workspace, &backend);
    let list = RevocationList::of(&[&workspace.agent.certificate]);
    workspace.agents.revoke("agents.crl", &list.ahead(60));
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    workspace.client().refused(gateway.address());
}

#[test]
fn a_ca_that_begins_soon_admits_its_clients_when_it_has_begun() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let next = Authority::create_for(workspace.folder(), "next", 5..3600);
    let agent = next.issue("agent", Request::client("spiffe://example.test/agent/next"));
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&workspace.agents) + &read(&next)).unwrap();
    let setup = workspace.setup().client_ca(&both);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    wait_for_log(&gateway, &["CN=next", "is not valid before", "not used"]);
    eventually("the client of the new CA gets in", || {
        let client = workspace.client().credentials(&agent);
        let mut client = client.connect(gateway.address()).ok()?;
        client.send(b"ping").ok()?;
        (client.receive(4).ok()? == b"ping").then_some(())
    });
}

#[test]
fn a_certificate_of_ours_that_begins_soon_is_served_when_it_has_begun() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let request = Request::server("gateway.test").dns("gateway.test");
    let next = workspace.gateways.issue("next", request.begins(5));
    fs::copy(&next.key, &workspace.server.key).unwrap();
    fs::copy(&next.certificate, &workspace.server.certificate).unwrap();
    wait_for_log(&gateway, &["reload refused", "is not valid before"]);
    let next = CertificateDer::from_pem_file(&next.certificate).unwrap();
    eventually("the new certificate is served", || {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        ping(&mut client);
        let served = client.connection().peer_certificates().unwrap()[0].clone();
        (served == next).then_some(())
    });
}

#[test]
fn a_list_published_while_there_are_no_descriptors_acts_once_there_are() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (mut gateway, mut revoked) = with_a_list(&workspace, &backend);
    let limit = gateway.process().limit_descriptors(0);
    let list = RevocationList::of(&[&workspace.agent.certificate]);
    workspace.agents.revoke("agents.crl", &list);
    wait_for_log(&gateway, &["reload refused", "Too many open files"]);
    ping(&mut revoked);
    gateway.process().limit_descriptors(limit);
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    workspace.client().refused(gateway.address());
}

#[test]
fn a_block_written_while_there_are_no_descriptors_acts_once_there_are() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut blocked = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut blocked);
    let limit = gateway.process().limit_descriptors(0);
    // As `portcullis block` writes it: the command would wait for a gateway that cannot answer.
    let entry = "{\"blocked\":[{\"identity\":\"spiffe://example.test/agent/*\",\"by\":\"test\",\
                 \"at\":\"2026-01-01T00:00:00Z\"}]}";
    fs::write(workspace.state_folder().join("blocked.json"), entry).unwrap();
    wait_for_log(&gateway, &["block list refused", "Too many open files"]);
    ping(&mut blocked);
    gateway.process().limit_descriptors(limit);
    assert_ne!(blocked.receive_to_end().1, Closing::CloseNotify);
    workspace.client().refused(gateway.address());
}
