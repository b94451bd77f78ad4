//! Where audit lines go: a file, or standard output.
//! In: the configured target. Out: an open file, or why not. On the thread that starts or reloads, which may wait for
//! a disk. It never waits for the reader of a pipe: only files and devices are taken.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use gateway_files::{look_writable, reason};
use rustix::fs::{Access, OFlags, access};

use crate::config::AuditTarget;

/// Mode of a file that is made here: its group may be that of a log shipper.
const FILE_MODE: u32 = 0o640;

/// A target, open.
#[derive(Debug)]
pub struct Opened {
    pub(super) target: Option<AuditTarget>,
    pub(super) file: Option<File>,
}

/// Opens the target; `None` is no audit log.
pub fn open(target: Option<AuditTarget>) -> io::Result<Opened> {
    let file = match &target {
        None => None,
        // A copy of the descriptor, past the buffer of `std`: whole lines are written as they come.
        Some(AuditTarget::StandardOutput) => {
            Some(File::from(io::stdout().as_fd().try_clone_to_owned()?))
        }
        Some(AuditTarget::File(path)) => Some(open_file(path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{}: {}", path.display(), reason(&error)),
            )
        })?),
    };
    Ok(Opened { target, file })
}

/// Whether `open` would succeed. Makes and opens nothing.
///
/// # Errors
/// Why not.
pub fn look(target: Option<&AuditTarget>) -> io::Result<()> {
    let Some(AuditTarget::File(path)) = target else {
        return Ok(());
    };
    look_at_file(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {}", path.display(), reason(&error)),
        )
    })
}

fn look_at_file(path: &Path) -> io::Result<()> {
    // As `open_file` does: a link is followed to a file, and no file is made behind one.
    if std::fs::symlink_metadata(path).is_err() {
        return look_writable(path.parent().unwrap_or(Path::new("/")));
    }
    ensure_plain(&std::fs::metadata(path)?)?;
    Ok(access(path, Access::WRITE_OK)?)
}

fn ensure_plain(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    match kind.is_file() || kind.is_char_device() {
        true => Ok(()),
        false => Err(io::Error::other("is no regular file")),
    }
}

/// Opens a file to append to.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Each write goes to the end, wherever another process of ours has moved it. Non-blocking matters to a FIFO only: its
    // opening would wait for a reader.
    options
        .append(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .mode(FILE_MODE);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whatever the umask says.
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            return Ok(file);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let file = options.open(path)?;
    ensure_plain(&file.metadata()?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn file(path: &Path) -> io::Result<Opened> {
        open(Some(AuditTarget::File(path.to_owned())))
    }

    #[test]
    fn a_new_file_is_for_owner_and_group_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        file(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, FILE_MODE);
    }

    #[test]
    fn a_file_that_is_there_keeps_its_mode_and_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::fs::write(&path, "before\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let opened = file(&path).unwrap();
        io::Write::write_all(&mut opened.file.as_ref().unwrap(), b"after\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn what_could_make_a_writer_wait_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(file(folder.path()).is_err(), "a folder");
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap();
        assert!(made.success());
        assert!(file(&fifo).is_err(), "a FIFO without a reader");
        let _reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&fifo)
            .unwrap();
        assert!(file(&fifo).is_err(), "a FIFO with a reader");
    }
}
