//! Start, drain and end of the program, and what it tells about itself meanwhile.
//! In: signals and scrapes. Out: connections that may finish, exit codes, health, metrics.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tests::{
    Backend, Behaviour, Client, Closing, Ending, Gateway, RevocationList, Workspace, eventually,
    program,
};

fn connected(workspace: &Workspace, gateway: &Gateway) -> Client {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    client
}

/// A client that waits for an answer: it comes when the client has finished.
fn waiting(workspace: &Workspace, gateway: &Gateway, backend: &Backend) -> Client {
    let before = backend.received_bytes();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"call").unwrap();
    eventually("the call is at the backend", || {
        (backend.received_bytes() == before + 4).then_some(())
    });
    client
}

#[test]
fn sigterm_lets_calls_finish_and_takes_no_new_connections() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"30s\"")
        .route("edge", "", &[backend.address()], "")
        .start();
    let mut client = waiting(&workspace, &gateway, &backend);
    gateway.terminate();
    eventually("the listener is gone", || {
        std::net::TcpStream::connect(gateway.address()).err()
    });
    // Longer than the pause that ends an answer: this one has not begun.
    std::thread::sleep(Duration::from_secs(1));
    let (status, _) = gateway.admin("/readyz").unwrap();
    assert_ne!(status, 200, "a draining gateway is not ready");
    client.finish();
    let answer = client.receive_to_end();
    assert_eq!(answer, (b"call".to_vec(), Closing::CloseNotify));
    let status = gateway.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn a_drain_is_over_when_every_connection_has_had_its_quiet_moment() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    // Beyond the test's patience.
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"10m\"")
        .tables("[workers]\ncount = 2")
        .route("edge", "", &[backend.address()], "")
        .start();
    let clients = [(); 4].map(|()| connected(&workspace, &gateway));
    gateway.terminate();
    let status = gateway.wait();
    assert!(status.success(), "{status}");
    for mut client in clients {
        // FIN: nothing queued is lost. No close_notify: what was cut must not look complete.
        assert_eq!(client.receive_to_end().1, Closing::Truncated);
    }
    assert!(!gateway.log().contains("drain_timeout is over"));
}

#[test]
fn whoever_is_cut_off_at_the_drains_deadline_is_told_of_in_one_line() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"1s\"")
        .tables("[workers]\ncount = 2")
        .route("edge", "", &[backend.address()], "")
        .start();
    let _clients: Vec<_> = (0..8)
        .map(|_| waiting(&workspace, &gateway, &backend))
        .collect();
    gateway.terminate();
    assert!(gateway.wait().success());
    let log = gateway.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("drain_timeout is over"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("connections=8"), "{}", told[0]);
}

#[test]
fn a_connection_that_does_not_finish_is_cut_at_the_deadline() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"1s\"")
        .route("edge", "", &[backend.address()], "")
        .start();
    let mut client = waiting(&workspace, &gateway, &backend);
    gateway.terminate();
    let status = gateway.wait();
    assert!(status.success(), "{status}");
    assert_ne!(
        client.receive_to_end().1,
        Closing::CloseNotify,
        "what was cut looks complete"
    );
    let ending = backend.only_connection().ending;
    assert_eq!(ending, Some(Ending::Reset), "what was cut looks complete");
}

#[test]
fn handshakes_that_stand_still_hold_up_no_drain() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    // Both beyond the test's patience.
    let limits = "max_handshakes = 1\nhandshake_timeout = \"60s\"";
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"1s\"")
        .tables("[workers]\ncount = 1\n[audit]\nfile = \"audit.jsonl\"\n")
        .route("edge", limits, &[backend.address()], "")
        .start();
    let mut client = connected(&workspace, &gateway);
    let stalled: Vec<_> = (0..3)
        .map(|_| {
            let mut socket = std::net::TcpStream::connect(gateway.address()).unwrap();
            socket.write_all(&[0x16]).unwrap();
            socket
        })
        .collect();
    // They take all the slots meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    gateway.terminate();
    let status = gateway.wait();
    assert!(status.success(), "{status}");
    assert_eq!(client.receive_to_end().0, b"");
    // Each that was accepted is accounted for, once.
    let audit = std::fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
    let cut_off: Vec<_> = audit
        .lines()
        .filter(|line| line.contains("drain_timeout"))
        .collect();
    assert!(!cut_off.is_empty(), "{audit}");
    for line in cut_off {
        assert!(line.contains("\"reason\":\"timeout\""), "{line}");
        let peer = |socket: &std::net::TcpStream| {
            let peer = format!("\"peer\":\"{}\"", socket.local_addr().unwrap());
            audit.matches(&peer).count() == 1 && line.contains(&peer)
        };
        assert!(stalled.iter().any(peer), "{line}");
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"10m\"")
        .route("edge", "quiet_timeout = \"10m\"", &[backend.address()], "")
        .start();
    let _client = waiting(&workspace, &gateway, &backend);
    gateway.terminate();
    eventually("the drain has begun", || {
        std::net::TcpStream::connect(gateway.address()).err()
    });
    gateway.process().expect_running();
    gateway.terminate();
    // Ten minutes would be far beyond the test's patience. The exit code is a shell's for a process ended by SIGTERM.
    assert_eq!(gateway.wait().code(), Some(128 + 15));
}

#[test]
fn ctrl_c_drains_as_well() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    gateway.process().signal(Signal::INT);
    let status = gateway.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn a_killed_gateway_leaves_no_clean_end_at_either_side() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let mut client = connected(&workspace, &gateway);
    gateway.process().kill();
    assert_eq!(backend.only_connection().ending, Some(Ending::Reset));
    assert_ne!(client.receive_to_end().1, Closing::CloseNotify);
}

#[test]
fn a_second_gateway_may_take_over_the_port_before_the_first_one_goes() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut first = workspace.gateway(backend.address());
    let second = workspace
        .setup()
        .takes_over()
        .route("edge", "", &[backend.address()], "")
        .start();
    assert_eq!(first.address(), second.address());
    first.terminate();
    assert!(first.wait().success());
    connected(&workspace, &second);
    second.wait_for("portcullis_handshakes_total", &[("listener", "edge")], 1);
}

#[test]
fn two_workers_share_the_port_and_the_work() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace
        .setup()
        .tables("[workers]\ncount = 2")
        .route("edge", "", &[backend.address()], "")
        .start();
    assert_eq!(
        listening_sockets(gateway.process().id(), gateway.address().port()),
        2
    );
    let mut clients: Vec<Client> = (0..32).map(|_| connected(&workspace, &gateway)).collect();
    for client in &mut clients {
        client.send(b"again").unwrap();
        assert_eq!(client.receive(5).unwrap(), b"again");
    }
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 32);
    drop(clients);
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
}

/// Sockets in state LISTEN on a port, as the kernel lists them for the process' network namespace.
fn listening_sockets(process: u32, port: u16) -> usize {
    let wanted = format!(":{port:04X}");
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let owned: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        // Local address, state (0A is LISTEN), inode.
        .filter(|fields| fields[1].ends_with(&wanted) && fields[3] == "0A")
        .filter(|fields| owned.contains(&format!("socket:[{}]", fields[9])))
        .count()
}

#[test]
fn health_and_metrics_are_there_and_other_paths_are_not() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin(path).unwrap().0, 200, "{path}");
    }
    assert_eq!(gateway.admin("/debug").unwrap().0, 404);
    let mut client = connected(&workspace, &gateway);
    let metrics = gateway.metrics();
    let edge = ("listener", "edge");
    assert_eq!(
        metrics.count("portcullis_connections_accepted_total", &[edge]),
        1
    );
    assert_eq!(metrics.count("portcullis_connections_open", &[edge]), 1);
    let certificate = workspace.server.certificate.to_str().unwrap();
    assert!(metrics.has(
        "portcullis_certificate_not_after_timestamp_seconds",
        &[("file", certificate)]
    ));
    client.finish();
    client.receive_to_end();
    gateway.wait_for("portcullis_connections_open", &[edge], 0);
}

#[test]
fn every_metric_and_every_reason_is_in_the_reference_and_the_other_way_round() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    // Everything that makes a reason possible: lists, protocols, an age, TLS on the other side.
    let lists = [&workspace.agents, &workspace.gateways].map(|authority| {
        let list = authority.revoke("list", &RevocationList::of(&[]));
        format!("{list:?}")
    });
    let listener = format!(
        "alpn = [\"h2\"]\ncrl = [{}]\nmax_connection_age = \"1h\"\nat_expiry = \"drain\"",
        lists[0]
    );
    let servers = format!(
        "tls = {{ ca = [{:?}], crl = [{}], certificate = {:?}, key = {:?}, server_name = \"backend.test\" }}",
        workspace.gateways.certificate(),
        lists[1],
        workspace.agent.certificate,
        workspace.agent.key
    );
    // One whose streams may have no route.
    let (address, own) = (workspace.host.at(5000), &workspace.server);
    let routed = format!(
        "[[listener]]\nname = \"routed\"\naddress = \"{address}\"\ncertificate = {:?}\nkey = {:?}\nclient_ca = [{:?}]\n\
         [[route]]\nlistener = \"routed\"\nhost = \"a.test\"\nbackend = \"edge\"\n",
        own.certificate,
        own.key,
        workspace.agents.certificate()
    );
    let gateway = workspace
        .setup()
        .tables(&routed)
        .route("edge", &listener, &[backend.address()], &servers)
        .start();
    let (_, page) = gateway.admin("/metrics").unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let text = fs::read_to_string(path).unwrap();
    // Requests are refused on listeners of HTTP mode alone.
    let (before, rest) = text.split_once("## Why a request is refused").unwrap();
    let text = [before, rest.split_once("\n## ").unwrap().1].concat();
    // First cells of the page's tables.
    let documented: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(cell, _)| cell)
        .collect();
    let mut there: BTreeSet<String> = BTreeSet::new();
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            there.insert(format!("{name}{suffix}"));
        }
        // Its two reasons stand in the metric's own row.
        if let Some((_, reason)) = line.split_once("reason=\"")
            && !line.starts_with("portcullis_descriptor_waits_total")
        {
            there.insert(reason.split_once('"').unwrap().0.to_owned());
        }
    }
    // The guard's are on the page only while there is one; the tests of the guard look at those.
    let is_ours = |name: &&str| !name.starts_with("portcullis_guard_") && *name != "banned";
    let documented: BTreeSet<&str> = documented.into_iter().filter(is_ours).collect();
    let there: BTreeSet<&str> = there.iter().map(String::as_str).filter(is_ours).collect();
    assert_eq!(documented, there);
}

#[test]
fn a_listener_that_cannot_be_opened_ends_the_start() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    // Somebody else's socket on the second gateway's port, without SO_REUSEPORT.
    let taken = workspace.host.free();
    let _holder = std::net::TcpListener::bind(taken).unwrap();
    let text = fs::read_to_string(workspace.folder().join("portcullis.toml")).unwrap();
    let text = text
        .replace(&gateway.address().to_string(), &taken.to_string())
        .replace("admin.sock", "second.sock")
        .replace(workspace.name(), &format!("{}-2", workspace.name()));
    let file = workspace.folder().join("second.toml");
    fs::write(&file, text).unwrap();
    let output = Command::new(program("portcullis"))
        .args(["run", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&taken.to_string()), "{said}");
}

#[test]
fn the_backend_may_come_later() {
    let workspace = Workspace::new();
    let address = workspace.host.free();
    let gateway = workspace.gateway(address);
    // Not a health check: the gateway is ready, and the first clients are let go.
    let mut early = workspace.client().connect(gateway.address()).unwrap();
    assert_ne!(early.receive_to_end().1, Closing::CloseNotify);
    let _backend = Backend::start_at(address, Behaviour::Echo);
    eventually("a client gets through", || {
        let mut client = workspace.client().connect(gateway.address()).ok()?;
        client
            .socket()
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        client.send(b"x").ok()?;
        client.receive(1).ok()
    });
}
