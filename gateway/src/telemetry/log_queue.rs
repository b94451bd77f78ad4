//! Log lines on their way to standard error: a queue bounded in bytes, and the thread that empties it.
//! In: whole lines from every thread. Out: the same lines, in order. A writer never waits for the reader: the queue drops and
//! counts a line for which it has no room, and logs how many it dropped when there is room again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that were dropped since the process started.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines of the log that were dropped since the process started.
pub(super) fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The queue, as every thread that logs has it.
#[derive(Debug, Clone)]
pub(super) struct LogQueue(Arc<QueueState>);

#[derive(Debug)]
struct QueueState {
    waiting: Mutex<WaitingLines>,
    /// Something has changed that one of the two sides waits for.
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct WaitingLines {
    lines: Vec<u8>,
    /// Bytes that are being written.
    in_flight_bytes: usize,
    /// Lines dropped that have not been reported yet.
    untold: u64,
    has_ended: bool,
    is_written: bool,
}

impl LogQueue {
    /// A queue of so many bytes at most, which a thread of its own writes to `sink`.
    pub(super) fn start(
        bytes_max: usize,
        sink: impl Write + Send + 'static,
        tell_dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = LogQueue(Arc::new(QueueState {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            bytes_max,
        }));
        let writing = queue.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writing.write_all(sink, tell_dropped))?;
        Ok(queue)
    }

    /// Takes a whole line, or drops it.
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let bytes = waiting.lines.len() + waiting.in_flight_bytes + line.len();
        if bytes > self.0.bytes_max {
            waiting.untold += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// Lets what waits be written, for `patience` at most.
    pub(super) fn finish(&self, patience: Duration) {
        let mut waiting = self.lock();
        waiting.has_ended = true;
        self.0.changed.notify_all();
        let is_unwritten = |waiting: &mut WaitingLines| !waiting.is_written;
        // Whatever is not written by then is lost.
        let _ = self
            .0
            .changed
            .wait_timeout_while(waiting, patience, is_unwritten);
    }

    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: writes what waits until the end.
    fn write_all(&self, mut sink: impl Write, tell_dropped: impl Fn(u64)) {
        while let Some((lines, untold)) = self.next() {
            // Where standard error is closed no reader is left.
            let _ = sink.write_all(&lines);
            self.lock().in_flight_bytes = 0;
            if untold > 0 {
                // By way of this very queue, which has room by now.
                tell_dropped(untold);
            }
        }
        self.lock().is_written = true;
        self.0.changed.notify_all();
    }

    /// Waits for lines. `None` at the end, when none are left.
    fn next(&self) -> Option<(Vec<u8>, u64)> {
        let idle = |waiting: &mut WaitingLines| waiting.lines.is_empty() && !waiting.has_ended;
        let waiting = self.0.changed.wait_while(self.lock(), idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.is_empty() {
            return None;
        }
        let lines = std::mem::take(&mut waiting.lines);
        waiting.in_flight_bytes = lines.len();
        Some((lines, std::mem::take(&mut waiting.untold)))
    }
}

/// Takes one line.
#[derive(Debug)]
pub(super) struct LogLineWriter<'q>(&'q LogQueue);

impl Write for LogLineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'q> MakeWriter<'q> for LogQueue {
    type Writer = LogLineWriter<'q>;

    fn make_writer(&'q self) -> LogLineWriter<'q> {
        LogLineWriter(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::sync::mpsc::channel;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn lines_that_nobody_reads_take_no_more_than_the_bound_and_those_dropped_are_told() {
        let bytes_max = 100_000;
        let (reader, writer) = io::pipe().unwrap();
        let (tell, told) = channel();
        let tell = move |count| tell.send(count).unwrap();
        let queue = LogQueue::start(bytes_max, writer, tell).unwrap();
        let line = |number: usize| format!("{number:04} {}\n", "x".repeat(8000));
        // Much more than the pipe holds and the queue together.
        let written = 1000;
        for number in 0..written {
            queue.push(line(number).as_bytes());
            let waiting = queue.lock();
            let bytes = waiting.lines.len() + waiting.in_flight_bytes;
            assert!(bytes <= bytes_max, "{bytes}");
        }
        let reading = std::thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map(Result::unwrap);
            lines.collect::<Vec<_>>()
        });
        let mut dropped = told.recv_timeout(PATIENCE).unwrap();
        queue.push(b"the last line\n");
        queue.finish(PATIENCE);
        dropped += told.try_iter().sum::<u64>();
        let lines = reading.join().unwrap();
        assert_eq!(lines.last().unwrap(), "the last line");
        let whole = lines.iter().filter(|line| line.len() == 8005).count();
        assert_eq!(whole, lines.len() - 1, "no line is cut");
        assert_eq!(whole + dropped as usize, written);
        assert!(dropped_lines() >= dropped);
    }

    #[test]
    fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
        let (_reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::start(1 << 20, writer, |_| {}).unwrap();
        queue.push(&[b'x'; 1 << 19]);
        queue.finish(Duration::from_millis(50));
    }
}
