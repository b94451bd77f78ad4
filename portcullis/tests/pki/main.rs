//! The small authority, as a user meets it: through the binary, and verified by OpenSSL, which nobody here wrote.
//! In: temporary directories. Out: nothing is left behind.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

mod foreign;
mod issuing;
mod renewal;
mod requests;
mod revocation;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use gateway_pki::{Profile, Request};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn portcullis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs `portcullis pki` in `directory`, which must succeed.
fn pki(directory: &Path, arguments: &[&str]) -> String {
    let directory = directory.to_str().unwrap();
    let output = portcullis(&[&["pki"], arguments, &["--directory", directory]].concat());
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `portcullis pki` in `directory`, which must fail.
fn pki_refused(directory: &Path, arguments: &[&str]) -> String {
    pki_ends(1, directory, arguments)
}

/// Runs `portcullis pki` in `directory`, which must fail with this exit code. What it said.
fn pki_ends(code: i32, directory: &Path, arguments: &[&str]) -> String {
    let directory = directory.to_str().unwrap();
    let output = portcullis(&[&["pki"], arguments, &["--directory", directory]].concat());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let mut parts: Vec<_> = said.trim().split(": ").collect();
    parts.sort_unstable();
    let all = parts.len();
    parts.dedup();
    assert_eq!(parts.len(), all, "nothing is said twice: {said}");
    said
}

/// What `openssl verify` says of NAME.pem for a purpose, with the chain that stands in the file.
fn openssl_verifies(directory: &Path, name: &str, purpose: &str) -> bool {
    let certificate = directory.join(format!("{name}.pem"));
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
        .arg(directory.join("ca.pem"))
        .arg("-untrusted")
        .arg(&certificate)
        .arg(&certificate)
        .output()
        .expect("the openssl command runs");
    output.status.success()
}

fn request(name: &str, profile: Profile) -> Request {
    Request {
        name: name.to_owned(),
        profile,
        uris: Vec::new(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: DAY,
        not_before: None,
    }
}

fn file_names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Runs `openssl` in `directory`: whether it succeeded, and everything it said.
fn openssl(directory: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("the openssl command runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// A request made by OpenSSL: `key` are the arguments that choose its key, `extensions` what it asks for.
fn request_by_openssl(directory: &Path, name: &str, key: &str, extensions: &[&str]) {
    let arguments =
        format!("req -new -nodes {key} -keyout {name}.key -out {name}.csr -subj /CN={name}");
    let asked = extensions
        .iter()
        .flat_map(|extension| ["-addext", extension]);
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .args(asked)
        .current_dir(directory)
        .output()
        .expect("the openssl command runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
}

const P256: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

/// What OpenSSL says of one field of a certificate.
fn field(directory: &Path, certificate: &str, option: &str) -> String {
    let (read, said) = openssl(
        directory,
        &format!("x509 -noout {option} -in {certificate}"),
    );
    assert!(read, "{said}");
    said
}

/// The serial number of a certificate, in OpenSSL's capitals.
fn serial(directory: &Path, certificate: &str) -> String {
    let said = field(directory, certificate, "-serial");
    said.trim().rsplit_once('=').unwrap().1.to_owned()
}

/// The line of `pki list` on a file.
fn listed(directory: &Path, file: &str) -> String {
    let list = pki(directory, &["list"]);
    let mut lines = list.lines();
    lines
        .find(|line| line.starts_with(&format!(" {file}")))
        .unwrap()
        .to_owned()
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = portcullis(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        for command in ["check", "pki", "completions"] {
            assert!(script.contains(command), "{command} in the {shell} script");
        }
    }
}
