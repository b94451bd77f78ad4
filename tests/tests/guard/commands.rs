//! `portcullis guard` on the pins of a gateway that runs, and of one that does not any more.

use std::process::Output;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::eventually;

use crate::site::{AGENT, ATTACKER, BAD, PORT, Privileges, Site};

const ENFORCE: &str =
    "mode = \"enforce\"\ninterfaces = [\"gate0\"]\nrequired = true\nban_first = \"10m\"";

/// `portcullis guard` with these arguments, beside the gateway.
fn guard(site: &Site, arguments: &[&str]) -> Output {
    guard_as(site, Privileges::default(), arguments)
}

fn guard_as(site: &Site, privileges: Privileges, arguments: &[&str]) -> Output {
    let file = site.world.folder().join("portcullis.toml");
    let mut all = vec!["guard"];
    all.extend(arguments);
    all.extend(["--config", file.to_str().expect("it is text")]);
    site.command(privileges, &all).output().expect("it runs")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    text.concat()
}

/// What a command that works prints.
fn text(site: &Site, arguments: &[&str]) -> String {
    let output = guard(site, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).expect("it is text")
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    serde_json::from_str(&text(site, &all)).expect("it is JSON")
}

/// What a command that does not work says, and its exit code.
fn refused(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = guard(site, arguments);
    (output.status.code(), said(&output))
}

#[test]
fn who_is_banned_is_seen_let_in_and_shut_out_by_hand() {
    let site = Site::new();
    let guarded = site.start(ENFORCE);
    site.flood(&["badcert"], &BAD);
    let bans = json(&site, &["bans"]);
    assert_eq!(bans[0]["source"], ATTACKER, "{bans:#}");
    assert_eq!(bans[0]["by"], "guard");
    assert_eq!(bans[0]["reason"], "unknown_issuer");
    assert_eq!(bans[0]["length_seconds"], 600);
    let sources = json(&site, &["sources"]);
    assert_eq!(sources["sources"][0]["source"], ATTACKER, "{sources:#}");
    site.exchange_from(ATTACKER).expect_err("it is banned");

    // What was under way when the ban began may have left a debt, which is forgiven too.
    let said = text(&site, &["unban", ATTACKER]);
    assert!(said.starts_with(&format!("unbanned {ATTACKER}")), "{said}");
    site.exchange_from(ATTACKER).expect("it is let in again");
    assert_eq!(text(&site, &["bans", "--all"]), "no source is banned\n");
    let (code, said) = refused(&site, &["unban", ATTACKER]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not banned and has no points"), "{said}");

    let mut agent = site.connect_from(AGENT, &site.agent()).expect("it gets in");
    let ban = ["ban", AGENT, "--for", "1h", "--reason", "a test of ours"];
    assert_eq!(text(&site, &ban), format!("banned {AGENT} for 1h\n"));
    site.exchange_from(AGENT).expect_err("it is banned");
    agent.send(b"still here").expect("what is open stays open");
    assert_eq!(agent.receive(10).expect("it comes back"), b"still here");
    let bans = json(&site, &["bans"]);
    assert_eq!(bans[0]["reason"], "a test of ours", "{bans:#}");
    assert!(
        bans[0]["by"].as_str().unwrap().contains("(uid 0)"),
        "{bans:#}"
    );
    let again = text(&site, &["ban", AGENT, "--for", "2s"]);
    assert!(
        again.contains("for 2s, in place of a ban with 59m"),
        "{again}"
    );
    eventually("its ban is over", || site.exchange_from(AGENT).ok());
    guarded.stop();
}

#[test]
fn a_whole_ipv6_network_is_banned_at_once() {
    let site = Site::new();
    site.configure_at("portcullis", "[2001:db8::2]:4317", ENFORCE);
    let guarded = site.start_configured("portcullis", Privileges::default());
    site.exchange_from("2001:db8::1").expect("it gets in");
    let banned = text(&site, &["ban", "2001:db8::7777"]);
    assert_eq!(banned, "banned 2001:db8::/64 for 10m\n");
    site.exchange_from("2001:db8::1")
        .expect_err("its /64 is banned");
    guarded.stop();
}

#[test]
fn the_status_is_that_of_the_gateway_and_of_what_it_left_behind() {
    let site = Site::new();
    let guarded = site.start(ENFORCE);
    site.exchange_from(AGENT).expect("it gets in");
    let status = json(&site, &["status"]);
    assert_eq!(status["mode"], "enforce");
    assert_eq!(status["alive"], true);
    assert_eq!(status["attachments"][0]["interface"], "gate0", "{status:#}");
    assert_eq!(status["ports"][0]["port"], PORT.parse::<u16>().unwrap());
    assert_eq!(
        status["ports"][0]["flows"]["authenticated"], 1,
        "{status:#}"
    );
    let shown = text(&site, &["status"]);
    assert!(shown.contains("to packets of gate0 (native)"), "{shown}");
    guarded.stop();

    eventually("nobody answers for it any more", || {
        let output = guard(&site, &["status"]);
        (output.status.code() == Some(3)).then_some(())
    });
    let (code, said) = refused(&site, &["ban", ATTACKER]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no gateway answers"), "{said}");
    assert_eq!(
        json(&site, &["bans"])[0]["source"],
        ATTACKER,
        "it is written"
    );

    let removed = text(&site, &["detach"]);
    assert!(
        removed.contains("detached from gate0 (native)"),
        "{removed}"
    );
    assert!(removed.contains("BANS\n"), "{removed}");
    for command in ["status", "sources", "bans", "watch", "detach"] {
        let (code, said) = refused(&site, &[command]);
        assert_eq!(code, Some(1), "{command}: {said}");
        let what = format!(
            "no guard of a gateway with the name {:?}",
            site.world.name()
        );
        assert!(said.contains(&what), "{command}: {said}");
    }
}

#[test]
fn a_ban_in_monitor_is_said_to_have_no_effect() {
    let site = Site::new();
    let guarded = site.start("mode = \"monitor\"\ninterfaces = [\"gate0\"]\nrequired = true");
    let (code, said) = refused(&site, &["ban", AGENT]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("mode is \"monitor\""), "{said}");
    site.exchange_from(AGENT)
        .expect("the guard does not act by it");
    guarded.stop();
}

#[test]
fn whoever_watches_hears_of_bans_and_counts() {
    let site = Site::new();
    let guarded = site.start(ENFORCE);
    let lines = thread::scope(|scope| {
        let watched = scope.spawn(|| text(&site, &["watch", "--for", "6s", "--json"]));
        thread::sleep(Duration::from_secs(2));
        text(
            &site,
            &["ban", ATTACKER, "--for", "2s", "--reason", "watched"],
        );
        site.exchange_from(AGENT).expect("it gets in");
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
    let site = Site::new();
    let guarded = site.start(ENFORCE);
    let nobody = Privileges {
        setpriv: &["--reuid", "65534", "--clear-groups"],
        ..Privileges::default()
    };
    let output = guard_as(&site, nobody, &["bans"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not allowed"), "{said}");
    assert!(said.contains("/sys/fs/bpf/portcullis/"), "{said}");
    guarded.stop();
}

#[test]
fn nothing_is_left_of_a_guard_that_was_detached() {
    let site = Site::new();
    let in_root = Privileges {
        in_root_cgroup: true,
        ..Privileges::default()
    };
    site.start_as("portcullis", ENFORCE, in_root).stop();
    // What another version of the program would have left.
    let name = site.world.name();
    let older = format!("/sys/fs/bpf/portcullis/{name}/v0");
    let make = ["mkdir", "-p", &older];
    assert!(site.on_gateway_host(&make).status().unwrap().success());
    let removed = json(&site, &["detach"]);
    let removed = removed["removed"].as_array().unwrap();
    let cgroup = format!("/portcullis-{name}");
    let is_there = |path: &Value| path.as_str().unwrap().ends_with(&cgroup);
    assert!(removed.iter().any(is_there), "{removed:#?}");
    let left = site
        .on_gateway_host(&["find", "/sys/fs/bpf", "-name", "portcullis"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");

    assert!(site.on_gateway_host(&make).status().unwrap().success());
    text(&site, &["detach"]);
    let (code, said) = refused(&site, &["detach"]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn a_gateway_whose_guard_was_detached_serves_on() {
    let site = Site::new();
    let guarded = site.start(ENFORCE);
    site.flood(&["badcert"], &BAD);
    let removed = json(&site, &["detach"]);
    assert_eq!(removed["was_alive"], true, "{removed:#}");
    site.exchange_from(ATTACKER).expect("nothing holds it back");
    eventually("the gateway says so", || {
        guarded.log().contains("were detached").then_some(())
    });
    guarded.stop();
}
