//! Held connections and what they are revoked with, as programs: identities made on the spot, a journal of every
//! close, the way back with a ticket, and lists that OpenSSL reads.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadgen::backend::{Backend, BackendKind};
use support::{Behind, Pki, program, run_as, serve};

fn echo() -> Backend {
    Backend::start(BackendKind::Echo, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Arguments that make identities from the CA of the tests.
fn issued(pki: &Pki, count: &str) -> Vec<String> {
    [
        "--issue",
        count,
        "--authority",
        pki.path("ca.pem").to_str().unwrap(),
        "--authority-key",
        pki.path("ca.key").to_str().unwrap(),
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn held_connections_stay_beat_and_come_back_with_their_tickets() {
    let (pki, echo) = (Pki::new(0), echo());
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let journal = pki.path("journal");
    let mut arguments = issued(&pki, "20");
    let more = ["--connections", "20", "--for", "1s", "--beat", "50ms"];
    arguments.extend(more.map(str::to_owned));
    arguments.extend(["--come-back", "--journal", journal.to_str().unwrap()].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = run_as(&pki, "hold", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert_eq!(run.number("/identities"), 20.0);
    assert_eq!(run.number("/details/held to the end"), 20.0);
    assert_eq!(run.number("/details/came back resumed"), 20.0);
    // A second of beats is twenty of them; a slow machine leaves some out.
    assert!(run.number("/bytes_down") >= 20.0 * 16.0);
    let text = std::fs::read_to_string(&journal).unwrap();
    let returned = |name: &str| {
        text.lines()
            .any(|line| line.starts_with(&format!("returned {name} ")) && line.ends_with("resumed"))
    };
    assert!(returned("agent-1") && returned("agent-20"), "{text}");
    assert_eq!(text.lines().count(), 20);
}

#[test]
fn a_connection_that_is_cut_off_is_noted_with_its_name_and_the_moment() {
    let (pki, echo) = (Pki::new(0), echo());
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let journal = pki.path("journal");
    let mut child = hold(&pki, address, &journal);
    await_file(&journal, &mut child);
    let before = microseconds();
    drop(echo);
    let status = child.wait().unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(&journal).unwrap();
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!((words[0], words.len()), ("closed", 4), "{line}");
        let moment: u128 = words[2].parse().unwrap();
        assert!((before..=microseconds()).contains(&moment), "{line}");
        names.push(words[1]);
    }
    names.sort_unstable();
    assert_eq!(names, ["agent-1", "agent-2", "agent-3"]);
}

fn hold(pki: &Pki, address: SocketAddr, journal: &Path) -> Child {
    program()
        .args(["hold", "--target", &address.to_string()])
        .args(["--server-name", "localhost", "--ca"])
        .arg(pki.path("ca.pem"))
        .args(issued(pki, "3"))
        .args(["--connections", "3", "--for", "20s", "--journal"])
        .arg(journal)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The journal is made when all connections stand.
fn await_file(file: &Path, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        assert!(Instant::now() < deadline, "no journal");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn microseconds() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros()
}

#[test]
fn a_list_names_the_issued_identities_and_bears_the_signature_of_its_ca() {
    let pki = Pki::new(0);
    let out = pki.path("list.crl");
    let status = program()
        .arg("crl")
        .args(["--identities", "3", "--others", "500", "--authority"])
        .arg(pki.path("ca.pem"))
        .arg("--authority-key")
        .arg(pki.path("ca.key"))
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let output = Command::new("openssl")
        .args(["crl", "-inform", "DER", "-noout", "-text", "-CAfile"])
        .arg(pki.path("ca.pem"))
        .arg("-in")
        .arg(&out)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("verify OK"), "{said}");
    let serials: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Serial Number: "))
        .collect();
    assert_eq!(serials.len(), 503);
    assert_eq!(serials[..3], ["01", "02", "03"]);
}
