//! Reads the configuration and every file that it names again, on request or when a file has changed.
//! In: causes. Out: a gateway that trusts and serves the new state, or the old one and every reason why. On a thread of its
//! own, one reload at a time; causes that come meanwhile make one more. It tries a refused state again when any of its files
//! changes, when a certificate or list becomes valid, and a few seconds after an error of the operating system; not before.

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

/// Sends requests to the thread that reloads, which ends with the process.
#[derive(Debug, Clone)]
pub struct Reloader(Sender<ReloadRequest>);

/// The outcome of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Why nothing of it was taken; empty where it was.
    pub refused: Vec<String>,
    /// Connections that are closed for it.
    pub closed: usize,
}

#[derive(Debug)]
enum ReloadRequest {
    /// A request by this name, made then. Its sender may wait for the outcome.
    Asked(String, Instant, Option<Sender<Reload>>),
    /// Another process has taken over, and serves by this file from now on; its name.
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
    /// Take the outcome.
    waiting: Vec<Sender<Reload>>,
    files: Vec<PathBuf>,
    /// The first sign of it.
    since: Instant,
}

/// Why a state was refused, and the revocation lists that it names.
struct Refused {
    errors: Vec<String>,
    /// All errors may be gone in a moment.
    may_pass: bool,
    lists: Vec<ListFiles>,
}

impl Reloader {
    /// Watches `files`, from which `gateway` was made, and reloads it from `file`; also at `again_at`.
    pub fn start(
        gateway: Arc<Gateway>,
        file: &Path,
        files: Vec<FileSnapshot>,
        again_at: Option<SystemTime>,
    ) -> io::Result<Self> {
        let (sender, requests) = channel();
        let reporting = sender.clone();
        let watcher = Watcher::start("files", files.clone(), move |changed| {
            // The thread may have stopped.
            let _ = reporting.send(ReloadRequest::Changed(changed));
        })?;
        let thread = ReloadThread {
            gateway,
            file: file.to_owned(),
            watcher,
            read: files,
            again: Again::at(again_at),
            refused: None,
            unmatched: Unmatched::default(),
            requests,
        };
        std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || thread.run())?;
        Ok(Reloader(sender))
    }

    /// Reloads, whether a file has changed or not. The log names `requester`.
    pub fn ask(&self, requester: String) {
        // The thread ends only on `stop`.
        let _ = self
            .0
            .send(ReloadRequest::Asked(requester, Instant::now(), None));
    }

    /// As `ask`, and waits for the outcome. Returns `None` after `stop`.
    pub fn ask_and_wait(&self, requester: String) -> Option<Reload> {
        let (tell, told) = channel();
        let request = ReloadRequest::Asked(requester, Instant::now(), Some(tell));
        self.0.send(request).ok()?;
        told.recv().ok()
    }

    /// Reads `file` from now on: the process that has taken over serves by it.
    pub fn follow(&self, file: PathBuf, requester: String) {
        let _ = self.0.send(ReloadRequest::Follow(file, requester));
    }

    /// Begins no further reload.
    pub fn stop(&self) {
        let _ = self.0.send(ReloadRequest::Stop);
    }
}

/// The thread that reloads.
struct ReloadThread {
    gateway: Arc<Gateway>,
    file: PathBuf,
    watcher: Watcher,
    /// The files of the last state, taken or refused.
    read: Vec<FileSnapshot>,
    /// When to read once more although no file has changed.
    again: Again,
    /// Why the last state was refused.
    refused: Option<String>,
    /// How long a key has not matched its certificate.
    unmatched: Unmatched,
    requests: Receiver<ReloadRequest>,
}

impl ReloadThread {
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

    /// Waits for a cause, and merges all that wait behind it. Returns `None` to stop.
    fn next(&mut self) -> Option<Cause> {
        let mut cause: Option<Cause> = None;
        let first = self.first()?;
        let behind: Vec<_> = self.requests.try_iter().collect();
        for request in std::iter::once(first).chain(behind) {
            let (asked, due, files, since, waiting) = match request {
                ReloadRequest::Asked(requester, since, waiting) => {
                    (Some(requester), None, Vec::new(), since, waiting)
                }
                ReloadRequest::Follow(file, requester) => {
                    self.file = file;
                    (Some(requester), None, Vec::new(), Instant::now(), None)
                }
                ReloadRequest::Changed(Changed { files, since }) => {
                    (None, None, files, since, None)
                }
                ReloadRequest::Due(due) => (None, Some(due), Vec::new(), Instant::now(), None),
                ReloadRequest::Stop => return None,
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

    /// Waits for a request, or until it is time to read again. Meanwhile releases unused lists now and then: here, where nothing
    /// waits for it. Returns `None` when no request can come any more.
    fn first(&self) -> Option<ReloadRequest> {
        let mut sweep_at = Instant::now() + limits::LIST_SWEEP_INTERVAL;
        loop {
            let now = Instant::now();
            let look_at = self
                .again
                .look_at(now)
                .map_or(sweep_at, |at| at.min(sweep_at));
            match self
                .requests
                .recv_timeout(look_at.saturating_duration_since(now))
            {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if let Some(due) = self.again.due(SystemTime::now(), now) {
                return Some(ReloadRequest::Due(due));
            }
            if now >= sweep_at {
                crl_cache::forget_unused();
                sweep_at = now + limits::LIST_SWEEP_INTERVAL;
            }
        }
    }

    /// Takes all of the new state, or nothing of it but what its revocation lists revoke.
    fn reload(&mut self, cause: &Cause) {
        let errors_before = system_errors();
        let refused_before = self.refused.take();
        let refused_files_before = crl::refused_files();
        let (outcome, mut again_at) = self.try_reload(cause);
        let why = outcome.as_ref().err();
        let why = why.map(|refused| refused.errors.join("\n"));
        // A state that is tried every few seconds fails in the same words: one line is enough.
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
                // The lists that the refused state was checked by have been counted.
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

    /// Reads a state and puts it in force. Returns how many connections are closed, or every reason to refuse; and when something
    /// in it becomes valid or expires.
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

    /// Puts the revocation lists of a refused state in force. Returns what could not be read of them.
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

    /// Watches the files of a refused state, and the lists in force: the refused state may not name those any more, or may not be
    /// readable that far.
    fn watch_beside_lists(&mut self, mut files: Vec<FileSnapshot>) {
        let lists = self.gateway.list_files().into_iter();
        for file in lists.flat_map(|lists| lists.files) {
            if files.iter().all(|snapshot| snapshot.path() != file.path) {
                files.push(FileSnapshot::now(&file.path));
            }
        }
        self.watch(files);
    }

    /// Records the lists in force. The file that this writes is no reason to read everything again.
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
            // The sender of the request may have stopped waiting.
            let _ = waiting.send(reload.clone());
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(requester) = &self.asked {
            formatter.write_str(requester)?;
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
