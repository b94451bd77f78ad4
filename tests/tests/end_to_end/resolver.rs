//! Backends by name while the resolver answers, refuses or says nothing.
//! In: a resolver of the test's own. Out: a revoked client that goes nevertheless, others that are served nevertheless, a
//! start and an end that wait for nobody.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use rustix::process::Signal;
use tests::{
    Answering, Backend, Behaviour, Closing, Gateway, Resolver, RevocationList, Setup, Workspace,
    eventually,
};

const UNREACHABLE: &str = "portcullis_backend_unreachable_total";

fn knows(name: &str, address: Ipv4Addr) -> Answering {
    Answering::With(HashMap::from([(name.to_owned(), vec![address])]))
}

/// Six servers whose names the resolver may or may not know.
fn six_names<'a>(setup: Setup<'a>, group: &str) -> Setup<'a> {
    let names: Vec<String> = (1..=6)
        .map(|number| format!("{group}-{number}.test:9"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    setup.route_to_names("named", "", &names, "dangerous_plaintext = true")
}

fn assert_served(workspace: &Workspace, gateway: &Gateway) {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    client.finish();
    assert_eq!(client.receive_to_end().1, Closing::CloseNotify);
}

/// Writes the configuration anew and asks for a reload.
fn reload(workspace: &Workspace, gateway: &mut Gateway, count: usize, text: &str) {
    fs::write(workspace.folder().join("portcullis.toml"), text).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(count);
}

#[test]
fn while_no_name_can_be_resolved_the_revoked_go_and_the_others_are_served() {
    let workspace = Workspace::new();
    let resolver = Resolver::start(&workspace.host, workspace.folder(), Answering::Silent);
    let backend = Backend::start(Behaviour::Echo);
    let certificate = workspace.agent.certificate.as_path();
    let nobody = workspace
        .agents
        .revoke("nobody.crl", &RevocationList::of(&[]));
    let one = workspace
        .agents
        .revoke("one.crl", &RevocationList::of(&[certificate]));
    let setup = |list: &Path, group| {
        let keys = format!("crl = [{list:?}]");
        let setup = workspace.setup().resolver(&resolver);
        let setup = setup.route("edge", &keys, &[backend.address()], "");
        six_names(setup, group)
    };
    let mut gateway = setup(&nobody, "before").start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");

    let text = setup(&one, "after").text();
    reload(&workspace, &mut gateway, 1, &text);
    assert!(!matches!(client.receive_to_end().1, Closing::CloseNotify));
    gateway.wait_for(
        "portcullis_connections_ended_total",
        &[("reason", "revoked")],
        1,
    );
    let text = setup(&nobody, "later").text();
    reload(&workspace, &mut gateway, 2, &text);
    assert_served(&workspace, &gateway);
    // The reload that revoked had waited for none of its names.
    let log = eventually("the new names are given up", || {
        let log = gateway.log();
        log.contains("name=later-1").then_some(log)
    });
    let closed = log.find("would be refused now").expect("it is logged");
    assert!(
        closed < log.find("name=after-").unwrap_or(usize::MAX),
        "{log}"
    );
}

#[test]
fn a_signal_to_end_is_obeyed_while_names_are_being_resolved() {
    let workspace = Workspace::new();
    let resolver = Resolver::start(&workspace.host, workspace.folder(), Answering::Silent);
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().resolver(&resolver);
    let setup = setup.route("edge", "", &[backend.address()], "");
    let mut gateway = six_names(setup, "silent").begin();
    eventually("all names are asked for", || {
        let asked = resolver.asked();
        let is_asked = |number| asked.contains(&format!("silent-{number}.test"));
        (1..=6).all(is_asked).then_some(())
    });
    gateway.terminate();
    assert!(gateway.wait().success());
    let log = gateway.log();
    assert!(!log.contains("does not answer"), "it has waited: {log}");
}

#[test]
fn a_reload_while_the_resolver_fails_takes_no_server_away() {
    let workspace = Workspace::new();
    let backend = Backend::start_at(workspace.host.at(7000), Behaviour::Echo);
    let Ok(address) = workspace.host.address().to_string().parse::<Ipv4Addr>() else {
        panic!("the test's address is of IPv4");
    };
    let known = knows("collector.test", address);
    let resolver = Resolver::start(&workspace.host, workspace.folder(), known);
    let setup = |top| {
        let setup = workspace.setup().top(top).resolver(&resolver);
        setup.route_to_names(
            "edge",
            "",
            &["collector.test:7000"],
            "dangerous_plaintext = true",
        )
    };
    let mut gateway = setup("").start();
    assert_served(&workspace, &gateway);
    resolver.answer(Answering::Failing);
    reload(
        &workspace,
        &mut gateway,
        1,
        &setup("close_spread = \"1s\"").text(),
    );
    for _ in 0..20 {
        assert_served(&workspace, &gateway);
    }
    assert_eq!(
        gateway.metrics().count(UNREACHABLE, &[("backend", "edge")]),
        0
    );
    assert_eq!(backend.connections().len(), 21);
}

#[test]
fn a_new_name_is_used_as_soon_as_it_has_been_resolved_and_the_servers_before_until_then() {
    let workspace = Workspace::new();
    let (old, new) = (workspace.host.at(7000), workspace.host.at(7001));
    let old = Backend::start_at(old, Behaviour::Echo);
    let new = Backend::start_at(new, Behaviour::Echo);
    let Ok(address) = workspace.host.address().to_string().parse::<Ipv4Addr>() else {
        panic!("the test's address is of IPv4");
    };
    let resolver = Resolver::start(&workspace.host, workspace.folder(), Answering::Failing);
    let setup = |server: &str| {
        let setup = workspace.setup().resolver(&resolver);
        setup.route_to_names("edge", "", &[server], "dangerous_plaintext = true")
    };
    let mut gateway = setup(&old.address().to_string()).start();
    reload(&workspace, &mut gateway, 1, &setup("new.test:7001").text());
    assert_served(&workspace, &gateway);
    assert_eq!((old.connections().len(), new.connections().len()), (1, 0));
    resolver.answer(knows("new.test", address));
    eventually("the new server is used", || {
        assert_served(&workspace, &gateway);
        (!new.connections().is_empty()).then_some(())
    });
}

#[test]
fn a_connection_without_any_address_is_a_failure_of_the_backend() {
    let workspace = Workspace::new();
    let resolver = Resolver::start(&workspace.host, workspace.folder(), Answering::Failing);
    let setup = workspace.setup().resolver(&resolver);
    let gateway = six_names(setup, "unknown").start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    gateway.wait_for(UNREACHABLE, &[("backend", "named")], 1);
    eventually("the log says why", || {
        let log = gateway.log();
        let is_told =
            log.contains("cannot resolve a backend's server") && log.contains("known_servers=0");
        is_told.then_some(())
    });
}

#[test]
fn a_service_is_found_by_its_records_and_again_when_they_change() {
    const SERVICE: &str = "_otlp._tcp.example.test";
    let workspace = Workspace::new();
    let [first, second, backup] = [(); 3].map(|()| Backend::start(Behaviour::Echo));
    let port = |backend: &Backend| backend.address().port();
    let records = |one: &Backend, other: &Backend| {
        let records = vec![
            ("a.example.test", port(one), 10),
            ("b.example.test", port(other), 20),
        ];
        Answering::Service(SERVICE.to_owned(), records, Ipv4Addr::LOCALHOST)
    };
    let answering = records(&first, &backup);
    let resolver = Resolver::start(&workspace.host, workspace.folder(), answering);
    let server = format!("srv:{SERVICE}");
    let gateway = workspace
        .setup()
        .resolver(&resolver)
        .route_to_names("edge", "", &[&server], "dangerous_plaintext = true")
        .start();
    for _ in 0..4 {
        assert_served(&workspace, &gateway);
    }
    let counts = || [&first, &second, &backup].map(|backend| backend.connections().len());
    assert_eq!(counts(), [4, 0, 0], "a higher priority is a backup");
    resolver.answer(records(&second, &backup));
    // After 15 s it is asked for again.
    eventually("new connections go to the second server", || {
        assert_served(&workspace, &gateway);
        (counts()[1] > 0).then_some(())
    });
    assert_eq!(counts()[2], 0);
}
