//! Many at once: the bundled load generator, a gateway and a backend as three programs.
//! In: thousands of connections, a signal in the middle of work, clients that must be refused beside those that must
//! not. Out: all served; nothing acknowledged is lost; nobody gets in who must not, and each hears why.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::{Gateway, PATIENCE, Process, Workspace, eventually, get, program};

fn loadgen(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("portcullis-loadgen"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn load(workspace: &Workspace, gateway: &Gateway, arguments: &[&str]) -> Command {
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
        .arg(workspace.gateways.certificate())
        .arg("--certificate")
        .arg(&workspace.agent.certificate)
        .arg("--key")
        .arg(&workspace.agent.key);
    command
}

pub(crate) fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"))
}

fn start(workspace: &Workspace, name: &str, arguments: &[&str], port: SocketAddr) -> Process {
    let mut process = Process::start(workspace.folder(), name, &mut loadgen(arguments));
    eventually(&format!("{name} listens"), || {
        process.expect_running();
        std::net::TcpStream::connect(port).ok()
    });
    process
}

#[test]
fn five_thousand_connections_are_held_and_served_at_once() {
    let workspace = Workspace::new();
    let backend = workspace.host.at(7);
    let _backend = start(
        &workspace,
        "backend",
        &["backend", "echo", "--listen", &backend.to_string()],
        backend,
    );
    let gateway = workspace
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
    let running = load(&workspace, &gateway, &arguments)
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
    let workspace = Workspace::new();
    let (grpc, http) = (workspace.host.at(14317), workspace.host.at(14318));
    let addresses = [grpc.to_string(), http.to_string()];
    let _receiver = start(
        &workspace,
        "receiver",
        &["receiver", "--grpc", &addresses[0], "--http", &addresses[1]],
        http,
    );
    let mut gateway = workspace
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
    let running = load(&workspace, &gateway, &arguments)
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

/// A CA with its key, in files, as an operator makes one.
struct Pki(PathBuf);

impl Pki {
    fn new(workspace: &Workspace, name: &str) -> Self {
        let folder = workspace.folder().join(name);
        let mut command = Command::new(program("portcullis"));
        run(command.args(["pki", "init", "--directory"]).arg(&folder));
        Self(folder)
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    /// A list that revokes the first `number` of the identities that a load makes.
    fn revoke(&self, number: &str) -> PathBuf {
        let list = self.0.join("agents.crl");
        let mut command = loadgen(&["crl", "--identities", number, "--authority"]);
        command.arg(self.certificate()).arg("--authority-key");
        run(command.arg(self.key()).arg("--out").arg(&list));
        list
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

fn texts(files: &[&Path]) -> String {
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    texts.collect()
}

#[test]
fn agents_change_to_a_new_ca_under_load_while_revoked_and_expired_ones_stay_out() {
    let workspace = Workspace::new();
    let backend = workspace.host.at(7);
    let _backend = start(
        &workspace,
        "backend",
        &["backend", "echo", "--listen", &backend.to_string()],
        backend,
    );
    let (old, new) = (Pki::new(&workspace, "old"), Pki::new(&workspace, "new"));
    let both = workspace.folder().join("both.pem");
    fs::write(&both, texts(&[&old.certificate(), &new.certificate()])).unwrap();
    let lists = [old.revoke("2"), new.revoke("0")];
    let gateway = workspace
        .setup()
        .identities("[[identity]]\nmatch = { uri = \"spiffe://example.org/agent/*\" }\ntenant = \"team-a\"\n")
        .client_ca(&both)
        .route("edge", &format!("crl = {lists:?}"), &[backend], "")
        .start();
    let mut command = loadgen(&["handshake", "--resume-ratio", "0.5", "--issue", "10"]);
    command
        .args(["--target", &gateway.address().to_string()])
        .args(["--server-name", "gateway.test", "--json", "--ca"])
        .arg(workspace.gateways.certificate())
        .arg("--authority")
        .arg(old.certificate())
        .arg("--authority-key")
        .arg(old.key())
        .args(["--connections", "10", "--count", "300", "--rate", "100"])
        .args(["--revoked-share", "0.2", "--expired-share", "0.1"])
        .args(["--rotate-at", "1s", "--rotate-authority"])
        .arg(new.certificate())
        .arg("--rotate-authority-key")
        .arg(new.key());
    let output = command.output().unwrap();
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["rotation"]["connections"], 7, "{report:#}");
    for part in ["/rotation/before", "/rotation/after", "/handshakes/resumed"] {
        let completed = report.pointer(part).unwrap()["completed"].as_u64();
        assert!(completed.is_some_and(|count| count > 10), "{report:#}");
    }
    // What the clients were told is what the gateway counted.
    let failures = gateway
        .metrics()
        .by_label("portcullis_handshake_failures_total", "reason");
    for flaw in ["revoked", "expired"] {
        let attempts = report["refusals"][flaw]["attempts"].as_u64().unwrap();
        assert!(attempts > 10, "{report:#}");
        assert_eq!(failures.get(flaw), Some(&attempts), "{failures:?}");
    }
    assert_eq!(failures.len(), 2, "{failures:?}");
}

#[test]
fn a_backend_killed_in_mid_stream_never_looks_like_success() {
    let workspace = Workspace::new();
    let address = workspace.host.at(9);
    let mut backend = start(
        &workspace,
        "backend",
        &["backend", "sink", "--listen", &address.to_string()],
        address,
    );
    let gateway = workspace.gateway(address);
    let mut client = workspace.client().connect(gateway.address()).unwrap();
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
