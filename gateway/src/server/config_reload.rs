//! Reads the configuration and everything it names again when it is asked to, or when a file has changed.
//! In: causes. Out: a gateway that trusts and serves the new state, or the old one and every reason why. On a thread of its
//! own, one reload at a time; causes that come meanwhile are answered by one more. A state that was refused is tried again
//! when any of its files changes, when a certificate or list that it waits for begins, and a few seconds after an error of the
//! operating system; not before.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Instant, SystemTime};

use gateway_core::clock::microseconds;
use gateway_core::limits;
use gateway_files::{
    Again, Changed, Due, FileSnapshot, Patience, Unmatched, Watcher, note_error, system_errors,
};
use gateway_x509::{crl, crl_cache};

use super::gateway::Gateway;
use crate::config::{self, ListFiles, Unread};

/// Speaks to the reloader's thread, which ends by itself with the process.
#[derive(Debug, Clone)]
pub struct Reloader(Sender<Order>);

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Why nothing of it was taken; empty where it was.
    pub refused: Vec<String>,
    /// Connections that are closed for it.
    pub closed: usize,
}

#[derive(Debug)]
enum Order {
    /// Somebody has asked, and may wait for what comes of it.
    Asked(String, Instant, Option<Sender<Reload>>),
    /// Another process has taken over, by this file from now on; who.
    Follow(PathBuf, String),
    /// Files have changed.
    Changed(Changed),
    /// It is time to read again.
    Due(Due),
    Stop,
}

/// Why the configuration is read again.
#[derive(Debug)]
struct Cause {
    asked: Option<String>,
    due: Option<Due>,
    /// Where to tell what comes of it.
    waiting: Vec<Sender<Reload>>,
    files: Vec<PathBuf>,
    /// The first sign of it.
    since: Instant,
}

/// Why a state was refused, and the revocation lists that it names.
struct Refused {
    errors: Vec<String>,
    /// All of it may be right in a moment.
    may_pass: bool,
    lists: Vec<ListFiles>,
}

impl Reloader {
    /// Watches `files`, which `gateway` was made of, and reloads it from `file`; also at `again_at`.
    pub fn start(
        gateway: Arc<Gateway>,
        file: &Path,
        files: Vec<FileSnapshot>,
        again_at: Option<SystemTime>,
    ) -> io::Result<Self> {
        let (orders_in, orders) = channel();
        let reporting = orders_in.clone();
        let watcher = Watcher::start("files", files.clone(), move |changed| {
            // A reloader that has stopped wants to hear nothing any more.
            let _ = reporting.send(Order::Changed(changed));
        })?;
        let reloading = Reloading {
            gateway,
            file: file.to_owned(),
            watcher,
            read: files,
            again: Again::at(again_at),
            refused: None,
            unmatched: Unmatched::default(),
            orders,
        };
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || reloading.run())?;
        Ok(Reloader(orders_in))
    }

    /// Reloads, whether a file has changed or not, and says in the log who has asked.
    pub fn ask(&self, who: String) {
        // It ends only when it is told to.
        let _ = self.0.send(Order::Asked(who, Instant::now(), None));
    }

    /// As `ask`, and waits for what comes of it. `None` when nothing is reloaded any more.
    pub fn ask_and_wait(&self, who: String) -> Option<Reload> {
        let (tell, told) = channel();
        let order = Order::Asked(who, Instant::now(), Some(tell));
        self.0.send(order).ok()?;
        told.recv().ok()
    }

    /// Reads `file` from now on, by which the process serves that has taken over.
    pub fn follow(&self, file: PathBuf, who: String) {
        let _ = self.0.send(Order::Follow(file, who));
    }

    /// Begins no further reload.
    pub fn stop(&self) {
        let _ = self.0.send(Order::Stop);
    }
}

/// The reloader's thread.
struct Reloading {
    gateway: Arc<Gateway>,
    file: PathBuf,
    watcher: Watcher,
    /// What the last state was read from, whether it was taken or refused.
    read: Vec<FileSnapshot>,
    /// When to read once more although no file has changed.
    again: Again,
    /// Why the last state was refused.
    refused: Option<String>,
    /// How long a key has not belonged to its certificate.
    unmatched: Unmatched,
    orders: Receiver<Order>,
}

impl Reloading {
    fn run(mut self) {
        // A long list takes half a second of CPU, and a handshake should not wait for it where both have to share one.
        if let Err(error) = gateway_rt::lower_priority() {
            tracing::debug!(%error, "cannot lower the priority of reloads: they compete with the workers");
        }
        while let Some(mut cause) = self.next() {
            // The report of a change may come when a reload for another cause has read the file already.
            let is_news = |file: &PathBuf| {
                let read = self.read.iter().find(|snapshot| snapshot.path() == file);
                read.is_some_and(|read| FileSnapshot::now(file).differs_from(read))
            };
            cause.files.retain(is_news);
            if cause.asked.is_some() || cause.due.is_some() || !cause.files.is_empty() {
                self.reload(&cause);
            }
        }
    }

    /// Waits for a cause and adds to it what waits behind it. `None` to stop.
    fn next(&mut self) -> Option<Cause> {
        let mut cause: Option<Cause> = None;
        let first = self.first()?;
        let behind: Vec<_> = self.orders.try_iter().collect();
        for order in std::iter::once(first).chain(behind) {
            let (asked, due, files, since, waiting) = match order {
                Order::Asked(who, since, waiting) => (Some(who), None, Vec::new(), since, waiting),
                Order::Follow(file, who) => {
                    self.file = file;
                    (Some(who), None, Vec::new(), Instant::now(), None)
                }
                Order::Changed(Changed { files, since }) => (None, None, files, since, None),
                Order::Due(due) => (None, Some(due), Vec::new(), Instant::now(), None),
                Order::Stop => return None,
            };
            let merged = cause.get_or_insert_with(|| Cause {
                asked: None,
                due: None,
                waiting: Vec::new(),
                files: Vec::new(),
                since,
            });
            merged.waiting.extend(waiting);
            merged.asked = merged.asked.take().or(asked);
            merged.due = merged.due.or(due);
            merged.since = merged.since.min(since);
            merged.files.extend(files);
        }
        let mut cause = cause?;
        cause.files.sort();
        cause.files.dedup();
        Some(cause)
    }

    /// Waits for an order, or until it is time to read again. Meanwhile gives back, now and then, the lists that nobody uses any
    /// more: here, where nobody waits for it. `None` when nobody can give any.
    fn first(&self) -> Option<Order> {
        let mut sweep_at = Instant::now() + limits::LIST_SWEEP_INTERVAL;
        loop {
            let now = Instant::now();
            let look_at = self
                .again
                .look_at(now)
                .map_or(sweep_at, |at| at.min(sweep_at));
            match self
                .orders
                .recv_timeout(look_at.saturating_duration_since(now))
            {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if let Some(due) = self.again.due(SystemTime::now(), now) {
                return Some(Order::Due(due));
            }
            if now >= sweep_at {
                crl_cache::forget_unused();
                sweep_at = now + limits::LIST_SWEEP_INTERVAL;
            }
        }
    }

    /// All of the new state, or nothing of it but what its revocation lists revoke.
    fn reload(&mut self, cause: &Cause) {
        let errors_before = system_errors();
        let refused_before = self.refused.take();
        let refused_files_before = crl::refused_files();
        let (outcome, mut again_at) = self.try_reload(cause);
        let why = outcome.as_ref().err();
        let why = why.map(|refused| refused.errors.join("\n"));
        // What is tried again every few seconds fails in the same words: said once.
        let may_pass = outcome.as_ref().is_err_and(|refused| refused.may_pass);
        let patience = self.unmatched.look(may_pass, Instant::now());
        let is_repeated = cause.due.is_some() && why.is_some() && why == refused_before;
        let is_news = !is_repeated || patience == Patience::OverNow;
        if is_news {
            let asked = cause.asked.as_deref().or(cause.due.map(Due::words));
            let asked = asked.unwrap_or("files changed");
            let audit = self.gateway.audit();
            audit.reloaded(asked, &cause.files, why.as_deref());
        }
        self.gateway.note_reload(why.as_deref());
        cause.tell(&match &outcome {
            Ok(closed) => Reload {
                refused: Vec::new(),
                closed: *closed,
            },
            Err(Refused { errors, .. }) => Reload {
                refused: errors.clone(),
                closed: 0,
            },
        });
        match outcome {
            Ok(closed) => {
                self.record_lists();
                tracing::info!(%cause, closed, took_microseconds = microseconds(cause.since.elapsed()), "reloaded");
            }
            Err(Refused { errors, lists, .. }) => {
                match is_news {
                    true => errors
                        .iter()
                        .for_each(|error| refused(cause, error, patience)),
                    false => tracing::debug!(%cause, "refused as before"),
                }
                let unread = self.revoke(&lists, cause);
                // What the refused state was judged by has been counted.
                if crl::refused_files() == refused_files_before {
                    unread.own.iter().for_each(|_| crl::count_refused());
                }
                for error in unread.own.iter().chain(&unread.others).filter(|_| is_news) {
                    tracing::warn!(%cause, "a revocation list is left out beside the refused configuration: {error}");
                }
                again_at = again_at.into_iter().chain(unread.again_at).min();
            }
        }
        // Last, for everything that was read.
        let matched_by = match patience {
            Patience::Until(at) => Some(at),
            Patience::OverNow | Patience::Over => None,
        };
        self.again = Again::at(again_at)
            .unless_read(errors_before, Instant::now())
            .or_when_matched_by(matched_by);
        self.refused = why;
    }

    /// Reads, and puts in force. Returns how many connections are closed, or every reason to refuse; and when something of
    /// what was read begins or ends.
    fn try_reload(&mut self, cause: &Cause) -> (Result<usize, Refused>, Option<SystemTime>) {
        let loaded = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(errors) => {
                self.gateway.count_refused_reload();
                self.watch_beside_lists(errors.files().to_vec());
                let words = errors.as_slice().iter().map(ToString::to_string);
                let refused = Refused {
                    errors: words.collect(),
                    may_pass: errors.may_pass(),
                    lists: errors.lists().to_vec(),
                };
                return (Err(refused), errors.again_at());
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let files = loaded.config.files.clone();
        self.watch(files.clone());
        let again_at = loaded.config.again_at;
        let lists = loaded.config.list_files();
        let outcome = self.gateway.reload(loaded.config, cause.since);
        let outcome = outcome.map_err(|error| {
            self.watch_beside_lists(files);
            error.io().into_iter().for_each(note_error);
            Refused {
                errors: vec![error.to_string()],
                may_pass: false,
                lists,
            }
        });
        (outcome, again_at)
    }

    /// Puts in force what the lists revoke, of a state that is refused. Returns what could not be read of them.
    fn revoke(&mut self, lists: &[ListFiles], cause: &Cause) -> Unread {
        let mut unread = Unread::default();
        match self.gateway.revoke(lists, cause.since, &mut unread) {
            Ok(None) => {}
            Ok(Some(closed)) => {
                self.record_lists();
                tracing::warn!(%cause, closed, took_microseconds = microseconds(cause.since.elapsed()), "the revocation lists are in force, although the rest is refused");
                let audit = self.gateway.audit();
                audit.reloaded("revocation lists alone", &cause.files, None);
            }
            Err(error) => {
                tracing::error!(%cause, "the revocation lists are refused with the rest: {error}");
            }
        }
        unread
    }

    /// Watches what a refused state was read from, and the lists in force: what is refused may not name those any more, or may
    /// not be readable that far.
    fn watch_beside_lists(&mut self, mut files: Vec<FileSnapshot>) {
        let lists = self.gateway.list_files().into_iter();
        for file in lists.flat_map(|lists| lists.files) {
            if files.iter().all(|snapshot| snapshot.path() != file.path) {
                files.push(FileSnapshot::now(&file.path));
            }
        }
        self.watch(files);
    }

    /// Remembers the lists in force. What is written for that is no change to read everything for again.
    fn record_lists(&mut self) {
        self.gateway.record_lists();
        let written = self.gateway.list_ranks_file();
        let mut files = std::mem::take(&mut self.read);
        for snapshot in files
            .iter_mut()
            .filter(|snapshot| snapshot.path() == written)
        {
            *snapshot = FileSnapshot::now(&written);
        }
        self.watch(files);
    }

    fn watch(&mut self, files: Vec<FileSnapshot>) {
        self.read.clone_from(&files);
        self.watcher.watch(files);
    }
}

fn refused(cause: &Cause, error: &str, patience: Patience) {
    match patience {
        Patience::Until(_) => {
            let wait_seconds = limits::KEY_PAIR_PATIENCE.as_secs_f64();
            tracing::warn!(%cause, wait_seconds, "reload refused for now, the old configuration stays in force: \
                                                  {error}");
        }
        Patience::OverNow | Patience::Over => {
            tracing::error!(%cause, "reload refused, the old configuration stays in force: {error}");
        }
    }
}

impl Cause {
    fn tell(&self, reload: &Reload) {
        for waiting in &self.waiting {
            // Who waited may have lost patience.
            let _ = waiting.send(reload.clone());
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(who) = &self.asked {
            formatter.write_str(who)?;
        } else if let Some(due) = self.due {
            formatter.write_str(due.words())?;
        }
        for (position, file) in self.files.iter().enumerate() {
            let is_alone = self.asked.is_none() && self.due.is_none();
            let before = match (position, is_alone) {
                (0, true) => "changed: ",
                (0, false) => ", changed: ",
                _ => ", ",
            };
            write!(formatter, "{before}{}", file.display())?;
        }
        Ok(())
    }
}
