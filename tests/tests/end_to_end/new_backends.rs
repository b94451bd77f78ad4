//! Backends and routes that a reload adds: streams and requests reach them, and what is open stays where it is.
//! In: a running gateway and a longer file. Out: who answers, what the metrics say, what is refused.

use std::fs;

use rustix::process::Signal;
use tests::{Backend, Behaviour, Gateway, Http1Client, HttpBackend, Reply, Speaks, Workspace};

/// Puts other text into the configuration and asks for a reload.
fn reload(workspace: &Workspace, gateway: &mut Gateway, change: impl FnOnce(String) -> String) {
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, change(text)).unwrap();
    gateway.process().signal(Signal::HUP);
}

/// A backend `next`, and a route of the listener `edge` to it.
fn next(server: &str, route: &str) -> String {
    format!(
        "\n[[backend]]\nname = \"next\"\nservers = [\"{server}\"]\n\
         [[route]]\nlistener = \"edge\"\nbackend = \"next\"\n{route}\n"
    )
}

#[test]
fn a_reload_adds_a_backend_and_a_route_for_streams() {
    let workspace = Workspace::new();
    let [first, second] = [(); 2].map(|()| Backend::start(Behaviour::Echo));
    let mut gateway = workspace.gateway(first.address());
    let mut before = workspace.client().connect(gateway.address()).unwrap();
    before.send(b"a").unwrap();
    assert_eq!(before.receive(1).unwrap(), b"a");
    let more = next(&second.address().to_string(), "tenants = \"team-a\"");
    reload(&workspace, &mut gateway, |text| text + &more);
    gateway.wait_for_reloads(1);
    let mut after = workspace.client().connect(gateway.address()).unwrap();
    for client in [&mut before, &mut after] {
        client.send(b"b").unwrap();
        assert_eq!(client.receive(1).unwrap(), b"b");
    }
    assert_eq!((first.received_bytes(), second.received_bytes()), (2, 1));
}

#[test]
fn a_reload_adds_a_backend_and_a_route_for_requests_of_open_connections() {
    let workspace = Workspace::new();
    let [first, second] = [201, 202].map(|status| {
        HttpBackend::clear(workspace.host.free(), Speaks::Http1, move |_| {
            Reply::status(status)
        })
    });
    let setup = workspace.setup().http();
    let mut gateway = setup.route("edge", "", &[first.address()], "").start();
    let mut client = Http1Client::connect(&workspace.client(), gateway.address());
    assert_eq!(client.post("/next", "", b"content").status, 201);
    let more = next(&second.address().to_string(), "path = \"/next\"");
    reload(&workspace, &mut gateway, |text| text + &more);
    gateway.wait_for_reloads(1);
    assert_eq!(client.post("/next", "", b"content").status, 202);
    assert_eq!(client.post("/other", "", b"content").status, 201);
    let labels = [("backend", "next"), ("listener", "edge")];
    gateway.wait_for("portcullis_requests_total", &labels, 1);
}

#[test]
fn a_backend_that_goes_or_stands_before_others_needs_a_restart() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let more = next("127.0.0.1:1", "");
    reload(&workspace, &mut gateway, |text| {
        text.replacen("[[listener]]", &format!("{more}[[listener]]"), 1)
    });
    gateway.wait_for_a_refused_reload();
    let expected = "the order of the backends (new ones may stand behind the others) cannot be changed while running";
    assert!(gateway.log().contains(expected), "{}", gateway.log());
}
