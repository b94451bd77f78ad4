//! Rules: each key admits whom it names and nobody else, on the listeners it is for, as the tenant it says.
//! In: certificates with one name more or less. Out: an echo, with the tenant in the PROXY header; or a refusal.

use std::net::IpAddr;
use std::process::Command;

use rustls::AlertDescription;
use tests::{
    Backend, Behaviour, Client, Closing, Credentials, Gateway, Request, TlsFailure, World,
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

fn get_in(world: &World, gateway: &Gateway, route: &str, agent: &Credentials) -> Client {
    let client = world.client().credentials(agent);
    let mut client = client.connect(gateway.address_of(route)).unwrap();
    client.send(b"hello").unwrap();
    client
}

fn assert_denied(world: &World, gateway: &Gateway, route: &str, agent: &Credentials, why: &str) {
    let client = world.client().credentials(agent);
    let failure = client.refused(gateway.address_of(route));
    let denied = Closing::Alert(AlertDescription::AccessDenied);
    assert!(
        matches!(failure, TlsFailure::Closed(closing) if closing == denied),
        "{why}: {failure:?}"
    );
}

#[test]
fn each_key_of_a_rule_admits_whom_it_names_and_nobody_else() {
    let world = World::new();
    let backend = Backend::start(Behaviour::Echo);
    let address = IpAddr::from([192, 0, 2, 7]);
    let request =
        |unit: &str| Request::client("spiffe://example.test/agent/1").organizational_unit(unit);
    let named = world
        .agents
        .issue("named", request("edge").ip(address).dns("a.example.test"));
    let other = world.agents.issue("other", request("core"));
    let below = world
        .agents
        .subordinate("below", "Below")
        .issue("third", request("core"));
    let world_ca = "issuer = \"CN=Agents of the test\"";
    let cases = [
        ("ou = \"edge\"", &named, &other),
        ("ou = \"ed*\"", &named, &other),
        ("ip = \"192.0.2.7\"", &named, &other),
        ("dns = \"A.example.test\"", &named, &other),
        (world_ca, &named, &below),
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
        let setup = world.setup().identities(&rule);
        let gateway = setup.route("edge", "", &[backend.address()], "").start();
        let mut client = get_in(&world, &gateway, "edge", admitted);
        assert_eq!(client.receive(5).unwrap(), b"hello", "{patterns}");
        assert_denied(&world, &gateway, "edge", denied, patterns);
    }
}

#[test]
fn a_rule_holds_on_the_listeners_it_names_alone() {
    let world = World::new();
    let backend = Backend::start(Behaviour::Echo);
    let rule = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\nlisteners = [\"inner\"]\n";
    let gateway = world
        .setup()
        .identities(rule)
        .route("outer", "", &[backend.address()], "")
        .route("inner", "", &[backend.address()], "")
        .start();
    let mut client = get_in(&world, &gateway, "inner", &world.agent);
    assert_eq!(client.receive(5).unwrap(), b"hello");
    assert_denied(&world, &gateway, "outer", &world.agent, "another listener");
    gateway.wait_for(
        "portcullis_handshake_failures_total",
        &[("listener", "outer"), ("reason", "not_authorized")],
        1,
    );
}

#[test]
fn a_tenant_comes_from_the_certificate_or_the_client_is_refused() {
    let world = World::new();
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
        let setup = world.setup().identities(&rule);
        let keys = "proxy_protocol = true";
        let gateway = setup.route("edge", "", &[backend.address()], keys).start();
        let agent = world.agents.issue(&format!("tenant-{number}"), request);
        let Some(tenant) = tenant else {
            assert_denied(&world, &gateway, "edge", &agent, from);
            continue;
        };
        let mut client = get_in(&world, &gateway, "edge", &agent);
        client.finish();
        let (received, _) = client.receive_to_end();
        // The tenant's own part of the header, so that the same word in the URI does not count.
        let mut part = vec![0xe0, 0, u8::try_from(tenant.len()).unwrap()];
        part.extend_from_slice(tenant.as_bytes());
        let said = received.windows(part.len()).any(|bytes| bytes == part);
        assert!(said, "{from}: {}", received.escape_ascii());
    }
}
