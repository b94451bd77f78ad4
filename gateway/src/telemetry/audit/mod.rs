//! The audit log: which clients the gateway admitted and refused, how their connections ended, and what operators changed.
//! One JSON object a line.
//! In: finished lines from any thread. Out: the queue that a thread of its own writes from. A thread that hands a
//! line over waits for no disk: what does not fit is dropped, counted, and said in the log itself once it can be.

mod event;
mod line;
mod target;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{fs::File, io, thread};

use gateway_common::{Ban, Reason};
use gateway_core::certificate::NameKind;
use gateway_core::limits;

use crate::blocks::Entry;
use crate::config::{AuditTarget, Config};
use crate::crypto::KeyRing;
pub(super) use event::Scene;
use line::{
    AuditLine, BlockLine, BoundedText, ContinuedLine, CrlAcceptedLine, GuardBanLine, KeysLine,
    ReloadLine, StartLine, StopLine, Time,
};
pub use target::{Opened, look, open};

/// How much room a line may take of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A client's doing: a flood of these leaves room for the other kind.
    Client,
    /// An operator's doing, or the gateway's own.
    Administration,
}

/// The audit log of this process. Clones are the same log; it may be switched off, and then costs one load.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    on: AtomicBool,
    dropped: AtomicU64,
    write_errors: AtomicU64,
    queue: Mutex<Queue>,
    /// Wakes the writer.
    work: Condvar,
    /// Tells that the writer has ended.
    ended: Condvar,
}

/// What waits for the writer.
#[derive(Default)]
struct Queue {
    target: Option<AuditTarget>,
    /// Whole lines, one after the other.
    bytes: Vec<u8>,
    /// Lines that did not fit since the writer last looked.
    dropped: u64,
    /// Turns to other files that are to be taken, the first one first.
    switches: VecDeque<Switch>,
    finishing: bool,
    has_ended: bool,
    is_writer_asleep: bool,
}

/// A turn to another file.
struct Switch {
    /// Lines that came before it, and are written where it was before.
    before: Vec<u8>,
    /// Where to write from then on.
    to: Turn,
}

/// Where to write.
enum Turn {
    /// Into this file; `None` is nowhere.
    To(Option<File>),
    /// Into the file of the same name, which is opened when the turn is taken.
    Reopened(PathBuf),
}

impl Switch {
    /// Whether lines that cannot be written where they belong could be written there.
    fn is_refuge(&self) -> bool {
        matches!(self.to, Turn::To(Some(_)) | Turn::Reopened(_))
    }
}

impl Queue {
    /// Bytes that wait.
    fn len(&self) -> usize {
        let before: usize = self.switches.iter().map(|switch| switch.before.len()).sum();
        before + self.bytes.len()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Audit")
            .field("on", &self.is_on())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// Starts the log and its thread.
    pub fn start(opened: Opened) -> io::Result<Self> {
        let audit = Audit(Arc::new(Shared {
            on: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            queue: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
        }));
        audit.turn_to(opened);
        let shared = Arc::clone(&audit.0);
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer::run(&shared))?;
        Ok(audit)
    }

    /// Whether lines are written anywhere: without it there is no need to make one.
    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// Hands a line over, with its line break. Never waits for the disk.
    pub fn push(&self, line: &[u8], weight: Weight) {
        let room = match weight {
            Weight::Client => limits::AUDIT_QUEUE_BYTES_MAX,
            Weight::Administration => {
                limits::AUDIT_QUEUE_BYTES_MAX + limits::AUDIT_QUEUE_RESERVE_BYTES
            }
        };
        let mut queue = self.0.lock();
        if queue.len() + line.len() > room {
            queue.dropped += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes.extend_from_slice(line);
        // The writer rests a moment after each write: in a busy gateway few lines cost a system call here.
        if std::mem::take(&mut queue.is_writer_asleep) {
            drop(queue);
            self.0.work.notify_one();
        }
    }

    /// Hands over a line of the gateway's own, or of an operator's doing.
    fn record(&self, line: &AuditLine<'_>) {
        if self.is_on() {
            let mut buffer = Vec::new();
            line.write(&mut buffer);
            self.push(&buffer, Weight::Administration);
        }
    }

    /// The gateway takes connections.
    pub fn started(&self, config: &Config) {
        self.record(&AuditLine::Start(StartLine {
            time: Time(SystemTime::now()),
            version: env!("CARGO_PKG_VERSION"),
            process: std::process::id(),
            configuration: BoundedText(&config.file.to_string_lossy()),
        }));
    }

    /// The gateway has ended.
    pub fn stopped(&self) {
        let time = Time(SystemTime::now());
        self.record(&AuditLine::Stop(StopLine { time }));
    }

    /// An operator blocked or unblocked a client: `entry` names both, and says why.
    pub fn blocked(&self, outcome: &'static str, entry: &Entry) {
        let only = entry.only();
        let trust_domain = only.and_then(|only| only.trust_domain.as_ref());
        self.record(&AuditLine::Block(BlockLine {
            time: Time(SystemTime::now()),
            outcome,
            kind: entry.kind(),
            whom: BoundedText(&entry.name()),
            identity_kind: only.and_then(|only| only.kind).map(NameKind::label),
            trust_domain: trust_domain.map(|domain| BoundedText(domain.as_str())),
            by: BoundedText(&entry.by),
            reason: entry.reason.as_deref().map(BoundedText),
        }));
    }

    /// An operator accepted a revocation list that is older than one that was in force.
    pub fn accepted(&self, issuer: &str, (list, before): (&str, &str), by: &str) {
        self.record(&AuditLine::CrlAccepted(CrlAcceptedLine {
            time: Time(SystemTime::now()),
            issuer: BoundedText(issuer),
            list: BoundedText(list),
            before: BoundedText(before),
            by: BoundedText(by),
        }));
    }

    /// A new configuration was taken, or refused for a reason.
    pub fn reloaded(&self, cause: &str, files: &[PathBuf], refused: Option<&str>) {
        let files: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
        self.record(&AuditLine::Reload(ReloadLine {
            time: Time(SystemTime::now()),
            outcome: if refused.is_some() {
                "refused"
            } else {
                "taken"
            },
            cause: BoundedText(cause),
            files: files.iter().map(|file| BoundedText(file)).collect(),
            detail: refused.map(BoundedText),
        }));
    }

    /// Another key seals tickets: `keys` of them open tickets now. `distrusted` are all that came before.
    pub fn keys_rotated(&self, keys: &KeyRing, distrusted: bool) {
        self.record(&AuditLine::Keys(KeysLine {
            time: Time(SystemTime::now()),
            keys: keys.len(),
            epoch: keys.epoch(),
            by: BoundedText(keys.newest_made_by()),
            outcome: if distrusted { "distrusted" } else { "rotated" },
        }));
    }

    /// What becomes of a source of connections: `outcome` is `banned`, `over` or `lifted`.
    pub fn banned(&self, outcome: &'static str, source: IpAddr, ban: &Ban, port: Option<u16>) {
        let by = ban.ordered_by();
        let by = by.map_or("guard".to_owned(), |user| format!("uid {user}"));
        self.record(&AuditLine::GuardBan(GuardBanLine {
            time: Time(SystemTime::now()),
            outcome,
            source,
            reason: ban.tipped_by().map(Reason::label),
            by: BoundedText(&by),
            lasts_seconds: Duration::from_nanos(ban.lasts_ns).as_secs(),
            port,
        }));
    }

    /// Writes elsewhere from now on. The old log says so as its last line.
    pub fn switch(&self, opened: Opened) {
        let name = match &opened.target {
            None => "off".into(),
            Some(AuditTarget::StandardOutput) => "stdout".into(),
            Some(AuditTarget::File(path)) => path.to_string_lossy().into_owned(),
        };
        let time = Time(SystemTime::now());
        let target = BoundedText(&name);
        let mut line = Vec::new();
        AuditLine::Continued(ContinuedLine { time, target }).write(&mut line);
        // Under one lock: a reader of the last line finds none behind it.
        let mut queue = self.0.lock();
        if self.is_on() {
            queue.bytes.extend_from_slice(&line);
        }
        self.turn(queue, opened);
    }

    fn turn_to(&self, opened: Opened) {
        let queue = self.0.lock();
        self.turn(queue, opened);
    }

    fn turn(&self, mut queue: MutexGuard<'_, Queue>, Opened { target, file }: Opened) {
        self.0.on.store(target.is_some(), Ordering::Relaxed);
        queue.target = target;
        let before = std::mem::take(&mut queue.bytes);
        let to = Turn::To(file);
        queue.switches.push_back(Switch { before, to });
        drop(queue);
        self.0.work.notify_one();
    }

    /// Opens the file by its name again: after it was renamed, lines go into a new one. Where that fails they go on into
    /// the old one.
    pub fn reopen(&self) {
        let mut queue = self.0.lock();
        let Some(AuditTarget::File(path)) = queue.target.clone() else {
            return;
        };
        // One turn that is still to be taken will open what has its name then: a second one would open the same.
        let waits = |switch: &Switch| matches!(switch.to, Turn::Reopened(_));
        if queue.switches.back().is_some_and(waits) {
            return;
        }
        let before = std::mem::take(&mut queue.bytes);
        let to = Turn::Reopened(path);
        queue.switches.push_back(Switch { before, to });
        drop(queue);
        self.0.work.notify_one();
    }

    /// Writes what still waits, for at most `patience`, and takes nothing more. Returns whether all of it is written.
    pub fn finish(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut queue = self.0.lock();
        self.0.on.store(false, Ordering::Relaxed);
        queue.finishing = true;
        self.0.work.notify_one();
        while !queue.has_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!("the audit log cannot be written to its end");
                return false;
            }
            let waited = self.0.ended.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // What could not be written is still there.
        queue.bytes.is_empty()
    }

    /// Lines lost since the start, because they came faster than they could be written.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Failed attempts to write or to open the file again, since the start.
    pub fn write_errors(&self) -> u64 {
        self.0.write_errors.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn on_file(path: &Path) -> Audit {
        Audit::start(open(Some(AuditTarget::File(path.to_owned()))).unwrap()).unwrap()
    }

    /// A log that goes into a pipe, which takes 64 KiB until a process reads.
    fn on_pipe() -> (Audit, File) {
        let (reader, writer) = io::pipe().unwrap();
        let opened = Opened {
            target: Some(AuditTarget::StandardOutput),
            file: Some(std::os::fd::OwnedFd::from(writer).into()),
        };
        let reader = std::os::fd::OwnedFd::from(reader);
        (Audit::start(opened).unwrap(), reader.into())
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn line(number: usize) -> String {
        format!("{{\"number\":{number},\"padding\":\"{:0500}\"}}\n", 0)
    }

    #[test]
    fn lines_of_several_threads_are_all_written_in_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = on_file(&path);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..500).for_each(|n| audit.push(line(n).as_bytes(), Weight::Client))
                });
            }
        });
        assert!(audit.finish(PATIENCE));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.split_inclusive('\n').collect();
        lines.sort_unstable();
        let mut expected: Vec<_> = (0..500).flat_map(|n| vec![line(n); 4]).collect();
        expected.sort_unstable();
        assert_eq!(lines, expected);
        assert_eq!(audit.dropped(), 0);
    }

    #[test]
    fn what_a_slow_reader_cannot_take_is_dropped_counted_and_said() {
        let (audit, mut reader) = on_pipe();
        let pushed = 3 * limits::AUDIT_QUEUE_BYTES_MAX / line(0).len();
        (0..pushed).for_each(|n| audit.push(line(n).as_bytes(), Weight::Client));
        let dropped = audit.dropped();
        assert!(dropped > 0, "twice the queue does not fit");
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        assert!(audit.finish(PATIENCE));
        drop(audit);
        let text = read.join().unwrap();
        let (mut written, mut said) = (0, 0);
        for line in text.lines() {
            match line.split_once("\"event\":\"dropped\"") {
                None => written += 1,
                Some((_, rest)) => {
                    let count = rest.split_once("\"lines\":").unwrap().1;
                    said += count.trim_end_matches('}').parse::<u64>().unwrap();
                }
            }
        }
        assert_eq!(said, dropped);
        assert_eq!(written + dropped, pushed as u64);
    }

    #[test]
    fn a_flood_of_clients_leaves_room_for_what_operators_do() {
        let (audit, _reader) = on_pipe();
        eventually("the queue is full", || {
            (0..1000).for_each(|n| audit.push(line(n).as_bytes(), Weight::Client));
            audit.dropped() > 1000
        });
        let dropped = audit.dropped();
        audit.push(line(0).as_bytes(), Weight::Administration);
        assert_eq!(audit.dropped(), dropped);
        assert!(!audit.finish(Duration::from_millis(10)), "no process reads");
    }

    #[test]
    fn a_renamed_file_is_left_for_a_new_one_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let rotated = folder.path().join("audit.jsonl.1");
        let audit = on_file(&path);
        audit.push(b"1\n", Weight::Client);
        let holds =
            |path: &Path, text: &str| std::fs::read_to_string(path).is_ok_and(|t| t == text);
        eventually("the first line is written", || holds(&path, "1\n"));
        std::fs::rename(&path, &rotated).unwrap();
        audit.push(b"2\n", Weight::Client);
        eventually("the old file has the second", || holds(&rotated, "1\n2\n"));
        audit.reopen();
        audit.push(b"3\n", Weight::Client);
        assert!(audit.finish(PATIENCE));
        assert!(holds(&path, "3\n") && holds(&rotated, "1\n2\n"));
    }

    #[test]
    fn what_comes_before_a_switch_is_written_though_the_file_has_just_been_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..20 {
            let path = folder.path().join(number.to_string());
            let audit = on_file(&path);
            audit.push(b"first\n", Weight::Client);
            eventually("the log has begun", || {
                std::fs::read(&path).is_ok_and(|text| !text.is_empty())
            });
            audit.reopen();
            audit.switch(open(None).unwrap());
            assert!(audit.finish(PATIENCE));
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"continued\""), "{number}: {text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let moved = folder.path().join("moved");
        std::fs::create_dir(&inner).unwrap();
        let audit = on_file(&inner.join("audit.jsonl"));
        std::fs::rename(&inner, &moved).unwrap();
        audit.reopen();
        eventually("it is tried", || audit.write_errors() == 1);
        audit.push(b"1\n", Weight::Client);
        assert!(audit.finish(PATIENCE));
        let text = std::fs::read_to_string(moved.join("audit.jsonl")).unwrap();
        assert_eq!(text, "1\n");
    }

    #[test]
    fn lines_wait_for_room_on_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let audit = on_file(&path);
        (0..100).for_each(|n| audit.push(line(n).as_bytes(), Weight::Client));
        eventually("a write fails", || audit.write_errors() > 0);
        std::fs::remove_file(&path).unwrap();
        audit.reopen();
        assert!(audit.finish(PATIENCE));
        let expected: String = (0..100).map(line).collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(audit.dropped(), 0);
    }

    #[test]
    fn lines_are_written_where_they_belong_however_fast_the_log_is_turned() {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: usize| folder.path().join(format!("{number}.jsonl"));
        let opened = |number| open(Some(AuditTarget::File(path(number)))).unwrap();
        let audit = Audit::start(opened(0)).unwrap();
        for number in 0..20 {
            audit.push(format!("{number}\n").as_bytes(), Weight::Client);
            audit.turn_to(opened(number + 1));
        }
        audit.push(b"20\n", Weight::Client);
        audit.turn_to(open(None).unwrap());
        assert!(audit.finish(PATIENCE));
        for number in 0..=20 {
            let text = std::fs::read_to_string(path(number)).unwrap();
            assert_eq!(text, format!("{number}\n"));
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_does_not_hold_up_the_end() {
        let opened = open(Some(AuditTarget::File("/dev/full".into()))).unwrap();
        let audit = Audit::start(opened).unwrap();
        audit.push(b"1\n", Weight::Client);
        assert!(!audit.finish(PATIENCE));
    }

    #[test]
    fn a_log_that_is_off_can_be_switched_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::start(open(None).unwrap()).unwrap();
        assert!(!audit.is_on());
        audit.switch(open(Some(AuditTarget::File(path.clone()))).unwrap());
        assert!(audit.is_on());
        audit.push(b"1\n", Weight::Client);
        assert!(audit.finish(PATIENCE));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn however_often_the_file_is_to_be_opened_again_one_turn_waits_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = on_file(&path);
        for _ in 0..10_000 {
            audit.reopen();
            // The turn to the first file may still wait before it.
            let queue = audit.0.lock();
            let reopened = |switch: &&Switch| matches!(switch.to, Turn::Reopened(_));
            assert!(queue.switches.iter().filter(reopened).count() <= 1);
        }
        audit.push(b"line\n", Weight::Client);
        assert!(audit.finish(PATIENCE));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line\n");
    }
}
