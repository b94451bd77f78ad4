//! Atomic writes: commands replace files that other processes read, and that other commands may want to write too.
//! In: a path and its new text. Out: the file, whole or not at all, with mode and owner as they were. On the main thread
//! of a command.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gateway_core::limits;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use super::reason::reason;

/// Mode of a file that is made anew where no other can be asked for one.
const MODE: u32 = 0o644;

/// Why a command cannot lock a file.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command holds it for too long.
    #[error("another command is changing it")]
    Busy,
    /// The lock beside it cannot be made or taken.
    #[error("{}: cannot be written: {}", .0.display(), reason(.1))]
    Failed(PathBuf, io::Error),
}

/// Takes the lock beside a file: the file itself is another one after each change. Released when dropped.
pub fn lock(path: &Path) -> Result<File, LockError> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock_path = path.with_file_name(name);
    let failed = |error| LockError::Failed(lock_path.clone(), error);
    let file = open_lock(&lock_path, MODE).map_err(failed)?;
    let until = Instant::now() + limits::BLOCK_LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(LockError::Busy),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Opens a lock, and makes it if there is none, for the owner of the folder. Root locks files in folders of other users: a
/// link there would make a file wherever they like, or open one of theirs, and a pipe would keep root waiting.
pub fn open_lock(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = |how: &mut OpenOptions| how.custom_flags(flags.bits().cast_signed()).open(path);
    let made = open(File::options().create_new(true).append(true).mode(mode));
    let file = match made {
        Ok(file) => {
            // The folder's owner has to take it too. Only a new lock changes hands.
            if let Ok(folder) = fs::metadata(path.parent().unwrap_or(Path::new("/"))) {
                let _ = fchown(&file, Some(folder.uid()), Some(folder.gid()));
            }
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match open(File::options().append(true)) {
                // One of another user who made it first: flock(2) asks for no right to write.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    open(File::options().read(true)).map_err(|_| error)?
                }
                opened => opened?,
            }
        }
        Err(error) => return Err(error),
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("is no regular file")),
    }
}

/// Puts a file in the place of another: a reader gets one or the other, and after a crash one of them is there. A new one
/// gets mode and owner of `like`.
pub fn replace(path: &Path, like: &Path, text: &str) -> io::Result<()> {
    let file = write_beside(path, like, text)?;
    file.persist(path)?;
    sync(folder_of(path))
}

/// As `replace`, and keeps the file before as `aside`, in the place of what that names. There is a file at `path` at any
/// moment: the one before, unless all of it was done. Returns where the one before is kept.
pub fn replace_and_keep(path: &Path, aside: &Path, like: &Path, text: &str) -> io::Result<PathBuf> {
    // Only names change from here on, which takes no room on a disk.
    let file = write_beside(path, like, text)?;
    let kept = match exchange(&file, path) {
        Ok(()) => keep_exchanged(file, path, aside)?,
        // What file systems say that cannot exchange two names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => keep_linked(file, path, aside)?,
        Err(error) => return Err(error.into()),
    };
    sync(folder_of(path))?;
    Ok(kept)
}

fn exchange(one: &Path, other: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
}

/// Gives the file that has been exchanged its name. Where that fails, both get their old names again.
fn keep_exchanged(before: TempPath, path: &Path, aside: &Path) -> io::Result<PathBuf> {
    let Err(refused) = before.persist(aside) else {
        return Ok(aside.to_owned());
    };
    match exchange(&refused.path, path) {
        // The temporary file, which goes with this, is the new one again.
        Ok(()) => Err(refused.error),
        // The new one stands, and the one before is kept under the name that it has.
        Err(_) => Ok(refused.path.keep()?),
    }
}

/// Gives the file to keep a second name, before the new one takes the first.
fn keep_linked(new: TempPath, path: &Path, aside: &Path) -> io::Result<PathBuf> {
    let mut second = new.file_name().unwrap_or_default().to_owned();
    second.push(".kept");
    let second = path.with_file_name(second);
    fs::hard_link(path, &second)?;
    if let Err(refused) = new.persist(path) {
        // It has its first name still.
        let _ = fs::remove_file(&second);
        return Err(refused.error);
    }
    Ok(match fs::rename(&second, aside) {
        Ok(()) => aside.to_owned(),
        Err(_) => second,
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// What was renamed in a folder stays so over a crash.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a temporary file beside `path` that is to take its place.
fn write_beside(path: &Path, like: &Path, text: &str) -> io::Result<TempPath> {
    let model = fs::metadata(path).or_else(|_| fs::metadata(like));
    let mut file = NamedTempFile::new_in(folder_of(path))?;
    file.write_all(text.as_bytes())?;
    let mode = model.as_ref().map_or(MODE, |model| match model.is_dir() {
        // What is executable in a folder is entering it.
        true => model.mode() & 0o666,
        false => model.mode() & 0o777,
    });
    if let Ok(model) = &model {
        // A user other than root cannot give a file away, and owns it then.
        // By the descriptor: in a folder of another user the name may be a link to anything by now.
        let _ = fchown(file.as_file(), Some(model.uid()), Some(model.gid()));
    }
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// As root, which makes what another user has to use.
    #[test]
    fn a_lock_that_root_makes_belongs_to_the_owner_of_its_folder() {
        const OWNER: u32 = 54_321;
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(OWNER), Some(OWNER)).unwrap();
        for mode in [MODE, 0o600] {
            let path = folder.path().join(format!("{mode}.lock"));
            let lock = open_lock(&path, mode).unwrap();
            let found = lock.metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (OWNER, OWNER));
            // The next one takes the same file.
            assert_eq!(
                open_lock(&path, mode).unwrap().metadata().unwrap().ino(),
                found.ino()
            );
        }
    }

    #[test]
    fn a_file_is_kept_also_where_two_names_cannot_be_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let (list, aside) = (folder.path().join("list"), folder.path().join("aside"));
        fs::write(&list, "before").unwrap();
        fs::write(&aside, "long before").unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        let new = |text| write_beside(&list, folder.path(), text).unwrap();
        assert_eq!(keep_linked(new("one"), &list, &aside).unwrap(), aside);
        assert_eq!((text(&list), text(&aside)), ("one".into(), "before".into()));
        // Kept in any case.
        fs::remove_file(&aside).unwrap();
        fs::create_dir(&aside).unwrap();
        let kept = keep_linked(new("two"), &list, &aside).unwrap();
        assert_eq!((text(&list), text(&kept)), ("two".into(), "one".into()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    /// As root, in a folder of the gateway's user, who wants a file of root.
    #[test]
    fn a_link_in_the_place_of_a_file_gives_nothing_away() {
        const OWNER: u32 = 54_321;
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(OWNER), Some(OWNER)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let wanted = elsewhere.path().join("wanted");
        fs::write(&wanted, "of root").unwrap();
        let (list, aside) = (folder.path().join("list"), folder.path().join("aside"));
        let writes: [&dyn Fn() -> io::Result<()>; 2] =
            [&|| replace(&list, folder.path(), "list"), &|| {
                replace_and_keep(&list, &aside, folder.path(), "list").map(drop)
            }];
        for write in writes {
            let _ = fs::remove_file(&list);
            symlink(&wanted, &list).unwrap();
            write().unwrap();
            assert!(fs::symlink_metadata(&list).unwrap().is_file());
            assert_eq!(fs::metadata(&wanted).unwrap().uid(), 0);
            assert_eq!(fs::read_to_string(&wanted).unwrap(), "of root");
        }
    }

    #[test]
    fn a_lock_is_never_taken_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (list, other) = (folder.path().join("list"), folder.path().join("other"));
        let locked = folder.path().join("list.lock");
        symlink(&other, &locked).unwrap();
        assert!(matches!(lock(&list), Err(LockError::Failed(path, _)) if path == locked));
        assert!(!other.exists(), "nothing was made where the link leads");
        fs::remove_file(&locked).unwrap();
        let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &locked, owner).unwrap();
        assert!(lock(&list).is_err(), "a pipe");
    }
}
