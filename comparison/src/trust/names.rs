//! Trust while the resolver does not answer: six names of servers that cannot be resolved must not delay the gateway.
//! In: nothing. Out: how long the start, a revocation, a client that stays and SIGTERM take. Takes root, for a
//! resolv.conf of its own in a mount namespace of its own.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::Finding;
use crate::figures::table;
use crate::load;
use crate::metrics;
use crate::process::{Cpu, Process, pinned};
use crate::workspace::{Workspace, free_port};

/// The loopback address of the resolver that says nothing, with the port that resolvers have.
const RESOLVER: &str = "127.83.73.76";

/// Names of servers.
const NAMES: usize = 6;

/// What is promised.
const READY_MAX: Duration = Duration::from_secs(6);
const REVOKED_MAX: Duration = Duration::from_secs(1);
const END_MAX: Duration = Duration::from_secs(1);

/// Connections that are held; the first is revoked.
const CONNECTIONS: usize = 10;

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures.
pub fn measure(workspace: &Workspace) -> Result<Finding> {
    let _silent = UdpSocket::bind((RESOLVER, 53)).context("binding port 53 takes root")?;
    fs::write(
        workspace.path("resolv.conf"),
        format!("nameserver {RESOLVER}\n"),
    )?;
    workspace.revocation_list("nobody.crl", 0, 10)?;
    workspace.revocation_list("one.crl", 1, 10)?;
    let (_backend, backend) = load::backend(workspace)?;
    let (port, admin) = (free_port()?, free_port()?);
    let configuration = workspace.path("portcullis.toml");
    let text = |list: &str, group: &str| text(workspace, [port, admin, backend], list, group);
    fs::write(&configuration, text("nobody.crl", "before"))?;

    let started = Instant::now();
    let log = workspace.path("portcullis.log");
    let mut gateway = Process::start(command(workspace, &configuration), &log)?;
    until(&mut gateway, || page(admin, "/readyz").is_ok())?;
    let ready = started.elapsed();

    let journal = workspace.path("journal.txt");
    let mut holding = load::scenario(workspace, "hold", port, CONNECTIONS);
    holding
        .args(["--connections", &CONNECTIONS.to_string()])
        .args(["--for", "8s", "--beat", "100ms", "--journal"])
        .arg(&journal);
    let holding = Process::start(holding, &workspace.path("hold.log"))?;
    until(&mut gateway, || journal.exists())?;
    // The list and six more names in one step.
    fs::write(workspace.path("next.toml"), text("one.crl", "after"))?;
    let changed = UNIX_EPOCH.elapsed()?;
    fs::rename(workspace.path("next.toml"), &configuration)?;
    let report = load::finish(holding)?;
    let revoked = closed_at(&journal)?.saturating_sub(changed);
    let held = report.detail("held to the end");

    let ended = Instant::now();
    let pid = Pid::from_raw(gateway.pid().cast_signed()).context("a process has a number")?;
    kill_process(pid, Signal::TERM)?;
    gateway.finish()?;
    let end = ended.elapsed();
    Ok(conclude(ready, revoked, end, held))
}

fn conclude(ready: Duration, revoked: Duration, end: Duration, held: u64) -> Finding {
    let stayed = CONNECTIONS as u64 - 1;
    let promises = [
        ("ready", ready, READY_MAX),
        ("revocation to the last byte", revoked, REVOKED_MAX),
        ("SIGTERM to the end", end, END_MAX),
    ];
    let rows: Vec<Vec<String>> = promises
        .iter()
        .map(|(what, took, most)| {
            let milliseconds = |time: &Duration| format!("{} ms", time.as_millis());
            vec![(*what).to_owned(), milliseconds(took), milliseconds(most)]
        })
        .collect();
    table(
        &format!(
            "a silent resolver, {NAMES} names; {held} of {stayed} others were served throughout"
        ),
        &["", "took", "promised"],
        &rows,
    );
    let mut broken: Vec<String> = promises
        .iter()
        .filter(|(_, took, most)| took > most)
        .map(|(what, took, most)| format!("{what} within {most:?}: {took:?}"))
        .collect();
    if held != stayed {
        broken.push(format!("all others are served: {held} of {stayed}"));
    }
    Finding {
        figures: json!({
            "names": NAMES,
            "ready_ms": ready.as_millis() as u64,
            "revoked_ms": revoked.as_millis() as u64,
            "sigterm_ms": end.as_millis() as u64,
            "held": held,
        }),
        broken,
    }
}

/// The gateway in a mount namespace with its own resolv.conf, on the server's CPU.
fn command(workspace: &Workspace, configuration: &Path) -> Command {
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let mut command = pinned(Cpu::Server, Path::new("unshare"));
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(workspace.path("resolv.conf"))
        .arg(&workspace.gateway)
        .arg("run")
        .arg("--config")
        .arg(configuration);
    command
}

/// When the only connection that was closed was.
fn closed_at(journal: &Path) -> Result<Duration> {
    let journal = fs::read_to_string(journal)?;
    let closed: Vec<&str> = journal
        .lines()
        .filter_map(|line| line.strip_prefix("closed agent-1 "))
        .collect();
    ensure!(closed.len() == 1, "one connection is closed: {journal}");
    let moment = closed[0].split(' ').next().unwrap_or_default();
    Ok(Duration::from_micros(
        moment.parse().context("the journal holds Unix times")?,
    ))
}

fn until(gateway: &mut Process, mut seen: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !seen() {
        gateway.ensure_alive()?;
        ensure!(Instant::now() < deadline, "{}", gateway.last_lines());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn page(admin: u16, path: &str) -> Result<String> {
    metrics::page(TcpStream::connect(("127.0.0.1", admin))?, path)
}

fn text(
    workspace: &Workspace,
    [port, admin, backend]: [u16; 3],
    list: &str,
    group: &str,
) -> String {
    let names: Vec<String> = (1..=NAMES)
        .map(|number| format!("{group}-{number}.test:4317"))
        .collect();
    let path = |name: &str| workspace.path(name);
    format!(
        "[workers]\ncount = 1\n\n[admin]\naddress = \"127.0.0.1:{admin}\"\n\n\
         [[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:{port}\"\ncertificate = {:?}\nkey = {:?}\n\
         client_ca = [{:?}]\ncrl = [{:?}]\nbackend = \"backend\"\n\n\
         [[listener]]\nname = \"named\"\naddress = \"127.0.0.2:{port}\"\ncertificate = {:?}\nkey = {:?}\n\
         client_ca = [{:?}]\nbackend = \"named\"\n\n\
         [[backend]]\nname = \"backend\"\nservers = [\"127.0.0.1:{backend}\"]\n\n\
         [[backend]]\nname = \"named\"\nservers = {names:?}\ndangerous_plaintext = true\n\n\
         [[identity]]\nmatch = {{ uri = \"spiffe://example.org/agent/*\" }}\n",
        path("current/server.pem"),
        path("current/server.key"),
        path("pki/ca.pem"),
        path(list),
        path("current/server.pem"),
        path("current/server.key"),
        path("pki/ca.pem"),
    )
}
