//! Requests that pretend to another tenant, or to be two: each arrives clean at the backend, or is refused.
//! In: the tables of both versions of HTTP. Out: what stood in the bytes that the backend got, whichever version it speaks.

mod http1;
mod http2;
mod judge;
mod peers;

use std::net::SocketAddr;

use tests::{ClientBuilder, HttpBackend, Reply, Speaks, Workspace};

use judge::{Judge, Outcome};

/// What becomes of a request of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// It arrives, and what was forged does not.
    Clean,
    /// It does not arrive.
    Refused,
    /// The one or the other: standards leave it open.
    Either,
}

/// The content of a request whose row says nothing else.
const CONTENT: &[u8] = b"body";

/// What became of a row.
struct Row {
    claim: &'static str,
    expected: Expected,
    outcome: Outcome,
    /// What the client was told.
    answer: String,
}

type Run = fn(&ClientBuilder, SocketAddr, &Judge<'_>) -> Vec<Row>;

impl Row {
    /// Says what is wrong, unless the outcome is what the row says.
    fn complaint(&self) -> Option<String> {
        let Row {
            claim,
            expected,
            outcome,
            answer,
        } = self;
        let is_right = match expected {
            Expected::Clean => *outcome == Outcome::Clean,
            Expected::Refused => *outcome == Outcome::Refused,
            Expected::Either => matches!(outcome, Outcome::Clean | Outcome::Refused),
        };
        let words = || {
            format!(
                "{claim}: {expected:?} expected, {outcome:?} seen; the client was told {answer}"
            )
        };
        (!is_right).then(words)
    }
}

/// A row of the table in docs/security.md.
fn counts(of: &str, rows: &[Row]) -> String {
    let count = |is: fn(&Outcome) -> bool| rows.iter().filter(|row| is(&row.outcome)).count();
    format!(
        "| {of} | {} | {} | {} | {} |",
        count(|outcome| *outcome == Outcome::Clean),
        count(|outcome| *outcome == Outcome::Refused),
        count(|outcome| matches!(outcome, Outcome::Forged(_))),
        count(|outcome| matches!(outcome, Outcome::Altered(_))),
    )
}

/// The gateway between a table and a backend.
fn every_request(speaks: Speaks, run: Run) {
    let workspace = Workspace::new();
    let backend = HttpBackend::over_mtls(&workspace, 14317, speaks, |_| {
        Reply::status(200).content(b"ok")
    });
    let keys = workspace.backend_keys();
    let gateway = workspace
        .setup()
        .http()
        .route("edge", "", &[backend.address()], &keys)
        .tables("[workers]\ncount = 1\n")
        .start();
    let judge = Judge::new(&backend, speaks, "team-a");
    let rows = run(&workspace.client(), gateway.address(), &judge);
    assert!(rows.len() >= 60, "{} rows", rows.len());
    println!("{}", counts(&format!("the gateway | {speaks:?}"), &rows));
    let complaints: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn requests_of_http_2_arrive_clean_or_are_refused_at_http_2() {
    every_request(Speaks::Http2, http2::run);
}

#[test]
fn requests_of_http_2_arrive_clean_or_are_refused_at_http_1() {
    every_request(Speaks::Http1, http2::run);
}

#[test]
fn requests_of_http_1_arrive_clean_or_are_refused_at_http_2() {
    every_request(Speaks::Http2, http1::run);
}

#[test]
fn requests_of_http_1_arrive_clean_or_are_refused_at_http_1() {
    every_request(Speaks::Http1, http1::run);
}
