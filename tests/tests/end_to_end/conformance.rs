//! Other people's tools for breaking TLS, and what they get: the lists of `docs/tls-conformance.md`, case by case.
//! In: tlslite-ng and sslyze. Out: the answer that stands there, and no connection at the backend.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::{Backend, Behaviour, Gateway, Workspace, client_script, eventually, python};

/// First and second column of the table below a heading of the page; one column counts as two equal ones.
fn documented(heading: &str) -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tls-conformance.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    // Its head, and the line below that.
    rows.skip(2)
        .map(|row| {
            let mut columns = row.split('|').map(|column| column.trim().to_owned());
            let case = columns.next().unwrap();
            (case, columns.next().unwrap())
        })
        .collect()
}

/// Runs cases of the tlslite-ng client, all of them without any; case and answer.
fn tlslite(workspace: &Workspace, gateway: &Gateway, cases: &[&str]) -> BTreeMap<String, String> {
    let address = gateway.address();
    let output = Command::new(python())
        .arg(client_script("python/tlslite_client.py"))
        .arg(address.ip().to_string())
        .arg(address.port().to_string())
        .arg(&workspace.agent.certificate)
        .arg(&workspace.agent.key)
        .args(cases)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let outcomes = lines.lines().map(|line| {
        let said: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        (text("case"), text("outcome"))
    });
    outcomes.collect()
}

#[test]
fn what_breaks_nothing_gets_every_byte_and_what_is_refused_gets_the_answer_that_is_documented() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let stretched = documented("What breaks nothing");
    let broken = documented("What is refused");
    assert!(stretched.len() > 10 && broken.len() > 50);

    let outcomes = tlslite(&workspace, &gateway, &[]);
    let expected: BTreeMap<_, _> = stretched
        .keys()
        .map(|case| (case.clone(), "echo".to_owned()))
        .chain(broken.clone())
        .collect();
    assert_eq!(outcomes, expected);
    // Those that got their bytes back, and nobody else, were seen by the backend.
    let connections = backend.connections();
    assert_eq!(connections.len(), stretched.len());
    assert!(connections.iter().all(|one| one.bytes.len() == 60_000));
    let failures = "portcullis_handshake_failures_total";
    // The client tries a case again whose answer it has not seen, and each try counts.
    eventually("each that is refused is counted", || {
        let counted = gateway.metrics().count(failures, &[]);
        (counted >= broken.len() as u64).then_some(())
    });
}

fn names<'a>(list: &'a Value, name: impl Fn(&'a Value) -> &'a Value) -> Vec<&'a str> {
    let mut names: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| name(one).as_str().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// All that it has, but for those that `docs/tls-conformance.md` skips.
const SCANS: [&str; 13] = [
    "--sslv2",
    "--sslv3",
    "--tlsv1",
    "--tlsv1_1",
    "--tlsv1_2",
    "--tlsv1_3",
    "--elliptic_curves",
    "--early_data",
    "--compression",
    "--reneg",
    "--heartbleed",
    "--openssl_ccs",
    "--robot",
];

#[test]
fn sslyze_finds_what_is_configured_and_nothing_else() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let report = workspace.folder().join("sslyze.json");
    let output = Command::new(python())
        .args(["-m", "sslyze", "--quiet", "--sni", "gateway.test"])
        .args(["--mozilla_config", "disable"])
        .args(SCANS)
        .arg("--cert")
        .arg(&workspace.agent.certificate)
        .arg("--key")
        .arg(&workspace.agent.key)
        .arg("--json_out")
        .arg(&report)
        .arg(gateway.address().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    let scans = &report["server_scan_results"][0]["scan_result"];
    let result = |scan: &str| {
        assert_eq!(scans[scan]["status"], "COMPLETED", "{scan}");
        &scans[scan]["result"]
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2"] {
        let result = result(&format!("{old}_cipher_suites"));
        assert_eq!(result["is_tls_version_supported"], false, "{old}");
        assert_eq!(result["accepted_cipher_suites"], Value::Array(Vec::new()));
        assert!(result["rejected_cipher_suites"].as_array().unwrap().len() > 5);
    }
    let suites = &result("tls_1_3_cipher_suites")["accepted_cipher_suites"];
    let suites = names(suites, |suite| &suite["cipher_suite"]["name"]);
    let expected = [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ];
    assert_eq!(suites, expected);
    let groups = &result("elliptic_curves")["supported_curves"];
    let groups = names(groups, |group| &group["name"]);
    assert_eq!(groups, ["X25519", "secp256r1", "secp384r1"]);
    let not_so = [
        ("tls_1_3_early_data", "supports_early_data"),
        ("tls_compression", "supports_compression"),
        (
            "session_renegotiation",
            "is_vulnerable_to_client_renegotiation_dos",
        ),
        ("heartbleed", "is_vulnerable_to_heartbleed"),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"),
    ];
    for (scan, finding) in not_so {
        assert_eq!(result(scan)[finding], false, "{finding}");
    }
    let robot = &result("robot")["robot_result"];
    assert_eq!(robot, "NOT_VULNERABLE_RSA_NOT_SUPPORTED");
}
