//! The audit log: every line of it documented, none of it lost in a rotation. In: real clients, good and bad, and what
//! operators do. Out: the lines, parsed, against docs/audit.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tests::{
    Authority, Backend, Behaviour, Gateway, Request, RevocationList, Setup, Usage, Workspace,
    eventually, program,
};

/// The log's file in the test's folder.
fn log_file(workspace: &Workspace) -> PathBuf {
    workspace.folder().join("audit.jsonl")
}

fn audited<'a>(workspace: &'a Workspace, backend: &Backend) -> Setup<'a> {
    workspace
        .setup()
        .tables("[audit]\nfile = \"audit.jsonl\"\n")
        .route("edge", "", &[backend.address()], "")
}

/// Whole lines of a file, each an object.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Waits until the file has so many lines of an event with an outcome or reason.
fn wait_for(file: &Path, event: &str, kind: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines {event} {kind}"), || {
        let found: Vec<_> = lines(file)
            .into_iter()
            .filter(|line| line["event"] == event)
            .filter(|line| line["outcome"] == kind || line["reason"] == kind)
            .collect();
        (found.len() >= count).then_some(found)
    })
}

/// One client in, one message, and out again.
fn visit(workspace: &Workspace, gateway: &Gateway) {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    assert_eq!(client.receive(4).unwrap(), b"ping");
    client.finish();
    client.receive_to_end();
}

/// Serial number and SHA-256 of a certificate as somebody else reads them.
/// The last second of a certificate, as OpenSSL prints it and the log writes it.
fn last_second(certificate: &Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"])
        .arg(certificate)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let second = text.trim().strip_prefix("notAfter=").unwrap();
    second.replace(' ', "T").replace('Z', ".000000Z")
}

fn openssl(certificate: &Path) -> (String, String) {
    let output = Command::new("openssl")
        .args([
            "x509",
            "-noout",
            "-serial",
            "-fingerprint",
            "-sha256",
            "-in",
        ])
        .arg(certificate)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
    let mut values = text
        .lines()
        .map(|line| line.split_once('=').unwrap().1.replace(':', ""));
    (values.next().unwrap(), values.next().unwrap())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Number(_) => "number",
        Value::String(text) if text.len() == 27 && text.ends_with('Z') => "time",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Bool(_) => "flag",
        other => panic!("no field is {other}"),
    }
}

/// Event to its fields with their types, from the page.
fn documented() -> BTreeMap<String, BTreeSet<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit.md");
    let page = fs::read_to_string(path).unwrap();
    let mut events = BTreeMap::<String, BTreeSet<_>>::new();
    let mut event = None;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            event = heading
                .strip_prefix('`')
                .and_then(|rest| rest.strip_suffix('`'));
        } else if let (Some(event), Some(row)) = (event, line.strip_prefix("| `")) {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let field = (
                cells.next().unwrap().to_owned(),
                cells.next().unwrap().to_owned(),
            );
            assert!(events.entry(event.to_owned()).or_default().insert(field));
        }
        if let Some(event) = event {
            events.entry(event.to_owned()).or_default();
        }
    }
    events
}

fn rotate_keys(workspace: &Workspace, arguments: &[&str]) {
    let status = Command::new(program("portcullis"))
        .args(["keys", "rotate"])
        .args(arguments)
        .arg(workspace.folder().join("tickets.keys"))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_rotation_of_keys_is_said_and_what_became_of_the_old_ones() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    rotate_keys(&workspace, &[]);
    let mut gateway = workspace
        .setup()
        .tables("[audit]\nfile = \"audit.jsonl\"\n[tls.resumption]\nkey_file = \"tickets.keys\"\n")
        .route("edge", "", &[backend.address()], "")
        .start();
    let file = log_file(&workspace);
    gateway.process().signal(Signal::HUP);
    wait_for(&file, "reload", "taken", 1);
    rotate_keys(&workspace, &[]);
    gateway.process().signal(Signal::HUP);
    let rotated = wait_for(&file, "keys", "rotated", 1).remove(0);
    assert_eq!(
        (&rotated["keys"], &rotated["epoch"]),
        (&2.into(), &0.into())
    );
    let by = rotated["by"].as_str().unwrap();
    assert!(by.contains("(uid "), "{by}");
    rotate_keys(&workspace, &["--distrust"]);
    gateway.process().signal(Signal::HUP);
    let distrusted = wait_for(&file, "keys", "distrusted", 1).remove(0);
    assert_eq!(
        (&distrusted["keys"], &distrusted["epoch"]),
        (&1.into(), &1.into())
    );
    let keys = lines(&file)
        .into_iter()
        .filter(|line| line["event"] == "keys");
    assert_eq!(
        keys.count(),
        2,
        "a reload without a new key says nothing of keys"
    );
}

#[test]
fn every_field_of_every_line_is_in_the_audit_page_and_the_other_way_round() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    rotate_keys(&workspace, &[]);
    let agents = workspace.agents.certificate();
    let setup = workspace
        .setup()
        .client_authorities(&format!(
            "{{ file = {agents:?}, trust_domain = \"example.test\" }}"
        ))
        .tables("[audit]\nfile = \"audit.jsonl\"\n[tls.resumption]\nkey_file = \"tickets.keys\"\n")
        .route("edge", "alpn = [\"h2\"]", &[backend.address()], "")
        .route("other", "alpn = [\"h2\"]", &[backend.address()], "");
    // Observes what would refuse everybody.
    let next = setup.text().replace("/agent/*", "/nobody/*");
    fs::write(workspace.folder().join("next.toml"), next).unwrap();
    let mut gateway = setup.top("observe = \"next.toml\"").start();
    let file = log_file(&workspace);
    // The second one refuses the first one's ticket.
    let client = workspace.client().alpn("h2").remembering();
    for listener in ["edge", "other"] {
        let mut client = client.connect(gateway.address_of(listener)).unwrap();
        client.send(b"x").unwrap();
        client.receive(1).unwrap();
        client.finish();
        client.receive_to_end();
    }
    wait_for(&file, "end", "finished", 2);
    let nobody = Request::client("spiffe://example.test/nobody");
    let nobody = workspace.agents.issue("nobody", nobody);
    let client = workspace.client().alpn("h2").credentials(&nobody);
    client.refused(gateway.address());
    wait_for(&file, "handshake", "not_authorized", 1);
    // The change of the file is a cause by itself.
    rotate_keys(&workspace, &["--distrust"]);
    gateway.process().signal(Signal::HUP);
    let sender = format!("process {}", std::process::id());
    eventually("the sender of the signal is in the audit log", || {
        let named = |line: &Value| {
            line["cause"]
                .as_str()
                .is_some_and(|who| who.ends_with(&sender))
        };
        lines(&file).iter().any(named).then_some(())
    });
    fs::write(
        workspace.folder().join("portcullis.toml"),
        "no configuration",
    )
    .unwrap();
    wait_for(&file, "reload", "refused", 1);
    gateway.terminate();
    assert!(gateway.wait().success());

    let lines = lines(&file);
    let mut there = BTreeMap::<String, BTreeSet<_>>::new();
    for line in &lines {
        let fields = there
            .entry(line["event"].as_str().unwrap().to_owned())
            .or_default();
        assert_eq!(kind_of(&line["time"]), "time", "{line}");
        let fields_of_line = line.as_object().unwrap().iter();
        fields.extend(
            fields_of_line
                .filter(|(name, _)| !["event", "time"].contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), kind_of(value).to_owned())),
        );
    }
    // Takes a disk that cannot keep up; the test of the queue makes one.
    let dropped = BTreeSet::from([("lines".to_owned(), "number".to_owned())]);
    there.insert("dropped".to_owned(), dropped);
    // After `portcullis block`, which has a test of its own.
    let block = [
        "outcome",
        "kind",
        "whom",
        "identity_kind",
        "trust_domain",
        "by",
        "reason",
    ];
    let block = block.map(|field| (field.to_owned(), "text".to_owned()));
    there.insert("block".to_owned(), BTreeSet::from(block));
    // After a request, which takes a listener of HTTP mode.
    let texts = [
        "connection",
        "listener",
        "peer",
        "method",
        "path",
        "reason",
        "backend",
        "server",
        "trace_id",
        "identity",
        "identity_kind",
        "trust_domain",
        "tenant",
        "fingerprint",
    ];
    let numbers = [
        "status",
        "grpc_status",
        "received_bytes",
        "sent_bytes",
        "duration_microseconds",
        "waited_microseconds",
        "server_microseconds",
        "retries",
        "rule",
    ];
    let kinds = texts.map(|field| (field, "text")).into_iter();
    let kinds = kinds.chain(numbers.map(|field| (field, "number")));
    let kinds = kinds.chain([("complete", "flag")]);
    let request = kinds.map(|(field, kind)| (field.to_owned(), kind.to_owned()));
    there.insert("request".to_owned(), request.collect());
    let called = ["method", "path"].map(|field| (field.to_owned(), "text".to_owned()));
    let foreseen = there.entry("foreseen".to_owned()).or_default();
    foreseen.extend(called);
    // After `portcullis crl accept`, likewise.
    let accepted = ["issuer", "list", "before", "by"];
    let accepted = accepted.map(|field| (field.to_owned(), "text".to_owned()));
    there.insert("crl_accepted".to_owned(), BTreeSet::from(accepted));
    // After a ban, which takes the guard and is among its tests.
    let ban = ["outcome", "source", "reason", "by"].map(|field| (field, "text"));
    let ban = ban
        .into_iter()
        .chain([("lasts_seconds", "number"), ("port", "number")]);
    let ban = ban.map(|(field, kind)| (field.to_owned(), kind.to_owned()));
    there.insert("guard_ban".to_owned(), ban.collect());
    // After a change of `[audit] file`, which has a test of its own.
    let target = BTreeSet::from([("target".to_owned(), "text".to_owned())]);
    there.insert("continued".to_owned(), target);
    assert_eq!(there, documented());
    assert_eq!(lines.first().unwrap()["event"], "start");
    assert_eq!(lines.last().unwrap()["event"], "stop");
}

#[test]
fn lines_say_who_it_was_and_how_it_went() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = audited(&workspace, &backend).start();
    let file = log_file(&workspace);
    visit(&workspace, &gateway);
    let end = wait_for(&file, "end", "finished", 1).remove(0);
    let accepted = wait_for(&file, "handshake", "accepted", 1).remove(0);
    for line in [&accepted, &end] {
        assert_eq!(line["listener"], "edge");
        assert_eq!(line["identity"], "spiffe://example.test/agent/agent-1");
        assert_eq!(line["identity_kind"], "uri");
        assert_eq!(line["tenant"], "team-a");
        assert_eq!(line["rule"], 1);
    }
    for key in ["peer", "connection", "fingerprint", "serial"] {
        assert!(accepted[key].is_string(), "{accepted}");
        assert_eq!(accepted[key], end[key]);
    }
    assert_eq!(accepted["kind"], "full");
    assert_eq!(accepted["server_name"], "gateway.test");
    assert_eq!(accepted["issuer"], "CN=Agents of the test");
    let (serial, fingerprint) = openssl(&workspace.agent.certificate);
    assert_eq!(accepted["serial"], serial.as_str());
    assert_eq!(accepted["fingerprint"], fingerprint.as_str());
    let not_after = last_second(&workspace.agent.certificate);
    assert_eq!(accepted["not_after"], not_after.as_str());
    assert_eq!(
        (&end["received_bytes"], &end["sent_bytes"]),
        (&4.into(), &4.into())
    );

    workspace
        .client()
        .without_certificate()
        .refused(gateway.address());
    let refused = wait_for(&file, "handshake", "no_certificate", 1).remove(0);
    assert_eq!(refused["outcome"], "refused");
    assert!(refused.get("presented_fingerprint").is_none(), "{refused}");
}

#[test]
fn a_configuration_that_is_named_without_a_folder_has_its_log_beside_it() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let text = audited(&workspace, &backend).text();
    fs::write(workspace.folder().join("portcullis.toml"), text).unwrap();
    assert!(!log_file(&workspace).exists());
    let check = Command::new(program("portcullis"))
        .args(["check", "--config", "portcullis.toml"])
        .current_dir(workspace.folder())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{said}");
}

#[test]
fn a_certificate_that_was_only_presented_is_no_identity() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = audited(&workspace, &backend).start();
    let strangers = Authority::create(workspace.folder(), "strangers", "Strangers");
    let request = Request::client("spiffe://example.test/agent/agent-1");
    let copy = strangers.issue("copy", request);
    workspace
        .client()
        .credentials(&copy)
        .refused(gateway.address());
    let refused = wait_for(&log_file(&workspace), "handshake", "unknown_issuer", 1).remove(0);
    for key in ["identity", "fingerprint", "tenant", "rule", "connection"] {
        assert!(refused.get(key).is_none(), "{refused}");
    }
    let (serial, fingerprint) = openssl(&copy.certificate);
    assert_eq!(refused["presented_fingerprint"], fingerprint.as_str());
    assert_eq!(refused["presented_serial"], serial.as_str());
    let not_after = last_second(&copy.certificate);
    assert_eq!(refused["presented_not_after"], not_after.as_str());
    assert_eq!(refused["presented_issuer"], "CN=Strangers");
    assert_eq!(
        refused["presented_identity"],
        "spiffe://example.test/agent/agent-1"
    );
}

#[test]
fn what_a_certificate_that_proves_nothing_hides_is_escaped_wherever_it_is_written() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = audited(&workspace, &backend).start();
    let strangers = Authority::create(workspace.folder(), "strangers", "Stran\u{2028}gers\u{202e}");
    let name = "admin\u{202e}\u{2028}{\u{200b}}\u{2066}";
    let request = Request::server(name).usage(Usage::Client);
    let hiding = strangers.issue("hiding", request);
    let client = workspace.client().credentials(&hiding);
    client.refused(gateway.address());
    let refused = wait_for(&log_file(&workspace), "handshake", "unknown_issuer", 1).remove(0);
    assert_eq!(refused["presented_identity"], name, "the text is the same");
    let issuer = refused["presented_issuer"].as_str().unwrap();
    assert_eq!(issuer, "CN=Stran\\e2\\80\\a8gers\\e2\\80\\ae");
    let explained = Command::new(program("portcullis"))
        .args(["check", "--config"])
        .arg(workspace.folder().join("portcullis.toml"))
        .arg("--certificate")
        .arg(&hiding.certificate)
        .output()
        .unwrap();
    let audit = fs::read(log_file(&workspace)).unwrap();
    eventually("the log names the refused", || {
        gateway.log().contains("unknown_issuer").then_some(())
    });
    for written in [audit, explained.stdout, gateway.log().into_bytes()] {
        let written = String::from_utf8(written).unwrap();
        assert!(written.contains("Stran"), "{written}");
        let hidden = ['\u{202e}', '\u{2028}', '\u{200b}', '\u{2066}'];
        assert!(!written.contains(hidden), "{}", written.escape_unicode());
    }
}

#[test]
fn a_copied_certificate_without_its_key_authenticates_nowhere_and_leaves_no_trace_as_an_identity() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let setup = audited(&workspace, &backend).route("other", "", &[backend.address()], "");
    // Observes what would name everybody who gets in.
    let next = setup.text().replace("/agent/*", "/nobody/*");
    fs::write(workspace.folder().join("next.toml"), next).unwrap();
    let mut gateway = setup.top("observe = \"next.toml\"").start();
    let thief = workspace.client().without_its_key();
    for listener in ["edge", "other"] {
        thief.refused(gateway.address_of(listener));
    }
    let file = log_file(&workspace);
    let (_, fingerprint) = openssl(&workspace.agent.certificate);
    for refused in wait_for(&file, "handshake", "bad_signature", 2) {
        assert_eq!(refused["presented_fingerprint"], fingerprint.as_str());
        for key in ["identity", "fingerprint", "serial", "tenant", "rule"] {
            assert!(refused.get(key).is_none(), "{refused}");
        }
    }
    let (_, foreseen) = gateway.admin("/observed").unwrap();
    let foreseen: Value = serde_json::from_str(&foreseen).unwrap();
    assert_eq!(foreseen["clients"], Value::Array(Vec::new()));
    let metrics = gateway.metrics();
    for proven in [
        "portcullis_handshakes_total",
        "portcullis_tickets_issued_total",
        "portcullis_observed_refusals_total",
    ] {
        assert_eq!(metrics.count(proven, &[]), 0, "{proven}");
    }
    assert!(backend.connections().is_empty());
    // Whose certificate it is gets in, and leaves all of that.
    visit(&workspace, &gateway);
    gateway.terminate();
    gateway.wait();
    let of_identity = lines(&file)
        .into_iter()
        .filter(|line| line.get("identity").is_some());
    let events: Vec<_> = of_identity.map(|line| line["event"].clone()).collect();
    assert_eq!(events, ["handshake", "foreseen", "end"]);
}

/// `portcullis block` by what `kind` says, of the agent with this certificate.
fn block(workspace: &Workspace, kind: &str, certificate: &Path) {
    let (serial, fingerprint) = openssl(certificate);
    let whom = match kind {
        "serial" => serial,
        "fingerprint" => fingerprint,
        _ => "spiffe://agents/blocked-identity".to_owned(),
    };
    let mut block = Command::new(program("portcullis"));
    block.args(["block", &format!("--{kind}"), &whom, "--config"]);
    let done = block
        .arg(workspace.folder().join("portcullis.toml"))
        .status();
    assert!(done.expect("it runs").success());
}

#[test]
fn the_end_of_each_connection_that_was_closed_says_whose_it_was_and_why() {
    let workspace = Workspace::new();
    let agents = &workspace.agents;
    let backend = Backend::start(Behaviour::Echo);
    let others = Authority::create(workspace.folder(), "others", "Other agents of the test");
    let both = workspace.folder().join("both.pem");
    let pem = |authority: &Authority| fs::read_to_string(authority.certificate()).unwrap();
    fs::write(&both, pem(agents) + &pem(&others)).unwrap();
    let ours = agents.revoke("ours.crl", &RevocationList::of(&[]));
    let theirs = others.revoke("theirs.crl", &RevocationList::of(&[]));
    let rule = |whom: &str| format!("[[identity]]\nmatch = {{ uri = \"spiffe://{whom}/*\" }}\n");
    let guests = rule("guests");
    let lists = format!("crl = [{ours:?}, {theirs:?}]");
    let gateway = workspace
        .setup()
        .top("close_spread = \"0s\"")
        .tables("[audit]\nfile = \"audit.jsonl\"\n")
        .client_ca(&both)
        .identities(&format!("{}{guests}", rule("agents")))
        .route("edge", &lists, &[backend.address()], "")
        .start();
    let connect = |authority: &Authority, uri: &str, seconds: Option<i64>| {
        let request = Request::client(&format!("spiffe://{uri}"));
        let request = match seconds {
            Some(seconds) => request.seconds(seconds),
            None => request,
        };
        let credentials = authority.issue(&uri.replace('/', "-"), request);
        let client = workspace.client().credentials(&credentials);
        let mut client = client.connect(gateway.address()).unwrap();
        client.send(b"ping").unwrap();
        assert_eq!(client.receive(4).unwrap(), b"ping");
        (credentials.certificate, client)
    };
    let (revoked, _one) = connect(agents, "agents/revoked", None);
    let _two = connect(&others, "agents/untrusted", None);
    let _three = connect(agents, "guests/not_authorized", None);
    let blocked = ["serial", "fingerprint", "identity"].map(|kind| {
        let uri = format!("agents/blocked-{kind}");
        (kind, connect(agents, &uri, None))
    });
    let (_, mut stays) = connect(agents, "agents/stays", None);
    let _brief = connect(agents, "agents/expired", Some(8));

    for (kind, (certificate, _)) in &blocked {
        block(&workspace, kind, certificate);
    }
    agents.revoke("ours.crl", &RevocationList::of(&[&revoked]));
    fs::write(&both, pem(agents)).unwrap();
    let configuration = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&configuration).unwrap();
    let text = text.replace(&lists, &format!("crl = [{ours:?}]"));
    fs::write(&configuration, text.replace(&guests, "")).unwrap();

    for (reason, count) in [
        ("revoked", 1),
        ("untrusted", 1),
        ("not_authorized", 1),
        ("expired", 1),
        ("blocked", 3),
    ] {
        let ends = wait_for(&log_file(&workspace), "end", reason, count);
        for end in &ends {
            let identity = end["identity"].as_str().unwrap();
            assert!(identity.contains(reason), "{end}");
        }
        assert_eq!(ends.len(), count, "{ends:?}");
    }
    stays.send(b"ping").unwrap();
    assert_eq!(stays.receive(4).unwrap(), b"ping");
    let all = lines(&log_file(&workspace));
    let ends = all.iter().filter(|line| line["event"] == "end");
    assert_eq!(ends.count(), 7);
}

#[test]
fn no_line_is_lost_when_the_file_is_renamed_and_opened_again() {
    const ROTATIONS: usize = 5;
    const VISITS: usize = 10;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = audited(&workspace, &backend).start();
    let file = log_file(&workspace);
    let rotated = |number: usize| workspace.folder().join(format!("audit.jsonl.{number}"));
    // A broken configuration is no reason to go on in the old file.
    fs::write(
        workspace.folder().join("portcullis.toml"),
        "no configuration",
    )
    .unwrap();
    for number in 0..ROTATIONS {
        (0..VISITS).for_each(|_| visit(&workspace, &gateway));
        fs::rename(&file, rotated(number)).unwrap();
        gateway.process().signal(Signal::HUP);
        wait_for(&file, "reload", "refused", 1);
    }
    gateway.terminate();
    gateway.wait();
    let mut files: Vec<_> = (0..ROTATIONS).map(rotated).collect();
    files.push(file);
    let all: Vec<_> = files.iter().flat_map(|file| lines(file)).collect();
    let count = |event: &str| all.iter().filter(|line| line["event"] == event).count();
    assert_eq!(count("handshake"), ROTATIONS * VISITS);
    assert_eq!(count("end"), ROTATIONS * VISITS);
    assert!(count("reload") >= ROTATIONS);
    assert_eq!((count("start"), count("stop"), count("dropped")), (1, 1, 0));
}

#[test]
fn a_reload_can_switch_the_log_on_and_off() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace.gateway(backend.address());
    let file = log_file(&workspace);
    let configuration = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&configuration).unwrap();
    visit(&workspace, &gateway);
    let on = format!("{text}\n[audit]\nfile = \"audit.jsonl\"\n");
    fs::write(&configuration, on).unwrap();
    gateway.process().signal(Signal::HUP);
    wait_for(&file, "reload", "taken", 1);
    visit(&workspace, &gateway);
    wait_for(&file, "end", "finished", 1);
    fs::write(&configuration, text).unwrap();
    gateway.process().signal(Signal::HUP);
    eventually("the log is off", || {
        let lines = lines(&file);
        (lines.last()?["event"] == "continued").then_some(())
    });
    visit(&workspace, &gateway);
    gateway.terminate();
    gateway.wait();
    let lines = lines(&file);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["event"], &last["target"]),
        (&"continued".into(), &"off".into())
    );
    let handshakes = lines.iter().filter(|line| line["event"] == "handshake");
    assert_eq!(handshakes.count(), 1);
}

#[test]
fn standard_output_takes_the_lines_too() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .tables("[audit]\nfile = \"stdout\"\n")
        .route("edge", "", &[backend.address()], "")
        .start();
    visit(&workspace, &gateway);
    eventually("the line is on standard output", || {
        let log = gateway.log();
        log.lines()
            .any(|line| line.starts_with("{\"event\":\"end\""))
            .then_some(())
    });
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start_and_refuses_a_reload() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let made = Command::new("mkfifo")
        .arg(log_file(&workspace))
        .status()
        .unwrap();
    assert!(made.success());
    let said = audited(&workspace, &backend).refused();
    assert!(said.contains("audit: file = "), "{said}");
    assert!(said.contains("audit.jsonl"), "{said}");

    let mut gateway = workspace.gateway(backend.address());
    let configuration = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, text + "\n[audit]\nfile = \"audit.jsonl\"\n").unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_a_refused_reload();
    visit(&workspace, &gateway);
}

#[test]
fn when_a_client_has_authenticated_is_told_to_the_microsecond() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = audited(&workspace, &backend).start();
    for _ in 0..5 {
        visit(&workspace, &gateway);
    }
    let accepted = wait_for(&log_file(&workspace), "handshake", "accepted", 5);
    let moments: Vec<_> = accepted
        .iter()
        .map(|line| line["authenticated_at"].as_str().unwrap())
        .collect();
    assert!(
        moments.iter().any(|moment| !moment.ends_with(".000000Z")),
        "{moments:?}"
    );
    for line in &accepted {
        let (proven, written) = (&line["authenticated_at"], &line["time"]);
        assert!(proven.as_str() <= written.as_str(), "{line}");
    }
}
