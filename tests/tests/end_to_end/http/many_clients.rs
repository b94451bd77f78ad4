//! Ten thousand clients at once, each with a connection of HTTP/2 over mTLS. In: a request of each, all in flight together;
//! then clients that fill their windows before a server which takes nothing. Out: all are answered, and the gateway's memory
//! stays within what each client is worth.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::{Gateway, Process, Workspace, eventually, program};

use crate::load::{load, report};

const CLIENTS: u64 = 10_000;

/// What a client may take: its connection, its session, a stream and its header list.
const CLIENT_BYTES_MAX: u64 = 24 << 10;

/// What its windows promise: content that may come before any of it can be passed on.
const WINDOW_BYTES: u64 = 64 << 10;

/// What the windows of all clients of a worker may promise beyond that.
const WORKER_WINDOWS_BYTES: u64 = 64 << 20;
const WORKERS: u64 = 2;

/// A gateway for all clients, before a server with as many streams.
fn start(workspace: &Workspace) -> (Process, Gateway) {
    let address = workspace.host.free();
    let keys = workspace.backend();
    let mut command = Command::new(program("portcullis-loadgen"));
    command.args(["backend", "--protocol", "h2", "--for", "10m"]);
    command.args(["--max-streams", "20000", "--listen", &address.to_string()]);
    command.arg("--server-certificate").arg(keys.certificate);
    command.arg("--server-key").arg(keys.key).arg("--client-ca");
    command.arg(workspace.gateways.certificate());
    let backend = Process::start(workspace.folder(), "backend", &mut command);
    eventually("the backend listens", || {
        backend.log().contains("listening on").then_some(())
    });
    let listener = "max_connections = 11000\nmax_handshakes = 512\nhandshake_timeout = \"30s\"";
    let server = format!("{}\nmax_requests = 20000", workspace.backend_keys());
    let workers = format!("[workers]\ncount = {WORKERS}\n");
    let setup = workspace.setup().http().tables(&workers);
    let gateway = setup.route("edge", listener, &[address], &server).start();
    (backend, gateway)
}

/// Runs a load of all clients: what it says, the most memory that the gateway took meanwhile for each of them, and the most
/// clients that it had at once.
fn measure(workspace: &Workspace, gateway: &mut Gateway, arguments: &str) -> (Value, u64, u64) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut command = load(workspace, gateway, &arguments);
    command.args(["--connections", &CLIENTS.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = gateway.process().resident_bytes();
    let running = command.spawn().expect("the load starts");
    let watcher = thread::spawn(move || running.wait_with_output().expect("the load ends"));
    let (mut most, mut clients) = (before, 0);
    while !watcher.is_finished() {
        most = most.max(gateway.process().resident_bytes());
        let open = gateway.metrics().count("portcullis_connections_open", &[]);
        clients = clients.max(open);
        thread::sleep(Duration::from_millis(100));
    }
    let output = watcher.join().expect("the watcher ends");
    let report = report(&output);
    let each = (most - before) / CLIENTS;
    println!("{clients} clients, {each} bytes each");
    (report, each, clients)
}

#[test]
#[ignore = "long: a minute"]
fn ten_thousand_clients_have_a_request_in_flight_at_once_and_all_are_answered() {
    let workspace = Workspace::new();
    let (_backend, mut gateway) = start(&workspace);
    let arguments = "h2 --count 10000 --path /delay=8s --timeout 120s";
    let (report, each, clients) = measure(&workspace, &mut gateway, arguments);
    assert_eq!(report["details"]["acknowledged"], CLIENTS, "{report:#}");
    assert_eq!(clients, CLIENTS);
    assert!(each <= CLIENT_BYTES_MAX, "{each}");
}

#[test]
#[ignore = "long: two minutes"]
fn ten_thousand_clients_that_fill_their_windows_take_what_these_promise() {
    let workspace = Workspace::new();
    let (_backend, mut gateway) = start(&workspace);
    let arguments = "adverse open-windows --path /stall --size 1MiB --count 10000 --for 100s \
                     --timeout 100s";
    let (report, each, clients) = measure(&workspace, &mut gateway, arguments);
    let held = &report["flood"]["kinds"]["open-windows"]["outcomes"]["held"];
    assert_eq!(held, CLIENTS, "{report:#}");
    assert_eq!(clients, CLIENTS);
    let windows = WINDOW_BYTES + WORKERS * WORKER_WINDOWS_BYTES / CLIENTS;
    assert!(each <= CLIENT_BYTES_MAX + windows, "{each}");
}
