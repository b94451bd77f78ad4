//! One name for a gateway: who holds it, who takes over, and how commands find it.
//! In: `portcullis run` several times with one configuration, commands beside it. Out: who serves, who is refused, who is
//! still blocked.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::thread::JoinHandle;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use tests::{
    Backend, Behaviour, Client, Credentials, Gateway, Process, Request, Setup, Workspace,
    eventually, program,
};

const FAILURES: &str = "portcullis_handshake_failures_total";
const BLOCKED: [(&str, &str); 2] = [("listener", "edge"), ("reason", "blocked")];

/// `portcullis block`: in force, and about no client that is connected or was lately.
const UNSEEN: i32 = 4;
/// In force, and not written.
const UNWRITTEN: i32 = 5;

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

fn setup<'w>(workspace: &'w Workspace, backend: &Backend) -> Setup<'w> {
    let setup = workspace.setup().top("drain_timeout = \"60s\"");
    let setup = setup.tables("[audit]\nfile = \"audit.jsonl\"\n");
    setup.route("edge", "", &[backend.address()], "")
}

/// `portcullis` with these arguments and the workspace's configuration.
fn command(workspace: &Workspace, arguments: &[&str]) -> Output {
    let mut program = Command::new(program("portcullis"));
    program.args(arguments).arg("--config");
    program.arg(workspace.folder().join("portcullis.toml"));
    program.output().unwrap()
}

fn ends_with(code: i32, output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

fn status(workspace: &Workspace) -> serde_json::Value {
    let output = command(workspace, &["status", "--json"]);
    ends_with(0, &output);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn other(workspace: &Workspace) -> Credentials {
    let request = Request::client("spiffe://example.test/agent/other");
    workspace.agents.issue("other", request)
}

fn connect(workspace: &Workspace, gateway: &Gateway, credentials: &Credentials) -> Client {
    let client = workspace.client().credentials(credentials);
    let mut client = client.connect(gateway.address()).unwrap();
    ping(&mut client);
    client
}

/// Waits for a line of the audit log with all these parts: it is written behind what it tells of.
fn audit_tells(workspace: &Workspace, parts: &[&str]) {
    eventually(&format!("the audit log tells {parts:?}"), || {
        let log = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
        let tells = |line: &str| parts.iter().all(|part| line.contains(part));
        log.lines().any(tells).then_some(())
    });
}

fn assert_blocked(workspace: &Workspace, gateway: &Gateway, credentials: &Credentials) {
    let before = gateway.metrics().count(FAILURES, &BLOCKED);
    let client = workspace.client().credentials(credentials);
    client.refused(gateway.address());
    gateway.wait_for(FAILURES, &BLOCKED, before + 1);
}

#[test]
fn a_second_process_of_one_name_is_refused_and_the_first_serves_on() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let mut stays = connect(&workspace, &gateway, &workspace.agent);
    for _ in 0..2 {
        let said = setup(&workspace, &backend).refused();
        assert!(said.contains(workspace.name()), "{said}");
        assert!(said.contains("--takeover"), "{said}");
        ping(&mut stays);
        connect(&workspace, &gateway, &workspace.agent);
    }
    assert_eq!(status(&workspace)["name"], workspace.name());
}

#[test]
fn a_gateway_of_another_name_does_not_share_the_ports_of_one_that_runs() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    // Made while it counts as the first one, so with the first one's port.
    let other = setup(&workspace, &backend).second();
    let said = other.refused();
    assert!(said.contains("another process does"), "{said}");
    connect(&workspace, &gateway, &workspace.agent);
}

#[test]
fn a_process_that_takes_over_keeps_the_blocked_out_while_the_first_one_drains() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = other(&workspace);
    let mut first = setup(&workspace, &backend).start();
    let whom = ["block", "--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNSEEN, &command(&workspace, &whom));
    let mut stays = connect(&workspace, &first, &other);

    let second = setup(&workspace, &backend).takes_over().start();
    eventually("the first one drains", || {
        first.log().contains("has taken over").then_some(())
    });
    assert_eq!(status(&workspace)["process"], second_process(&workspace));
    for _ in 0..8 {
        assert_blocked(&workspace, &second, &workspace.agent);
    }
    connect(&workspace, &second, &other);
    assert_eq!(second.metrics().count("portcullis_blocked_entries", &[]), 1);

    // The one that drains says goodbye to its last client in a quiet moment, and ends by itself.
    stays.receive_to_end();
    assert!(first.wait().success(), "{}", first.log());
    ends_with(0, &command(&workspace, &["unblock", whom[1], whom[2]]));
    connect(&workspace, &second, &workspace.agent);
}

/// In force, and not by the word of every process of the gateway.
const UNREACHED: i32 = 6;

/// Leaves no quiet moment to say goodbye in, until the connection ends.
fn busy(mut client: Client) -> JoinHandle<()> {
    std::thread::spawn(move || while client.send(b"ping").is_ok() && client.receive(4).is_ok() {})
}

#[test]
fn a_block_while_another_process_drains_cuts_and_counts_its_clients_though_nothing_can_be_written()
{
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = other(&workspace);
    let first = setup(&workspace, &backend).start();
    let goes = busy(connect(&workspace, &first, &workspace.agent));
    let goes_later = busy(connect(&workspace, &first, &other));
    let second = setup(&workspace, &backend).takes_over().start();
    assert_eq!(status(&workspace)["process"], second_process(&workspace));
    // Where not even root can make a file: a folder takes the place of the lock.
    let lock = workspace.state_folder().join("blocked.json.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    let whom = ["block", "--identity", "spiffe://example.test/agent/agent-1"];
    let said = ends_with(UNWRITTEN, &command(&workspace, &whom));
    assert!(
        said.contains("1 client that matches is connected"),
        "{said}"
    );
    assert!(said.contains("the last change: 1"), "{said}");
    goes.join().unwrap();
    assert_blocked(&workspace, &second, &workspace.agent);

    fs::remove_dir(&lock).unwrap();
    let whom = ["block", "--identity", "spiffe://example.test/agent/other"];
    let said = ends_with(0, &command(&workspace, &whom));
    assert!(
        said.contains("1 client that matches is connected"),
        "{said}"
    );
    assert!(said.contains("the last change: 1"), "{said}");
    goes_later.join().unwrap();
    for name in ["agent/agent-1", "agent/other"] {
        audit_tells(&workspace, &[name, "\"reason\":\"blocked\""]);
    }
}

#[test]
fn a_block_that_a_process_that_drains_does_not_hear_says_so() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    // One that is there and does not answer.
    let socket = workspace.run_folder().join("0000000.peer");
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    let said = ends_with(
        UNREACHED,
        &command(&workspace, &["block", whom[0], whom[1]]),
    );
    assert!(said.contains("0000000.peer"), "{said}");
    assert_blocked(&workspace, &gateway, &workspace.agent);
    // One that has ended is nobody's.
    drop(silent);
    ends_with(0, &command(&workspace, &["unblock", whom[0], whom[1]]));
    assert!(!socket.exists());
}

#[test]
fn a_process_that_would_take_over_without_the_block_list_is_refused() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let first = setup(&workspace, &backend).start();
    let whom = ["block", "--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNSEEN, &command(&workspace, &whom));
    let list = workspace.state_folder().join("blocked.json");
    let away = workspace.folder().join("blocked.away");
    fs::rename(&list, &away).unwrap();

    let said = setup(&workspace, &backend).takes_over().refused();
    assert!(said.contains("blocked.json"), "{said}");
    assert_blocked(&workspace, &first, &workspace.agent);

    fs::rename(&away, &list).unwrap();
    let second = setup(&workspace, &backend).takes_over().start();
    // The first one may still take a connection or two.
    eventually("the second one refuses it", || {
        workspace.client().refused(second.address());
        (second.metrics().count(FAILURES, &BLOCKED) > 0).then_some(())
    });
}

/// The process id in the lock: that of the process that holds the name.
fn second_process(workspace: &Workspace) -> u64 {
    let lock = fs::read_to_string(workspace.run_folder().join("lock")).unwrap();
    lock.parse().unwrap()
}

#[test]
fn without_a_process_to_take_over_from_a_gateway_starts_as_usual() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut first = setup(&workspace, &backend).start();
    first.process().kill();
    // Sockets and lock file of the killed one are still there.
    let mut command = Command::new(program("portcullis"));
    command.args(["run", "--takeover", "--config"]);
    command.arg(workspace.folder().join("portcullis.toml"));
    let mut process = tests::Process::start(workspace.folder(), "next", &mut command);
    eventually("it serves", || {
        process.expect_running();
        let output = self::command(&workspace, &["status"]);
        output.status.success().then_some(())
    });
    connect(&workspace, &first, &workspace.agent);
}

#[test]
fn no_mistake_in_the_configuration_takes_the_commands_for_emergencies_away() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let file = workspace.folder().join("portcullis.toml");
    let good = fs::read_to_string(&file).unwrap();
    let breaks: [fn(&str) -> String; 3] = [
        |good| good.replace("client_ca", "clients_ca"),
        |good| good.replace("[[listener]]", "[[listener]"),
        |good| good.replace("drain_timeout = \"60s\"", "drain_timeout = \"60s"),
    ];
    for (number, break_it) in breaks.into_iter().enumerate() {
        let mut victim = connect(&workspace, &gateway, &workspace.agent);
        fs::write(&file, break_it(&good)).unwrap();
        let said = ends_with(1, &command(&workspace, &["reload"]));
        assert!(said.contains("portcullis.toml:"), "{number}: {said}");
        let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
        let said = ends_with(0, &command(&workspace, &["block", whom[0], whom[1]]));
        assert!(
            said.contains("closed by the last change: 1"),
            "{number}: {said}"
        );
        victim.receive_to_end();
        let said = ends_with(0, &command(&workspace, &["blocked"]));
        assert!(said.contains("agent-1"), "{number}: {said}");
        let reloads = &status(&workspace)["reloads"];
        assert!(
            reloads["refused_because"].is_string(),
            "{number}: {reloads}"
        );
        ends_with(0, &command(&workspace, &["unblock", whom[0], whom[1]]));
    }
    fs::write(&file, good).unwrap();
    ends_with(0, &command(&workspace, &["reload"]));
    let by = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
    assert!(by.contains("portcullis reload of "), "{by}");
    assert_eq!(
        status(&workspace)["reloads"]["refused_because"],
        serde_json::Value::Null
    );
}

#[test]
fn the_environment_says_which_gateway_commands_are_for() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let mut victim = connect(&workspace, &gateway, &workspace.agent);
    let mut block = Command::new(program("portcullis"));
    block.args(["block", "--identity", "spiffe://example.test/agent/agent-1"]);
    let file = workspace.folder().join("portcullis.toml");
    let said = ends_with(0, &block.env("PORTCULLIS_CONFIG", file).output().unwrap());
    assert!(said.contains("closed by the last change: 1"), "{said}");
    victim.receive_to_end();
}

#[test]
fn another_name_in_the_file_of_a_running_gateway_takes_no_command_away_from_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let file = workspace.folder().join("portcullis.toml");
    let good = fs::read_to_string(&file).unwrap();
    let (name, other) = (workspace.name(), format!("{}-other", workspace.name()));
    let run = format!("{:?}", workspace.folder().join("run"));
    let moved = format!("{:?}", workspace.folder().join("moved"));
    for changed in [
        good.replace(name, &other),
        good.replace(name, &other).replace(&run, &moved),
    ] {
        fs::write(&file, &changed).unwrap();
        let mut victim = connect(&workspace, &gateway, &workspace.agent);
        let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
        let said = ends_with(0, &command(&workspace, &["block", whom[0], whom[1]]));
        assert!(said.contains("closed by the last change: 1"), "{said}");
        assert!(said.contains(name) && said.contains(&other), "{said}");
        victim.receive_to_end();
        let said = ends_with(0, &command(&workspace, &["blocked"]));
        assert!(
            said.contains("agent-1") && said.contains("in force"),
            "{said}"
        );
        ends_with(0, &command(&workspace, &["unblock", whom[0], whom[1]]));
        assert_eq!(status(&workspace)["name"], name);
        for refusing in [&["reload"][..], &["check", "--running"]] {
            let said = ends_with(1, &command(&workspace, refusing));
            assert!(said.contains("name or [paths]"), "{said}");
        }
    }
    // A file of the same name in another folder is another file.
    let elsewhere = workspace.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let namesake = format!("name = {other:?}\n[paths]\nrun = {run}\n");
    fs::write(elsewhere.join("portcullis.toml"), namesake).unwrap();
    let mut namesake = Command::new(program("portcullis"));
    namesake.args(["status", "--config", "portcullis.toml"]);
    ends_with(1, &namesake.current_dir(&elsewhere).output().unwrap());
    // One that was not started with this file is not meant; that it runs is said.
    let mut alone = Command::new(program("portcullis"));
    fs::write(
        workspace.folder().join("alone.toml"),
        format!("name = {other:?}\n[paths]\nrun = {run}\n"),
    )
    .unwrap();
    alone
        .args(["status", "--config"])
        .arg(workspace.folder().join("alone.toml"));
    let said = ends_with(1, &alone.output().unwrap());
    assert!(
        said.contains("these do") && said.contains(&format!("{name:?}")),
        "{said}"
    );
}

#[test]
fn a_name_on_the_command_line_leaves_the_folders_of_the_file_as_they_are() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let _gateway = setup(&workspace, &backend).start();
    let file = workspace.folder().join("portcullis.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace(workspace.name(), "another")).unwrap();
    let said = ends_with(
        0,
        &command(&workspace, &["status", "--name", workspace.name()]),
    );
    assert!(said.contains(workspace.name()), "{said}");
}

#[test]
fn silent_peers_of_the_control_socket_keep_no_command_waiting() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let _gateway = setup(&workspace, &backend).start();
    let socket = workspace.run_folder().join("control.sock");
    let silent: Vec<_> = (0..200)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    ends_with(0, &command(&workspace, &["status"]));
    ends_with(UNSEEN, &command(&workspace, &["block", "--serial", "0a1b"]));
    // Each is let go after a while.
    for mut stream in silent {
        let mut rest = Vec::new();
        // Reset or ended: it is over either way.
        let _ = stream.read_to_end(&mut rest);
    }
}

#[test]
fn check_asks_the_running_gateway_what_a_reload_would_refuse() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let said = ends_with(0, &command(&workspace, &["check", "--running"]));
    assert!(said.contains("would take it"), "{said}");
    let file = workspace.folder().join("portcullis.toml");
    let good = fs::read_to_string(&file).unwrap();
    let other = gateway.address().to_string().replace(":4317", ":4399");
    let moved = good.replace(&gateway.address().to_string(), &other);
    fs::write(
        &file,
        moved.replace("[admin]", "[workers]\ncount = 1\n[admin]"),
    )
    .unwrap();
    ends_with(0, &command(&workspace, &["check"]));
    let said = ends_with(1, &command(&workspace, &["check", "--running"]));
    for part in ["listener \"edge\"", ":4317", ":4399", "[workers] count"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn the_running_gateway_says_by_key_what_it_cannot_open_with_its_own_rights() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let _gateway = setup(&workspace, &backend).start();
    let file = workspace.folder().join("portcullis.toml");
    let good = fs::read_to_string(&file).unwrap();
    let log = workspace.folder().join("log");
    fs::create_dir(&log).unwrap();
    std::os::unix::fs::chown(&log, Some(54_321), Some(54_321)).unwrap();
    fs::write(&file, good.replace("audit.jsonl", "log/audit.jsonl")).unwrap();
    let mut socket = UnixStream::connect(workspace.run_folder().join("control.sock")).unwrap();
    let request = "POST /v1/check HTTP/1.0\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    for part in ["[audit] file", "CAP_DAC_OVERRIDE"] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let said = ends_with(1, &command(&workspace, &["reload"]));
    assert!(said.contains("[audit] file"), "{said}");
}

#[test]
fn an_empty_variable_blocks_nobody_and_a_star_everybody_only_when_asked_to() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let mut stays = connect(&workspace, &gateway, &workspace.agent);
    for (option, name, told) in [
        ("--identity", "", "the name is empty"),
        ("--serial", " ", "the name is empty"),
        ("--identity", "*", "means every client"),
    ] {
        let said = ends_with(2, &command(&workspace, &["block", option, name]));
        assert!(said.contains(told), "{said}");
        ping(&mut stays);
    }
    let nobody = ["block", "--identity", "spiffe://example.test/agent/no-such"];
    let said = ends_with(UNSEEN, &command(&workspace, &nobody));
    assert!(
        said.contains("no client matches that is connected or was recently"),
        "{said}"
    );
    ping(&mut stays);
    let all = ["block", "--identity", "*", "--everybody"];
    let said = ends_with(0, &command(&workspace, &all));
    assert!(said.contains("closed by the last change: 1"), "{said}");
    stays.receive_to_end();
    assert_blocked(&workspace, &gateway, &workspace.agent);
}

#[test]
fn silent_peers_of_the_administration_endpoint_give_way() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let address = workspace.host.at(9464);
    let gateway = setup(&workspace, &backend).admin(address).start();
    let silent: Vec<_> = (0..200)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    let (status, body) = gateway.admin("/livez").unwrap();
    assert_eq!((status, body.as_str()), (200, "alive\n"));
    for mut stream in silent {
        // Reset or ended: it is over either way.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn whom_the_next_process_does_not_admit_has_to_go_from_the_one_that_drains() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = other(&workspace);
    let start = |workers: usize, names: &[&str]| {
        let rule = |name: &&str| {
            format!("[[identity]]\nmatch = {{ uri = \"spiffe://example.test/agent/{name}\" }}\n")
        };
        let setup = workspace
            .setup()
            .top("drain_timeout = \"60s\"\nclose_spread = \"0s\"")
            // Fixed until a restart: that is what it is for.
            .tables(&format!("[workers]\ncount = {workers}"))
            .tables("[audit]\nfile = \"audit.jsonl\"")
            .identities(&names.iter().map(rule).collect::<String>());
        setup.route("edge", "", &[backend.address()], "")
    };
    let first = start(1, &["agent-1", "other"]).start();
    let mut stays = connect(&workspace, &first, &workspace.agent);
    let mut goes = connect(&workspace, &first, &other);
    let second = start(2, &["agent-1"]).takes_over().start();
    // Neither has a quiet moment to be told goodbye in.
    eventually("the client without a rule goes", || {
        ping(&mut stays);
        let is_served = goes.send(b"ping").is_ok() && goes.receive(4).is_ok();
        (!is_served).then_some(())
    });
    ping(&mut stays);
    audit_tells(&workspace, &["agent/other", "not_authorized"]);
    connect(&workspace, &second, &workspace.agent);
}

#[test]
fn a_process_that_drains_goes_by_the_file_that_the_next_one_serves_by() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = || setup(&workspace, &backend).top("close_spread = \"0s\"");
    let first = setup().start();
    let mut goes = connect(&workspace, &first, &workspace.agent);
    let text = setup().identities("").text();
    let file = workspace.folder().join("other.toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program("portcullis"));
    command.args(["run", "--takeover", "--config"]).arg(&file);
    let _second = Process::start(workspace.folder(), "second", &mut command);
    eventually("a client without a rule in the other file goes", || {
        let is_served = goes.send(b"ping").is_ok() && goes.receive(4).is_ok();
        (!is_served).then_some(())
    });
    audit_tells(&workspace, &["\"reason\":\"not_authorized\""]);
}

#[test]
fn a_takeover_that_fails_takes_nothing_from_the_process_that_runs() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let first = setup(&workspace, &backend).start();
    let mut stays = connect(&workspace, &first, &workspace.agent);
    let socket = workspace.run_folder().join("control.sock");
    eventually("commands are heard", || socket.exists().then_some(()));
    // Found out when addresses are bound already.
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let link = workspace.folder().join("leads-nowhere.jsonl");
    std::os::unix::fs::symlink("/nonesuch/audit.jsonl", &link).unwrap();
    let audit = format!("[audit]\nfile = {link:?}\n");
    let said = workspace
        .setup()
        .tables(&audit)
        .route("edge", "", &[backend.address()], "")
        .takes_over()
        .refused();
    assert!(said.contains("audit"), "{said}");
    fs::write(&file, text).unwrap();
    assert_eq!(first.admin("/livez").unwrap().0, 200);
    assert_eq!(status(&workspace)["state"], "serving");
    ping(&mut stays);
    // And the next one takes all of it.
    let second = setup(&workspace, &backend).takes_over().start();
    assert_eq!(status(&workspace)["process"], second_process(&workspace));
    assert_eq!(second.admin("/readyz").unwrap().0, 200);
}

/// Where not even root can make a file: a folder takes the place of the lock.
fn keep_from_writing_blocks(workspace: &Workspace) {
    let lock = workspace.state_folder().join("blocked.json.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
}

#[test]
fn a_block_that_could_not_be_written_keeps_a_process_from_giving_its_name_up() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let first = setup(&workspace, &backend).start();
    keep_from_writing_blocks(&workspace);
    let whom = ["block", "--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNWRITTEN, &command(&workspace, &whom));
    // As a process asks that has compared the lists before the block came.
    let mut asking = UnixStream::connect(workspace.run_folder().join("control.sock")).unwrap();
    let request = "POST /v1/takeover HTTP/1.0\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnull";
    asking.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 409"), "{answer}");
    assert!(answer.contains("blocked.json"), "{answer}");
    // The name is kept, and so is the block.
    let said = setup(&workspace, &backend).refused();
    assert!(said.contains("--takeover"), "{said}");
    assert_blocked(&workspace, &first, &workspace.agent);
    fs::remove_dir(workspace.state_folder().join("blocked.json.lock")).unwrap();
    ends_with(UNSEEN, &command(&workspace, &["block", "--serial", "0a1b"]));
    let second = setup(&workspace, &backend).takes_over().start();
    assert_eq!(status(&workspace)["process"], second_process(&workspace));
    eventually("the next process refuses it", || {
        workspace.client().refused(second.address());
        (second.metrics().count(FAILURES, &BLOCKED) > 0).then_some(())
    });
}

#[test]
fn a_block_that_cannot_be_written_while_the_name_is_given_up_is_refused_and_not_lost() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let first = setup(&workspace, &backend).start();
    keep_from_writing_blocks(&workspace);
    // As a process asks that takes over; it never puts its socket in place.
    let mut asking = UnixStream::connect(workspace.run_folder().join("control.sock")).unwrap();
    let request = "POST /v1/takeover HTTP/1.0\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnull";
    asking.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let whom = ["block", "--identity", "spiffe://example.test/agent/agent-1"];
    let said = ends_with(1, &command(&workspace, &whom));
    assert!(said.contains("run the command again"), "{said}");
    connect(&workspace, &first, &workspace.agent);
    eventually("a block acts that is given again", || {
        let output = command(&workspace, &whom);
        (output.status.code() == Some(UNWRITTEN)).then_some(())
    });
    assert_blocked(&workspace, &first, &workspace.agent);
}

#[test]
fn a_block_that_the_next_process_cannot_write_acts_in_the_one_that_drains() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = other(&workspace);
    let first = setup(&workspace, &backend).start();
    let mut stays = connect(&workspace, &first, &workspace.agent);
    let mut goes = connect(&workspace, &first, &other);
    let _second = setup(&workspace, &backend).takes_over().start();
    keep_from_writing_blocks(&workspace);
    let whom = ["block", "--identity", "spiffe://example.test/agent/other"];
    ends_with(UNWRITTEN, &command(&workspace, &whom));
    // Neither has a quiet moment to be told goodbye in.
    eventually("the blocked client goes", || {
        ping(&mut stays);
        let is_served = goes.send(b"ping").is_ok() && goes.receive(4).is_ok();
        (!is_served).then_some(())
    });
    ping(&mut stays);
    audit_tells(&workspace, &["agent/other", "\"reason\":\"blocked\""]);
}

#[test]
fn sockets_of_other_users_neither_hang_a_command_nor_hide_its_gateway() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let _gateway = setup(&workspace, &backend).start();
    // As many as any user can bind, found before the gateway's own; nobody listens to them.
    let (mut bound, mut silent) = (Vec::new(), Vec::new());
    for number in 0..40 {
        let folder = workspace.folder().join(format!("another-users/{number}"));
        fs::create_dir_all(&folder).unwrap();
        bound.push(UnixListener::bind(folder.join("9.sock")).unwrap());
        let socket = folder.join("control.sock");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let waits = UnixStream::connect(&socket).unwrap();
        bound.push(UnixListener::from(listener));
        silent.push(waits);
        for path in [&folder, &socket] {
            std::os::unix::fs::chown(path, Some(54_321), Some(54_321)).unwrap();
        }
    }
    // Commands have to look for it.
    let file = workspace.folder().join("portcullis.toml");
    let good = fs::read_to_string(&file).unwrap();
    let changed = good.replace(workspace.name(), &format!("{}-other", workspace.name()));
    fs::write(&file, changed).unwrap();
    let mut block = Command::new("timeout");
    block.arg("30").arg(program("portcullis"));
    block
        .args(["block", "--serial", "0a1b", "--config"])
        .arg(&file);
    ends_with(UNSEEN, &block.output().unwrap());
    assert_eq!(status(&workspace)["name"], workspace.name());
}

#[test]
fn a_process_that_asks_for_the_name_and_never_takes_it_leaves_the_gateway_serving() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let first = setup(&workspace, &backend).start();
    let mut stays = connect(&workspace, &first, &workspace.agent);
    // As a process does that takes over; it ends before it has the name.
    let mut asking = UnixStream::connect(workspace.run_folder().join("control.sock")).unwrap();
    let request = "POST /v1/takeover HTTP/1.0\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnull";
    std::io::Write::write_all(&mut asking, request.as_bytes()).unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    eventually("the gateway takes its name back", || {
        ping(&mut stays);
        assert_eq!(status(&workspace)["state"], "serving");
        first.log().contains("this one goes on").then_some(())
    });
    let said = setup(&workspace, &backend).refused();
    assert!(said.contains("--takeover"), "{said}");
    connect(&workspace, &first, &workspace.agent);
    let second = setup(&workspace, &backend).takes_over().start();
    assert_eq!(status(&workspace)["process"], second_process(&workspace));
    connect(&workspace, &second, &workspace.agent);
}

#[test]
fn a_list_of_another_name_is_warned_of_and_a_start_that_fails_leaves_no_folder() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let whom = ["block", "--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNSEEN, &command(&workspace, &whom));
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let other = format!("{}-other", workspace.name());
    fs::write(&file, text.replace(workspace.name(), &other)).unwrap();
    let warning = format!(
        "mv -T {} {}",
        workspace.state_folder().display(),
        workspace.state_folder().with_file_name(&other).display()
    );
    let said = ends_with(0, &command(&workspace, &["check"]));
    assert!(
        said.contains("1 entry") && said.contains(&warning),
        "{said}"
    );
    for arguments in [&["run"][..], &["run", "--takeover"]] {
        let said = ends_with(1, &command(&workspace, arguments));
        assert!(said.contains(&warning), "{said}");
        let is_told_to_take_over = said.contains("use `portcullis run --takeover`");
        assert_eq!(is_told_to_take_over, arguments.len() == 1, "{said}");
        assert!(!workspace.state_folder().with_file_name(&other).exists());
    }
    // As the warning says.
    drop(gateway);
    let moved = Command::new("sh").args(["-c", &warning]).status().unwrap();
    assert!(moved.success());
    let said = ends_with(0, &command(&workspace, &["check"]));
    assert!(!said.contains("mv -T"), "{said}");
    let said = ends_with(0, &command(&workspace, &["blocked"]));
    assert!(said.contains("agent-1"), "{said}");
}

#[test]
fn a_file_that_says_nothing_leads_to_the_gateway_that_runs_with_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = setup(&workspace, &backend).start();
    let file = workspace.folder().join("portcullis.toml");
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    let assert_meant = |told: &str| {
        let mut victim = connect(&workspace, &gateway, &workspace.agent);
        let said = ends_with(0, &command(&workspace, &["block", whom[0], whom[1]]));
        assert!(
            said.contains(told) && said.contains("this command speaks to it"),
            "{said}"
        );
        assert!(
            !said.contains("by now") && !said.contains("\"portcullis\""),
            "{said}"
        );
        victim.receive_to_end();
        ends_with(0, &command(&workspace, &["unblock", whom[0], whom[1]]));
    };
    fs::write(&file, "this is no TOML\n").unwrap();
    assert_meant("is broken");
    fs::remove_file(&file).unwrap();
    assert_meant("cannot be used");
}
