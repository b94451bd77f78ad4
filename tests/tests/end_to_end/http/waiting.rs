//! How long requests wait for a server, and what is known of servers that do not serve.
//! In: backends that are down, come late, fail their health checks. Out: answers before and behind the clients' own deadlines, metrics.

use std::thread;
use std::time::Duration;

use tests::{Answer, Gateway, Http2Client, HttpBackend, Reply, Speaks, Workspace, eventually};

const UNAVAILABLE: Option<u32> = Some(14);
const DEADLINE_EXCEEDED: Option<u32> = Some(4);

const LEFT_OUT: &str = "portcullis_backend_servers_left_out";

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

#[test]
fn servers_are_checked_before_a_client_comes_and_none_waits_where_all_fail() {
    let workspace = Workspace::new();
    let server = workspace.host.free();
    let keys = "patience = \"1m\"\n\
                health = { kind = \"tcp\", interval = \"1s\", timeout = \"1s\", healthy_after = 1, unhealthy_after = 1 }";
    let gateway = start(&workspace, server, keys);
    let name = server.to_string();
    let labels = [
        ("backend", "edge"),
        ("server", name.as_str()),
        ("condition", "unhealthy"),
    ];
    eventually("all workers leave the server out", || {
        let workers = gateway
            .metrics()
            .by_label("portcullis_worker_driver", "worker");
        let left_out = gateway.metrics().sum(LEFT_OUT, &labels);
        (left_out == workers.len() as f64).then_some(())
    });
    let answer = ask(&workspace, &gateway, "30S");
    assert_eq!(answer.grpc_status(), UNAVAILABLE, "{answer:?}");
    let words = "every server of the backend fails its health checks";
    assert_eq!(answer.value("grpc-message"), Some(words));
    let _backend = HttpBackend::clear(server, Speaks::Http2, |_| Reply::grpc());
    eventually("no worker leaves the server out", || {
        (gateway.metrics().sum(LEFT_OUT, &labels) == 0.0).then_some(())
    });
    let answer = ask(&workspace, &gateway, "30S");
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    assert!(gateway.log().contains("the server is healthy again"));
}
