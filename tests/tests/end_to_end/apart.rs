//! What revokes acts apart from what admits.
//! In: lists that are published while the rest of the configuration is refused, needs a restart, or has ended. Out: whom they
//! name is cut off and stays out, and whom the rest would admit is not admitted.

use std::fs;
use std::path::PathBuf;

use tests::{
    Authority, Backend, Behaviour, Client, Closing, Credentials, Gateway, Request, RevocationList,
    Workspace, eventually,
};

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

/// Changes the configuration, and waits until it is refused.
fn spoil(workspace: &Workspace, gateway: &Gateway, change: impl FnOnce(String) -> String) {
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, change(text)).unwrap();
    gateway.wait_for_a_refused_reload();
}

/// The configuration with a certificate of the gateway that has ended.
fn with_an_ended_certificate(workspace: &Workspace, text: &str) -> String {
    let request = Request::server("gateway.test").dns("gateway.test");
    let ended = workspace.gateways.issue("ended", request.expired());
    let pair = |credentials: &Credentials| {
        format!("{:?}\nkey = {:?}", credentials.certificate, credentials.key)
    };
    let old = pair(&workspace.server);
    assert!(text.contains(&old), "{text}");
    text.replace(&old, &pair(&ended))
}

fn with_a_list(workspace: &Workspace, backend: &Backend) -> (Gateway, Client, PathBuf) {
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let crl = format!("crl = [{list:?}]");
    let setup = workspace.setup().top("drain_timeout = \"0s\"");
    let gateway = setup.route("edge", &crl, &[backend.address()], "").start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    (gateway, client, list)
}

fn assert_list_acts(workspace: &Workspace, gateway: &Gateway, mut revoked: Client) {
    let list = RevocationList::of(&[&workspace.agent.certificate]);
    workspace.agents.revoke("agents.crl", &list);
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    let labels = [("listener", "edge"), ("reason", "revoked")];
    gateway.wait_for("portcullis_connections_ended_total", &labels, 1);
    // Each worker takes the list by itself, within a moment.
    eventually("newcomers are refused", || {
        workspace.client().refused(gateway.address());
        let refused = "portcullis_handshake_failures_total";
        (gateway.metrics().count(refused, &labels) > 0).then_some(())
    });
}

#[test]
fn a_list_acts_beside_an_edit_that_needs_a_restart() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| {
        text.replace(":4317\"", ":4399\"")
    });
    assert_list_acts(&workspace, &gateway, client);
}

#[test]
fn a_list_acts_beside_a_key_that_nobody_knows() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| {
        text.replace("mode =", "mood =")
    });
    assert_list_acts(&workspace, &gateway, client);
}

#[test]
fn a_list_acts_beside_text_that_is_no_configuration() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| text + "[[[");
    assert_list_acts(&workspace, &gateway, client);
}

#[test]
fn a_list_acts_beside_a_certificate_of_ours_that_has_ended() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| {
        with_an_ended_certificate(&workspace, &text)
    });
    assert_list_acts(&workspace, &gateway, client);
}

#[test]
fn a_list_acts_beside_an_observed_file_that_has_ended() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| {
        let next = with_an_ended_certificate(&workspace, &text);
        fs::write(workspace.folder().join("next.toml"), next).unwrap();
        format!("observe = \"next.toml\"\n{text}")
    });
    assert_list_acts(&workspace, &gateway, client);
}

#[test]
fn a_list_that_only_the_refused_configuration_names_acts_too() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    let list = RevocationList::of(&[&workspace.agent.certificate]);
    let list = workspace.agents.revoke("agents.crl", &list);
    spoil(&workspace, &gateway, |text| {
        let text = text.replace(":4317\"", ":4399\"");
        text.replace("mode =", &format!("crl = [{list:?}]\nmode ="))
    });
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    workspace.client().refused(gateway.address());
}

#[test]
fn a_list_that_only_the_refused_configuration_names_keeps_nobody_out_whom_it_does_not_name() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let others = Authority::create(workspace.folder(), "others", "Other agents of the test");
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&others) + &read(&workspace.agents)).unwrap();
    let setup = workspace
        .setup()
        .client_ca(&both)
        .top("drain_timeout = \"0s\"");
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut revoked = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut revoked);
    let request = || Request::client("spiffe://example.test/agent/2");
    let innocent =
        [&workspace.agents, &others].map(|authority| authority.issue("innocent", request()));
    let mut open = innocent.each_ref().map(|innocent| {
        let client = workspace.client().credentials(innocent);
        client.connect(gateway.address()).unwrap()
    });
    open.iter_mut().for_each(ping);
    // Too old by now to vouch for those it does not name.
    let list = RevocationList::of(&[&workspace.agent.certificate]).ended();
    let list = workspace.agents.revoke("agents.crl", &list);
    spoil(&workspace, &gateway, |text| {
        let text = text.replace(":4317\"", ":4399\"");
        text.replace("mode =", &format!("crl = [{list:?}]\nmode ="))
    });
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    workspace.client().refused(gateway.address());
    open.iter_mut().for_each(ping);
    for innocent in &innocent {
        let client = workspace.client().credentials(innocent);
        ping(&mut client.connect(gateway.address()).unwrap());
    }
}

#[test]
fn a_list_acts_beside_an_edit_that_needs_a_restart_and_names_it_no_more() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, list) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| {
        let named = format!("crl = [{list:?}]");
        assert!(text.contains(&named));
        text.replace(":4317\"", ":4399\"").replace(&named, "")
    });
    assert_list_acts(&workspace, &gateway, client);
}

#[test]
fn a_list_dated_ahead_acts_when_its_time_comes_beside_text_that_is_no_configuration() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, mut client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| text + "[[[");
    // The clock of a CA may be five minutes ahead.
    let list = RevocationList::of(&[&workspace.agent.certificate]).ahead(305);
    workspace.agents.revoke("agents.crl", &list);
    eventually("the log says that the list is left out", || {
        let log = gateway.log();
        (log.contains("is left out") && log.contains("was issued in the future")).then_some(())
    });
    ping(&mut client);
    assert!(
        gateway
            .metrics()
            .count("portcullis_crl_load_errors_total", &[])
            > 0
    );
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
}

#[test]
fn nothing_else_of_a_refused_configuration_is_taken() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (gateway, client, _) = with_a_list(&workspace, &backend);
    spoil(&workspace, &gateway, |text| {
        text.replace(":4317\"", ":4399\"").replace("/agent/*", "/*")
    });
    assert_list_acts(&workspace, &gateway, client);
    let other = workspace
        .agents
        .issue("other", Request::client("spiffe://example.test/other"));
    let client = workspace.client().credentials(&other);
    client.refused(gateway.address());
    let labels = [("listener", "edge"), ("reason", "not_authorized")];
    gateway.wait_for("portcullis_handshake_failures_total", &labels, 1);
}

/// A CA that has ended, whose list is still there, beside one that goes on.
#[test]
fn the_list_of_a_ca_that_has_ended_keeps_no_other_list_out() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let ended = Authority::create_for(workspace.folder(), "ended", -3600..-60);
    let both = workspace.folder().join("both.pem");
    let read = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, read(&ended) + &read(&workspace.agents)).unwrap();
    let empty = RevocationList::of(&[]);
    let lists = [
        ended.revoke("ended.crl", &empty),
        workspace.agents.revoke("agents.crl", &empty),
    ];
    let crl = format!("crl = {lists:?}");
    let setup = workspace.setup().client_ca(&both);
    let gateway = setup.route("edge", &crl, &[backend.address()], "").start();
    eventually("the log says what is passed over", || {
        let log = gateway.log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains("list of CN=ended is ignored"))
            .then_some(())
    });
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    assert_list_acts(&workspace, &gateway, client);
}

/// One file with the lists of two CAs, of which one is spoilt.
#[test]
fn a_list_that_cannot_be_read_takes_no_other_list_of_its_file_with_it() {
    let spoils: [fn(&str) -> String; 2] = [
        // Its signature is another one.
        |pem| {
            let end = pem.find("-----END").unwrap();
            let at = pem[..end].trim_end().len() - 8;
            let other = if &pem[at..=at] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &pem[..at], &pem[at + 1..])
        },
        // It is no base64.
        |pem| pem.replacen("\nM", "\n!", 1),
    ];
    for spoil in spoils {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        let others = Authority::create(workspace.folder(), "others", "Others of the test");
        let read = |file: PathBuf| fs::read_to_string(file).unwrap();
        let both = workspace.folder().join("both.pem");
        fs::write(
            &both,
            read(others.certificate()) + &read(workspace.agents.certificate()),
        )
        .unwrap();
        let empty = RevocationList::of(&[]);
        let other_list = read(others.revoke("others.crl", &empty));
        let good = read(workspace.agents.revoke("agents.crl", &empty));
        let bundle = workspace.folder().join("lists.pem");
        fs::write(&bundle, other_list.clone() + &good).unwrap();
        let crl = format!("crl = [{bundle:?}]");
        let setup = workspace.setup().client_ca(&both);
        let gateway = setup.route("edge", &crl, &[backend.address()], "").start();
        let mut revoked = workspace.client().connect(gateway.address()).unwrap();
        ping(&mut revoked);

        let list = RevocationList::of(&[&workspace.agent.certificate]).numbered(2);
        let naming = read(workspace.agents.revoke("agents.crl", &list));
        fs::write(&bundle, spoil(&other_list) + &naming).unwrap();
        assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
        let labels = [("listener", "edge"), ("reason", "revoked")];
        gateway.wait_for("portcullis_connections_ended_total", &labels, 1);
        eventually("the log names the list", || {
            let log = gateway.log();
            let mut lines = log.lines();
            let named =
                |line: &str| line.contains("reload refused") && line.contains("list 1 of 2:");
            lines.any(named).then_some(())
        });
        assert!(
            gateway
                .metrics()
                .count("portcullis_crl_load_errors_total", &[])
                > 0
        );
    }
}

/// A gateway that drains for longer than the test has patience, with a client that waits for an answer.
fn draining(workspace: &Workspace, backend: &Backend) -> (Gateway, Client) {
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let keys = format!("crl = [{list:?}]\nquiet_timeout = \"10m\"");
    let setup = workspace.setup().top("drain_timeout = \"10m\"");
    let gateway = setup.route("edge", &keys, &[backend.address()], "").start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"question").unwrap();
    eventually("the backend has the question", || {
        (backend.received_bytes() == 8).then_some(())
    });
    gateway.terminate();
    eventually("the drain has begun", || {
        std::net::TcpStream::connect(gateway.address()).err()
    });
    (gateway, client)
}

#[test]
fn a_list_acts_while_the_gateway_drains() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let (mut gateway, mut client) = draining(&workspace, &backend);
    let list = RevocationList::of(&[&workspace.agent.certificate]);
    workspace.agents.revoke("agents.crl", &list);
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    assert!(gateway.wait().success());
    let log = gateway.log();
    assert!(log.contains("would be refused now"), "{log}");
}

#[test]
fn a_block_acts_while_the_gateway_drains() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let (mut gateway, mut client) = draining(&workspace, &backend);
    let entry = "{\"blocked\":[{\"identity\":\"spiffe://example.test/agent/*\",\"by\":\"test\",\
                 \"at\":\"2026-01-01T00:00:00Z\"}]}";
    fs::write(workspace.state_folder().join("blocked.json"), entry).unwrap();
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    assert!(gateway.wait().success());
}

#[test]
fn a_rule_that_is_removed_acts_while_the_gateway_drains() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let (mut gateway, mut client) = draining(&workspace, &backend);
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/agent/*", "/nobody/*")).unwrap();
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    assert!(gateway.wait().success());
}
