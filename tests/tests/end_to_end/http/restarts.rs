//! Backends that are killed, and that are restarted one after the other, while clients send: three programs, and a load
//! that knows which of its requests were acknowledged. In: SIGKILL, SIGTERM. Out: what was acknowledged has arrived, once;
//! a client hears only of what nothing could be done about, by a status that it sends again for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tests::{Credentials, Gateway, Process, Workspace, eventually, get, program};

use crate::load::{load, report};

/// A version of HTTP, towards clients and servers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http2,
    Http1,
}

impl Version {
    fn alpn(self) -> &'static str {
        match self {
            Version::Http2 => "h2",
            Version::Http1 => "http/1.1",
        }
    }

    fn scenario(self) -> &'static str {
        match self {
            Version::Http2 => "h2",
            Version::Http1 => "h1",
        }
    }
}

/// A server that is a program of its own, and keeps what has arrived over its end.
struct Server {
    process: Process,
    command: Command,
    folder: PathBuf,
    name: String,
    address: SocketAddr,
    stats: SocketAddr,
}

impl Server {
    fn start(workspace: &Workspace, keys: &Credentials, version: Version, number: u16) -> Server {
        let (address, stats) = (workspace.host.free(), workspace.host.free());
        let name = format!("server-{number}");
        let mut command = Command::new(program("portcullis-loadgen"));
        command.args(["backend", "--protocol", version.alpn(), "--for", "1h"]);
        command.args(["--listen", &address.to_string(), "--read"]);
        command.args(["--stats-listen", &stats.to_string(), "--store"]);
        command.arg(workspace.folder().join(format!("{name}.txt")));
        command.arg("--server-certificate").arg(&keys.certificate);
        command
            .arg("--server-key")
            .arg(&keys.key)
            .arg("--client-ca");
        command.arg(workspace.gateways.certificate());
        let folder = workspace.folder().to_owned();
        let process = Process::start(&folder, &name, &mut command);
        let mut server = Server {
            process,
            command,
            folder,
            name,
            address,
            stats,
        };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        eventually(&format!("{} listens", self.name), || {
            self.process.expect_running();
            self.process.log().contains("statistics on").then_some(())
        });
    }

    /// Starts it again, after its end.
    fn start_again(&mut self) {
        self.process = Process::start(&self.folder, &self.name, &mut self.command);
        self.wait_until_ready();
    }

    /// Has it leave as servers do, and starts it again.
    fn restart(&mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        assert!(status.success(), "{status}: {}", self.process.log());
        self.start_again();
    }

    /// Requests of this process so far.
    fn requests(&self) -> u64 {
        let (_, body) = get(self.stats, "/stats").expect("the server says what it has seen");
        let stats: Value = serde_json::from_str(&body).expect("in JSON");
        stats["requests"].as_u64().expect("a count")
    }
}

fn three(workspace: &Workspace, version: Version) -> [Server; 3] {
    let keys = workspace.backend();
    [1, 2, 3].map(|number| Server::start(workspace, &keys, version, number))
}

fn gateway(workspace: &Workspace, servers: &[Server; 3], tables: &str) -> Gateway {
    let addresses = servers.each_ref().map(|server| server.address);
    // One that has failed its clients is tried again soon.
    let keys = format!(
        "{}\nejection = {{ first = \"1s\" }}",
        workspace.backend_keys()
    );
    let setup = workspace.setup().http().tables(tables);
    setup.route("edge", "", &addresses, &keys).start()
}

/// A load, which asks the servers at its end what has arrived.
fn send(
    workspace: &Workspace,
    gateway: &Gateway,
    servers: &[Server; 3],
    version: Version,
    arguments: &str,
) -> Child {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut command = load(
        workspace,
        gateway,
        &[&[version.scenario()], &arguments[..]].concat(),
    );
    for server in servers {
        command.args(["--arrivals", &server.stats.to_string()]);
    }
    let command = command.arg("--allow-failures").stdout(Stdio::piped());
    command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the load starts")
}

/// What a load says at its end: its details by name.
fn details(load: Child) -> BTreeMap<String, u64> {
    let output = load.wait_with_output().expect("the load ends");
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    let details: BTreeMap<String, u64> =
        serde_json::from_value(report["details"].clone()).expect("numbers");
    let of = |name: &str| details.get(name).copied().unwrap_or(0);
    for wrong in [
        "acknowledged and not arrived",
        "arrived more than once",
        "an agent drops it",
        "unanswered",
    ] {
        assert_eq!(of(wrong), 0, "{wrong}: {report:#}");
    }
    details
}

/// Sends so many requests on one connection: each server gets its third of them, within so many percent of that.
fn assert_thirds(
    (workspace, gateway): (&Workspace, &Gateway),
    servers: &[Server; 3],
    (count, percent): (u64, u64),
) {
    let before = servers.each_ref().map(Server::requests);
    let arguments = format!("--connections 1 --streams 16 --count {count}");
    let details = details(send(
        workspace,
        gateway,
        servers,
        Version::Http2,
        &arguments,
    ));
    assert_eq!(details["acknowledged"], count, "{details:?}");
    for (server, before) in servers.iter().zip(before) {
        let came = server.requests() - before;
        let third = (100 - percent) * count..=(100 + percent) * count;
        let is_third = third.contains(&(came * 300));
        assert!(is_third, "{came} of {count} came to {}", server.name);
    }
}

/// Requests of one client's only connection, over three servers of which one is killed meanwhile and comes back. Each gets a third
/// within so many percent: a server that a busy machine slows down gets less.
fn spread_over_three(count: u64, percent: u64) {
    const STREAMS: u64 = 16;
    let workspace = Workspace::new();
    let mut servers = three(&workspace, Version::Http2);
    // Each worker learns by itself that a server is back.
    let gateway = gateway(&workspace, &servers, "[workers]\ncount = 1\n");
    assert_thirds((&workspace, &gateway), &servers, (count, percent));

    let arguments = format!("--connections 1 --streams {STREAMS} --rate 1000 --count {count}");
    let before = servers[1].requests();
    let load = send(&workspace, &gateway, &servers, Version::Http2, &arguments);
    let of_third = |server: &Server, parts: u64| {
        let came = server.requests() - before;
        (came * 3 >= count * parts / 4).then_some(())
    };
    eventually("a quarter has come", || of_third(&servers[1], 1));
    servers[0].process.kill();
    eventually("half of it has come", || of_third(&servers[1], 2));
    servers[0].start_again();
    let details = details(load);
    let failed = count - details["acknowledged"];
    // What was in flight at the server when it was killed; all others had two others to go to.
    assert!(failed <= STREAMS, "{details:?}");

    eventually("the server has requests again", || {
        let load = send(&workspace, &gateway, &servers, Version::Http2, "--count 20");
        details_of_success(load, 20);
        (servers[0].requests() > 0).then_some(())
    });
    assert_thirds((&workspace, &gateway), &servers, (count, percent));
}

fn details_of_success(load: Child, count: u64) {
    let details = details(load);
    assert_eq!(details["acknowledged"], count, "{details:?}");
}

#[test]
fn requests_of_one_connection_spread_over_servers_and_a_killed_one_takes_none_along() {
    spread_over_three(2_000, 50);
}

#[test]
#[ignore = "long: half a minute"]
fn ten_thousand_requests_of_one_connection_spread_over_servers() {
    spread_over_three(10_000, 10);
}

/// Between two restarts: shorter, and a busy machine would see all servers leave at the same moment.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections of clients that send one request at a time.
const HTTP1_CONNECTIONS: u64 = 16;

/// Restarts servers one after the other while clients send. Returns how often a client was refused, by reason.
fn restart_under_load(version: Version, restarts: usize) -> BTreeMap<String, u64> {
    let workspace = Workspace::new();
    let mut servers = three(&workspace, version);
    let gateway = gateway(&workspace, &servers, "");
    let streams = match version {
        Version::Http2 => "--connections 4 --streams 4",
        Version::Http1 => &format!("--connections {HTTP1_CONNECTIONS}"),
    };
    let arguments = format!("{streams} --rate 400 --for 3s --timeout 30s");
    let mut done = 0;
    let (mut acknowledged, mut failed) = (0, 0);
    while done < restarts {
        let mut load = send(&workspace, &gateway, &servers, version, &arguments);
        while load.try_wait().expect("it is a child").is_none() && done < restarts {
            servers[done % 3].restart();
            thread::sleep(PAUSE);
            done += 1;
        }
        let details = details(load);
        acknowledged += details["acknowledged"];
        failed += details.get("an agent sends it again").unwrap_or(&0);
    }
    let metrics = gateway.metrics();
    let refused = metrics.by_label("portcullis_requests_refused_total", "reason");
    let refused: BTreeMap<_, _> = refused
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    println!(
        "{restarts} restarts: {acknowledged} acknowledged, {failed} failed, refused {refused:?}"
    );
    assert!(acknowledged > 5 * restarts as u64, "{acknowledged}");
    assert_eq!(refused.values().sum::<u64>(), failed, "{refused:?}");
    refused
}

/// A server that leaves by GOAWAY says what it has not processed: that goes elsewhere.
fn restart_http2(restarts: usize) {
    let refused = restart_under_load(Version::Http2, restarts);
    assert_eq!(refused, BTreeMap::new());
}

/// One of HTTP/1.1 closes a connection while a request is on its way there, and nothing tells whether it was processed. On a busy
/// machine that can be every request that is under way.
fn restart_http1(restarts: usize) {
    let mut refused = restart_under_load(Version::Http1, restarts);
    let broke = refused.remove("backend_broke").unwrap_or(0);
    // A request that met three connections which had just been closed gets no fourth one.
    let tried = refused.remove("backend_unreachable").unwrap_or(0);
    assert_eq!(refused, BTreeMap::new());
    let under_way = restarts as u64 * HTTP1_CONNECTIONS;
    assert!(broke + tried <= under_way, "{broke}, {tried}");
}

#[test]
fn restarts_of_servers_of_http_2_are_not_heard_of() {
    restart_http2(20);
}

#[test]
fn restarts_of_servers_of_http_1_are_heard_of_only_where_a_request_may_have_been_processed() {
    restart_http1(20);
}

#[test]
#[ignore = "long: some minutes"]
fn a_thousand_restarts_of_servers_of_http_2() {
    restart_http2(1_000);
}

#[test]
#[ignore = "long: some minutes"]
fn a_thousand_restarts_of_servers_of_http_1() {
    restart_http1(1_000);
}
