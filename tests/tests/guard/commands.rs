//! `portcullis guard` on the pins of a gateway that runs, and of one that does not any more.

use std::process::Output;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::eventually;

use crate::topology::{AGENT, ATTACKER, BAD, PORT, Privileges, Topology};

const ENFORCE: &str =
    "mode = \"enforce\"\ninterfaces = [\"gate0\"]\nrequired = true\nban_first = \"10m\"";

/// `portcullis guard` with these arguments, beside the gateway.
fn guard(topology: &Topology, arguments: &[&str]) -> Output {
    guard_as(topology, Privileges::default(), arguments)
}

fn guard_as(topology: &Topology, privileges: Privileges, arguments: &[&str]) -> Output {
    let file = topology.workspace.folder().join("portcullis.toml");
    let mut all = vec!["guard"];
    all.extend(arguments);
    all.extend(["--config", file.to_str().expect("it is text")]);
    topology
        .command(privileges, &all)
        .output()
        .expect("it runs")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    text.concat()
}

/// What a command that works prints.
fn text(topology: &Topology, arguments: &[&str]) -> String {
    let output = guard(topology, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).expect("it is text")
}

fn json(topology: &Topology, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    serde_json::from_str(&text(topology, &all)).expect("it is JSON")
}

/// What a command that does not work says, and its exit code.
fn refused(topology: &Topology, arguments: &[&str]) -> (Option<i32>, String) {
    let output = guard(topology, arguments);
    (output.status.code(), said(&output))
}

#[test]
fn who_is_banned_is_seen_let_in_and_shut_out_by_hand() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    topology.flood(&["badcert"], &BAD);
    let bans = json(&topology, &["bans"]);
    assert_eq!(bans[0]["source"], ATTACKER, "{bans:#}");
    assert_eq!(bans[0]["by"], "guard");
    assert_eq!(bans[0]["reason"], "unknown_issuer");
    assert_eq!(bans[0]["length_seconds"], 600);
    let sources = json(&topology, &["sources"]);
    assert_eq!(sources["sources"][0]["source"], ATTACKER, "{sources:#}");
    topology.exchange_from(ATTACKER).expect_err("it is banned");

    // What was under way when the ban began may have left a debt, which is forgiven too.
    let said = text(&topology, &["unban", ATTACKER]);
    assert!(said.starts_with(&format!("unbanned {ATTACKER}")), "{said}");
    topology
        .exchange_from(ATTACKER)
        .expect("it is let in again");
    assert_eq!(text(&topology, &["bans", "--all"]), "no source is banned\n");
    let (code, said) = refused(&topology, &["unban", ATTACKER]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not banned and has no points"), "{said}");

    let mut agent = topology
        .connect_from(AGENT, &topology.agent())
        .expect("it gets in");
    let ban = ["ban", AGENT, "--for", "1h", "--reason", "a test of ours"];
    assert_eq!(text(&topology, &ban), format!("banned {AGENT} for 1h\n"));
    topology.exchange_from(AGENT).expect_err("it is banned");
    agent.send(b"still here").expect("what is open stays open");
    assert_eq!(agent.receive(10).expect("it comes back"), b"still here");
    let bans = json(&topology, &["bans"]);
    assert_eq!(bans[0]["reason"], "a test of ours", "{bans:#}");
    assert!(
        bans[0]["by"].as_str().unwrap().contains("(uid 0)"),
        "{bans:#}"
    );
    let again = text(&topology, &["ban", AGENT, "--for", "2s"]);
    assert!(
        again.contains("for 2s, in place of a ban with 59m"),
        "{again}"
    );
    eventually("its ban is over", || topology.exchange_from(AGENT).ok());
    guarded.stop();
}

#[test]
fn a_whole_ipv6_network_is_banned_at_once() {
    let topology = Topology::new();
    topology.configure_at("portcullis", "[2001:db8::2]:4317", ENFORCE);
    let guarded = topology.start_configured("portcullis", Privileges::default());
    topology.exchange_from("2001:db8::1").expect("it gets in");
    let banned = text(&topology, &["ban", "2001:db8::7777"]);
    assert_eq!(banned, "banned 2001:db8::/64 for 10m\n");
    topology
        .exchange_from("2001:db8::1")
        .expect_err("its /64 is banned");
    guarded.stop();
}

#[test]
fn the_status_is_that_of_the_gateway_and_of_what_it_left_behind() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    topology.exchange_from(AGENT).expect("it gets in");
    let status = json(&topology, &["status"]);
    assert_eq!(status["mode"], "enforce");
    assert_eq!(status["alive"], true);
    assert_eq!(status["attachments"][0]["interface"], "gate0", "{status:#}");
    assert_eq!(status["ports"][0]["port"], PORT.parse::<u16>().unwrap());
    assert_eq!(
        status["ports"][0]["flows"]["authenticated"], 1,
        "{status:#}"
    );
    let shown = text(&topology, &["status"]);
    assert!(shown.contains("to packets of gate0 (native)"), "{shown}");
    guarded.stop();

    eventually("nobody answers for it any more", || {
        let output = guard(&topology, &["status"]);
        (output.status.code() == Some(3)).then_some(())
    });
    let (code, said) = refused(&topology, &["ban", ATTACKER]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no gateway answers"), "{said}");
    assert_eq!(
        json(&topology, &["bans"])[0]["source"],
        ATTACKER,
        "it is written"
    );

    let removed = text(&topology, &["detach"]);
    assert!(
        removed.contains("detached from gate0 (native)"),
        "{removed}"
    );
    assert!(removed.contains("BANS\n"), "{removed}");
    for command in ["status", "sources", "bans", "watch", "detach"] {
        let (code, said) = refused(&topology, &[command]);
        assert_eq!(code, Some(1), "{command}: {said}");
        let what = format!(
            "no guard of a gateway with the name {:?}",
            topology.workspace.name()
        );
        assert!(said.contains(&what), "{command}: {said}");
    }
}

#[test]
fn a_ban_in_monitor_is_said_to_have_no_effect() {
    let topology = Topology::new();
    let guarded = topology.start("mode = \"monitor\"\ninterfaces = [\"gate0\"]\nrequired = true");
    let (code, said) = refused(&topology, &["ban", AGENT]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("mode is \"monitor\""), "{said}");
    topology
        .exchange_from(AGENT)
        .expect("the guard does not act by it");
    guarded.stop();
}

#[test]
fn whoever_watches_hears_of_bans_and_counts() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let lines = thread::scope(|scope| {
        let watched = scope.spawn(|| text(&topology, &["watch", "--for", "6s", "--json"]));
        thread::sleep(Duration::from_secs(2));
        text(
            &topology,
            &["ban", ATTACKER, "--for", "2s", "--reason", "watched"],
        );
        topology.exchange_from(AGENT).expect("it gets in");
        watched.join().unwrap()
    });
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |event: &str| lines.iter().find(|line| line["event"] == event);
    let ban = of("ban").unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(
        (&ban["source"], &ban["reason"]),
        (&ATTACKER.into(), &"watched".into())
    );
    assert_eq!(
        of("ban_ended").map(|over| &over["source"]),
        Some(&ATTACKER.into())
    );
    let authenticated: u64 = lines
        .iter()
        .filter_map(|line| line["flows"]["authenticated"].as_u64())
        .sum();
    assert_eq!(authenticated, 1, "{lines:#?}");
    guarded.stop();
}

#[test]
fn whoever_may_not_look_is_told_so() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let nobody = Privileges {
        setpriv: &["--reuid", "65534", "--clear-groups"],
        ..Privileges::default()
    };
    let output = guard_as(&topology, nobody, &["bans"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not allowed"), "{said}");
    assert!(said.contains("/sys/fs/bpf/portcullis/"), "{said}");
    guarded.stop();
}

#[test]
fn nothing_is_left_of_a_guard_that_was_detached() {
    let topology = Topology::new();
    let in_root = Privileges {
        in_root_cgroup: true,
        ..Privileges::default()
    };
    topology.start_as("portcullis", ENFORCE, in_root).stop();
    // What another version of the program would have left.
    let name = topology.workspace.name();
    let older = format!("/sys/fs/bpf/portcullis/{name}/v0");
    let make = ["mkdir", "-p", &older];
    assert!(topology.on_gateway_host(&make).status().unwrap().success());
    let removed = json(&topology, &["detach"]);
    let removed = removed["removed"].as_array().unwrap();
    let cgroup = format!("/portcullis-{name}");
    let is_there = |path: &Value| path.as_str().unwrap().ends_with(&cgroup);
    assert!(removed.iter().any(is_there), "{removed:#?}");
    let left = topology
        .on_gateway_host(&["find", "/sys/fs/bpf", "-name", "portcullis"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");

    assert!(topology.on_gateway_host(&make).status().unwrap().success());
    text(&topology, &["detach"]);
    let (code, said) = refused(&topology, &["detach"]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn a_gateway_whose_guard_was_detached_serves_on() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    topology.flood(&["badcert"], &BAD);
    let removed = json(&topology, &["detach"]);
    assert_eq!(removed["was_alive"], true, "{removed:#}");
    topology
        .exchange_from(ATTACKER)
        .expect("nothing holds it back");
    eventually("the gateway says so", || {
        guarded.log().contains("were detached").then_some(())
    });
    guarded.stop();
}
