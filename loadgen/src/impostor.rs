//! One attempt of an impostor to connect, and the answer of the TLS layer.
//! In: a target, with the identity of the impostor, if any. Out: `Attempt`. Blocks its caller, bounded by the timeout.

use std::io;

use crate::client::{Target, Tickets, confirm_by_close};
use crate::failure::{Failure, FailureKind};

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Attempt {
    /// The server accepted the client: both sides finished and closed cleanly.
    LetIn,
    /// The server refused; the failure holds its alert, if it sent one.
    Refused(Failure),
    /// There was no verdict: no connection, or a timeout.
    Unknown(Failure),
}

/// Connects once with the target's first identity, or with none, and waits for proof of acceptance or refusal.
pub fn attempt(target: &Target) -> anyhow::Result<Attempt> {
    let mut dialer = target.dialer(0, Tickets::Ignored)?;
    let result = runtime()?.block_on(async {
        let mut stream = dialer.connect().await?;
        confirm_by_close(&mut stream, dialer.timeout).await
    });
    Ok(match result {
        Ok(()) => Attempt::LetIn,
        Err(failure) => match failure.kind {
            FailureKind::Alert(_) | FailureKind::Reset | FailureKind::Truncated => {
                Attempt::Refused(failure)
            }
            _ => Attempt::Unknown(failure),
        },
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
