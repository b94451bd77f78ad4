//! Keeps a running gateway in step with the block list's file.
//! In: changes of the file. Out: a gateway that acts by it, and says so; or by the last good list, and says why. On a thread
//! of its own. A list that is broken or gone lets nobody in who was shut out: deleting is not unblocking.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::entry::Entry;
use super::file::{BlockFile, Blocks};
use crate::files::{Again, Changed, Seen, Watcher, system_errors};
use crate::observe::{Audit, BlocksInForce};
use crate::server::Gateway;

/// Watches until dropped.
#[derive(Debug)]
pub struct Keeper {
    _watcher: Watcher,
}

impl Keeper {
    /// Keeps `gateway`, which was started with `file`, in step with what that was read from, seen before as `seen`.
    pub fn start(gateway: Arc<Gateway>, seen: Seen, file: BlockFile) -> io::Result<Self> {
        gateway.note_blocks(in_force(&file, 0));
        let mut keeping = Keeping {
            path: seen.path().to_owned(),
            gateway,
            file,
        };
        let changed = move |Changed { since, .. }| keeping.changed(since);
        let watcher = Watcher::start("blocks", vec![seen], changed)?;
        Ok(Keeper { _watcher: watcher })
    }
}

struct Keeping {
    path: PathBuf,
    gateway: Arc<Gateway>,
    /// What is in force.
    file: BlockFile,
}

impl Keeping {
    /// Reads the list and takes it, or says why not; says when to read again, if the operating system had no room to.
    fn changed(&mut self, since: Instant) -> Again {
        let errors_before = system_errors();
        match BlockFile::load(&self.path) {
            Ok(file) if file.digest.is_none() && !self.file.blocks.blocked.is_empty() => {
                let path = self.path.display();
                self.refused(&format_args!(
                    "{path}: is gone; to let everybody in again use `portcullis unblock`"
                ));
            }
            Ok(file) => self.take(file, since),
            Err(error) => self.refused(&error),
        }
        Again::default().unless_read(errors_before, Instant::now())
    }

    fn take(&mut self, file: BlockFile, since: Instant) {
        match self.gateway.block(file.blocks.list(), since) {
            Ok(closed) => {
                tell(self.gateway.audit(), &self.file.blocks, &file.blocks);
                let entries = file.blocks.blocked.len();
                tracing::info!(entries, closed, took = ?since.elapsed(), "the block list is in force");
                self.gateway.note_blocks(in_force(&file, closed));
                self.file = file;
            }
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &dyn fmt::Display) {
        let entries = self.file.blocks.blocked.len();
        tracing::error!(
            entries,
            "block list refused, the last good one goes on: {error}"
        );
        let mut blocks = in_force(&self.file, 0);
        blocks.refused = Some(error.to_string());
        self.gateway.note_blocks(blocks);
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
