//! `portcullis demo`: what a newcomer runs first, in a network and with a temporary folder of its own.
//! In: no configuration. Out: exit code 0, refusals by reason, and nothing left behind, however it ended.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tests::{Process, eventually, program};

/// A shell in a network namespace with loopback up, in which `portcullis` is in the path.
fn shell(temporary: &Path, script: &str) -> Command {
    let programs = program("portcullis").parent().unwrap().to_owned();
    let mut path = vec![programs];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    path.push("/usr/sbin".into());
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c"])
        .arg(format!("ip link set lo up && {script}"))
        .env("PATH", env::join_paths(path).unwrap())
        .env("TMPDIR", temporary)
        .stdin(Stdio::null());
    command
}

fn assert_empty(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn the_demo_delivers_refuses_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let script = "portcullis demo --for 4s && ip -details link show lo";
    let output = shell(temporary.path(), script).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    for reason in ["no_certificate", "unknown_issuer"] {
        assert!(said.contains(reason), "{reason}: {said}");
    }
    // What an agent claims to be does not arrive, by either transport.
    for forger in [
        "shop, 0 as of another (finance was claimed)",
        "logistics, 0 as of another (shop was claimed)",
    ] {
        assert!(said.contains(forger), "{forger}: {said}");
    }
    assert!(
        said.contains("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
        "{said}"
    );
    // The kernel program is gone from the interface.
    let (_, link) = said.rsplit_once("LOOPBACK").unwrap();
    assert!(!link.contains("xdp"), "{link}");
    assert_empty(temporary.path());
}

#[test]
fn a_demo_without_privileges_says_in_its_summary_why_the_kernel_does_not_count() {
    let temporary = tempfile::tempdir().unwrap();
    let script = "setpriv --bounding-set=-all -- portcullis demo --for 2s";
    let output = shell(temporary.path(), script).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    let (_, summary) = said.rsplit_once("not counting: ").expect("a reason");
    assert!(summary.contains("CAP_BPF"), "{said}");
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let temporary = tempfile::tempdir().unwrap();
        let logs = tempfile::tempdir().unwrap();
        let mut command = shell(temporary.path(), "exec portcullis demo");
        let mut demo = Process::start(logs.path(), "demo", &mut command);
        eventually("the demo has made its folder", || {
            demo.expect_running();
            fs::read_dir(temporary.path()).unwrap().next().map(drop)
        });
        eventually("the demo shows what it does", || {
            demo.expect_running();
            demo.log()
                .contains("OTEL_EXPORTER_OTLP_ENDPOINT")
                .then_some(())
        });
        // The program itself: `unshare` and `sh` have made way for it.
        let id = Pid::from_raw(i32::try_from(demo.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        demo.wait();
        assert_empty(temporary.path());
    }
}
