//! Requests over HTTP/1.1 and HTTP/2: what each costs, how long it takes, and whether what was acknowledged has arrived.
//! In: a server that takes them, `backend --protocol` behind it. Out: requests per second, latency, answers by status.
//!
//! A connection carries as many requests at once as it has streams. Each sender numbers its requests; the backend that
//! reads them is asked afterwards, and an acknowledged request that it does not know is a failure.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderName, HeaderValue};

use super::otlp::instance_name;
use crate::client::{Target, Tickets};
use crate::failure::{Failure, FailureKind};
use crate::pace::Turns;
use crate::report::{FailureCount, Report, Unit};
use crate::request::arrivals::{self, ArrivedRequests};
use crate::request::{
    Asked, Content, Fate, HttpVersion, Link, RequestKind, RequestPlan, grpc_label,
};
use crate::run::{Plan, Worker, drive};

/// What to send.
#[derive(Debug, Clone)]
pub struct RequestOptions {
    /// Over which version.
    pub version: HttpVersion,
    /// What each request carries.
    pub kind: RequestKind,
    /// Requests at once on each connection.
    pub streams: usize,
    /// Bytes of content of a request, or of a message of a stream.
    pub size: u64,
    /// Messages of a request; only a stream has more than one.
    pub messages: u32,
    /// Path instead of the kind's own.
    pub path: Option<String>,
    /// Authority instead of the target's name.
    pub host: Option<String>,
    /// Header fields beside the kind's own.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// One request on each connection, and then silence.
    pub hold: bool,
    /// Where backends say what has arrived.
    pub arrivals: Vec<SocketAddr>,
}

/// What all connections share.
struct Job {
    target: Target,
    options: RequestOptions,
    /// Tells the senders of this run from those of every other one.
    run: String,
    acknowledged: Mutex<ArrivedRequests>,
}

/// Runs the scenario.
pub fn run(target: &Target, plan: &Plan, options: RequestOptions) -> Result<Report> {
    // What cannot be made is said before any connection is opened.
    Content::new(options.kind, "agent", options.size, options.messages)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let job = Arc::new(Job {
        target: target.clone(),
        run: format!("{:x}", since.as_micros()),
        acknowledged: Mutex::default(),
        options,
    });
    let crew = job.clone();
    let outcome = drive(plan, Some(target), move |worker| work(worker, crew.clone()))?;
    let options = &job.options;
    let (name, unit) = match (options.version, options.hold) {
        (HttpVersion::H2, true) => ("h2", Unit::Connection),
        (HttpVersion::H1, true) => ("h1", Unit::Connection),
        (HttpVersion::H2, false) => ("h2", Unit::Request),
        (HttpVersion::H1, false) => ("h1", Unit::Request),
    };
    let mut report = Report::new(name, unit, target, plan, &outcome);
    report.add_setting("kind", options.kind.name());
    report.add_setting("streams per connection", options.streams.to_string());
    report.add_setting("content", format!("{} B", options.size));
    if options.messages > 1 {
        report.add_setting("messages per request", options.messages.to_string());
    }
    if !options.arrivals.is_empty() {
        compare(&job, &mut report)?;
    }
    Ok(report)
}

/// Asks the backends what has arrived, and fails what was acknowledged and did not.
fn compare(job: &Job, report: &mut Report) -> Result<()> {
    let mut arrived = arrivals::fetch(&job.options.arrivals)?;
    let suffix = job.suffix();
    arrived
        .senders
        .retain(|sender, _| sender.ends_with(&suffix));
    let acknowledged = job.lock();
    let numbers = arrived.senders.values();
    report
        .details
        .insert("arrived", numbers.clone().map(|set| set.count()).sum());
    report.details.insert(
        "arrived more than once",
        numbers.map(|set| set.repeated).sum(),
    );
    let lost = acknowledged.missing_in(&arrived);
    report.details.insert("acknowledged and not arrived", lost);
    if lost > 0 {
        let count = FailureCount {
            count: lost,
            example: "acknowledged, and no backend has got it".to_owned(),
        };
        report.failures.insert(FailureKind::Lost.label(), count);
        report.failed += lost;
    }
    Ok(())
}

impl Job {
    fn suffix(&self) -> String {
        format!("/{}", self.run)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ArrivedRequests> {
        self.acknowledged
            .lock()
            .expect("nothing panics while it holds the numbers")
    }

    fn link(&self, worker: &Worker, sender: &str) -> Result<Link> {
        let options = &self.options;
        let mut requests = RequestPlan::new(
            options.version,
            options.kind,
            options.path.clone(),
            &options.fields,
        );
        if self.target.is_plaintext() {
            requests.scheme = "http";
        }
        let endpoint = &self.target.endpoint(worker.index).name;
        let authority = options.host.as_ref().unwrap_or(endpoint);
        let content = Content::new(options.kind, sender, options.size, options.messages)?;
        let dialer = worker.dialer(&self.target, Tickets::Ignored)?;
        Ok(Link::new(requests, dialer, authority, content)?)
    }
}

async fn work(mut worker: Worker, job: Arc<Job>) -> Result<()> {
    let sender = instance_name(&job.target, worker.index) + &job.suffix();
    let link = job.link(&worker, &sender)?;
    {
        let _permit = worker.connecting().await;
        match job.options.hold {
            true => note(&worker, &job, &sender, link.ask().await),
            false => link.connect().await,
        }
        .unwrap_or_else(|failure| worker.fail(&failure));
    }
    let mut turns = worker.ready().await?;
    if job.options.hold {
        if let Some(start) = turns.next().await? {
            let result = link.hold(turns.deadline().into()).await;
            worker.record(start, &result);
        }
    } else {
        let mut streams = FuturesUnordered::new();
        for _ in 0..job.options.streams {
            streams.push(stream(&worker, &job, &link, &sender, turns.beside()?));
        }
        while let Some(ended) = streams.next().await {
            ended?;
        }
    }
    worker.done().await;
    link.close().await;
    Ok(())
}

/// One request after the other.
async fn stream(
    worker: &Worker,
    job: &Job,
    link: &Link,
    sender: &str,
    mut turns: Turns,
) -> Result<()> {
    while let Some(intended) = turns.next().await? {
        let result = note(worker, job, sender, link.ask().await);
        worker.record(intended, &result);
    }
    Ok(())
}

/// Counts an answer by what it says and by what an agent would do now.
fn note(worker: &Worker, job: &Job, sender: &str, asked: Asked) -> Result<(), Failure> {
    let mut result = Ok(());
    let mut is_acknowledged = false;
    worker.tally(|tally| {
        tally.bytes_up += asked.bytes;
        let answer = match asked.answer {
            Ok(answer) => answer,
            Err(failure) => {
                tally.add_detail("unanswered", 1);
                result = Err(failure);
                return;
            }
        };
        tally.bytes_down += answer.bytes;
        tally.add_detail(answer.class(), 1);
        if let Some(code) = answer.grpc {
            tally.add_detail(grpc_label(code), 1);
        }
        let fate = match answer.fate(job.options.kind) {
            Fate::Acknowledged => {
                is_acknowledged = true;
                "acknowledged"
            }
            Fate::SentAgain => "an agent sends it again",
            Fate::Dropped => "an agent drops it",
        };
        tally.add_detail(fate, 1);
        if !is_acknowledged {
            result = Err(answer.failure());
        }
    });
    if is_acknowledged && !job.options.arrivals.is_empty() {
        let mut acknowledged = job.lock();
        for number in asked.numbers {
            acknowledged.add(sender, number);
        }
    }
    result
}
