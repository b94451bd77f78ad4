//! The block list: who is shut out by hand, at once, without the CA, and who is let in again.
//! In: `portcullis block` and `unblock` beside a running gateway; files that are broken or gone. Out: who is cut off, who is
//! refused, who stays, what the commands say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tests::{
    Backend, Behaviour, Client, Closing, Credentials, Gateway, Request, Workspace, eventually,
    program, turned_round,
};

const ENDED: &str = "portcullis_connections_ended_total";
const FAILURES: &str = "portcullis_handshake_failures_total";
const ENTRIES: &str = "portcullis_blocked_entries";
const REFUSED: &str = "portcullis_block_file_refused";
/// `portcullis block`: in force, and about no client that is connected or was lately.
const UNSEEN: i32 = 4;
/// The command line is wrong.
const MISUSED: i32 = 2;
/// In force, and not written.
const UNWRITTEN: i32 = 5;
const BLOCKED: [(&str, &str); 2] = [("listener", "edge"), ("reason", "blocked")];

fn ping(client: &mut Client) {
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
}

fn list(workspace: &Workspace) -> PathBuf {
    workspace.state_folder().join("blocked.json")
}

/// Runs `portcullis COMMAND --config …` with further arguments.
fn command(workspace: &Workspace, command: &str, arguments: &[&str]) -> Output {
    let mut program = Command::new(program("portcullis"));
    program.arg(command).arg("--config");
    program.arg(workspace.folder().join("portcullis.toml"));
    program.args(arguments).output().unwrap()
}

/// The same, which has to end with this exit code; what it printed.
fn ends_with(code: i32, output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// What OpenSSL prints about a certificate behind the `=`.
fn openssl(certificate: &Path, what: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-in"]).arg(certificate);
    let output = command.args(what).output().unwrap();
    let text = ends_with(0, &output);
    text.trim().split_once('=').unwrap().1.to_owned()
}

fn connect(workspace: &Workspace, gateway: &Gateway, credentials: &Credentials) -> Client {
    let client = workspace.client().credentials(credentials);
    let mut client = client.connect(gateway.address()).unwrap();
    ping(&mut client);
    client
}

fn assert_refused(workspace: &Workspace, gateway: &Gateway, credentials: &Credentials) {
    let before = gateway.metrics().count(FAILURES, &BLOCKED);
    let client = workspace.client().credentials(credentials);
    client.refused(gateway.address());
    gateway.wait_for(FAILURES, &BLOCKED, before + 1);
}

/// A gateway that does not wait for its clients at its end.
fn start(workspace: &Workspace, backend: &Backend) -> Gateway {
    let setup = workspace.setup().top("drain_timeout = \"0s\"");
    let setup = setup.tables("[audit]\nfile = \"audit.jsonl\"\n");
    setup.route("edge", "", &[backend.address()], "").start()
}

/// The audit log's lines of one outcome.
fn audited(workspace: &Workspace, outcome: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace.folder().join("audit.jsonl")).unwrap();
    let named = format!("\"outcome\":\"{outcome}\"");
    let lines = text.lines().filter(|line| line.contains(&named));
    lines.map(str::to_owned).collect()
}

/// An agent beside the one that is to be shut out.
fn other(workspace: &Workspace) -> Credentials {
    let request = Request::client("spiffe://example.test/agent/other");
    workspace.agents.issue("other", request)
}

/// Ways to say whom.
const NAMES: [fn(&Credentials) -> [String; 2]; 4] = [
    |agent| {
        let serial = openssl(&agent.certificate, &["-serial"]);
        ["--serial".into(), serial]
    },
    |agent| {
        let sum = openssl(&agent.certificate, &["-fingerprint", "-sha256"]);
        ["--fingerprint".into(), sum]
    },
    |_| {
        [
            "--identity".into(),
            "spiffe://example.test/agent/agent-1".into(),
        ]
    },
    |_| {
        [
            "--identity".into(),
            "spiffe://example.test/agent/agent*".into(),
        ]
    },
];

#[test]
fn a_block_cuts_off_refuses_survives_a_restart_and_is_undone_by_unblock() {
    for name in NAMES {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        let other = other(&workspace);
        let [kind, name] = &name(&workspace.agent);
        let whom = [kind.as_str(), name.as_str()];
        let mut gateway = start(&workspace, &backend);
        let mut victims = [(); 2].map(|()| connect(&workspace, &gateway, &workspace.agent));
        let mut stays = connect(&workspace, &gateway, &other);

        let arguments = [
            &whom[..],
            &["--reason", "its key was found on a memory stick"],
        ]
        .concat();
        let said = ends_with(0, &command(&workspace, "block", &arguments));
        assert!(
            said.contains("in force; connections closed by the last change: 2"),
            "{said}"
        );
        for victim in &mut victims {
            assert_ne!(victim.receive_to_end().1, Closing::CloseNotify);
        }
        let metrics = gateway.wait_for(ENDED, &BLOCKED, 2);
        assert_eq!(metrics.count(ENTRIES, &[]), 1);
        assert_eq!(
            metrics.count("portcullis_change_to_close_seconds_count", &BLOCKED),
            2
        );
        assert_refused(&workspace, &gateway, &workspace.agent);
        ping(&mut stays);
        eventually("the audit log says who did it and why", || {
            let lines = audited(&workspace, "blocked");
            let whole = |line: &String| {
                ["memory stick", "(uid "]
                    .iter()
                    .all(|part| line.contains(part))
            };
            (lines.len() == 1 && lines.iter().all(whole)).then_some(())
        });
        let said = ends_with(0, &command(&workspace, "blocked", &[]));
        assert!(
            said.contains("memory stick")
                && said.contains(": in force")
                && !said.contains("not in force"),
            "{said}"
        );

        gateway.terminate();
        gateway.wait();
        let gateway = start(&workspace, &backend);
        assert_refused(&workspace, &gateway, &workspace.agent);
        let mut stays = connect(&workspace, &gateway, &other);

        let said = ends_with(0, &command(&workspace, "unblock", &whom));
        assert!(said.contains("in force"), "{said}");
        connect(&workspace, &gateway, &workspace.agent);
        ping(&mut stays);
        gateway.wait_for(ENTRIES, &[], 0);
        eventually("the audit log says that too", || {
            (audited(&workspace, "unblocked").len() == 1).then_some(())
        });
        ends_with(1, &command(&workspace, "unblock", &whom));
    }
}

#[test]
fn a_ticket_of_somebody_who_is_blocked_is_worth_nothing() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let client = workspace.client().remembering();
    let edge = [("listener", "edge")];
    for resumed in [0, 1] {
        let mut connection = client.connect(gateway.address()).unwrap();
        ping(&mut connection);
        gateway.wait_for("portcullis_handshakes_resumed_total", &edge, resumed);
    }
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(0, &command(&workspace, "block", &whom));
    client.refused(gateway.address());
    gateway.wait_for("portcullis_tickets_refused_total", &BLOCKED, 1);
    gateway.wait_for(FAILURES, &BLOCKED, 1);
}

#[test]
fn a_certificate_whose_holder_turned_its_signature_round_is_blocked_with_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let original = CertificateDer::from_pem_file(&workspace.agent.certificate).unwrap();
    let other = workspace.folder().join("turned-round.der");
    fs::write(&other, turned_round(&original)).unwrap();
    let pem = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-in"])
        .arg(&other)
        .output()
        .unwrap();
    let twin = Credentials {
        certificate: workspace.folder().join("turned-round.pem"),
        key: workspace.agent.key.clone(),
    };
    fs::write(&twin.certificate, ends_with(0, &pem)).unwrap();
    let client = workspace.client().credentials(&twin).remembering();
    let mut connection = client.connect(gateway.address()).unwrap();
    ping(&mut connection);
    let sum = openssl(&workspace.agent.certificate, &["-fingerprint", "-sha256"]);
    assert_ne!(
        sum,
        openssl(&twin.certificate, &["-fingerprint", "-sha256"])
    );
    let said = command(&workspace, "block", &["--fingerprint", &sum]);
    let said = ends_with(0, &said);
    assert!(
        said.contains("connections closed by the last change: 1"),
        "{said}"
    );
    assert_ne!(connection.receive_to_end().1, Closing::CloseNotify);
    client.refused(gateway.address());
    gateway.wait_for("portcullis_tickets_refused_total", &BLOCKED, 1);
    gateway.wait_for(FAILURES, &BLOCKED, 1);
    assert_refused(&workspace, &gateway, &workspace.agent);
}

#[test]
fn a_configuration_that_is_broken_keeps_no_block_from_acting() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let mut victim = connect(&workspace, &gateway, &workspace.agent);
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("client_ca", "clients_ca")).unwrap();
    gateway.wait_for("portcullis_reloads_total", &[("result", "refused")], 1);
    let whom = ["--identity", "spiffe://example.test/agent/*"];
    ends_with(0, &command(&workspace, "block", &whom));
    assert_ne!(victim.receive_to_end().1, Closing::CloseNotify);
    assert_refused(&workspace, &gateway, &workspace.agent);
}

#[test]
fn a_list_that_is_broken_or_gone_lets_nobody_in() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = start(&workspace, &backend);
    let mut stays = connect(&workspace, &gateway, &other(&workspace));
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNSEEN, &command(&workspace, "block", &whom));
    let good = fs::read(list(&workspace)).unwrap();

    let breaks: [fn(&Path, &[u8]); 4] = [
        |list, good| fs::write(list, &good[..good.len() / 2]).unwrap(),
        |list, _| fs::write(list, "").unwrap(),
        |list, _| fs::write(list, "{\"blocked\": [{\"serial\": \"no number\"}]}").unwrap(),
        |list, _| fs::remove_file(list).unwrap(),
    ];
    for break_list in breaks {
        break_list(&list(&workspace), &good);
        gateway.wait_for(REFUSED, &[], 1);
        assert_refused(&workspace, &gateway, &workspace.agent);
        ping(&mut stays);
        fs::write(list(&workspace), &good).unwrap();
        let metrics = gateway.wait_for(REFUSED, &[], 0);
        assert_eq!(metrics.count(ENTRIES, &[]), 1);
        assert_refused(&workspace, &gateway, &workspace.agent);
    }

    gateway.terminate();
    gateway.wait();
    fs::write(list(&workspace), "{").unwrap();
    let setup = workspace
        .setup()
        .route("edge", "", &[backend.address()], "");
    let said = setup.refused();
    assert!(said.contains("is not a block list"), "{said}");
}

/// Files beside the list that were put aside, by their text.
fn aside(workspace: &Workspace) -> Vec<String> {
    let files = fs::read_dir(workspace.state_folder()).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let is_aside = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with("blocked.json.refused-")
    };
    let texts = files
        .filter(is_aside)
        .map(|file| fs::read_to_string(file).unwrap());
    texts.collect()
}

#[test]
fn a_block_acts_although_its_file_is_broken_or_gone_and_writes_it_anew() {
    /// What is broken, where something is left of it.
    type Break = (Option<&'static str>, fn(&Path, &str));
    let breaks: [Break; 3] = [
        (Some("half"), |list, good| {
            fs::write(list, &good[..good.len() / 2]).unwrap();
        }),
        // As a later version may write it.
        (Some("until"), |list, good| {
            fs::write(
                list,
                good.replace("\"by\"", "\"until\": \"tomorrow\", \"by\""),
            )
            .unwrap();
        }),
        (None, |list, _| fs::remove_file(list).unwrap()),
    ];
    for (name, break_list) in breaks {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        fs::create_dir_all(workspace.state_folder()).unwrap();
        fs::write(list(&workspace), "{\"blocked\": []}").unwrap();
        let mut gateway = start(&workspace, &backend);
        let other = other(&workspace);
        let mut victim = connect(&workspace, &gateway, &other);
        let first = ["--identity", "spiffe://example.test/agent/agent-1"];
        ends_with(UNSEEN, &command(&workspace, "block", &first));
        let good = fs::read_to_string(list(&workspace)).unwrap();
        break_list(&list(&workspace), &good);
        let broken = fs::read_to_string(list(&workspace)).ok();
        gateway.wait_for(REFUSED, &[], 1);

        let second = ["--identity", "spiffe://example.test/agent/other"];
        let said = ends_with(0, &command(&workspace, "block", &second));
        assert_eq!(said.contains("it is kept as"), name.is_some(), "{said}");
        assert_ne!(victim.receive_to_end().1, Closing::CloseNotify);
        gateway.wait_for(REFUSED, &[], 0);
        assert_eq!(aside(&workspace), Vec::from_iter(broken), "{name:?}");

        // The file holds both: a process that begins with it knows them.
        gateway.terminate();
        gateway.wait();
        let gateway = start(&workspace, &backend);
        assert_refused(&workspace, &gateway, &workspace.agent);
        assert_refused(&workspace, &gateway, &other);
        ends_with(0, &command(&workspace, "unblock", &first));
        connect(&workspace, &gateway, &workspace.agent);
    }
}

#[test]
fn a_block_that_cannot_be_written_is_in_force_and_is_written_with_the_next_one() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let other = other(&workspace);
    let mut victim = connect(&workspace, &gateway, &other);
    let mut second = connect(&workspace, &gateway, &workspace.agent);
    // Where not even root can make a file: a folder takes the place of the lock.
    let lock = workspace.state_folder().join("blocked.json.lock");
    let _ = fs::remove_file(&lock);
    fs::create_dir(&lock).unwrap();
    let whom = ["--identity", "spiffe://example.test/agent/other"];
    let said = ends_with(UNWRITTEN, &command(&workspace, "block", &whom));
    assert!(said.contains("a restart forgets it"), "{said}");
    assert_ne!(victim.receive_to_end().1, Closing::CloseNotify);
    assert_refused(&workspace, &gateway, &other);
    gateway.wait_for("portcullis_block_list_unwritten", &[], 1);
    let said = ends_with(0, &command(&workspace, "blocked", &[]));
    assert!(
        said.contains("agent/other") && said.contains("not all of it could be written"),
        "{said}"
    );
    assert!(!list(&workspace).exists());
    // A process that would not know of it may not take over.
    let setup = workspace.setup().top("drain_timeout = \"0s\"");
    let setup = setup.route("edge", "", &[backend.address()], "");
    let said = setup.takes_over().refused();
    assert!(said.contains("blocked.json"), "{said}");
    // The same list, written elsewhere, takes nothing back.
    fs::write(list(&workspace), "{\"blocked\": []}").unwrap();
    assert_refused(&workspace, &gateway, &other);

    fs::remove_dir(&lock).unwrap();
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(0, &command(&workspace, "block", &whom));
    assert_ne!(second.receive_to_end().1, Closing::CloseNotify);
    gateway.wait_for("portcullis_block_list_unwritten", &[], 0);
    let text = fs::read_to_string(list(&workspace)).unwrap();
    assert!(
        text.contains("agent/other") && text.contains("agent/agent-1"),
        "{text}"
    );
}

#[test]
fn a_block_of_a_kind_and_a_trust_domain_leaves_the_same_name_of_others_alone() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let name = "spiffe://example.test/agent/agent-1";
    // A list of before, of any kind.
    fs::create_dir_all(workspace.state_folder()).unwrap();
    let old =
        r#"{"blocked": [{"identity": "nobody", "by": "a test", "at": "2026-01-01T00:00:00Z"}]}"#;
    fs::write(list(&workspace), old).unwrap();
    let gateway = start(&workspace, &backend);
    gateway.wait_for(ENTRIES, &[], 1);
    let mut stays = connect(&workspace, &gateway, &workspace.agent);
    let block = |limits: &[&str]| {
        let arguments = [&["--identity", name][..], limits].concat();
        command(&workspace, "block", &arguments)
    };
    // The agent's CA is bound to no trust domain, and the name is a URI.
    for limits in [
        &["--kind", "cn"][..],
        &["--kind", "dns"],
        &["--trust-domain", "example.test"],
    ] {
        let said = ends_with(UNSEEN, &block(limits));
        assert!(said.contains("no client matches"), "{said}");
        ping(&mut stays);
    }
    let said = ends_with(0, &block(&["--kind", "uri"]));
    assert!(
        said.contains("1 client that matches is connected"),
        "{said}"
    );
    assert_ne!(stays.receive_to_end().1, Closing::CloseNotify);
    let said = ends_with(0, &command(&workspace, "blocked", &[]));
    for kind in [
        "identity (cn)",
        "identity (uri)",
        "identity (of example.test)",
    ] {
        assert!(said.contains(kind), "{said}");
    }
    // Exactly this entry is undone.
    ends_with(1, &command(&workspace, "unblock", &["--identity", name]));
    let whom = ["--identity", name, "--kind", "uri"];
    ends_with(0, &command(&workspace, "unblock", &whom));
    connect(&workspace, &gateway, &workspace.agent);
    let said = ends_with(MISUSED, &block(&["--kind", "email"]));
    assert!(said.contains("must be one of uri, dns, cn, ip"), "{said}");
    let said = command(&workspace, "block", &["--serial", "01", "--kind", "uri"]);
    assert!(ends_with(MISUSED, &said).contains("--identity"));
}

#[test]
fn a_block_says_how_many_clients_it_is_about_that_are_connected_and_that_were_lately() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let connected = connect(&workspace, &gateway, &workspace.agent);
    let _again = connect(&workspace, &gateway, &workspace.agent);
    drop(connect(&workspace, &gateway, &other(&workspace)));
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 2);
    let whom = ["--identity", "spiffe://example.test/agent/*"];
    let said = ends_with(0, &command(&workspace, "block", &whom));
    assert!(
        said.contains("1 client that matches is connected, 1 client more was recently"),
        "{said}"
    );
    drop(connected);
    let said = ends_with(0, &command(&workspace, "block", &whom));
    assert!(said.contains("blocked already"), "{said}");
    let whom = ["--identity", "spiffe://example.test/agent/other"];
    let said = ends_with(0, &command(&workspace, "block", &whom));
    assert!(
        said.contains("1 client that matches was connected recently"),
        "{said}"
    );
}

#[test]
fn a_command_says_what_it_could_not_confirm() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = start(&workspace, &backend);
    gateway.terminate();
    gateway.wait();
    let said = ends_with(3, &command(&workspace, "block", &["--serial", "0a:1b"]));
    assert!(said.contains("not in force yet"), "{said}");
    let said = ends_with(0, &command(&workspace, "blocked", &["--json"]));
    assert!(said.contains("\"serial\": \"0a1b\""), "{said}");
    for (option, value, expected) in [
        ("--serial", "no number", "hexadecimal"),
        ("--serial-decimal", "0x12", "decimal"),
        ("--serial-decimal", " 12", "white space"),
        ("--fingerprint", "abcd", "SHA-256"),
        ("--identity", "a*b", "at its end"),
        ("--name", "a/b", "letters"),
    ] {
        let said = command(&workspace, "block", &[option, value]);
        let said = ends_with(MISUSED, &said);
        let is_named = said.contains(option) && said.contains(expected);
        assert!(is_named, "{option} {value:?}: {said}");
    }
    for reason in ["two\nlines", "\u{1b}[2J", &"long".repeat(300)] {
        let arguments = ["--serial", "01", "--reason", reason];
        let said = ends_with(MISUSED, &command(&workspace, "block", &arguments));
        assert!(said.contains("must be one line"), "{said}");
    }
    ends_with(MISUSED, &command(&workspace, "block", &[]));
    ends_with(
        MISUSED,
        &command(&workspace, "block", &["--serial", "01", "--identity", "a"]),
    );
}

#[test]
fn commands_at_the_same_time_all_see_their_block_in_force() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    std::thread::scope(|scope| {
        let commands = (0..8).map(|number| {
            let name = format!("spiffe://example.test/agent/stolen-{number}");
            let workspace = &workspace;
            scope.spawn(move || command(workspace, "block", &["--identity", &name]))
        });
        for running in commands.collect::<Vec<_>>() {
            let said = ends_with(UNSEEN, &running.join().unwrap());
            assert!(said.contains("in force"), "{said}");
        }
    });
    gateway.wait_for(ENTRIES, &[], 8);
}

#[test]
fn a_block_beside_twenty_thousand_others_acts_as_soon_as_one_that_is_alone() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let entry = |number: usize| {
        let end = ["", "*"][number % 2];
        format!(
            r#"{{"identity": "spiffe://example.test/gone/{number}{end}", "by": "a test", "at": "2026-01-01T00:00:00Z"}}"#
        )
    };
    let entries: Vec<_> = (0..20_000).map(entry).collect();
    let text = format!(r#"{{"blocked": [{}]}}"#, entries.join(","));
    fs::create_dir_all(workspace.state_folder()).unwrap();
    fs::write(list(&workspace), text).unwrap();
    let gateway = start(&workspace, &backend);
    gateway.wait_for(ENTRIES, &[], 20_000);
    let mut victim = connect(&workspace, &gateway, &workspace.agent);
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    // Not confirmed within its five seconds would be exit code 3.
    ends_with(0, &command(&workspace, "block", &whom));
    ends_with(0, &command(&workspace, "unblock", &whom));
    assert_ne!(victim.receive_to_end().1, Closing::CloseNotify);
}

#[test]
fn a_block_outlives_a_reload_of_the_configuration() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let other = other(&workspace);
    let mut gateway = start(&workspace, &backend);
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNSEEN, &command(&workspace, "block", &whom));
    assert_refused(&workspace, &gateway, &workspace.agent);
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    assert_refused(&workspace, &gateway, &workspace.agent);
    connect(&workspace, &gateway, &other);
}

#[test]
fn a_broken_list_of_a_gateway_that_is_down_is_told_with_what_to_do() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    ends_with(UNSEEN, &command(&workspace, "block", &whom));
    drop(gateway);
    let whole = fs::read(list(&workspace)).unwrap();
    fs::write(list(&workspace), &whole[..whole.len() / 2]).unwrap();
    let path = list(&workspace).display().to_string();
    for (program, arguments) in [
        ("check", &[][..]),
        ("run", &[]),
        ("blocked", &[]),
        ("block", &whom),
        ("unblock", &whom),
    ] {
        let said = ends_with(1, &command(&workspace, program, arguments));
        for words in [
            "ends too early",
            "put a copy back",
            "Repair it by hand",
            &format!("mv {path} {path}.broken"),
        ] {
            assert!(said.contains(words), "{program}: {words}: {said}");
        }
        assert_eq!(
            fs::read(list(&workspace)).unwrap(),
            whole[..whole.len() / 2]
        );
    }
    // As it says.
    fs::rename(&path, format!("{path}.broken")).unwrap();
    ends_with(3, &command(&workspace, "block", &whom));
    let gateway = start(&workspace, &backend);
    assert_refused(&workspace, &gateway, &workspace.agent);
}

#[test]
fn an_unblock_that_finds_nothing_names_the_entry_of_the_same_name() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = start(&workspace, &backend);
    let whom = ["--identity", "agent-1"];
    let of_kind = [&whom[..], &["--kind", "cn"]].concat();
    ends_with(UNSEEN, &command(&workspace, "block", &of_kind));
    let assert_named = || {
        let said = ends_with(1, &command(&workspace, "unblock", &whom));
        assert!(said.contains("identity (cn) agent-1 is:"), "{said}");
    };
    assert_named();
    drop(gateway);
    assert_named();
}
