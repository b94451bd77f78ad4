//! The tour of the README, command by command as it stands there.
//! In: the page's own text. Out: a shell that ran it in an empty folder, and what the reader is told to expect.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{program, python};

/// The marked blocks of a page, one after the other.
fn tour() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = text
        .split("<!-- tour -->\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    assert_eq!(blocks.len(), 6, "the tour has six steps");
    blocks.concat()
}

#[test]
fn the_tour_works_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    // The reader made this environment with two commands that need a network.
    let environment = python().parent().unwrap().parent().unwrap().to_owned();
    symlink(environment, folder.path().join("sdk")).unwrap();
    let script = format!("set -eu\nip link set lo up\n{}", tour());

    let programs = program("portcullis").parent().unwrap().to_owned();
    let mut path = vec![programs];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    path.push("/usr/sbin".into());
    // The tour's ports are the standard ones: a network of its own keeps them free, and a process namespace ends
    // what the tour left in the background.
    let output = Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", env::join_paths(path).unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{said}\n{errors}",
        output.status
    );
    assert!(said.contains("\"spans\": 100"), "{said}\n{errors}");
    assert!(
        said.contains("alert certificate required"),
        "{said}\n{errors}"
    );
    let refused =
        "portcullis_handshake_failures_total{listener=\"otlp-grpc\",reason=\"no_certificate\"} 1";
    assert!(said.contains(refused), "{said}\n{errors}");
    for told in ["\"tenant\": \"team-a\"", "REFUSED: 403", "exit code 1"] {
        assert!(said.contains(told), "{told}\n{said}\n{errors}");
    }
}
