//! Whether an authenticated client may stay connected under the state in force.
//! In: a state, an open connection. Out: a close request, or none. On the worker, when a state or the clock has changed.

use std::time::{Instant, SystemTime};

use gateway_core::close_reason::CloseReason;
use gateway_core::limits;
use gateway_core::server_trust::ServerObjection;
use rustls::crypto::SecureRandom;
use rustls::pki_types::CertificateDer;

use super::state::State;
use crate::config::ListenerId;
use crate::connection::{CloseRequest, ConnectedServer, OpenConnection};
use crate::tls::DryRun;

/// Evaluates an open connection under `state`. Until its first byte is passed on, the rules for new clients hold.
pub(super) fn evaluate_connection(
    state: &State,
    connection: &OpenConnection<'_>,
) -> Option<CloseRequest> {
    match connection.is_new {
        true => evaluate_new(state, connection),
        false => evaluate_old(state, connection),
    }
}

/// Evaluates a client by the whole chain that it has sent just now: another key policy may be in force.
pub(super) fn evaluate_chain(
    state: &State,
    listener: ListenerId,
    chain: &[CertificateDer<'static>],
) -> Option<CloseRequest> {
    let blocks = &state.listener(listener).trust.blocks;
    let by_now = DryRun::new(&state.config, listener, blocks);
    let (failure, _) = by_now.would_refuse(chain, SystemTime::now())?;
    Some(at_once(state, CloseReason::from_failure(failure)))
}

/// Closes a revoked or blocked client at once. Spreads other closes, so that a rotation does not make every agent reconnect in the
/// same second.
fn evaluate_old(state: &State, connection: &OpenConnection<'_>) -> Option<CloseRequest> {
    let listener = state.listener(connection.listener);
    let of_server = || {
        let ConnectedServer { backend, chain } = connection.server?;
        match state.servers.get(backend.0)?.evaluate_server(chain)? {
            ServerObjection::Revoked => Some(CloseReason::BackendRevoked),
            ServerObjection::Untrusted => Some(CloseReason::BackendUntrusted),
        }
    };
    let of_client = connection.peer.evaluate(&listener.trust, SystemTime::now());
    let has_other_mode = listener.config.mode.is_http() != connection.is_http;
    let of_mode = || has_other_mode.then_some(CloseReason::Mode);
    let reason = of_client.or_else(of_server).or_else(of_mode)?;
    if reason.is_immediate() {
        let request = at_once(state, reason);
        return Some(CloseRequest {
            // A certificate expires by the clock, not by a change of the configuration.
            changed_at: request
                .changed_at
                .filter(|_| reason != CloseReason::Expired),
            ..request
        });
    }
    let share = share(state.config.provider.secure_random);
    let from = Instant::now() + state.config.close_spread.mul_f64(share);
    Some(CloseRequest {
        reason,
        from,
        at_the_latest: from + limits::CLOSE_GRACE,
        changed_at: Some(state.changed_at),
    })
}

/// Closes at once what `state` would not admit as a new connection. Nothing is spread: the client has not sent anything yet.
fn evaluate_new(state: &State, connection: &OpenConnection<'_>) -> Option<CloseRequest> {
    let now = Instant::now();
    let not_spread = |request: CloseRequest| CloseRequest {
        from: now,
        at_the_latest: now,
        ..request
    };
    let not_admitted = || {
        let trust = &state.listener(connection.listener).trust;
        let reason = connection.peer.refused_by(trust, SystemTime::now())?;
        Some(at_once(state, reason))
    };
    evaluate_old(state, connection)
        .map(not_spread)
        .or_else(not_admitted)
}

/// A request to close now, because of `state`.
fn at_once(state: &State, reason: CloseReason) -> CloseRequest {
    let now = Instant::now();
    CloseRequest {
        reason,
        from: now,
        at_the_latest: now,
        changed_at: Some(state.changed_at),
    }
}

/// A random number from 0 to 1; without randomness it is 0.
pub(super) fn share(random: &dyn SecureRandom) -> f64 {
    let mut bytes = [0; 2];
    let _ = random.fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}
