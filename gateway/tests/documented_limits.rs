//! The figures that the pages quote are those of the code.
//! In: the pages and the limits. Out: each line of a page that says another figure.

use std::fs;
use std::path::Path;

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::limits as http_limits;
use gateway_core::limits;

/// Begins a line of a page, or stands in it, and what that line says of the limits.
type Quotation = (&'static str, String);

#[test]
fn the_pages_quote_the_limits_that_the_code_has() {
    let mut complaints = Vec::new();
    for (page, quotations) in [
        ("docs/security.md", connections()),
        ("docs/security.md", names_and_queues()),
        ("docs/performance.md", performance()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = fs::read_to_string(path).unwrap();
        for (place, figure) in quotations {
            match text.lines().find(|line| line.contains(place)) {
                Some(line) if line.contains(&figure) => {}
                Some(line) => complaints.push(format!("{page}: {figure} is not in: {line}")),
                None => complaints.push(format!("{page}: no line has: {place}")),
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_reference_has_every_reason_of_a_refused_request_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("## Why a request is refused").unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|row| row.strip_prefix("| `"));
    let documented: Vec<_> = rows.map(|row| row.split_once("` | ").unwrap()).collect();
    let reasons = documented.iter().map(|(reason, _)| *reason);
    assert!(reasons.eq(RequestRefusal::ALL.into_iter().map(RequestRefusal::label)));
    for ((_, row), refusal) in documented.iter().zip(RequestRefusal::ALL) {
        let (status, code) = (refusal.http_status(), refusal.grpc_status().label());
        let told = row.rsplit(" | ").next().unwrap();
        assert!(
            told.contains(&status.to_string()) && told.contains(code),
            "{row}"
        );
    }
}

/// The table of what a peer can make grow, as far as it is about connections.
fn connections() -> Vec<Quotation> {
    let chains = limits::CACHED_CHAINS_MAX;
    let chain_kib = kib(limits::CACHED_CHAIN_BYTES_MAX);
    vec![
        (
            "| accept queue |",
            format!("{} a worker", limits::LISTEN_BACKLOG),
        ),
        (
            "| silent connections |",
            format!("{} a worker", limits::SILENT_CONNECTIONS_MIN),
        ),
        (
            "| handshakes | first bytes |",
            format!("{} KiB each", kib(limits::HANDSHAKE_BYTES_MAX)),
        ),
        (
            "| bytes under way |",
            format!("{} KiB for each direction", kib(limits::IO_BUFFER_BYTES)),
        ),
        (
            "| beginnings of records |",
            format!("{} KiB for each side", kib(limits::RECORD_BYTES_MAX)),
        ),
        (
            "| remembered chains |",
            format!("{chains} of {chain_kib} KiB"),
        ),
    ]
}

/// The rest of that table.
fn names_and_queues() -> Vec<Quotation> {
    let refusal_lines = ["no", "one", "two", "three", "four", "five"];
    let refusal_lines = refusal_lines[limits::REFUSAL_LINES_PER_SECOND as usize];
    vec![
        (
            "| identities with limits |",
            grouped(limits::IDENTITY_RECORDS_MAX),
        ),
        (
            "| identities that are slowed down, by name |",
            grouped(limits::SLOWED_IDENTITIES_MAX),
        ),
        (
            "| clients that an observed configuration",
            grouped(limits::DRY_RUN_CLIENTS_MAX),
        ),
        (
            "| requests that an observed configuration",
            grouped(http_limits::DRY_RUN_REQUESTS_MAX),
        ),
        (
            "| bans that are about to be reported |",
            format!("{} without the kernel", limits::BAN_NEWS_MAX),
        ),
        (
            "| bans that are about to be reported |",
            format!("within {} s", limits::GUARD_LOOK_INTERVAL.as_secs()),
        ),
        (
            "| log lines that wait |",
            format!(
                "{} MiB; {refusal_lines} lines",
                limits::LOG_QUEUE_BYTES_MAX >> 20
            ),
        ),
        (
            "| servers of a backend, by name |",
            format!("{} a worker", limits::SERVERS_COUNTED_MAX),
        ),
        (
            "| audit lines that wait |",
            format!("{} MiB", limits::AUDIT_QUEUE_BYTES_MAX >> 20),
        ),
        (
            "| administration endpoint |",
            format!("{} connections", limits::ADMIN_CONNECTIONS_MAX),
        ),
        (
            "| administration endpoint |",
            format!("for {} s", limits::ADMIN_TIMEOUT.as_secs()),
        ),
        (
            "| `[admin.tls]` |",
            format!("{} connections", limits::ADMIN_TLS_CONNECTIONS_MAX),
        ),
        (
            "| metrics |",
            format!("{} names", limits::SLOWED_IDENTITIES_MAX),
        ),
    ]
}

/// What memory and rings cost.
fn performance() -> Vec<Quotation> {
    let pooled_mib = (limits::POOLED_BUFFERS_MAX * limits::IO_BUFFER_BYTES) >> 20;
    // A remembered chain takes a kibibyte as a rule.
    let chains_mib = limits::CACHED_CHAINS_MAX >> 10;
    vec![
        (
            "| a client or backend that does not read",
            format!("{} KiB in each direction", kib(limits::IO_BUFFER_BYTES)),
        ),
        (
            "| free buffers, remembered chains |",
            format!("{pooled_mib} and at most {chains_mib} MiB"),
        ),
        (
            "io_uring has",
            format!("{} entries", limits::RING_ENTRIES[0]),
        ),
        (
            "a worker's working set is its pooled buffers",
            format!("{pooled_mib} MiB"),
        ),
    ]
}

fn kib(bytes: usize) -> usize {
    bytes >> 10
}

/// As the pages write it: 4096, 65,536.
fn grouped(number: usize) -> String {
    match (number / 1000, number % 1000) {
        (thousands, rest) if thousands >= 10 => format!("{thousands},{rest:03}"),
        _ => number.to_string(),
    }
}
