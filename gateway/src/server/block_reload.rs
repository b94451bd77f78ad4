//! Keeps a running gateway in step with the block list's file.
//! In: changes of the file, orders of the control socket, which it writes into the file, and what other processes of the gateway
//! have changed. Out: a gateway that acts by it, and says so; or by the last good list, and says why. On a thread
//! of its own. A list that is broken or gone lets nobody in who was shut out: deleting is not unblocking.

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
    /// Where the file is kept that was no list, and why it was none: the list in force was written anew.
    pub aside: Option<(PathBuf, String)>,
    /// Clients that the change is about.
    pub matching: Matching,
    /// What the other processes of the gateway are to be told.
    pub news: News,
}

/// What came of a change that another process of the gateway has made.
#[derive(Debug)]
pub struct Heeded {
    /// Clients of this process that the change is about.
    pub matching: Matching,
    /// Connections of this process that were closed for it.
    pub closed: usize,
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
        snapshot: FileSnapshot,
        file: BlockFile,
    ) -> io::Result<Self> {
        let keeping = Keeping {
            paths,
            gateway,
            file,
            is_refused: false,
            unwritten: Vec::new(),
            unwritten_because: None,
            is_leaving: false,
        };
        keeping.note(0, None);
        let keeping = Arc::new(Mutex::new(keeping));
        let watching = Arc::clone(&keeping);
        let changed = move |gateway_files::Changed { since, .. }| lock(&watching).changed(since);
        let watcher = Watcher::start("blocks", vec![snapshot], changed)?;
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
        let mut keeping = lock(&self.keeping);
        // Before anything is closed; the answers are waited for behind it.
        let answers = keeping.gateway.ask_who_matches(entry.block.clone());
        let mut changed = keeping.change(Change::Block(entry))?;
        changed.matching = answers.wait();
        Ok(changed)
    }

    /// Lets those in again whom exactly this entry means.
    ///
    /// # Errors
    /// When there is no such entry, the list cannot be changed, or the gateway does not take it.
    pub fn unblock(&self, entry: Entry) -> Result<Changed, ChangeError> {
        let changed = lock(&self.keeping).change(Change::Unblock(entry.clone()))?;
        match changed.before {
            Some(_) => Ok(changed),
            None => Err(ChangeError::NotBlocked(not_blocked(
                &entry,
                &lock(&self.keeping).file.blocks,
            ))),
        }
    }

    /// Has `give` give the name of this gateway up, between two changes, unless one of them is in force and not in the file: the
    /// next process goes by that. From then on no change is made that cannot be written, until `stay`.
    ///
    /// # Errors
    /// Why the next process would not know whom this one blocks.
    pub fn leave<T>(&self, give: impl FnOnce() -> T) -> Result<T, String> {
        let mut keeping = lock(&self.keeping);
        match &keeping.unwritten_because {
            None => {
                keeping.is_leaving = true;
                Ok(give())
            }
            Some(why) => Err(format!(
                "a change of the block list is in force but not in its file, which the next process would read: \
                 {why}. Fix that, run the same `portcullis block` or `unblock` again, and then start the next process"
            )),
        }
    }

    /// The name was not given up after all.
    pub fn stay(&self) {
        lock(&self.keeping).is_leaving = false;
    }

    /// Acts from now on by what another process of this gateway has changed, and leaves the file to that one.
    ///
    /// # Errors
    /// When the gateway does not take it.
    pub fn heed(&self, news: News) -> Result<Heeded, ChangeError> {
        let since = Instant::now();
        let mut keeping = lock(&self.keeping);
        let answers = match &news.change {
            Change::Block(entry) => Some(keeping.gateway.ask_who_matches(entry.block.clone())),
            Change::Unblock(_) => None,
        };
        let closed = keeping.heed(news, since)?;
        let matching = answers.map_or_else(Matching::default, Answers::wait);
        Ok(Heeded { matching, closed })
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
    /// Changes that are in force and could not be written.
    unwritten: Vec<Change>,
    /// Why they could not, and what a restart comes to.
    unwritten_because: Option<String>,
    /// Whether the next process of the gateway has been given the name, or is about to be.
    is_leaving: bool,
}

impl Keeping {
    /// Makes a change, in the file and in force; in force alone where the file cannot be written: an emergency waits for no disk.
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

    /// Takes what another process has changed. Returns how many connections were closed for it, now or when the file was found
    /// changed.
    fn heed(&mut self, news: News, since: Instant) -> Result<usize, ChangeError> {
        let list = self.paths.block_list();
        let mut file = match BlockFile::load(&list) {
            Ok(file) if file.digest.is_some() => file,
            // Whatever has become of the file since: the change is to act.
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
            // The file may say more now, and it may not be written any more, or again.
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

    /// Reads the list and takes it, or says why not; says when to read again, if the operating system had no room to.
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
            by: "an edit of the file".to_owned(),
            reason: None,
            ..entry.clone()
        });
        audit.blocked("unblocked", &entry);
        tracing::warn!(whom = %entry, by = entry.by, reason = reason(&entry), "unblocked");
    }
}
