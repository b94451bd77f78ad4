//! A machine with systemd as its first process, beside a host with agents. In: what is installed on it. Out: what its
//! programs say, its files, and a gateway that agents reach. Has namespaces and a cgroup of its own: what runs on it ends, and
//! what is mounted on it goes, with the process that started it.

use std::fs::{self, Permissions};
use std::mem::ManuallyDrop;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tests::{
    Backend, Behaviour, Client, Credentials, Metrics, Process, Workspace, eventually, get_unix,
    program,
};

use crate::cgroup::Cgroup;
use crate::namespace::Namespace;

/// Where the gateway listens: a port that takes a capability.
const ADDRESS: &str = "192.0.2.2:443";
/// The machine's interface.
pub const INTERFACE: &str = "gate0";

/// Units that look for hardware or write what is the host's.
const MASKED: [&str; 5] = [
    "systemd-udevd.service",
    "systemd-logind.service",
    "systemd-timesyncd.service",
    "systemd-random-seed.service",
    "getty.target",
];

/// A machine that has come up, and agents that reach it.
pub struct Machine {
    pub workspace: Workspace,
    /// Its first process is in here.
    process: Process,
    network: Namespace,
    agents: Namespace,
    /// Never dropped: it would look for itself in the network namespace of whoever drops it.
    _backend: ManuallyDrop<Backend>,
    /// Last: it can be removed when all others are gone.
    _cgroup: Cgroup,
}

impl Machine {
    /// Installs what `deploy` says to install, and starts nothing of it.
    pub fn new() -> Machine {
        let workspace = Workspace::new();
        let (network, agents) = (Namespace::new(), Namespace::new());
        agents.connect(
            "agent0",
            &["192.0.2.1/24"],
            &network,
            INTERFACE,
            &["192.0.2.2/24"],
        );
        let backend = network.enter(|| {
            let address = "127.0.0.1:9000".parse().unwrap();
            Backend::start_at(address, Behaviour::Echo)
        });
        let folder = workspace.folder().join("machine");
        write_files(&folder, &workspace);
        let cgroup = Cgroup::new();
        let process = boot(&workspace, &network, &cgroup);
        let mut machine = Machine {
            workspace,
            process,
            network,
            agents,
            _backend: ManuallyDrop::new(backend),
            _cgroup: cgroup,
        };
        eventually("the machine has come up", || {
            machine.process.expect_running();
            let output = machine.command(&["systemctl", "is-system-running"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            match said.trim() {
                "running" => Some(()),
                "degraded" => panic!("{}", machine.run(&["systemctl", "--failed"])),
                _ => None,
            }
        });
        // As the unit says: keys of the gateway's user.
        machine.run(&["chown", "portcullis:", "/etc/portcullis/server.key"]);
        machine
    }

    /// A program of the machine's root.
    pub fn command(&self, words: &[&str]) -> Output {
        let first = self.process.id();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &first.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--cgroup"])
            .arg(format!("--pid=/proc/{first}/ns/pid_for_children"))
            .args(["--", "env", "--ignore-environment"])
            .args(["PATH=/usr/sbin:/usr/bin", "SYSTEMD_PAGER=", "LC_ALL=C"]);
        command.args(words).output().expect("nsenter is installed")
    }

    /// One that has to succeed: what it prints.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.command(words);
        let said = said(&output);
        assert!(output.status.success(), "{words:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A file of the machine's, from outside.
    pub fn file(&self, path: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.process.id().to_string())
            .join("root")
            .join(path.trim_start_matches('/'))
    }

    /// Puts a drop-in beside the unit, as `systemctl edit` does.
    pub fn drop_in(&self, name: &str, text: &str) {
        let folder = self.file("/etc/systemd/system/portcullis.service.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.conf")), text).unwrap();
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// Writes the gateway's configuration, with further tables, and keys of its listener.
    pub fn configure(&self, tables: &str, listener: &str) {
        fs::write(
            self.file("/etc/portcullis/portcullis.toml"),
            configuration(tables, listener),
        )
        .unwrap();
    }

    /// Starts the service and waits until it is ready.
    pub fn start(&self) {
        self.run(&["systemctl", "start", "portcullis"]);
        self.wait_until_ready();
    }

    pub fn wait_until_ready(&self) {
        eventually(&format!("the gateway is ready: {}", self.log()), || {
            let answer = get_unix(&self.file(ADMIN), "/readyz");
            matches!(answer, Ok((200, _))).then_some(())
        });
    }

    pub fn metrics(&self) -> Metrics {
        let (status, body) = get_unix(&self.file(ADMIN), "/metrics").expect("it answers");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// A property of the service, as systemd knows it.
    pub fn property(&self, name: &str) -> String {
        self.run(&[
            "systemctl",
            "show",
            "--value",
            "--property",
            name,
            "portcullis",
        ])
    }

    /// What the service has written to the journal, and systemd about it.
    pub fn journal(&self) -> Vec<Value> {
        let output = self.command(&["journalctl", "--unit=portcullis", "--output=json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn log(&self) -> String {
        let output = self.command(&["journalctl", "--unit=portcullis", "--output=cat"]);
        said(&output)
    }

    /// The lines of the audit log about one kind of event.
    pub fn audit(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.file("/var/log/portcullis/audit.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["event"] == event)
            .collect()
    }

    /// A client that has got in and is served.
    pub fn connect(&self, credentials: &Credentials) -> Client {
        let client = self.workspace.client().credentials(credentials);
        self.agents.enter(|| {
            let mut client = client.connect(ADDRESS.parse().unwrap()).unwrap();
            client.send(b"ping").unwrap();
            assert_eq!(client.receive(4).unwrap(), b"ping");
            client
        })
    }

    /// A client that gets no further than the handshake.
    pub fn refused(&self, credentials: &Credentials) {
        let client = self.workspace.client().credentials(credentials);
        self.agents
            .enter(|| client.refused(ADDRESS.parse().unwrap()));
    }

    /// The XDP program on the machine's interface.
    pub fn xdp_mode(&self) -> Option<u64> {
        self.network.xdp_mode(INTERFACE)
    }
}

/// Both streams of a program that has ended.
pub fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A file of `deploy`.
pub fn deployed(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().join("deploy").join(name)
}

const ADMIN: &str = "/run/portcullis/admin.sock";

fn configuration(tables: &str, listener: &str) -> String {
    let key = match listener.contains("key = ") {
        true => "",
        false => "key = \"server.key\"",
    };
    format!(
        "drain_timeout = \"2s\"\n\
         [admin]\naddress = \"unix:{ADMIN}\"\n\
         [audit]\nfile = \"/var/log/portcullis/audit.jsonl\"\n{tables}\n\
         [[listener]]\nname = \"edge\"\naddress = \"{ADDRESS}\"\nmode = \"stream\"\n\
         certificate = \"server.pem\"\nclient_ca = [\"agents.pem\"]\nbackend = \"echo\"\n{key}\n{listener}\n\
         [[backend]]\nname = \"echo\"\nservers = [\"127.0.0.1:9000\"]\n\
         [[identity]]\nmatch = {{ uri = \"spiffe://example.test/agent/agent-1\" }}\n"
    )
}

/// What lies over the host's `/usr`, and the whole of `/etc`.
fn write_files(folder: &Path, workspace: &Workspace) {
    let etc = folder.join("etc");
    let units = etc.join("systemd/system");
    fs::create_dir_all(&units).unwrap();
    for unit in MASKED {
        symlink("/dev/null", units.join(unit)).unwrap();
    }
    let accounts = [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/nonexistent:/usr/sbin/nologin\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        ),
        (
            "group",
            "root:x:0:\ntty:x:5:\nmessagebus:x:100:\nnogroup:x:65534:\n",
        ),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n",
        ),
        ("hosts", "127.0.0.1 localhost\n"),
        ("machine-id", "706f727463756c6c697320746573740a\n"),
    ];
    for (name, text) in accounts {
        fs::write(etc.join(name), text).unwrap();
    }

    let own = etc.join("portcullis");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("portcullis.toml"), configuration("", "")).unwrap();
    fs::copy(&workspace.server.certificate, own.join("server.pem")).unwrap();
    fs::copy(workspace.agents.certificate(), own.join("agents.pem")).unwrap();
    fs::copy(&workspace.server.key, own.join("server.key")).unwrap();
    fs::set_permissions(own.join("server.key"), Permissions::from_mode(0o600)).unwrap();

    // Where their own first lines say that they go.
    for (name, place) in [
        (
            "portcullis.service",
            "usr/lib/systemd/system/portcullis.service",
        ),
        ("portcullis.sysusers", "usr/lib/sysusers.d/portcullis.conf"),
        ("90-portcullis.conf", "etc/sysctl.d/90-portcullis.conf"),
    ] {
        let place = folder.join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(deployed(name), place).unwrap();
    }
    fs::create_dir_all(folder.join("usr/bin")).unwrap();
}

/// The process that the machine lives and dies with, in `network`.
fn boot(workspace: &Workspace, network: &Namespace, cgroup: &Cgroup) -> Process {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/boot.sh");
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&cgroup.0)
        .args(["setpriv", "--pdeathsig", "KILL", "nsenter"])
        .arg(format!("--net={}", network.network().display()))
        .args(["--", "unshare", "--mount", "--propagation", "private"])
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            "--cgroup",
            "--uts",
            "--ipc",
        ])
        .arg("sh")
        .arg(script)
        .arg(workspace.folder().join("machine"))
        .arg(program("portcullis"));
    Process::start(workspace.folder(), "machine", &mut command)
}
