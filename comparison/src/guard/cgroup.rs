//! The gateway's cgroup. The guard sees the connections of its own cgroup, and the kernel counts exactly the CPU time
//! of its processes. In: nothing. Out: words that start a program in it, CPU time. A janitor that outlives us removes
//! it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use command::program;

/// A cgroup of its own.
pub struct Cgroup {
    path: PathBuf,
    janitor: Child,
}

/// Reads until we close the pipe or end; then waits for the last process to leave, for ten seconds at most. In a
/// session of its own, so that Ctrl-C is not for it.
const JANITOR: &str = "cat > /dev/null; for try in $(seq 100); do \
                       rmdir \"$0\" 2> /dev/null && exit; sleep 0.1; done";

impl Cgroup {
    /// Makes one below our own.
    pub fn new() -> Result<Self> {
        let path = own()?.join(format!("portcullis-bench-{}", std::process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("cannot make {}, which takes root", path.display()))?;
        let janitor = program("setsid")
            .args(["sh", "-c", JANITOR])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run setsid of util-linux")?;
        Ok(Self { path, janitor })
    }

    /// Starts the program whose words follow in this cgroup.
    pub fn entering(&self) -> Vec<String> {
        let members = self.path.join("cgroup.procs");
        let words = ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""].map(str::to_owned);
        [&words[..], &[members.to_string_lossy().into_owned()]].concat()
    }

    /// What all processes that are or were in it have spent.
    pub fn cpu(&self) -> Result<Duration> {
        let file = self.path.join("cpu.stat");
        let text = fs::read_to_string(&file)?;
        let spent = usage_us(&text).with_context(|| format!("{}: {text:?}", file.display()))?;
        Ok(Duration::from_micros(spent))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its end of the pipe: the janitor begins, and gives up by itself.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

fn usage_us(stat: &str) -> Option<u64> {
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    line?.parse().ok()
}

/// Our own cgroup in the one hierarchy of version 2, wherever it is mounted.
fn own() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mounted = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .context("cgroup version 2 is not mounted")?;
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let own = cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .context("/proc/self/cgroup has no line for version 2")?;
    Ok(Path::new(mounted[1]).join(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_spent_is_found_among_others() {
        let stat = "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n";
        assert_eq!(usage_us(stat), Some(1234));
        assert_eq!(usage_us("user_usec 1\n"), None);
    }
}
