//! What ends by itself is said beforehand: by the log, the metrics, and a monitoring plugin. In: certificates near their
//! end. Out: exit codes, lines, numbers.

use std::fs;
use std::process::Command;

use tests::{Backend, Behaviour, Request, RevocationList, World, eventually, program};

/// Seconds until the end of certificates that began an hour ago.
const GOOD: i64 = 36_000;
const THIRD: i64 = 1_500;
const SIXTH: i64 = 500;
const TWENTIETH: i64 = 150;

/// A world whose gateway's certificate ends in so many seconds.
fn world_with(seconds: i64) -> World {
    let mut world = World::new();
    let request = Request::server("gateway.test").dns("gateway.test");
    world.server = world.gateways.issue("short", request.seconds(seconds));
    world
}

/// Exit code and output of `check --expiry`.
fn plugin(world: &World, text: &str) -> (Option<i32>, String) {
    let file = world.folder().join("portcullis.toml");
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

fn text(world: &World, listener: &str) -> String {
    let server = world.host.free();
    let setup = world.setup().route("edge", listener, &[server], "");
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
        let world = world_with(seconds);
        let (exit, said) = plugin(&world, &text(&world, ""));
        assert_eq!(exit, Some(code), "{said}");
        assert!(said.starts_with(start), "{said}");
        assert!(said.contains(" | 'listener edge certificate "), "{said}");
    }
}

#[test]
fn a_revocation_list_that_has_ended_is_critical() {
    let world = world_with(GOOD);
    let list = |name, list: RevocationList| {
        let file = world.agents.revoke(name, &list);
        text(&world, &format!("crl = [{file:?}]"))
    };
    let good = list("good.crl", RevocationList::of(&[]));
    assert_eq!(plugin(&world, &good).0, Some(0));
    let ended = list("ended.crl", RevocationList::of(&[]).ended());
    let (exit, said) = plugin(&world, &ended);
    assert_eq!(exit, Some(2), "{said}");
    assert!(
        said.contains("listener edge crl CN=Agents of the test has ended"),
        "{said}"
    );
}

#[test]
fn a_broken_configuration_is_unknown() {
    let world = world_with(GOOD);
    let broken = [
        "no configuration".to_owned(),
        text(&world, "handshake_timeout = \"0s\""),
        text(&world, "").replace("short.pem", "nowhere.pem"),
    ];
    for text in broken {
        let (exit, said) = plugin(&world, &text);
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
        let world = world_with(seconds);
        let backend = Backend::start(Behaviour::Echo);
        let gateway = world.gateway(backend.address());
        eventually(line, || gateway.log().contains(line).then_some(()));
        assert_eq!(gateway.log().matches("of a lifetime is left").count(), 1);
        let name = "portcullis_certificate_lifetime_left_ratio";
        let file = world.server.certificate.to_str().unwrap();
        let left = gateway.metrics().sum(name, &[("file", file)]);
        let expected = seconds as f64 / (3600.0 + seconds as f64);
        assert!((left - expected).abs() < 0.02, "{left} {expected}");
    }
}

#[test]
fn clients_are_counted_by_rule_and_by_what_their_certificates_have_left() {
    let world = World::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = world
        .setup()
        .identities(
            "[[identity]]\nmatch = { uri = \"spiffe://example.test/other/*\" }\n\
             [[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\n",
        )
        .route("edge", "", &[backend.address()], "")
        .start();
    let agent = |name: &str, seconds| {
        let request = Request::client(&format!("spiffe://example.test/agent/{name}"));
        let agent = world.agents.issue(name, request.seconds(seconds));
        let client = world.client().credentials(&agent);
        client.connect(gateway.address()).unwrap()
    };
    let _connected = [agent("a", GOOD), agent("b", GOOD), agent("c", SIXTH)];
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
}
