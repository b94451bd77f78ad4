//! A connection's way through the program: admission, handshake, backend, relay, end.
//! In: an accepted socket. Out: events; and bytes at the backend only after the client has proven who it is. One task
//! per connection, on the worker that accepted it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use gateway_common::Reason;
use gateway_core::admission::ConnectionPermit;
use gateway_core::close_reason::CloseReason;
use gateway_core::delivery::DeliveryState;
use gateway_core::diagnosis;
use gateway_core::failure::Failure;
use gateway_core::limit::ByteRate;
use gateway_core::limits;
use gateway_core::sources::{Outcome, Refusal};
use gateway_guard::{PendingVerdict, refusal_detail};
use gateway_rt::Socket;
use rustls::pki_types::CertificateDer;

use super::context::WorkerContext;
use super::deadlines::deadlines;
use super::opposite::{Behind, Opposite, end_of_page};
use super::silent::SilentPlace;
use super::state::{ListenerState, State};
use crate::backend::{ClientConnection, NotConnected, Origin, ServerFailure};
use crate::config::{Destination, ListenerId, Mode};
use crate::connection::{
    ConnectedServer, ConnectionHandle, ConnectionId, ConnectionTimer, Direction, IdleTimeouts,
    OpenConnection, RateLimiter, Stream, UsagePermit,
};
use crate::relay::{self, Outcome as RelayOutcome, Progress};
use crate::telemetry::{Event, Presented};
use crate::tls::{self, Accepted, VerifiedPeer};

/// A connection that has just been accepted.
pub(super) struct Arrival {
    /// The listener that accepted it.
    pub(super) position: ListenerId,
    /// The client's socket.
    pub(super) socket: Socket,
    /// The client's address.
    pub(super) address: SocketAddr,
    /// Its place among those that have sent nothing yet.
    pub(super) silent: SilentPlace,
}

/// A client that has got in, and what it takes to serve it to the end.
struct Joined {
    position: ListenerId,
    connection: ConnectionId,
    address: SocketAddr,
    peer: VerifiedPeer,
    client: Stream,
    server: Result<(Stream, Option<Behind>), CloseReason>,
    timer: ConnectionTimer,
    /// Boxed: few identities have a limit.
    rate_limiter: Option<Box<RateLimiter>>,
    established_at: Instant,
    _permit: ConnectionPermit,
}

/// A client that has just got in, and the certificates that it came with.
type Newcomer<'a> = (&'a VerifiedPeer, &'a [CertificateDer<'static>]);

/// Serves one connection to its end.
pub(super) async fn serve(worker: &WorkerContext, arrival: Box<Arrival>, handle: ConnectionHandle) {
    // Boxed, both: what it takes to get in is given back before the connection settles down to wait.
    if let Some(joined) = Box::pin(enter(worker, arrival, handle)).await {
        Box::pin(stay(worker, joined)).await;
    }
}

/// From an accepted socket to a client that has got in and a server behind it, or to a refusal.
async fn enter(
    worker: &WorkerContext,
    arrival: Box<Arrival>,
    handle: ConnectionHandle,
) -> Option<Box<Joined>> {
    let Arrival {
        position,
        socket,
        address,
        silent,
    } = *arrival;
    // What is trusted at this moment. Let go before the connection settles down: it may outlive it by days.
    let state = worker.state();
    let local = || socket.local_address().ok();
    let policy = &state.config.guard.policy;
    let pending = match worker.source_admission.admit(address, local, policy) {
        Ok(pending) => pending,
        Err(why) => {
            worker.source_admission.reject(&socket, why);
            reject(socket);
            let failure = match why {
                Refusal::Denied | Refusal::Banned => Failure::Banned,
                Refusal::TooManyPending => Failure::OverLimit,
            };
            refuse_unread(worker, (position, address), failure, refusal_detail(why));
            return None;
        }
    };
    let listener = state.listener(position);
    if let Err((failure, detail)) = first_byte(listener, &socket, silent).await {
        pending.settle(&socket, outcome(failure.reason(), 0));
        reject(socket);
        refuse_unread(worker, (position, address), failure, &detail);
        return None;
    }
    let Some(permit) = listener.limit.try_acquire() else {
        pending.settle(&socket, outcome(Reason::OverLimit, 0));
        reject(socket);
        let detail = format!("max_connections = {}", listener.config.max_connections);
        refuse_unread(worker, (position, address), Failure::OverLimit, &detail);
        return None;
    };
    let client = (position, handle.id(), address);
    let accepted = shake_hands(worker, listener, client, socket, pending).await;
    Some(join(worker, state, (client, permit), accepted?, handle).await)
}

/// Waits for the client's first byte, which costs no handshake slot; or says why it is waited for no longer.
async fn first_byte(
    listener: &ListenerState,
    socket: &Socket,
    handle: SilentPlace,
) -> Result<(), (Failure, String)> {
    // As a rule it is there already: clients send as soon as they are connected.
    if socket.has_arrived() {
        return Ok(());
    }
    let (mut arrived, mut lost) = (pin!(socket.readable()), pin!(handle.lost()));
    let first = select(arrived.as_mut(), lost.as_mut());
    let timeout = listener.config.times.first_byte_timeout;
    match monoio::time::timeout(timeout, first).await {
        // The handshake hears of it if it was the end.
        Ok(Either::Left(_)) => Ok(()),
        Ok(Either::Right(_)) => {
            let silent = "silent, and made room for the next client: max_handshakes clients were silent, or no \
                          descriptor was left";
            Err((Failure::OverLimit, silent.to_owned()))
        }
        Err(_) => {
            let detail = format!("first_byte_timeout = {timeout:?}");
            Err((Failure::Timeout, detail))
        }
    }
}

fn outcome(verdict: Reason, received_bytes: usize) -> Outcome {
    Outcome {
        verdict,
        received_bytes: received_bytes as u64,
    }
}

/// Ends a socket that is refused before anything was read from it.
fn reject(socket: Socket) {
    socket.reset_on_close();
}

/// Tells of a client that was refused before a byte of it was read.
fn refuse_unread(
    worker: &WorkerContext,
    (position, address): (ListenerId, SocketAddr),
    failure: Failure,
    detail: &str,
) {
    let refused = Event::Refused {
        failure,
        address,
        detail,
        presented: None,
        server_name: None,
        ticket_refusal: None,
    };
    worker.observer.emit(position, &refused);
}

/// Connects a client that has got in with its backend.
async fn join(
    worker: &WorkerContext,
    state: Rc<State>,
    ((position, connection, address), permit): (
        (ListenerId, ConnectionId, SocketAddr),
        ConnectionPermit,
    ),
    (accepted, usage_permit): (Accepted, Option<UsagePermit>),
    handle: ConnectionHandle,
) -> Box<Joined> {
    let Accepted {
        stream,
        peer,
        negotiated,
        certificates,
    } = accepted;
    let established_at = Instant::now();
    worker.foresee_newcomer(&state, position, &certificates, &peer);
    handle.establish(position, peer.clone());
    let opened = OpenConnection::new(position, &peer, None);
    if let Some(request) = worker.evaluate_if_changed(&state, &opened, &certificates) {
        handle.request_close(request);
    }
    let timer = timer(&state, position, handle, &peer);
    if let Some(rate) = usage_permit.as_ref().and_then(UsagePermit::rate) {
        bound_what_waits(stream.socket(), rate);
    }
    let from = ClientConnection {
        address,
        listener_address: stream
            .socket()
            .local_address()
            .unwrap_or(state.listener(position).address),
        cipher_suite: negotiated.cipher_suite,
        is_resumed: negotiated.is_resumed,
        protocol: negotiated.protocol.as_deref(),
    };
    let origin = Origin::peer(&peer, from);
    let connected = {
        let connecting = pin!(connect(
            worker,
            &state,
            position,
            (&origin, stream.socket())
        ));
        // The timer is asked first: for a client that may not stay no backend is opened.
        // Nothing has been sent yet.
        let standing = || (DeliveryState::Delivered, CloseReason::Internal);
        match select(pin!(timer.until_end(standing)), connecting).await {
            Either::Left((end, _)) => Err(end),
            Either::Right((connected, _)) => connected,
        }
    };
    if let Ok(opposite) = &connected {
        let newcomer = (&peer, certificates.as_slice());
        note_server(worker, &state, position, (newcomer, opposite), &timer);
    }
    drop(certificates);
    let backend = state.listener(position).config.backend();
    let server = connected.map(|opposite| opposite.into_stream(backend, negotiated.protocol));
    Box::new(Joined {
        position,
        connection,
        address,
        peer,
        client: Stream::Tls(stream),
        server,
        timer,
        rate_limiter: usage_permit.map(|usage_permit| Box::new(RateLimiter::new(usage_permit))),
        established_at,
        _permit: permit,
    })
}

/// Lets no more of a client's bytes wait in the kernel than are read in about a second: what a client has given up since, a
/// batch that it sends anew, would go before what it still wants.
fn bound_what_waits(socket: &Socket, rate: ByteRate) {
    let per_second = rate.bytes_per_second();
    if per_second <= limits::PACED_RECEIVE_BYTES_PER_SECOND_MAX {
        let bounds = limits::PACED_RECEIVE_BYTES;
        socket.bound_received(per_second.clamp(*bounds.start(), *bounds.end()) as usize);
    }
}

/// Stays with a client to the end. What this holds is what a connection costs while nothing moves on it.
async fn stay(worker: &WorkerContext, joined: Box<Joined>) {
    let totals = [const { Cell::new(0u64) }; 2];
    let end = match &joined.server {
        Ok((server, behind)) => {
            let outcome = pass_on(worker, &joined, server, &totals).await;
            match behind {
                Some(behind) => {
                    tell_of_server(worker, joined.position, behind, (outcome, &totals));
                    outcome.end
                }
                None => end_of_page(outcome.end, totals[SENT].get()),
            }
        }
        Err(end) => {
            joined.client.reset_on_close();
            *end
        }
    };
    let ended = Event::Ended {
        connection: joined.connection,
        end,
        address: joined.address,
        peer: &joined.peer,
        changed_at: joined.timer.changed_at(),
        received_bytes: totals[RECEIVED].get(),
        sent_bytes: totals[SENT].get(),
        lasted: joined.established_at.elapsed(),
    };
    worker.observer.emit(joined.position, &ended);
}

const RECEIVED: usize = 0;
const SENT: usize = 1;

/// Notes who the server is, so that it can be judged on a reload; and judges it, and the client once more, if there was one
/// meanwhile.
fn note_server(
    worker: &WorkerContext,
    state: &Rc<State>,
    position: ListenerId,
    ((peer, certificates), opposite): (Newcomer<'_>, &Opposite),
    timer: &ConnectionTimer,
) {
    let chain = match opposite {
        Opposite::Server(connection) => connection.chain.as_ref(),
        Opposite::Page(_) => None,
    };
    let backend = state.listener(position).config.backend();
    let server = backend.zip(chain).map(|(backend, chain)| ConnectedServer {
        backend,
        chain: chain.clone(),
    });
    let opened = OpenConnection::new(position, peer, server.as_ref());
    let request = worker.evaluate_if_changed(state, &opened, certificates);
    timer.server_connected(server, request);
}

/// What an established connection is watched for.
fn timer(
    state: &State,
    position: ListenerId,
    handle: ConnectionHandle,
    peer: &VerifiedPeer,
) -> ConnectionTimer {
    let listener = &state.listener(position).config;
    let deadlines = deadlines(&state.config, listener, peer);
    let timeouts = IdleTimeouts {
        idle_timeout: listener.times.idle_timeout,
        quiet_timeout: listener.times.quiet_timeout,
    };
    ConnectionTimer::new(handle, timeouts, deadlines)
}

/// The handshake, within its time. A client that is refused is told why, and the guard how the handshake came out: before
/// a byte is passed on, and before the socket is closed.
async fn shake_hands(
    worker: &WorkerContext,
    listener: &ListenerState,
    (position, connection, address): (ListenerId, ConnectionId, SocketAddr),
    socket: Socket,
    pending: PendingVerdict,
) -> Option<(Accepted, Option<UsagePermit>)> {
    let started = Instant::now();
    let timeout = listener.config.times.handshake_timeout;
    let slot = monoio::time::timeout(timeout, worker.handshake_slot(&listener.handshakes)).await;
    let Ok(_slot) = slot else {
        pending.settle(&socket, outcome(Reason::OverLimit, 0));
        reject(socket);
        let detail = "all of max_handshakes were taken for the whole handshake_timeout";
        refuse_unread(worker, (position, address), Failure::OverLimit, detail);
        return None;
    };
    let timeout = timeout.saturating_sub(started.elapsed());
    let handshake = tls::accept(socket, &listener.tls, Rc::clone(&worker.buffers), timeout);
    match handshake.await {
        Ok(accepted) => let_in(
            worker,
            (position, connection, address),
            (accepted, pending),
            started.elapsed(),
        ),
        Err((socket, refusal)) => {
            let verdict = refusal.failure.reason();
            pending.settle(&socket, outcome(verdict, refusal.received_bytes));
            let refused = Event::Refused {
                failure: refusal.failure,
                address,
                detail: &refusal.detail,
                presented: refusal.presented.as_deref().map(Presented::from),
                server_name: refusal.server_name.as_deref(),
                ticket_refusal: refusal.ticket_refusal,
            };
            worker.observer.emit(position, &refused);
            // Whoever was silent for so long is not waited for once more.
            let is_waited_for = refusal.failure != Failure::Timeout;
            let alert = refusal.into_alert();
            if is_waited_for {
                tls::refuse(socket, alert).await;
            }
            None
        }
    }
}

/// Counts a client that has proven who it is against what its identity may use; not one that merely says so, or a copied
/// certificate would use up its owner's limits.
fn let_in(
    worker: &WorkerContext,
    (position, connection, address): (ListenerId, ConnectionId, SocketAddr),
    (accepted, pending): (Accepted, PendingVerdict),
    took: Duration,
) -> Option<(Accepted, Option<UsagePermit>)> {
    let Accepted {
        stream,
        peer,
        negotiated,
        ..
    } = &accepted;
    match worker.usage.admit(peer) {
        Ok(usage_permit) => {
            pending.settle(stream.socket(), outcome(Reason::Authenticated, usize::MAX));
            let established = Event::Established {
                connection,
                peer,
                address,
                negotiated,
                took,
            };
            worker.observer.emit(position, &established);
            Some((accepted, usage_permit))
        }
        Err(over_limit) => {
            pending.settle(stream.socket(), outcome(Reason::OverLimit, usize::MAX));
            let refused = Event::Refused {
                failure: Failure::OverLimit,
                address,
                detail: &over_limit.to_string(),
                presented: Some(Presented::from(peer)),
                server_name: negotiated.server_name.as_deref(),
                ticket_refusal: negotiated.ticket_refusal,
            };
            worker.observer.emit(position, &refused);
            stream.socket().reset_on_close();
            None
        }
    }
}

/// A connection to what is behind the listener, or why there is none.
async fn connect(
    worker: &WorkerContext,
    state: &State,
    position: ListenerId,
    (origin, socket): (&Origin<'_>, &Socket),
) -> Result<Opposite, CloseReason> {
    let listener = &state.listener(position).config;
    // A mode that is added is not served as a stream: this would not compile.
    let Mode::Stream = listener.mode;
    let backend = match listener.destination {
        Destination::Backend(backend) => backend,
        Destination::Metrics(_) => return worker.open_page().map(Opposite::Page),
    };
    let failed = |failure: &ServerFailure| {
        let failed = Event::ServerFailed {
            backend,
            server: failure.server,
            name: &state.servers[backend.0].name_of(failure.server),
            error: &failure.error,
            is_spared: failure.is_spared,
        };
        worker.observer.emit(position, &failed);
    };
    let connecting = state.servers[backend.0].connect(origin, || socket.presence(), failed);
    let connected = connecting.await.map(Opposite::Server);
    connected.map_err(|error| match error {
        NotConnected::Unreachable { known } => {
            let unreachable = Event::Unreachable { backend, known };
            worker.observer.emit(position, &unreachable);
            CloseReason::BackendUnreachable
        }
        NotConnected::ClientGone => CloseReason::ClientReset,
    })
}

/// Tells of a server that ended the connection in another way than by an answer and a clean end. It is passed over for a
/// while only if it said that it does not want us: whatever else it did, a client may have brought about.
fn tell_of_server(
    worker: &WorkerContext,
    position: ListenerId,
    behind: &Behind,
    (outcome, totals): (RelayOutcome, &[Cell<u64>; 2]),
) {
    let Behind {
        server, backend, ..
    } = *behind;
    let RelayOutcome {
        end,
        answers_in_http1,
    } = outcome;
    if !end.is_backends_fault() && !answers_in_http1 {
        return;
    }
    let state = worker.state();
    let servers = &state.servers[backend.0];
    let name = &servers.name_of(server);
    if end == CloseReason::BackendRefusedUs {
        servers.refused_us(server);
        let failed = Event::ServerFailed {
            backend,
            server,
            name,
            error: &RefusedUs,
            is_spared: false,
        };
        return worker.observer.emit(position, &failed);
    }
    let meaning = diagnosis::diagnose(&diagnosis::Facts {
        protocol: behind.protocol.as_deref(),
        is_tls: servers.is_tls(),
        has_proxy_header: servers.has_proxy_header(),
        received_bytes: totals[RECEIVED].get(),
        sent_bytes: totals[SENT].get(),
        answers_in_http1,
    });
    if end.is_backends_fault() || !meaning.is_empty() {
        let ended = Event::EndedByServer {
            backend,
            server,
            name,
            end,
            meaning,
        };
        worker.observer.emit(position, &ended);
    }
}

/// A server does not want us.
#[derive(Debug, thiserror::Error)]
#[error("refused the gateway's certificate")]
struct RefusedUs;

/// Relays until the end, and adds up the bytes.
async fn pass_on(
    worker: &WorkerContext,
    joined: &Joined,
    server: &Stream,
    totals: &[Cell<u64>; 2],
) -> RelayOutcome {
    let (timer, rate_limiter) = (&joined.timer, joined.rate_limiter.as_deref());
    relay::serve(&joined.client, server, timer, rate_limiter, |progress| {
        let event = match progress {
            Progress::Moved(direction, bytes) => {
                let slot = match direction {
                    Direction::Received => &totals[RECEIVED],
                    Direction::Sent => &totals[SENT],
                };
                slot.set(slot.get() + bytes as u64);
                Event::Moved { direction, bytes }
            }
            Progress::Slowed => {
                let peer = &joined.peer;
                worker.usage.note_slowed(peer);
                Event::Slowed {
                    address: joined.address,
                    peer,
                }
            }
        };
        worker.observer.emit(joined.position, &event);
    })
    .await
}
