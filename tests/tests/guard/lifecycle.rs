//! The guard over the gateway's life: what outlives it, what it takes over, what it does without.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tests::eventually;

use crate::topology::{AGENT, ATTACKER, BAD, ENFORCE, INTERFACE, Privileges, Topology};

#[test]
fn a_ban_outlives_a_restart_and_a_kill() {
    let topology = Topology::new();
    let guarded = topology.start(&format!("{ENFORCE}\nban_first = \"10m\""));
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    guarded.stop();
    for round in 0..2 {
        let guarded = topology.start_configured("portcullis", Privileges::default());
        assert_eq!(
            guarded.bans_in_force(),
            1,
            "round {round}: {}",
            guarded.log()
        );
        topology.agents_host.enter(|| {
            topology.open(ATTACKER).expect_err("it is banned");
        });
        topology.exchange_from("192.0.2.1").expect("agents get in");
        guarded.kill();
    }
}

#[test]
fn pins_of_a_version_that_named_them_after_the_configuration_file_go_on_under_the_name() {
    let topology = Topology::new();
    let guarded = topology.start(&format!("{ENFORCE}\nban_first = \"10m\""));
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    guarded.stop();
    let (name, pins) = (topology.workspace.name(), "/sys/fs/bpf/portcullis");
    let file = topology.workspace.folder().join("portcullis.toml");
    let former = gateway_guard::former_name(&file);
    let layout = format!("v{}", gateway_common::LAYOUT_VERSION);
    topology.shell(&format!(
        "mkdir {pins}/{layout} && mv {pins}/{name}/{layout} {pins}/{layout}/{former} && rmdir {pins}/{name}"
    ));
    let guarded = topology.start_configured("portcullis", Privileges::default());
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    topology.agents_host.enter(|| {
        topology.open(ATTACKER).expect_err("it is banned");
    });
    guarded.stop();
    topology.shell(&format!(
        "test -d {pins}/{name}/{layout} && test ! -e {pins}/{layout}"
    ));
}

/// The kernel takes a program off an interface some time after the last reference to its link has gone.
fn until_detached(topology: &Topology) {
    eventually("no program is attached", || {
        let mode = topology.gateway_host.xdp_mode(INTERFACE);
        mode.is_none().then_some(())
    });
}

#[test]
fn a_start_that_fails_leaves_nothing_attached_and_forgets_no_ban() {
    let topology = Topology::new();
    let lasting = format!("{ENFORCE}\nban_first = \"10m\"");
    let guarded = topology.start(&lasting);
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    guarded.kill();
    let said = topology.refused(
        &lasting.replace("gate0", "nonesuch0"),
        Privileges::default(),
    );
    assert!(said.contains("nonesuch0"), "{said}");
    until_detached(&topology);
    let guarded = topology.start(&lasting);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
}

#[test]
fn connections_of_a_killed_gateway_are_no_flows_of_the_next_one() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let _agents: Vec<_> = (0..20)
        .map(|_| {
            topology
                .connect_from("192.0.2.1", &topology.agent())
                .expect("it gets in")
        })
        .collect();
    let open = guarded.metrics().count("portcullis_guard_flows_open", &[]);
    assert_eq!(open, 20, "{}", guarded.log());
    guarded.kill();
    let guarded = topology.start_configured("portcullis", Privileges::default());
    assert_eq!(
        guarded.metrics().count("portcullis_guard_flows_open", &[]),
        0
    );
    topology.exchange_from("192.0.2.1").expect("agents get in");
}

#[test]
fn a_gateway_that_is_gone_stops_enforcing_within_its_heartbeat() {
    let topology = Topology::new();
    let guarded = topology.start(&format!("{ENFORCE}\nban_first = \"10m\""));
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    guarded.stop();
    // Nobody listens any more: a packet that passes is answered by a reset, one that is dropped is not answered.
    eventually("the packets of the banned pass", || {
        let outcome = topology.agents_host.enter(|| topology.open(ATTACKER));
        let error = outcome.expect_err("nobody listens");
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
}

#[test]
fn capabilities_are_given_up_by_every_thread() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let tasks = fs::read_dir(format!("/proc/{}/task", guarded.process.id())).expect("it runs");
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("it is a thread");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            let line = status
                .lines()
                .find(|line| line.starts_with(set))
                .expect("it is there");
            assert_eq!(
                line.trim_start_matches(set).trim(),
                "0000000000000000",
                "{status}"
            );
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        threads += 1;
    }
    assert!(threads > 5, "{threads}");
    topology.exchange_from("192.0.2.1").expect("agents get in");
}

/// Root without its capabilities.
const UNPRIVILEGED: Privileges = Privileges {
    setpriv: &["--bounding-set=-all", "--inh-caps=-all"],
    in_root_cgroup: false,
};

/// What deploy/portcullis-guard.conf gives, and to whom.
const ORDINARY: Privileges = Privileges {
    setpriv: &[
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all,+bpf,+net_admin",
        "--ambient-caps=-all,+bpf,+net_admin",
        "--bounding-set=-all,+bpf,+net_admin",
    ],
    in_root_cgroup: false,
};

#[test]
fn an_ordinary_user_with_two_capabilities_has_the_whole_guard() {
    let topology = Topology::new();
    topology.configure("portcullis", &format!("{ENFORCE}\nban_first = \"10m\""));
    give_away(topology.workspace.folder());
    // As deploy/portcullis-guard.conf does it.
    topology.shell(
        "mount -t bpf -o mode=0700 bpf /sys/fs/bpf && chmod 0711 /sys/fs/bpf && \
         mkdir -p /sys/fs/bpf/portcullis && chown 65534:65534 /sys/fs/bpf/portcullis",
    );
    for _ in 0..2 {
        let guarded = topology.start_configured("portcullis", ORDINARY);
        topology.flood(&["badcert"], &BAD);
        assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
        assert!(
            !guarded.log().contains("will not outlive"),
            "{}",
            guarded.log()
        );
        guarded.stop();
    }
}

#[test]
fn without_a_bpffs_the_guard_works_and_forgets() {
    let topology = Topology::new();
    topology.configure("portcullis", ENFORCE);
    give_away(topology.workspace.folder());
    // There is none, and two capabilities are not enough to mount one.
    let guarded = topology.start_configured("portcullis", ORDINARY);
    assert!(
        guarded.log().contains("will not outlive this process"),
        "{}",
        guarded.log()
    );
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    guarded.stop();
    until_detached(&topology);
    let guarded = topology.start_configured("portcullis", ORDINARY);
    assert_eq!(guarded.bans_in_force(), 0, "{}", guarded.log());
}

#[test]
fn without_privileges_the_gateway_keeps_accounts_by_itself_unless_the_guard_is_required() {
    let topology = Topology::new();
    let said = topology.refused(ENFORCE, UNPRIVILEGED);
    assert!(said.contains("required = true"), "{said}");
    assert!(said.contains("CAP_BPF"), "{said}");

    let guarded = topology.start_as(
        "portcullis",
        "mode = \"enforce\"\ninterfaces = [\"gate0\"]\nban_first = \"10m\"",
        UNPRIVILEGED,
    );
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    topology.exchange_from(ATTACKER).expect_err("it is banned");
    topology.exchange_from("192.0.2.1").expect("agents get in");
    assert_eq!(guarded.metrics().count("portcullis_guard_attached", &[]), 0);
}

#[test]
fn without_privileges_a_cap_holds_for_each_source_too() {
    let topology = Topology::new();
    let guard = "mode = \"enforce\"\ninterfaces = [\"gate0\"]\nmax_pending = 10";
    let guarded = topology.start_as("portcullis", guard, UNPRIVILEGED);
    // The gateway may refuse a connection before its client's own `connect` has returned: that one ends in an error here.
    let held: Vec<_> = topology
        .agents_host
        .enter(|| (0..15).map(|_| topology.open(ATTACKER)).collect());
    let refused = [("verdict", "refused"), ("reason", "too_many_pending")];
    eventually("those over the cap are refused", || {
        let metrics = guarded.metrics();
        (metrics.count("portcullis_guard_judged_connections_total", &refused) == 5).then_some(())
    });
    topology
        .exchange_from("192.0.2.1")
        .expect("others are let in");
    drop(held);
}

#[test]
fn without_the_kernels_own_type_information_the_guard_works() {
    let topology = Topology::new();
    topology.shell("mount -t tmpfs none /sys/kernel/btf");
    let guarded = topology.start(ENFORCE);
    topology.exchange_from("192.0.2.1").expect("agents get in");
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
}

#[test]
fn an_interface_that_is_made_anew_is_guarded_again_and_is_missed_meanwhile() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let checked = |attached| {
        let labels = [("interface", INTERFACE), ("attached", attached)];
        let metrics = guarded.metrics();
        let is_there = metrics.has("portcullis_guard_interface", &labels);
        is_there.then(|| metrics.count("portcullis_guard_interface", &labels))
    };
    assert_eq!(checked("native"), Some(1));
    topology.gateway_host.ip(&["link", "delete", INTERFACE]);
    eventually("the interface is missed", || {
        (checked("none") == Some(0)).then_some(())
    });
    assert_eq!(checked("native"), None);
    let [agent, attacker] = [AGENT, ATTACKER].map(|address| format!("{address}/24"));
    topology.agents_host.connect(
        "agent0",
        &[&agent, &attacker],
        &topology.gateway_host,
        INTERFACE,
        &["192.0.2.2/24"],
    );
    eventually("the interface is checked again", || {
        (checked("native") == Some(1)).then_some(())
    });
    assert_eq!(checked("none"), None);
    assert!(topology.gateway_host.xdp_mode(INTERFACE).is_some());
    eventually("agents get in", || topology.exchange_from(AGENT).ok());
    eventually("packets are dropped there", || {
        // On a busy host some attempts of a flood end before the gateway has checked them.
        if guarded.bans_in_force() == 0 {
            topology.flood(&["badcert"], &BAD);
        }
        let _ = topology.open_within(ATTACKER, Duration::from_millis(200));
        (guarded.packets("dropped") > 0).then_some(())
    });
    guarded.stop();
}

#[test]
fn a_gateway_without_descriptors_goes_on_guarding_its_interface() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let is_attached = || topology.gateway_host.xdp_mode(INTERFACE).is_some();
    assert!(is_attached());
    // Whoever reloads has come to the end of its start.
    topology.configure("portcullis", &format!("{ENFORCE}\npoint_lifetime = \"7s\""));
    eventually("it has all that it opens at its start", || {
        guarded.log().contains("reloaded cause").then_some(())
    });
    let before = guarded.process.limit_descriptors(8);
    // The gateway looks at its interfaces with each heartbeat.
    for _ in 0..40 {
        assert!(is_attached(), "{}", guarded.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    guarded.process.limit_descriptors(before);
    assert!(
        !guarded.log().contains("the interface is gone"),
        "{}",
        guarded.log()
    );
    guarded.stop();
}

#[test]
fn programs_that_do_not_see_the_listeners_are_not_relied_on() {
    let topology = Topology::new();
    // The gateway finds another cgroup where its own should be, as it may in a container.
    let decoy = topology.decoy_cgroup();
    let said = topology.refused(ENFORCE, Privileges::default());
    assert!(said.contains("do not see the listeners"), "{said}");
    assert_eq!(
        topology.gateway_host.xdp_mode(INTERFACE),
        None,
        "nothing of it stays"
    );
    drop(decoy);
}

#[test]
fn gateways_on_different_interfaces_do_not_disturb_each_other() {
    let topology = Topology::new();
    let first = topology.start(ENFORCE);
    topology.configure_at(
        "second",
        "[::]:4318",
        "mode = \"enforce\"\ninterfaces = [\"lo\"]\nrequired = true",
    );
    let second = topology.start_configured("second", Privileges::default());
    topology.flood(&["badcert"], &BAD);
    topology.exchange_from("192.0.2.1").expect("agents get in");
    assert_eq!((first.bans_in_force(), second.bans_in_force()), (1, 0));
    second.stop();
    topology.exchange_from("192.0.2.1").expect("agents get in");
    assert_eq!(first.bans_in_force(), 1);
    assert!(topology.gateway_host.xdp_mode(INTERFACE).is_some());
}

#[test]
fn an_interface_that_does_not_exist_is_left_out_unless_it_is_required() {
    let topology = Topology::new();
    let said = topology.refused(
        "mode = \"enforce\"\ninterfaces = [\"nonesuch0\"]\nrequired = true",
        Privileges::default(),
    );
    assert!(said.contains("\"nonesuch0\" does not exist"), "{said}");
    let guarded =
        topology.start("mode = \"enforce\"\ninterfaces = [\"nonesuch0\"]\nban_first = \"10m\"");
    assert!(
        guarded.log().contains("does not check packets"),
        "{}",
        guarded.log()
    );
    // Flows are followed all the same, and a ban holds at the accept.
    topology.flood(&["badcert"], &BAD);
    assert_eq!(guarded.bans_in_force(), 1, "{}", guarded.log());
    topology.exchange_from(ATTACKER).expect_err("it is banned");
    topology.exchange_from("192.0.2.1").expect("agents get in");
    assert_eq!(topology.gateway_host.xdp_mode(INTERFACE), None);
}

#[test]
fn a_process_in_the_root_cgroup_makes_one_of_its_own() {
    let topology = Topology::new();
    let in_root = Privileges {
        in_root_cgroup: true,
        ..Privileges::default()
    };
    let guarded = topology.start_as("portcullis", ENFORCE, in_root);
    let cgroup =
        fs::read_to_string(format!("/proc/{}/cgroup", guarded.process.id())).expect("it runs");
    let own = format!("0::/portcullis-{}\n", topology.workspace.name());
    assert!(cgroup.contains(&own), "{cgroup}");
    topology.exchange_from("192.0.2.1").expect("agents get in");
    assert_eq!(guarded.flows(), [("authenticated".to_owned(), 1)]);
}

#[test]
fn thresholds_weights_lists_and_mode_are_reloaded_without_attaching_anew() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let reload = |guard: &str| {
        let before = guarded
            .metrics()
            .count("portcullis_reloads_total", &[("result", "taken")]);
        topology.configure("portcullis", guard);
        eventually("the reload is taken", || {
            let now = guarded
                .metrics()
                .count("portcullis_reloads_total", &[("result", "taken")]);
            (now > before).then_some(())
        });
    };
    reload(&format!("{ENFORCE}\ndeny = [\"{ATTACKER}\"]"));
    topology
        .agents_host
        .enter(|| topology.open(ATTACKER).expect_err("it is denied"));
    topology
        .exchange_from("192.0.2.102")
        .expect("others are not");

    reload(&format!("{ENFORCE}\nallow = [\"{ATTACKER}\"]"));
    topology.flood(
        &["badcert"],
        &["--sources", ATTACKER, "--rate", "100", "--count", "50"],
    );
    topology
        .exchange_from(ATTACKER)
        .expect("who is allowed is never banned");
    assert_eq!(guarded.bans_in_force(), 0, "{}", guarded.log());

    reload(&format!(
        "{ENFORCE}\nban_first = \"10m\"\nban_threshold = 10\nweights = {{ no_certificate = 11 }}"
    ));
    let nobody = topology.agent().without_certificate();
    topology.agents_host.enter(|| {
        let socket = topology.open("192.0.2.103").expect("it is reached");
        nobody
            .connect_over(socket)
            .expect("clients are done first")
            .receive_to_end();
    });
    eventually("one failure is enough now", || {
        (guarded.bans_in_force() == 1).then_some(())
    });

    reload("mode = \"monitor\"\ninterfaces = [\"gate0\"]\nrequired = true");
    topology
        .exchange_from("192.0.2.103")
        .expect("nobody is dropped any more");
    assert_eq!(
        guarded.log().matches("kernel program attached").count(),
        1,
        "{}",
        guarded.log()
    );
}

#[test]
fn a_second_gateway_on_the_same_interface_runs_without_it_and_says_so() {
    let topology = Topology::new();
    let first = topology.start(ENFORCE);
    let second = "[::]:4318";
    topology.configure_at(
        "second",
        second,
        "mode = \"enforce\"\ninterfaces = [\"gate0\"]",
    );
    let guarded = topology.start_configured("second", Privileges::default());
    assert!(
        guarded.log().contains("another XDP program"),
        "{}",
        guarded.log()
    );
    assert_eq!(guarded.metrics().count("portcullis_guard_attached", &[]), 1);
    topology.exchange_from("192.0.2.1").expect("agents get in");
    assert_eq!(first.flows(), [("authenticated".to_owned(), 1)]);
    assert_eq!(guarded.flows(), []);
}

/// A folder and what is in it, to the user that nobody is.
fn give_away(path: &Path) {
    std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("root may");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("it is there").flatten() {
            give_away(&entry.path());
        }
    }
}

#[test]
fn a_process_that_drains_leaves_the_kernel_programs_to_the_one_that_has_taken_over() {
    let topology = Topology::new();
    let first = topology.start(ENFORCE);
    let agent = topology.connect_from("192.0.2.1", &topology.agent());
    let _stays = agent.expect("it gets in");
    let file = topology.configure("portcullis", &format!("{ENFORCE}\ndeny = [\"{ATTACKER}\"]"));
    // It needs a restart, so the one that drains does not take all of it.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("count = 2", "count = 1")).unwrap();
    let second = topology.succeed("portcullis");
    eventually("the first one has read it", || {
        first.log().contains("cause=\"a takeover").then_some(())
    });
    for _ in 0..3 {
        let denied = topology.agents_host.enter(|| topology.open(ATTACKER));
        denied.expect_err("it is denied");
    }
    topology.exchange_from("192.0.2.1").expect("agents get in");
    drop(second);
}
