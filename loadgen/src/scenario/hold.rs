//! Connections that are held until their server closes them: which clients lost theirs, when, and how they return.
//! In: a server with an echo behind it, an identity for each connection. Out: counts, and a journal of every close.
//!
//! A close is no failure here: the scenario looks for it. Each connection proves with an echo that it works before the
//! hold begins. Afterwards each client, closed or not, may try to return with the ticket of its held connection.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{timeout, timeout_at};

use super::{closed_early, echo_once};
use crate::client::{Dialer, Stream, Target, Tickets};
use crate::failure::{Failure, FailureKind};
use crate::pattern;
use crate::report::{Report, Unit};
use crate::run::{Plan, Worker, drive};

/// Options of the scenario.
#[derive(Debug, Clone)]
pub struct HoldOptions {
    /// Each connection sends a small message this often and requires it back; none is silence.
    pub beat: Option<Duration>,
    /// Each client connects once more at the end, with its ticket if it got one.
    pub come_back: bool,
    /// File for one line per close and return. Made when all connections are open, and filled at the end.
    pub journal: Option<PathBuf>,
}

/// Bytes of a beat.
const BEAT_BYTES: usize = 16;

/// Runs the scenario.
pub fn run(target: &Target, plan: &Plan, options: &HoldOptions) -> Result<Report> {
    let journal = Arc::new(Journal::new(options.journal.clone()));
    let (crew_target, crew_options, crew_journal) =
        (target.clone(), options.clone(), journal.clone());
    let outcome = drive(plan, Some(target), move |worker| {
        let client = HeldClient {
            name: crew_target
                .identity(worker.index)
                .map_or_else(|| "nobody".to_owned(), |identity| identity.name.clone()),
            options: crew_options.clone(),
            journal: crew_journal.clone(),
        };
        work(worker, crew_target.clone(), client)
    })?;
    journal.write()?;
    let mut report = Report::new("hold", Unit::Connection, target, plan, &outcome);
    let beat = options.beat.map_or("never".to_owned(), |beat| {
        humantime::format_duration(beat).to_string()
    });
    report.add_setting("beat", beat);
    Ok(report)
}

struct HeldClient {
    name: String,
    options: HoldOptions,
    journal: Arc<Journal>,
}

async fn work(mut worker: Worker, target: Target, client: HeldClient) -> Result<()> {
    let tickets = match client.options.come_back {
        true => Tickets::Used,
        false => Tickets::Ignored,
    };
    let mut dialer = worker.dialer(&target, tickets)?;
    let opened = {
        let _permit = worker.connecting().await;
        open(&mut dialer).await.map(|(stream, _)| stream)
    };
    let mut turns = worker.ready().await?;
    client.journal.begin()?;
    if let Some(start) = turns.next().await? {
        let result = match opened {
            Ok(stream) => client.hold(stream, &worker, turns.deadline()).await,
            Err(failure) => Err(failure),
        };
        worker.record(start, &result);
        if client.options.come_back && result.is_ok() {
            client.come_back(&mut dialer, &worker).await;
        }
    }
    worker.done().await;
    Ok(())
}

/// A connection that works, and how it was made.
async fn open(dialer: &mut Dialer) -> Result<(Stream, Option<HandshakeKind>), Failure> {
    let mut stream = dialer.connect().await?;
    let kind = stream.handshake_kind();
    timeout(dialer.timeout, echo_once(&mut stream, 0, &mut [0]))
        .await
        .unwrap_or_else(|_| Err(Failure::timeout("waiting for the echo")))?;
    Ok((stream, kind))
}

impl HeldClient {
    /// Holds the connection to the end, theirs or ours. Fails only when what comes back is not what was sent.
    async fn hold(
        &self,
        mut stream: Stream,
        worker: &Worker,
        deadline: Instant,
    ) -> Result<(), Failure> {
        // Spread over the beat, so that a thousand connections do not all speak at once.
        let mut pulse = Pulse::new(self.options.beat, worker.index);
        match pulse.until_closed(&mut stream, deadline).await {
            Ok(()) => {
                worker.tally(|tally| tally.add_detail("held to the end", 1));
                // Counted already: how the goodbye goes changes nothing.
                let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
            }
            Err(failure) if failure.kind == FailureKind::Mismatch => return Err(failure),
            Err(failure) => {
                self.journal
                    .note("closed", &self.name, &failure.kind.label());
                worker.tally(|tally| tally.add_detail("closed by the server", 1));
            }
        }
        worker.tally(|tally| {
            tally.bytes_up += pulse.sent;
            tally.bytes_down += pulse.received;
        });
        Ok(())
    }

    async fn come_back(&self, dialer: &mut Dialer, worker: &Worker) {
        let _permit = worker.connecting().await;
        let (count, how) = match open(dialer).await {
            Ok((mut stream, kind)) => {
                let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
                match kind {
                    Some(HandshakeKind::Resumed) => ("came back resumed", "resumed".to_owned()),
                    None => ("came back without TLS", "plaintext".to_owned()),
                    Some(_) => ("came back with a full handshake", "full".to_owned()),
                }
            }
            Err(failure) => ("refused on return", failure.kind.label()),
        };
        self.journal.note("returned", &self.name, &how);
        worker.tally(|tally| tally.add_detail(count, 1));
    }
}

/// The small messages of one connection, and what has come back of them.
struct Pulse {
    beat: Option<Duration>,
    next: Option<Instant>,
    sent: u64,
    received: u64,
}

impl Pulse {
    fn new(beat: Option<Duration>, index: usize) -> Self {
        let phase = |beat: Duration| beat.mul_f64((index % 1000) as f64 / 1000.0);
        Self {
            beat,
            next: beat.map(|beat| Instant::now() + phase(beat)),
            sent: 0,
            received: 0,
        }
    }

    /// Beats and reads until the peer closes, which is the error, or the deadline comes.
    async fn until_closed(
        &mut self,
        stream: &mut Stream,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut buffer = [0; 4 * BEAT_BYTES];
        loop {
            let until = self.next.map_or(deadline, |next| next.min(deadline));
            // A read that is dropped takes no bytes along.
            match timeout_at(until.into(), stream.read(&mut buffer)).await {
                Ok(Ok(0)) => return Err(closed_early("the server ended the connection")),
                Ok(Ok(count)) => self.take(&buffer[..count])?,
                Ok(Err(error)) => return Err(Failure::from(error)),
                Err(_) if Instant::now() >= deadline => return Ok(()),
                Err(_) => self.send(stream).await?,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if !pattern::matches(self.received, bytes) {
            let detail = format!("wrong bytes after {}", self.received);
            return Err(Failure::new(FailureKind::Mismatch, detail));
        }
        self.received += bytes.len() as u64;
        Ok(())
    }

    async fn send(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let mut message = [0; BEAT_BYTES];
        pattern::fill(self.sent, &mut message);
        stream.write_all(&message).await?;
        stream.flush().await?;
        self.sent += BEAT_BYTES as u64;
        // An overloaded generator leaves beats out; it does not make up for them in a burst.
        self.next = self.beat.map(|beat| Instant::now() + beat);
        Ok(())
    }
}

/// Lines kept in memory while it matters when things happen, written when it is over.
struct Journal {
    file: Option<PathBuf>,
    begun: AtomicBool,
    lines: Mutex<String>,
}

impl Journal {
    fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            begun: AtomicBool::new(false),
            lines: Mutex::default(),
        }
    }

    /// Makes the file, which tells a waiting program that all connections are open.
    fn begin(&self) -> Result<()> {
        match &self.file {
            Some(file) if !self.begun.swap(true, Ordering::Relaxed) => {
                File::create(file).with_context(|| format!("making {}", file.display()))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn note(&self, what: &str, name: &str, how: &str) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_micros());
        self.lines
            .lock()
            .expect("nothing panics while it holds the lines")
            .push_str(&format!("{what} {name} {now} {how}\n"));
    }

    fn write(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => fs::write(
                file,
                self.lines
                    .lock()
                    .expect("nothing panics while it holds the lines")
                    .as_bytes(),
            ),
            None => Ok(()),
        }
    }
}
