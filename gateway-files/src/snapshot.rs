//! A file as it was at one moment, to be compared with what it is at another.
//! In: a path. Out: whether its content or its permissions have changed. Small files are compared by a digest, so that a
//! touch is no change; large ones by what the file system says of them.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gateway_core::limits;
use ring::digest::{SHA256, digest};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// A file as it was at one moment; also one that was not there, or could not be read.
#[derive(Debug, Clone)]
pub struct FileSnapshot {
    path: PathBuf,
    stat: Result<Stat, io::ErrorKind>,
    content: Content,
}

/// What the file system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Mode, owner, group.
    permissions: (u32, u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Digest([u8; 32]),
    /// Too large to be read twice, or no regular file.
    Unread,
    Unreadable(io::ErrorKind),
}

impl FileSnapshot {
    /// Takes a snapshot of a file. Take it before you read the file: then a change in between is found.
    pub fn now(path: &Path) -> Self {
        let metadata = fs::metadata(path);
        let content = match &metadata {
            Ok(metadata) => Content::of(path, metadata),
            Err(error) => Content::Unreadable(error.kind()),
        };
        FileSnapshot {
            path: path.to_owned(),
            stat: metadata
                .map(|metadata| Stat::of(&metadata))
                .map_err(|error| error.kind()),
            content,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file system says anything else of it now. Reads nothing.
    pub fn looks_different(&self) -> bool {
        let stat = fs::metadata(&self.path).map(|metadata| Stat::of(&metadata));
        stat.map_err(|error| error.kind()) != self.stat
    }

    /// Whether a reader could have got something else at the other moment.
    pub fn differs_from(&self, other: &FileSnapshot) -> bool {
        match (&self.stat, &other.stat) {
            (Ok(one), Ok(two)) => {
                let digests = matches!(self.content, Content::Digest(_));
                one.permissions != two.permissions
                    || self.content != other.content
                    || !digests && one != two
            }
            (one, two) => one != two,
        }
    }
}

impl Stat {
    fn of(metadata: &Metadata) -> Self {
        Stat {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            permissions: (metadata.mode(), metadata.uid(), metadata.gid()),
        }
    }
}

impl Content {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        if !metadata.is_file() || metadata.len() > limits::DIGEST_FILE_BYTES_MAX {
            return Content::Unread;
        }
        read(path).unwrap_or_else(|error| Content::Unreadable(error.kind()))
    }
}

/// The digest of a file. It may hold a private key, so the bytes are zeroed, and stay in one buffer.
fn read(path: &Path) -> io::Result<Content> {
    // It may be a pipe by now, and opening that waits for a writer for ever.
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > limits::DIGEST_FILE_BYTES_MAX {
        return Ok(Content::Unread);
    }
    let capacity = metadata.len() as usize;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(capacity as u64 + 1).read_to_end(&mut bytes)?;
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(Content::Digest(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Snapshots of a file with `text` before and after `change`: whether they differ.
    fn differs(text: &[u8], change: impl FnOnce(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, text).unwrap();
        let before = FileSnapshot::now(&path);
        change(&path);
        FileSnapshot::now(&path).differs_from(&before)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_small_file_is_its_content_and_permissions() {
        assert!(!differs(b"same", |path| fs::write(path, "same").unwrap()));
        assert!(differs(b"one", |path| fs::write(path, "two").unwrap()));
        assert!(differs(b"key", |path| set_mode(path, 0o600)));
        assert!(differs(b"", |path| fs::remove_file(path).unwrap()));
    }

    #[test]
    fn a_large_file_is_what_the_file_system_says_of_it() {
        let large = vec![b'x'; limits::DIGEST_FILE_BYTES_MAX as usize + 1];
        assert!(!differs(&large, |_| ()));
        assert!(differs(&large, |path| {
            let other = path.with_extension("new");
            fs::write(&other, &large).unwrap();
            fs::rename(&other, path).unwrap();
        }));
    }

    #[test]
    fn a_file_that_is_not_there_is_seen_to_appear() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let before = FileSnapshot::now(&path);
        assert!(!before.looks_different());
        assert!(!FileSnapshot::now(&path).differs_from(&before));
        fs::write(&path, "").unwrap();
        assert!(before.looks_different());
        assert!(FileSnapshot::now(&path).differs_from(&before));
    }
}
