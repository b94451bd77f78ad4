//! Reads the configuration and everything it names again when it is asked to, or when a file has changed.
//! In: causes. Out: a gateway that trusts and serves the new state, or the old one and every reason why. On a thread of its
//! own, one reload at a time; causes that come meanwhile are answered by one more. A state that was refused is tried again
//! when any of its files changes, and not before.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use super::gateway::Gateway;
use crate::config;
use crate::files::{Changed, Seen, Watcher};
use crate::limits;
use crate::pki::kept_lists;
use crate::rt;

/// Speaks to the reloader's thread, which ends by itself with the process.
#[derive(Debug)]
pub struct Reloader(Sender<Order>);

#[derive(Debug)]
enum Order {
    /// Somebody has asked.
    Asked(String, Instant),
    /// Files have changed.
    Changed(Changed),
    Stop,
}

/// Why the configuration is read again.
#[derive(Debug)]
struct Cause {
    asked: Option<String>,
    files: Vec<PathBuf>,
    /// The first sign of it.
    since: Instant,
}

impl Reloader {
    /// Watches `files`, which `gateway` was made of, and reloads it from `file`.
    pub fn start(gateway: Arc<Gateway>, file: &Path, files: Vec<Seen>) -> io::Result<Self> {
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
        let _ = self.0.send(Order::Asked(who, Instant::now()));
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
    read: Vec<Seen>,
    orders: Receiver<Order>,
}

impl Reloading {
    fn run(mut self) {
        // A long list takes half a second of CPU, and a handshake should not wait for it where both have to share one.
        if let Err(error) = rt::stand_back() {
            tracing::debug!(%error, "reloads compete with the workers");
        }
        while let Some(mut cause) = self.next() {
            // The report of a change may come when a reload for another cause has read the file already.
            let is_news = |file: &PathBuf| {
                let read = self.read.iter().find(|seen| seen.path() == file);
                read.is_some_and(|read| Seen::now(file).differs_from(read))
            };
            cause.files.retain(is_news);
            if cause.asked.is_some() || !cause.files.is_empty() {
                self.reload(&cause);
            }
        }
    }

    /// Waits for a cause and adds to it what waits behind it. `None` to stop.
    fn next(&self) -> Option<Cause> {
        let mut cause: Option<Cause> = None;
        let first = self.first()?;
        for order in std::iter::once(first).chain(self.orders.try_iter()) {
            let (asked, files, since) = match order {
                Order::Asked(who, since) => (Some(who), Vec::new(), since),
                Order::Changed(Changed { files, since }) => (None, files, since),
                Order::Stop => return None,
            };
            let merged = cause.get_or_insert_with(|| Cause {
                asked: None,
                files: Vec::new(),
                since,
            });
            merged.asked = merged.asked.take().or(asked);
            merged.since = merged.since.min(since);
            merged.files.extend(files);
        }
        let mut cause = cause?;
        cause.files.sort();
        cause.files.dedup();
        Some(cause)
    }

    /// Waits for an order. Meanwhile gives back, now and then, the lists that nobody uses any more: here, where nobody waits
    /// for it. `None` when nobody can give any.
    fn first(&self) -> Option<Order> {
        loop {
            match self.orders.recv_timeout(limits::LIST_SWEEP_INTERVAL) {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Timeout) => kept_lists::forget_unused(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// All of the new state, or nothing of it.
    fn reload(&mut self, cause: &Cause) {
        let loaded = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(errors) => {
                self.gateway.count_refused_reload();
                self.record(cause, Some(&errors.to_string()));
                for error in errors.as_slice() {
                    refused(cause, error);
                }
                return self.watch(errors.files().to_vec());
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.watch(loaded.config.files.clone());
        let outcome = self.gateway.reload(loaded.config, cause.since);
        let why = outcome.as_ref().err().map(ToString::to_string);
        self.record(cause, why.as_deref());
        match outcome {
            Ok(closed) => {
                tracing::info!(%cause, closed, took = ?cause.since.elapsed(), "reloaded");
            }
            Err(error) => refused(cause, &error),
        }
    }

    fn record(&self, cause: &Cause, refused: Option<&str>) {
        let asked = cause.asked.as_deref().unwrap_or("files changed");
        self.gateway.audit().reloaded(asked, &cause.files, refused);
    }

    fn watch(&mut self, files: Vec<Seen>) {
        self.read.clone_from(&files);
        self.watcher.watch(files);
    }
}

fn refused(cause: &Cause, error: &dyn fmt::Display) {
    tracing::error!(%cause, "reload refused, the old configuration goes on: {error}");
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(who) = &self.asked {
            formatter.write_str(who)?;
        }
        for (position, file) in self.files.iter().enumerate() {
            let before = match (position, &self.asked) {
                (0, None) => "changed: ",
                (0, Some(_)) => ", changed: ",
                _ => ", ",
            };
            write!(formatter, "{before}{}", file.display())?;
        }
        Ok(())
    }
}
