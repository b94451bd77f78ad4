//! Programs under measurement: pinned to a CPU, ended with us, and what the kernel says of them.
//! In: a command. Out: a `Process`, whose drop ends it. Looks into /proc, never into the program.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cpu {
    /// The CPU of the measured server and of nothing else.
    Server,
    /// The CPU of everything else.
    Client,
}

impl Cpu {
    /// Its number.
    pub fn number(self) -> usize {
        match self {
            Self::Server => 0,
            Self::Client => 1,
        }
    }
}

/// A running program.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// Lines of a log that an error repeats.
const LOG_LINES: usize = 15;

/// The longest wait for a program to listen.
const PATIENCE: Duration = Duration::from_secs(30);

impl Process {
    /// Starts a program whose output goes to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", command::shown(&command)))?;
        let name = log
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Ok(Self {
            child,
            name,
            log: log.to_owned(),
        })
    }

    /// Its number; taskset and setpriv give theirs on to the program they start.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn output(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))
    }

    /// Fails if it has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.last_lines()),
        }
    }

    /// Waits until something listens on a port of 127.0.0.1, which this program should.
    pub fn await_port(&mut self, port: u16) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            self.ensure_alive()?;
            ensure!(Instant::now() < deadline, "{} does not listen", self.name);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) -> Result<String> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.last_lines());
        }
        self.output()
    }

    /// The end of its output, for an error.
    pub fn last_lines(&self) -> String {
        let text = self.output().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// A line of /proc/PID/status in KiB, such as `VmRSS` or `VmHWM`.
    pub fn memory_kib(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        memory_kib(&status, field).with_context(|| format!("{}: no {field}", self.name))
    }

    /// Lets `VmHWM` count from now on.
    pub fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs on the given CPU and does not outlive us, however we end.
pub fn pinned(cpu: Cpu, program: &Path) -> Command {
    let mut command = command::program("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    let number = cpu.number().to_string();
    command
        .args(["taskset", "--cpu-list", &number])
        .arg(program);
    command
}

/// Keeps ourselves off the server's CPU.
pub fn make_room() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(Cpu::Client.number());
    sched_setaffinity(None, &set).context("staying on the CPU of the load")
}

fn memory_kib(status: &str, field: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_by_the_whole_name_of_its_field() {
        let status = "Name:\tx\nVmRSSX:\t    1 kB\nVmRSS:\t  420 kB\n";
        assert_eq!(memory_kib(status, "VmRSS"), Some(420));
        assert_eq!(memory_kib(status, "VmHWM"), None);
    }
}
