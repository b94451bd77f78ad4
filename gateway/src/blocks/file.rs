//! The block list's file.
//! In: a path. Out: its entries; or, changed under a lock, a new file in its place, written whole or not at all. The
//! gateway only reads it; the commands that change it may run several at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway_core::block::{Block, BlockList};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::files::{LockError, lock, replace};
use crate::limits;
use crate::pki::read;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockFileError {
    /// It cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Read(PathBuf, read::ReadError),
    /// It is no block list.
    #[error("{}: is no block list: {}", .0.display(), .1)]
    Broken(PathBuf, serde_json::Error),
    /// It cannot be written.
    #[error("{}: cannot be written: {}", .0.display(), .1)]
    Write(PathBuf, io::Error),
    /// Another command holds it for too long.
    #[error("{}: another command is changing it", .0.display())]
    Locked(PathBuf),
    /// Where it should stand is no folder: a volume that is not mounted is no empty list.
    #[error("{}: there is no folder for it: mount or make it, or name another file in [blocks]", .0.display())]
    NoFolder(PathBuf),
    /// It would grow too large.
    #[error("{}: would be longer than {} bytes", .0.display(), limits::BLOCK_FILE_BYTES_MAX)]
    TooLong(PathBuf),
}

/// What stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// Who is shut out, in the order in which it happened.
    pub blocked: Vec<Entry>,
    /// Who was let in again lately, for the record.
    #[serde(default)]
    pub unblocked: Vec<Entry>,
}

impl Blocks {
    /// The list to decide by.
    pub fn list(&self) -> BlockList {
        BlockList::new(self.blocked.iter().map(|entry| entry.block.clone()))
    }

    /// The entry for exactly this, if there is one.
    pub fn find(&self, block: &Block) -> Option<&Entry> {
        self.blocked.iter().find(|entry| entry.block == *block)
    }

    /// Takes the entry for exactly this out, and keeps `entry` for the record. `false` where there was none.
    pub fn unblock(&mut self, entry: Entry) -> bool {
        let before = self.blocked.len();
        self.blocked.retain(|blocked| blocked.block != entry.block);
        if self.blocked.len() == before {
            return false;
        }
        self.unblocked.push(entry);
        let surplus = self.unblocked.len().saturating_sub(limits::UNBLOCKED_MAX);
        self.unblocked.drain(..surplus);
        true
    }
}

/// A block list as it was read.
#[derive(Debug, Clone, Default)]
pub struct BlockFile {
    /// What stands in it.
    pub blocks: Blocks,
    /// SHA-256 of the file in hexadecimal; `None` where there is no file, which is an empty list.
    pub digest: Option<String>,
}

impl BlockFile {
    /// Reads a list to start with. That there is none yet is believed only where there could be one.
    pub fn open(path: &Path) -> Result<Self, BlockFileError> {
        let file = BlockFile::load(path)?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let has_folder = path.parent().is_some_and(Path::is_dir);
        let is_link = fs::symlink_metadata(&path).is_ok();
        match file.digest {
            None if is_link || !has_folder => Err(BlockFileError::NoFolder(path)),
            _ => Ok(file),
        }
    }

    /// Reads a list.
    pub fn load(path: &Path) -> Result<Self, BlockFileError> {
        let bytes = match read::file(path, limits::BLOCK_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(read::ReadError::Open(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(BlockFile::default());
            }
            Err(error) => return Err(BlockFileError::Read(path.to_owned(), error)),
        };
        let blocks = serde_json::from_slice(&bytes);
        Ok(BlockFile {
            blocks: blocks.map_err(|error| BlockFileError::Broken(path.to_owned(), error))?,
            digest: Some(hexadecimal(&bytes)),
        })
    }

    /// Changes a list while nobody else does. `change` says whether there is anything to write. Returns the list as it then
    /// is. A new file gets mode and owner of `like`, so that whoever reads that can read it.
    pub fn change(
        path: &Path,
        like: &Path,
        change: impl FnOnce(&mut Blocks) -> bool,
    ) -> Result<Self, BlockFileError> {
        // A list that is reached through a link stays where it is.
        let whole = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let path = &whole.map_err(|error| BlockFileError::Write(path.to_owned(), error))?;
        let _lock = lock(path).map_err(|error| match error {
            LockError::Busy => BlockFileError::Locked(path.to_owned()),
            LockError::Failed(lock, error) => BlockFileError::Write(lock, error),
        })?;
        let mut file = BlockFile::load(path)?;
        if !change(&mut file.blocks) {
            return Ok(file);
        }
        let failed = |error| BlockFileError::Write(path.to_owned(), error);
        let text = serde_json::to_string_pretty(&file.blocks);
        let text = text.map_err(|error| failed(error.into()))? + "\n";
        if text.len() > limits::BLOCK_FILE_BYTES_MAX {
            return Err(BlockFileError::TooLong(path.to_owned()));
        }
        replace(path, like, &text).map_err(failed)?;
        file.digest = Some(hexadecimal(text.as_bytes()));
        Ok(file)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::identity::Pattern;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::time::SystemTime;

    fn entry(name: &str) -> Entry {
        Entry {
            block: Block::Identity(Pattern::parse(name).unwrap()),
            reason: Some("a test".to_owned()),
            by: "tester (uid 0)".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_list_whose_folder_is_gone_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mount/gateway.blocked.json");
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&path, &link] {
            let refused = BlockFile::open(path);
            assert!(matches!(refused, Err(BlockFileError::NoFolder(_))));
        }
        fs::create_dir(folder.path().join("mount")).unwrap();
        assert_eq!(BlockFile::open(&path).unwrap().digest, None);
    }

    #[test]
    fn a_change_is_read_back_and_keeps_the_mode() {
        let folder = tempfile::tempdir().unwrap();
        let like = folder.path().join("gateway.toml");
        let path = folder.path().join("gateway.blocked.json");
        fs::write(&like, "").unwrap();
        fs::set_permissions(&like, Permissions::from_mode(0o640)).unwrap();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        let add = |name: &'static str| {
            let change = move |blocks: &mut Blocks| {
                blocks.blocked.push(entry(name));
                true
            };
            BlockFile::change(&path, &like, change).unwrap()
        };
        assert_eq!(BlockFile::load(&path).unwrap().digest, None);
        let written = add("one");
        assert_eq!(mode(), 0o640);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let written_again = add("two");
        assert_eq!(mode(), 0o600);
        assert_ne!(written.digest, written_again.digest);
        let read = BlockFile::load(&path).unwrap();
        assert_eq!(read.digest, written_again.digest);
        assert_eq!(read.blocks.blocked, [entry("one"), entry("two")]);
        assert_eq!(read.blocks.list().len(), 2);
    }

    #[test]
    fn who_is_let_in_again_stands_in_the_record_for_a_while() {
        let mut blocks = Blocks::default();
        assert!(!blocks.unblock(entry("nobody")));
        for number in 0..limits::UNBLOCKED_MAX + 5 {
            let name = format!("agent-{number}");
            blocks.blocked.push(entry(&name));
            assert!(blocks.unblock(entry(&name)));
        }
        assert!(blocks.blocked.is_empty());
        assert_eq!(blocks.unblocked.len(), limits::UNBLOCKED_MAX);
        assert_eq!(blocks.unblocked[0], entry("agent-5"));
    }

    #[test]
    fn commands_that_run_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let change = |blocks: &mut Blocks| {
                        blocks.blocked.push(entry(&format!("agent-{number}")));
                        true
                    };
                    BlockFile::change(path, path, change).unwrap();
                });
            }
        });
        assert_eq!(BlockFile::load(&path).unwrap().blocks.blocked.len(), 8);
    }

    #[test]
    fn a_list_that_is_cut_off_is_broken_and_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        let change = |blocks: &mut Blocks| {
            blocks.blocked.push(entry("agent"));
            true
        };
        BlockFile::change(&path, &path, change).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            let refused = BlockFile::load(&path);
            assert!(
                matches!(refused, Err(BlockFileError::Broken(..))),
                "{length}"
            );
            let refused = BlockFile::change(&path, &path, |_| true);
            assert!(refused.is_err(), "what is broken is not written over");
        }
    }
}
