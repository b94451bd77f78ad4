//! A program under test or beside it: started with its output in a file, ended by its own id, shown when a test fails.
//! In: a command. Out: its exit, its log, its memory. Never outlives the value that holds it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::wait::eventually;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it prints goes to `NAME.log` in `folder`.
    pub fn start(folder: &Path, name: &str, command: &mut Command) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("the test's folder can be written");
        let errors = file.try_clone().expect("a file can be shared");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Process {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child of ours can be waited for")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.exited())
    }

    /// Fails the test, with the log, when the program has ended.
    pub fn expect_running(&mut self) {
        if let Some(status) = self.exited() {
            panic!("{} ended with {status}:\n{}", self.name, self.log());
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).expect("a child that was not waited for can be signalled");
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&mut self) {
        // Not running any more is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("the descriptors of a child of ours can be listed")
            .count()
    }

    /// Lets it open descriptors below this number only, from now on; returns the limit that was.
    pub fn limit_descriptors(&self, below: u64) -> u64 {
        let id = Pid::from_child(&self.child);
        let new = Rlimit {
            current: Some(below),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        let old = prlimit(Some(id), Resource::Nofile, new);
        let old = old.expect("a child of ours can be limited");
        old.current.expect("it has been limited from the start")
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))
            .expect("the status of a child of ours can be read");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a running process has resident memory");
        let kibibytes: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("the kernel writes a number of kB");
        kibibytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {} printed:\n{}---", self.name, self.log());
        }
    }
}
