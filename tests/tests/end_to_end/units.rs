//! The units of `deploy`: what systemd says of them, and what their commands do. In: the files as they are shipped, with the program
//! of the test. Out: no complaint; a newer list, another key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::program;

const UNITS: [&str; 5] = [
    "portcullis.service",
    "portcullis-crl.service",
    "portcullis-crl.timer",
    "portcullis-keys.service",
    "portcullis-keys.timer",
];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A unit's text, with the program where this test has it.
fn text(name: &str) -> String {
    let text = fs::read_to_string(deploy().join(name)).unwrap();
    text.replace(
        "/usr/bin/portcullis",
        &program("portcullis").display().to_string(),
    )
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_the_guards_addition() {
    let known: Vec<_> = fs::read_dir(deploy())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let is_unit = |name: &str| name.ends_with(".service") || name.ends_with(".timer");
    let shipped = known.iter().filter(|name| is_unit(name.to_str().unwrap()));
    assert_eq!(shipped.count(), UNITS.len(), "each is looked at");
    for with_guard in [false, true] {
        let folder = TempDir::new().unwrap();
        for name in UNITS {
            fs::write(folder.path().join(name), text(name)).unwrap();
        }
        if with_guard {
            let addition = folder.path().join("portcullis.service.d");
            fs::create_dir(&addition).unwrap();
            fs::write(addition.join("guard.conf"), text("portcullis-guard.conf")).unwrap();
        }
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .args(UNITS.map(|name| folder.path().join(name)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let ours = said.lines().find(|line| line.contains("portcullis"));
        assert_eq!(ours, None, "{said}");
        assert!(output.status.success(), "{said}");
    }
}

/// Runs the commands of a service one after the other, with its variables at other values.
fn run(unit: &str, variables: &[(&str, &Path)]) {
    let text = text(unit);
    let commands = text
        .lines()
        .filter_map(|line| line.strip_prefix("ExecStart="));
    let commands: Vec<_> = commands.collect();
    assert!(!commands.is_empty(), "{text}");
    for (name, _) in variables {
        assert!(text.contains(&format!("{name}=")), "{name} in {text}");
    }
    for command in commands {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        for (name, value) in variables {
            shell.env(name, value);
        }
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

#[test]
fn the_timers_make_a_newer_list_and_another_key() {
    let folder = TempDir::new().unwrap();
    let authority = folder.path().join("pki");
    let made = Command::new(program("portcullis"))
        .args(["pki", "init", "--directory"])
        .arg(&authority)
        .status();
    assert!(made.unwrap().success());
    let list = folder.path().join("agents.crl.pem");
    let number = || {
        let printed = Command::new("openssl")
            .args(["crl", "-noout", "-crlnumber", "-in"])
            .arg(&list)
            .output()
            .unwrap();
        String::from_utf8(printed.stdout).unwrap()
    };
    let publish = || {
        run(
            "portcullis-crl.service",
            &[("AUTHORITY", &authority), ("LIST", &list)],
        )
    };
    publish();
    let before = number();
    assert!(before.starts_with("crlNumber="), "{before}");
    publish();
    assert_ne!(number(), before);

    let keys = folder.path().join("tickets.keys");
    let rotate = || {
        run("portcullis-keys.service", &[("KEYS", &keys)]);
        fs::read(&keys).unwrap()
    };
    assert_ne!(rotate(), rotate());
}
