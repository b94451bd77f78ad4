//! One attempt of an adverse client: its frames go out while what comes back is read.
//! In: an admitted connection, a kind of misuse. Out: how it ended. On the load's threads.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::deed::Deed;
use super::frames::{
    ACK, DATA, GOAWAY, HEADER, INITIAL_WINDOW_SIZE, Incoming, NONE, PING, PREFACE, SETTINGS,
    WINDOW_UPDATE, frame, goaway_reason, number_at, request, setting,
};
use super::outcome::AdverseOutcome;
use super::{AdverseKind, AdverseOptions};
use crate::client::Stream;
use crate::limits::SLOW_INTERVAL;
use crate::pattern;

/// The longest payload that every server takes (RFC 9113 section 4.2).
const PAYLOAD: usize = 16_384;

/// How long the end of a connection is waited for once it can no longer be written.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a PING carries whose answer shows that all before it was taken.
const MARK: [u8; 8] = *b"all done";

/// An adverse client.
pub(super) struct Client<'a> {
    kind: AdverseKind,
    options: &'a AdverseOptions,
    request: Vec<u8>,
    seen: Mutex<Seen>,
    /// Credit has come, or the answer to our PING.
    news: Notify,
}

/// What the server has said so far.
#[derive(Default)]
struct Seen {
    goaway: Option<Reason>,
    has_answered: bool,
    /// Acknowledgements that we owe.
    settings: u32,
    /// Beyond the windows that HTTP/2 begins with; of a stream, of the connection itself as stream 0.
    credit: BTreeMap<u32, i64>,
    /// By which all streams' windows differ from the one that HTTP/2 begins with.
    initial: i64,
}

/// The window that HTTP/2 begins with.
const WINDOW: i64 = 65_535;

impl<'a> Client<'a> {
    pub(super) fn new(kind: AdverseKind, options: &'a AdverseOptions, authority: &str) -> Self {
        Self {
            kind,
            options,
            request: request(&options.path, authority),
            seen: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Misuses a connection until the server ends it, all is sent, or the time is over.
    pub(super) async fn attempt(
        &self,
        stream: Stream,
        limit: Duration,
        end: Instant,
    ) -> AdverseOutcome {
        let end = end.min(Instant::now() + limit);
        let (mut reader, mut writer) = split(stream);
        let mut reading = std::pin::pin!(self.read(&mut reader));
        let outcome = tokio::select! {
            ended = &mut reading => AdverseOutcome::of_end(ended.err().as_ref()),
            written = self.write(&mut writer) => match written {
                Ok(()) => AdverseOutcome::Served,
                // What the server said before it went is still to be read.
                Err(error) => match timeout(GOODBYE, reading).await {
                    Ok(ended) => AdverseOutcome::of_end(ended.err().as_ref()),
                    Err(_) => AdverseOutcome::of_end(Some(&error)),
                },
            },
            () = sleep_until(end) => AdverseOutcome::Held,
        };
        match (outcome, self.lock().goaway) {
            (AdverseOutcome::Closed | AdverseOutcome::Reset, Some(reason)) => {
                AdverseOutcome::Goaway(reason)
            }
            (outcome, _) => outcome,
        }
    }

    /// Reads until the server ends the connection.
    async fn read(&self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if self.kind == AdverseKind::SlowReader {
            std::future::pending::<()>().await;
        }
        let mut payload = Vec::new();
        loop {
            let mut header = [0; HEADER];
            if let Err(error) = reader.read_exact(&mut header).await {
                return match error.kind() {
                    // Between two frames; whether it was said properly makes no difference here.
                    io::ErrorKind::UnexpectedEof => Ok(()),
                    _ => Err(error),
                };
            }
            let header = Incoming::parse(header);
            payload.resize(header.length, 0);
            reader.read_exact(&mut payload).await?;
            self.lock().note(header, &payload);
            self.news.notify_one();
        }
    }

    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut output = PREFACE.to_vec();
        let initial = match self.kind {
            AdverseKind::ZeroWindow => setting(INITIAL_WINDOW_SIZE, 0),
            AdverseKind::SlowReader => setting(INITIAL_WINDOW_SIZE, i32::MAX.unsigned_abs()),
            _ => Vec::new(),
        };
        frame(&mut output, SETTINGS, NONE, 0, &initial);
        self.send(writer, &mut output).await?;
        match self.kind {
            AdverseKind::ZeroWindow | AdverseKind::SlowReader => {
                if self.kind == AdverseKind::SlowReader {
                    let credit = (i32::MAX.unsigned_abs() - 65_535).to_be_bytes();
                    frame(&mut output, WINDOW_UPDATE, NONE, 0, &credit);
                }
                for number in 0..self.options.streams {
                    Deed::open(&mut output, 2 * number + 1, &self.request, true);
                }
                self.send(writer, &mut output).await?;
                self.hold(writer).await
            }
            AdverseKind::SlowWriter => self.write_slowly(writer, output).await,
            AdverseKind::OpenWindows => self.fill_windows(writer, output).await,
            kind => {
                let mut deed = Deed::new(kind, &self.request);
                for _ in 0..self.options.frames {
                    deed.next(&mut output);
                    if output.len() >= PAYLOAD {
                        self.send(writer, &mut output).await?;
                    }
                }
                frame(&mut output, PING, NONE, 0, &MARK);
                self.send(writer, &mut output).await?;
                while !self.lock().has_answered {
                    self.news.notified().await;
                    self.send(writer, &mut output).await?;
                }
                Ok(())
            }
        }
    }

    /// Sends what is there, and the acknowledgements that are due.
    async fn send(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        output: &mut Vec<u8>,
    ) -> io::Result<()> {
        // A frame amid a field block would end the connection for another reason than the one under test.
        if self.kind != AdverseKind::Continuation {
            for _ in 0..std::mem::take(&mut self.lock().settings) {
                frame(output, SETTINGS, ACK, 0, &[]);
            }
        }
        writer.write_all(output).await?;
        output.clear();
        writer.flush().await
    }

    /// Stays, and acknowledges.
    async fn hold(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        loop {
            self.send(writer, &mut Vec::new()).await?;
            self.news.notified().await;
        }
    }

    /// A request whose DATA frame comes a byte at a time.
    async fn write_slowly(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut output: Vec<u8>,
    ) -> io::Result<()> {
        Deed::open(&mut output, 1, &self.request, false);
        self.send(writer, &mut output).await?;
        frame(&mut output, DATA, NONE, 1, &[0; PAYLOAD]);
        for byte in output {
            writer.write_all(&[byte]).await?;
            writer.flush().await?;
            sleep(SLOW_INTERVAL / 10).await;
        }
        self.hold(writer).await
    }

    /// Content on every stream, as much as the server gives credit for.
    async fn fill_windows(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut output: Vec<u8>,
    ) -> io::Result<()> {
        let streams: Vec<u32> = (0..self.options.streams)
            .map(|number| 2 * number + 1)
            .collect();
        for &stream in &streams {
            Deed::open(&mut output, stream, &self.request, false);
        }
        self.send(writer, &mut output).await?;
        let mut sent: BTreeMap<u32, i64> = BTreeMap::new();
        let size = i64::try_from(self.options.size).unwrap_or(i64::MAX);
        loop {
            let mut has_moved = false;
            for &stream in &streams {
                let of_stream = sent.get(&stream).copied().unwrap_or_default();
                let of_all = sent.get(&0).copied().unwrap_or_default();
                let left = self.lock().left(stream, of_stream, of_all);
                let length = left.min(size - of_stream).min(PAYLOAD as i64);
                if length <= 0 {
                    continue;
                }
                has_moved = true;
                let content = pattern::run_at(0, length.unsigned_abs());
                frame(&mut output, DATA, NONE, stream, content);
                *sent.entry(stream).or_default() += content.len() as i64;
                *sent.entry(0).or_default() += content.len() as i64;
                self.send(writer, &mut output).await?;
            }
            if !has_moved {
                self.news.notified().await;
                self.send(writer, &mut output).await?;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it holds it")
    }
}

impl Seen {
    fn note(&mut self, header: Incoming, payload: &[u8]) {
        let is_ack = header.flags & ACK != 0;
        match header.frame_type {
            GOAWAY => self.goaway = Some(goaway_reason(payload)),
            PING if is_ack => self.has_answered |= payload == MARK,
            SETTINGS if !is_ack => {
                self.settings += 1;
                for parameter in payload.chunks_exact(6) {
                    if parameter[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        self.initial = i64::from(number_at(parameter, 2)) - WINDOW;
                    }
                }
            }
            WINDOW_UPDATE => {
                let credit = i64::from(number_at(payload, 0));
                *self.credit.entry(header.stream).or_default() += credit;
            }
            _ => {}
        }
    }

    /// What may be sent on a stream after so much on it and on the whole connection.
    fn left(&self, stream: u32, of_stream: i64, of_all: i64) -> i64 {
        let credit = |stream| self.credit.get(&stream).copied().unwrap_or_default();
        let stream = WINDOW + self.initial + credit(stream) - of_stream;
        stream.min(WINDOW + credit(0) - of_all)
    }
}
