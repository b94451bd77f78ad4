//! Keeps a running gateway in step with the block list's file.
//! In: changes of the file, and orders of the control socket, which it writes into the file. Out: a gateway that acts by it, and says so; or by the last good list, and says why. On a thread
//! of its own. A list that is broken or gone lets nobody in who was shut out: deleting is not unblocking.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::entry::Entry;
use super::file::{BlockFile, BlockFileError, Blocks};
use crate::config::Paths;
use crate::files::{self, Again, Seen, Watcher, system_errors};
use crate::observe::{Audit, BlocksInForce};
use crate::server::Gateway;

/// Why a change of the list was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] BlockFileError),
    /// The file is gone while the gateway still acts by it.
    #[error("{} is gone, and the gateway still acts by what stood in it: put it back first", .0.display())]
    Gone(PathBuf),
    /// There is nothing to undo.
    #[error("{0} is not blocked: see `portcullis blocked`")]
    NotBlocked(Entry),
    /// The list is written, and the gateway does not act by it.
    #[error("the list is written, but not in force: {0}")]
    NotInForce(String),
}

/// A change of the list that is in force.
#[derive(Debug)]
pub struct Changed {
    /// The entry that was there before, if there was one.
    pub before: Option<Entry>,
    /// The list.
    pub in_force: BlocksInForce,
}

/// Watches until dropped, and makes changes.
#[derive(Debug)]
pub struct Keeper {
    keeping: Arc<Mutex<Keeping>>,
    _watcher: Watcher,
}

impl Keeper {
    /// Keeps `gateway`, which was started with `file`, in step with what that was read from, seen before as `seen`.
    pub fn start(
        gateway: Arc<Gateway>,
        paths: Paths,
        seen: Seen,
        file: BlockFile,
    ) -> io::Result<Self> {
        gateway.note_blocks(in_force(&file, 0));
        let keeping = Arc::new(Mutex::new(Keeping {
            paths,
            gateway,
            file,
            is_refused: false,
        }));
        let watching = Arc::clone(&keeping);
        let changed = move |files::Changed { since, .. }| lock(&watching).changed(since);
        let watcher = Watcher::start("blocks", vec![seen], changed)?;
        Ok(Keeper {
            keeping,
            _watcher: watcher,
        })
    }

    /// Blocks from now on whom `entry` means, and closes their connections.
    ///
    /// # Errors
    /// When the list cannot be changed, or the gateway does not take it.
    pub fn block(&self, entry: Entry) -> Result<Changed, ChangeError> {
        lock(&self.keeping).change(|blocks| {
            let before = blocks.find(&entry.block).cloned();
            if before.is_none() {
                blocks.blocked.push(entry);
            }
            before
        })
    }

    /// Lets those in again whom exactly this entry means.
    ///
    /// # Errors
    /// When there is no such entry, the list cannot be changed, or the gateway does not take it.
    pub fn unblock(&self, entry: Entry) -> Result<Changed, ChangeError> {
        let whom = entry.clone();
        let changed = lock(&self.keeping).change(|blocks| {
            let before = blocks.find(&entry.block).cloned();
            blocks.unblock(entry);
            before
        })?;
        match changed.before {
            Some(_) => Ok(changed),
            None => Err(ChangeError::NotBlocked(whom)),
        }
    }

    /// The entries in force.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.keeping).file.blocks.blocked.clone()
    }
}

/// A panic in a change has changed nothing in part: what is in force is replaced whole.
fn lock(keeping: &Mutex<Keeping>) -> MutexGuard<'_, Keeping> {
    keeping.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Keeping {
    paths: Paths,
    gateway: Arc<Gateway>,
    /// What is in force.
    file: BlockFile,
    /// Whether what stands in the file now was refused.
    is_refused: bool,
}

impl Keeping {
    fn change(
        &mut self,
        change: impl FnOnce(&mut Blocks) -> Option<Entry>,
    ) -> Result<Changed, ChangeError> {
        let since = Instant::now();
        let list = self.paths.block_list();
        // A new list would let everybody in who stood in the old one.
        if BlockFile::load(&list)?.digest.is_none() && !self.file.blocks.blocked.is_empty() {
            return Err(ChangeError::Gone(list));
        }
        let mut before = None;
        let file = BlockFile::change(&self.paths, |blocks| {
            let unchanged = blocks.clone();
            before = change(blocks);
            *blocks != unchanged
        })?;
        self.follow(file, since);
        let in_force = self.gateway.blocks();
        match &in_force.refused {
            None => Ok(Changed { before, in_force }),
            Some(why) => Err(ChangeError::NotInForce(why.clone())),
        }
    }

    /// Reads the list and takes it, or says why not; says when to read again, if the operating system had no room to.
    fn changed(&mut self, since: Instant) -> Again {
        let errors_before = system_errors();
        let list = self.paths.block_list();
        match BlockFile::load(&list) {
            Ok(file) if file.digest.is_none() && !self.file.blocks.blocked.is_empty() => {
                let path = list.display();
                self.refused(&format_args!(
                    "{path}: is gone; to let everybody in again use `portcullis unblock`"
                ));
            }
            Ok(file) => self.follow(file, since),
            Err(error) => self.refused(&error),
        }
        Again::default().unless_read(errors_before, Instant::now())
    }

    /// Takes a list, unless it is the one in force: a change over the control socket is a change of the file as well.
    fn follow(&mut self, file: BlockFile, since: Instant) {
        let is_known = file.digest.is_some() && file.digest == self.file.digest;
        match is_known && !self.is_refused {
            true => {}
            false => self.take(file, since),
        }
    }

    fn take(&mut self, file: BlockFile, since: Instant) {
        match self.gateway.block(file.blocks.list(), since) {
            Ok(closed) => {
                tell(self.gateway.audit(), &self.file.blocks, &file.blocks);
                let entries = file.blocks.blocked.len();
                tracing::info!(entries, closed, took = ?since.elapsed(), "the block list is in force");
                self.gateway.note_blocks(in_force(&file, closed));
                (self.file, self.is_refused) = (file, false);
            }
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&mut self, error: &dyn fmt::Display) {
        let entries = self.file.blocks.blocked.len();
        tracing::error!(
            entries,
            "block list refused, the last good one goes on: {error}"
        );
        let mut blocks = in_force(&self.file, 0);
        blocks.refused = Some(error.to_string());
        self.gateway.note_blocks(blocks);
        self.is_refused = true;
    }
}

fn in_force(file: &BlockFile, closed: usize) -> BlocksInForce {
    BlocksInForce {
        digest: file.digest.clone(),
        entries: file.blocks.blocked.len(),
        closed,
        refused: None,
    }
}

/// Says who was shut out and who was let in, and who did it.
fn tell(audit: &Audit, before: &Blocks, after: &Blocks) {
    let reason = |entry: &Entry| entry.reason.clone().unwrap_or_default();
    // Sets, not searches: whoever is blocked next waits until this is done.
    let [were, are] = [before, after]
        .map(|blocks| -> HashSet<_> { blocks.blocked.iter().map(|entry| &entry.block).collect() });
    let is_new = |entry: &&Entry| !were.contains(&entry.block);
    for entry in after.blocked.iter().filter(is_new) {
        audit.blocked("blocked", entry);
        tracing::warn!(whom = %entry, by = entry.by, reason = reason(entry), "blocked");
    }
    let is_gone = |entry: &&Entry| !are.contains(&entry.block);
    for entry in before.blocked.iter().filter(is_gone) {
        let mut records = after.unblocked.iter().rev();
        let record = records.find(|record| record.block == entry.block);
        // Whoever edits the file by hand leaves no record.
        let entry = record.cloned().unwrap_or_else(|| Entry {
            by: "somebody who edited the file".to_owned(),
            reason: None,
            ..entry.clone()
        });
        audit.blocked("unblocked", &entry);
        tracing::warn!(whom = %entry, by = entry.by, reason = reason(&entry), "unblocked");
    }
}
