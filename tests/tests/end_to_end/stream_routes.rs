//! Routes of streams: which backend gets a connection, by server name, protocol, identity and tenant.
//! In: clients that differ in one of them. Out: the backend that answers, or none.

use std::sync::Arc;

use tests::{Backend, Behaviour, Closing, Gateway, Request, Workspace};

/// A server that says its name to every client.
fn saying(name: &str) -> Backend {
    Backend::start(Behaviour::Source(Arc::new(name.as_bytes().to_vec())))
}

/// A backend of that server.
fn table(name: &str, backend: &Backend) -> String {
    format!(
        "[[backend]]\nname = {name:?}\nservers = [\"{}\"]\n",
        backend.address()
    )
}

/// What a client of this name and protocol gets. `file` is another one for each.
fn answer(
    (workspace, gateway): (&Workspace, &Gateway),
    file: &str,
    (uri, protocol): (&str, &str),
) -> String {
    let agent = workspace.agents.issue(file, Request::client(uri));
    let client = workspace.client().credentials(&agent).alpn(protocol);
    let mut client = client.connect(gateway.address()).unwrap();
    String::from_utf8(client.receive_to_end().0).unwrap()
}

#[test]
fn a_stream_goes_where_its_name_protocol_identity_and_tenant_say() {
    let workspace = Workspace::new();
    let names = ["own", "database", "web", "bank"];
    let backends = names.map(saying);
    let routes = "[[route]]\nlistener = \"own\"\nhost = [\"other.test\"]\nbackend = \"bank\"\n\
                  [[route]]\nlistener = \"own\"\nidentity = \"spiffe://example.test/agent/db-*\"\nbackend = \"database\"\n\
                  [[route]]\nlistener = \"own\"\nhost = \"gateway.test\"\nalpn = \"http/1.1\"\nbackend = \"web\"\n\
                  [[route]]\nlistener = \"own\"\ntenants = [\"team-b\"]\nbackend = \"bank\"\n";
    let others: String = names[1..]
        .iter()
        .zip(&backends[1..])
        .map(|(name, backend)| table(name, backend))
        .collect();
    let rules = "[[identity]]\nmatch = { uri = \"spiffe://example.test/bank/*\" }\ntenant = \"team-b\"\n\
                 [[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\ntenant = \"team-a\"\n";
    let alpn = "alpn = [\"h2\", \"http/1.1\"]";
    let gateway = workspace
        .setup()
        .tables(&format!("{others}{routes}"))
        .identities(rules)
        .route("own", alpn, &[backends[0].address()], "")
        .start();
    let clients = [
        (("spiffe://example.test/agent/1", "h2"), "own"),
        (("spiffe://example.test/agent/db-1", "h2"), "database"),
        (("spiffe://example.test/agent/db-1", "http/1.1"), "database"),
        (("spiffe://example.test/agent/1", "http/1.1"), "web"),
        (("spiffe://example.test/bank/1", "h2"), "bank"),
        (("spiffe://example.test/bank/1", "http/1.1"), "web"),
    ];
    for (number, (client, expected)) in clients.into_iter().enumerate() {
        let file = format!("client-{number}");
        let answer = answer((&workspace, &gateway), &file, client);
        assert_eq!(answer, expected, "{client:?}");
    }
}

#[test]
fn a_stream_that_no_route_takes_is_closed_where_the_listener_has_no_backend() {
    let workspace = Workspace::new();
    let backend = saying("bank");
    let (address, server) = (workspace.host.at(5000), &workspace.server);
    let listener = format!(
        "[[listener]]\nname = \"closed\"\naddress = \"{address}\"\ncertificate = {:?}\nkey = {:?}\nclient_ca = [{:?}]\n\
         [[route]]\nlistener = \"closed\"\ntenants = \"team-b\"\nbackend = \"bank\"\n",
        server.certificate,
        server.key,
        workspace.agents.certificate(),
    );
    let gateway = workspace
        .setup()
        .tables(&format!("{listener}{}", table("bank", &backend)))
        .route("edge", "", &[backend.address()], "")
        .start();
    let mut client = workspace.client().connect(address).unwrap();
    let (received, closing) = client.receive_to_end();
    assert!(received.is_empty());
    assert_ne!(closing, Closing::CloseNotify, "it must not look complete");
    let labels = [("listener", "closed"), ("reason", "no_route")];
    gateway.wait_for("portcullis_connections_ended_total", &labels, 1);
    assert!(backend.connections().is_empty());
}
