//! What a start without the right block list would let in: the lists of other names, and a list that cannot be read.
//! In: the folders of a gateway and its list. Out: words for operators. On the main thread of `run` and of the commands;
//! changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use gateway_core::limits;

use super::entry::Entry;
use super::file::{BlockFile, BlockFileError, Blocks};
use crate::config::Paths;

/// Warns of block lists in folders beside the state folder, and in `former`, with entries that this list does not have: a
/// gateway that got another name at a restart admits the clients that it shut out before.
pub fn warn_of_others(paths: &Paths, blocks: &Blocks, former: &Path) -> Vec<String> {
    let whole = |folder: &Path| fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let own = whole(&paths.state);
    let beside = paths
        .state
        .parent()
        .and_then(|base| fs::read_dir(base).ok());
    let beside = beside.into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = beside
        .map(|entry| entry.path())
        .take(limits::RUNNING_GATEWAYS_MAX)
        .chain([former.to_owned()])
        .map(|folder| whole(&folder))
        .filter(|folder| *folder != own)
        .collect();
    folders.sort();
    folders.dedup();
    let warnings = folders.iter().filter_map(|folder| {
        let list = folder.join("blocked.json");
        // What this user may not read is another user's gateway.
        let found = BlockFile::load(&list).ok()?.blocks.blocked;
        let missing = found.iter().filter(|entry| blocks.find(&entry.block).is_none());
        let missing = match missing.count() {
            0 => return None,
            1 => "1 entry".to_owned(),
            many => format!("{many} entries"),
        };
        Some(format!(
            "{}: the block list of another name has {missing} that {} lacks, and this gateway admits their clients. \
             If it had that name before, stop it and move the folder while no process runs: `mv -T {} {}`",
            list.display(),
            paths.block_list().display(),
            folder.display(),
            paths.state.display(),
        ))
    });
    warnings.collect()
}

/// Why nothing is undone by the `unblock` of an entry, with those of the same name that there are.
pub fn not_blocked(entry: &Entry, blocks: &Blocks) -> String {
    let name = entry.name();
    let same = blocks.blocked.iter().filter(|other| other.name() == name);
    let same: Vec<_> = same.map(ToString::to_string).collect();
    match same.is_empty() {
        true => format!("{entry} is not blocked: see `portcullis blocked`"),
        false => format!(
            "{entry} is not blocked, but {} is: give `unblock` the options of its `block`",
            same.join(" and ")
        ),
    }
}

/// An error of a list by which no gateway acts, with what to do about it: nothing that is safe can be done without an operator.
pub fn with_remedy(error: BlockFileError) -> anyhow::Error {
    match &error {
        BlockFileError::Broken(path, _) => {
            let list = path.display();
            anyhow!(
                "{error}. Repair it by hand, or put a copy back, from another host for example. If there is none, `mv \
                 {list} {list}.broken` and run `portcullis block` for each of its entries before you start the \
                 gateway: without a list every client that it blocks gets in. The `block` lines of the audit log name \
                 them"
            )
        }
        BlockFileError::Read(..)
        | BlockFileError::Write(..)
        | BlockFileError::Locked(_)
        | BlockFileError::NoFolder(_)
        | BlockFileError::State(..)
        | BlockFileError::TooLong(_) => error.into(),
    }
}
