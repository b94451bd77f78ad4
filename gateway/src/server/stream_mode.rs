//! Mode "stream": relays an established connection to a server of its listener's backend, or to the metrics page.
//! In: an established connection. Out: bytes in both directions; events about them and about the end. On the worker that accepted
//! the connection.

use gateway_core::close_reason::CloseReason;

use super::context::WorkerContext;
use super::established::{Established, HandshakeResult, Transferred};
use super::upstream::{Upstream, connect_upstream};
use crate::relay::{self, Outcome, Progress};
use crate::telemetry::Event;

/// A client and what it is relayed to.
pub(super) struct StreamConnection {
    upstream: Upstream,
    established: Established,
}

/// Connects what is behind the client's listener. Otherwise resets the client, reports the end and returns `None`.
pub(super) async fn connect(
    context: &WorkerContext,
    established: Established,
    handshake: HandshakeResult,
) -> Option<Box<StreamConnection>> {
    match connect_upstream(context, &established, handshake).await {
        Ok(upstream) => {
            if let Some(rate_limiter) = &established.rate_limiter {
                // Other connections of the identity may have used its rate up meanwhile.
                rate_limiter.charge(0);
            }
            Some(Box::new(StreamConnection {
                upstream,
                established,
            }))
        }
        Err(end) => {
            established.client.reset_on_close();
            established.report_end(context, end, &Transferred::default());
            None
        }
    }
}

/// Relays to the end.
pub(super) async fn serve(context: &WorkerContext, connection: Box<StreamConnection>) {
    let transferred = Transferred::default();
    let outcome = relay(context, &connection, &transferred).await;
    let StreamConnection {
        upstream,
        established,
    } = &*connection;
    let end = match &upstream.server {
        Some(server) => {
            server.report_end(context, established.info.listener, (outcome, &transferred));
            outcome.end
        }
        None => end_of_page(outcome.end, transferred.sent_bytes()),
    };
    established.report_end(context, end, &transferred);
}

/// Relays until the connection ends, and adds up the bytes.
async fn relay(
    context: &WorkerContext,
    connection: &StreamConnection,
    transferred: &Transferred,
) -> Outcome {
    let StreamConnection {
        upstream,
        established:
            Established {
                info,
                peer,
                client,
                timer,
                rate_limiter,
                ..
            },
    } = connection;
    let report = |progress| {
        let event = match progress {
            Progress::Moved(direction, bytes) => {
                transferred.add(direction, bytes);
                Event::Moved { direction, bytes }
            }
            Progress::Slowed => {
                context.usage.note_slowed(peer);
                Event::Slowed {
                    address: info.address,
                    peer,
                }
            }
        };
        context.observer.emit(info.listener, &event);
    };
    let rate_limiter = rate_limiter.as_deref();
    relay::serve(client, &upstream.stream, timer, rate_limiter, report).await
}

/// Why a connection to the metrics page ended. The page closes when its time is over: after an answer, or before a request.
fn end_of_page(end: CloseReason, sent_bytes: u64) -> CloseReason {
    match (end.is_backends_fault(), sent_bytes) {
        (true, 0) => CloseReason::Idle,
        (true, 1..) => CloseReason::Finished,
        (false, _) => end,
    }
}
