//! Clients' content fills the window of a connection that all clients of a backend share. In: uploads of which the server takes
//! nothing, or nothing for a while. Out: others are answered meanwhile: beside one of them on the same connection, beside many on
//! another one, which ends when it is needed no more.

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

/// What one client can hold of it.
const HALF: usize = WINDOW_BYTES / 2;

/// So many clients hold nearly all of it together: enough for the connection to count as stalled.
const MANY: usize = 64;
const NEARLY_ALL: usize = WINDOW_BYTES - WINDOW_BYTES / 32;

/// Content that does not fit into what they leave.
const CONTENT: &[u8] = &[b'c'; 7_000];

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

/// Uploads of so many clients, until a connection of the server has got so many bytes. They run on.
fn uploads(
    (workspace, gateway, backend): (&Workspace, &Gateway, &HttpBackend),
    path: &str,
    (clients, bytes): (usize, usize),
) -> Child {
    let arguments = format!(
        "h2 --kind post --size 1MiB --connections {clients} --count {clients} --timeout 9m --path {path}"
    );
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut command = load(workspace, gateway, &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let uploading = command.spawn().expect("the load starts");
    eventually("the uploads fill what they may", || {
        let tapes = backend.tapes();
        tapes.iter().any(|tape| tape.len() >= bytes).then_some(())
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
fn attempts_until_answered(workspace: &Workspace, gateway: &Gateway) -> usize {
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/small"),
        (b":authority", b"gateway.test"),
        (b"content-type", b"text/plain"),
    ];
    let answered = (1..=ATTEMPTS).find(|_| {
        let mut client = Http2Client::connect(&workspace.client(), gateway.address());
        let stream = client.request(&fields, CONTENT);
        client.read_before(Instant::now() + ATTEMPT, |client| {
            client.so_far(stream).has_ended()
        });
        client.so_far(stream).status() == Some(200)
    });
    answered.expect("one of the requests is answered")
}

/// Has others send requests beside uploads of which the server takes nothing. Returns how many they sent until one was answered, and
/// on which connection of the server that was.
fn beside_uploads(uploads_of: (usize, usize)) -> (usize, usize) {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let all = (&workspace, &gateway, &backend);
    let mut uploading = uploads(all, "/stall", uploads_of);
    let attempts = attempts_until_answered(&workspace, &gateway);
    let still_runs = uploading.try_wait().expect("it is a child").is_none();
    uploading.kill().expect("it is a child");
    uploading.wait().expect("it is a child");
    assert!(still_runs, "the uploads did not last");
    let requests = backend.requests();
    let of = |path: &str| {
        let found = requests.iter().rfind(|request| request.path == path);
        found.map(|request| request.connection)
    };
    assert_eq!(of("/stall"), Some(0));
    (attempts, of("/small").expect("it was answered"))
}

#[test]
fn an_upload_of_which_a_server_takes_nothing_leaves_others_half_of_the_window() {
    assert_eq!(beside_uploads((1, HALF)), (1, 0));
}

#[test]
fn many_uploads_of_which_a_server_takes_nothing_leave_others_a_connection() {
    let (attempts, connection) = beside_uploads((MANY, NEARLY_ALL));
    // The first ones may come before the connection counts as stalled.
    assert!(attempts > 1);
    assert_eq!(connection, 1);
}

#[test]
#[ignore = "long: two minutes"]
fn a_connection_made_beside_a_stalled_one_ends_when_it_is_needed_no_more() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let uploading = uploads(
        (&workspace, &gateway, &backend),
        "/pause",
        (MANY, NEARLY_ALL),
    );
    attempts_until_answered(&workspace, &gateway);
    await_connections(&gateway, 2);
    let report = report(&uploading.wait_with_output().expect("the load ends"));
    assert_eq!(report["details"]["acknowledged"], MANY, "{report:#}");
    // Longer than it may be idle.
    thread::sleep(Duration::from_secs(62));
    await_connections(&gateway, 1);
    attempts_until_answered(&workspace, &gateway);
    let last = backend.requests().last().map(|request| request.connection);
    assert_eq!(
        last,
        Some(0),
        "the connection that was stalled is used again"
    );
}
