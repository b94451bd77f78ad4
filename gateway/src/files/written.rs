//! Files that commands write while others read them, and while other commands may want to write them too. In: a path and
//! its new text. Out: the file, whole or not at all, with mode and owner as they were. On the main thread of a command.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use super::reason::reason;
use crate::limits;

/// Mode of a file that is made anew where no other can be asked for one.
const MODE: u32 = 0o644;

/// Why a file is not to be had for oneself.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command holds it for too long.
    #[error("another command is changing it")]
    Busy,
    /// The lock beside it cannot be made or taken.
    #[error("{}: cannot be written: {}", .0.display(), reason(.1))]
    Failed(PathBuf, io::Error),
}

/// Takes the lock that stands beside a file: the file itself is another one after each change. Given back when dropped.
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

/// Opens a lock, and makes it if there is none. Root locks files in folders of other users: a link there would make a file
/// wherever they like, or open one of theirs, and a pipe would keep root waiting.
pub fn open_lock(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .create(true)
        .append(true)
        .mode(mode)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("is no regular file")),
    }
}

/// Puts a file in the place of another: whoever reads meanwhile reads one or the other, and after a crash one is there. A
/// new one gets mode and owner of `like`.
pub fn replace(path: &Path, like: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let model = fs::metadata(path).or_else(|_| fs::metadata(like));
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    let mode = model.as_ref().map_or(MODE, |model| match model.is_dir() {
        // What is executable in a folder is entering it.
        true => model.mode() & 0o666,
        false => model.mode() & 0o777,
    });
    if let Ok(model) = &model {
        // Whoever is not root cannot give a file away, and owns it then.
        // By the descriptor: in a folder of another user the name may be a link to anything by now.
        let _ = fchown(file.as_file(), Some(model.uid()), Some(model.gid()));
    }
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|refused| refused.error)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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
