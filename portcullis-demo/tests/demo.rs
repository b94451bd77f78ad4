//! The demo as its reader runs it: the program, from the outside, ended by time and by a signal.
//! In: nothing. Out: its last words and its exit code; and nothing left behind.

// Helpers of tests may do what tests may.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn demo(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_portcullis-demo"))
        .args(arguments)
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}

fn assert_good(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
    for expected in [
        "counted as no_certificate",
        "counted as unknown_issuer",
        "counted as not_authorized",
        "Every agent delivered, every impostor was refused.",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    assert!(!text.contains("FAILED  "), "{text}");
}

#[test]
fn agents_deliver_and_impostors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--for", "2s"])
        .wait_with_output()
        .unwrap();
    assert_good(&output);
    assert!(is_empty(folder.path()));
}

#[test]
fn two_demos_at_once_do_not_share_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let demos = [(); 2].map(|()| demo(folder.path(), &["--for", "2s"]));
    let outputs = demos.map(|demo| demo.wait_with_output().unwrap());
    for output in &outputs {
        assert_good(output);
    }
    let endpoints = outputs.map(|output| {
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.contains("_ENDPOINT="));
        line.unwrap().to_owned()
    });
    assert_ne!(endpoints[0], endpoints[1]);
}

#[test]
fn signals_end_the_demo_in_order() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = demo(folder.path(), &[]);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // Two status lines: the first is from the start, the second a second later.
        let mut text = String::new();
        while text.matches(" handshakes ").count() < 2 {
            assert_ne!(lines.read_line(&mut text).unwrap(), 0, "{text}");
        }
        assert!(!is_empty(folder.path()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        lines.read_to_string(&mut text).unwrap();
        let mut output = child.wait_with_output().unwrap();
        output.stdout = text.into_bytes();
        assert_good(&output);
        assert!(is_empty(folder.path()), "{signal:?}");
    }
}

#[test]
fn reader_that_goes_away_ends_the_demo_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(folder.path(), &["--for", "60s"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(is_empty(folder.path()));
}
