//! The audit log's thread: takes all lines that wait, writes them at once, rests a moment.
//! In: the queue. Out: lines in the file. It may wait for the disk as long as the disk likes. A failed write is said and
//! tried again, from the byte on at which it failed, until it succeeds, the file is another, or the process ends.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use gateway_core::limits;

use super::target::open_file;
use super::{Queue, Shared, Switch, Turn};

/// Writes until the log is finished.
pub(super) fn run(shared: &Shared) {
    let mut writer = Writer::default();
    loop {
        if !writer.take(shared) {
            break;
        }
        match writer.write() {
            Ok(()) => {
                writer.is_failing = false;
                std::thread::sleep(limits::AUDIT_REST);
            }
            Err(error) => {
                writer.is_failing = true;
                shared.write_errors.fetch_add(1, Ordering::Relaxed);
                if writer.complaint_is_due() {
                    tracing::error!(%error, "cannot write the audit log; lines wait, and the gateway drops them when \
                                             there are too many");
                }
                let queue = shared.lock();
                let has_refuge = queue.switches.iter().any(Switch::is_refuge);
                if queue.finishing && !has_refuge {
                    writer.give_back(queue);
                    break;
                }
                if !has_refuge {
                    let waited = shared.work.wait_timeout(queue, limits::AUDIT_RETRY);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
    }
    shared.lock().has_ended = true;
    shared.ended.notify_all();
}

/// What is being written.
#[derive(Default)]
struct Writer {
    file: Option<File>,
    /// Whole lines.
    batch: Vec<u8>,
    /// Bytes of it that are in the file.
    written: usize,
    is_failing: bool,
    last_complaint: Option<Instant>,
}

impl Writer {
    /// Waits for something to do, and takes it. False when everything is done.
    fn take(&mut self, shared: &Shared) -> bool {
        let mut queue = shared.lock();
        loop {
            if let Some(to) = self.flee(&mut queue) {
                queue = self.follow(shared, queue, to);
            }
            if self.written < self.batch.len() {
                return true;
            }
            if let Some(switch) = queue.switches.front_mut() {
                if !switch.before.is_empty() {
                    self.take_batch(&mut switch.before);
                    return true;
                }
                if let Some(switch) = queue.switches.pop_front() {
                    queue = self.follow(shared, queue, switch.to);
                }
                continue;
            }
            if !queue.bytes.is_empty() || queue.dropped > 0 {
                break;
            }
            if queue.finishing {
                return false;
            }
            queue.is_writer_asleep = true;
            let waited = shared.work.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.is_writer_asleep = false;
        }
        self.take_batch(&mut queue.bytes);
        let dropped = std::mem::take(&mut queue.dropped);
        drop(queue);
        if dropped > 0 {
            self.say_dropped(dropped);
        }
        true
    }

    /// Lines that cannot be written where they belong need not wait for that, if there is another file already.
    fn flee(&mut self, queue: &mut Queue) -> Option<Turn> {
        let refuge = queue.switches.iter().rposition(Switch::is_refuge);
        let refuge = refuge.filter(|_| self.is_failing)?;
        let mut to = None;
        for switch in queue.switches.drain(..=refuge) {
            self.batch.extend(switch.before);
            to = Some(switch.to);
        }
        to
    }

    /// Turns to another file. It is opened without the lock: opening may wait for a disk, and a worker for the lock.
    fn follow<'s>(
        &mut self,
        shared: &'s Shared,
        queue: MutexGuard<'s, Queue>,
        to: Turn,
    ) -> MutexGuard<'s, Queue> {
        let path = match to {
            Turn::Reopened(path) => path,
            Turn::To(file) => {
                self.turn_to(file);
                return queue;
            }
        };
        drop(queue);
        match open_file(&path) {
            Ok(file) => self.turn_to(Some(file)),
            Err(error) => {
                shared.write_errors.fetch_add(1, Ordering::Relaxed);
                let file = path.display();
                tracing::error!(%file, %error, "cannot reopen the audit log; it goes on in the old file");
            }
        }
        shared.lock()
    }

    fn take_batch(&mut self, lines: &mut Vec<u8>) {
        self.written = 0;
        self.batch.clear();
        // A burst is no reason to keep its memory.
        self.batch.shrink_to(limits::AUDIT_BATCH_BYTES_KEPT);
        std::mem::swap(&mut self.batch, lines);
    }

    fn turn_to(&mut self, file: Option<File>) {
        self.file = file;
        self.is_failing = false;
        // A line that is in the old file in part is written to the new one in whole.
        self.written = self.batch[..self.written]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
    }

    /// The line that stands where lines are missing.
    fn say_dropped(&mut self, lines: u64) {
        let time = humantime::format_rfc3339_micros(SystemTime::now());
        self.batch.extend_from_slice(
            format!("{{\"event\":\"dropped\",\"time\":\"{time}\",\"lines\":{lines}}}\n").as_bytes(),
        );
        if self.complaint_is_due() {
            tracing::warn!(
                lines,
                "audit lines were dropped: they came faster than they could be written"
            );
        }
    }

    /// Writes the rest of the batch.
    fn write(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            self.written = self.batch.len();
            return Ok(());
        };
        while self.written < self.batch.len() {
            match file.write(&self.batch[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Once per period: a full disk is no reason to fill another with complaints.
    fn complaint_is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self
            .last_complaint
            .is_none_or(|last| now.duration_since(last) >= limits::AUDIT_COMPLAINT_INTERVAL);
        if due {
            self.last_complaint = Some(now);
        }
        due
    }

    /// Leaves what could not be written where `finish` finds it.
    fn give_back(&mut self, mut queue: std::sync::MutexGuard<'_, Queue>) {
        let mut rest = self.batch.split_off(self.written);
        for mut switch in queue.switches.drain(..) {
            rest.append(&mut switch.before);
        }
        rest.append(&mut queue.bytes);
        queue.bytes = rest;
        let lines = queue.bytes.iter().filter(|byte| **byte == b'\n').count();
        tracing::error!(lines, "audit lines are lost with the end of the process");
    }
}
