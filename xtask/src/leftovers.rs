//! What tests must not leave behind: network namespaces, mounts, kernel programs' pins, cgroups, processes.
//! In: a look before the tests and one after. Out: nothing, or a list of what is new. Ends nothing by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Variable in the environment of every process that the tests start, to know them by afterwards.
pub const MARK: &str = "PORTCULLIS_TEST_RUN";

/// A killed process needs a moment until the kernel has taken it down.
const PATIENCE: Duration = Duration::from_secs(5);

/// The machine's state before the tests.
pub struct Before {
    state: BTreeSet<String>,
}

impl Before {
    /// Looks at the machine.
    pub fn look() -> Result<Before> {
        Ok(Before { state: state()? })
    }

    /// Fails with everything that is new, once it has had time to go away by itself.
    pub fn compare(&self, mark: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left: Vec<String> = state()?.difference(&self.state).cloned().collect();
            left.extend(marked_processes(mark)?);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the tests left behind:\n  {}", left.join("\n  "));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Named network namespaces, mounts and pinned objects, one line each.
fn state() -> Result<BTreeSet<String>> {
    let mut state = BTreeSet::new();
    for folder in ["/run/netns", "/sys/fs/bpf"] {
        add_entries(Path::new(folder), &mut state);
    }
    for line in fs::read_to_string("/proc/self/mounts")?.lines() {
        // Device, mount point, type: what comes after may change while a mount stays.
        let words: Vec<&str> = line.split(' ').take(3).collect();
        if let [_, point, "cgroup2"] = words[..] {
            add_cgroups(Path::new(point), &mut state);
        }
        state.insert(format!("mount {}", words.join(" ")));
    }
    for line in fs::read_to_string("/proc/net/dev")?.lines().skip(2) {
        if let Some((interface, _)) = line.split_once(':') {
            state.insert(format!("network interface {}", interface.trim()));
        }
    }
    Ok(state)
}

/// Everything below a folder, at every depth. What goes away meanwhile, or cannot be read, is not there.
fn add_entries(folder: &Path, state: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_entries(&path, state);
        }
        state.insert(path.display().to_string());
    }
}

/// Cgroups directly below the root that bear our name: those a gateway or a test made.
fn add_cgroups(mount: &Path, state: &mut BTreeSet<String>) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("portcullis")
        {
            state.insert(format!("cgroup {}", entry.path().display()));
        }
    }
}

/// Processes whose environment carries our mark, ourselves not among them: we set it for children only.
fn marked_processes(mark: &str) -> Result<Vec<String>> {
    let wanted = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        // Processes come and go while we look, and those of other users cannot be read.
        let Ok(environment) = fs::read(folder.join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
        {
            let words = fs::read(folder.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&words).replace('\0', " ");
            found.push(format!("process {}: {command}", folder.display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_outlives_the_tests_is_named() {
        let mark = format!("self-test-{}", std::process::id());
        let mut left = Command::new("sleep")
            .arg("60")
            .env(MARK, &mark)
            .spawn()
            .unwrap();
        // The kernel shows a new program's environment a moment after it has started.
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.is_empty() && Instant::now() < deadline {
            found = marked_processes(&mark).unwrap();
        }
        left.kill().unwrap();
        left.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("sleep 60"), "{found:?}");
        assert!(marked_processes(&mark).unwrap().is_empty());
    }

    #[test]
    fn a_pin_deep_below_a_folder_that_was_there_before_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("portcullis/edge/v1");
        fs::create_dir_all(&deep).unwrap();
        let mut before = BTreeSet::new();
        add_entries(folder.path(), &mut before);
        let pin = deep.join("BANS");
        fs::write(&pin, "").unwrap();
        let mut after = BTreeSet::new();
        add_entries(folder.path(), &mut after);
        let new: Vec<_> = after.difference(&before).collect();
        assert_eq!(new, [&pin.display().to_string()]);
    }

    #[test]
    fn the_state_names_interfaces_and_mounts() {
        let state = state().unwrap();
        assert!(state.contains("network interface lo"), "{state:?}");
        assert!(
            state
                .iter()
                .any(|line| line.starts_with("mount proc /proc ")),
            "{state:?}"
        );
    }
}
