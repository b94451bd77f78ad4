//! The services of the command line: run until their time is up or a signal comes, then say what they saw.
//! In: addresses. Out: one line at the start that a script can wait for, counts at the end.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::{Backend, BackendKind};
use crate::client::ensure_descriptors;
use crate::http_backend::{HttpBackend, HttpBackendOptions};
use crate::receiver::Receiver;

/// Connections a service prepares for.
const SERVICE_CONNECTIONS: usize = 15_000;

/// Runs a plain TCP backend.
pub(super) fn backend(
    kind: BackendKind,
    delay: Option<Duration>,
    listen: SocketAddr,
    span: Duration,
) -> Result<bool> {
    ensure!(
        delay.is_none() || kind == BackendKind::Echo,
        "--delay: only `backend echo` has one"
    );
    ensure_descriptors(SERVICE_CONNECTIONS, 1)?;
    let backend = Backend::start_slow(kind, delay.unwrap_or_default(), listen)
        .with_context(|| format!("listening on {listen}"))?;
    println!("listening on {}", backend.address());
    wait(span)?;
    let counts = backend.counts();
    println!(
        "{} connections, {} of them broken, {} bytes received, {} bytes sent",
        counts.connections.load(Ordering::Relaxed),
        counts.broken.load(Ordering::Relaxed),
        counts.received.load(Ordering::Relaxed),
        counts.sent.load(Ordering::Relaxed)
    );
    Ok(true)
}

/// Runs a backend of HTTP.
pub(super) fn http_backend(
    options: HttpBackendOptions,
    listen: SocketAddr,
    stats: Option<SocketAddr>,
    span: Duration,
) -> Result<bool> {
    ensure_descriptors(SERVICE_CONNECTIONS, 1)?;
    let mut backend = HttpBackend::start(options, listen, stats)
        .with_context(|| format!("listening on {listen}"))?;
    println!("listening on {}", backend.address());
    if let Some(address) = backend.stats_address() {
        println!("statistics on {address}");
    }
    wait(span)?;
    backend.leave();
    println!("{}", serde_json::to_string_pretty(&backend.stats())?);
    Ok(true)
}

/// Runs the OTLP receiver.
pub(super) fn receiver(
    grpc: SocketAddr,
    http: SocketAddr,
    stats_file: Option<&Path>,
    span: Duration,
) -> Result<bool> {
    ensure_descriptors(SERVICE_CONNECTIONS, 1)?;
    let receiver = Receiver::start(grpc, http)
        .with_context(|| format!("listening on {grpc} for gRPC and {http} for HTTP"))?;
    println!(
        "listening on {} for gRPC and {} for HTTP",
        receiver.grpc_address(),
        receiver.http_address()
    );
    wait(span)?;
    let stats = serde_json::to_string_pretty(&receiver.stats())?;
    match stats_file {
        Some(file) => {
            fs::write(file, stats + "\n").with_context(|| format!("writing {}", file.display()))?
        }
        None => println!("{stats}"),
    }
    Ok(true)
}

/// Until the time is up, Ctrl-C or SIGTERM.
fn wait(span: Duration) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                () = tokio::time::sleep(span) => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Ok(())
        })
}
