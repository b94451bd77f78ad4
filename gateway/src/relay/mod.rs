//! Mode "stream": moves opaque bytes between an authenticated client and its backend.
//!
//! In: two streams and the connection's timer. Out: why it ended. On the worker that owns the connection. Each
//! direction reads only when its last bytes have been written, so a slow reader slows the sender down and nothing
//! piles up here. The relay passes a clean end of one direction on; anything else ends both directions.

use std::cell::Cell;
use std::pin::pin;

use futures_util::future::{Either, select};
use gateway_core::close_reason::CloseReason;
use gateway_core::delivery::DeliveryState;
use gateway_core::limits;
use monoio::time::timeout;

use crate::connection::{ConnectionTimer, Direction, RateLimiter, Stream};
use crate::tls::{Received, StreamError};

/// What a relay reports while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of data were passed on.
    Moved(Direction, usize),
    /// The client has sent more than its identity may, and what it sends is read later. Said once, until that is long over.
    Slowed,
}

/// How a relayed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub end: CloseReason,
    /// The backend's first bytes are those of an answer in HTTP/1.
    pub answers_in_http1: bool,
}

/// What one looks at while bytes move.
#[derive(Debug, Default)]
struct Seen {
    /// The client has ended its direction.
    client_ended: Cell<bool>,
    /// The first bytes of the backend have come.
    answered: Cell<bool>,
    answers_in_http1: Cell<bool>,
    /// The backend has ended its direction first, and without a byte.
    unanswered: Cell<bool>,
    /// A write has failed; what the side that failed had sent before is still read.
    broken: Cell<Option<(CloseReason, Direction)>>,
}

impl Seen {
    /// Bytes have come.
    fn came(&self, direction: Direction, bytes: &[u8]) {
        if direction == Direction::Sent && !self.answered.replace(true) {
            self.answers_in_http1.set(bytes.starts_with(b"HTTP/1."));
        }
    }

    /// One direction has come to its clean end.
    fn ended(&self, direction: Direction) {
        match direction {
            Direction::Received => self.client_ended.set(true),
            Direction::Sent => {
                let is_unanswered = !self.answered.get() && !self.client_ended.get();
                self.unanswered
                    .set(is_unanswered && self.broken.get().is_none());
            }
        }
    }

    /// Whether the other direction has failed to write to the source of this one.
    fn is_broken(&self, direction: Direction) -> bool {
        self.broken
            .get()
            .is_some_and(|(_, other)| other != direction)
    }

    /// Whether a write to the backend has failed, and what it had sent before has been read to its end.
    fn is_drained(&self) -> bool {
        matches!(self.broken.get(), Some((_, Direction::Received)))
    }

    /// What is left of a fault in one direction. A write that failed ends that direction alone for now: what the peer had sent
    /// before it went, the answer of a server that answers early and resets, lies in the socket and is read to its end.
    fn fault(&self, direction: Direction, fault: Fault) -> Result<(), CloseReason> {
        let of = |error: &StreamError, is_clients: bool| match is_clients {
            true => client_failed(error),
            false => backend_failed(error),
        };
        let from_client = direction == Direction::Received;
        match fault {
            Fault::Sink(error @ StreamError::Io(_)) if self.broken.get().is_none() => {
                self.broken.set(Some((of(&error, !from_client), direction)));
                Ok(())
            }
            Fault::Sink(error) => Err(of(&error, !from_client)),
            Fault::Source(error) => Err(of(&error, from_client)),
        }
    }
}

/// Moves bytes both ways until the connection ends, and closes both streams in the way that end calls for. Reads a client with a
/// `rate_limiter` no faster than that allows.
pub async fn serve(
    client: &Stream,
    backend: &Stream,
    timer: &ConnectionTimer,
    rate_limiter: Option<&RateLimiter>,
    report: impl Fn(Progress),
) -> Outcome {
    let relay = Relay {
        client,
        backend,
        timer,
        rate_limiter,
        report,
        seen: Seen::default(),
    };
    let end = relay.run().await;
    relay.close(end).await;
    Outcome {
        end: match relay.seen.unanswered.get() {
            true => end.after_no_answer(),
            false => end,
        },
        answers_in_http1: relay.seen.answers_in_http1.get(),
    }
}

/// A connection that is relayed.
struct Relay<'a, R> {
    client: &'a Stream,
    backend: &'a Stream,
    timer: &'a ConnectionTimer,
    /// For what the client sends.
    rate_limiter: Option<&'a RateLimiter>,
    report: R,
    seen: Seen,
}

impl<R: Fn(Progress)> Relay<'_, R> {
    /// Moves bytes both ways. Returns why the connection ends.
    ///
    /// A future that is passed on as an argument takes its space twice; hence the nesting here.
    async fn run(&self) -> CloseReason {
        let moving = pin!(async {
            futures_util::try_join!(
                async {
                    let pumped = self.pump(Direction::Received).await;
                    pumped.or_else(|fault| self.seen.fault(Direction::Received, fault))
                },
                async {
                    let pumped = self.pump(Direction::Sent).await;
                    pumped.or_else(|fault| self.seen.fault(Direction::Sent, fault))
                }
            )
        });
        // The timer is asked first: a client that may not stay gets no byte through.
        let closing = pin!(self.timer.until_end(|| self.delivery_state()));
        let broken = |end: CloseReason| self.seen.broken.get().map_or(end, |(end, _)| end);
        match select(closing, moving).await {
            Either::Right((Ok(_), _)) => broken(CloseReason::Finished),
            // An error of reading on after a failed write is no news.
            Either::Right((Err(end), _)) => broken(end),
            Either::Left((end, _)) => end,
        }
    }

    /// How far the slower peer is with what was sent to it, and why the connection ends if that peer is gone.
    fn delivery_state(&self) -> (DeliveryState, CloseReason) {
        let sent_all = self.timer.has_ended(Direction::Sent);
        let of_client = (self.client.peer_state(sent_all), CloseReason::ClientReset);
        // What a backend had sent before it went is read to its end, however slowly the client takes it.
        let of_backend = match sent_all {
            true => self
                .backend
                .peer_state(self.timer.has_ended(Direction::Received)),
            false => self.backend.delivery_state(),
        };
        let of_backend = (of_backend, CloseReason::BackendReset);
        if of_client.0 >= of_backend.0 {
            of_client
        } else {
            of_backend
        }
    }

    /// Moves bytes in one direction until its source ends cleanly. Reads the client no faster than its rate limiter allows.
    async fn pump(&self, direction: Direction) -> Result<(), Fault> {
        let Relay { timer, seen, .. } = self;
        let (source, sink, rate_limiter) = match direction {
            Direction::Received => (self.client, self.backend, self.rate_limiter),
            Direction::Sent => (self.backend, self.client, None),
        };
        let bytes_max = rate_limiter.map_or(usize::MAX, |_| limits::PACED_READ_BYTES);
        loop {
            if let Some(rate_limiter) = rate_limiter.filter(|limiter| limiter.is_due()) {
                // Boxed: most connections never pause, and pay nothing for it.
                let slowed = || (self.report)(Progress::Slowed);
                let paused = Box::pin(rate_limiter.wait(source, timer, slowed)).await;
                paused.map_err(Fault::Source)?;
            }
            source.readable().await.map_err(Fault::Source)?;
            let received = source.receive(bytes_max);
            if let Some(rate_limiter) = rate_limiter {
                rate_limiter.charge(source.take_cost());
            }
            let mut bytes = match received.map_err(Fault::Source)? {
                Some(Received::Bytes(bytes)) => bytes,
                // A write has taken the error that a read would have got: this end may as well be a reset.
                Some(Received::End) if seen.is_broken(direction) && !source.is_authentic() => {
                    return Err(Fault::Source(StreamError::Truncated));
                }
                Some(Received::End) => break,
                None => {
                    timer.note_partial(direction);
                    continue;
                }
            };
            let count = bytes.len();
            seen.came(direction, bytes.filled());
            let writing = timer.begin_write(direction);
            let written = sink.write(&mut bytes, &writing).await;
            written.map_err(Fault::Sink)?;
            writing.done();
            sink.give_back(bytes);
            (self.report)(Progress::Moved(direction, count));
        }
        seen.ended(direction);
        timer.note_end(direction);
        // Boxed, as `tell` is: room that only the end needs.
        let finished = Box::pin(sink.finish()).await;
        finished.map_err(Fault::Sink)
    }

    /// Closes both streams so that neither peer can take a cut-off stream for a complete one.
    #[deny(
        clippy::wildcard_enum_match_arm,
        reason = "a new reason has to say here how it closes"
    )]
    async fn close(&self, end: CloseReason) {
        let Relay {
            client,
            backend,
            timer,
            seen,
            ..
        } = self;
        match end {
            CloseReason::Finished => {
                client.end_cleanly();
                backend.end_cleanly();
            }
            // Our decision, in a quiet moment. The client still gets what is queued, and then an end without
            // close_notify: the backend may have been about to go on with its answer.
            CloseReason::Idle
            | CloseReason::Age
            | CloseReason::Expiring
            | CloseReason::Mode
            | CloseReason::Drained
                if !timer.is_writing() =>
            {
                client.end_cleanly();
                backend.reset_on_close();
            }
            CloseReason::ClientProtocol if !timer.is_writing() => {
                tell(client).await;
                client.end_cleanly();
                backend.reset_on_close();
            }
            // The backend broke off, and all that it had sent has been passed on: the client gets that, and an end without
            // close_notify, where a reset would throw away what is still on its way.
            CloseReason::BackendReset if seen.is_drained() || !timer.is_writing() => {
                backend.reset_on_close();
                let lingering = Box::pin(timeout(limits::LINGER_TIMEOUT, client.linger()));
                let _ = lingering.await;
                client.end_cleanly();
            }
            CloseReason::BackendProtocol | CloseReason::BackendRefusedUs if !timer.is_writing() => {
                tell(backend).await;
                client.reset_on_close();
            }
            // At once, or in the middle of a write: what the peers have got must not look complete.
            CloseReason::ClientTruncated
            | CloseReason::ClientReset
            | CloseReason::ClientProtocol
            | CloseReason::NoRoute
            | CloseReason::BackendUnreachable
            | CloseReason::BackendTruncated
            | CloseReason::BackendReset
            | CloseReason::BackendProtocol
            | CloseReason::BackendUnanswered
            | CloseReason::BackendRefusedUs
            | CloseReason::Idle
            | CloseReason::Age
            | CloseReason::Expired
            | CloseReason::Expiring
            | CloseReason::Revoked
            | CloseReason::Blocked
            | CloseReason::Untrusted
            | CloseReason::NotAuthorized
            | CloseReason::CrlStale
            | CloseReason::BackendRevoked
            | CloseReason::BackendUntrusted
            | CloseReason::Mode
            | CloseReason::Drained
            | CloseReason::Internal => {
                client.reset_on_close();
                backend.reset_on_close();
            }
        }
    }
}

/// What went wrong in one direction, and on which of its two sides.
enum Fault {
    Source(StreamError),
    Sink(StreamError),
}

/// Why the connection ends on an error of the client's stream.
fn client_failed(error: &StreamError) -> CloseReason {
    match error {
        StreamError::Truncated => CloseReason::ClientTruncated,
        StreamError::Io(_) => CloseReason::ClientReset,
        StreamError::Protocol(_) => CloseReason::ClientProtocol,
        StreamError::Seal(_) | StreamError::Keys => CloseReason::Internal,
    }
}

/// Why the connection ends on an error of the backend's stream.
fn backend_failed(error: &StreamError) -> CloseReason {
    match error {
        StreamError::Truncated => CloseReason::BackendTruncated,
        StreamError::Io(_) => CloseReason::BackendReset,
        StreamError::Protocol(error) if error.refuses_our_certificate() => {
            CloseReason::BackendRefusedUs
        }
        StreamError::Protocol(_) => CloseReason::BackendProtocol,
        StreamError::Seal(_) | StreamError::Keys => CloseReason::Internal,
    }
}

/// Tells a peer what it has done wrong, if it listens. Boxed: few connections end so, and all would keep the room.
async fn tell(peer: &Stream) {
    let telling = Box::pin(timeout(limits::LINGER_TIMEOUT, peer.send_alert()));
    let _ = telling.await;
}
