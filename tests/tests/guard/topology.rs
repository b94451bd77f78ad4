//! Two hosts and a gateway with a guard. In: keys of `[guard]`. Out: a running gateway that the other host reaches, what
//! it counts, and what is left when it is gone. The gateway has a cgroup, a network and a mount namespace of its own:
//! what it pins is on a bpffs that it mounts itself, and that nobody else ever sees.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tests::{
    Backend, Behaviour, Client, ClientBuilder, Closing, Metrics, Process, TlsFailure, Workspace,
};
use tests::{eventually, program};

use crate::cgroup::{Cgroup, mount_of_cgroups, remove_cgroup};
use crate::namespace::Namespace;

/// Where the gateway listens: on both of its addresses.
const LISTENER: &str = "[::]:4317";
/// Where it is found.
pub const ADDRESS: &str = "192.0.2.2:4317";
pub const PORT: &str = "4317";
/// Where agents are, unless they say otherwise.
pub const AGENT: &str = "192.0.2.1";
/// Addresses of attackers.
pub const ATTACKERS: &str = "192.0.2.101-192.0.2.119";
/// One of them.
pub const ATTACKER: &str = "192.0.2.101";
/// The gateway's interface.
pub const INTERFACE: &str = "gate0";
/// A guard that drops.
pub const ENFORCE: &str = "mode = \"enforce\"\ninterfaces = [\"gate0\"]\nrequired = true";
/// A guard that only counts.
pub const MONITOR: &str = "mode = \"monitor\"\ninterfaces = [\"gate0\"]\nrequired = true";
/// A flood that is enough for a ban of [`ATTACKER`].
pub const BAD: [&str; 8] = [
    "--sources",
    ATTACKER,
    "--rate",
    "100",
    "--count",
    "12",
    "--timeout",
    "900ms",
];

/// Two hosts, joined.
pub struct Topology {
    pub workspace: Workspace,
    pub gateway_host: Namespace,
    pub agents_host: Namespace,
    /// Never dropped: it would look for itself in the network namespace of whoever drops it.
    pub backend: ManuallyDrop<Backend>,
    cgroup: Cgroup,
}

/// A running gateway.
pub struct Guarded<'a> {
    pub process: Process,
    admin: PathBuf,
    /// It ends before its hosts do.
    _topology: &'a Topology,
}

/// What keeps a command from doing all that root may.
#[derive(Clone, Copy, Debug, Default)]
pub struct Privileges {
    /// Arguments of setpriv.
    pub setpriv: &'static [&'static str],
    /// Whether the process begins in the root cgroup.
    pub in_root_cgroup: bool,
}

impl Topology {
    pub fn new() -> Self {
        let (gateway_host, agents_host) = (Namespace::new(), Namespace::new());
        let mut addresses = vec![format!("{AGENT}/24"), "2001:db8::1/64".to_owned()];
        addresses.extend((101..120).map(|last| format!("192.0.2.{last}/24")));
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        agents_host.connect(
            "agent0",
            &addresses,
            &gateway_host,
            INTERFACE,
            &["192.0.2.2/24", "2001:db8::2/64"],
        );
        let backend = gateway_host.enter(|| {
            let address = "127.0.0.1:9000".parse().expect("it is an address");
            Backend::start_at(address, Behaviour::Echo)
        });
        Self {
            workspace: Workspace::new(),
            gateway_host,
            agents_host,
            backend: ManuallyDrop::new(backend),
            cgroup: Cgroup::new(),
        }
    }

    /// Writes the configuration, in which `guard` are the lines below `[guard]`.
    pub fn configure(&self, name: &str, guard: &str) -> PathBuf {
        self.configure_at(name, LISTENER, guard)
    }

    pub fn configure_at(&self, name: &str, address: &str, guard: &str) -> PathBuf {
        let workspace = &self.workspace;
        let file = workspace.folder().join(format!("{name}.toml"));
        let admin = workspace.folder().join(format!("{name}.sock"));
        let [own, paths] = workspace.identity_keys();
        let own = match name {
            "portcullis" => own,
            other => own.replace(workspace.name(), &format!("{}-{other}", workspace.name())),
        };
        let text = format!(
            "{own}drain_timeout = \"1s\"\n{paths}\n[workers]\ncount = 2\n\n[admin]\naddress = \"unix:{}\"\n\n\
             [guard]\n{guard}\n\n\
             [audit]\nfile = {:?}\n\n\
             [[listener]]\nname = \"edge\"\naddress = \"{address}\"\nmode = \"stream\"\n\
             certificate = {:?}\nkey = {:?}\nclient_ca = [{:?}]\nbackend = \"echo\"\n\
             first_byte_timeout = \"3s\"\nhandshake_timeout = \"3s\"\nmax_handshakes = 8192\n\n\
             [[backend]]\nname = \"echo\"\nservers = [\"{}\"]\n\n\
             [[identity]]\nmatch = {{ uri = \"spiffe://example.test/agent/*\" }}\n",
            admin.display(),
            workspace.folder().join(format!("{name}.audit")),
            workspace.server.certificate,
            workspace.server.key,
            workspace.agents.certificate(),
            self.backend.address(),
        );
        fs::write(&file, text).expect("the test's folder can be written");
        file
    }

    /// `portcullis` with these arguments on the gateway's host.
    pub fn command(&self, privileges: Privileges, arguments: &[&str]) -> Command {
        let cgroup = match privileges.in_root_cgroup {
            true => mount_of_cgroups(),
            false => self.cgroup.0.clone(),
        };
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(cgroup)
            .args(self.gateway_host.enter_arguments());
        if !privileges.setpriv.is_empty() {
            command.arg("setpriv").args(privileges.setpriv).arg("--");
        }
        command.arg(program("portcullis")).args(arguments);
        command
    }

    /// A command of the gateway host's administrator.
    pub fn shell(&self, line: &str) {
        let [nsenter, rest @ ..] = self.gateway_host.enter_arguments();
        let output = Command::new(nsenter)
            .args(rest)
            .args(["sh", "-c", line])
            .output();
        let output = output.expect("nsenter of util-linux is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    /// Puts another cgroup where the gateway's is, in the eyes of the gateway's host. Removed with what is returned.
    pub fn decoy_cgroup(&self) -> [Cgroup; 2] {
        let mount = mount_of_cgroups();
        let decoy = Cgroup::new();
        let name = self.cgroup.0.file_name().expect("it has a name");
        let inside = Cgroup(decoy.0.join(name));
        fs::create_dir(&inside.0).expect("root may");
        self.shell(&format!(
            "mount --bind {} {}",
            decoy.0.display(),
            mount.display()
        ));
        [inside, decoy]
    }

    /// Any program on the gateway's host, with its mounts.
    pub fn on_gateway_host(&self, command: &[&str]) -> Command {
        let [program, arguments @ ..] = &self.gateway_host.enter_arguments();
        let mut inside = Command::new(program);
        inside.args(arguments).args(command);
        inside
    }

    /// A gateway that is ready, with `guard` below `[guard]`.
    pub fn start(&self, guard: &str) -> Guarded<'_> {
        self.start_as("portcullis", guard, Privileges::default())
    }

    pub fn start_as(&self, name: &str, guard: &str, privileges: Privileges) -> Guarded<'_> {
        self.configure(name, guard);
        self.start_configured(name, privileges)
    }

    /// Starts with a configuration that is written already.
    pub fn start_configured(&self, name: &str, privileges: Privileges) -> Guarded<'_> {
        self.start_logging(name, name, &[], privileges)
    }

    /// Starts the same gateway once more, which takes over from the process that runs.
    pub fn succeed(&self, name: &str) -> Guarded<'_> {
        let log = format!("{name}-2");
        let guarded = self.start_logging(name, &log, &["--takeover"], Privileges::default());
        eventually("it has taken over", || {
            guarded.log().contains("took over").then_some(())
        });
        guarded
    }

    fn start_logging(
        &self,
        name: &str,
        log: &str,
        options: &[&str],
        privileges: Privileges,
    ) -> Guarded<'_> {
        let file = self.workspace.folder().join(format!("{name}.toml"));
        let admin = self.workspace.folder().join(format!("{name}.sock"));
        let mut arguments = vec!["run", "--config", file.to_str().expect("it is text")];
        arguments.extend(options);
        let mut command = self.command(privileges, &arguments);
        let process = Process::start(self.workspace.folder(), log, &mut command);
        let mut guarded = Guarded {
            process,
            _topology: self,
            admin,
        };
        eventually("the gateway is ready", || {
            guarded.process.expect_running();
            let answer = tests::get_unix(&guarded.admin, "/readyz");
            matches!(answer, Ok((200, _))).then_some(())
        });
        guarded
    }

    /// Starts a gateway that has to refuse: what it says.
    pub fn refused(&self, guard: &str, privileges: Privileges) -> String {
        let file = self.configure("portcullis", guard);
        let arguments = ["run", "--config", file.to_str().expect("it is text")];
        let output = self
            .command(privileges, &arguments)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    /// A connection from `source` on the agents' host.
    pub fn connect_from(&self, source: &str, client: &ClientBuilder) -> Result<Client, TlsFailure> {
        self.agents_host.enter(|| {
            let socket = self
                .open(source)
                .map_err(|_| TlsFailure::Closed(Closing::Reset))?;
            client.connect_over(socket)
        })
    }

    /// What an agent at `source` wants: to be let in, and served.
    pub fn exchange_from(&self, source: &str) -> Result<(), TlsFailure> {
        let mut client = self.connect_from(source, &self.agent())?;
        client
            .send(b"hello")
            .map_err(|_| TlsFailure::Closed(Closing::Reset))?;
        let answer = client.receive(5).map_err(TlsFailure::Closed)?;
        assert_eq!(answer, b"hello");
        Ok(())
    }

    /// A TCP connection from `source`; an error when it does not come about within two seconds. On the agents' host.
    pub fn open(&self, source: &str) -> io::Result<TcpStream> {
        self.open_within(source, Duration::from_secs(2))
    }

    pub fn open_within(&self, source: &str, patience: Duration) -> io::Result<TcpStream> {
        let source: IpAddr = source.parse().expect("it is an address");
        let target: SocketAddr = match source {
            IpAddr::V4(_) => ADDRESS.parse().expect("it is an address"),
            IpAddr::V6(_) => format!("[2001:db8::2]:{PORT}")
                .parse()
                .expect("it is an address"),
        };
        let domain = socket2::Domain::for_address(target);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&target.into(), patience)?;
        Ok(socket.into())
    }

    /// An agent that gets in.
    pub fn agent(&self) -> ClientBuilder {
        self.workspace.client()
    }

    /// Floods from the attackers' addresses: the load generator's report.
    pub fn flood(&self, kinds: &[&str], arguments: &[&str]) -> serde_json::Value {
        let mut command = Command::new("nsenter");
        let output = command
            .arg(format!("--net={}", self.agents_host.network().display()))
            .arg("--")
            .arg(program("portcullis-loadgen"))
            .arg("flood")
            .args(kinds)
            .args([
                "--target",
                ADDRESS,
                "--server-name",
                "gateway.test",
                "--json",
            ])
            .args(arguments)
            .output()
            .expect("nsenter of util-linux is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

impl Guarded<'_> {
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.metrics_page())
    }

    pub fn metrics_page(&self) -> String {
        let (status, body) = tests::get_unix(&self.admin, "/metrics").expect("it answers");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Connections by how they came out, in the kernel's count.
    pub fn flows(&self) -> Vec<(String, u64)> {
        let flows = self
            .metrics()
            .by_label("portcullis_guard_flows_total", "reason");
        flows.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    pub fn bans_in_force(&self) -> u64 {
        self.metrics().count("portcullis_guard_bans_in_force", &[])
    }

    /// Packets with this verdict, for whatever reason.
    pub fn packets(&self, verdict: &str) -> u64 {
        let labels = [("verdict", verdict)];
        self.metrics()
            .sum("portcullis_guard_judged_packets_total", &labels) as u64
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it by SIGTERM and waits.
    pub fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Ends it without a chance to do anything.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // One that the gateway made below the root.
        let name = format!("portcullis-{}", self.workspace.name());
        remove_cgroup(&mount_of_cgroups().join(name));
    }
}
