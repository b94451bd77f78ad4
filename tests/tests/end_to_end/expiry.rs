//! What ends by itself is said beforehand: by the log, the metrics, and a monitoring plugin. In: certificates near their
//! end. Out: exit codes, lines, numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{
    Authority, Backend, Behaviour, Client, Gateway, Request, RevocationList, Setup, Workspace,
    eventually, program,
};

/// Seconds until the end of certificates that began an hour ago.
const GOOD: i64 = 36_000;
const THIRD: i64 = 1_500;
const SIXTH: i64 = 500;
const TWENTIETH: i64 = 150;

/// A workspace whose gateway's certificate ends in so many seconds.
fn workspace_with(seconds: i64) -> Workspace {
    let mut workspace = Workspace::new();
    let request = Request::server("gateway.test").dns("gateway.test");
    workspace.server = workspace.gateways.issue("short", request.seconds(seconds));
    workspace
}

/// Exit code and output of `check --expiry`.
fn plugin(workspace: &Workspace, text: &str) -> (Option<i32>, String) {
    let file = workspace.folder().join("portcullis.toml");
    fs::write(&file, text).unwrap();
    let output = Command::new(program("portcullis"))
        .args(["check", "--expiry", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code(), said)
}

fn text(workspace: &Workspace, listener: &str) -> String {
    let server = workspace.host.free();
    let setup = workspace.setup().route("edge", listener, &[server], "");
    setup.text()
}

#[test]
fn the_plugin_answers_with_the_exit_codes_of_nagios() {
    let cases = [
        (GOOD, 0, "PORTCULLIS OK - "),
        (THIRD, 0, "PORTCULLIS OK - "),
        (SIXTH, 1, "PORTCULLIS WARNING - 1 of "),
        (TWENTIETH, 2, "PORTCULLIS CRITICAL - 1 of "),
        (-60, 2, "PORTCULLIS CRITICAL - 1 of "),
    ];
    for (seconds, code, start) in cases {
        let workspace = workspace_with(seconds);
        let (exit, said) = plugin(&workspace, &text(&workspace, ""));
        assert_eq!(exit, Some(code), "{said}");
        assert!(said.starts_with(start), "{said}");
        assert!(said.contains(" | 'listener edge certificate "), "{said}");
    }
}

#[test]
fn a_revocation_list_that_has_ended_is_critical() {
    let workspace = workspace_with(GOOD);
    let list = |name, list: RevocationList| {
        let file = workspace.agents.revoke(name, &list);
        text(&workspace, &format!("crl = [{file:?}]"))
    };
    let good = list("good.crl", RevocationList::of(&[]));
    assert_eq!(plugin(&workspace, &good).0, Some(0));
    let ended = list("ended.crl", RevocationList::of(&[]).ended());
    let (exit, said) = plugin(&workspace, &ended);
    assert_eq!(exit, Some(2), "{said}");
    assert!(
        said.contains("listener edge crl CN=Agents of the test has ended"),
        "{said}"
    );
}

#[test]
fn a_broken_configuration_is_unknown() {
    let workspace = workspace_with(GOOD);
    let broken = [
        "no configuration".to_owned(),
        text(&workspace, "handshake_timeout = \"0s\""),
        text(&workspace, "").replace("short.pem", "nowhere.pem"),
    ];
    for text in broken {
        let (exit, said) = plugin(&workspace, &text);
        assert_eq!(exit, Some(3), "{said}");
        assert!(said.starts_with("PORTCULLIS UNKNOWN - "), "{said}");
    }
}

#[test]
fn the_log_and_the_metrics_tell_of_a_certificate_near_its_end() {
    for (seconds, line) in [
        (THIRD, "INFO a third of a lifetime is left"),
        (SIXTH, "WARN a sixth of a lifetime is left"),
        (TWENTIETH, "ERROR a twentieth of a lifetime is left"),
    ] {
        let workspace = workspace_with(seconds);
        let backend = Backend::start(Behaviour::Echo);
        let gateway = workspace.gateway(backend.address());
        eventually(line, || gateway.log().contains(line).then_some(()));
        assert_eq!(gateway.log().matches("of a lifetime is left").count(), 1);
        let name = "portcullis_certificate_lifetime_left_ratio";
        let file = workspace.server.certificate.to_str().unwrap();
        let left = gateway.metrics().sum(name, &[("file", file)]);
        let expected = seconds as f64 / (3600.0 + seconds as f64);
        assert!((left - expected).abs() < 0.02, "{left} {expected}");
    }
}

#[test]
fn clients_are_counted_by_rule_and_by_what_their_certificates_have_left() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace
        .setup()
        .identities(
            "[[identity]]\nmatch = { uri = \"spiffe://example.test/other/*\" }\n\
             [[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\n",
        )
        .route("edge", "", &[backend.address()], "")
        .start();
    let address = gateway.address();
    let agent = |name: &str, seconds| {
        let request = Request::client(&format!("spiffe://example.test/agent/{name}"));
        let agent = workspace.agents.issue(name, request.seconds(seconds));
        let client = workspace.client().credentials(&agent);
        client.connect(address).unwrap()
    };
    let connected = [agent("a", GOOD), agent("b", GOOD), agent("c", SIXTH)];
    let rule = ("rule", "2");
    let labels = |left| [("listener", "edge"), rule, ("left", left)];
    let metrics = gateway.wait_for("portcullis_clients", &[rule], 3);
    assert_eq!(metrics.count("portcullis_clients", &labels("good")), 2);
    assert_eq!(metrics.count("portcullis_clients", &labels("sixth")), 1);
    assert_eq!(metrics.count("portcullis_clients", &[("rule", "1")]), 0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let first = metrics.count(
        "portcullis_clients_first_not_after_timestamp_seconds",
        &[rule],
    );
    let left = first as i64 - now.as_secs() as i64;
    assert!((0..=SIXTH + 1).contains(&left), "{left}");

    // The first rule goes, the second becomes the first: clients are counted where `check` shows them now.
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let other = "[[identity]]\nmatch = { uri = \"spiffe://example.test/other/*\" }\n";
    assert!(text.contains(other), "{text}");
    fs::write(&file, text.replace(other, "")).unwrap();
    gateway.process().signal(rustix::process::Signal::HUP);
    let metrics = gateway.wait_for("portcullis_clients", &[("rule", "1")], 3);
    assert_eq!(metrics.count("portcullis_clients", &[rule]), 0);
    drop(connected);
}

const SUPERSEDED: &str = "portcullis_certificate_superseded";
const DEPENDENT: &str = "portcullis_certificate_dependent_connections";

/// A file with these certificates in a row.
fn bundle(workspace: &Workspace, certificates: &[String]) -> PathBuf {
    let file = workspace.folder().join("bundle.pem");
    fs::write(&file, certificates.concat()).unwrap();
    file
}

fn pem(authority: &Authority) -> String {
    fs::read_to_string(authority.certificate()).unwrap()
}

fn with_bundle<'w>(workspace: &'w Workspace, backend: &Backend, bundle: &Path) -> Setup<'w> {
    let setup = workspace.setup().client_ca(bundle);
    setup.route("edge", "", &[backend.address()], "")
}

/// A client with a certificate of this authority's that lasts for so many seconds.
fn connect(
    workspace: &Workspace,
    gateway: &Gateway,
    authority: &Authority,
    name: &str,
    seconds: i64,
) -> Client {
    let request = Request::client(&format!("spiffe://example.test/agent/{name}"));
    let agent = authority.issue(name, request.seconds(seconds));
    let client = workspace.client().credentials(&agent);
    client.connect(gateway.address()).unwrap()
}

/// Lines about ends that somebody is to act on.
fn alarms(gateway: &Gateway) -> Vec<String> {
    let alarming = |line: &&str| {
        (line.contains(" WARN ") || line.contains(" ERROR "))
            && ["lifetime is left", "has ended", "expire"]
                .iter()
                .any(|words| line.contains(words))
    };
    let log = gateway.log();
    log.lines().filter(alarming).map(str::to_owned).collect()
}

#[test]
fn the_authorities_that_spire_makes_every_two_minutes_raise_no_alarm_as_long_as_there_is_a_next_one()
 {
    let workspace = Workspace::new();
    let folder = workspace.folder().to_owned();
    let authority = |name, seconds| Authority::of_spire(&folder, name, "example.test", seconds);
    let ended = authority("1001", -7200..-7080);
    let last_but_one = authority("1002", -117..3);
    let next = authority("1003", -20..100);
    let file = bundle(&workspace, &[&ended, &last_but_one, &next].map(pem));
    let backend = Backend::start(Behaviour::Echo);
    let setup = with_bundle(&workspace, &backend, &file);
    let (code, said) = plugin(&workspace, &setup.text());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("PORTCULLIS OK"), "{said}");

    let gateway = setup.start();
    gateway.wait_for(SUPERSEDED, &[], 1);
    // Its end has come, and it is not used any more.
    gateway.wait_for(SUPERSEDED, &[], 0);
    assert_eq!(alarms(&gateway), Vec::<String>::new());
    // SPIRE cuts what it issues to its own end: such a client ends by itself, and not by its CA.
    let _client = connect(&workspace, &gateway, &next, "short", 60);
    gateway.wait_for("portcullis_clients", &[], 1);
    assert_eq!(gateway.metrics().count(DEPENDENT, &[]), 0);
    drop(gateway);

    let alone = bundle(&workspace, &[&ended, &last_but_one].map(pem));
    let (code, said) = plugin(
        &workspace,
        &with_bundle(&workspace, &backend, &alone).text(),
    );
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn a_successor_that_begins_after_the_end_silences_no_alarm() {
    let workspace = Workspace::new();
    let folder = workspace.folder().to_owned();
    let backend = Backend::start(Behaviour::Echo);
    let old = Authority::named_for(&folder, "old", "Agents", -3600..TWENTIETH);
    let with = |name: &str, begins: i64| {
        let new = Authority::named_for(&folder, name, "Agents", begins..100 * GOOD);
        let again = old.renewed("Agents", begins..100 * GOOD);
        [pem(&new), again].map(|successor| {
            let file = bundle(&workspace, &[pem(&old), successor]);
            plugin(&workspace, &with_bundle(&workspace, &backend, &file).text())
        })
    };
    for (code, said) in with("late", 30 * GOOD) {
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("CRITICAL - 1 of"), "{said}");
    }
    for (code, said) in with("in time", -60) {
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn the_end_of_a_ca_matters_for_as_long_as_a_connected_client_stands_on_it_alone() {
    let workspace = Workspace::new();
    let folder = workspace.folder().to_owned();
    let old = Authority::named_for(&folder, "old", "Agents", -3600..SIXTH);
    let new = Authority::named_for(&folder, "new", "Agents", -60..GOOD);
    let file = bundle(&workspace, &[&old, &new].map(pem));
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().client_ca(&file);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let config = fs::read_to_string(folder.join("portcullis.toml")).unwrap();
    let usage = ("usage", "listener edge client_ca");
    let superseded = |value| gateway.wait_for(SUPERSEDED, &[usage], value);

    // One of the new CA, and one that ends with the old one in any case.
    let _renewed = connect(&workspace, &gateway, &new, "renewed", GOOD);
    let _short = connect(&workspace, &gateway, &old, "short", SIXTH - 60);
    gateway.wait_for("portcullis_clients", &[], 2);
    assert_eq!(gateway.metrics().count(DEPENDENT, &[usage]), 0);
    let (code, said) = plugin(&workspace, &config);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(alarms(&gateway), Vec::<String>::new());

    let stays_behind = connect(&workspace, &gateway, &old, "behind", GOOD);
    gateway.wait_for(DEPENDENT, &[usage], 1);
    superseded(0);
    let (code, said) = plugin(&workspace, &config);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("WARNING - 1 of"), "{said}");

    drop(stays_behind);
    gateway.wait_for(DEPENDENT, &[usage], 0);
    assert_eq!(plugin(&workspace, &config).0, Some(0));
}

#[test]
fn a_connection_lasts_as_long_as_the_renewed_certificate_of_its_ca() {
    let workspace = Workspace::new();
    let folder = workspace.folder().to_owned();
    let old = Authority::named_for(&folder, "old", "Agents", -3600..SIXTH);
    let file = bundle(&workspace, &[pem(&old), old.renewed("Agents", -60..GOOD)]);
    let backend = Backend::start(Behaviour::Echo);
    let setup = workspace.setup().client_ca(&file);
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let _client = connect(&workspace, &gateway, &old, "agent", GOOD - 60);
    let metrics = gateway.wait_for("portcullis_clients", &[("left", "good")], 1);
    assert_eq!(metrics.count(DEPENDENT, &[]), 0);
    // Both have one name and one file: they are one line of the page.
    let left = metrics.sum(
        "portcullis_certificate_lifetime_left_ratio",
        &[("usage", "listener edge client_ca")],
    );
    assert!((0.9..=1.0).contains(&left), "{left}");
}
