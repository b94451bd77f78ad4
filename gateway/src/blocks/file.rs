//! The block list's file.
//! In: a path. Out: its entries; or, changed under a lock, a new file in its place, written whole or not at all. The
//! gateway only reads it; the commands that change it may run several at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gateway_core::block::{Block, BlockList};
use gateway_core::limits;
use gateway_files::{
    JsonFault, LockError, lock, look_private, make_private, reason, replace, replace_and_keep,
};
use gateway_x509::file;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::config::Paths;

/// Links in a row that are followed: as many as the kernel follows, path_resolution(7).
const LINKS_MAX: usize = 40;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockFileError {
    /// It cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Read(PathBuf, file::ReadError),
    /// It is no block list.
    #[error("{}: is not a block list: {}", .0.display(), .1)]
    Broken(PathBuf, JsonFault),
    /// It cannot be written.
    #[error("{}: cannot be written: {}", .0.display(), reason(.1))]
    Write(PathBuf, io::Error),
    /// Another command holds it for too long.
    #[error("{}: another command is changing it", .0.display())]
    Locked(PathBuf),
    /// It is a link that leads nowhere: a volume that is not mounted is no empty list.
    #[error("{}: is a link to a file that does not exist: mount or make its target", .0.display())]
    NoFolder(PathBuf),
    /// The folder that it is to stand in cannot be made.
    #[error(
        "{}: cannot make or use the gateway's state folder: {}: make it, owned by the gateway's user, or move it with \
         `[paths] state`",
        .0.display(), reason(.1)
    )]
    State(PathBuf, io::Error),
    /// It would grow too large.
    #[error("{}: would be longer than {} bytes", .0.display(), limits::BLOCK_FILE_BYTES_MAX)]
    TooLong(PathBuf),
}

/// What stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// The blocked clients, in the order in which they were blocked.
    pub blocked: Vec<Entry>,
    /// The clients that were unblocked lately, for the record.
    #[serde(default)]
    pub unblocked: Vec<Entry>,
}

impl BlockFileError {
    /// Whether what stands in the place of the file is no list, and stays none however often it is read.
    fn is_of_content(&self) -> bool {
        match self {
            BlockFileError::Broken(..) => true,
            BlockFileError::Read(_, error) => match error {
                file::ReadError::Open(error) => error.kind() == io::ErrorKind::PermissionDenied,
                // A folder in its place is nothing to put aside.
                _ => matches!(error, file::ReadError::TooLong(_)),
            },
            BlockFileError::Write(..)
            | BlockFileError::Locked(_)
            | BlockFileError::NoFolder(_)
            | BlockFileError::State(..)
            | BlockFileError::TooLong(_) => false,
        }
    }
}

/// A change of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The entry's client is shut out.
    Block(Entry),
    /// The client of exactly this entry may come again.
    Unblock(Entry),
}

impl Change {
    /// Makes it, unless it has been made. Returns the entry that was there before.
    pub fn make(&self, blocks: &mut Blocks) -> Option<Entry> {
        let (Change::Block(entry) | Change::Unblock(entry)) = self;
        let before = blocks.find(&entry.block).cloned();
        match self {
            Change::Block(entry) if before.is_none() => blocks.blocked.push(entry.clone()),
            Change::Block(_) => {}
            Change::Unblock(entry) => {
                blocks.unblock(entry.clone());
            }
        }
        before
    }
}

impl Blocks {
    /// As it is to stand in the file at `path`.
    ///
    /// # Errors
    /// When it would be longer than a file may be.
    pub fn text(&self, path: &Path) -> Result<String, BlockFileError> {
        let failed =
            |error: serde_json::Error| BlockFileError::Write(path.to_owned(), error.into());
        let text = serde_json::to_string_pretty(self).map_err(failed)? + "\n";
        match text.len() > limits::BLOCK_FILE_BYTES_MAX {
            true => Err(BlockFileError::TooLong(path.to_owned())),
            false => Ok(text),
        }
    }

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
    /// Reads the list of a gateway to start with, and makes the folder for one. A list that an earlier version kept at
    /// `former` is taken over where there is no other.
    ///
    /// # Errors
    /// When a list is there and cannot be read, or there may be one somewhere that is not mounted.
    pub fn open(paths: &Paths, former: &Path) -> Result<Self, BlockFileError> {
        let (list, state) = (paths.block_list(), &paths.state);
        let made = make_private(state).map_err(|error| BlockFileError::State(state.clone(), error));
        if made? {
            tracing::info!(folder = %state.display(), "made the gateway's state folder");
        }
        let file = BlockFile::load(&list)?;
        if file.digest.is_some() {
            if former.exists() {
                let (former, list) = (former.display(), list.display());
                tracing::warn!(
                    "{former} is no longer read: {list} is the block list. Remove the former"
                );
            }
            return Ok(file);
        }
        if fs::symlink_metadata(&list).is_ok() {
            return Err(BlockFileError::NoFolder(list));
        }
        Self::take_over(paths, former)
    }

    /// Makes the list of a gateway from one that an earlier version kept elsewhere, if there is one.
    fn take_over(paths: &Paths, former: &Path) -> Result<Self, BlockFileError> {
        let old = BlockFile::load(former)?;
        if old.digest.is_none() {
            return Ok(old);
        }
        let entries = old.blocks.blocked.len();
        let file = BlockFile::change(paths, |blocks| {
            *blocks = old.blocks;
            true
        })?;
        let (former, list) = (former.display(), paths.block_list());
        let list = list.display();
        tracing::warn!(
            entries,
            "copied {former} to {list}, which is the block list from now on. Remove the former"
        );
        Ok(file)
    }

    /// Reads the list that a gateway would start with, and changes nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn look(paths: &Paths, former: &Path) -> Result<Self, BlockFileError> {
        let file = BlockFile::load(&paths.block_list())?;
        match file.digest {
            Some(_) => Ok(file),
            None => BlockFile::load(former),
        }
    }

    /// Whether the list's folder can be made or written, and leads to a list or to none: as `open`, which makes it.
    ///
    /// # Errors
    /// As `open`.
    pub fn look_writable(paths: &Paths) -> Result<(), BlockFileError> {
        let (list, state) = (paths.block_list(), &paths.state);
        look_private(state).map_err(|error| BlockFileError::State(state.clone(), error))?;
        match (fs::symlink_metadata(&list), fs::metadata(&list)) {
            (Ok(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlockFileError::NoFolder(list))
            }
            _ => Ok(()),
        }
    }

    /// Where earlier versions kept the list: beside the configuration file, by its name.
    pub fn former_place(configuration: &Path) -> PathBuf {
        let mut name = configuration.file_stem().unwrap_or_default().to_owned();
        name.push(".blocked.json");
        configuration.with_file_name(name)
    }

    /// Reads a list.
    pub fn load(path: &Path) -> Result<Self, BlockFileError> {
        let bytes = match file::file(path, limits::BLOCK_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(file::ReadError::Open(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(BlockFile::default());
            }
            Err(error) => return Err(BlockFileError::Read(path.to_owned(), error)),
        };
        let blocks = serde_json::from_slice(&bytes);
        Ok(BlockFile {
            blocks: blocks
                .map_err(|error| BlockFileError::Broken(path.to_owned(), error.into()))?,
            digest: Some(hexadecimal(&bytes)),
        })
    }

    /// Changes a list while no other process does. `change` says whether there is anything to write. Returns the list as it
    /// then is. A new file belongs to the owner of the state folder, so that the gateway can read it.
    pub fn change(
        paths: &Paths,
        change: impl FnOnce(&mut Blocks) -> bool,
    ) -> Result<Self, BlockFileError> {
        let changed = Self::change_or_begin_anew(paths, None, change)?;
        Ok(changed.file)
    }

    /// As `change`, by a gateway that acts by `in_force`: where the file is gone, or is no list that can be read, it is written anew from
    /// that, and the one that stood there is kept under another name.
    pub fn change_in_force(
        paths: &Paths,
        in_force: &Blocks,
        change: impl FnOnce(&mut Blocks) -> bool,
    ) -> Result<ChangedFile, BlockFileError> {
        Self::change_or_begin_anew(paths, Some(in_force), change)
    }

    fn change_or_begin_anew(
        paths: &Paths,
        in_force: Option<&Blocks>,
        change: impl FnOnce(&mut Blocks) -> bool,
    ) -> Result<ChangedFile, BlockFileError> {
        let state = &paths.state;
        make_private(state).map_err(|error| BlockFileError::State(state.clone(), error))?;
        // A list that is reached through a link stays where it is.
        let path = paths.block_list();
        let path = &target_of(&path).map_err(|error| BlockFileError::Write(path, error))?;
        let _lock = lock(path).map_err(|error| match error {
            LockError::Busy => BlockFileError::Locked(path.to_owned()),
            LockError::Failed(lock, error) => BlockFileError::Write(lock, error),
        })?;
        let failed = |error| BlockFileError::Write(path.to_owned(), error);
        let (mut file, refused) = match (BlockFile::load(path), in_force) {
            (Ok(file), Some(_)) if file.digest.is_some() => (file, None),
            (Ok(_), Some(in_force)) => (BlockFile::of(in_force), None),
            (Ok(file), None) => (file, None),
            (Err(error), Some(in_force)) if error.is_of_content() => {
                (BlockFile::of(in_force), Some(error.to_string()))
            }
            (Err(error), _) => return Err(error),
        };
        // Nothing is lost where no client was blocked and no file was there.
        let has_entries = !file.blocks.blocked.is_empty();
        let begins_anew =
            refused.is_some() || in_force.is_some() && file.digest.is_none() && has_entries;
        if !change(&mut file.blocks) && !begins_anew {
            return Ok(ChangedFile { file, aside: None });
        }
        let text = file.blocks.text(path)?;
        let aside = match refused {
            None => {
                replace(path, state, &text).map_err(failed)?;
                None
            }
            // At no moment without a file, which would be an empty list to a process that starts.
            Some(why) => {
                let kept = replace_and_keep(path, &name_aside(path), state, &text);
                Some((kept.map_err(failed)?, why))
            }
        };
        file.digest = Some(hexadecimal(text.as_bytes()));
        Ok(ChangedFile { file, aside })
    }

    /// A list that stands in no file yet.
    fn of(blocks: &Blocks) -> Self {
        BlockFile {
            blocks: blocks.clone(),
            digest: None,
        }
    }
}

/// A file that was changed.
#[derive(Debug)]
pub struct ChangedFile {
    /// The list as it is now.
    pub file: BlockFile,
    /// Where the file is kept that could not be read, and why it could not.
    pub aside: Option<(PathBuf, String)>,
}

/// The name that a list is kept by which is none, so that nothing is lost that stands in it.
fn name_aside(path: &Path) -> PathBuf {
    let name = |number: usize| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".refused-{number}"));
        path.with_file_name(name)
    };
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let mut names = (1..=limits::BLOCK_FILES_ASIDE_MAX).map(name);
    // Of that many the last one makes room.
    let free = names.find(is_free);
    free.unwrap_or_else(|| name(limits::BLOCK_FILES_ASIDE_MAX))
}

/// Where a list stands, or is to stand, behind any links: a file that replaces a link would cut it.
fn target_of(list: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // As the kernel says: links that lead to themselves, for one.
        whole => return whole,
    }
    let mut path = std::path::absolute(list)?;
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        // Relative to the folder that the link stands in; a whole path replaces it.
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Ok(path)
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
            block: Block::Identity(Pattern::parse(name).unwrap().into()),
            reason: Some("a test".to_owned()),
            by: "tester (uid 0)".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn add(name: &'static str) -> impl FnOnce(&mut Blocks) -> bool {
        move |blocks| {
            blocks.blocked.push(entry(name));
            true
        }
    }

    #[test]
    fn a_list_that_is_reached_through_a_link_to_nowhere_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let nowhere = folder.path().join("gateway.blocked.json");
        assert_eq!(BlockFile::open(&paths, &nowhere).unwrap().digest, None);
        let target = folder.path().join("mount/list.json");
        std::os::unix::fs::symlink(&target, paths.block_list()).unwrap();
        let refused = BlockFile::open(&paths, &nowhere);
        assert!(matches!(refused, Err(BlockFileError::NoFolder(_))));
        fs::create_dir(folder.path().join("mount")).unwrap();
        BlockFile::change(&paths, add("one")).unwrap();
        assert!(target.exists(), "the link stays");
        BlockFile::open(&paths, &nowhere).unwrap();
    }

    #[test]
    fn a_list_of_an_earlier_version_is_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let former = BlockFile::former_place(&folder.path().join("gateway.toml"));
        let old = Blocks {
            blocked: vec![entry("one"), entry("two")],
            unblocked: Vec::new(),
        };
        fs::write(&former, serde_json::to_string(&old).unwrap()).unwrap();
        let paths = Paths::for_test(folder.path());
        let file = BlockFile::open(&paths, &former).unwrap();
        assert_eq!(file.blocks, old);
        BlockFile::change(&paths, |blocks| blocks.unblock(entry("one"))).unwrap();
        let file = BlockFile::open(&paths, &former).unwrap();
        assert_eq!(
            file.blocks.blocked,
            [entry("two")],
            "the former list is not read again"
        );
        fs::remove_dir_all(&paths.state).unwrap();
        fs::write(&former, "{").unwrap();
        assert!(
            BlockFile::open(&paths, &former).is_err(),
            "broken is not empty"
        );
    }

    #[test]
    fn a_change_is_read_back_and_keeps_the_mode() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let path = paths.block_list();
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(BlockFile::load(&path).unwrap().digest, None);
        let written = BlockFile::change(&paths, add("one")).unwrap();
        assert_eq!(
            mode() & 0o137,
            0,
            "no other user reads it, and nobody runs it"
        );
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let written_again = BlockFile::change(&paths, add("two")).unwrap();
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
        let paths = &Paths::for_test(folder.path());
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let change = |blocks: &mut Blocks| {
                        blocks.blocked.push(entry(&format!("agent-{number}")));
                        true
                    };
                    BlockFile::change(paths, change).unwrap();
                });
            }
        });
        assert_eq!(
            BlockFile::load(&paths.block_list())
                .unwrap()
                .blocks
                .blocked
                .len(),
            8
        );
    }

    #[test]
    fn a_list_that_is_cut_off_is_broken_and_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let path = paths.block_list();
        BlockFile::change(&paths, add("agent")).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            let refused = BlockFile::load(&path);
            assert!(
                matches!(refused, Err(BlockFileError::Broken(..))),
                "{length}"
            );
            let refused = BlockFile::change(&paths, |_| true);
            assert!(refused.is_err(), "what is broken is not written over");
        }
    }

    /// A list that is none, with every name beside it taken for lists like it.
    fn broken_with_all_names_taken(paths: &Paths) -> PathBuf {
        let list = paths.block_list();
        BlockFile::change(paths, add("one")).unwrap();
        fs::write(&list, "{").unwrap();
        for number in 1..=limits::BLOCK_FILES_ASIDE_MAX {
            fs::write(aside(&list, number), "").unwrap();
        }
        list
    }

    fn aside(list: &Path, number: usize) -> PathBuf {
        list.with_file_name(format!("blocked.json.refused-{number}"))
    }

    fn in_force() -> Blocks {
        Blocks {
            blocked: vec![entry("one")],
            unblocked: Vec::new(),
        }
    }

    /// Set in the process that has a small file system of its own to fill: where that is mounted.
    const FULL: &str = "PORTCULLIS_TEST_BLOCKS_FULL";

    #[test]
    fn a_list_that_cannot_be_written_anew_on_a_full_disk_stays_in_its_place() {
        if let Some(folder) = std::env::var_os(FULL) {
            let paths = Paths::for_test(Path::new(&folder));
            let list = broken_with_all_names_taken(&paths);
            let mut filling = fs::File::create(Path::new(&folder).join("filling")).unwrap();
            let full = std::io::copy(&mut std::io::repeat(0), &mut filling).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            let refused = BlockFile::change_in_force(&paths, &in_force(), add("two"));
            assert!(
                matches!(refused, Err(BlockFileError::Write(..))),
                "{refused:?}"
            );
            assert_eq!(fs::read_to_string(&list).unwrap(), "{");
            // A gateway that is started now admits no client that the other one shuts out.
            let nowhere = paths.state.join("no-former-list");
            assert!(BlockFile::open(&paths, &nowhere).is_err());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let script =
            format!("mount -t tmpfs -o size=64k tmpfs \"${FULL}\" && exec \"$0\" --exact \"$1\"");
        command.args(["--mount", "sh", "-c", &script]);
        command.arg(std::env::current_exe().unwrap());
        command.arg(
            "blocks::file::tests::a_list_that_cannot_be_written_anew_on_a_full_disk_stays_in_its_place",
        );
        let output = command.env(FULL, folder.path()).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    #[test]
    fn where_all_names_for_lists_that_were_none_are_taken_the_last_one_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let list = broken_with_all_names_taken(&paths);
        let changed = BlockFile::change_in_force(&paths, &in_force(), add("two")).unwrap();
        let last = aside(&list, limits::BLOCK_FILES_ASIDE_MAX);
        assert_eq!(changed.aside.unwrap().0, last);
        assert_eq!(fs::read_to_string(last).unwrap(), "{");
        let read = BlockFile::load(&list).unwrap();
        assert_eq!(read.blocks.blocked, [entry("one"), entry("two")]);
        assert_eq!(files_in(&paths.state), limits::BLOCK_FILES_ASIDE_MAX + 2);
    }

    #[test]
    fn a_list_that_cannot_be_kept_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::for_test(folder.path());
        let list = broken_with_all_names_taken(&paths);
        let last = aside(&list, limits::BLOCK_FILES_ASIDE_MAX);
        fs::remove_file(&last).unwrap();
        fs::create_dir(&last).unwrap();
        let refused = BlockFile::change_in_force(&paths, &in_force(), add("two"));
        assert!(
            matches!(refused, Err(BlockFileError::Write(..))),
            "{refused:?}"
        );
        assert_eq!(fs::read_to_string(&list).unwrap(), "{");
        assert_eq!(files_in(&paths.state), limits::BLOCK_FILES_ASIDE_MAX + 1);
    }

    /// Beside folders: what is left behind counts.
    fn files_in(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries.filter(|entry| entry.path().is_file()).count()
    }
}
