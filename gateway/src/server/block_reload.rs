//! Keeps the gateway's block list and its file in step.
//! In: changes of the file; changes that the control socket asks for, which this writes into the file; changes of other processes
//! of the gateway. Out: a gateway that acts by the list, or by the last good one, and says why. On a thread of its own, and on
//! those of the control socket. A broken or missing file unblocks no client: deleting is not unblocking.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gateway_core::clock::microseconds;
use gateway_files::{Again, FileSnapshot, Watcher, system_errors};

use super::{Answers, Gateway, Matching};
use crate::blocks::Entry;
use crate::blocks::News;
use crate::blocks::not_blocked;
use crate::blocks::{BlockFile, BlockFileError, Blocks, Change, ChangedFile};
use crate::config::Paths;
use crate::telemetry::{Audit, BlocksInForce};

/// Why a change of the list was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] BlockFileError),
    /// There is nothing to undo.
    #[error("{0}")]
    NotBlocked(String),
    /// The file cannot be written, and the next process of the gateway would not know of the change.
    #[error(
        "{0}; another process is taking over from this one and would not know of the change: nothing was changed, run \
         the command again"
    )]
    Leaving(BlockFileError),
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
    /// Where a file is kept that was no list, and why it was none. The list in force was written in its place.
    pub aside: Option<(PathBuf, String)>,
    /// Clients that the change is about.
    pub matching: Matching,
    /// What the other processes of the gateway have to know.
    pub news: News,
}

/// The outcome of a change that another process of the gateway has made.
#[derive(Debug)]
pub struct Heeded {
    /// Clients of this process that the change is about.
    pub matching: Matching,
    /// Connections of this process that were closed for it.
    pub closed: usize,
}

/// Watches the file until dropped, and makes changes.
#[derive(Debug)]
pub struct BlockListReloader {
    in_force: Arc<Mutex<ListInForce>>,
    _watcher: Watcher,
}

impl BlockListReloader {
    /// Keeps `gateway`, which was started with the list of `file`, in step with that file. `snapshot` is older than its reading.
    pub fn start(
        gateway: Arc<Gateway>,
        paths: Paths,
        snapshot: FileSnapshot,
        file: BlockFile,
    ) -> io::Result<Self> {
        let in_force = ListInForce {
            paths,
            gateway,
            file,
            is_refused: false,
            unwritten: Vec::new(),
            unwritten_because: None,
            is_leaving: false,
        };
        in_force.note(0, None);
        let in_force = Arc::new(Mutex::new(in_force));
        let watching = Arc::clone(&in_force);
        let changed = move |gateway_files::Changed { since, .. }| lock(&watching).changed(since);
        let watcher = Watcher::start("blocks", vec![snapshot], changed)?;
        Ok(BlockListReloader {
            in_force,
            _watcher: watcher,
        })
    }

    /// Blocks the clients that `entry` matches from now on, and closes their connections.
    ///
    /// # Errors
    /// When the list cannot be changed, or the gateway does not take it.
    pub fn block(&self, entry: Entry) -> Result<Changed, ChangeError> {
        let mut in_force = lock(&self.in_force);
        // Asked before anything closes, and waited for afterwards.
        let answers = in_force.gateway.ask_who_matches(entry.block.clone());
        let mut changed = in_force.change(Change::Block(entry))?;
        changed.matching = answers.wait();
        Ok(changed)
    }

    /// Removes exactly this entry.
    ///
    /// # Errors
    /// When there is no such entry, the list cannot be changed, or the gateway does not take it.
    pub fn unblock(&self, entry: Entry) -> Result<Changed, ChangeError> {
        let changed = lock(&self.in_force).change(Change::Unblock(entry.clone()))?;
        match changed.before {
            Some(_) => Ok(changed),
            None => Err(ChangeError::NotBlocked(not_blocked(
                &entry,
                &lock(&self.in_force).file.blocks,
            ))),
        }
    }

    /// Calls `give`, which gives the gateway's name up, between two changes; not while a change is in force and not in the file,
    /// because the next process reads that. From then on, until `stay`, a change that cannot be written is refused.
    ///
    /// # Errors
    /// Why the next process would not know all entries.
    pub fn leave<T>(&self, give: impl FnOnce() -> T) -> Result<T, String> {
        let mut in_force = lock(&self.in_force);
        match &in_force.unwritten_because {
            None => {
                in_force.is_leaving = true;
                Ok(give())
            }
            Some(why) => Err(format!(
                "a change of the block list is in force but not in its file, which the next process would read: \
                 {why}. Fix that, run the same `portcullis block` or `unblock` again, and then start the next process"
            )),
        }
    }

    /// Notes that the process has its name after all.
    pub fn stay(&self) {
        lock(&self.in_force).is_leaving = false;
    }

    /// Acts from now on by a change that another process of this gateway has made. That process writes the file.
    ///
    /// # Errors
    /// When the gateway does not take it.
    pub fn heed(&self, news: News) -> Result<Heeded, ChangeError> {
        let since = Instant::now();
        let mut in_force = lock(&self.in_force);
        let answers = match &news.change {
            Change::Block(entry) => Some(in_force.gateway.ask_who_matches(entry.block.clone())),
            Change::Unblock(_) => None,
        };
        let closed = in_force.heed(news, since)?;
        let matching = answers.map_or_else(Matching::default, Answers::wait);
        Ok(Heeded { matching, closed })
    }

    /// The entries in force.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.in_force).file.blocks.blocked.clone()
    }
}

/// A panic leaves no change half made: the list in force is replaced whole.
fn lock(in_force: &Mutex<ListInForce>) -> MutexGuard<'_, ListInForce> {
    in_force.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The block list in force, and what of it is not in the file.
#[derive(Debug)]
struct ListInForce {
    paths: Paths,
    gateway: Arc<Gateway>,
    /// The list.
    file: BlockFile,
    /// Whether the present contents of the file were refused.
    is_refused: bool,
    /// Changes that are in force and could not be written.
    unwritten: Vec<Change>,
    /// Why they could not, and what a restart would do.
    unwritten_because: Option<String>,
    /// Whether the next process of the gateway has the name, or is about to get it.
    is_leaving: bool,
}

impl ListInForce {
    /// Makes a change, in the file and in force. Where the file cannot be written, in force alone: an emergency waits for no disk.
    fn change(&mut self, change: Change) -> Result<Changed, ChangeError> {
        let since = Instant::now();
        let mut before = None;
        let mut written = Vec::new();
        let make = |blocks: &mut Blocks| {
            let unchanged = blocks.clone();
            self.unwritten.iter().for_each(|change| {
                change.make(blocks);
            });
            before = change.make(blocks);
            *blocks != unchanged
        };
        let aside = match BlockFile::change_in_force(&self.paths, &self.file.blocks, make) {
            Ok(ChangedFile { file, aside }) => {
                written.append(&mut self.unwritten);
                written.push(change.clone());
                self.unwritten_because = None;
                self.written(aside.as_ref());
                self.follow(file, since);
                aside
            }
            Err(error @ BlockFileError::TooLong(_)) => return Err(error.into()),
            Err(error) if self.is_leaving => return Err(ChangeError::Leaving(error)),
            Err(error) => {
                before = self.change_unwritten(change.clone(), &error, since)?;
                None
            }
        };
        let in_force = self.gateway.blocks();
        let is_in_force = in_force.refused.is_none() || in_force.unwritten.is_some();
        match &in_force.refused {
            Some(why) if !is_in_force => Err(ChangeError::NotInForce(why.clone())),
            _ => Ok(Changed {
                before,
                in_force,
                aside,
                matching: Matching::default(),
                news: News {
                    change,
                    written,
                    unwritten: self.unwritten.clone(),
                    unwritten_because: self.unwritten_because.clone(),
                },
            }),
        }
    }

    /// Takes a change of another process. Returns how many connections were closed for it, now or when the file was found changed.
    fn heed(&mut self, news: News, since: Instant) -> Result<usize, ChangeError> {
        let list = self.paths.block_list();
        let mut file = match BlockFile::load(&list) {
            Ok(file) if file.digest.is_some() => file,
            // The change acts, whatever has happened to the file since.
            _ => {
                let mut file = self.file.clone();
                for change in &news.written {
                    change.make(&mut file.blocks);
                }
                file
            }
        };
        let mut unwritten = self.unwritten.clone();
        news.add_to(&mut unwritten);
        for change in &unwritten {
            change.make(&mut file.blocks);
        }
        // Bounded as in the file.
        file.blocks.text(&list)?;
        self.unwritten_because = match unwritten.is_empty() {
            true => None,
            false => news.unwritten_because.or(self.unwritten_because.take()),
        };
        self.unwritten = unwritten;
        let is_known = file.blocks.blocked == self.file.blocks.blocked && !self.is_refused;
        match is_known {
            // The file may have more lines now, and may have become writable, or not.
            true => {
                self.file = file;
                self.note(self.gateway.blocks().closed, None);
            }
            false => self.take(file, since),
        }
        let in_force = self.gateway.blocks();
        match in_force.refused {
            Some(why) => Err(ChangeError::NotInForce(why)),
            None => Ok(in_force.closed),
        }
    }

    fn written(&self, aside: Option<&(PathBuf, String)>) {
        if let Some((aside, why)) = aside {
            let (list, aside) = (self.paths.block_list(), aside.display());
            let list = list.display();
            tracing::warn!(
                "{why}; it is kept as {aside}, and {list} was written anew from the list in force"
            );
        }
    }

    /// Makes a change in force alone. Returns the entry that was there before.
    fn change_unwritten(
        &mut self,
        change: Change,
        why: &BlockFileError,
        since: Instant,
    ) -> Result<Option<Entry>, BlockFileError> {
        let list = self.paths.block_list();
        // Another program may have put a list there that can be read although it cannot be written.
        let found = BlockFile::load(&list);
        let after_restart = match &found {
            Ok(file) if file.digest.is_none() && !self.file.blocks.blocked.is_empty() => {
                "there is no file, and a restart forgets all entries"
            }
            Ok(_) => "a restart forgets it",
            Err(_) => "no process starts with the file that is there",
        };
        let mut file = match found {
            Ok(file) if file.digest.is_some() => file,
            _ => self.file.clone(),
        };
        for unwritten in &self.unwritten {
            unwritten.make(&mut file.blocks);
        }
        let before = change.make(&mut file.blocks);
        // Bounded as in the file.
        file.blocks.text(&list)?;
        if file.blocks != self.file.blocks {
            tracing::error!(
                "the block list is in force, but the gateway cannot write it: {why}; {after_restart}; the next change \
                 that can be written writes this one too"
            );
            self.unwritten.push(change);
            self.unwritten_because = Some(format!("{why}; {after_restart}"));
            self.take(file, since);
        }
        Ok(before)
    }

    /// Reads the list and takes it, or says why not. Returns when to read again after an error of the operating system.
    fn changed(&mut self, since: Instant) -> Again {
        let errors_before = system_errors();
        let list = self.paths.block_list();
        match BlockFile::load(&list) {
            Ok(file) if file.digest.is_none() && !self.file.blocks.blocked.is_empty() => {
                let path = list.display();
                self.refused(&format_args!(
                    "{path}: is missing; `portcullis block` and `unblock` write it anew from the list in force"
                ));
            }
            Ok(mut file) => {
                for unwritten in &self.unwritten {
                    unwritten.make(&mut file.blocks);
                }
                self.follow(file, since);
            }
            Err(error) => self.refused(&error),
        }
        Again::default().unless_read(errors_before, Instant::now())
    }

    /// Takes a list, unless it is the one in force: a change over the control socket changes the file as well.
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
                report(self.gateway.audit(), &self.file.blocks, &file.blocks);
                let entries = file.blocks.blocked.len();
                tracing::info!(
                    entries,
                    closed,
                    took_microseconds = microseconds(since.elapsed()),
                    "the block list is in force"
                );
                (self.file, self.is_refused) = (file, false);
                self.note(closed, None);
            }
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&mut self, error: &dyn fmt::Display) {
        let entries = self.file.blocks.blocked.len();
        tracing::error!(
            entries,
            "block list refused, the last good list stays in force: {error}"
        );
        self.is_refused = true;
        self.note(0, Some(error.to_string()));
    }

    /// Says which list is in force.
    fn note(&self, closed: usize, refused: Option<String>) {
        self.gateway.note_blocks(BlocksInForce {
            digest: self.file.digest.clone(),
            entries: self.file.blocks.blocked.len(),
            closed,
            refused,
            unwritten: self.unwritten_because.clone(),
        });
    }
}

/// Reports added and removed entries, and the author of each, to log and audit log.
fn report(audit: &Audit, before: &Blocks, after: &Blocks) {
    let reason = |entry: &Entry| entry.reason.clone().unwrap_or_default();
    // Sets, not searches: the next change waits until this is done.
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
        // An edit by hand leaves no record.
        let entry = record.cloned().unwrap_or_else(|| Entry {
            by: "an edit of the file".to_owned(),
            reason: None,
            ..entry.clone()
        });
        audit.blocked("unblocked", &entry);
        tracing::warn!(whom = %entry, by = entry.by, reason = reason(&entry), "unblocked");
    }
}
