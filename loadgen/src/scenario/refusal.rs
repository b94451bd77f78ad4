//! Clients that must be refused, beside a load that must be served: certificates that are revoked or expired.
//! In: a target that knows what is wrong with its certificate, and the alert a server owes it. Out: counts of refusals.
//! On the load's threads. A server that lets one in, or gives another reason, fails the run.

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::client::{Cadence, Dialer, FlawedClient, Target, Tickets, confirm_by_close};
use crate::failure::{Failure, FailureKind};
use crate::limits::REFUSED_PAUSE;
use crate::run::Worker;
use crate::tally::Flaw;

/// One client that tries to get in until the work of the others is over; `working` counts these.
pub(crate) async fn work(
    mut worker: Worker,
    target: Target,
    mut working: watch::Receiver<usize>,
) -> Result<()> {
    let Some(flawed_client) = target.flawed_client(worker.index) else {
        return Ok(());
    };
    let mut intruder = Intruder {
        dialer: target.dialer(worker.index, Tickets::Ignored)?,
        flawed_client,
    };
    let mut turns = worker.ready().await?;
    match target.cadence() {
        Cadence::EachTurn => {
            while turns.next().await?.is_some() {
                intruder.attempt(&worker).await;
            }
        }
        Cadence::EachSecond => loop {
            intruder.attempt(&worker).await;
            tokio::select! {
                _ = working.wait_for(|count| *count == 0) => break,
                () = sleep_until(turns.deadline().into()) => break,
                () = sleep(REFUSED_PAUSE) => {}
            }
        },
    }
    worker.done().await;
    Ok(())
}

struct Intruder<'a> {
    dialer: Dialer,
    flawed_client: FlawedClient<'a>,
}

impl Intruder<'_> {
    async fn attempt(&mut self, worker: &Worker) {
        let result = match self.dialer.connect().await {
            Ok(mut stream) => confirm_by_close(&mut stream, self.dialer.timeout).await,
            Err(failure) => Err(failure),
        };
        self.judge(worker, result);
    }

    fn judge(&self, worker: &Worker, result: Result<(), Failure>) {
        let (flaw, expected) = (self.flawed_client.flaw, self.flawed_client.expected);
        let label = result.as_ref().err().map(|failure| failure.kind.label());
        let is_as_expected = label.as_deref() == Some(expected);
        worker.tally(|tally| {
            let refusals = tally.refusals.entry(flaw).or_default();
            refusals.attempts += 1;
            match &label {
                None => refusals.let_in += 1,
                Some(_) if is_as_expected => refusals.as_expected += 1,
                Some(label) => *refusals.otherwise.entry(label.clone()).or_default() += 1,
            }
            if is_as_expected {
                worker.count_second(tally, |second| second.refused += 1);
            }
        });
        match result {
            Ok(()) => worker.fail(&Failure::new(
                FailureKind::LetIn,
                format!(
                    "the server accepted {}, whose certificate {}",
                    self.flawed_client.name,
                    fault(flaw)
                ),
            )),
            Err(_) if is_as_expected => {}
            // Nobody was there to refuse anything.
            Err(failure) if failure.kind == FailureKind::Connect => worker.fail(&failure),
            Err(failure) => worker.fail(&Failure::new(
                FailureKind::WrongRefusal,
                format!(
                    "{expected} is what {} should get: {failure}",
                    self.flawed_client.name
                ),
            )),
        }
    }
}

fn fault(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Revoked => "is revoked",
        Flaw::Expired => "has ended",
    }
}
