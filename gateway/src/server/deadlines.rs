//! When a connection closes by the clock: by its age, and by its client's certificate.
//! In: a listener's settings, a verified peer. Out: the deadlines of a connection's timer. On the worker, once per connection.

use std::time::{Duration, Instant, SystemTime};

use gateway_core::limits;

use crate::config::{Config, Listener};
use crate::connection::Deadlines;
use crate::tls::VerifiedPeer;

/// The deadlines of a connection that is established now.
pub(super) fn deadlines(config: &Config, listener: &Listener, peer: &VerifiedPeer) -> Deadlines {
    let expires_at = expires_at(peer);
    Deadlines {
        aged_at: aged_at(config, listener),
        age_grace: listener.times.max_connection_age_grace,
        expiring_at: expiring_at(config, listener, expires_at),
        expires_at,
    }
}

/// When the connection is too old: the configured age, plus or minus a tenth, so that agents that connected together do not
/// reconnect together.
fn aged_at(config: &Config, listener: &Listener) -> Option<Instant> {
    let age = listener.times.max_connection_age?;
    Some(Instant::now() + jittered(age, random(config)))
}

/// Without randomness there is no jitter; without randomness there is no TLS either.
fn random(config: &Config) -> u16 {
    let mut random = [0; 2];
    let _ = config.provider.secure_random.fill(&mut random);
    u16::from_be_bytes(random)
}

/// When the connection starts to look for a quiet moment because its client's certificate expires soon: a random moment, so that
/// agents whose certificates expire together do not reconnect together.
fn expiring_at(config: &Config, listener: &Listener, expires_at: Instant) -> Option<Instant> {
    let drain = listener.expiry_drain?;
    let left = expires_at.saturating_duration_since(Instant::now());
    Some(expires_at - spread(drain.min(left), random(config)))
}

/// `period` for the smallest `random`, down to a tenth of it for the largest: some time is left for a quiet moment.
fn spread(period: Duration, random: u16) -> Duration {
    period.mul_f64(1.0 - 0.9 * f64::from(random) / f64::from(u16::MAX))
}

/// When the client's certificate expires, on the clock that timers run by.
fn expires_at(peer: &VerifiedPeer) -> Instant {
    let left = peer
        .not_after()
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    // A certificate may outlive what an `Instant` can say.
    Instant::now() + left.min(limits::CONNECTION_LIFE_MAX)
}

/// `age` times 0.9 for the smallest `random` up to 1.1 for the largest.
fn jittered(age: Duration, random: u16) -> Duration {
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_age_varies_by_a_tenth_either_way() {
        let age = Duration::from_secs(100);
        assert_eq!(jittered(age, 0), Duration::from_secs(90));
        assert_eq!(jittered(age, u16::MAX), Duration::from_secs(110));
    }

    #[test]
    fn a_certificate_that_ends_leaves_time_for_a_quiet_moment() {
        let period = Duration::from_secs(100);
        assert_eq!(spread(period, 0), period);
        let least = spread(period, u16::MAX);
        assert!(least > Duration::from_secs(9) && least < Duration::from_secs(11));
    }
}
