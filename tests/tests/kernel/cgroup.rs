//! A child cgroup for one test. In: nothing. Out: a folder below the tests' own cgroup that single threads can enter;
//! sockets made there are in it for life. Removed when the test ends; what a killed test leaves, an empty folder, the
//! next one removes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PREFIX: &str = "portcullis-test-";

/// A cgroup of its own.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let parent = own();
        remove_abandoned(&parent);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!("cannot make {}, which takes root: {error}", path.display())
        });
        let cgroup = Self { path };
        // So that one thread of the test can be in it: the others' sockets are none of its business.
        fs::write(cgroup.path.join("cgroup.type"), "threaded").expect("it can be for threads");
        cgroup
    }

    /// Moves the calling thread into it, until the thread ends.
    pub fn enter(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        fs::write(self.path.join("cgroup.threads"), thread).expect("a thread can be moved");
    }

    /// The folder, as programs are attached to it.
    pub fn open(&self) -> File {
        File::open(&self.path).expect("it is there")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of a thread that has ended.
        let start = Instant::now();
        while let Err(error) = fs::remove_dir(&self.path) {
            if start.elapsed() > Duration::from_secs(10) {
                eprintln!("{}: {error}", self.path.display());
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The cgroup of this process, in the one hierarchy of version 2, wherever it is mounted.
fn own() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let mounted = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .expect("cgroup version 2 is mounted");
    let cgroups = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    let own = cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .expect("every process is in one");
    Path::new(mounted[1]).join(own)
}

/// Removes what tests that were killed have left.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).expect("it is there").flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another test may have been faster.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
