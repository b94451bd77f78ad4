//! Rules: each key admits whom it names and nobody else, on the listeners it is for, as the tenant it says.
//! In: certificates with one name more or less. Out: an echo, with the tenant in the PROXY header; or a refusal.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use rustls::AlertDescription;
use tests::{
    Authority, Backend, Behaviour, Client, Closing, Credentials, Gateway, Request, TlsFailure,
    Usage, Workspace,
};

/// The program's words on a certificate.
fn fingerprint(agent: &Credentials) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&agent.certificate)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split_once('=').unwrap().1.to_owned()
}

fn get_in(workspace: &Workspace, gateway: &Gateway, route: &str, agent: &Credentials) -> Client {
    let client = workspace.client().credentials(agent);
    let mut client = client.connect(gateway.address_of(route)).unwrap();
    client.send(b"hello").unwrap();
    client
}

fn assert_denied(
    workspace: &Workspace,
    gateway: &Gateway,
    route: &str,
    agent: &Credentials,
    why: &str,
) {
    let client = workspace.client().credentials(agent);
    let failure = client.refused(gateway.address_of(route));
    let denied = Closing::Alert(AlertDescription::AccessDenied);
    assert!(
        matches!(failure, TlsFailure::Closed(closing) if closing == denied),
        "{why}: {failure:?}"
    );
}

#[test]
fn each_key_of_a_rule_admits_whom_it_names_and_nobody_else() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let address = IpAddr::from([192, 0, 2, 7]);
    let request =
        |unit: &str| Request::client("spiffe://example.test/agent/1").organizational_unit(unit);
    let named = workspace
        .agents
        .issue("named", request("edge").ip(address).dns("a.example.test"));
    let other = workspace.agents.issue("other", request("core"));
    let below = workspace
        .agents
        .subordinate("below", "Below")
        .issue("third", request("core"));
    let workspace_ca = "issuer = \"CN=Agents of the test\"";
    let cases = [
        ("ou = \"edge\"", &named, &other),
        ("ou = \"ed*\"", &named, &other),
        ("ip = \"192.0.2.7\"", &named, &other),
        ("dns = \"A.example.test\"", &named, &other),
        (workspace_ca, &named, &below),
        ("issuer = \"CN=Below\"", &below, &named),
        (
            &format!("fingerprint = \"{}\"", fingerprint(&named)),
            &named,
            &other,
        ),
        (
            &format!(
                "fingerprint = [\"{}\", \"{}\"]",
                "00".repeat(32),
                fingerprint(&other)
            ),
            &other,
            &named,
        ),
        (
            "ou = \"edge\", ip = \"192.0.2.7\", uri = \"spiffe://*\"",
            &named,
            &other,
        ),
    ];
    for (patterns, admitted, denied) in cases {
        let rule = format!("[[identity]]\nmatch = {{ {patterns} }}\n");
        let setup = workspace.setup().identities(&rule);
        let gateway = setup.route("edge", "", &[backend.address()], "").start();
        let mut client = get_in(&workspace, &gateway, "edge", admitted);
        assert_eq!(client.receive(5).unwrap(), b"hello", "{patterns}");
        assert_denied(&workspace, &gateway, "edge", denied, patterns);
    }
}

#[test]
fn a_rule_holds_on_the_listeners_it_names_alone() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let rule = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\nlisteners = [\"inner\"]\n";
    let gateway = workspace
        .setup()
        .identities(rule)
        .route("outer", "", &[backend.address()], "")
        .route("inner", "", &[backend.address()], "")
        .start();
    let mut client = get_in(&workspace, &gateway, "inner", &workspace.agent);
    assert_eq!(client.receive(5).unwrap(), b"hello");
    assert_denied(
        &workspace,
        &gateway,
        "outer",
        &workspace.agent,
        "another listener",
    );
    gateway.wait_for(
        "portcullis_handshake_failures_total",
        &[("listener", "outer"), ("reason", "not_authorized")],
        1,
    );
}

#[test]
fn a_tenant_comes_from_the_certificate_or_the_client_is_refused() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let uri = |text: &str| Request::client(&format!("spiffe://example.test/tenant/{text}"));
    let cases = [
        ("uri", uri("red-team/agent/1"), Some("red-team")),
        (
            "uri",
            uri("red/1").uri("spiffe://example.test/tenant/blue/1"),
            None,
        ),
        ("uri", uri("..//1"), None),
        (
            "dns",
            uri("x").dns("green.agents.example.test"),
            Some("green"),
        ),
        ("dns", uri("x"), None),
        ("cn", uri("x").common_name("white"), Some("white")),
        ("cn", uri("x").common_name("a/b"), None),
        ("ou", uri("x").organizational_unit("black"), Some("black")),
        ("ou", uri("x"), None),
    ];
    for (number, (from, request, tenant)) in cases.into_iter().enumerate() {
        let rule = format!(
            "[[identity]]\nmatch = {{ uri = \"spiffe://example.test/tenant/*\" }}\ntenant_from = \"{from}\"\n\
             [[identity]]\nmatch = {{ uri = \"*\" }}\ntenant = \"everybody-else\"\n"
        );
        let setup = workspace.setup().identities(&rule);
        let keys = "proxy_protocol = true";
        let gateway = setup.route("edge", "", &[backend.address()], keys).start();
        let agent = workspace.agents.issue(&format!("tenant-{number}"), request);
        let Some(tenant) = tenant else {
            assert_denied(&workspace, &gateway, "edge", &agent, from);
            continue;
        };
        let mut client = get_in(&workspace, &gateway, "edge", &agent);
        client.finish();
        let (received, _) = client.receive_to_end();
        // The tenant's own part of the header, so that the same word in the URI does not count.
        let mut part = vec![0xe0, 0, u8::try_from(tenant.len()).unwrap()];
        part.extend_from_slice(tenant.as_bytes());
        let said = received.windows(part.len()).any(|bytes| bytes == part);
        assert!(said, "{from}: {}", received.escape_ascii());
    }
}

#[test]
fn an_authority_that_is_bound_to_a_trust_domain_admits_nobody_of_another() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let foreign = Authority::create(workspace.folder(), "foreign", "Foreign");
    let elements = format!(
        "{:?}, {{ file = {:?}, trust_domain = \"foreign.test\", dns = [\"*.foreign.test\"] }}",
        workspace.agents.certificate(),
        foreign.certificate()
    );
    let rules = "[[identity]]\nmatch = { uri = \"spiffe://*\" }\n\
                 [[identity]]\nmatch = { cn = \"ours\" }\n\
                 [[identity]]\nmatch = { cn = \"theirs\", trust_domain = \"foreign.test\" }\n";
    let setup = workspace.setup().client_authorities(&elements);
    let setup = setup.identities(rules);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let named = |name: &str| Request::server(name).usage(Usage::Client);
    let welcome = [
        Request::client("spiffe://foreign.test/agent/1"),
        Request::client("spiffe://foreign.test/agent/1").dns("a.foreign.test"),
        named("theirs"),
    ];
    for (number, request) in welcome.into_iter().enumerate() {
        let agent = foreign.issue(&format!("welcome-{number}"), request);
        let mut client = get_in(&workspace, &gateway, "edge", &agent);
        assert_eq!(client.receive(5).unwrap(), b"hello", "{number}");
    }
    let denied = [
        Request::client("spiffe://example.test/agent/evil"),
        Request::client("spiffe://foreign.test/agent/1").dns("a.example.test"),
        Request::client("https://foreign.test/agent/1"),
        named("ours"),
    ];
    for (number, request) in denied.into_iter().enumerate() {
        let agent = foreign.issue(&format!("denied-{number}"), request);
        let why = format!("denied-{number}");
        assert_denied(&workspace, &gateway, "edge", &agent, &why);
    }
    let mut client = get_in(&workspace, &gateway, "edge", &workspace.agent);
    assert_eq!(client.receive(5).unwrap(), b"hello");
}

#[test]
fn an_authority_that_is_bound_gains_nothing_by_a_certificate_of_its_key_from_another() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let foreign = Authority::create(workspace.folder(), "foreign", "Foreign");
    let crossed = workspace
        .agents
        .cross_certify(&foreign, "crossed", "Crossed");
    let elements = format!(
        "{:?}, {{ file = {:?}, trust_domain = \"foreign.test\" }}",
        workspace.agents.certificate(),
        foreign.certificate()
    );
    let rules = "[[identity]]\nmatch = { uri = \"spiffe://*\" }\n";
    let setup = workspace.setup().client_authorities(&elements);
    let setup = setup.identities(rules);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let own = crossed.issue("own", Request::client("spiffe://foreign.test/agent/1"));
    let mut client = get_in(&workspace, &gateway, "edge", &own);
    assert_eq!(client.receive(5).unwrap(), b"hello");
    let evil = crossed.issue("evil", Request::client("spiffe://example.test/agent/1"));
    assert_denied(&workspace, &gateway, "edge", &evil, "another trust domain");
}

#[test]
fn a_common_name_that_equals_a_uri_shares_no_limit_with_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let name = "spiffe://example.test/agent/agent-1";
    let rules = format!(
        "[[identity]]\nmatch = {{ uri = \"{name}\" }}\nmax_connections = 1\n\
         [[identity]]\nmatch = {{ cn = \"{name}\" }}\nmax_connections = 1\n"
    );
    let setup = workspace.setup().identities(&rules);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let by_uri = workspace.agents.issue("by-uri", Request::client(name));
    let by_name = Request::server(name).usage(Usage::Client);
    let by_name = workspace.agents.issue("by-name", by_name);
    let mut first = get_in(&workspace, &gateway, "edge", &by_uri);
    assert_eq!(first.receive(5).unwrap(), b"hello");
    let mut second = get_in(&workspace, &gateway, "edge", &by_name);
    assert_eq!(second.receive(5).unwrap(), b"hello");
}

#[test]
fn the_uri_that_the_rule_matched_is_the_one_the_backend_is_told() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let rule = "[[identity]]\nmatch = { uri = \"spiffe://example.test/*\" }\n";
    let setup = workspace.setup().identities(rule);
    let keys = "proxy_protocol = true";
    let gateway = setup.route("edge", "", &[backend.address()], keys).start();
    let request = Request::client("https://evil.test/admin").uri("spiffe://example.test/agent/1");
    let agent = workspace.agents.issue("two-uris", request);
    let mut client = get_in(&workspace, &gateway, "edge", &agent);
    client.finish();
    let (received, _) = client.receive_to_end();
    let says = |text: &str| {
        received
            .windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    };
    assert!(
        says("spiffe://example.test/agent/1"),
        "{}",
        received.escape_ascii()
    );
    assert!(!says("evil"), "{}", received.escape_ascii());
    let request = Request::client("spiffe://evil.test/1").uri("spiffe://example.test/agent/1");
    let agent = workspace.agents.issue("two-ids", request);
    assert_denied(&workspace, &gateway, "edge", &agent, "two SPIFFE IDs");
}

#[test]
fn more_names_of_authorities_than_a_request_can_list_are_left_out_and_said() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut bundle = fs::read_to_string(workspace.agents.certificate()).unwrap();
    for number in 0..1200 {
        let name = format!("One of the many authorities of a large bundle, number {number}");
        let other = Authority::create(workspace.folder(), &format!("ca-{number}"), &name);
        bundle += &fs::read_to_string(other.certificate()).unwrap();
    }
    let file = workspace.folder().join("bundle.pem");
    fs::write(&file, bundle).unwrap();
    let setup = workspace.setup().client_ca(&file);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut client = get_in(&workspace, &gateway, "edge", &workspace.agent);
    assert_eq!(client.receive(5).unwrap(), b"hello");
    let log = gateway.log();
    assert!(log.contains("so clients are not told them"), "{log}");
}
