//! The kernel's events about every name on the way to a file (inotify(7)).
//! In: paths. Out: whether something has happened to any of them, and whether a writer still has one open. On its
//! watcher's thread. What it misses (network file systems, unreadable directories) the watcher finds by polling.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{CStr, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gateway_core::limits;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::watch_points::watch_points;

/// What may happen to a name in a directory.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE);
/// What may happen to a file besides.
const CONTENT: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB);

/// What is watched, and how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Directories, the names that matter in each, and whether one of them may be the file itself.
    directories: BTreeMap<PathBuf, (BTreeSet<OsString>, bool)>,
    /// The files themselves. They may be written to by another path: through a hard link, or from outside of a container into
    /// which this one file is mounted.
    files: BTreeSet<PathBuf>,
}

/// A file itself bears no name in its events.
const ITSELF: &str = "";

/// An inotify instance and what it watches.
#[derive(Debug)]
pub struct Inotify {
    inotify: OwnedFd,
    names: HashMap<i32, BTreeSet<OsString>>,
    /// Files that have been written to and not been closed since.
    writing: HashSet<(i32, OsString)>,
    /// Directories that cannot be watched; the log names each once.
    unwatchable: BTreeSet<PathBuf>,
}

impl Inotify {
    /// An instance that watches nothing yet.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Inotify {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            names: HashMap::new(),
            writing: HashSet::new(),
            unwatchable: BTreeSet::new(),
        })
    }

    /// Watches everything on the way to these files from now on, and nothing else.
    pub fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path> + Clone) {
        let mut wanted = wanted(files.clone());
        let mut names = self.add(&wanted);
        // A change before the kernel was asked makes no event: the path may lead elsewhere by now.
        for _ in 0..limits::LINKS_MAX {
            let now = self::wanted(files.clone());
            if now == wanted {
                break;
            }
            names.extend(self.add(&now));
            wanted = now;
        }
        for gone in self.names.keys().filter(|watch| !names.contains_key(watch)) {
            // Gone already with its directory is as good.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        self.writing
            .retain(|(watch, name)| names.get(watch).is_some_and(|names| names.contains(name)));
        self.names = names;
    }

    fn add(&mut self, wanted: &Wanted) -> HashMap<i32, BTreeSet<OsString>> {
        let mut watches: HashMap<i32, BTreeSet<OsString>> = HashMap::new();
        let mut unwatchable = BTreeSet::new();
        for (directory, (names, holds_files)) in &wanted.directories {
            // One directory may have several paths, and its watch must cover what all of them want.
            let flags = NAMES | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
            let flags = match holds_files {
                true => flags | CONTENT,
                false => flags,
            };
            match inotify::add_watch(&self.inotify, directory, flags) {
                Ok(watch) => watches
                    .entry(watch)
                    .or_default()
                    .extend(names.iter().cloned()),
                // Gone in the meantime: found by the next round.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    if !self.unwatchable.contains(directory) {
                        let every_seconds = limits::FILE_LOOK_INTERVAL.as_secs();
                        tracing::warn!(directory = %directory.display(), %error, every_seconds,
                            "the kernel does not announce changes in the directory; the gateway looks at its files \
                             from time to time");
                    }
                    unwatchable.insert(directory.clone());
                }
            }
        }
        for file in &wanted.files {
            // Where it is missing or may not be read, its directory's events tell enough.
            if let Ok(watch) =
                inotify::add_watch(&self.inotify, file, CONTENT | WatchFlags::MASK_ADD)
            {
                watches.entry(watch).or_default().insert(ITSELF.into());
            }
        }
        self.unwatchable = unwatchable;
        watches
    }

    /// Reads all events that wait. Whether any of them matters.
    pub fn read_events(&mut self) -> bool {
        let mut matters = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        // AGAIN, most of the time; whatever else it may be, the watcher goes on looking.
        while let Ok(event) = reader.next() {
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                matters = true;
                continue;
            }
            let name = event.file_name().map_or(ITSELF.as_bytes(), CStr::to_bytes);
            let name = OsStr::from_bytes(name);
            let names = self.names.get(&event.wd());
            if !names.is_some_and(|names| names.contains(name)) {
                continue;
            }
            matters = true;
            let file = (event.wd(), name.to_owned());
            match what.contains(ReadFlags::MODIFY) {
                true => self.writing.insert(file),
                false if what.contains(ReadFlags::ATTRIB) => continue,
                false => self.writing.remove(&file),
            };
        }
        matters
    }

    /// Whether a file has been written to and its writer has not closed it.
    pub fn is_being_written(&self) -> bool {
        !self.writing.is_empty()
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn wanted<'a>(files: impl Iterator<Item = &'a Path>) -> Wanted {
    let mut wanted = Wanted::default();
    for path in files {
        let points = watch_points(path);
        if let Some(point) = points.last().filter(|point| point.is_last) {
            wanted.files.insert(point.directory.join(&point.name));
        }
        for point in points {
            let directory = wanted.directories.entry(point.directory);
            let (names, holds_files) = directory.or_default();
            names.insert(point.name);
            *holds_files |= point.is_last;
        }
    }
    wanted
}
