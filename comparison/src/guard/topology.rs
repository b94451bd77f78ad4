//! The hosts of one run: agents, attackers and the gateway between them. Each is a network namespace; veth pairs join
//! them.
//! In: nothing. Out: commands that run on a host, and what its kernel spent on packets.
//!
//! A host lives as long as its holder process, which dies with us. It has no name and no mount outside itself, so it
//! leaves nothing behind, however we end. Takes root.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};

use crate::process::Cpu;
use command::{program, run_quietly};

/// Longest life of a host, should everything else fail. A run takes a tenth of it.
const HOLDER_SECONDS: &str = "300";

/// A namespace is there within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cable from the gateway's host to another one.
struct Cable {
    /// Interface of the gateway's host, and its address.
    near: (&'static str, &'static str),
    /// The same of the other host.
    far: (&'static str, &'static str),
    /// Networks that are behind the other host: all their addresses are its own.
    behind: &'static [&'static str],
    /// Networks without any host, reached by the same way.
    forged: &'static [&'static str],
}

const TO_AGENTS: Cable = Cable {
    near: (AGENTS_INTERFACE, AGENTS_GATEWAY),
    far: ("agents0", "10.76.0.2"),
    behind: &["10.77.0.0/16"],
    forged: &[],
};

const TO_ATTACKERS: Cable = Cable {
    near: (ATTACKERS_INTERFACE, ATTACKERS_GATEWAY),
    far: ("attack0", "10.78.0.2"),
    behind: &["10.79.0.0/16"],
    // What `flood syn` forges: the network of RFC 2544.
    forged: &["198.18.0.0/15"],
};

/// The gateway's interface towards the agents.
pub const AGENTS_INTERFACE: &str = "gate0";
/// The gateway's interface towards the attackers.
pub const ATTACKERS_INTERFACE: &str = "gate1";
/// The gateway as the agents know it.
pub const AGENTS_GATEWAY: &str = "10.76.0.1";
/// The gateway as the attackers know it.
pub const ATTACKERS_GATEWAY: &str = "10.78.0.1";
/// Where the agents come from: fifty hosts.
pub const AGENTS_SOURCES: &str = "10.77.0.1-10.77.0.50";
/// Where the attackers come from.
pub const ATTACKERS_SOURCES: &str = "10.79.0.1-10.79.0.20";
/// How many addresses that is.
pub const ATTACKERS: u32 = 20;

/// Whether an address is of the attackers' network.
pub fn is_attacker(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [10, 79, ..])
}

/// How the hosts' kernels take packets from their cables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets {
    /// As a veth does: in the context of the sender, in segments of up to 64 KiB that no wire carries.
    AsMade,
    /// As a network card does it: packets of the wire's size, merged where they arrive (GRO), in a kernel thread for
    /// each interface, pinned to the CPU of its host. The receiver then pays for its packets.
    Threaded,
}

/// The three hosts.
pub struct Topology {
    /// Where the agents are.
    pub agents: Host,
    /// Where the attackers are.
    pub attackers: Host,
    /// Where the gateway and its backend are.
    pub gateway: Host,
    /// The kernel threads that take packets on the gateway's host.
    receivers: Vec<KernelThread>,
}

impl Topology {
    /// Makes the hosts and lays the cables.
    pub fn new(packets: Packets) -> Result<Self> {
        let mut topology = Self {
            agents: Host::new()?,
            attackers: Host::new()?,
            gateway: Host::new()?,
            receivers: Vec::new(),
        };
        // Pins then end with the host.
        topology
            .gateway
            .run(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])?;
        let receivers = [
            topology
                .gateway
                .connect(&TO_AGENTS, &topology.agents, packets)?,
            topology
                .gateway
                .connect(&TO_ATTACKERS, &topology.attackers, packets)?,
        ];
        topology.receivers.extend(receivers.into_iter().flatten());
        Ok(topology)
    }

    /// CPU time that the gateway's host has spent on taking packets, XDP and nftables among it.
    pub fn packets_cpu(&self) -> Result<Duration> {
        self.receivers.iter().map(KernelThread::cpu).sum()
    }
}

/// A host: a network and a table of mounts of its own.
pub struct Host {
    holder: Child,
}

impl Host {
    fn new() -> Result<Self> {
        let holder = program("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(["unshare", "--net", "--mount", "--"])
            .args(["sleep", HOLDER_SECONDS])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run setpriv of util-linux")?;
        let mut host = Self { holder };
        host.wait_until_it_is_one()?;
        host.ip(&["link", "set", "dev", "lo", "up"])?;
        Ok(host)
    }

    fn wait_until_it_is_one(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let ours = ["net", "mnt"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).ok());
        loop {
            if let Some(status) = self.holder.try_wait()? {
                bail!("cannot make a network namespace, which takes root: {status}");
            }
            let theirs =
                ["net", "mnt"].map(|kind| fs::read_link(self.proc(&format!("ns/{kind}"))).ok());
            let is_own = |(ours, theirs): (&Option<PathBuf>, &Option<PathBuf>)| {
                theirs.is_some() && ours != theirs
            };
            if ours.iter().zip(&theirs).all(is_own) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "unshare does not get on");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A file of /proc as this host sees it.
    pub fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join(name)
    }

    /// A command on this host. `before` are words that start it, such as `taskset`. It does not outlive us.
    pub fn command(&self, before: &[String], name: &Path) -> Command {
        let mut command = program("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "nsenter"])
            .arg(format!("--net={}", self.proc("ns/net").display()))
            .arg(format!("--mount={}", self.proc("ns/mnt").display()))
            .arg("--")
            .args(before)
            .arg(name);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<()> {
        let (name, arguments) = words.split_first().context("a command has a name")?;
        run_quietly(self.command(&[], Path::new(name)).args(arguments))
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        self.run(&[&["ip"], arguments].concat())
    }

    fn connect(&self, cable: &Cable, other: &Self, packets: Packets) -> Result<Vec<KernelThread>> {
        let (near, near_address) = cable.near;
        let (far, far_address) = cable.far;
        let other_process = other.holder.id().to_string();
        let peer = ["type", "veth", "peer", "name", far, "netns", &other_process];
        self.ip(&[&["link", "add", near], &peer[..]].concat())?;
        let mut receivers = Vec::new();
        for (host, interface, address, cpu) in [
            (self, near, near_address, Cpu::Server),
            (other, far, far_address, Cpu::Client),
        ] {
            let address = format!("{address}/30");
            host.ip(&["address", "add", &address, "dev", interface])?;
            if packets == Packets::Threaded {
                let features = ["gro", "on", "tso", "off"];
                host.run(&[&["ethtool", "--features", interface], &features[..]].concat())?;
            }
            host.ip(&["link", "set", "dev", interface, "up"])?;
            if packets == Packets::Threaded {
                let thread = host.receive_by_thread(interface)?;
                thread.pin(cpu)?;
                receivers.push((cpu, thread));
            }
        }
        for network in cable.behind {
            // Every address of it can be bound to and is answered for, without an entry for each.
            other.ip(&["route", "add", "local", network, "dev", "lo"])?;
        }
        for network in cable.behind.iter().chain(cable.forged) {
            self.ip(&["route", "add", network, "via", far_address])?;
        }
        receivers.retain(|(cpu, _)| *cpu == Cpu::Server);
        Ok(receivers.into_iter().map(|(_, thread)| thread).collect())
    }

    /// Lets a kernel thread take the packets of an interface, and finds it.
    fn receive_by_thread(&self, interface: &str) -> Result<KernelThread> {
        let before = KernelThread::receivers(interface)?;
        // /sys shows the network of the process that mounts it. The mount is the shell's own.
        let switch = "mount -t sysfs sysfs /sys && echo 1 > \"/sys/class/net/$0/threaded\"";
        self.run(&["unshare", "--mount", "--", "sh", "-c", switch, interface])?;
        let mut new = KernelThread::receivers(interface)?;
        new.retain(|thread| !before.contains(thread));
        match new.as_slice() {
            [thread] => Ok(*thread),
            others => bail!(
                "{interface}: {} threads that take its packets",
                others.len()
            ),
        }
    }

    /// Connects to a port of this host's loopback.
    pub fn connect_to(&self, port: u16) -> Result<TcpStream> {
        self.enter(|| Ok(TcpStream::connect(("127.0.0.1", port))?))
    }

    /// Does something on a thread of its own on this host. Sockets made there stay on it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(self.proc("ns/net"))?;
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                inside()
            });
            worker
                .join()
                .expect("what is done on a host does not panic")
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have reached its limit; there is nothing else that could go wrong.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A thread of the kernel that takes the packets of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KernelThread {
    pid: i32,
}

impl KernelThread {
    /// The threads of all interfaces of a name, on any host.
    fn receivers(interface: &str) -> Result<Vec<Self>> {
        let name = format!("napi/{interface}-");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // Processes come and go while we look.
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.starts_with(&name) {
                found.push(Self { pid });
            }
        }
        Ok(found)
    }

    /// Puts it on a CPU, before every process there: packets wait for no process where a card's interrupts bring them.
    fn pin(self, cpu: Cpu) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu.number());
        sched_setaffinity(Pid::from_raw(self.pid), &set)?;
        let pid = self.pid.to_string();
        run_quietly(program("chrt").args(["--fifo", "--pid", "1", &pid]))
    }

    /// What it has spent. `schedstat` begins with that, in nanoseconds.
    fn cpu(&self) -> Result<Duration> {
        let file = format!("/proc/{}/schedstat", self.pid);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
        let spent = text.split(' ').next().and_then(|word| word.parse().ok());
        Ok(Duration::from_nanos(
            spent.with_context(|| format!("{file}: {text:?}"))?,
        ))
    }
}
