//! Mode "stream": moves opaque bytes between an authenticated client and its backend.
//!
//! In: two streams and the connection's watch. Out: why it ended. On the worker that owns the connection. Each
//! direction reads only when its last bytes have been written, so a slow reader slows the sender down and nothing
//! piles up here. A clean end of one direction is passed on as one; anything else ends both directions.

mod orders;
mod pace;
mod stream;
mod watch;

use std::pin::pin;

use futures_util::future::{Either, select};
use monoio::time::timeout;

pub use orders::{Judged, Order, Orders, Place, Reached};
pub use pace::Pace;
pub use stream::{PlainStream, Stream};
pub use watch::{Lifetime, Patience, Watch};

use crate::limits;
use crate::tls::{Received, StreamError};

/// Why a connection ended. The label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions came to their clean end.
    Finished,
    /// The client's bytes ended without close_notify.
    ClientTruncated,
    /// The client's connection broke.
    ClientReset,
    /// The client broke the TLS protocol, or sent a fatal alert.
    ClientProtocol,
    /// No server of the backend could be reached.
    BackendUnreachable,
    /// The backend's bytes ended without close_notify.
    BackendTruncated,
    /// The backend's connection broke.
    BackendReset,
    /// The backend broke the TLS protocol, or sent a fatal alert.
    BackendProtocol,
    /// Nothing moved for the idle timeout.
    Idle,
    /// The maximum connection age was reached.
    Age,
    /// The client's certificate ended.
    Expired,
    /// It was about to end, and the connection had a quiet moment.
    Expiring,
    /// A revocation list names the client's certificate, or one above it.
    Revoked,
    /// An operator has blocked the client.
    Blocked,
    /// The CA its certificate leads to is not trusted any more.
    Untrusted,
    /// No rule admits it any more, or another one than before.
    NotAuthorized,
    /// A revocation list that its chain needs became too old, or is missing, before a byte of it was passed on.
    CrlStale,
    /// A revocation list names the backend's certificate, or one above it.
    BackendRevoked,
    /// The CA the backend's certificate leads to is not trusted any more.
    BackendUntrusted,
    /// The gateway is going down.
    Drained,
    /// A fault of the gateway.
    Internal,
}

impl End {
    /// Every end.
    pub const ALL: [End; 21] = [
        End::Finished,
        End::ClientTruncated,
        End::ClientReset,
        End::ClientProtocol,
        End::BackendUnreachable,
        End::BackendTruncated,
        End::BackendReset,
        End::BackendProtocol,
        End::Idle,
        End::Age,
        End::Expired,
        End::Expiring,
        End::Revoked,
        End::Blocked,
        End::Untrusted,
        End::NotAuthorized,
        End::CrlStale,
        End::BackendRevoked,
        End::BackendUntrusted,
        End::Drained,
        End::Internal,
    ];

    /// The metric label and log field.
    pub const fn label(self) -> &'static str {
        match self {
            End::Finished => "finished",
            End::ClientTruncated => "client_truncated",
            End::ClientReset => "client_reset",
            End::ClientProtocol => "client_protocol",
            End::BackendUnreachable => "backend_unreachable",
            End::BackendTruncated => "backend_truncated",
            End::BackendReset => "backend_reset",
            End::BackendProtocol => "backend_protocol",
            End::Idle => "idle",
            End::Age => "age",
            End::Expired => "expired",
            End::Expiring => "expiring",
            End::Revoked => "revoked",
            End::Blocked => "blocked",
            End::Untrusted => "untrusted",
            End::NotAuthorized => "not_authorized",
            End::CrlStale => "crl_stale",
            End::BackendRevoked => "backend_revoked",
            End::BackendUntrusted => "backend_untrusted",
            End::Drained => "drained",
            End::Internal => "internal",
        }
    }

    /// Whether it is what a reload says of a client, or of the server behind it, that may not stay.
    pub const fn is_by_judgement(self) -> bool {
        matches!(
            self,
            End::Revoked
                | End::Blocked
                | End::Untrusted
                | End::NotAuthorized
                | End::CrlStale
                | End::BackendRevoked
                | End::BackendUntrusted
        )
    }

    /// Whether the backend ended it, other than cleanly. That no server could be reached is reported by itself.
    pub const fn is_backends_fault(self) -> bool {
        matches!(
            self,
            End::BackendTruncated | End::BackendReset | End::BackendProtocol
        )
    }

    fn of_client(error: &StreamError) -> Self {
        match error {
            StreamError::Truncated => End::ClientTruncated,
            StreamError::Io(_) => End::ClientReset,
            StreamError::Protocol(_) => End::ClientProtocol,
            StreamError::Seal(_) | StreamError::Keys(_) => End::Internal,
        }
    }

    fn of_backend(error: &StreamError) -> Self {
        match error {
            StreamError::Truncated => End::BackendTruncated,
            StreamError::Io(_) => End::BackendReset,
            StreamError::Protocol(_) => End::BackendProtocol,
            StreamError::Seal(_) | StreamError::Keys(_) => End::Internal,
        }
    }
}

/// Which way bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    Received,
    /// From the backend to the client.
    Sent,
}

/// What a relay reports while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of data were passed on.
    Moved(Direction, usize),
    /// The client has sent more than its identity may, and what it sends is read later. Said once, until that is long over.
    Slowed,
}

/// Moves bytes both ways until the connection ends, and closes both streams in the way that end calls for.
///
/// A client with a `pace` is read no faster than that. A future that is passed on as an argument takes its space twice;
/// hence the nesting here.
pub async fn relay(
    client: &Stream,
    backend: &Stream,
    watch: &Watch,
    pace: Option<&Pace>,
    report: impl Fn(Progress),
) -> End {
    let end = {
        let moving = pin!(async {
            let report = &report;
            futures_util::try_join!(
                async {
                    let fault = pump(
                        (client, pace),
                        backend,
                        watch,
                        (Direction::Received, report),
                    )
                    .await;
                    fault.map_err(|fault| fault.end(End::of_client, End::of_backend))
                },
                async {
                    let fault =
                        pump((backend, None), client, watch, (Direction::Sent, report)).await;
                    fault.map_err(|fault| fault.end(End::of_backend, End::of_client))
                }
            )
        });
        // The watch is asked first: a client that may not stay gets no byte through.
        let standing = || {
            let of_client = (client.standing(), End::ClientReset);
            let of_backend = (backend.standing(), End::BackendReset);
            if of_client.0 >= of_backend.0 {
                of_client
            } else {
                of_backend
            }
        };
        match select(pin!(watch.until_end(standing)), moving).await {
            Either::Right((Ok(_), _)) => End::Finished,
            Either::Right((Err(end), _)) | Either::Left((end, _)) => end,
        }
    };
    close(client, backend, watch, end).await;
    end
}

/// What went wrong in one direction, and on which of its two sides.
enum Fault {
    Source(StreamError),
    Sink(StreamError),
}

impl Fault {
    fn end(self, of_source: fn(&StreamError) -> End, of_sink: fn(&StreamError) -> End) -> End {
        match self {
            Fault::Source(error) => of_source(&error),
            Fault::Sink(error) => of_sink(&error),
        }
    }
}

/// Moves bytes from `source`, at its pace, to `sink` until `source` ends cleanly.
async fn pump(
    (source, pace): (&Stream, Option<&Pace>),
    sink: &Stream,
    watch: &Watch,
    (direction, report): (Direction, &impl Fn(Progress)),
) -> Result<(), Fault> {
    let bytes_max = pace.map_or(usize::MAX, |_| limits::PACED_READ_BYTES);
    loop {
        if let Some(pace) = pace.filter(|pace| pace.is_due()) {
            // Boxed: most connections never pause, and pay nothing for it.
            let slowed = || report(Progress::Slowed);
            let paused = Box::pin(pace.wait(source, watch, slowed)).await;
            paused.map_err(Fault::Source)?;
        }
        source.readable().await.map_err(Fault::Source)?;
        let received = source.receive(bytes_max);
        if let Some(pace) = pace {
            pace.charge(source.take_cost());
        }
        let mut bytes = match received.map_err(Fault::Source)? {
            Some(Received::Bytes(bytes)) => bytes,
            Some(Received::End) => break,
            None => continue,
        };
        let count = bytes.len();
        let writing = watch.writing(direction);
        let written = sink.write(&mut bytes, &writing).await;
        written.map_err(Fault::Sink)?;
        writing.done();
        sink.give_back(bytes);
        report(Progress::Moved(direction, count));
    }
    // Boxed, as `tell` is: room that only the end needs.
    let finished = Box::pin(sink.finish()).await;
    finished.map_err(Fault::Sink)
}

/// Closes both streams so that neither peer can take a cut-off stream for a complete one.
async fn close(client: &Stream, backend: &Stream, watch: &Watch, end: End) {
    match end {
        End::Finished => {
            client.end_cleanly();
            backend.end_cleanly();
        }
        // Our decision, in a quiet moment. The client still gets what is queued, and then an end without
        // close_notify: the backend may have been about to go on with its answer.
        End::Idle | End::Age | End::Expiring | End::Drained if !watch.is_writing() => {
            client.end_cleanly();
            backend.reset_on_close();
        }
        End::ClientProtocol if !watch.is_writing() => {
            tell(client).await;
            client.end_cleanly();
            backend.reset_on_close();
        }
        End::BackendProtocol if !watch.is_writing() => {
            tell(backend).await;
            client.reset_on_close();
        }
        _ => {
            client.reset_on_close();
            backend.reset_on_close();
        }
    }
}

/// Tells a peer what it has done wrong, if it listens. Boxed: few connections end so, and all would keep the room.
async fn tell(peer: &Stream) {
    let telling = Box::pin(timeout(limits::LINGER_TIMEOUT, peer.send_alert()));
    let _ = telling.await;
}
