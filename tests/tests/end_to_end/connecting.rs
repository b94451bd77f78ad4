//! Servers that are down, slow, or end connections, and clients that leave meanwhile: who is blamed, and who waits.
//! In: servers that swallow connections, refuse them or end them. Out: other clients that are served, clients that are let go,
//! reasons that name the right side.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use tests::{Answering, Backend, Behaviour, Closing, Gateway, Resolver, Workspace, eventually};

const ENDED: &str = "portcullis_connections_ended_total";
const FAILURES: &str = "portcullis_backend_connect_failures_total";
const ONE_WORKER: &str = "[workers]\ncount = 1";

/// A server whose queue is full: the kernel drops what would connect to it, as a host that is gone does.
struct Swallowing {
    address: SocketAddr,
    _socket: Socket,
    _queued: Vec<TcpStream>,
}

impl Swallowing {
    fn start() -> Swallowing {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&SockAddr::from(any)).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        // A queue of length nought takes one.
        let queued = vec![TcpStream::connect(address).unwrap()];
        Swallowing {
            address,
            _socket: socket,
            _queued: queued,
        }
    }

    fn several(count: usize) -> (Vec<Swallowing>, Vec<SocketAddr>) {
        let servers: Vec<_> = (0..count).map(|_| Swallowing::start()).collect();
        let addresses = servers.iter().map(|server| server.address).collect();
        (servers, addresses)
    }
}

fn ping(workspace: &Workspace, gateway: &Gateway) {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    client.finish();
    assert_eq!(client.receive_to_end().1, Closing::CloseNotify);
}

fn logged(gateway: &Gateway, text: &str) {
    eventually(text, || gateway.log().contains(text).then_some(()));
}

#[test]
fn a_server_that_swallows_connections_keeps_no_client_waiting_and_is_counted() {
    let workspace = Workspace::new();
    let (_dead, mut servers) = Swallowing::several(3);
    let alive = Backend::start(Behaviour::Echo);
    servers.push(alive.address());
    // Whoever waited for one of them would wait longer than this test does.
    let setup = workspace.setup().tables(ONE_WORKER);
    let gateway = setup
        .route("edge", "", &servers, "connect_timeout = \"60s\"")
        .start();
    for _ in 0..8 {
        ping(&workspace, &gateway);
    }
    assert_eq!(alive.connections().len(), 8);

    let workspace = Workspace::new();
    let setup = workspace.setup().tables(ONE_WORKER);
    let gateway = setup
        .route("edge", "", &servers, "connect_timeout = \"500ms\"")
        .start();
    eventually("all three are found dead", || {
        ping(&workspace, &gateway);
        let failures = gateway.metrics().count(FAILURES, &[("backend", "edge")]);
        (failures >= 3).then_some(())
    });
}

#[test]
fn a_client_that_has_gone_is_not_held_until_dead_servers_have_timed_out() {
    let workspace = Workspace::new();
    let (_dead, servers) = Swallowing::several(6);
    let setup = workspace.setup();
    let gateway = setup
        .route("edge", "", &servers, "connect_timeout = \"60s\"")
        .start();
    let client = workspace.client().connect(gateway.address()).unwrap();
    client.abort();
    gateway.wait_for(ENDED, &[("reason", "client_reset")], 1);
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
}

#[test]
fn however_many_servers_are_dead_a_client_is_let_go_in_bounded_time() {
    let workspace = Workspace::new();
    let (_dead, servers) = Swallowing::several(24);
    let setup = workspace.setup();
    let gateway = setup
        .route("edge", "", &servers, "connect_timeout = \"2s\"")
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
    gateway.wait_for(
        "portcullis_backend_unreachable_total",
        &[("backend", "edge")],
        1,
    );
}

#[test]
fn turns_go_on_over_a_reload() {
    let workspace = Workspace::new();
    let backends: Vec<Backend> = (0..3).map(|_| Backend::start(Behaviour::Echo)).collect();
    let servers: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let setup = workspace.setup().tables(ONE_WORKER);
    let mut gateway = setup.route("edge", "", &servers, "").start();
    for reload in 1..=6 {
        ping(&workspace, &gateway);
        gateway.process().signal(Signal::HUP);
        gateway.wait_for_reloads(reload);
    }
    let counts: Vec<usize> = backends
        .iter()
        .map(|backend| backend.connections().len())
        .collect();
    assert_eq!(counts, [2, 2, 2]);
}

#[test]
fn an_address_of_a_name_that_never_answers_is_no_failure_of_the_backend_while_another_does() {
    let workspace = Workspace::new();
    let Ok(address) = workspace.host.address().to_string().parse::<Ipv4Addr>() else {
        panic!("the test's address is of IPv4");
    };
    let _alive = Backend::start_at(workspace.host.at(7000), Behaviour::Echo);
    // Nobody listens on that port there.
    let dead = Ipv4Addr::new(127, 0, 0, 1);
    let names = HashMap::from([("two.test".to_owned(), vec![dead, address])]);
    let resolver = Resolver::start(&workspace.host, workspace.folder(), Answering::With(names));
    let setup = workspace.setup().tables(ONE_WORKER).resolver(&resolver);
    let keys = "dangerous_plaintext = true";
    let gateway = setup
        .route_to_names("edge", "", &["two.test:7000"], keys)
        .start();
    for _ in 0..10 {
        ping(&workspace, &gateway);
    }
    let metrics = gateway.metrics();
    let labels = [("backend", "edge")];
    assert_eq!(metrics.count(FAILURES, &labels), 0);
    assert_eq!(
        metrics.count("portcullis_backend_address_failures_total", &labels),
        1
    );
}

#[test]
fn an_end_without_an_answer_is_a_reason_of_its_own_and_no_server_rests_for_it() {
    let workspace = Workspace::new();
    let silent: Vec<Backend> = (0..2)
        .map(|_| Backend::start(Behaviour::Source(Vec::new().into())))
        .collect();
    let servers: Vec<SocketAddr> = silent.iter().map(Backend::address).collect();
    let setup = workspace.setup().tables(ONE_WORKER);
    let gateway = setup.route("edge", "", &servers, "").start();
    for round in 1..=4 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.send(b"request").unwrap();
        assert_eq!(client.receive_to_end(), (Vec::new(), Closing::CloseNotify));
        // As clients do that had hoped for an answer.
        client.vanish();
        gateway.wait_for(ENDED, &[("reason", "backend_unanswered")], round);
    }
    let metrics = gateway.metrics();
    let labels = [("backend", "edge")];
    assert_eq!(
        metrics.count("portcullis_backend_unanswered_total", &labels),
        4
    );
    assert_eq!(metrics.count(FAILURES, &labels), 0);
    let counts: Vec<usize> = silent
        .iter()
        .map(|backend| backend.connections().len())
        .collect();
    assert_eq!(counts, [2, 2]);
    logged(&gateway, "the server had sent no byte");
}

#[test]
fn a_reset_by_a_server_that_got_a_proxy_header_says_what_it_may_mean() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let setup = workspace.setup();
    let gateway = setup
        .route("edge", "", &[backend.address()], "proxy_protocol = true")
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"request").unwrap();
    eventually("the request arrives", || {
        (backend.received_bytes() > 7).then_some(())
    });
    backend.reset_all();
    client.receive_to_end();
    gateway.wait_for(ENDED, &[("reason", "backend_reset")], 1);
    logged(&gateway, "it may not know the PROXY header");
}

#[test]
fn a_client_that_goes_when_it_has_our_certificate_is_told_from_one_that_said_nothing() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let hello = workspace.client().client_hello();
    let mut socket = TcpStream::connect(gateway.address()).unwrap();
    socket.write_all(&hello).unwrap();
    let mut answer = [0; 1];
    socket.read_exact(&mut answer).unwrap();
    drop(socket);
    logged(&gateway, "the gateway had sent its certificate");
    drop(TcpStream::connect(gateway.address()).unwrap());
    logged(&gateway, "the client had sent no byte");
}

/// A server that answers as soon as something has come, and goes without having read it: the kernel resets.
fn early_answers(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.peek(&mut [0; 1]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn the_answer_of_a_server_that_answers_early_and_resets_arrives() {
    const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
    let workspace = Workspace::new();
    let gateway = workspace.gateway(early_answers(ANSWER));
    let body = vec![7; 64 * 1024];
    let mut lost = 0;
    for _ in 0..60 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        for _ in 0..4 {
            if client.send(&body).is_err() {
                break;
            }
        }
        let (received, closing) = client.receive_to_end();
        assert_ne!(closing, Closing::CloseNotify, "it did not end cleanly");
        lost += usize::from(received != ANSWER);
    }
    assert_eq!(lost, 0, "answers were lost");
}
