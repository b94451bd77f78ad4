//! Many at once: the bundled load generator, a gateway and a backend as three programs.
//! In: thousands of connections, or a signal in the middle of work. Out: all served; nothing acknowledged is lost.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::{Gateway, PATIENCE, Process, World, eventually, get, program};

fn loadgen(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("portcullis-loadgen"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn load(world: &World, gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = loadgen(arguments);
    command
        .args([
            "--target",
            &gateway.address().to_string(),
            "--server-name",
            "gateway.test",
            "--json",
        ])
        .arg("--ca")
        .arg(world.gateways.certificate())
        .arg("--certificate")
        .arg(&world.agent.certificate)
        .arg("--key")
        .arg(&world.agent.key);
    command
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"))
}

fn start(world: &World, name: &str, arguments: &[&str], port: SocketAddr) -> Process {
    let mut process = Process::start(world.folder(), name, &mut loadgen(arguments));
    eventually(&format!("{name} listens"), || {
        process.expect_running();
        std::net::TcpStream::connect(port).ok()
    });
    process
}

#[test]
fn five_thousand_connections_are_held_and_served_at_once() {
    let world = World::new();
    let backend = world.host.at(7);
    let _backend = start(
        &world,
        "backend",
        &["backend", "echo", "--listen", &backend.to_string()],
        backend,
    );
    let gateway = world
        .setup()
        .route(
            "edge",
            "max_connections = 6000\nmax_handshakes = 512\nhandshake_timeout = \"30s\"",
            &[backend],
            "",
        )
        .start();
    // Each moves a KiB both ways, then all are held together.
    let arguments = [
        "idle",
        "--connections",
        "5000",
        "--echo-first",
        "--for",
        "8s",
        "--timeout",
        "60s",
    ];
    let running = load(&world, &gateway, &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let watcher = thread::spawn(move || running.wait_with_output().unwrap());
    let most = watch_open(&gateway, || watcher.is_finished());
    let output = watcher.join().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["completed"], 5000, "{report:#}");
    assert_eq!(report["failed"], 0, "{report:#}");
    assert_eq!(most, 5000, "held at once");
    let metrics = gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    assert_eq!(metrics.count("portcullis_handshakes_total", &[]), 5000);
    assert_eq!(metrics.count("portcullis_handshake_failures_total", &[]), 0);
}

/// The most connections seen open until `done`.
fn watch_open(gateway: &Gateway, done: impl Fn() -> bool) -> u64 {
    let mut most = 0;
    while !done() {
        most = most.max(gateway.metrics().count("portcullis_connections_open", &[]));
        thread::sleep(Duration::from_millis(100));
    }
    most
}

#[test]
fn a_sigterm_under_load_loses_nothing_that_was_acknowledged() {
    let world = World::new();
    let (grpc, http) = (world.host.at(14317), world.host.at(14318));
    let addresses = [grpc.to_string(), http.to_string()];
    let _receiver = start(
        &world,
        "receiver",
        &["receiver", "--grpc", &addresses[0], "--http", &addresses[1]],
        http,
    );
    let mut gateway = world
        .setup()
        .top("drain_timeout = \"2s\"")
        .route("edge", "alpn = [\"h2\"]", &[grpc], "")
        .start();
    let arguments = [
        "otlp",
        "--connections",
        "8",
        "--for",
        "8s",
        "--allow-failures",
        "--timeout",
        "2s",
    ];
    let running = load(&world, &gateway, &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the load is under way", || {
        (arrived(http) > 5_000).then_some(())
    });
    gateway.terminate();
    let status = gateway.wait();
    assert!(status.success(), "{status}");
    let output = running.wait_with_output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    let acknowledged = report["details"]["records acknowledged"].as_u64().unwrap();
    let received = arrived(http);
    assert!(acknowledged > 5_000, "{report:#}");
    assert!(
        received >= acknowledged,
        "{received} arrived of {acknowledged} acknowledged"
    );
}

fn arrived(receiver: SocketAddr) -> u64 {
    let (_, body) = get(receiver, "/stats").unwrap();
    let stats: Value = serde_json::from_str(&body).unwrap();
    let records = stats["records"].as_object().unwrap();
    records.values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn a_backend_killed_in_mid_stream_never_looks_like_success() {
    let world = World::new();
    let address = world.host.at(9);
    let mut backend = start(
        &world,
        "backend",
        &["backend", "sink", "--listen", &address.to_string()],
        address,
    );
    let gateway = world.gateway(address);
    let mut client = world.client().connect(gateway.address()).unwrap();
    let chunk = vec![7; 256 * 1024];
    client.send(&chunk).unwrap();
    client.socket().set_write_timeout(Some(PATIENCE)).unwrap();
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        backend.kill();
    });
    // Sends until the gateway tells us, by breaking the connection, that nobody takes it any more.
    eventually("sending fails", || client.send(&chunk).err());
    killer.join().unwrap();
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    let metrics = gateway.metrics();
    let ended = metrics.by_label("portcullis_connections_ended_total", "reason");
    assert_eq!(
        ended.keys().collect::<Vec<_>>(),
        ["backend_reset"],
        "{ended:?}"
    );
}
