//! Handshakes: full or resumed, one after the other on each connection slot, each proven before it counts.
//! In: a server that asks for a client certificate. Out: handshakes per second, latency, CPU time per handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustls::HandshakeKind;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::echo_once;
use crate::client::{
    Cadence, Dialer, Stream, TICKETS_KEPT, Target, Tickets, confirm_by_close, confirm_by_ticket,
    place,
};
use crate::failure::{Failure, FailureKind};
use crate::report::{Report, Unit};
use crate::run::{Plan, Worker, drive};
use crate::tally::{ConnectionKind, Group};

/// Which kind of handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Every handshake shows the certificate; no ticket is kept.
    Full,
    /// Every measured handshake uses a ticket of an earlier one.
    Resumed,
}

/// What proves that the server accepted the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Confirm {
    /// Both sides close cleanly: works with any server that passes a half-close on.
    Close,
    /// A session ticket arrives: the cheapest proof, for servers that send them unasked (BoringSSL does not).
    Ticket,
    /// One byte comes back: for a server with an echo behind it.
    Echo,
}

/// Options of the scenario.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeOptions {
    /// Share of the handshakes that are resumed, from 0 to 1.
    pub resume_ratio: f64,
    /// Fail a handshake that should have been resumed and was not.
    pub verify_resumed: bool,
    /// The proof that is waited for.
    pub confirm: Confirm,
}

impl HandshakeOptions {
    fn is_mixed(self) -> bool {
        self.resume_ratio > 0.0 && self.resume_ratio < 1.0
    }
}

/// Runs the scenario.
pub fn run(target: &Target, plan: &Plan, options: HandshakeOptions) -> Result<Report> {
    let unit = if target.is_plaintext() {
        ensure!(
            options.resume_ratio == 0.0 && options.confirm != Confirm::Ticket,
            "--plaintext: there are no tickets without TLS"
        );
        Unit::Opening
    } else {
        Unit::Handshake
    };
    // A share of the connections that must be refused is meant as a share of the handshakes.
    let target = &target.clone().with_cadence(Cadence::EachTurn);
    let crew_target = target.clone();
    let next = Arc::new(AtomicUsize::new(0));
    let outcome = drive(plan, Some(target), move |worker| {
        work(worker, crew_target.clone(), options, next.clone())
    })?;
    let mut report = Report::new("handshake", unit, target, plan, &outcome);
    if !target.is_plaintext() {
        let mode = match options.resume_ratio {
            0.0 => "full".to_owned(),
            1.0 => "resumed".to_owned(),
            ratio => format!("{} % resumed", 100.0 * ratio),
        };
        report.add_setting("mode", mode);
    }
    report.add_setting("confirmed by", value_name(options.confirm));
    Ok(report)
}

async fn work(
    mut worker: Worker,
    target: Target,
    options: HandshakeOptions,
    next: Arc<AtomicUsize>,
) -> Result<()> {
    let tickets = match options.resume_ratio > 0.0 {
        true => Tickets::Used,
        false => Tickets::Ignored,
    };
    let mut client = HandshakeClient {
        dialer: worker.dialer(&target, tickets)?,
        options,
        tickets_left: 0,
    };
    if options.resume_ratio > 0.0 {
        let _permit = worker.connecting().await;
        if let Err(failure) = client.prime(&worker).await {
            worker.fail(&failure);
        }
    }
    let mut turns = worker.ready().await?;
    while let Some(intended) = turns.next().await? {
        if worker.rotate(&mut client.dialer) {
            client.tickets_left = 0;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        let wanted = match place(options.resume_ratio, number) {
            Some(_) => ConnectionKind::Resumed,
            None => ConnectionKind::Full,
        };
        let result = client.handshake(&worker, wanted).await;
        let group = options.is_mixed().then_some(Group::Handshake(wanted));
        worker.record_in(group, intended, &result);
    }
    worker.done().await;
    Ok(())
}

struct HandshakeClient {
    dialer: Dialer,
    options: HandshakeOptions,
    tickets_left: u32,
}

impl HandshakeClient {
    /// A full handshake that only fetches tickets; not counted as work. BoringSSL holds its tickets back until it has
    /// something else to send, so this goes through the whole confirmation as well.
    async fn prime(&mut self, worker: &Worker) -> Result<(), Failure> {
        worker.tally(|tally| tally.add_detail("handshakes to fetch a ticket", 1));
        self.dialer.use_tickets(false);
        let mut stream = self.dialer.connect_aside().await?;
        self.confirm(&mut stream).await?;
        self.keep_tickets(&stream);
        if self.tickets_left == 0 {
            return Err(Failure::new(
                FailureKind::NoTicket,
                "none came before the end of the connection",
            ));
        }
        Ok(())
    }

    async fn handshake(&mut self, worker: &Worker, wanted: ConnectionKind) -> Result<(), Failure> {
        let is_to_resume = wanted == ConnectionKind::Resumed;
        if is_to_resume && self.tickets_left == 0 {
            self.prime(worker).await?;
        }
        self.dialer.use_tickets(is_to_resume);
        let mut stream = self.dialer.connect().await?;
        if is_to_resume {
            // rustls took a ticket out of its store, whether or not the server honoured it.
            self.tickets_left = self.tickets_left.saturating_sub(1);
        }
        let kind = stream.handshake_kind();
        let confirmed = self.confirm(&mut stream).await;
        self.keep_tickets(&stream);
        confirmed?;
        worker.tally(|tally| tally.add_detail(kind_name(kind), 1));
        let should_be_resumed = is_to_resume && self.options.verify_resumed;
        if should_be_resumed && kind != Some(HandshakeKind::Resumed) {
            return Err(Failure::new(
                FailureKind::NotResumed,
                "the server had issued a ticket and did a full handshake all the same",
            ));
        }
        Ok(())
    }

    async fn confirm(&self, stream: &mut Stream) -> Result<(), Failure> {
        let limit = self.dialer.timeout;
        match self.options.confirm {
            Confirm::Close => return confirm_by_close(stream, limit).await,
            Confirm::Ticket => confirm_by_ticket(stream, limit).await?,
            Confirm::Echo => timeout(limit, echo_once(stream, 0, &mut [0]))
                .await
                .unwrap_or_else(|_| Err(Failure::timeout("waiting for the echo")))?,
        }
        // Proven already; the goodbye is only polite.
        let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
        Ok(())
    }

    fn keep_tickets(&mut self, stream: &Stream) {
        let received = stream.tickets_received();
        self.tickets_left = (self.tickets_left + received).min(TICKETS_KEPT);
    }
}

fn kind_name(kind: Option<HandshakeKind>) -> &'static str {
    match kind {
        Some(HandshakeKind::Full) => "full handshakes",
        Some(HandshakeKind::FullWithHelloRetryRequest) => "full handshakes with a retry",
        Some(HandshakeKind::Resumed) => "resumed handshakes",
        None => "connections without TLS",
    }
}

fn value_name(value: impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}
