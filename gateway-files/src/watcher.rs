//! Watches files on a thread of its own.
//! In: snapshots of files. Out: a call for each true change, once the file is whole. Waits a short time for the end of a
//! burst of events, a little longer for a file that is open for writing; then compares everything.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use gateway_core::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::again::Again;
use super::inotify::Inotify;
use super::snapshot::FileSnapshot;

/// Files that are not what they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which; none where only the time has come that was asked for.
    pub files: Vec<PathBuf>,
    /// When the first sign of it came.
    pub since: Instant,
}

/// A running watcher; ends, and is waited for, when dropped. Not to be dropped by the function it calls.
#[derive(Debug)]
pub struct Watcher {
    orders: Option<Sender<Vec<FileSnapshot>>>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Watches `files`, and calls `changed` on the watcher's own thread, which bears `name`; also when `changed` itself has
    /// asked to be called again.
    pub fn start<A: Into<Again>>(
        name: &str,
        files: Vec<FileSnapshot>,
        changed: impl FnMut(Changed) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let inotify = Inotify::new();
        if let Err(error) = &inotify {
            let every_seconds = limits::FILE_LOOK_INTERVAL.as_secs();
            tracing::warn!(%error, every_seconds, "the kernel does not announce changes of files; the gateway looks \
                at them from time to time");
        }
        Watcher::with_inotify(inotify.ok(), name, files, changed)
    }

    fn with_inotify<A: Into<Again>>(
        inotify: Option<Inotify>,
        name: &str,
        files: Vec<FileSnapshot>,
        changed: impl FnMut(Changed) -> A + Send + 'static,
    ) -> io::Result<Self> {
        let (orders_in, orders) = channel();
        let (bell, bell_out) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        bell_out.set_nonblocking(true)?;
        let watching = Watching {
            files,
            inotify,
            orders,
            bell: bell_out,
            changed,
            again: Again::default(),
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || watching.run())?;
        Ok(Watcher {
            orders: Some(orders_in),
            bell,
            thread: Some(thread),
        })
    }

    /// Watches these files from now on. Reports what has changed since the snapshots were taken.
    pub fn watch(&self, files: Vec<FileSnapshot>) {
        if let Some(orders) = &self.orders
            && orders.send(files).is_ok()
        {
            // A full socket pair means that it has been woken often enough already.
            let _ = io::Write::write(&mut &self.bell, &[1]);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.orders = None;
        // Nothing is left to wake where this fails.
        let _ = self.bell.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a watcher of files panicked");
        }
    }
}

/// The watcher's thread.
struct Watching<F> {
    files: Vec<FileSnapshot>,
    inotify: Option<Inotify>,
    orders: Receiver<Vec<FileSnapshot>>,
    bell: UnixStream,
    changed: F,
    again: Again,
}

/// Signs of change that belong together.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn go_on(burst: Option<Burst>, now: Instant) -> Self {
        let first = burst.map_or(now, |burst| burst.first);
        Burst { first, last: now }
    }
}

impl<A: Into<Again>, F: FnMut(Changed) -> A> Watching<F> {
    fn run(mut self) {
        self.watch_paths();
        // A look of its own finds what changed before the watches were set.
        let mut burst = Some(Burst::go_on(None, Instant::now()));
        let mut look_at = Instant::now() + limits::FILE_LOOK_INTERVAL;
        loop {
            let next = burst.map_or(look_at, |burst| self.over_at(burst).min(look_at));
            let again_at = self.again.look_at(Instant::now());
            self.wait(again_at.map_or(next, |at| at.min(next)));
            let now = Instant::now();
            match self.orders.try_recv() {
                Ok(files) => {
                    self.files = files;
                    self.watch_paths();
                    burst = Some(Burst::go_on(burst, now));
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
            if self.inotify.as_mut().is_some_and(Inotify::read_events) {
                burst = Some(Burst::go_on(burst, now));
            }
            if let Some(over) = burst.filter(|burst| now >= self.over_at(*burst)) {
                burst = None;
                self.look(over.first);
            } else if self.again.due(SystemTime::now(), now).is_some() {
                self.report(Vec::new(), now);
            } else if now >= look_at {
                look_at = now + limits::FILE_LOOK_INTERVAL;
                // A watch may be lost, and what it was for as well.
                self.watch_paths();
                if burst.is_none() && self.files.iter().any(FileSnapshot::looks_different) {
                    burst = Some(Burst::go_on(None, now));
                }
            }
        }
    }

    /// When a burst is over. A file that is open for writing is most likely not whole.
    fn over_at(&self, burst: Burst) -> Instant {
        let is_being_written = self.inotify.as_ref().is_some_and(Inotify::is_being_written);
        let (quiet, most) = match is_being_written {
            true => (limits::FILE_WRITING_MAX, limits::FILE_WRITING_MAX),
            false => (limits::FILE_QUIET_PERIOD, limits::FILE_BURST_MAX),
        };
        (burst.last + quiet).min(burst.first + most)
    }

    fn watch_paths(&mut self) {
        let Watching { inotify, files, .. } = self;
        if let Some(inotify) = inotify {
            inotify.watch(files.iter().map(FileSnapshot::path));
        }
    }

    /// Waits for the kernel, for an order, or until `until`.
    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up: to wake a moment too early would be to wake again and again.
        let left = left + Duration::from_millis(1);
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let bell = PollFd::new(&self.bell, PollFlags::IN);
        // A signal ends the wait early, and nothing is lost by that.
        let _ = match &self.inotify {
            Some(inotify) => {
                let mut both = [bell, PollFd::new(inotify, PollFlags::IN)];
                poll(&mut both, Some(&left))
            }
            None => poll(&mut [bell], Some(&left)),
        };
        let mut rung = [0; 64];
        let _ = io::Read::read(&mut &self.bell, &mut rung);
    }

    /// Compares all files with what they were, and reports those that differ.
    fn look(&mut self, since: Instant) {
        // First the way, then the files: a later change makes an event.
        self.watch_paths();
        let mut files = Vec::new();
        for file in &mut self.files {
            let now = FileSnapshot::now(file.path());
            if now.differs_from(file) {
                files.push(file.path().to_owned());
            }
            *file = now;
        }
        if !files.is_empty() {
            self.report(files, since);
        }
    }

    fn report(&mut self, files: Vec<PathBuf>, since: Instant) {
        self.again = (self.changed)(Changed { files, since }).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_that_the_kernel_does_not_announce_is_found_by_looking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let (sender, reports) = channel();
        let changed = move |changed: Changed| {
            let _ = sender.send(changed.files);
        };
        let snapshot = vec![FileSnapshot::now(&path)];
        let watcher = Watcher::with_inotify(None, "watcher", snapshot, changed).unwrap();
        // Longer than the first look takes.
        std::thread::sleep(limits::FILE_BURST_MAX);
        fs::write(&path, "two").unwrap();
        let patience = 4 * limits::FILE_LOOK_INTERVAL;
        assert_eq!(reports.recv_timeout(patience), Ok(vec![path]));
        drop(watcher);
    }
}
