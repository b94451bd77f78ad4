//! Echoes over held connections: the cost and latency of small messages.
//! In: a server with an echo behind it (`backend echo`). Out: echoes per second, latency, CPU time per echo.

use anyhow::Result;
use tokio::time::timeout;

use super::{HeldConnection, echo_once};
use crate::client::{Target, Tickets};
use crate::failure::Failure;
use crate::report::{Report, Unit};
use crate::run::{Plan, Worker, drive};

/// Runs the scenario with echoes of `size` bytes.
pub fn run(target: &Target, plan: &Plan, size: usize) -> Result<Report> {
    let crew_target = target.clone();
    let outcome = drive(plan, Some(target), move |worker| {
        work(worker, crew_target.clone(), size)
    })?;
    let mut report = Report::new("echo", Unit::Echo, target, plan, &outcome);
    report.add_setting("size", format!("{size} B"));
    Ok(report)
}

async fn work(mut worker: Worker, target: Target, size: usize) -> Result<()> {
    let dialer = worker.dialer(&target, Tickets::Ignored)?;
    let limit = dialer.timeout;
    let mut held = HeldConnection::open(dialer, &worker).await;
    let mut buffer = vec![0; size];
    // Each echo differs from the one before it, so that a late answer cannot pass for the next.
    let mut offset = worker.index as u64;
    let mut turns = worker.ready().await?;
    while let Some(intended) = turns.next().await? {
        let result = match held.stream(&mut worker).await {
            Ok(stream) => timeout(limit, echo_once(stream, offset, &mut buffer))
                .await
                .unwrap_or_else(|_| Err(Failure::timeout("waiting for the echo"))),
            Err(failure) => Err(failure),
        };
        let result = held.settle(result);
        worker.record(intended, &result);
        if result.is_ok() {
            worker.tally(|tally| {
                tally.bytes_up += size as u64;
                tally.bytes_down += size as u64;
            });
        }
        offset += 1;
    }
    worker.done().await;
    held.close().await;
    Ok(())
}
