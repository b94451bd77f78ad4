//! One client's content fills the window of a connection that all clients of a backend share. In: uploads of which the server takes
//! nothing, or nothing for a while. Out: others are answered meanwhile on another connection, of which such uploads leave them a
//! part, and which ends when it is needed no more.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tests::{Gateway, Http2Client, HttpBackend, Reply, Speaks, Workspace, eventually};

use crate::load::{load, report};

/// Longer than a stall has to last before requests go elsewhere, for one of them.
const ATTEMPT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 10;

/// What the server takes at most on a connection of which it passes nothing on.
const WINDOW_BYTES: usize = 1 << 20;

/// What one client can hold of it beside a connection of which the server takes nothing.
const ONES: usize = WINDOW_BYTES / 8 * 5;

/// Content that fits into the share of another one, and content that does not.
const SMALL: usize = 7_000;
const LARGE: usize = 60_000;

/// Longer than it takes until others are answered.
const PAUSE: Duration = Duration::from_secs(20);

/// A backend that takes nothing of some content, or nothing for a while, and a gateway with one worker, whose clients share a
/// connection.
fn start(workspace: &Workspace) -> (HttpBackend, Gateway) {
    let backend = HttpBackend::over_mtls(workspace, 14317, Speaks::Http2, |request| {
        let reply = Reply::status(200);
        match request.path.as_str() {
            "/stall" => reply.unread().without_head().silence(),
            "/pause" => reply.after(PAUSE),
            _ => reply,
        }
    });
    let setup = workspace.setup().http().tables("[workers]\ncount = 1\n");
    let keys = workspace.backend_keys();
    let gateway = setup.route("edge", "", &[backend.address()], &keys).start();
    (backend, gateway)
}

/// An upload that fills so much of the window of a connection, counted from 0, and runs on.
fn upload(
    (workspace, gateway): (&Workspace, &Gateway),
    backend: &HttpBackend,
    path: &str,
    (connection, bytes): (usize, usize),
) -> Child {
    let arguments = format!("h2 --kind post --size 8MiB --count 1 --timeout 9m --path {path}");
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut command = load(workspace, gateway, &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let uploading = command.spawn().expect("the load starts");
    eventually("the upload fills what it may", || {
        let tapes = backend.tapes();
        let tape = tapes.get(connection)?;
        (tape.len() >= bytes).then_some(())
    });
    uploading
}

/// Waits until so many connections to the server stand.
fn await_connections(gateway: &Gateway, count: u64) {
    let name = "portcullis_backend_connections";
    eventually(&format!("{name} is {count}"), || {
        (gateway.metrics().count(name, &[]) == count).then_some(())
    });
}

/// Sends a request with content until one is answered, each of which is given up after a while. Returns how many were sent.
fn attempts_until_answered(workspace: &Workspace, gateway: &Gateway, bytes: usize) -> usize {
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/small"),
        (b":authority", b"gateway.test"),
        (b"content-type", b"text/plain"),
    ];
    let answered = (1..=ATTEMPTS).find(|_| {
        let mut client = Http2Client::connect(&workspace.client(), gateway.address());
        let stream = client.request(&fields, &vec![b'c'; bytes]);
        client.read_before(Instant::now() + ATTEMPT, |client| {
            client.so_far(stream).has_ended()
        });
        client.so_far(stream).status() == Some(200)
    });
    answered.expect("one of the requests is answered")
}

fn end(mut uploading: Child) {
    let still_runs = uploading.try_wait().expect("it is a child").is_none();
    uploading.kill().expect("it is a child");
    uploading.wait().expect("it is a child");
    assert!(still_runs, "the upload did not last");
}

/// The connections of the server on which requests for this path came.
fn connections(backend: &HttpBackend, path: &str) -> Vec<usize> {
    let requests = backend.requests().into_iter();
    let found = requests.filter(|request| request.path == path);
    found.map(|request| request.connection).collect()
}

#[test]
fn beside_an_upload_of_which_a_server_takes_nothing_requests_get_another_connection() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let of = (&workspace, &gateway);
    let uploading = upload(of, &backend, "/stall", (0, WINDOW_BYTES));
    attempts_until_answered(&workspace, &gateway, LARGE);
    end(uploading);
    assert_eq!(connections(&backend, "/stall"), [0]);
    assert_eq!(connections(&backend, "/small").last(), Some(&1));
}

#[test]
fn a_further_upload_of_which_a_server_takes_nothing_leaves_others_a_part_of_the_window() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let of = (&workspace, &gateway);
    let first = upload(of, &backend, "/stall", (0, WINDOW_BYTES));
    attempts_until_answered(&workspace, &gateway, LARGE);
    let second = upload(of, &backend, "/stall", (1, ONES));
    let attempts = attempts_until_answered(&workspace, &gateway, SMALL);
    end(first);
    end(second);
    assert_eq!(connections(&backend, "/stall"), [0, 1]);
    assert_eq!(attempts, 1);
}

#[test]
#[ignore = "long: two minutes"]
fn a_connection_made_beside_a_stalled_one_ends_when_it_is_needed_no_more() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let of = (&workspace, &gateway);
    let uploading = upload(of, &backend, "/pause", (0, WINDOW_BYTES));
    attempts_until_answered(&workspace, &gateway, LARGE);
    await_connections(&gateway, 2);
    let report = report(&uploading.wait_with_output().expect("the load ends"));
    assert_eq!(report["details"]["acknowledged"], 1, "{report:#}");
    // Longer than it may be idle.
    thread::sleep(Duration::from_secs(62));
    await_connections(&gateway, 1);
    attempts_until_answered(&workspace, &gateway, LARGE);
    let last = backend.requests().last().map(|request| request.connection);
    assert_eq!(
        last,
        Some(0),
        "the connection that was stalled is used again"
    );
}
