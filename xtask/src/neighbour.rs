//! Another gateway on the host while the tests run, and a bpffs where systemd mounts one: what hosts have on which the tests
//! must pass too. In: the programs as built. Out: a guarded gateway, which has to be alive and unchanged at the end.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use command::{output, program, run_quietly, target};

/// Where every host with systemd has a bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// How long the gateway may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that has nothing to do with the tests.
pub struct Neighbour {
    process: Child,
    name: String,
    folder: TempDir,
    /// Whether the bpffs was mounted for it.
    has_mounted: bool,
}

impl Neighbour {
    /// Mounts a bpffs where there is none, and starts a gateway with a guard.
    pub fn start() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let is_mounted = mounts
            .lines()
            .any(|line| line.split(' ').skip(1).take(2).eq([BPFFS, "bpf"]));
        if !is_mounted {
            run_quietly(program("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
        }
        let folder = tempfile::tempdir()?;
        let name = format!("neighbour-{}", std::process::id());
        let file = configure(&name, folder.path())?;
        let process = portcullis()
            .args(["run", "--config"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()
            .context("starting another gateway beside the tests")?;
        let mut neighbour = Self {
            process,
            name,
            folder,
            has_mounted: !is_mounted,
        };
        neighbour.wait_until_ready()?;
        Ok(neighbour)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let since = Instant::now();
        while !self.is_ready() {
            if self.process.try_wait()?.is_some() || since.elapsed() > PATIENCE {
                bail!(
                    "the gateway beside the tests does not start:\n{}",
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let mut status = portcullis();
        status
            .args(["guard", "status", "--json"])
            .args(["--name", &self.name]);
        output(&mut status).is_some_and(|shown| shown.contains("\"alive\": true"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it, and removes what it pinned.
    ///
    /// # Errors
    /// When it was gone before, or its kernel programs were.
    pub fn end(mut self) -> Result<()> {
        let is_alive = self.process.try_wait()?.is_none() && self.is_ready();
        let log = self.log();
        self.remove();
        match is_alive {
            true => Ok(()),
            false => bail!("the tests disturbed the gateway beside them:\n{log}"),
        }
    }

    fn remove(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw)
        {
            // It may have ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
        let mut detach = portcullis();
        detach.args(["guard", "detach", "--name", &self.name]);
        let _ = output(&mut detach);
        if std::mem::take(&mut self.has_mounted) {
            let _ = run_quietly(program("umount").arg(BPFFS));
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|status| status.is_none()) || self.has_mounted {
            self.remove();
        }
    }
}

fn portcullis() -> Command {
    program(target().join("debug/portcullis"))
}

/// An authority, a certificate and a configuration in `folder`.
fn configure(name: &str, folder: &Path) -> Result<std::path::PathBuf> {
    let pki = folder.join("pki");
    for arguments in [
        &["init"][..],
        &["issue", "gateway", "gateway", "--dns", "localhost"],
    ] {
        let mut command = portcullis();
        command
            .arg("pki")
            .args(arguments)
            .arg("--directory")
            .arg(&pki);
        run_quietly(command.stdout(Stdio::null()))?;
    }
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let text = format!(
        "name = \"{name}\"\n[paths]\nstate = {state:?}\nrun = {run:?}\n[workers]\ncount = 1\n[guard]\nmode = \"monitor\"\ninterfaces = []\n\
         [[listener]]\nname = \"edge\"\naddress = \"{address}\"\nmode = \"stream\"\n\
         certificate = {certificate:?}\nkey = {key:?}\nclient_ca = [{ca:?}]\nbackend = \"nowhere\"\n\
         [[backend]]\nname = \"nowhere\"\nservers = [\"127.0.0.1:9\"]\n",
        state = folder.join("state"),
        run = folder.join("run"),
        certificate = pki.join("gateway.pem"),
        key = pki.join("gateway.key"),
        ca = pki.join("ca.pem"),
    );
    let file = folder.join("portcullis.toml");
    fs::write(&file, text)?;
    Ok(file)
}
