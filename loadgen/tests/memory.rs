//! Memory per idle connection, measured on this very process as the server: so this test has a file, and with it a
//! process, of its own.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod support;

use loadgen::backend::{Backend, BackendKind};
use support::{Behind, Pki, run, serve};

#[test]
fn idle_connections_are_held_and_their_memory_is_measured() {
    let (pki, echo) = (
        Pki::new(4),
        Backend::start(BackendKind::Echo, "127.0.0.1:0".parse().unwrap()).unwrap(),
    );
    let address = serve(&pki, 2, Behind::Backend(echo.address()));
    let own_pid = std::process::id().to_string();
    let arguments = [
        "--connections",
        "300",
        "--threads",
        "2",
        "--for",
        "500ms",
        "--server-pid",
        &own_pid,
        "--echo-first",
    ];
    let run = run(&pki, "idle", address, &arguments);
    assert_eq!(run.code, 0, "{:#} {}", run.report, run.errors);
    assert_eq!(run.number("/completed"), 300.0);
    // The server is this test: a rustls connection, two sockets and copy buffers each.
    let kib = run.number("/server/kib_per_connection");
    assert!((4.0..1000.0).contains(&kib), "{kib}");
}
