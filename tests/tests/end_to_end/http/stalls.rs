//! One client's content fills its part of the window of a connection that all clients of a backend share. In: an upload of which
//! the server takes nothing, or nothing for a while; a server that gives credit late. Out: others are answered meanwhile: what is
//! small at once, what is larger on another connection, which ends when it is needed no more.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tests::{
    Gateway, Http2Client, HttpBackend, PREFACE, Reply, Speaks, Workspace, eventually, flag, frame,
    frame_type, headers, settings, take_frame, window_update,
};

use crate::load::{load, report};

/// Longer than a stall has to last before requests go elsewhere, for one of them.
const ATTEMPT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 10;

/// What the server takes at most on a connection of which it passes nothing on.
const WINDOW_BYTES: usize = 1 << 20;

/// What one client can hold of it.
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

/// An upload that fills what one client may, and runs on.
fn upload(workspace: &Workspace, gateway: &Gateway, backend: &HttpBackend, path: &str) -> Child {
    let arguments = format!("h2 --kind post --size 8MiB --count 1 --timeout 9m --path {path}");
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut command = load(workspace, gateway, &arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let uploading = command.spawn().expect("the load starts");
    eventually("the upload fills what it may", || {
        let tapes = backend.tapes();
        tapes.iter().any(|tape| tape.len() >= ONES).then_some(())
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

/// Sends requests until one of them is answered on another connection than the first.
fn until_answered_on_another(workspace: &Workspace, gateway: &Gateway, backend: &HttpBackend) {
    let is_on_another = |_: usize| {
        attempts_until_answered(workspace, gateway, LARGE);
        let requests = backend.requests();
        requests.last().is_some_and(|last| last.connection == 1)
    };
    assert!((0..ATTEMPTS).any(is_on_another));
}

/// Ends an upload, which has to be under way.
fn end(mut uploading: Child) {
    let still_runs = uploading.try_wait().expect("it is a child").is_none();
    uploading.kill().expect("it is a child");
    uploading.wait().expect("it is a child");
    assert!(still_runs, "the upload did not last");
}

#[test]
fn an_upload_of_which_a_server_takes_nothing_leaves_others_a_part_of_the_window() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let uploading = upload(&workspace, &gateway, &backend, "/stall");
    let attempts = attempts_until_answered(&workspace, &gateway, SMALL);
    end(uploading);
    assert_eq!(attempts, 1);
}

#[test]
fn what_is_larger_than_a_share_gets_another_connection_beside_such_an_upload() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let uploading = upload(&workspace, &gateway, &backend, "/stall");
    until_answered_on_another(&workspace, &gateway, &backend);
    end(uploading);
}

/// Speaks HTTP/2 in clear at an address. Reads everything at once, and gives credit for the connection only when three quarters of its
/// first window are used, as nginx does with a larger one.
fn credit_late(address: SocketAddr) {
    let listener = TcpListener::bind(address).expect("the address is free");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve_late(socket));
        }
    });
}

fn serve_late(mut socket: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    let mut used = 0;
    let mut preface = [0; PREFACE.len()];
    socket.read_exact(&mut preface)?;
    // Of its own a stream has all the credit that it wants.
    socket.write_all(&settings(&[(4, (1 << 31) - 1)]))?;
    loop {
        let mut bytes = [0; 16 << 10];
        match socket.read(&mut bytes)? {
            0 => return Ok(()),
            count => received.extend(&bytes[..count]),
        }
        while let Some(came) = take_frame(&mut received) {
            match came.frame_type {
                frame_type::SETTINGS if !came.has(flag::ACK) => {
                    socket.write_all(&frame(frame_type::SETTINGS, flag::ACK, 0, b""))?;
                }
                frame_type::DATA => {
                    used += u32::try_from(came.payload.len()).expect("a frame is short");
                    if used >= 65_535 / 4 * 3 {
                        socket.write_all(&window_update(0, used))?;
                        used = 0;
                    }
                    if came.has(flag::END_STREAM) {
                        socket.write_all(&headers(came.stream, &[(b":status", b"200")], true))?;
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_server_that_gives_credit_late_gets_an_upload_whole() {
    let workspace = Workspace::new();
    let address = workspace.host.free();
    credit_late(address);
    let setup = workspace.setup().http().tables("[workers]\ncount = 1\n");
    let gateway = setup
        .route("edge", "", &[address], "protocol = \"h2\"")
        .start();
    let arguments = "h2 --kind post --size 2MiB --count 1 --timeout 20s --path /late";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = load(&workspace, &gateway, &arguments)
        .output()
        .expect("the load runs");
    let report = report(&output);
    assert_eq!(report["details"]["acknowledged"], 1, "{report:#}");
}

#[test]
#[ignore = "long: two minutes"]
fn a_connection_made_beside_a_stalled_one_ends_when_it_is_needed_no_more() {
    let workspace = Workspace::new();
    let (backend, gateway) = start(&workspace);
    let uploading = upload(&workspace, &gateway, &backend, "/pause");
    until_answered_on_another(&workspace, &gateway, &backend);
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
