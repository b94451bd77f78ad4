//! Tidy rules about dependencies: what a crate may use at all, and the versions that were chosen for a reason.
//! In: the manifests, Cargo.lock and cargo's own resolution of features. Out: complaints by crate.

use std::collections::BTreeSet;

use super::{assert_none, read};
use command::cargo;

/// Crates whose walls matter most, with everything they may use outside their tests.
const STRICT: [(&str, &[&str]); 5] = [
    // Decisions without I/O, clock or runtime. Of `gateway-common` the arithmetic of debts and bans, so that it stands
    // once for kernel and user space; of `ipnet` the networks of the operators' lists.
    (
        "gateway-core",
        &["gateway-common", "ipnet", "postcard", "serde", "thiserror"],
    ),
    // Compiled for the kernel as well.
    ("gateway-common", &[]),
    // What runs in the kernel.
    (
        "gateway-ebpf",
        &["aya-ebpf", "aya-log-ebpf", "gateway-common"],
    ),
    // Words and figures into a page: no files, no sockets, no clock.
    ("report", &["maud", "plotters"]),
    // What the tools share: starting programs, and nothing that is only for one of them.
    ("command", &["anyhow"]),
];

/// What a crate must never use, and why.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    // No peer certificates and more memory; a fork of h2 from 2023; another runtime beside the workers'.
    (
        "gateway",
        &["loadgen", "monoio-rustls", "monoio-http", "tests", "xtask"],
    ),
    // The runtime's edges, the kernel's side and the authority end in crates of their own.
    ("gateway", &["aya", "aya-log", "io-uring", "libc", "rcgen"]),
    // Its figures would be worth nothing if it shared code with what it measures.
    ("loadgen", &["gateway", "gateway-core", "monoio"]),
    // The tests make their own certificates and read the gateway from outside.
    ("tests", &["gateway-core"]),
    // It measures built programs from outside, as a user would.
    (
        "comparison",
        &[
            "gateway",
            "gateway-core",
            "loadgen",
            "tests",
            "tokio",
            "xtask",
        ],
    ),
    // Built before anything else is: what measures, draws or serves has crates of its own.
    (
        "xtask",
        &[
            "comparison",
            "gateway",
            "gateway-core",
            "loadgen",
            "plotters",
            "report",
            "tests",
            "tokio",
        ],
    ),
];

/// The package of the program that serves.
const SERVING: &str = "portcullis";

/// What that package must not link, not even through another one: the load generator, floods included, and what only it or
/// the tools need.
const NEVER_SERVED: [&str; 8] = [
    "axum",
    "comparison",
    "loadgen",
    "plotters",
    "portcullis-demo",
    "report",
    "tests",
    "tonic",
];

/// Exact versions: the rules of gateway-rt and the kernel program's object were found with these.
const EXACT: [(&str, &str); 4] = [
    ("monoio", "0.2.4"),
    ("io-uring", "0.6.4"),
    ("aya", "0.14.0"),
    // Reads a format that aya-log-ebpf writes, and that no version number stands in.
    ("aya-log", "0.3.0"),
];

#[test]
fn strict_crates_use_only_what_the_table_allows() {
    let mut complaints = Vec::new();
    for (name, allowed) in STRICT {
        for dependency in dependencies(name) {
            if !allowed.contains(&dependency.as_str()) {
                complaints.push(format!("{name} uses {dependency}"));
            }
        }
    }
    assert_none("a crate is a wall", &complaints);
}

#[test]
fn no_crate_uses_what_it_is_forbidden() {
    let mut complaints = Vec::new();
    for (name, forbidden) in FORBIDDEN {
        for dependency in dependencies(name) {
            if forbidden.contains(&dependency.as_str()) {
                complaints.push(format!("{name} uses {dependency}"));
            }
        }
    }
    assert_none("a crate is a wall", &complaints);
}

#[test]
fn the_program_that_serves_links_nothing_of_the_load_generator() {
    let output = cargo()
        .args(["tree", "--package", SERVING, "--edges", "normal"])
        .args(["--prefix", "none", "--locked", "--offline"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(packages.contains("rustls"), "{SERVING} links {packages:?}");
    let complaints: Vec<String> = NEVER_SERVED
        .iter()
        .filter(|name| packages.contains(*name))
        .map(|name| format!("{SERVING} links {name}"))
        .collect();
    assert_none("what serves does not attack", &complaints);
}

/// Names below `[dependencies]` and `[target.*.dependencies]`.
pub fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest: toml::Table = toml::from_str(&read(&format!("{name}/Cargo.toml"))).unwrap();
    let mut tables = vec![manifest.get("dependencies")];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().map(|target| target.get("dependencies")));
    }
    tables
        .into_iter()
        .flatten()
        .flat_map(|table| table.as_table().unwrap().keys().cloned())
        .collect()
}

#[test]
fn pinned_versions_are_the_ones_in_the_lock_file() {
    let lock: toml::Table = toml::from_str(&read("Cargo.lock")).unwrap();
    let versions = |name: &str| -> Vec<String> {
        let packages = lock["package"].as_array().unwrap();
        packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .map(|package| package["version"].as_str().unwrap().to_owned())
            .collect()
    };
    for (name, version) in EXACT {
        assert_eq!(versions(name), [version], "{name}");
    }
    // RUSTSEC-2026-0285 is in everything older.
    assert_not_older(&versions("rustls"), &[0, 23, 45]);
    assert_not_older(&versions("rustls-webpki"), &[0, 103, 16]);
    assert_not_older(&versions("ring"), &[0, 17, 14]);
}

fn assert_not_older(versions: &[String], oldest: &[u64]) {
    assert!(!versions.is_empty());
    for version in versions {
        let numbers: Vec<u64> = version
            .split('.')
            .map(|number| {
                number
                    .parse()
                    .unwrap_or_else(|_| panic!("{version} is not a release"))
            })
            .collect();
        assert!(
            numbers.as_slice() >= oldest,
            "{version} is older than {oldest:?}"
        );
    }
}

#[test]
fn tls_1_2_is_not_even_compiled() {
    let mut command = cargo();
    let output = command
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = 0;
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let id = node["id"].as_str().unwrap();
        let features: Vec<&str> = node["features"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|feature| feature.as_str())
            .collect();
        if id.contains("#rustls@") || id.contains("#tokio-rustls@") {
            seen += 1;
            assert!(!features.contains(&"tls12"), "{id}: {features:?}");
        }
    }
    assert_eq!(seen, 2, "rustls and tokio-rustls, once each");
}
