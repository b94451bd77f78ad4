//! The cgroup whose sockets the kernel program follows: the gateway's own. In: /proc/self/cgroup. Out: a folder to attach
//! to. A process in the root cgroup, where every process of the host would pay for the program, makes one and enters it.
//! Before the first listening socket is made: a socket belongs for life to the cgroup it was made in.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gateway_files::look_writable;

use super::GuardError;
use super::mounts::mounts_of;

/// A cgroup of version 2.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// Where the process was before; only where it is to go back there.
    home: Option<PathBuf>,
}

/// The name of the cgroup that a gateway makes below the root.
pub(super) fn name_of(name: &str) -> String {
    format!("portcullis-{name}")
}

impl Cgroup {
    /// The cgroup of this process; in the root cgroup, one below it by the name `name`, which the process enters. With
    /// `is_lasting` it stays when this is dropped.
    pub(super) fn of_this_process(name: &str, is_lasting: bool) -> Result<Self, GuardError> {
        let mount = mount()?;
        let own = own_path(&mount)?;
        // The root alone has no type (cgroup-v2.rst, "Core Interface Files").
        if own.join("cgroup.type").exists() {
            return Ok(Self {
                path: own,
                home: None,
            });
        }
        let path = own.join(name);
        enter(&path).map_err(|error| root_cgroup(&path, &error))?;
        tracing::info!(cgroup = %path.display(), "moved out of the root cgroup");
        Ok(Self {
            path,
            home: (!is_lasting).then_some(own),
        })
    }

    /// The folder, as programs are attached to it.
    pub(super) fn open(&self) -> Result<File, GuardError> {
        File::open(&self.path).map_err(|error| GuardError::Cgroup {
            reason: format!("{}: {error}", self.path.display()),
        })
    }

    /// Removes the folder that gateways by this name made below the root cgroup, unless a process is in it.
    pub(super) fn remove(name: &str) -> io::Result<Option<PathBuf>> {
        let Ok(mount) = mount() else { return Ok(None) };
        let path = mount.join(name);
        match fs::remove_dir(&path) {
            Ok(()) => Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // No caller is left to tell; an empty folder is what stays.
            let _ = enter(&home).and_then(|()| fs::remove_dir(&self.path));
        }
    }
}

/// Whether there is a cgroup to follow: this process's own, or one that could be made by the name `name`. Makes none.
pub(super) fn look(name: &str) -> Result<(), GuardError> {
    let own = own_path(&mount()?)?;
    let path = match own.join("cgroup.type").exists() {
        true => return Ok(()),
        false => own.join(name),
    };
    let outcome = match path.is_dir() {
        true => look_writable(&path),
        false => look_writable(&own),
    };
    outcome.map_err(|error| root_cgroup(&path, &error))
}

fn root_cgroup(path: &Path, error: &io::Error) -> GuardError {
    GuardError::Cgroup {
        reason: format!(
            "the process is in the root cgroup, and cannot make and enter {}: {error}",
            path.display()
        ),
    }
}

fn mount() -> Result<PathBuf, GuardError> {
    let mounted = mounts_of("cgroup2")
        .ok()
        .and_then(|found| found.into_iter().next());
    mounted.ok_or_else(|| GuardError::Cgroup {
        reason: "cgroup version 2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
    })
}

/// Where /proc says this process is in the hierarchy of version 2, cgroups(7).
fn own_path(mount: &Path) -> Result<PathBuf, GuardError> {
    let failed = |reason: String| GuardError::Cgroup { reason };
    let table = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| failed(format!("/proc/self/cgroup: {error}")))?;
    let own = table.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.ok_or_else(|| failed("/proc/self/cgroup names none of version 2".to_owned()))?;
    Ok(mount.join(own))
}

/// Moves this process into the cgroup at `path`, which is made if it is not there.
fn enter(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(path.join("cgroup.procs"), "0")
}
