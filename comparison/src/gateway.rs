//! The gateway under measurement: its configuration, its start, its reloads, its metrics.
//! In: a workspace and what stands behind it. Out: a running `Gateway`. Speaks to it by files and HTTP only.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::job::{Http, Job, PROXY_CERTIFICATE, PROXY_KEY, TENANT};
use crate::metrics;
use crate::process::{Cpu, Process, pinned};
use crate::workspace::{Workspace, free_port};

/// The longest wait for a start or a reload.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at the metrics: each costs the gateway's control thread a little.
const LOOK: Duration = Duration::from_millis(50);

/// A running gateway with one worker and one listener. All its threads share one CPU: what reloads takes its time from
/// what serves, the hardest case there is.
pub struct Gateway {
    /// The program.
    pub process: Process,
    /// Where clients connect.
    pub port: u16,
    admin: u16,
}

/// What a gateway is started with.
pub struct Setup<'a> {
    /// Names its files.
    pub name: &'a str,
    /// The program; the workspace's own or another build.
    pub program: &'a Path,
    /// What it does.
    pub job: Job,
    /// Port of the backend.
    pub backend: u16,
    /// Revocation list by its name in the workspace's folder.
    pub crl: Option<&'a str>,
    /// The library that computes; the gateway's own choice without it.
    pub provider: Option<&'a str>,
    /// Rules for identities that stand before the one that all clients match.
    pub other_rules: usize,
    /// Identities of requests are spread over a hundred tenants; without it all are of one.
    pub has_tenants: bool,
}

impl Gateway {
    /// Starts it and waits until it takes connections.
    pub fn start(workspace: &Workspace, setup: &Setup<'_>) -> Result<Self> {
        let (port, admin) = (free_port()?, free_port()?);
        let configuration = workspace.path(&format!("{}.toml", setup.name));
        fs::write(&configuration, text(workspace, setup, port, admin))?;
        let mut command = pinned(Cpu::Server, setup.program);
        command.arg("run").arg("--config").arg(&configuration);
        let log = workspace.path(&format!("{}.log", setup.name));
        let mut gateway = Self {
            process: Process::start(command, &log)?,
            port,
            admin,
        };
        let deadline = Instant::now() + PATIENCE;
        while gateway.page("/readyz").is_err() {
            gateway.process.ensure_alive()?;
            ensure!(
                Instant::now() < deadline,
                "{} does not become ready",
                setup.name
            );
            thread::sleep(LOOK);
        }
        Ok(gateway)
    }

    /// Puts a new file in the place of an old one and waits until the gateway, which watches it, has reloaded.
    pub fn replace(&self, new: &Path, old: &Path) -> Result<Change> {
        self.change(|| Ok(fs::rename(new, old)?))
    }

    /// Does something to files that the gateway watches and waits until it has reloaded.
    pub fn change(&self, change: impl FnOnce() -> Result<()>) -> Result<Change> {
        let before = self.reloads()?;
        let (at, started) = (SystemTime::now(), Instant::now());
        change()?;
        loop {
            let now = self.reloads()?;
            if now.refused > before.refused {
                bail!("the reload was refused:\n{}", self.process.last_lines());
            }
            if now.taken > before.taken {
                let took = started.elapsed();
                return Ok(Change { at, took });
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "the reload is not taken:\n{}",
                self.process.last_lines()
            );
            thread::sleep(LOOK);
        }
    }

    /// The sum of a metric over all its labels, or of those that have `label`.
    pub fn metric(&self, name: &str, label: &str) -> Result<f64> {
        metrics::sum(&self.page("/metrics")?, name, &[label])
            .with_context(|| format!("no metric {name} with {label}"))
    }

    fn reloads(&self) -> Result<Reloads> {
        Ok(Reloads {
            taken: self.metric("portcullis_reloads_total", "result=\"taken\"")?,
            refused: self.metric("portcullis_reloads_total", "result=\"refused\"")?,
        })
    }

    fn page(&self, path: &str) -> Result<String> {
        metrics::page(TcpStream::connect(("127.0.0.1", self.admin))?, path)
    }
}

/// Files that were changed.
pub struct Change {
    /// The moment before the new content could be seen.
    pub at: SystemTime,
    /// From then until the gateway counted the reload, give or take a look.
    pub took: Duration,
}

struct Reloads {
    taken: f64,
    refused: f64,
}

/// Name and folders of the gateway's own, so that several can run at once. Commits from before there were any know
/// neither.
fn own_keys(workspace: &Workspace, setup: &Setup<'_>) -> String {
    let help = Command::new(setup.program)
        .args(["blocked", "--help"])
        .output();
    let is_known = help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--name"));
    let paths = format!(
        "name = {:?}\n[paths]\nstate = {:?}\nrun = {:?}\n",
        setup.name.replace('.', "-"),
        workspace.path("state"),
        workspace.path("run"),
    );
    if is_known { paths } else { String::new() }
}

fn text(workspace: &Workspace, setup: &Setup<'_>, port: u16, admin: u16) -> String {
    let path = |name: &str| -> PathBuf { workspace.path(name) };
    let crl = setup
        .crl
        .map(|name| format!("crl = [{:?}]\n", path(name)))
        .unwrap_or_default();
    let tls = setup
        .provider
        .map(|provider| format!("[tls]\nprovider = {provider:?}\n\n"))
        .unwrap_or_default();
    let own = own_keys(workspace, setup);
    let others = other_rules(setup.other_rules);
    let (mode, backend, identity) = match setup.job {
        Job::Relay => ("stream", String::new(), String::new()),
        Job::Requests { backend, .. } => ("http", towards(workspace, backend), requests(TENANT)),
    };
    let tenants = if setup.has_tenants {
        tenants()
    } else {
        String::new()
    };
    format!(
        "{own}[workers]\ncount = 1\n\n{tls}\
         [admin]\naddress = \"127.0.0.1:{admin}\"\n\n\
         [[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:{port}\"\nmode = \"{mode}\"\n\
         certificate = {:?}\nkey = {:?}\nclient_ca = [{:?}]\n{crl}\
         backend = \"backend\"\nmax_connections = 11000\nmax_handshakes = 11000\n\n\
         [[backend]]\nname = \"backend\"\nservers = [\"127.0.0.1:{}\"]\n{backend}\n\
         {others}{tenants}[[identity]]\nmatch = {{ uri = \"spiffe://example.org/agent/*\" }}\n{identity}",
        path("current/server.pem"),
        path("current/server.key"),
        path("pki/ca.pem"),
        setup.backend,
    )
}

/// How the backend of an HTTP listener is reached.
fn towards(workspace: &Workspace, version: Http) -> String {
    format!(
        "protocol = {:?}\ntls = {{ ca = [{:?}], certificate = {:?}, key = {:?}, server_name = \"localhost\" }}\n",
        version.alpn(),
        workspace.path("pki/ca.pem"),
        workspace.path(PROXY_CERTIFICATE),
        workspace.path(PROXY_KEY),
    )
}

/// What a rule of an HTTP listener says beside whom it matches: all requests, of one tenant.
fn requests(tenant: &str) -> String {
    format!("tenant = {tenant:?}\nallow = [{{ methods = [\"POST\"], path = \"/\" }}]\n")
}

/// Rules by which 10,000 identities have a hundred tenants: those whose numbers begin with the same two digits share one.
fn tenants() -> String {
    let ones = (1..=9).map(|number| (number, ""));
    let tens = (10..=99).map(|digits| (digits, "*"));
    let rule = |(number, star): (u32, &str)| {
        let requests = requests(&format!("tenant-{number}"));
        let uri = format!("spiffe://example.org/agent/{number}{star}");
        format!("[[identity]]\nmatch = {{ uri = {uri:?} }}\n{requests}\n")
    };
    std::iter::once((10_000, ""))
        .chain(ones)
        .chain(tens)
        .map(rule)
        .collect()
}

/// So many rules that no client matches: whole names, beginnings, and names with a wildcard in turn.
fn other_rules(count: usize) -> String {
    let rule = |number: usize| {
        let name = match number % 3 {
            0 => format!("uri = \"spiffe://example.org/other/{number}\""),
            1 => format!("uri = \"spiffe://example.org/other/{number}/*\""),
            _ => format!("dns = \"*.other-{number}.example.org\""),
        };
        format!("[[identity]]\nmatch = {{ {name} }}\n")
    };
    (0..count).map(rule).collect()
}
