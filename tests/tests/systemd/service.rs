//! `portcullis.service` and its drop-in: what an administrator does with them. In: a machine, `systemctl`. Out: who runs what
//! with which rights, what survives, what the journal and the audit log say.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use tests::{Credentials, Request, eventually};

use crate::machine::{Machine, deployed, said};

fn other(machine: &Machine) -> Credentials {
    let request = Request::client("spiffe://example.test/agent/other");
    machine.workspace.agents.issue("other", request)
}

/// The number of the gateway's user.
fn user(machine: &Machine) -> u32 {
    machine
        .run(&["id", "--user", "portcullis"])
        .parse()
        .unwrap()
}

#[test]
fn the_service_runs_on_io_uring_as_its_own_user_who_may_do_nothing_any_more() {
    let machine = Machine::new();
    machine.run(&["systemctl", "enable", "--now", "portcullis"]);
    machine.wait_until_ready();
    machine.connect(&machine.workspace.agent);

    let user = user(&machine);
    let main = machine.property("MainPID");
    let threads = fs::read_dir(machine.file(&format!("/proc/{main}/task"))).unwrap();
    let mut looked_at = 0;
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(
            status.contains(&format!("Uid:\t{user}\t{user}\t{user}\t{user}\n")),
            "{status}"
        );
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(
                status.contains(&format!("{set}:\t0000000000000000\n")),
                "{status}"
            );
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
        looked_at += 1;
    }
    assert!(looked_at > 5, "{looked_at}");
    let limits = machine.run(&["cat", &format!("/proc/{main}/limits")]);
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");

    let drivers = machine
        .metrics()
        .by_label("portcullis_worker_driver", "driver");
    assert_eq!(drivers.keys().collect::<Vec<_>>(), ["io_uring"]);
    for (folder, mode) in [
        ("/run/portcullis", 0o755),
        ("/var/lib/portcullis", 0o755),
        ("/var/log/portcullis", 0o750),
    ] {
        let found = fs::metadata(machine.file(folder)).unwrap();
        assert_eq!(
            (found.uid(), found.mode() & 0o7777),
            (user, mode),
            "{folder}"
        );
    }
    let audit = fs::metadata(machine.file("/var/log/portcullis/audit.jsonl")).unwrap();
    assert_eq!(audit.mode() & 0o007, 0, "{:o}", audit.mode());
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_nor_with_its_drop_in() {
    let machine = Machine::new();
    for drop_in in [None, Some(deployed("portcullis-guard.conf"))] {
        if let Some(file) = drop_in {
            machine.drop_in("guard", &fs::read_to_string(file).unwrap());
        }
        // It reads the drop-ins that are installed. No page of a manual is installed with what is documented by files.
        let verify = [
            "systemd-analyze",
            "verify",
            "--man=no",
            "portcullis.service",
        ];
        let output = machine.command(&verify);
        let said = said(&output);
        let about_us = said.lines().any(|line| line.contains("portcullis"));
        assert!(output.status.success() && !about_us, "{said}");
        let checked = [
            "systemd-analyze",
            "security",
            "--threshold=20",
            "portcullis.service",
        ];
        machine.run(&checked);
    }
}

#[test]
fn every_kernel_setting_of_deploy_exists_and_is_taken() {
    let machine = Machine::new();
    let text = fs::read_to_string(deployed("90-portcullis.conf")).unwrap();
    let mut settings = 0;
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (name, value) = line.split_once(" = ").unwrap();
        let now = machine.run(&["cat", &format!("/proc/sys/{}", name.replace('.', "/"))]);
        // The others are the whole host's, and none of a test's business.
        if name.starts_with("net.") {
            assert_eq!(
                now.split_whitespace().collect::<Vec<_>>().join(" "),
                value,
                "{name}"
            );
        }
        settings += 1;
    }
    assert!(settings > 5, "{settings}");
}

#[test]
fn what_the_guard_knows_survives_a_restart_of_the_service() {
    let machine = Machine::new();
    let drop_in = fs::read_to_string(deployed("portcullis-guard.conf")).unwrap();
    machine.drop_in("guard", &drop_in);
    machine.configure(
        "[guard]\nmode = \"enforce\"\ninterfaces = [\"gate0\"]\nrequired = true",
        "",
    );
    machine.start();
    machine.connect(&machine.workspace.agent);
    let said = machine.run(&["portcullis", "guard", "ban", "192.0.2.99", "--for", "1h"]);
    assert!(machine.xdp_mode().is_some(), "{said}");
    let banned = |machine: &Machine| {
        let bans = machine.run(&["portcullis", "guard", "bans", "--json"]);
        assert!(bans.contains("192.0.2.99"), "{bans}");
    };
    banned(&machine);
    let pins = machine.file("/sys/fs/bpf/portcullis/portcullis");
    for command in ["restart", "kill --signal=KILL --kill-whom=main"] {
        let before = machine.property("MainPID");
        let words: Vec<_> = ["systemctl"]
            .into_iter()
            .chain(command.split(' '))
            .collect();
        machine.run(&[&words[..], &["portcullis"]].concat());
        eventually("another process serves", || {
            let now = machine.property("MainPID");
            (now != "0" && now != before).then_some(())
        });
        machine.wait_until_ready();
        assert!(pins.exists());
        banned(&machine);
        machine.connect(&machine.workspace.agent);
        assert_eq!(machine.metrics().count("portcullis_guard_attached", &[]), 1);
        assert_eq!(
            machine
                .metrics()
                .count("portcullis_guard_bans_in_force", &[]),
            1
        );
    }
    let journal = machine.journal();
    let forgets = |line: &Value| line["MESSAGE"].to_string().contains("will not outlive");
    assert!(!journal.iter().any(forgets), "{journal:?}");
    machine.run(&["systemctl", "stop", "portcullis"]);
    assert!(pins.exists(), "bans outlive a stop");
}

#[test]
fn systemctl_reload_waits_for_what_comes_of_it_and_is_audited_with_its_user() {
    let machine = Machine::new();
    machine.start();
    let other = other(&machine);
    machine.refused(&other);
    let rule = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/other\" }\n";
    // In place of the gateway's own noticing, which a reload that was asked for may be merged with.
    machine.configure(rule, "");
    machine.run(&["systemctl", "reload", "portcullis"]);
    machine.connect(&other);

    machine.configure("no_such_key = 1", "");
    let output = machine.command(&["systemctl", "reload", "portcullis"]);
    assert!(!output.status.success(), "{}", said(&output));
    assert_eq!(machine.property("ActiveState"), "active");
    machine.connect(&other);

    let asked: Vec<_> = machine
        .audit("reload")
        .into_iter()
        .filter(|line| line["cause"] != "files changed")
        .collect();
    let name = format!("portcullis (uid {})", user(&machine));
    assert_eq!(asked.len(), 2, "{asked:?}");
    for (line, outcome) in asked.iter().zip(["taken", "refused"]) {
        assert_eq!(line["outcome"], outcome);
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.contains(&name), "{cause}");
    }
}

#[test]
fn whom_root_blocks_stays_out_over_restarts_and_whom_root_unblocks_gets_in() {
    let machine = Machine::new();
    machine.start();
    machine.connect(&machine.workspace.agent);
    let whom = ["--identity", "spiffe://example.test/agent/agent-1"];
    machine.run(&[&["portcullis", "block"][..], &whom].concat());
    machine.refused(&machine.workspace.agent);
    machine.run(&["systemctl", "restart", "portcullis"]);
    machine.wait_until_ready();
    machine.refused(&machine.workspace.agent);
    let failures = machine
        .metrics()
        .by_label("portcullis_handshake_failures_total", "reason");
    assert_eq!(failures.keys().collect::<Vec<_>>(), ["blocked"]);
    machine.run(&[&["portcullis", "unblock"][..], &whom].concat());
    machine.connect(&machine.workspace.agent);
    for line in machine.audit("block") {
        assert_eq!(line["by"], "root (uid 0)", "{line}");
    }
    // Written while nobody runs, for the service's user to read.
    machine.run(&["systemctl", "stop", "portcullis"]);
    let output = machine.command(&[&["portcullis", "block"][..], &whom].concat());
    assert!(
        said(&output).contains("not in force yet"),
        "{}",
        said(&output)
    );
    machine.start();
    machine.refused(&machine.workspace.agent);
}

#[test]
fn the_audit_log_goes_on_in_a_new_file_when_it_is_rotated_as_its_page_says() {
    let machine = Machine::new();
    machine.start();
    let page = deployed("../docs/audit.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("postrotate\n").unwrap();
    let (command, _) = rest.split_once("\n").unwrap();
    let file = "/var/log/portcullis/audit.jsonl";
    machine.run(&["mv", file, "/var/log/portcullis/audit.jsonl.1"]);
    machine.run(&["sh", "-c", command.trim()]);
    eventually("there is a new file", || {
        machine.file(file).exists().then_some(())
    });
    machine.connect(&machine.workspace.agent);
    eventually("it is written to", || {
        (machine.audit("handshake").len() == 1).then_some(())
    });
}

#[test]
fn warnings_have_their_priority_in_the_journal() {
    let machine = Machine::new();
    machine.start();
    machine.configure("no_such_key = 1", "");
    let output = machine.command(&["systemctl", "reload", "portcullis"]);
    assert!(!output.status.success(), "{}", said(&output));
    let by_level = |level: &str, priority: &str| {
        let journal = machine.journal();
        let of_level: Vec<_> = journal
            .iter()
            .filter(|line| line["_COMM"] != "systemd")
            .filter(|line| {
                line["MESSAGE"]
                    .to_string()
                    .contains(&format!("\\\"level\\\":\\\"{level}"))
            })
            .collect();
        assert!(!of_level.is_empty(), "{level}: {journal:?}");
        for line in of_level {
            assert_eq!(line["PRIORITY"], priority, "{line}");
            let message = line["MESSAGE"].as_str().unwrap();
            serde_json::from_str::<Value>(message)
                .expect("nothing of the priority is left in the line");
        }
    };
    by_level("INFO", "6");
    eventually("the refused reload is in the journal", || {
        let levels = ["3", "4"];
        let is_one = |line: &Value| levels.iter().any(|level| line["PRIORITY"] == *level);
        machine.journal().iter().any(is_one).then_some(())
    });
    by_level("ERROR", "3");
}

#[test]
fn keys_come_as_credentials_that_only_root_has_on_disk() {
    let machine = Machine::new();
    machine.run(&["mkdir", "-m", "0700", "/etc/portcullis-secrets"]);
    let [from, to] = [
        "/etc/portcullis/server.key",
        "/etc/portcullis-secrets/server.key",
    ];
    machine.run(&["mv", from, to]);
    machine.run(&["chown", "root:", to]);
    machine.drop_in(
        "credentials",
        &format!("[Service]\nLoadCredential=server.key:{to}\n"),
    );
    machine.configure(
        "",
        "key = \"/run/credentials/portcullis.service/server.key\"",
    );
    machine.start();
    machine.connect(&machine.workspace.agent);
    machine.run(&["systemctl", "reload", "portcullis"]);
    machine.run(&["systemctl", "restart", "portcullis"]);
    machine.wait_until_ready();
    machine.connect(&machine.workspace.agent);
}

#[test]
fn a_stop_waits_for_the_drain_and_no_longer() {
    let machine = Machine::new();
    machine.start();
    let mut stays = machine.connect(&machine.workspace.agent);
    // In the middle of nothing: it gets its goodbye, and the process its end.
    machine.run(&["systemctl", "stop", "portcullis"]);
    stays.receive_to_end();
    let [state, result, status] =
        ["ActiveState", "Result", "ExecMainStatus"].map(|name| machine.property(name));
    assert_eq!([&state[..], &result, &status], ["inactive", "success", "0"]);
    assert!(
        machine.file("/run/portcullis").is_dir(),
        "another gateway may have its folder there"
    );
    machine.start();
    machine.connect(&machine.workspace.agent);
}

#[test]
fn a_gateway_that_cannot_start_is_started_when_it_can() {
    let machine = Machine::new();
    machine.configure("no_such_key = 1", "");
    let output = machine.command(&["systemctl", "start", "portcullis"]);
    assert!(!output.status.success(), "{}", said(&output));
    // Systemd's own patience would be at its end after five.
    eventually("it has been tried seven times", || {
        (machine.property("NRestarts").parse::<u32>().unwrap() >= 7).then_some(())
    });
    machine.configure("", "");
    machine.wait_until_ready();
    machine.connect(&machine.workspace.agent);
    let refusals = machine.journal();
    let told = |line: &Value| line["MESSAGE"].to_string().contains("no_such_key");
    assert!(refusals.iter().any(told), "{refusals:?}");
}
