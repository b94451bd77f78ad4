//! A wall clock that is set while the gateway runs.
//! In: a gateway whose clock the test sets (`clock.c`). Out: connections that end with their certificate by the clock as it is.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Backend, Behaviour, Closing, Request, World};

/// Compiles the clock into a folder.
fn clock(folder: &Path) -> PathBuf {
    let library = folder.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/clock.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
    let output = compiler.arg(&library).arg(&source).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    library
}

fn set(offset: &Path, seconds: i64) {
    // In place and never empty: the gateway has it mapped.
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(offset);
    file.unwrap().write_all(&seconds.to_ne_bytes()).unwrap();
}

#[test]
fn a_connection_ends_with_its_certificate_although_the_clock_jumps_there() {
    let world = World::new();
    let backend = Backend::start(Behaviour::Echo);
    let library = clock(world.folder());
    let offset = world.folder().join("offset");
    set(&offset, 0);
    let preload = format!("LD_PRELOAD={}", library.display());
    let file = format!("CLOCK_OFFSET={}", offset.display());
    let gateway = world
        .setup()
        .under(&["env", &preload, &file])
        .route("edge", "", &[backend.address()], "")
        .start();
    let request = Request::client("spiffe://example.test/agent/short").seconds(3600);
    let short = world.agents.issue("short", request);
    let connect = |credentials| {
        let client = world.client().credentials(credentials);
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
        client
    };
    let mut ends = connect(&short);
    let mut stays = connect(&world.agent);
    set(&offset, 3700);
    assert_ne!(ends.receive_to_end().1, Closing::CloseNotify);
    let labels = [("listener", "edge"), ("reason", "expired")];
    gateway.wait_for("portcullis_connections_ended_total", &labels, 1);
    stays.send(b"ping").unwrap();
    assert_eq!(stays.receive(4).unwrap(), b"ping");
}
