//! How long requests wait for a server.
//! In: backends that are down or come late. Out: answers before and behind the clients' own deadlines.

use std::thread;
use std::time::Duration;

use tests::{Answer, Gateway, Http2Client, HttpBackend, Reply, Speaks, Workspace};

const UNAVAILABLE: Option<u32> = Some(14);
const DEADLINE_EXCEEDED: Option<u32> = Some(4);

/// The answer to a request whose client gives it up after this time.
fn ask(workspace: &Workspace, gateway: &Gateway, deadline: &str) -> Answer {
    let fields: [(&[u8], &[u8]); 7] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/test.Peer/Talk"),
        (b":authority", b"gateway.test"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", deadline.as_bytes()),
    ];
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = client.request(&fields, b"content");
    client.answer(stream)
}

fn start(workspace: &Workspace, server: std::net::SocketAddr, keys: &str) -> Gateway {
    let setup = workspace.setup().http();
    let keys = format!("protocol = \"h2\"\n{keys}");
    setup.route("edge", "", &[server], &keys).start()
}

#[test]
fn clients_with_the_time_out_of_a_collector_hear_that_no_server_can_be_reached() {
    let workspace = Workspace::new();
    let gateway = start(&workspace, workspace.host.free(), "");
    let answer = ask(&workspace, &gateway, "5S");
    assert_eq!(answer.grpc_status(), UNAVAILABLE, "{answer:?}");
}

#[test]
fn a_request_waits_for_as_long_as_the_backend_says_and_a_server_that_comes_by_then_gets_it() {
    let workspace = Workspace::new();
    let server = workspace.host.free();
    let gateway = start(&workspace, server, "patience = \"40s\"");
    let early = ask(&workspace, &gateway, "1S");
    assert_eq!(early.grpc_status(), DEADLINE_EXCEEDED, "{early:?}");
    let served = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&workspace, &gateway, "40S"));
        // Longer than it would wait by default.
        thread::sleep(Duration::from_secs(4));
        let backend = HttpBackend::clear(server, Speaks::Http2, |_| Reply::grpc());
        (asking.join().unwrap(), backend)
    });
    let (answer, _backend) = served;
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
}

#[test]
fn without_patience_a_request_waits_only_for_a_connection_that_is_being_made() {
    let workspace = Workspace::new();
    let server = workspace.host.free();
    let gateway = start(&workspace, server, "patience = \"0s\"");
    for _ in 0..2 {
        let answer = ask(&workspace, &gateway, "2S");
        assert_eq!(answer.grpc_status(), UNAVAILABLE, "{answer:?}");
    }
    let workspace = Workspace::new();
    let backend = HttpBackend::clear(workspace.host.free(), Speaks::Http2, |_| Reply::grpc());
    let gateway = start(&workspace, backend.address(), "patience = \"0s\"");
    let answer = ask(&workspace, &gateway, "20S");
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
}
