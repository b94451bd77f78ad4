//! A configuration that is observed: it refuses nobody, and names exactly those whom it would refuse in force.
//! In: a fleet of clients, good and bad by the standards of the next configuration, and requests of such. Out: what was
//! foreseen, and what is then refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use tests::{
    Authority, Backend, Behaviour, Client, ClientBuilder, Gateway, Http2Client, HttpBackend, Reply,
    Request, RevocationList, Speaks, Workspace, eventually,
};

const OBSERVED: &str = "portcullis_observed_refusals_total";
const FAILURES: &str = "portcullis_handshake_failures_total";
const RELOADS: &str = "portcullis_reloads_total";

/// Identities and reasons on the page of those who would be refused.
fn foreseen(gateway: &Gateway) -> BTreeSet<(String, String)> {
    let (status, page) = gateway.admin("/observed").unwrap();
    assert_eq!(status, 200, "{page}");
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["left_out"], 0);
    let clients = page["clients"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    clients
        .map(|client| (text(&client["identity"]), text(&client["reason"])))
        .collect()
}

fn talk(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

/// The configuration in force, changed to what shall come.
fn write_next(workspace: &Workspace, change: impl FnOnce(String) -> String) {
    let folder = workspace.folder();
    let text = fs::read_to_string(folder.join("portcullis.toml")).unwrap();
    let text = text.replace("observe = \"next.toml\"\n", "");
    fs::write(folder.join("next.toml"), change(text)).unwrap();
}

/// Writes the configuration in force and waits until it is.
fn put_in_force(workspace: &Workspace, gateway: &mut Gateway, text: &str) {
    let labels = [("result", "taken")];
    let before = gateway.metrics().count(RELOADS, &labels);
    fs::write(workspace.folder().join("portcullis.toml"), text).unwrap();
    gateway.process().signal(Signal::HUP);
    eventually("the reload is taken", || {
        (gateway.metrics().count(RELOADS, &labels) > before).then_some(())
    });
}

/// Observes `next.toml` beside what is in force.
fn observe(workspace: &Workspace, gateway: &mut Gateway) {
    let in_force = fs::read_to_string(workspace.folder().join("portcullis.toml")).unwrap();
    put_in_force(
        workspace,
        gateway,
        &format!("observe = \"next.toml\"\n{in_force}"),
    );
}

/// Agents, of whom some are bad by the standards of what comes next.
struct Fleet {
    /// Trusts both authorities.
    both: PathBuf,
    /// Names and how each connects.
    clients: Vec<(String, ClientBuilder)>,
    /// The revoked one's revocation.
    crl: PathBuf,
}

fn uri(name: &str) -> String {
    format!("spiffe://example.test/agent/{name}")
}

fn fleet(workspace: &Workspace) -> Fleet {
    let others = Authority::create(workspace.folder(), "others", "Other agents of the test");
    let both = workspace.folder().join("both.pem");
    let pem = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, pem(&workspace.agents) + &pem(&others)).unwrap();
    let issue =
        |authority: &Authority, name: &str| authority.issue(name, Request::client(&uri(name)));
    let revoked = issue(&workspace.agents, "revoked");
    let list = RevocationList::of(&[&revoked.certificate]);
    let fleet = [
        ("good-1", issue(&workspace.agents, "good-1")),
        ("good-2", issue(&workspace.agents, "good-2")),
        ("revoked", revoked.clone()),
        ("other-ca", issue(&others, "other-ca")),
        ("no-rule", issue(&workspace.agents, "no-rule")),
    ];
    let clients = fleet.map(|(name, who)| (uri(name), workspace.client().credentials(&who)));
    Fleet {
        both,
        clients: clients.into(),
        crl: workspace.agents.revoke("next", &list),
    }
}

/// What comes next: one CA less, a revocation list, and rules that forget somebody.
fn next(workspace: &Workspace, fleet: &Fleet, in_force: &str) -> String {
    let Fleet { both, crl, .. } = fleet;
    let agents = workspace.agents.certificate();
    let text = in_force.replace(
        &format!("client_ca = [{both:?}]"),
        &format!("client_ca = [{agents:?}]\ncrl = [{crl:?}]"),
    );
    let rule = |name: &str| {
        let uri = uri(name);
        format!("[[identity]]\nmatch = {{ uri = \"{uri}\" }}\ntenant = \"team-a\"\n")
    };
    let rules = ["good-*", "revoked", "other-ca"].map(rule).concat();
    let (before, _) = text.split_once("[[identity]]").unwrap();
    before.to_owned() + &rules
}

#[test]
fn an_observed_state_refuses_nobody_and_names_exactly_those_it_would_refuse() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let fleet = fleet(&workspace);
    let setup = workspace.setup().client_ca(&fleet.both);
    let mut gateway = setup.route("edge", "", &[backend.address()], "").start();
    let connect = |client: &ClientBuilder| client.connect(gateway.address()).unwrap();
    // Open before anything is observed: enforcing would close some of these.
    let mut open: Vec<_> = fleet.clients.iter().map(|(_, one)| connect(one)).collect();
    open.iter_mut().for_each(talk);
    write_next(&workspace, |text| next(&workspace, &fleet, &text));
    observe(&workspace, &mut gateway);

    let expected: BTreeSet<_> = [
        (uri("revoked"), "revoked".to_owned()),
        (uri("other-ca"), "unknown_issuer".to_owned()),
        (uri("no-rule"), "not_authorized".to_owned()),
    ]
    .into();
    // Those who are there are named at once, and newcomers as they come; all of them are served.
    eventually("the open connections are evaluated", || {
        (foreseen(&gateway) == expected).then_some(())
    });
    let connect = |client: &ClientBuilder| client.connect(gateway.address()).unwrap();
    open.extend(fleet.clients.iter().map(|(_, one)| connect(one)));
    open.iter_mut().for_each(talk);
    assert_eq!(foreseen(&gateway), expected);
    let observed = gateway.metrics().count(OBSERVED, &[("listener", "edge")]);
    assert_eq!(
        observed, 6,
        "three that were there, and the same three again"
    );
    assert_eq!(gateway.metrics().count(FAILURES, &[]), 0);

    // In force, it refuses exactly those.
    drop(open);
    let next = fs::read_to_string(workspace.folder().join("next.toml")).unwrap();
    put_in_force(&workspace, &mut gateway, &next);
    for (uri, client) in &fleet.clients {
        if expected.iter().any(|(name, _)| name == uri) {
            client.refused(gateway.address());
        } else {
            talk(&mut client.connect(gateway.address()).unwrap());
        }
    }
    for (_, reason) in &expected {
        let labels = [("listener", "edge"), ("reason", reason.as_str())];
        gateway.wait_for(FAILURES, &labels, 1);
    }
    assert_eq!(foreseen(&gateway), BTreeSet::new(), "nothing is observed");
}

#[test]
fn a_client_that_resumes_is_evaluated_by_the_observed_state_too() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let client = workspace.client().remembering();
    talk(&mut client.connect(gateway.address()).unwrap());
    write_next(&workspace, |text| text.replace("/agent/*", "/nobody/*"));
    observe(&workspace, &mut gateway);
    let before = gateway.metrics().count(OBSERVED, &[]);
    let mut resumed = client.connect(gateway.address()).unwrap();
    talk(&mut resumed);
    let kind = resumed.connection().handshake_kind();
    assert_eq!(kind, Some(rustls::HandshakeKind::Resumed));
    let labels = [("listener", "edge"), ("reason", "not_authorized")];
    gateway.wait_for(OBSERVED, &labels, before + 1);
}

#[test]
fn a_broken_observed_state_refuses_the_reload_and_says_where_it_is_broken() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().top("observe = \"next.toml\"");
    fs::write(
        workspace.folder().join("next.toml"),
        "drain_timeout = \"soon\"\n",
    )
    .unwrap();
    let said = setup.route("edge", "", &[backend.address()], "").refused();
    assert!(said.contains("observe = \"next.toml\""), "{said}");
    assert!(said.contains("next.toml:1: drain_timeout"), "{said}");
}

#[test]
fn an_open_connection_that_another_tenant_would_close_is_foreseen() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    talk(&mut client);
    write_next(&workspace, |text| text.replace("\"team-a\"", "\"team-b\""));
    observe(&workspace, &mut gateway);
    let told = eventually("it is foreseen", || foreseen(&gateway).pop_first());
    assert_eq!(told.1, "not_authorized");
    talk(&mut client);
}

/// The status of the answer to a POST.
fn post(client: &mut Http2Client, path: &str) -> Option<u16> {
    call(client, "POST", path)
}

fn call(client: &mut Http2Client, method: &str, path: &str) -> Option<u16> {
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", b"gateway.test"),
        (b":path", path.as_bytes()),
    ];
    let stream = client.request(&fields, b"content");
    client.answer(stream).status()
}

/// Requests and reasons on the page, with how often.
fn foreseen_requests(gateway: &Gateway) -> Vec<(String, String, u64)> {
    let (_, page) = gateway.admin("/observed").unwrap();
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let requests = page["requests"].as_array().unwrap().iter();
    let count = |one: &serde_json::Value| one["count"].as_u64().unwrap();
    requests
        .map(|one| (text(&one["request"]), text(&one["reason"]), count(one)))
        .collect()
}

/// No client decides how much of its requests is remembered.
fn assert_remembers_little(gateway: &Gateway, client: &mut Http2Client) {
    let long = "A".repeat(10_000);
    assert_eq!(call(client, &long, "/admin"), Some(200));
    let named = eventually("the long method is named", || {
        let requests = foreseen_requests(gateway).into_iter();
        let mut requests = requests.map(|(request, ..)| request);
        requests.find(|request| request.starts_with("AAA"))
    });
    assert!(named.len() < 600, "{} bytes", named.len());
}

#[test]
fn a_request_that_the_observed_state_would_refuse_is_passed_on_and_named() {
    const REQUESTS: &str = "portcullis_observed_request_refusals_total";
    let allows_less = |text: String| {
        let allowed = "allow = [{ methods = [\"POST\"], path = \"/api\" }]";
        text.replace("allow = [{ path = \"/\" }]", allowed)
    };
    let routes_less = |text: String| {
        let route = "[[route]]\nlistener = \"edge\"\npath = \"/api\"\nbackend = \"edge\"\n\n";
        text.replace("backend = \"edge\"\n", "").replacen(
            "[[identity]]",
            &format!("{route}[[identity]]"),
            1,
        )
    };
    type Change = fn(String) -> String;
    let changes: [(Change, &str, u16); 2] = [
        (allows_less, "not_allowed", 403),
        (routes_less, "no_route", 404),
    ];
    for (change, reason, status) in changes {
        let workspace = Workspace::new();
        let backend = HttpBackend::clear(workspace.host.free(), Speaks::Http2, |_| {
            Reply::status(200).content(b"done")
        });
        let audit = "[audit]\nfile = \"audit.jsonl\"\n";
        let mut gateway = workspace
            .setup()
            .tables(audit)
            .http()
            .route("edge", "", &[backend.address()], "protocol = \"h2\"")
            .start();
        let mut open = Http2Client::connect(&workspace.client(), gateway.address());
        assert_eq!(post(&mut open, "/admin"), Some(200));
        write_next(&workspace, change);
        observe(&workspace, &mut gateway);
        let labels = [("listener", "edge"), ("reason", reason)];
        assert!(gateway.metrics().has(REQUESTS, &labels));
        let mut new = Http2Client::connect(&workspace.client(), gateway.address());
        for client in [&mut open, &mut new] {
            for path in ["/api/x", "/admin?token=secret", "/admin"] {
                assert_eq!(post(client, path), Some(200), "{path}");
            }
        }
        let expected = vec![("POST /admin".to_owned(), reason.to_owned(), 4)];
        eventually(
            "the requests are named, however many workers had them",
            || (foreseen_requests(&gateway) == expected).then_some(()),
        );
        assert_eq!(gateway.metrics().count(REQUESTS, &labels), 4);
        assert_eq!(foreseen(&gateway), BTreeSet::new(), "the client may come");
        let log = eventually("the audit log has it", || {
            let log = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
            log.contains("\"foreseen\"").then_some(log)
        });
        let lines = log.lines().filter(|line| line.contains("\"foreseen\""));
        let lines: Vec<serde_json::Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        // The first one of each worker.
        assert!(lines.len() <= 2, "{lines:?}");
        assert_eq!(lines[0]["method"], "POST");
        assert_eq!(lines[0]["path"], "/admin");
        assert_eq!(lines[0]["reason"], reason);
        assert_eq!(lines[0]["identity"], "spiffe://example.test/agent/agent-1");

        assert_remembers_little(&gateway, &mut open);

        // In force, it refuses just that.
        let next = fs::read_to_string(workspace.folder().join("next.toml")).unwrap();
        put_in_force(&workspace, &mut gateway, &next);
        assert_eq!(post(&mut open, "/admin"), Some(status));
        assert_eq!(post(&mut open, "/api/x"), Some(200));
        assert_eq!(foreseen_requests(&gateway), Vec::new());
    }
}
