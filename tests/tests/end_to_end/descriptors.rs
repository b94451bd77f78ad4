//! A gateway whose descriptors clients have used up. In: a low limit on open files, clients until nothing more goes. Out:
//! administration works all the same, who waits is served when others go, and a limit that leaves nothing is refused.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use tests::{
    Backend, Behaviour, Client, Closing, Gateway, Request, RevocationList, Workspace, eventually,
    program,
};

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

/// So few that a test can use them up: half a hundred more than the gateway holds back.
const LIMIT: &str = "--nofile=380:380";

/// More connections than the limit has descriptors for.
const CROWD: usize = 400;

fn waits(gateway: &Gateway, step: &str) -> u64 {
    let labels = [("step", step)];
    let metrics = gateway.metrics();
    metrics.count("portcullis_descriptor_waits_total", &labels)
}

/// Clients that never finish their handshake, until the gateway takes no more; the rest wait in its accept queue.
fn crowd(workspace: &Workspace, gateway: &Gateway) -> Vec<TcpStream> {
    let hello = workspace.client().client_hello();
    let halves = (0..CROWD).map(|_| {
        let mut socket = TcpStream::connect(gateway.address()).unwrap();
        std::io::Write::write_all(&mut socket, &hello[..hello.len() / 2]).unwrap();
        socket
    });
    let halves: Vec<_> = halves.collect();
    eventually("a client waits for a descriptor", || {
        (waits(gateway, "accept") > 0).then_some(())
    });
    halves
}

fn block(workspace: &Workspace, identity: &str) -> (Option<i32>, String) {
    let output = Command::new(program("portcullis"))
        .arg("block")
        .arg("--config")
        .arg(workspace.folder().join("portcullis.toml"))
        .args(["--identity", identity])
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

#[test]
fn while_clients_hold_every_descriptor_they_can_get_the_gateway_is_administered_as_ever() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let keys = format!("crl = [{list:?}]\nhandshake_timeout = \"1m\"");
    let gateway = workspace
        .setup()
        .top("drain_timeout = \"0s\"")
        .tables("[workers]\ncount = 2")
        .route("edge", &keys, &[backend.address()], "")
        .under(&["prlimit", LIMIT])
        .start();
    let request = Request::client("spiffe://example.test/agent/blocked");
    let to_block = workspace.agents.issue("blocked", request);
    let to_block = workspace.client().credentials(&to_block);
    let mut blocked = to_block.connect(gateway.address()).unwrap();
    let mut revoked = workspace.client().connect(gateway.address()).unwrap();
    ping(&mut blocked);
    ping(&mut revoked);
    let crowd = crowd(&workspace, &gateway);
    assert_eq!(gateway.admin("/livez").unwrap().0, 200);
    let (code, said) = block(&workspace, "spiffe://example.test/agent/blocked");
    assert_eq!(code, Some(0), "{said}");
    assert_ne!(blocked.receive_to_end().1, Closing::CloseNotify);
    ping(&mut revoked);
    let newer = RevocationList::of(&[&workspace.agent.certificate]).numbered(2);
    workspace.agents.revoke("agents.crl", &newer);
    assert_ne!(revoked.receive_to_end().1, Closing::CloseNotify);
    eventually("the log says that no descriptor is left", || {
        let log = gateway.log();
        log.contains("no descriptor is left for connections")
            .then_some(())
    });
    let metrics = gateway.metrics();
    let used = metrics.count("portcullis_connection_descriptors", &[]);
    let max = metrics.count("portcullis_connection_descriptors_max", &[]);
    assert!(used + 2 > max, "{used} of {max}");
    assert!(!gateway.log().contains("Too many open files"));
    // Who waited is served when the others have gone.
    drop(crowd);
    let request = Request::client("spiffe://example.test/agent/next");
    let next = workspace.agents.issue("next", request);
    let next = workspace.client().credentials(&next);
    ping(&mut next.connect(gateway.address()).unwrap());
}

#[test]
fn each_client_that_is_let_in_finds_a_descriptor_for_its_server() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .top("drain_timeout = \"0s\"")
        .tables("[workers]\ncount = 2")
        .route("edge", "", &[backend.address()], "")
        .under(&["prlimit", LIMIT])
        .start();
    let max = gateway
        .metrics()
        .count("portcullis_connection_descriptors_max", &[]);
    let mut clients: Vec<_> = (0..max / 2)
        .map(|_| workspace.client().connect(gateway.address()).unwrap())
        .collect();
    clients.iter_mut().for_each(ping);
    assert_eq!(waits(&gateway, "connect"), 0);
    // One more waits, and is served when another has gone.
    let waiting = TcpStream::connect(gateway.address()).unwrap();
    eventually("it waits", || (waits(&gateway, "accept") > 0).then_some(()));
    clients.pop().unwrap().abort();
    ping(&mut workspace.client().connect_over(waiting).unwrap());
    clients.iter_mut().for_each(ping);
}

#[test]
fn silent_connections_make_room_where_descriptors_are_short() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .top("drain_timeout = \"0s\"")
        .tables("[workers]\ncount = 1")
        .route(
            "edge",
            "first_byte_timeout = \"1m\"",
            &[backend.address()],
            "",
        )
        .under(&["prlimit", LIMIT])
        .start();
    let _silent: Vec<_> = (0..CROWD)
        .map(|_| TcpStream::connect(gateway.address()).unwrap())
        .collect();
    ping(&mut workspace.client().connect(gateway.address()).unwrap());
}

#[test]
fn a_limit_that_leaves_nothing_for_connections_is_refused_with_what_to_do() {
    let workspace = Workspace::new();
    let setup = workspace
        .setup()
        .tables("[workers]\ncount = 2")
        .route("edge", "", &[workspace.host.free()], "")
        .under(&["prlimit", "--nofile=256:256"]);
    let said = setup.refused();
    for words in ["the limit on open files is 256", "LimitNOFILE", "ulimit -n"] {
        assert!(said.contains(words), "{said}");
    }
}

/// A gateway whose budget has followed a limit that was lowered.
fn with_few_descriptors(workspace: &Workspace, backend: &Backend) -> Gateway {
    let mut gateway = workspace
        .setup()
        .top("drain_timeout = \"0s\"")
        .tables("[workers]\ncount = 1")
        .route(
            "edge",
            "handshake_timeout = \"1m\"",
            &[backend.address()],
            "",
        )
        .start();
    gateway.process().limit_descriptors(380);
    eventually("the budget follows the limit", || {
        let metrics = gateway.metrics();
        let max = metrics.count("portcullis_connection_descriptors_max", &[]);
        (max < 380).then_some(())
    });
    gateway
}

#[test]
fn a_limit_that_is_raised_while_the_gateway_runs_lets_those_in_who_wait() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = with_few_descriptors(&workspace, &backend);
    let _crowd = crowd(&workspace, &gateway);
    gateway.process().limit_descriptors(2048);
    ping(&mut workspace.client().connect(gateway.address()).unwrap());
}

/// `check` has fewer files open than `run`: both count the same.
#[test]
fn check_finds_a_limit_on_open_files_too_low_where_run_does() {
    let workspace = Workspace::new();
    let setup = || {
        let setup = workspace.setup().tables("[workers]\ncount = 2");
        setup.route("edge", "", &[workspace.host.free()], "")
    };
    let file = workspace.folder().join("portcullis.toml");
    let check = |limit: u64| {
        let output = Command::new("prlimit")
            .arg(format!("--nofile={limit}:{limit}"))
            .arg(program("portcullis"))
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    fs::write(&file, setup().text()).unwrap();
    let (_, said) = check(256);
    let least = said.split("Raise it to ").nth(1).unwrap();
    let least: u64 = least
        .split(|letter: char| !letter.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(!check(least - 1).0);
    let (is_good, said) = check(least);
    let warning = "the limit on open files is below what max_connections";
    assert!(is_good && said.contains(warning), "{said}");
    let limit = |limit: u64| format!("--nofile={limit}:{limit}");
    let refused = setup().under(&["prlimit", &limit(least - 1)]).refused();
    assert!(refused.contains("LimitNOFILE"), "{refused}");
    let gateway = setup().under(&["prlimit", &limit(least)]).start();
    assert!(gateway.log().contains(warning), "{}", gateway.log());
}

#[test]
fn a_limit_that_is_lowered_below_what_is_open_is_told() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = with_few_descriptors(&workspace, &backend);
    let missing = |gateway: &Gateway| {
        let metrics = gateway.metrics();
        metrics.count("portcullis_descriptors_missing", &[])
    };
    let _crowd = crowd(&workspace, &gateway);
    assert_eq!(missing(&gateway), 0);
    gateway.process().limit_descriptors(350);
    eventually("the metric tells", || (missing(&gateway) > 0).then_some(()));
    let told = "takes descriptors that are set aside";
    eventually("the log tells", || {
        gateway.log().contains(told).then_some(())
    });
    gateway.process().limit_descriptors(2048);
    eventually("they are there again", || {
        (missing(&gateway) == 0).then_some(())
    });
}
