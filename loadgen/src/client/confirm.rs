//! Waits for proof that the server accepted the client, or for the reason why it did not.
//! In: a stream whose handshake is over on our side. Out: nothing, or the `Failure` that explains the refusal.
//!
//! In TLS 1.3 a client sends its Finished before the server has verified its certificate, so a finished handshake
//! proves nothing. `confirm_by_close` and `confirm_by_ticket` wait for what a server sends only to an accepted client.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::Stream;
use crate::failure::{Failure, FailureKind};

/// Sends close_notify and requires close_notify from the peer. A server that refused the gateway's certificate sends an alert
/// instead, and one that failed resets or just ends.
pub(crate) async fn confirm_by_close(stream: &mut Stream, limit: Duration) -> Result<(), Failure> {
    let exchange = async {
        if let Err(error) = stream.shutdown().await {
            return Err(explain(stream, Failure::from(error)).await);
        }
        let mut scratch = [0; 4096];
        while stream.read(&mut scratch).await? > 0 {}
        Ok(())
    };
    timeout(limit, exchange)
        .await
        .unwrap_or_else(|_| Err(Failure::timeout("waiting for the peer's close_notify")))
}

/// Waits for a session ticket. A server that asks for a certificate sends it after it has verified that (RFC 8446
/// 4.6.1).
pub(crate) async fn confirm_by_ticket(stream: &mut Stream, limit: Duration) -> Result<(), Failure> {
    stream.note_request();
    let wait = poll_fn(|context| {
        let mut scratch = [0; 1024];
        loop {
            if stream.tickets_received() > 0 {
                stream.note_answer();
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(no_ticket("the connection ended without one")));
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::from(error))),
                Poll::Pending if stream.tickets_received() > 0 => {
                    stream.note_answer();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    timeout(limit, wait)
        .await
        .unwrap_or_else(|_| Err(no_ticket("none came within the timeout")))
}

/// After a failed write the reason is often still unread: the alert that the server sent before it closed.
pub(crate) async fn explain(stream: &mut Stream, failure: Failure) -> Failure {
    if failure.is_explained() {
        return failure;
    }
    let mut scratch = [0; 4096];
    let read = async {
        loop {
            match stream.read(&mut scratch).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Failure::from(error)),
            }
        }
    };
    match timeout(Duration::from_millis(200), read).await {
        Ok(Some(better)) if better.is_explained() => better,
        _ => failure,
    }
}

fn no_ticket(detail: &str) -> Failure {
    Failure::new(FailureKind::NoTicket, detail)
}
