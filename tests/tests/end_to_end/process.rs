//! What the host grants the process: system calls, memory to lock, CPUs, a journal. In: gateways started under other
//! conditions. Out: they serve all the same, and say what they lack.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tests::{Backend, Behaviour, Gateway, Workspace, eventually, program};

fn serves(workspace: &Workspace, gateway: &Gateway) {
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(client.receive(5).unwrap(), b"hello");
    client.finish();
    client.receive_to_end();
}

#[test]
fn where_a_ring_can_be_made_and_nothing_sent_through_it_the_workers_run_on_epoll() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let filter =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/forbid_io_uring_enter.py");
    let mut gateway = workspace
        .setup()
        .tables("[workers]\ncount = 1")
        .route("edge", "", &[backend.address()], "")
        .under(&["python3", filter.to_str().unwrap()])
        .start();
    serves(&workspace, &gateway);
    let driver = [("worker", "0"), ("driver", "epoll")];
    gateway.wait_for("portcullis_worker_driver", &driver, 1);
    assert!(gateway.log().contains("seccomp"), "{}", gateway.log());
    gateway.terminate();
    assert!(gateway.wait().success(), "{}", gateway.log());
}

#[test]
fn where_little_memory_may_be_locked_the_workers_have_smaller_rings_or_say_what_they_lack() {
    for (limit_bytes, driver) in [(300 << 10, "io_uring"), (0, "epoll")] {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        // The kernel counts by user, and not at all for those who may lock as much as they like. Another user for each case
        // and test run, so that nobody else's rings count.
        let user = 1_000_000_000 + 2 * std::process::id() + u32::from(limit_bytes == 0);
        let setup = workspace.setup().tables("[workers]\ncount = 2").route(
            "edge",
            "",
            &[backend.address()],
            "",
        );
        give_away(workspace.folder(), user);
        let limit = format!("--memlock={limit_bytes}");
        let user = format!("--reuid={user}");
        let prefix = [
            "prlimit",
            &limit,
            "setpriv",
            &user,
            "--clear-groups",
            "--bounding-set=-all",
            "--",
        ];
        let gateway = setup.under(&prefix).start();
        serves(&workspace, &gateway);
        for worker in ["0", "1"] {
            let driver = [("worker", worker), ("driver", driver)];
            gateway.wait_for("portcullis_worker_driver", &driver, 1);
        }
        let hinted = gateway.log().contains("LimitMEMLOCK");
        assert_eq!(hinted, driver == "epoll", "{}", gateway.log());
    }
}

fn give_away(folder: &Path, user: u32) {
    let status = Command::new("chown")
        .args(["-R", &user.to_string()])
        .arg(folder)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_cpu_quota_bounds_the_number_of_workers() {
    let workspace = Workspace::new();
    let group = Quota::of_one_cpu();
    let file = workspace.folder().join("portcullis.toml");
    let setup = workspace
        .setup()
        .route("edge", "", &[workspace.host.free()], "");
    fs::write(&file, setup.text()).unwrap();
    let output = Command::new("sh")
        .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&group.0)
        .arg(program("portcullis"))
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let workers = said.lines().find(|line| line.contains("workers"));
    assert!(workers.is_some_and(|line| line.contains(" 1")), "{said}");
}

/// A cgroup whose processes may use one CPU.
struct Quota(PathBuf);

impl Quota {
    fn of_one_cpu() -> Quota {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = |wanted: &dyn Fn(&[&str]) -> bool| {
            let mut lines = mounts
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            lines
                .find(|fields| wanted(fields))
                .map(|fields| PathBuf::from(fields[1]))
        };
        // Where version 1 has the controller, version 2 does not.
        let first = mount(&|fields| {
            fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "cpu")
        });
        let is_first = first.is_some();
        let mount = first.or_else(|| mount(&|fields| fields[2] == "cgroup2"));
        let mount = mount.expect("cgroups are mounted");
        let path = mount.join(format!("portcullis-test-{}", std::process::id()));
        fs::create_dir(&path).expect("root may make a cgroup");
        let group = Quota(path);
        if is_first {
            fs::write(group.0.join("cpu.cfs_period_us"), "100000").unwrap();
            fs::write(group.0.join("cpu.cfs_quota_us"), "100000").unwrap();
        } else {
            fs::write(mount.join("cgroup.subtree_control"), "+cpu").unwrap();
            fs::write(group.0.join("cpu.max"), "100000 100000").unwrap();
        }
        group
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of processes that have ended.
        eventually("the cgroup is removed", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn lines_for_the_journal_begin_with_their_priority_and_others_do_not() {
    // What systemd does for a service whose standard error is the journal, and what it leaves to those who redirect it.
    let journal = "JOURNAL_STREAM=$(stat --dereference --format %d:%i /proc/self/fd/2) exec \"$@\"";
    let elsewhere = "JOURNAL_STREAM=1:1 exec \"$@\"";
    for (script, refused) in [(journal, Some("<4>")), (elsewhere, None)] {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Echo);
        let gateway = workspace
            .setup()
            .route("edge", "", &[backend.address()], "")
            .under(&["sh", "-c", script, "sh"])
            .start();
        let stranger = tests::ClientBuilder::new(workspace.gateways.certificate(), "gateway.test");
        stranger.connect(gateway.address()).map(drop).ok();
        let line = eventually("the refusal is logged", || {
            let log = gateway.log();
            let mut lines = log.lines();
            lines
                .find(|line| line.contains("no_certificate"))
                .map(str::to_owned)
        });
        let priority = line.get(..3).filter(|start| start.starts_with('<'));
        assert_eq!(priority, refused, "{line}");
    }
}

/// Text such as "1.5s" or "12ms" is nothing that a log's reader could add up.
#[test]
fn durations_in_json_lines_are_numbers_with_their_unit_in_the_name() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = workspace
        .setup()
        .route("edge", "", &[backend.address()], "")
        .under(&[
            "sh",
            "-c",
            "exec \"$@\" --log-format json --log-level debug",
            "sh",
        ])
        .start();
    serves(&workspace, &gateway);
    gateway.process().signal(Signal::HUP);
    let field = |message: &str| {
        let took = eventually(message, || {
            let log = gateway.log();
            let mut lines = log.lines().filter_map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                (line["message"] == message).then_some(line)
            });
            lines.next()
        });
        took["took_microseconds"].as_u64()
    };
    for message in ["accepted", "reloaded"] {
        assert!(field(message).is_some(), "{message}: {}", gateway.log());
    }
}
