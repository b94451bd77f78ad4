//! Whether a client that is in may stay, by what is trusted now.
//! In: the state in force, a client, the server behind it. Out: the order to end its connection, or none. On the worker, when a
//! state or the clock has changed.

use std::time::{Instant, SystemTime};

use gateway_core::close_reason::CloseReason;
use gateway_core::limits;
use gateway_core::server_trust::ServerObjection;
use rustls::crypto::SecureRandom;

use super::state::State;
use crate::connection::{Order, Reached};
use crate::tls::VerifiedPeer;

/// The order for an established client, by what is trusted in `state`. A revoked or blocked client goes at once; other closes are
/// spread, so that a rotation does not make every agent connect anew in one second.
pub(super) fn judge(
    state: &State,
    position: usize,
    peer: &VerifiedPeer,
    server: Option<&Reached>,
) -> Option<Order> {
    let door = &state.doors[position];
    let of_server = || {
        let Reached { backend, chain } = server?;
        match state.servers.get(*backend)?.judge(chain)? {
            ServerObjection::Revoked => Some(CloseReason::BackendRevoked),
            ServerObjection::Untrusted => Some(CloseReason::BackendUntrusted),
        }
    };
    let of_client = peer.judge(&door.trust, SystemTime::now());
    let reason = of_client.or_else(of_server)?;
    let now = Instant::now();
    if reason.is_immediate() {
        return Some(Order {
            reason,
            from: now,
            at_the_latest: now,
            // A certificate ends by the clock, and not by a change of what is configured.
            changed_at: (reason != CloseReason::Expired).then_some(state.changed_at),
        });
    }
    let share = share(state.config.provider.secure_random);
    let from = now + state.config.close_spread.mul_f64(share);
    Some(Order {
        reason,
        from,
        at_the_latest: from + limits::CLOSE_GRACE,
        changed_at: Some(state.changed_at),
    })
}

/// The order for a client of which no byte has been passed on yet: it has to be admitted by what is trusted now. It has not
/// begun anything, so there is nothing to spread.
pub(super) fn judge_newcomer(
    state: &State,
    position: usize,
    peer: &VerifiedPeer,
    server: Option<&Reached>,
) -> Option<Order> {
    let now = Instant::now();
    let at_once = |order: Order| Order {
        from: now,
        at_the_latest: now,
        ..order
    };
    let refused = || {
        let reason = peer.refused_by(&state.doors[position].trust, SystemTime::now())?;
        Some(Order {
            reason,
            from: now,
            at_the_latest: now,
            changed_at: Some(state.changed_at),
        })
    };
    judge(state, position, peer, server)
        .map(at_once)
        .or_else(refused)
}

/// A random number from 0 to 1; without randomness it is 0.
pub(super) fn share(random: &dyn SecureRandom) -> f64 {
    let mut bytes = [0; 2];
    let _ = random.fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}
