//! The load generator as a program: backends, loads, and what it reports.
//! In: a workspace, a port, arguments. Out: its JSON. Always bounded by `--for` or `--count`.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Cpu, Process, pinned};
use crate::workspace::Workspace;

/// Starts the echo that stands behind the measured servers, and returns its port.
pub fn backend(workspace: &Workspace) -> Result<(Process, u16)> {
    backend_of(workspace, "echo")
}

/// Starts a backend of the given kind behind the measured servers, and returns its port.
pub fn backend_of(workspace: &Workspace, kind: &str) -> Result<(Process, u16)> {
    serve(
        pinned(Cpu::Client, &workspace.loadgen),
        kind,
        "127.0.0.1",
        &workspace.path(&format!("backend-{kind}.log")),
    )
}

/// Starts a backend of HTTP behind the measured servers, with TLS on both sides, and returns its port and that of its
/// statistics.
pub fn http_backend(workspace: &Workspace, version: &str) -> Result<(Process, u16, u16)> {
    let mut command = pinned(Cpu::Client, &workspace.loadgen);
    command
        .args(["backend", "--protocol", version, "--for", "1h"])
        .args(["--max-streams", "10000"])
        .args(["--listen", "127.0.0.1:0", "--stats-listen", "127.0.0.1:0"])
        .args(["--server-certificate", &workspace.text("two/server.pem")])
        .args(["--server-key", &workspace.text("two/server.key")])
        .args(["--client-ca", &workspace.text("pki/ca.pem")]);
    let log = workspace.path(&format!("backend-{}.log", version.replace('/', "-")));
    let mut process = Process::start(command, &log)?;
    let port = await_port(&mut process, "listening on 127.0.0.1:")?;
    let stats = await_port(&mut process, "statistics on 127.0.0.1:")?;
    Ok((process, port, stats))
}

/// Makes a command that runs the load generator one that serves on an address, starts it and returns its port.
pub fn serve(
    mut command: Command,
    kind: &str,
    address: &str,
    log: &Path,
) -> Result<(Process, u16)> {
    let listen = format!("{address}:0");
    command.args(["backend", kind, "--listen", &listen, "--for", "1h"]);
    let mut process = Process::start(command, log)?;
    let port = await_port(&mut process, &format!("listening on {address}:"))?;
    Ok((process, port))
}

/// The port that a program prints behind this greeting.
fn await_port(process: &mut Process, greeting: &str) -> Result<u16> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = process.output()?;
        if let Some(port) = text.lines().find_map(|line| line.strip_prefix(greeting)) {
            return port.parse().context("the backend prints its port");
        }
        process.ensure_alive()?;
        if Instant::now() > deadline {
            bail!("the backend does not say where it listens: {text}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A scenario against a port, as identities issued by the workspace's CA.
pub fn scenario(workspace: &Workspace, name: &str, port: u16, issue: usize) -> Command {
    let command = pinned(Cpu::Client, &workspace.loadgen);
    agents(
        command,
        workspace,
        name,
        &format!("127.0.0.1:{port}"),
        issue,
    )
}

/// A scenario against a port with the post-quantum group, as one identity.
pub fn hybrid(workspace: &Workspace, name: &str, port: u16) -> Command {
    let mut command = pinned(Cpu::Client, &workspace.loadgen);
    command.arg(name);
    identities(
        command,
        workspace,
        &format!("127.0.0.1:{port}"),
        1,
        "X25519MLKEM768",
    )
}

/// A scenario against a port that expects no TLS.
pub fn plain(workspace: &Workspace, name: &str, port: u16) -> Command {
    let mut command = pinned(Cpu::Client, &workspace.loadgen);
    command.arg(name).args(["--json", "--plaintext"]);
    command.args(["--target", &format!("127.0.0.1:{port}")]);
    command
}

/// Makes a command that runs the load generator one that runs a scenario as identities issued by the workspace's CA.
pub fn agents(
    mut command: Command,
    workspace: &Workspace,
    name: &str,
    target: &str,
    issue: usize,
) -> Command {
    command.arg(name);
    identities(command, workspace, target, issue, "X25519")
}

/// Adds to a command of the load generator where to connect, and as which identities.
pub fn identities(
    mut command: Command,
    workspace: &Workspace,
    target: &str,
    issue: usize,
    group: &str,
) -> Command {
    command
        .args(["--json", "--server-name", "localhost", "--target", target])
        .args(["--ca", &workspace.text("pki/ca.pem")])
        .args(workspace.authority())
        .args(["--issue", &issue.to_string()])
        .args(["--cipher-suite", "TLS_AES_128_GCM_SHA256"])
        .args(["--group", group]);
    command
}

/// Runs a load to its end. What failed in it is an error.
pub fn run(command: Command, log: &Path) -> Result<Report> {
    finish(Process::start(command, log)?)
}

/// Waits for a load that runs beside others.
pub fn finish(process: Process) -> Result<Report> {
    let text = process.finish()?;
    let start = text
        .find('{')
        .context("the load generator prints a report")?;
    Ok(Report(serde_json::from_str(&text[start..])?))
}

/// What the load generator reported.
pub struct Report(Value);

impl Report {
    /// A number, by JSON pointer.
    pub fn number(&self, pointer: &str) -> Result<f64> {
        self.0
            .pointer(pointer)
            .and_then(Value::as_f64)
            .with_context(|| format!("no number {pointer} in {:#}", self.0))
    }

    /// One of the further counts; what never happened is not among them.
    pub fn detail(&self, name: &str) -> u64 {
        self.0["details"][name].as_u64().unwrap_or(0)
    }
}
