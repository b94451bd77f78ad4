//! The time from a new revocation list to the last byte of a revoked client, over thousands of connections that all send;
//! beside it the same load without the change. In: the number of connections. Out: percentiles, and the outcome of every
//! connection.

use std::collections::HashSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Finding;
use crate::figures::{Series, table};
use crate::gateway::{Change, Gateway, Setup};
use crate::job::Job;
use crate::load::{self, Report};
use crate::process::Process;
use crate::workspace::Workspace;

/// How long the connections are held, from the moment all stand.
const HOLD: &str = "10s";

/// From that moment to the change.
const SETTLE: Duration = Duration::from_secs(3);

/// The promise: the gateway has closed 99 of 100 revoked connections after this long.
const P99_MAX_MS: f64 = 1000.0;

/// Opening five thousand connections takes seconds; this is only against hanging.
const OPENING_MAX: Duration = Duration::from_secs(120);

/// The outcome of the connections of one run.
struct Outcome {
    report: Report,
    /// Milliseconds from the change to the close of each revoked connection.
    closed_ms: Series,
    /// Names of the clients whose connections were closed.
    closed: HashSet<String>,
}

/// Measures.
pub fn measure(workspace: &Workspace, connections: usize) -> Result<Finding> {
    let revoked = connections / 5;
    workspace.revocation_list("agents.crl", 0, 10)?;
    workspace.revocation_list("new.crl", revoked as u64, 10)?;
    let (_backend, backend) = load::backend(workspace)?;
    let gateway = Gateway::start(
        workspace,
        &Setup {
            name: "portcullis",
            program: &workspace.gateway,
            job: Job::Relay,
            backend,
            crl: Some("agents.crl"),
            provider: None,
            other_rules: 0,
            has_tenants: false,
        },
    )?;
    let baseline = hold(workspace, &gateway, connections, |_| Ok(None))?;
    let changed = hold(workspace, &gateway, connections, |gateway| {
        let change = gateway.replace(&workspace.path("new.crl"), &workspace.path("agents.crl"))?;
        Ok(Some(change))
    })?;
    show(&baseline, "the same load without it");
    show(&changed, &format!("{revoked} of {connections} revoked"));
    let counted = gateway.metric("portcullis_change_to_close_seconds_count", "")?;
    let sum = gateway.metric("portcullis_change_to_close_seconds_sum", "")?;
    let own_mean_ms = sum / counted * 1e3;
    println!("the gateway's own count: {counted} closed, {own_mean_ms:.1} ms on average");
    let broken = judge(&baseline, &changed, connections, revoked);
    Ok(Finding {
        figures: json!({
            "connections": connections,
            "revoked": revoked,
            "baseline": figures(&baseline),
            "changed": figures(&changed),
            "counted_by_the_gateway": { "closed": counted, "mean_ms": own_mean_ms },
        }),
        broken,
    })
}

/// Holds connections, lets something happen in the middle of it, and reads what became of them.
fn hold(
    workspace: &Workspace,
    gateway: &Gateway,
    connections: usize,
    event: impl FnOnce(&Gateway) -> Result<Option<Change>>,
) -> Result<Outcome> {
    let journal = workspace.path("journal.txt");
    if journal.exists() {
        fs::remove_file(&journal)?;
    }
    let mut command = load::scenario(workspace, "hold", gateway.port, connections);
    command
        .args(["--connections", &connections.to_string()])
        .args(["--for", HOLD, "--beat", "1s", "--come-back", "--journal"])
        .arg(&journal);
    let mut process = Process::start(command, &workspace.path("hold.log"))?;
    let deadline = Instant::now() + OPENING_MAX;
    // The journal is made when all connections stand.
    while !journal.exists() {
        process.ensure_alive()?;
        ensure!(
            Instant::now() < deadline,
            "the connections are not open yet"
        );
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(SETTLE);
    let change = event(gateway)?;
    let report = load::finish(process)?;
    let mut outcome = Outcome {
        report,
        closed_ms: Series::default(),
        closed: HashSet::new(),
    };
    let changed_us = match &change {
        Some(change) => change.at.duration_since(UNIX_EPOCH)?.as_micros() as f64,
        None => f64::NAN,
    };
    for line in fs::read_to_string(&journal)?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["closed", name, moment, _] = words[..] {
            let moment: f64 = moment.parse().context("the journal holds Unix times")?;
            outcome.closed_ms.push((moment - changed_us) / 1e3);
            outcome.closed.insert(name.to_owned());
        }
    }
    Ok(outcome)
}

fn judge(baseline: &Outcome, changed: &Outcome, connections: usize, revoked: usize) -> Vec<String> {
    let named: HashSet<String> = (1..=revoked)
        .map(|number| format!("agent-{number}"))
        .collect();
    let stayed = (connections - revoked) as u64;
    let count = |outcome: &Outcome, detail: &str| outcome.report.detail(detail);
    let mut broken = Vec::new();
    let mut promise = |kept: bool, what: String| {
        if !kept {
            broken.push(what);
        }
    };
    promise(
        count(baseline, "held to the end") == connections as u64,
        "without a change every connection stays".to_owned(),
    );
    promise(
        changed.closed == named,
        format!(
            "exactly the revoked are closed: {} revoked, {} closed, {} of them revoked",
            named.len(),
            changed.closed.len(),
            changed.closed.intersection(&named).count()
        ),
    );
    promise(
        count(changed, "refused on return") == revoked as u64,
        "no revoked client comes back".to_owned(),
    );
    promise(
        count(changed, "came back resumed") == stayed,
        format!(
            "every other client still resumes: {} of {stayed}",
            count(changed, "came back resumed")
        ),
    );
    let p99 = changed.closed_ms.percentile(0.99);
    promise(
        p99 < P99_MAX_MS,
        format!("99 of 100 are closed within {P99_MAX_MS} ms of the change: {p99:.0} ms"),
    );
    broken
}

fn show(outcome: &Outcome, title: &str) {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows: Vec<Vec<String>> = [
        "held to the end",
        "closed by the server",
        "came back resumed",
        "came back with a full handshake",
        "refused on return",
    ]
    .iter()
    .map(|name| row(name, outcome.report.detail(name).to_string()))
    .collect();
    if !outcome.closed.is_empty() {
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let value = outcome.closed_ms.percentile(share);
            rows.push(row(
                &format!("change to last byte, {name}"),
                format!("{value:.1} ms"),
            ));
        }
    }
    table(title, &["", ""], &rows);
}

fn figures(outcome: &Outcome) -> serde_json::Value {
    let at = |share: f64| (!outcome.closed.is_empty()).then(|| outcome.closed_ms.percentile(share));
    json!({
        "held": outcome.report.detail("held to the end"),
        "closed": outcome.closed.len(),
        "came_back_resumed": outcome.report.detail("came back resumed"),
        "came_back_full": outcome.report.detail("came back with a full handshake"),
        "refused_on_return": outcome.report.detail("refused on return"),
        "change_to_last_byte_ms": { "p50": at(0.5), "p99": at(0.99), "max": at(1.0) },
    })
}
