//! A cgroup for the processes of one test. In: nothing. Out: a folder right below the mount, which a process enters before it
//! starts anything. Removed with the test, and what its processes made below it too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A cgroup for the processes of one test.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-guard-test-{}-{number}", std::process::id());
        let path = mount_of_cgroups().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!("cannot make {}, which takes root: {error}", path.display())
        });
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
    }
}

/// Removes a cgroup with those below it. The kernel takes a moment to let go of processes that have ended.
pub fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let start = Instant::now();
    while path.exists() && fs::remove_dir(path).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            return eprintln!("{} is still in use", path.display());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Where they are.
pub fn mount_of_cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let fields = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let mounted = mounts
        .lines()
        .map(fields)
        .find(|fields| fields[2] == "cgroup2");
    PathBuf::from(&mounted.expect("cgroup version 2 is mounted")[1])
}
