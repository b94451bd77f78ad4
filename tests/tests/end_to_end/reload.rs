//! SIGHUP: the configuration and everything it names, taken anew or not at all, and no connection dropped that it does
//! not concern. In: a running gateway and changed files. Out: who stays, who goes and why, what the metrics say.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::process::Signal;
use tests::{
    Backend, Behaviour, Client, Closing, Ending, Gateway, Recorded, Request, RevocationList,
    Workspace, eventually,
};

const RELOADS: &str = "portcullis_reloads_total";
const ENDED: &str = "portcullis_connections_ended_total";

/// Writes the configuration with other text and reloads it.
fn reload(workspace: &Workspace, gateway: &mut Gateway, change: impl FnOnce(String) -> String) {
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, change(text)).unwrap();
    gateway.process().signal(Signal::HUP);
}

/// Waits until so many reloads have been taken.
fn taken(gateway: &Gateway, count: usize) {
    gateway.wait_for_reloads(count);
}

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

const OTHER_RULE: &str = "\n[[identity]]\nmatch = { uri = \"spiffe://example.test/other/*\" }\n";

#[test]
fn a_rule_removed_closes_those_it_admitted_and_nobody_else() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let request = Request::client("spiffe://example.test/other/1");
    let other = workspace.agents.issue("other", request);
    reload(&workspace, &mut gateway, |text| text + OTHER_RULE);
    taken(&gateway, 1);

    let mut removed = workspace.client().connect(gateway.address()).unwrap();
    let mut stays = workspace
        .client()
        .credentials(&other)
        .connect(gateway.address())
        .unwrap();
    ping(&mut removed);
    ping(&mut stays);
    reload(&workspace, &mut gateway, |text| {
        text.replace("/agent/*", "/nobody/*")
    });
    taken(&gateway, 2);
    assert_ne!(removed.receive_to_end().1, Closing::CloseNotify);
    gateway.wait_for(
        ENDED,
        &[("listener", "edge"), ("reason", "not_authorized")],
        1,
    );
    ping(&mut stays);
    workspace.client().refused(gateway.address());
    workspace
        .client()
        .credentials(&other)
        .connect(gateway.address())
        .unwrap();
}

#[test]
fn a_client_revoked_in_mid_connection_is_cut_off_at_once_and_nobody_else_is() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = Request::client("spiffe://example.test/agent/other");
    let other = workspace.agents.issue("other", other);
    let nobody = RevocationList::of(&[]);
    let list = workspace.agents.revoke("agents.crl", &nobody);
    let crl = format!("crl = [{list:?}]");
    let setup = workspace
        .setup()
        .route("edge", &crl, &[backend.address()], "");
    let mut gateway = setup.start();
    let mut thieves: Vec<_> = (0..5)
        .map(|_| workspace.client().connect(gateway.address()).unwrap())
        .collect();
    let mut stays = workspace
        .client()
        .credentials(&other)
        .connect(gateway.address())
        .unwrap();
    thieves.iter_mut().for_each(ping);
    ping(&mut stays);

    workspace.agents.revoke(
        "agents.crl",
        &RevocationList::of(&[&workspace.agent.certificate]),
    );
    gateway.process().signal(Signal::HUP);
    for thief in &mut thieves {
        assert_ne!(thief.receive_to_end().1, Closing::CloseNotify);
    }
    gateway.wait_for(ENDED, &[("listener", "edge"), ("reason", "revoked")], 5);
    eventually("the backend saw five resets", || {
        let reset = |recorded: &&Recorded| recorded.ending == Some(Ending::Reset);
        (backend.connections().iter().filter(reset).count() == 5).then_some(())
    });
    workspace.client().refused(gateway.address());
    ping(&mut stays);
    workspace
        .client()
        .credentials(&other)
        .connect(gateway.address())
        .unwrap();

    // A broken list is refused, and the last good one goes on.
    fs::write(&list, "broken").unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_a_refused_reload();
    workspace.client().refused(gateway.address());
    ping(&mut stays);
}

#[test]
fn a_new_certificate_is_served_to_newcomers_and_drops_nobody() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut before = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut before);
    let old = before.connection().peer_certificates().unwrap()[0].clone();

    let request = Request::server("gateway.test").dns("gateway.test");
    let renewed = workspace.gateways.issue("renewed", request);
    fs::rename(&renewed.key, &workspace.server.key).unwrap();
    fs::rename(&renewed.certificate, &workspace.server.certificate).unwrap();
    gateway.process().signal(Signal::HUP);
    taken(&gateway, 1);
    let mut after = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut after);
    assert_ne!(after.connection().peer_certificates().unwrap()[0], old);
    ping(&mut before);
}

#[test]
fn a_ca_removed_closes_those_below_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    let agents = format!("client_ca = [{:?}]", workspace.agents.certificate());
    let gateways = format!("client_ca = [{:?}]", workspace.gateways.certificate());
    reload(&workspace, &mut gateway, |text| {
        text.replace(&agents, &gateways)
    });
    taken(&gateway, 1);
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    gateway.wait_for(ENDED, &[("listener", "edge"), ("reason", "untrusted")], 1);
    workspace.client().refused(gateway.address());
}

#[test]
fn a_broken_file_and_one_that_needs_a_restart_leave_the_old_one_serving() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let good = fs::read_to_string(workspace.folder().join("portcullis.toml")).unwrap();
    let changes: [(&str, &str, &str); 4] = [
        ("mode = \"stream\"", "mode = \"strea", "not TOML"),
        ("client_ca", "client_cas", "client_cas"),
        (":4317\"", ":4399\"", "listener \"edge\": address"),
        ("[admin]", "[workers]\ncount = 1\n[admin]", "restart"),
    ];
    for (refused, (from, to, said)) in changes.into_iter().enumerate() {
        reload(&workspace, &mut gateway, |_| good.replace(from, to));
        let refused = refused as u64 + 1;
        eventually("it is refused", || {
            let count = gateway.metrics().count(RELOADS, &[("result", "refused")]);
            (count >= refused).then_some(())
        });
        eventually("the reason is logged", || {
            gateway.log().contains(said).then_some(())
        });
        ping(&mut client);
        ping(&mut workspace.client().connect(gateway.address()).unwrap());
    }
    reload(&workspace, &mut gateway, |_| good.clone());
    taken(&gateway, 1);
    ping(&mut client);
}

#[test]
fn reloads_in_a_row_under_traffic_drop_no_connection_and_leak_nothing() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut clients: Vec<_> = (0..8)
        .map(|_| workspace.client().connect(gateway.address()).unwrap())
        .collect();
    clients.iter_mut().for_each(ping);
    let mut descriptors = 0;
    for round in 1..=30 {
        gateway.process().signal(Signal::HUP);
        taken(&gateway, round);
        clients.iter_mut().for_each(ping);
        let mut newcomer = workspace.client().connect(gateway.address()).unwrap();
        ping(&mut newcomer);
        newcomer.finish();
        newcomer.receive_to_end();
        if round == 10 {
            gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 8);
            descriptors = gateway.process().descriptors();
        }
    }
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 8);
    // Closing takes its moment; what leaked would stay.
    eventually("as many descriptors as before", || {
        (gateway.process().descriptors() <= descriptors).then_some(())
    });
    assert_eq!(
        gateway.metrics().count(RELOADS, &[("result", "refused")]),
        0
    );
}

#[test]
fn newcomers_go_to_the_servers_of_the_new_configuration() {
    let workspace = Workspace::new();
    let old = Backend::start(Behaviour::Echo);
    let new = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(old.address());
    let mut before = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut before);
    let (from, to) = (old.address().to_string(), new.address().to_string());
    reload(&workspace, &mut gateway, |text| text.replace(&from, &to));
    taken(&gateway, 1);
    for _ in 0..4 {
        ping(&mut workspace.client().connect(gateway.address()).unwrap());
    }
    ping(&mut before);
    assert_eq!((old.connections().len(), new.connections().len()), (1, 4));
}

#[test]
fn a_rule_that_comes_back_in_time_closes_nobody() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut clients: Vec<_> = (0..5)
        .map(|_| workspace.client().connect(gateway.address()).unwrap())
        .collect();
    clients.iter_mut().for_each(ping);
    reload(&workspace, &mut gateway, |text| {
        text.replace("/agent/*", "/nobody/*")
    });
    taken(&gateway, 1);
    reload(&workspace, &mut gateway, |text| {
        text.replace("/nobody/*", "/agent/*")
    });
    taken(&gateway, 2);
    // One of them may have been the first of the spread closes; all of them were not.
    std::thread::sleep(std::time::Duration::from_secs(11));
    let labels = [("listener", "edge"), ("reason", "not_authorized")];
    assert!(
        gateway.metrics().count(ENDED, &labels) <= 1,
        "closed although the rule is back"
    );
}

/// A way to `gateway` on which everything behind the ClientHello is held back until it may go on.
fn held_back(gateway: SocketAddr) -> (SocketAddr, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go_on, told) = channel();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut gateway = TcpStream::connect(gateway).unwrap();
        let (mut from, mut to) = (gateway.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let mut hello = [0; 16 << 10];
        let length = client.read(&mut hello).unwrap();
        gateway.write_all(&hello[..length]).unwrap();
        if told.recv().is_ok() {
            let _ = io::copy(&mut client, &mut gateway);
        }
    });
    (address, go_on)
}

#[test]
fn a_handshake_that_began_before_a_reload_lets_nobody_in_who_would_not_get_in_after_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    // Whoever has just come in has nothing to finish: it goes at once, and not at some time within the hour.
    let setup = workspace.setup().top("close_spread = \"1h\"");
    let setup = setup.route("edge", "", &[backend.address()], "");
    let mut gateway = setup.start();
    let (address, go_on) = held_back(gateway.address());
    // Under TLS 1.3 the client is done when the gateway has not heard of its certificate yet.
    let mut client = workspace.client().connect(address).unwrap();
    client.send(b"ping").unwrap();
    reload(&workspace, &mut gateway, |text| {
        text.replace("/agent/*", "/nobody/*")
    });
    taken(&gateway, 1);
    go_on.send(()).unwrap();
    gateway.wait_for(ENDED, &[("reason", "not_authorized")], 1);
    assert!(client.receive_to_end().0.is_empty());
    assert!(backend.connections().is_empty());
}

/// Changes the configuration while a handshake is under way: the client is not let in, for this reason.
fn assert_newcomer_ends(change: impl FnOnce(&Workspace, String) -> String, reason: &str) {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace
        .setup()
        .route("edge", "", &[backend.address()], "");
    let mut gateway = setup.start();
    let (address, go_on) = held_back(gateway.address());
    let mut client = workspace.client().connect(address).unwrap();
    client.send(b"ping").unwrap();
    reload(&workspace, &mut gateway, |text| change(&workspace, text));
    taken(&gateway, 1);
    go_on.send(()).unwrap();
    gateway.wait_for(ENDED, &[("reason", reason)], 1);
    assert!(client.receive_to_end().0.is_empty());
    assert!(backend.connections().is_empty());
}

#[test]
fn a_handshake_under_way_passes_no_list_that_has_ended() {
    let change = |workspace: &Workspace, text: String| {
        let list = workspace
            .agents
            .revoke("agents.crl", &RevocationList::of(&[]).ended());
        text.replace("mode =", &format!("crl = [{list:?}]\nmode ="))
    };
    assert_newcomer_ends(change, "crl_stale");
}

#[test]
fn a_handshake_under_way_passes_no_stricter_key_policy() {
    let change = |_: &Workspace, text: String| text + "\n[tls]\nclient_keys = [\"RSA-3072\"]\n";
    assert_newcomer_ends(change, "untrusted");
}

/// Whoever is connected and has sent nothing yet is let in or not by what is trusted when it sends.
#[test]
fn a_client_that_has_sent_nothing_yet_passes_no_list_that_has_ended_and_one_that_has_stays() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let keys = format!("crl = [{list:?}]");
    let setup = workspace
        .setup()
        .route("edge", &keys, &[backend.address()], "");
    let mut gateway = setup.start();
    let mut stays = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut stays);
    let mut silent = workspace.client().connect(gateway.address()).unwrap();
    eventually("both have their backends", || {
        (backend.connections().len() == 2).then_some(())
    });
    workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]).ended());
    reload(&workspace, &mut gateway, |text| text);
    gateway.wait_for(ENDED, &[("reason", "crl_stale")], 1);
    assert_ne!(silent.receive_to_end().1, Closing::CloseNotify);
    ping(&mut stays);
}

#[test]
fn the_revoked_go_at_once_however_long_other_closes_may_take() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = RevocationList::of(&[]);
    let list = workspace.agents.revoke("agents.crl", &list);
    let setup = workspace.setup().top("close_spread = \"1h\"");
    let keys = format!("crl = [{list:?}]");
    let setup = setup.route("edge", &keys, &[backend.address()], "");
    let mut gateway = setup.start();
    let mut clients: Vec<_> = (0..3)
        .map(|_| workspace.client().connect(gateway.address()).unwrap())
        .collect();
    clients.iter_mut().for_each(ping);
    let named = RevocationList::of(&[&workspace.agent.certificate]);
    workspace.agents.revoke("agents.crl", &named);
    reload(&workspace, &mut gateway, |text| text);
    gateway.wait_for(ENDED, &[("reason", "revoked")], 3);
}

#[test]
fn a_client_that_would_send_as_another_tenant_is_closed() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().top("close_spread = \"0s\"");
    let setup = setup.route("edge", "", &[backend.address()], "");
    let mut gateway = setup.start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut client);
    reload(&workspace, &mut gateway, |text| {
        text.replace("\"team-a\"", "\"team-b\"")
    });
    gateway.wait_for(ENDED, &[("reason", "not_authorized")], 1);
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
}
