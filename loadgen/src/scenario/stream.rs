//! Streams: bulk data up, down or both ways, each byte accounted for.
//! In: a server with `backend sink`, `source` or `echo` behind it. Out: throughput, CPU time per GiB.
//!
//! Up: the sink answers the end of the stream with the number of bytes it got. Down: the source is told how many to
//! send. Both: an echo. The content of what comes back is compared, so loss and reordering show as `mismatch`.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

use super::{HeldConnection, closed_early};
use crate::client::{Stream, Target, Tickets, explain};
use crate::failure::{Failure, FailureKind};
use crate::pattern;
use crate::report::{Report, Unit};
use crate::run::{Plan, Worker, drive};

/// Which way the data flows, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// To a sink.
    Up,
    /// From a source.
    Down,
    /// To an echo and back.
    Both,
}

/// Bytes read or written at once.
const CHUNK: usize = 64 * 1024;

/// Runs the scenario: every connection moves `bytes` in each direction, or as many as the span allows.
pub fn run(target: &Target, plan: &Plan, direction: Direction, bytes: u64) -> Result<Report> {
    let crew_target = target.clone();
    let outcome = drive(plan, Some(target), move |worker| {
        work(worker, crew_target.clone(), direction, bytes)
    })?;
    let mut report = Report::new("stream", Unit::Gibibyte, target, plan, &outcome);
    report.add_setting("direction", format!("{direction:?}").to_lowercase());
    report.add_setting("bytes per connection", bytes.to_string());
    Ok(report)
}

async fn work(mut worker: Worker, target: Target, direction: Direction, bytes: u64) -> Result<()> {
    let dialer = worker.dialer(&target, Tickets::Ignored)?;
    let limit = dialer.timeout;
    let mut held = HeldConnection::open(dialer, &worker).await;
    let mut turns = worker.ready().await?;
    if let Some(start) = turns.next().await? {
        let mut transfer = Transfer {
            bytes,
            deadline: turns.deadline(),
            stall_limit: limit,
            sent: 0,
            received: 0,
        };
        let result = match held.stream(&mut worker).await {
            Ok(stream) => match direction {
                Direction::Up => transfer.up(stream).await,
                Direction::Down => transfer.down(stream).await,
                Direction::Both => transfer.both(stream).await,
            },
            Err(failure) => Err(failure),
        };
        worker.record(start, &result);
        worker.tally(|tally| {
            tally.bytes_up += transfer.sent;
            tally.bytes_down += transfer.received;
            let cut_short = transfer.sent.max(transfer.received) < bytes;
            if result.is_ok() && cut_short {
                tally.add_detail("transfers ended by time", 1);
            }
        });
    }
    worker.done().await;
    Ok(())
}

struct Transfer {
    bytes: u64,
    deadline: Instant,
    /// The longest wait in which not one byte moves.
    stall_limit: Duration,
    sent: u64,
    received: u64,
}

impl Transfer {
    async fn up(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let pump = Pump::of(self);
        let sent = pump.send(stream, &mut self.sent).await;
        if let Err(failure) = sent {
            return Err(explain(stream, failure).await);
        }
        let mut answer = String::new();
        timeout(
            self.stall_limit,
            stream.take(64).read_to_string(&mut answer),
        )
        .await
        .map_err(|_| Failure::timeout("waiting for the sink's count"))??;
        match answer.trim().parse::<u64>() {
            Ok(count) if count == self.sent => Ok(()),
            Ok(count) => Err(Failure::new(
                FailureKind::Mismatch,
                format!("sent {} bytes, the sink got {count}", self.sent),
            )),
            Err(_) => Err(Failure::new(
                FailureKind::Protocol,
                format!("no count from the sink but {answer:?}; is `backend sink` behind it?"),
            )),
        }
    }

    async fn down(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let request = format!("{}\n", self.bytes);
        let asked = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await
        };
        if let Err(error) = asked.await {
            return Err(explain(stream, Failure::from(error)).await);
        }
        let pump = Pump::of(self);
        let ended_by_time = pump.receive(stream, &mut self.received, true).await?;
        if ended_by_time || self.received == self.bytes {
            return Ok(());
        }
        Err(self.wrong_amount(self.bytes))
    }

    async fn both(&mut self, stream: &mut Stream) -> Result<(), Failure> {
        let pump = Pump::of(self);
        let (mut reader, mut writer) = split(stream);
        let (sent, received) = tokio::join!(
            pump.send(&mut writer, &mut self.sent),
            pump.receive(&mut reader, &mut self.received, false)
        );
        match (sent, received) {
            // The reader sees the alert that explains the writer's broken pipe.
            (_, Err(failure)) | (Err(failure), Ok(_)) => Err(failure),
            (Ok(()), Ok(_)) if self.received == self.sent => Ok(()),
            (Ok(()), Ok(_)) => Err(self.wrong_amount(self.sent)),
        }
    }

    fn wrong_amount(&self, expected: u64) -> Failure {
        closed_early(&format!(
            "the stream ended after {} of {expected} bytes",
            self.received
        ))
    }
}

/// The bounds of a transfer, apart from its counters, so that both directions can run at once.
#[derive(Clone, Copy)]
struct Pump {
    bytes: u64,
    deadline: Instant,
    stall_limit: Duration,
}

impl Pump {
    fn of(transfer: &Transfer) -> Self {
        Self {
            bytes: transfer.bytes,
            deadline: transfer.deadline,
            stall_limit: transfer.stall_limit,
        }
    }

    /// Sends the pattern until the bytes or the time are used up, then ends the stream.
    async fn send(
        self,
        stream: &mut (impl AsyncWrite + Unpin),
        sent: &mut u64,
    ) -> Result<(), Failure> {
        while *sent < self.bytes && Instant::now() < self.deadline {
            let run = pattern::run_at(*sent, self.bytes - *sent);
            let written = timeout(self.stall_limit, stream.write(run))
                .await
                .map_err(|_| Failure::timeout("the peer takes no more bytes"))??;
            *sent += written as u64;
        }
        timeout(self.stall_limit, stream.shutdown())
            .await
            .map_err(|_| Failure::timeout("the peer takes no more bytes"))??;
        Ok(())
    }

    /// Receives and compares until the stream ends; `true` when the time ended it first.
    async fn receive(
        self,
        stream: &mut (impl AsyncRead + Unpin),
        received: &mut u64,
        stop_at_deadline: bool,
    ) -> Result<bool, Failure> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if stop_at_deadline && Instant::now() >= self.deadline {
                return Ok(true);
            }
            let count = timeout(self.stall_limit, stream.read(&mut buffer))
                .await
                .map_err(|_| Failure::timeout("no more bytes come"))??;
            if count == 0 {
                return Ok(false);
            }
            if !pattern::matches(*received, &buffer[..count]) {
                return Err(Failure::new(
                    FailureKind::Mismatch,
                    format!("wrong bytes after {received}"),
                ));
            }
            *received += count as u64;
        }
    }
}
