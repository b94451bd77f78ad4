//! Authenticates a client: admission of its source, first byte, handshake, limits of its listener and its identity.
//! In: an accepted socket. Out: an established connection; or a refusal, with its event and what the client is told. On the worker
//! that accepted the connection. Knows nothing of the mode that serves it.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use futures_util::future::{Either, select};
use gateway_common::Reason;
use gateway_core::connection_limit::ConnectionPermit;
use gateway_core::failure::Failure;
use gateway_core::limit::ByteRate;
use gateway_core::limits;
use gateway_core::sources::{Outcome, Refusal};
use gateway_guard::{PendingVerdict, refusal_detail};
use gateway_rt::Socket;

use super::context::WorkerContext;
use super::deadlines::deadlines;
use super::established::{ConnectionInfo, Established, HandshakeResult, NewConnection};
use super::silent::SilentPlace;
use super::state::{ListenerState, State};
use crate::connection::{
    ConnectionHandle, ConnectionTimer, IdleTimeouts, OpenConnection, RateLimiter, Stream,
    UsagePermit,
};
use crate::telemetry::{Event, Presented};
use crate::tls::{self, Accepted, Refusal as HandshakeRefusal};

/// A client whose handshake has succeeded and whose identity is within its limits.
struct Authenticated {
    accepted: Accepted,
    usage_permit: Option<UsagePermit>,
}

/// Takes an accepted socket to an established connection, or refuses it.
pub(super) async fn authenticate(
    context: &WorkerContext,
    new: Box<NewConnection>,
) -> Option<(Established, HandshakeResult)> {
    let NewConnection {
        info,
        handle,
        socket,
        silent,
    } = *new;
    let state = context.state();
    let policy = &state.config.guard.policy;
    let local = || socket.local_address().ok();
    let pending = match context.source_admission.admit(info.address, local, policy) {
        Ok(pending) => pending,
        Err(why) => {
            reject_source(context, info, socket, why);
            return None;
        }
    };
    let listener = state.listener(info.listener);
    if let Err((failure, detail)) = first_byte(listener, &socket, silent).await {
        pending.settle(&socket, outcome(failure.reason(), 0));
        reject(context, info, socket, (failure, &detail));
        return None;
    }
    let Some(permit) = listener.limit.try_acquire() else {
        pending.settle(&socket, outcome(Reason::OverLimit, 0));
        let detail = format!("max_connections = {}", listener.config.max_connections);
        reject(context, info, socket, (Failure::OverLimit, &detail));
        return None;
    };
    let authenticated = shake_hands(context, listener, info, socket, pending).await?;
    Some(establish(
        context,
        state,
        info,
        (handle, permit),
        authenticated,
    ))
}

/// Waits for the client's first byte, which takes no handshake slot. Otherwise returns why it stopped waiting.
async fn first_byte(
    listener: &ListenerState,
    socket: &Socket,
    place: SilentPlace,
) -> Result<(), (Failure, String)> {
    // As a rule it is there already: clients send as soon as they are connected.
    if socket.has_arrived() {
        return Ok(());
    }
    let (mut arrived, mut lost) = (pin!(socket.readable()), pin!(place.lost()));
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

/// Rejects a client whose source the guard does not admit.
fn reject_source(context: &WorkerContext, info: ConnectionInfo, socket: Socket, why: Refusal) {
    context.source_admission.reject(&socket, why);
    let failure = match why {
        Refusal::Denied | Refusal::Banned => Failure::Banned,
        Refusal::TooManyPending => Failure::OverLimit,
    };
    reject(context, info, socket, (failure, refusal_detail(why)));
}

/// Rejects a client before any of its bytes is read.
fn reject(
    context: &WorkerContext,
    info: ConnectionInfo,
    socket: Socket,
    (failure, detail): (Failure, &str),
) {
    socket.reset_on_close();
    drop(socket);
    let refused = Event::Refused {
        failure,
        address: info.address,
        detail,
        presented: None,
        server_name: None,
        ticket_refusal: None,
    };
    context.observer.emit(info.listener, &refused);
}

/// The handshake, within its time. The guard hears its outcome before a byte is passed on and before the socket closes.
async fn shake_hands(
    context: &WorkerContext,
    listener: &ListenerState,
    info: ConnectionInfo,
    socket: Socket,
    pending: PendingVerdict,
) -> Option<Authenticated> {
    let started = Instant::now();
    let configured = listener.config.times.handshake_timeout;
    let slot = context.handshake_slot(&listener.handshakes);
    let Ok(_slot) = monoio::time::timeout(configured, slot).await else {
        pending.settle(&socket, outcome(Reason::OverLimit, 0));
        let detail = "all of max_handshakes were taken for the whole handshake_timeout";
        reject(context, info, socket, (Failure::OverLimit, detail));
        return None;
    };
    let timeout = configured.saturating_sub(started.elapsed());
    let buffers = Rc::clone(&context.buffers);
    let handshake = tls::accept(socket, &listener.tls, buffers, timeout);
    match handshake.await {
        Ok(accepted) => admit_identity(context, info, (accepted, pending), started),
        Err((socket, mut refusal)) => {
            if refusal.failure == Failure::Timeout {
                // Waiting for a slot took some of it.
                refusal.detail = format!("handshake_timeout = {configured:?}");
            }
            let verdict = refusal.failure.reason();
            pending.settle(&socket, outcome(verdict, refusal.received_bytes));
            refuse(context, info, &refusal);
            // A client that was silent for the whole time gets no more of it.
            let is_waited_for = refusal.failure != Failure::Timeout;
            let alert = refusal.into_alert();
            if is_waited_for {
                tls::refuse(socket, alert).await;
            }
            None
        }
    }
}

/// Reports a refused handshake.
fn refuse(context: &WorkerContext, info: ConnectionInfo, refusal: &HandshakeRefusal) {
    let refused = Event::Refused {
        failure: refusal.failure,
        address: info.address,
        detail: &refusal.detail,
        presented: refusal.presented.as_deref().map(Presented::from),
        server_name: refusal.server_name.as_deref(),
        ticket_refusal: refusal.ticket_refusal,
    };
    context.observer.emit(info.listener, &refused);
}

/// Counts an authenticated client against its identity's limits. A client that only claims an identity never gets here: otherwise a
/// copied certificate would use up its owner's limits.
fn admit_identity(
    context: &WorkerContext,
    info: ConnectionInfo,
    (accepted, pending): (Accepted, PendingVerdict),
    started: Instant,
) -> Option<Authenticated> {
    let Accepted {
        stream,
        peer,
        negotiated,
        ..
    } = &accepted;
    match context.usage.admit(peer) {
        Ok(usage_permit) => {
            pending.settle(stream.socket(), outcome(Reason::Authenticated, usize::MAX));
            let established = Event::Established {
                connection: info.id,
                peer,
                address: info.address,
                negotiated,
                took: started.elapsed(),
            };
            context.observer.emit(info.listener, &established);
            Some(Authenticated {
                accepted,
                usage_permit,
            })
        }
        Err(over_limit) => {
            pending.settle(stream.socket(), outcome(Reason::OverLimit, usize::MAX));
            let refused = Event::Refused {
                failure: Failure::OverLimit,
                address: info.address,
                detail: &over_limit.to_string(),
                presented: Some(Presented::from(peer)),
                server_name: negotiated.server_name.as_deref(),
                ticket_refusal: negotiated.ticket_refusal,
            };
            context.observer.emit(info.listener, &refused);
            stream.socket().reset_on_close();
            None
        }
    }
}

/// Enters an authenticated client into the worker's table, and starts its timer.
fn establish(
    context: &WorkerContext,
    state: Rc<State>,
    info: ConnectionInfo,
    (handle, permit): (ConnectionHandle, ConnectionPermit),
    authenticated: Authenticated,
) -> (Established, HandshakeResult) {
    let Authenticated {
        accepted,
        usage_permit,
    } = authenticated;
    let Accepted {
        stream,
        peer,
        negotiated,
        certificates,
    } = accepted;
    let established_at = Instant::now();
    context.dry_run_new_client(&state, info.listener, &certificates, &peer);
    let is_http = state.listener(info.listener).config.mode.is_http();
    handle.establish(info.listener, peer.clone(), is_http);
    let opened = OpenConnection::new(info.listener, &peer, None, is_http);
    if let Some(request) = context.evaluate_if_changed(&state, &opened, &certificates) {
        handle.request_close(request);
    }
    let listener = &state.listener(info.listener).config;
    let timeouts = IdleTimeouts {
        idle_timeout: listener.times.idle_timeout,
        quiet_timeout: listener.times.quiet_timeout,
    };
    let deadlines = deadlines(&state.config, listener, &peer);
    if let Some(rate) = usage_permit.as_ref().and_then(UsagePermit::rate) {
        bound_received(stream.socket(), rate);
    }
    let established = Established {
        info,
        peer,
        client: Rc::new(Stream::Tls(stream)),
        timer: ConnectionTimer::new(handle, timeouts, deadlines),
        rate_limiter: usage_permit.map(|permit| Rc::new(RateLimiter::new(permit))),
        established_at,
        _permit: permit,
    };
    let handshake = HandshakeResult {
        state,
        negotiated,
        certificates,
    };
    (established, handshake)
}

/// Lets no more of a client's bytes wait in the kernel than are read in info a second: a batch that the client has given up and
/// sends again would otherwise go before what it still wants.
fn bound_received(socket: &Socket, rate: ByteRate) {
    let per_second = rate.bytes_per_second();
    if per_second <= limits::PACED_RECEIVE_BYTES_PER_SECOND_MAX {
        let bounds = limits::PACED_RECEIVE_BYTES;
        socket.bound_received(per_second.clamp(*bounds.start(), *bounds.end()) as usize);
    }
}
