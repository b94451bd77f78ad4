//! Where maps and attachments outlive the process: pinned below a bpffs, in a folder of this gateway's own that carries
//! the version of the maps' layout. In: the name, which tells gateways of one host apart. Out: paths, a lock. Before the workers start, on the thread that has the privileges; and in commands.
//!
//! ```text
//! /sys/fs/bpf/portcullis/edge/v1/                  one folder for each gateway and layout
//!     PORT_COUNTS BANS ...                         maps
//!     flow_life flow_verdict                       attachments to the cgroup
//!     xdp-native-3                                 attachment to the interface with index 3
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData};
use gateway_common::LAYOUT_VERSION;
use ring::digest::{SHA256, digest};
use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountFlags, mount};

use super::cgroup::{self, Cgroup};
use super::error::{Refusal, refusal_of};
use super::maps::Maps;
use super::mounts::mounts_of;
use super::{AttachMode, GuardError};

/// Where every distribution mounts it.
const USUAL_MOUNT: &str = "/sys/fs/bpf";

/// Our folder below it.
const FOLDER: &str = "portcullis";

/// How long a start waits for another of the same gateway.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The folder of one gateway's pins.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    name: String,
    /// What the gateway was called while its configuration file named it.
    former: Option<String>,
    /// Held as long as the gateway lives: with others of the same name, once it has started.
    lock: Option<File>,
}

/// What told gateways of one host apart in earlier versions: their configuration files, by name and by a sum of their paths.
pub fn former_name(config_file: &Path) -> String {
    let path = fs::canonicalize(config_file).unwrap_or_else(|_| config_file.to_owned());
    let sum = digest(&SHA256, path.as_os_str().as_bytes());
    let sum: String = sum.as_ref()[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // A bpffs takes no dots.
    let stem = path
        .file_stem()
        .map(OsStr::to_string_lossy)
        .unwrap_or_default();
    let stem: String = stem
        .chars()
        .filter(|character| character.is_ascii_alphanumeric() || *character == '-')
        .take(32)
        .collect();
    format!("{stem}-{sum}")
}

impl Pins {
    /// Makes the folder of the gateway with this name, and mounts a bpffs for it where there is none. What an earlier version
    /// has pinned for it by its `former` name moves there. Says as well whether no other process of this gateway is alive.
    pub(super) fn make(name: &str, former: Option<&str>) -> Result<(Self, bool), GuardError> {
        let folder = make_folder(name, former)?;
        let lock = File::open(&folder).map_err(|error| GuardError::pins(&folder, &error))?;
        let is_alone = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                share(&lock).map_err(|error| GuardError::pins(&folder, &error))?;
                false
            }
            Err(error) => return Err(GuardError::pins(&folder, &error.into())),
        };
        let pins = Self {
            folder,
            name: name.to_owned(),
            former: former.map(str::to_owned),
            lock: Some(lock),
        };
        if is_alone {
            // Those of a version with another layout would keep their hands on the interfaces.
            for other in pins.other_layouts() {
                remove_folder(&other).map_err(|error| GuardError::pins(&other, &error))?;
            }
        }
        Ok((pins, is_alone))
    }

    /// The start is over: another process of this gateway may take over from now on.
    pub(super) fn let_others_in(&self) -> Result<(), GuardError> {
        let Some(lock) = &self.lock else {
            return Ok(());
        };
        share(lock).map_err(|error| GuardError::pins(&self.folder, &error))
    }

    /// The pins of the gateway, running or stopped, with this name.
    ///
    /// # Errors
    /// When there are none that this version of the program can read: the text says where they would be.
    pub fn find(name: &str) -> Result<Self, GuardError> {
        let candidates = mount_points();
        for mount in &candidates {
            let folder = folder_below(mount, name);
            match fs::metadata(&folder) {
                Ok(_) => {
                    return Ok(Self {
                        folder,
                        name: name.to_owned(),
                        former: None,
                        lock: None,
                    });
                }
                // Whether there is one is not for everybody to know.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(GuardError::closed(&folder, &error));
                }
                Err(_) => {}
            }
        }
        Err(GuardError::NothingPinned {
            name: name.to_owned(),
            mounted: !candidates.is_empty(),
        })
    }

    /// The pins of the gateway with this name, or of its `former` one, of whichever layout, to be removed.
    ///
    /// # Errors
    /// When there are none.
    pub fn find_of_any_layout(name: &str, former: Option<&str>) -> Result<Self, GuardError> {
        let candidates = mount_points().into_iter().map(|mount| Self {
            folder: folder_below(&mount, name),
            name: name.to_owned(),
            former: former.map(str::to_owned),
            lock: None,
        });
        let mut pinned =
            candidates.filter(|pins| pins.folder.is_dir() || !pins.other_layouts().is_empty());
        // If there are none, this says where they would be.
        pinned.next().map_or_else(|| Self::find(name), Ok)
    }

    /// The maps that are pinned.
    ///
    /// # Errors
    /// When one is missing or not for us to read.
    pub fn maps(&self) -> Result<Maps, GuardError> {
        Maps::open(|name| {
            let path = self.path(name);
            MapData::from_pin(&path)
                .and_then(Map::from_map_data)
                .map_err(|error| match refusal_of(&error) {
                    Refusal::Capability => GuardError::closed(&path, &error),
                    _ => GuardError::pins(&path, &io::Error::other(error)),
                })
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where something by this name is or will be pinned.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the attachment to the interface with this index is or will be pinned.
    pub(super) fn interface_path(&self, index: u32, mode: AttachMode) -> PathBuf {
        self.folder
            .join(format!("{XDP_PREFIX}{}-{index}", mode.name()))
    }

    /// Interfaces that the program is attached to, by index.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn interfaces(&self) -> Result<Vec<(u32, AttachMode)>, GuardError> {
        let entries =
            fs::read_dir(&self.folder).map_err(|error| GuardError::pins(&self.folder, &error))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names
            .filter_map(|name| interface_of(name.to_str()?))
            .collect())
    }

    /// Whether anything is attached, as far as the pins say.
    pub fn is_attached(&self) -> bool {
        self.path(gateway_common::LIFE_PROGRAM).exists()
    }

    /// Detaches everything, and leaves the maps where they are.
    pub(super) fn detach(&self) -> io::Result<()> {
        let pins = pins_of(&self.folder)?;
        pins.iter()
            .filter(|pin| !is_map(pin))
            .try_for_each(fs::remove_file)
    }

    /// Detaches everything and forgets all counters and bans, of this layout and of others. Returns what was removed.
    ///
    /// # Errors
    /// When something cannot be removed; what comes after it may still be there.
    pub fn remove(&self) -> Result<Vec<PathBuf>, GuardError> {
        let mut removed = Vec::new();
        for folder in self
            .other_layouts()
            .into_iter()
            .chain([self.folder.clone()])
        {
            if folder.exists() {
                removed.extend(
                    remove_folder(&folder).map_err(|error| GuardError::pins(&folder, &error))?,
                );
            }
        }
        // A process that still runs in it is no failure: the folder is empty of programs.
        let names = [Some(self.name.as_str()), self.former.as_deref()];
        let cgroups = names.into_iter().flatten().map(cgroup::name_of);
        removed.extend(cgroups.filter_map(|name| Cgroup::remove(&name).ok().flatten()));
        Ok(removed)
    }

    /// Folders of the same gateway in other layouts, and by its former name.
    fn other_layouts(&self) -> Vec<PathBuf> {
        let Some(own) = self.folder.parent() else {
            return Vec::new();
        };
        let entries = |folder: Option<&Path>| {
            let read = folder.and_then(|folder| fs::read_dir(folder).ok());
            read.into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
        };
        let of_name = entries(Some(own)).filter(|layout| *layout != self.folder);
        let former = self
            .former
            .iter()
            .flat_map(|former| entries(own.parent()).map(move |layout| layout.join(former)));
        of_name
            .chain(former)
            .filter(|folder| folder.is_dir())
            .collect()
    }
}

/// Attachments to interfaces are pinned by names that begin like this.
const XDP_PREFIX: &str = "xdp-";

fn interface_of(name: &str) -> Option<(u32, AttachMode)> {
    let (mode, index) = name.strip_prefix(XDP_PREFIX)?.split_once('-')?;
    let mode = [AttachMode::Native, AttachMode::Generic]
        .into_iter()
        .find(|known| known.name() == mode)?;
    Some((index.parse().ok()?, mode))
}

fn folder_below(mount: &Path, name: &str) -> PathBuf {
    mount.join(FOLDER).join(name).join(layout())
}

fn layout() -> String {
    format!("v{LAYOUT_VERSION}")
}

/// Moves what an earlier version has pinned below `mount` into `folder`, so that its bans go on; unless it is alive.
fn move_former(mount: &Path, former: &str, folder: &Path) {
    let old = mount.join(FOLDER).join(layout()).join(former);
    let Ok(lock) = File::open(&old) else { return };
    let is_left = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    if !is_left || folder.exists() {
        return;
    }
    match fs::rename(&old, folder) {
        Ok(()) => {
            tracing::info!(from = %old.display(), to = %folder.display(), "moved the pins of an earlier version");
            // Other gateways' folders may be in it.
            let _ = old.parent().map(fs::remove_dir);
        }
        Err(error) => tracing::warn!(
            from = %old.display(), to = %folder.display(), %error,
            "cannot move the pins of an earlier version: its bans are forgotten"
        ),
    }
}

/// Every bpffs, the usual one first.
fn mount_points() -> Vec<PathBuf> {
    let mut points = mounts_of("bpf").unwrap_or_default();
    points.sort_by_key(|point| point != Path::new(USUAL_MOUNT));
    points
}

/// The first folder that can be made on any bpffs.
fn make_folder(name: &str, former: Option<&str>) -> Result<PathBuf, GuardError> {
    let mut points = mount_points();
    if points.is_empty() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", USUAL_MOUNT, "bpf", flags, c"mode=0700")
            .map_err(|error| GuardError::pins(Path::new(USUAL_MOUNT), &error.into()))?;
        tracing::info!(path = USUAL_MOUNT, "mounted a bpffs");
        points.push(PathBuf::from(USUAL_MOUNT));
    }
    let mut first_error = None;
    for point in &points {
        let folder = folder_below(point, name);
        let own = folder.parent().unwrap_or(point);
        let made = fs::create_dir_all(own);
        if let (Ok(()), Some(former)) = (&made, former) {
            move_former(point, former, &folder);
        }
        match made.and_then(|()| fs::create_dir_all(&folder)) {
            Ok(()) => return Ok(folder),
            Err(error) => {
                first_error.get_or_insert(GuardError::pins(&folder, &error));
            }
        }
    }
    Err(first_error.expect("there is at least one mount point"))
}

/// Turns an exclusive lock into a shared one, or waits until another start is over.
fn share(lock: &File) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Everything that is pinned in a folder.
fn pins_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Maps have names in capital letters, attachments have not.
fn is_map(pin: &Path) -> bool {
    let name = pin.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    name.first().is_some_and(u8::is_ascii_uppercase)
}

/// Removes a folder of pins and, where that leaves them empty, those above it. Attachments go first: no program may decide
/// by maps that no process can see any more.
fn remove_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pins = pins_of(folder)?;
    pins.sort_by_key(|pin| is_map(pin));
    for pin in &pins {
        fs::remove_file(pin)?;
    }
    fs::remove_dir(folder)?;
    for parent in folder.ancestors().skip(1).take(2) {
        // Other gateways' folders may be in it.
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_of_earlier_versions_are_told_apart_by_their_configuration_files() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["edge.v2.toml", "other.toml"].map(|name| folder.path().join(name));
        fs::write(&one, "").unwrap();
        fs::write(&two, "").unwrap();
        assert_ne!(former_name(&one), former_name(&two));
        let through_a_link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&one, &through_a_link).unwrap();
        assert_eq!(former_name(&one), former_name(&through_a_link));
        assert!(
            former_name(&one).starts_with("edgev2-"),
            "{}",
            former_name(&one)
        );
        assert!(!former_name(Path::new("no/such.file")).contains(['/', '.']));
    }

    #[test]
    fn pins_of_interfaces_say_index_and_mode() {
        assert_eq!(interface_of("xdp-native-3"), Some((3, AttachMode::Native)));
        assert_eq!(
            interface_of("xdp-generic-17"),
            Some((17, AttachMode::Generic))
        );
        for other in [
            "xdp-native-",
            "xdp-offload-3",
            "flow_life",
            "BANS",
            "xdp-native-eth0",
        ] {
            assert_eq!(interface_of(other), None, "{other}");
        }
    }
}
