//! Idle connections: opened, authenticated, held, silent. What does each cost the server in memory?
//! In: any server. Out: connections that stayed open, KiB of server memory per connection.
//!
//! A server that refused the certificate would say so during the hold, where every connection is read from.

use anyhow::Result;
use tokio::io::AsyncReadExt;
use tokio::time::{timeout, timeout_at};

use super::{closed_early, echo_once};
use crate::client::{Dialer, Stream, Target, Tickets};
use crate::failure::Failure;
use crate::report::{Report, Unit};
use crate::run::{Plan, Worker, drive};

/// Runs the scenario. With `echo_first` each connection moves one KiB both ways before it falls silent.
pub fn run(target: &Target, plan: &Plan, echo_first: bool) -> Result<Report> {
    let crew_target = target.clone();
    let outcome = drive(plan, Some(target), move |worker| {
        work(worker, crew_target.clone(), echo_first)
    })?;
    let mut report = Report::new("idle", Unit::Connection, target, plan, &outcome);
    let first = if echo_first {
        "an echo of 1 KiB"
    } else {
        "nothing"
    };
    report.add_setting("before the silence", first);
    Ok(report)
}

async fn work(mut worker: Worker, target: Target, echo_first: bool) -> Result<()> {
    let mut dialer = worker.dialer(&target, Tickets::Ignored)?;
    let mut opened = {
        let _permit = worker.connecting().await;
        open(&mut dialer, worker.index, echo_first).await
    };
    let mut turns = worker.ready().await?;
    if let Some(start) = turns.next().await? {
        let result = match &mut opened {
            Ok(stream) => hold(stream, turns.deadline().into()).await,
            Err(failure) => Err(failure.clone()),
        };
        worker.record(start, &result);
    }
    worker.done().await;
    if let Ok(stream) = &mut opened {
        // Counted already: how the goodbye goes changes nothing.
        let _ = timeout(dialer.timeout, tokio::io::AsyncWriteExt::shutdown(stream)).await;
    }
    Ok(())
}

async fn open(dialer: &mut Dialer, index: usize, echo_first: bool) -> Result<Stream, Failure> {
    let mut stream = dialer.connect().await?;
    if echo_first {
        let mut buffer = [0; 1024];
        timeout(
            dialer.timeout,
            echo_once(&mut stream, index as u64, &mut buffer),
        )
        .await
        .unwrap_or_else(|_| Err(Failure::timeout("waiting for the echo")))?;
    }
    Ok(stream)
}

async fn hold(stream: &mut Stream, end: tokio::time::Instant) -> Result<(), Failure> {
    let mut scratch = [0; 64];
    loop {
        match timeout_at(end, stream.read(&mut scratch)).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => return Err(closed_early("the peer closed during the hold")),
            // A server may greet; it is still an idle connection.
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Failure::from(error)),
        }
    }
}
