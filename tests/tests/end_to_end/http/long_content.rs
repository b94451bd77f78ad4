//! Content of gigabytes through a backend that takes nothing for a while. In: one request, whose content is known byte for
//! byte at both ends. Out: it arrives whole, and the gateway's memory stays within what a window promises.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tests::{Process, Workspace, eventually, program};

use crate::load::{load, report};

/// What one request may take in the gateway, however long it is: the widest window of its connection, what waits to be
/// written to the server, and buffers.
const MEMORY_MAX: u64 = 4 << 20;

/// Sends content of so many MiB to a server that stops taking it for a while.
fn through_a_stall(mebibytes: u64, pause: &str) {
    let workspace = Workspace::new();
    let (address, stats) = (workspace.host.free(), workspace.host.free());
    let keys = workspace.backend();
    let mut command = Command::new(program("portcullis-loadgen"));
    command.args(["backend", "--protocol", "h2", "--for", "10m", "--read"]);
    command.args(["--listen", &address.to_string()]);
    command.args(["--stats-listen", &stats.to_string()]);
    command.arg("--server-certificate").arg(keys.certificate);
    command.arg("--server-key").arg(keys.key).arg("--client-ca");
    command.arg(workspace.gateways.certificate());
    let backend = Process::start(workspace.folder(), "backend", &mut command);
    eventually("the backend listens", || {
        backend.log().contains("statistics on").then_some(())
    });
    let mut gateway = workspace
        .setup()
        .http()
        .route(
            "edge",
            "max_request_body = \"8GiB\"",
            &[address],
            &workspace.backend_keys(),
        )
        .start();
    let sending = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let mut command = load(&workspace, &gateway, &arguments);
        command.args(["--arrivals", &stats.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut first = sending("h2 --kind post --size 2MiB --count 1");
    let mut second = sending(&format!(
        "h2 --kind post --size {mebibytes}MiB --path /pause={pause} --count 1 --timeout 9m"
    ));
    // Connections and buffers are there before what is measured.
    assert!(first.output().expect("the load runs").status.success());
    let before = gateway.process().resident_bytes();
    let mut running = second.spawn().expect("the load starts");
    let mut most = before;
    while running.try_wait().expect("it is a child").is_none() {
        most = most.max(gateway.process().resident_bytes());
        thread::sleep(Duration::from_millis(50));
    }
    let report = report(&running.wait_with_output().unwrap());
    assert_eq!(report["details"]["acknowledged"], 1, "{report:#}");
    assert_eq!(
        report["details"]["acknowledged and not arrived"], 0,
        "{report:#}"
    );
    assert_eq!(report["bytes_up"], mebibytes << 20, "{report:#}");
    let growth = most - before;
    println!("{mebibytes} MiB: the gateway took {} KiB", growth >> 10);
    assert!(growth <= MEMORY_MAX, "{growth}");
}

#[test]
fn content_passes_a_server_that_stops_taking_it_and_costs_no_memory() {
    through_a_stall(32, "1s");
}

#[test]
#[ignore = "long: some minutes"]
fn four_gibibytes_pass_a_server_that_stops_taking_them_and_cost_no_memory() {
    through_a_stall(4096, "10s");
}
