//! What runs on the gateway's host: the gateway, its backend, rules of nftables, the reader of the failure log.
//! In: a defence. Out: what the host has spent and dropped up to a moment. Ends with the run.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::ban::Follower;
use super::cgroup::Cgroup;
use super::defence::{Defence, PORT};
use super::topology::{Topology, is_attacker};
use crate::load;
use crate::metrics;
use crate::process::{Cpu, Process};
use crate::workspace::Workspace;

/// Port of the administration endpoint on the gateway's own host.
const ADMIN: u16 = 9464;

/// The longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counter of packets that the guard has judged.
const JUDGED: &str = "portcullis_guard_judged_packets_total";

/// Everything that runs on the gateway's host.
pub struct HostSetup<'a> {
    topology: &'a Topology,
    cgroup: &'a Cgroup,
    defence: Option<Defence>,
    gateway: Process,
    _backend: Process,
    audit: PathBuf,
    follower: Option<Follower>,
}

/// What has been spent and dropped up to a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct State {
    /// CPU of the gateway's processes.
    pub gateway: Duration,
    /// CPU of its host's kernel for taking packets.
    pub packets: Duration,
    /// Busy and all ticks of the CPU of the load.
    pub load: Ticks,
    /// Packets dropped.
    pub dropped: f64,
    /// Packets that would have been dropped.
    pub would_drop: f64,
    /// Dropped packets of sources that had too many connections open.
    pub over_cap: f64,
}

/// Ticks of a CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ticks {
    /// Neither idle nor waiting.
    pub busy: u64,
    /// All.
    pub all: u64,
}

/// Words that start a program on a CPU.
pub fn on(cpu: Cpu) -> Vec<String> {
    let number = cpu.number().to_string();
    ["taskset", "--cpu-list", &number]
        .map(str::to_owned)
        .to_vec()
}

impl<'a> HostSetup<'a> {
    /// Starts everything and waits until the gateway is ready.
    pub fn start(
        workspace: &Workspace,
        topology: &'a Topology,
        cgroup: &'a Cgroup,
        defence: Option<Defence>,
        backend: &str,
    ) -> Result<Self> {
        let host = &topology.gateway;
        let command = host.command(&on(Cpu::Client), &workspace.loadgen);
        let (backend, port) = load::serve(
            command,
            backend,
            "127.0.0.1",
            &workspace.path("backend.log"),
        )?;
        let audit = workspace.path("audit.jsonl");
        if audit.exists() {
            fs::remove_file(&audit)?;
        }
        let configuration = workspace.path("gateway.toml");
        fs::write(&configuration, text(workspace, defence, &audit, port))?;
        let before = [on(Cpu::Server), cgroup.entering()].concat();
        let mut command = host.command(&before, &workspace.gateway);
        command.arg("run").arg("--config").arg(&configuration);
        let gateway = Process::start(command, &workspace.path("gateway.log"))?;
        let mut setup = Self {
            topology,
            cgroup,
            defence,
            gateway,
            _backend: backend,
            audit,
            follower: None,
        };
        setup.wait_until_ready()?;
        if let Some(rules) = defence.and_then(Defence::rules) {
            setup.load_rules(&rules)?;
        }
        if defence == Some(Defence::NftBan) {
            let nft = setup.nft(&["--file", "-"]);
            setup.follower = Some(Follower::start(&setup.audit, nft)?);
        }
        Ok(setup)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.page("/readyz").is_err() {
            self.gateway.ensure_alive()?;
            ensure!(
                Instant::now() < deadline,
                "the gateway does not become ready:\n{}",
                self.gateway.last_lines()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn page(&self, path: &str) -> Result<String> {
        metrics::page(self.topology.gateway.connect_to(ADMIN)?, path)
    }

    fn nft(&self, arguments: &[&str]) -> Command {
        let mut command = self.topology.gateway.command(&[], Path::new("nft"));
        command.args(arguments);
        command
    }

    fn load_rules(&self, rules: &str) -> Result<()> {
        let mut child = self
            .nft(&["--file", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run nft")?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        stdin.write_all(rules.as_bytes())?;
        drop(stdin);
        let status = child.wait()?;
        ensure!(status.success(), "nft refuses\n{rules}");
        Ok(())
    }

    /// The gateway's process. Fails if it has ended.
    pub fn gateway(&mut self) -> Result<&Process> {
        self.gateway.ensure_alive()?;
        Ok(&self.gateway)
    }

    /// What has been spent and dropped up to now.
    pub fn state(&self) -> Result<State> {
        let mut state = State {
            gateway: self.cgroup.cpu()?,
            packets: self.topology.packets_cpu()?,
            load: ticks(&fs::read_to_string("/proc/stat")?, Cpu::Client.number())?,
            ..State::default()
        };
        match self.defence {
            None | Some(Defence::Off) => {}
            Some(Defence::Monitor | Defence::Enforce) => {
                let page = self.page("/metrics")?;
                ensure!(
                    metrics::sum(&page, JUDGED, &[]).is_some(),
                    "the gateway counts nothing under {JUDGED}"
                );
                let sum = |labels: &[&str]| metrics::sum(&page, JUDGED, labels).unwrap_or(0.0);
                state.dropped = sum(&["verdict=\"dropped\""]);
                state.would_drop = sum(&["verdict=\"would_drop\""]);
                state.over_cap = sum(&["verdict=\"dropped\"", "reason=\"too_many_pending\""]);
            }
            Some(Defence::NftLimit | Defence::NftBan) => state.dropped = self.nft_dropped()?,
        }
        Ok(state)
    }

    fn nft_dropped(&self) -> Result<f64> {
        let output = self.nft(&["--json", "list", "counters"]).output()?;
        ensure!(output.status.success(), "nft does not list its counters");
        let listed: Value = serde_json::from_slice(&output.stdout)?;
        let counters = listed["nftables"].as_array();
        counters
            .into_iter()
            .flatten()
            .find_map(|object| object["counter"]["packets"].as_f64())
            .with_context(|| format!("no counter in {listed}"))
    }

    /// The connections that attackers have open.
    pub fn held(&self) -> Result<HashSet<SocketAddrV4>> {
        let table = fs::read_to_string(self.topology.gateway.proc("net/tcp"))?;
        let open = table.lines().skip(1).filter_map(open_from);
        Ok(open.filter(|peer| is_attacker(*peer.ip())).collect())
    }

    /// Ends the reader of the log. Returns when this defence banned the first source.
    pub fn first_ban(&mut self) -> Result<Option<SystemTime>> {
        if let Some(follower) = self.follower.take() {
            return follower.stop();
        }
        let log = fs::read_to_string(&self.audit)?;
        for line in log.lines().filter(|line| line.contains("\"guard_ban\"")) {
            let line: Value = serde_json::from_str(line)?;
            if line["event"] == "guard_ban" && line["outcome"] == "banned" {
                let time = line["time"].as_str().context("a line has its time")?;
                return Ok(Some(humantime::parse_rfc3339(time)?));
            }
        }
        Ok(None)
    }
}

fn text(workspace: &Workspace, defence: Option<Defence>, audit: &Path, backend: u16) -> String {
    let guard = defence.map(Defence::guard).unwrap_or_default();
    format!(
        "[paths]\nstate = {:?}\nrun = {:?}\n[workers]\ncount = 1\n\n\
         [admin]\naddress = \"127.0.0.1:{ADMIN}\"\n\n\
         [audit]\nfile = {audit:?}\n\n\
         {guard}\
         [[listener]]\nname = \"edge\"\naddress = \"0.0.0.0:{PORT}\"\nmode = \"stream\"\n\
         certificate = {:?}\nkey = {:?}\nclient_ca = [{:?}]\nbackend = \"backend\"\nhandshake_timeout = \"3s\"\n\n\
         [[backend]]\nname = \"backend\"\nservers = [\"127.0.0.1:{backend}\"]\n\n\
         [[identity]]\nmatch = {{ uri = \"spiffe://example.org/agent/*\" }}\n",
        workspace.path("state"),
        workspace.path("run"),
        workspace.path("current/server.pem"),
        workspace.path("current/server.key"),
        workspace.path("pki/ca.pem"),
    )
}

/// The peer of a connection that the gateway has to end, from a line of /proc/net/tcp: established (1), or ended by the
/// peer (8).
fn open_from(line: &str) -> Option<SocketAddrV4> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, ..] = words[..] else {
        return None;
    };
    let (_, port) = local.split_once(':')?;
    let is_open = matches!(state, "01" | "08");
    if !is_open || u16::from_str_radix(port, 16).ok()? != PORT {
        return None;
    }
    let (address, port) = remote.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // The kernel prints the four bytes as one number of the machine's own order.
    Some(SocketAddrV4::new(address.to_ne_bytes().into(), port))
}

/// A line of /proc/stat: user, nice, system, idle, waiting, two kinds of interrupts, and what the hypervisor took.
fn ticks(stat: &str, cpu: usize) -> Result<Ticks> {
    let name = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let line = line.with_context(|| format!("/proc/stat has no {name}"))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .flat_map(str::parse)
        .collect();
    let [user, nice, system, idle, waiting, interrupts, soft, stolen] = ticks[..] else {
        bail!("/proc/stat: {line}");
    };
    let busy = user + nice + system + interrupts + soft + stolen;
    Ok(Ticks {
        busy,
        all: busy + idle + waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_wait_for_the_gateway_are_counted_by_their_source() {
        let line = "   3: 01004E0A:10DD 07004F0A:9C40 01 00000000:00000000 00:00000000 00000000";
        let peer = "10.79.0.7:40000".parse().unwrap();
        assert_eq!(open_from(line), Some(peer));
        let closing = line.replace(" 01 ", " 04 ");
        let elsewhere = line.replace("10DD", "10DE");
        assert_eq!((open_from(&closing), open_from(&elsewhere)), (None, None));
    }

    #[test]
    fn waiting_is_not_work() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 10 1 20 300 40 2 3 4 0 0\n";
        let ticks = ticks(stat, 1).unwrap();
        assert_eq!((ticks.busy, ticks.all), (40, 380));
    }
}
