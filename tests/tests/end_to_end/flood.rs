//! Floods from the bundled load generator: whatever it reports as sent, the gateway has counted, each under its reason.
//! In: kinds of attack at small numbers, agents at the same time. Out: equal counts on both sides, and agents served.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tests::{Backend, Behaviour, Gateway, Workspace, program};

const FAILURES: &str = "portcullis_handshake_failures_total";

fn flood(gateway: &Gateway, kinds: &[&str], count: u64) -> Command {
    let mut command = Command::new(program("portcullis-loadgen"));
    command
        .arg("flood")
        .args(kinds)
        .args(["--target", &gateway.address().to_string()])
        .args(["--server-name", "gateway.test", "--json"])
        .args(["--sources", "127.0.0.2-127.0.0.20"])
        .args(["--rate", "200", "--count", &count.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

fn gateway(workspace: &Workspace, backend: &Backend) -> Gateway {
    workspace
        .setup()
        .route(
            "edge",
            // Long enough for the handshakes of a busy machine, and the load generator waits longer.
            "handshake_timeout = \"3s\"",
            &[backend.address()],
            "",
        )
        .start()
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let owned = pairs
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count));
    owned.collect()
}

/// The sum of all outcomes, and of those named.
fn ended(attempts: &Value, names: &[&str]) -> (u64, u64) {
    let outcomes = attempts["outcomes"].as_object().unwrap();
    let sum = |wanted: &dyn Fn(&str) -> bool| {
        let matching = outcomes.iter().filter(|(name, _)| wanted(name));
        matching.map(|(_, count)| count.as_u64().unwrap()).sum()
    };
    (sum(&|_| true), sum(&|name| names.contains(&name)))
}

#[test]
fn each_attempt_of_each_kind_is_counted_once_under_its_reason() {
    // A server that closes while a byte is under way resets the connection: where we speak last, either may come.
    type Case<'a> = (&'a str, &'a [(&'a str, u64)], &'a [&'a str]);
    let cases: [Case<'_>; 5] = [
        ("idle", &[("timeout", 60)], &["closed", "reset"]),
        (
            "junk",
            &[("not_tls", 60)],
            // A plain HTTP request is answered in its own language before the close.
            &["alert_unexpected_message", "closed", "reset"],
        ),
        ("slow", &[("timeout", 60)], &["closed", "reset"]),
        (
            "half",
            &[("reset", 30), ("timeout", 30)],
            &["left", "closed"],
        ),
        ("badcert", &[("unknown_issuer", 60)], &["alert_unknown_ca"]),
    ];
    for (kind, reasons, outcomes) in cases {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        let gateway = gateway(&workspace, &backend);
        let report = report(&flood(&gateway, &[kind], 60).output().unwrap());
        let attempts = &report["flood"]["kinds"][kind];
        assert_eq!(attempts["made"], 60, "{report:#}");
        assert_eq!(attempts["connected"], 60, "{report:#}");
        assert_eq!(ended(attempts, outcomes), (60, 60), "{report:#}");
        if kind == "half" {
            assert_eq!(attempts["outcomes"]["left"], 30, "{report:#}");
        }

        let metrics = gateway.wait_for(FAILURES, &[("listener", "edge")], 60);
        assert_eq!(
            metrics.by_label(FAILURES, "reason"),
            counts(reasons),
            "{kind}"
        );
        assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 0);
        assert!(backend.connections().is_empty(), "{kind}");
    }
}

#[test]
fn agents_are_served_in_the_middle_of_a_flood_of_all_kinds_and_nobody_is_counted_twice() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(&workspace, &backend);
    let kinds = ["idle", "junk", "slow", "half", "badcert"];
    let flooding = flood(&gateway, &kinds, 500).spawn().unwrap();
    let agents = Command::new(program("portcullis-loadgen"))
        .args(["handshake", "--confirm", "echo", "--json"])
        .args(["--target", &gateway.address().to_string()])
        .args(["--server-name", "gateway.test"])
        .arg("--ca")
        .arg(workspace.gateways.certificate())
        .arg("--certificate")
        .arg(&workspace.agent.certificate)
        .arg("--key")
        .arg(&workspace.agent.key)
        .args(["--rate", "40", "--count", "100", "--connections", "8"])
        .output()
        .unwrap();
    let served = report(&agents);
    assert_eq!(served["completed"], 100, "{served:#}");
    assert_eq!(served["failed"], 0, "{served:#}");

    let flooded = report(&flooding.wait_with_output().unwrap());
    for kind in kinds {
        let attempts = &flooded["flood"]["kinds"][kind];
        assert_eq!(attempts["made"], 100, "{flooded:#}");
        assert_eq!(attempts["connected"], 100, "{flooded:#}");
    }
    let metrics = gateway.wait_for(FAILURES, &[], 500);
    let expected = [
        ("timeout", 250),
        ("not_tls", 100),
        ("reset", 50),
        ("unknown_issuer", 100),
    ];
    assert_eq!(metrics.by_label(FAILURES, "reason"), counts(&expected));
    assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 100);
}
