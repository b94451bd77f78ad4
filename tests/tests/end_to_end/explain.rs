//! `portcullis check --certificate`: it says of a certificate what a handshake with it then finds.
//! In: certificates that get in, and that do not for every kind of reason. Out: the words, the exit code, and the same
//! reason from the running gateway.

use std::path::Path;
use std::process::Command;

use tests::{
    Authority, Backend, Behaviour, Credentials, Request, RevocationList, Usage, Workspace, program,
};

const FAILURES: &str = "portcullis_handshake_failures_total";

const RULES: &str = r#"[[identity]]
match = { uri = "spiffe://example.test/other/*", ou = "edge" }

[[identity]]
match = { uri = "spiffe://example.test/agent/*" }
listeners = ["inner"]
tenant = "team-b"

[[identity]]
match = { uri = "spiffe://example.test/agent/*" }
tenant = "team-a"
max_connections = 7
"#;

/// Runs the command on the configuration in the test's folder: exit code and standard output.
fn check(workspace: &Workspace, certificate: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program("portcullis"))
        .args(["check", "--config"])
        .arg(workspace.folder().join("portcullis.toml"))
        .arg("--certificate")
        .arg(certificate)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said + &errors)
}

/// Shuts an identity out.
fn block(workspace: &Workspace, identity: &str) {
    let output = Command::new(program("portcullis"))
        .args(["block", "--identity", identity, "--config"])
        .arg(workspace.folder().join("portcullis.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // In force, and about no client that was ever here.
    assert_eq!(output.status.code(), Some(4), "{said}");
}

fn assert_says(said: &str, expected: &[&str]) {
    for expected in expected {
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
}

#[test]
fn it_tells_for_each_listener_which_rule_matches_and_why_the_earlier_ones_do_not() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let _gateway = workspace
        .setup()
        .identities(RULES)
        .route("outer", "", &[backend.address()], "")
        .route("inner", "", &[backend.address()], "")
        .start();
    let (code, said) = check(&workspace, &workspace.agent.certificate, &[]);
    assert_eq!(code, Some(0), "{said}");
    let expected = [
        "names        uri \"spiffe://example.test/agent/agent-1\"",
        "issuer       CN=Agents of the test",
        "Listener outer: ADMITTED by rule 3\n  goes by      uri \"spiffe://example.test/agent/agent-1\"\n  tenant       team-a\n  limits       7 connections\n",
        "rule 1       does not match: uri spiffe://example.test/other/* is not \"spiffe://example.test/agent/agent-1\"; ou edge is not there",
        "rule 2       does not match: holds on inner only",
        "rule 3       matches",
        "Listener inner: ADMITTED by rule 2\n  goes by      uri \"spiffe://example.test/agent/agent-1\"\n  tenant       team-b\n  limits       none\n",
    ];
    assert_says(&said, &expected);
    let (code, said) = check(
        &workspace,
        &workspace.agent.certificate,
        &["--listener", "inner"],
    );
    assert_eq!(code, Some(0));
    assert!(!said.contains("Listener outer"), "{said}");

    let der = workspace.folder().join("agent.der");
    let converted = Command::new("openssl")
        .args(["x509", "-outform", "DER", "-in"])
        .arg(&workspace.agent.certificate)
        .arg("-out")
        .arg(&der)
        .status();
    assert!(converted.unwrap().success());
    let (code, said) = check(&workspace, &der, &[]);
    assert_eq!(code, Some(0), "{said}");

    let nobody = Request::client("spiffe://example.test/other/1");
    let nobody = workspace.agents.issue("nobody", nobody);
    let (code, said) = check(&workspace, &nobody.certificate, &[]);
    assert_eq!(code, Some(1));
    assert_says(
        &said,
        &["Listener outer: REFUSED, not_authorized", "no rule is left"],
    );
    let (code, said) = check(
        &workspace,
        &workspace.agent.certificate,
        &["--listener", "none"],
    );
    assert_eq!(code, Some(1));
    assert_says(&said, &["must name a [[listener]]: outer, inner"]);
}

#[test]
fn it_writes_numbers_and_times_as_the_ca_does() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let _gateway = workspace.gateway(backend.address());
    // Its first bit is set: DER puts a zero before it, which is no part of the number.
    // It ends before its CA does, whatever second either was made in.
    let request = Request::client("spiffe://example.test/agent/1")
        .serial(&[0xfe, 0x0a, 0x01])
        .seconds(3600);
    let agent = workspace.agents.issue("numbered", request);
    let (code, said) = check(&workspace, &agent.certificate, &[]);
    assert_eq!(code, Some(0), "{said}");
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in\n{said}")).trim()
    };
    assert_eq!(value("serial "), "fe0a01");
    assert_eq!(value("ends "), value("until "));
}

#[test]
fn it_names_the_reason_that_the_gateway_then_counts() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let uri = "spiffe://example.test/agent/1";
    let issue = |name: &str, request: Request| workspace.agents.issue(name, request);
    let foreign = Authority::create(workspace.folder(), "foreign", "Somebody else");
    let below = workspace.agents.subordinate("below", "Below");
    let revoked = issue("revoked", Request::client(uri));
    let blocked = issue(
        "blocked",
        Request::client("spiffe://example.test/agent/blocked"),
    );
    let list = workspace
        .agents
        .revoke("list.pem", &RevocationList::of(&[&revoked.certificate]));
    let cases: [(&str, Credentials); 9] = [
        ("expired", issue("expired", Request::client(uri).expired())),
        (
            "not_yet_valid",
            issue("future", Request::client(uri).not_yet_valid()),
        ),
        (
            "wrong_key_usage",
            issue("server", Request::client(uri).usage(Usage::Server)),
        ),
        (
            "unknown_issuer",
            foreign.issue("foreign", Request::client(uri)),
        ),
        (
            "not_authorized",
            issue("visitor", Request::client("spiffe://example.test/visitor")),
        ),
        ("revoked", revoked),
        ("blocked", blocked),
        ("crl_stale", below.issue("stale", Request::client(uri))),
        (
            "weak_key",
            below
                .subordinate("deep", "Deep")
                .issue("deep", Request::client(uri)),
        ),
    ];
    let gateway = workspace
        .setup()
        .tables("[tls]\nmax_chain_depth = 2\n")
        .route(
            "edge",
            &format!("crl = [{list:?}]"),
            &[backend.address()],
            "",
        )
        .start();
    block(&workspace, "spiffe://example.test/agent/blocked");
    for (reason, agent) in &cases {
        let (code, said) = check(&workspace, &agent.certificate, &[]);
        assert_eq!(code, Some(1), "{reason}: {said}");
        assert_says(&said, &[&format!("Listener edge: REFUSED, {reason}\n")]);
        workspace
            .client()
            .credentials(agent)
            .refused(gateway.address());
        gateway.wait_for(FAILURES, &[("reason", reason)], 1);
    }
    let (code, said) = check(&workspace, &workspace.agent.certificate, &[]);
    assert_eq!(code, Some(0), "{said}");
}
