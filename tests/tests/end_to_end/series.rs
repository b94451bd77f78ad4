//! Which series the metrics page has. In: gateways configured with little and with more. Out: the page has what can happen on the
//! configuration, at zero, and nothing else; servers of a backend are told apart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use tests::{Backend, Behaviour, Gateway, RevocationList, Workspace, eventually};

const ENDED: &str = "portcullis_connections_ended_total";
const FAILURES: &str = "portcullis_handshake_failures_total";
const CONNECT_FAILURES: &str = "portcullis_backend_connect_failures_total";

fn reasons(gateway: &Gateway, metric: &str) -> BTreeSet<String> {
    let (_, page) = gateway.admin("/metrics").unwrap();
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")));
    let reason = |line: &str| {
        let (_, rest) = line.split_once("reason=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    lines.map(reason).collect()
}

#[test]
fn what_cannot_happen_has_no_series_and_what_can_has_one_from_the_start() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let failures = reasons(&gateway, FAILURES);
    for impossible in ["revoked", "crl_stale", "banned", "alpn"] {
        assert!(!failures.contains(impossible), "{impossible}");
    }
    for possible in [
        "no_certificate",
        "expired",
        "blocked",
        "not_authorized",
        "internal",
    ] {
        assert!(failures.contains(possible), "{possible} of {failures:?}");
    }
    let ends = reasons(&gateway, ENDED);
    for impossible in [
        "age",
        "expiring",
        "revoked",
        "backend_truncated",
        "backend_revoked",
    ] {
        assert!(!ends.contains(impossible), "{impossible}");
    }
    for possible in ["finished", "backend_reset", "blocked", "internal"] {
        assert!(ends.contains(possible), "{possible} of {ends:?}");
    }
    // A list makes them possible.
    let list = workspace.agents.revoke("agents", &RevocationList::of(&[]));
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("client_ca =", &format!("crl = [{list:?}]\nclient_ca ="));
    fs::write(&file, text).unwrap();
    gateway.process().signal(Signal::HUP);
    eventually("the list's reasons have their series", || {
        let failures = reasons(&gateway, FAILURES);
        ["revoked", "crl_stale"]
            .iter()
            .all(|reason| failures.contains(*reason))
            .then_some(())
    });
}

/// An alert on a counter that is not there yet misses its first increase.
#[test]
fn series_that_alerts_name_are_there_before_anything_happens() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = workspace.agents.revoke("agents", &RevocationList::of(&[]));
    let listener = format!("crl = [{list:?}]");
    let setup = workspace
        .setup()
        .route("edge", &listener, &[backend.address()], "");
    let gateway = setup.start();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts.yml");
    let rules = fs::read_to_string(rules).unwrap();
    let mut looked_at = 0;
    for metric in [FAILURES, ENDED] {
        let known = reasons(&gateway, metric);
        for selector in rules.split(&format!("{metric}{{")).skip(1) {
            let selector = selector.split('}').next().unwrap();
            let Some((_, wanted)) = selector.split_once("reason=\"") else {
                continue;
            };
            let wanted = wanted.split('"').next().unwrap();
            assert!(known.contains(wanted), "{metric} {wanted}");
            looked_at += 1;
        }
    }
    assert!(looked_at >= 3, "{looked_at}");
    for counter in [
        "portcullis_backend_unreachable_total",
        CONNECT_FAILURES,
        "portcullis_log_dropped_total",
        "portcullis_audit_dropped_total",
        "portcullis_crl_load_errors_total",
    ] {
        assert!(gateway.metrics().has(counter, &[]), "{counter}");
    }
}

#[test]
fn servers_of_a_backend_are_told_apart_as_they_are_written() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let (broken, good) = (workspace.host.free(), backend.address());
    let setup = workspace.setup().tables("[workers]\ncount = 1");
    let gateway = setup.route("edge", "", &[broken, good], "").start();
    let [broken, good] = [broken, good].map(|server| server.to_string());
    let failures = |server: &str| {
        let labels = [("backend", "edge"), ("server", server)];
        let metrics = gateway.metrics();
        assert!(metrics.has(CONNECT_FAILURES, &labels), "{server}");
        metrics.count(CONNECT_FAILURES, &labels)
    };
    assert_eq!((failures(&broken), failures(&good)), (0, 0));
    // Both are tried in turn, whichever comes first.
    for _ in 0..4 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
    }
    eventually("the broken one is counted", || {
        (failures(&broken) > 0).then_some(())
    });
    assert_eq!(failures(&good), 0);
}
