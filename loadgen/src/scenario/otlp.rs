//! OTLP exports by several agents, each acknowledged or failed, records counted on the sending side.
//! In: an OTLP receiver behind the server. Out: exports per second, latency, records sent, acknowledged, rejected.

use anyhow::Result;

use crate::client::{Target, Tickets};
use crate::failure::{Failure, FailureKind};
use crate::limits::RECONNECT_PAUSE;
use crate::otlp::{Acknowledged, Exporter, Protocol, Signal, Source};
use crate::report::{Report, Unit};
use crate::run::{Plan, Worker, drive};

/// Options of the scenario.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// Transport.
    pub protocol: Protocol,
    /// What is sent, in turn.
    pub signals: Vec<Signal>,
    /// Records in each request.
    pub records: usize,
    /// `service.name` of all agents; `service.instance.id` tells them apart.
    pub service_name: String,
}

/// Runs the scenario; each connection is an agent.
pub fn run(target: &Target, plan: &Plan, options: &OtlpOptions) -> Result<Report> {
    let (crew_target, crew_options) = (target.clone(), options.clone());
    let outcome = drive(plan, Some(target), move |worker| {
        work(worker, crew_target.clone(), crew_options.clone())
    })?;
    let mut report = Report::new("otlp", Unit::Export, target, plan, &outcome);
    report.add_setting("protocol", format!("{:?}", options.protocol).to_lowercase());
    report.add_setting("records per request", options.records.to_string());
    let signals: Vec<_> = options
        .signals
        .iter()
        .map(|signal| format!("{signal:?}").to_lowercase())
        .collect();
    report.add_setting("signals", signals.join(", "));
    Ok(report)
}

/// The name an agent goes by: its certificate's, and its number when several share one.
pub(crate) fn instance_name(target: &Target, index: usize) -> String {
    let number = index + 1;
    match target.identity(index) {
        Some(identity) if target.is_first_of_identity(index) => identity.name.clone(),
        Some(identity) => format!("{}-{number}", identity.name),
        None => format!("agent-{number}"),
    }
}

async fn work(mut worker: Worker, target: Target, options: OtlpOptions) -> Result<()> {
    let source = Source::new(&options.service_name, &instance_name(&target, worker.index));
    let dialer = worker.dialer(&target, Tickets::Ignored)?;
    let authority = &target.endpoint(worker.index).name;
    let mut exporter = Exporter::new(dialer, options.protocol, authority, source);
    {
        let _permit = worker.connecting().await;
        if let Err(failure) = exporter.connect().await {
            worker.fail(&failure);
        }
    }
    let mut turns = worker.ready().await?;
    let mut signals = options.signals.iter().cycle();
    while let Some(intended) = turns.next().await? {
        let Some(&signal) = signals.next() else { break };
        worker.tally(|tally| tally.add_detail("records sent", options.records as u64));
        exporter.rotate(&mut worker);
        match exporter.export(signal, options.records).await {
            Ok(acknowledged) => {
                note(&worker, acknowledged);
                worker.record(intended, &Ok(()));
            }
            Err(failure) => {
                worker.record(intended, &Err(failure));
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
    worker.done().await;
    exporter.close().await;
    Ok(())
}

fn note(worker: &Worker, acknowledged: Acknowledged) {
    worker.tally(|tally| {
        tally.add_detail("records acknowledged", acknowledged.accepted);
        if acknowledged.rejected > 0 {
            tally.add_detail("records rejected", acknowledged.rejected);
            let failure = Failure::new(
                FailureKind::Rejected,
                "the receiver took the request and rejected records in it",
            );
            tally.fail_many(&failure, acknowledged.rejected);
        }
    });
}
