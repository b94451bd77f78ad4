//! What bounds a listener's connections: times and numbers. In: the section as written. Out: checked values, `None` where one is
//! wrong.

use std::ops::RangeInclusive;
use std::time::Duration;

use gateway_core::limits;

use super::checked::ConnectionTimes;
use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawListener, Text};
use super::scalar;
use super::value::Field;

/// Bounds of a listener's connections.
pub(super) struct Bounds {
    pub(super) times: ConnectionTimes,
    pub(super) max_connections: usize,
    pub(super) max_handshakes: usize,
}

/// Checks the bounds of a listener that chooses from these protocols.
pub(super) fn check(
    location: &Location,
    raw: RawListener,
    alpn: &[Vec<u8>],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Bounds> {
    let connections = |count: &i64| scalar::count(*count, &limits::CONNECTIONS, "");
    let max_connections = raw.max_connections.clone();
    let max_connections =
        diagnostics.optional(location, "max_connections", max_connections, connections);
    let most = max_connections
        .flatten()
        .unwrap_or(limits::CONNECTIONS_DEFAULT);
    let handshakes = |count: &i64| {
        let count = scalar::count(*count, &limits::HANDSHAKES, "")?;
        match count <= most {
            true => Ok(count),
            false => Err(format!("must be at most max_connections, which is {most}")),
        }
    };
    let max_handshakes = raw.max_handshakes.clone();
    let max_handshakes =
        diagnostics.optional(location, "max_handshakes", max_handshakes, handshakes);
    let times = times(location, raw, alpn, diagnostics);
    Some(Bounds {
        times: times?,
        max_connections: max_connections?.unwrap_or(limits::CONNECTIONS_DEFAULT),
        max_handshakes: max_handshakes?.unwrap_or(limits::HANDSHAKES_DEFAULT.min(most)),
    })
}

fn times(
    location: &Location,
    raw: RawListener,
    alpn: &[Vec<u8>],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<ConnectionTimes> {
    let mut time = |key, field: Field<Text>, range: &RangeInclusive<Duration>, why: &str| {
        diagnostics.optional(location, key, field, |text| {
            scalar::duration(text, range, why)
        })
    };
    let first_byte = time(
        "first_byte_timeout",
        raw.first_byte_timeout,
        &limits::FIRST_BYTE_TIMEOUT,
        "",
    );
    let handshake = time(
        "handshake_timeout",
        raw.handshake_timeout,
        &limits::HANDSHAKE_TIMEOUT,
        " (less would refuse every client, more would let silent clients hold slots)",
    );
    let idle = time("idle_timeout", raw.idle_timeout, &limits::IDLE_TIMEOUT, "");
    let quiet = time(
        "quiet_timeout",
        raw.quiet_timeout,
        &limits::QUIET_TIMEOUT,
        "",
    );
    let age = time(
        "max_connection_age",
        raw.max_connection_age,
        &limits::CONNECTION_AGE,
        " (leave it out for no limit)",
    );
    let grace_range = &limits::CONNECTION_AGE_GRACE;
    let grace = diagnostics.optional(
        location,
        "max_connection_age_grace",
        raw.max_connection_age_grace,
        |text: &Text| match age {
            Some(None) => Err("has no effect without max_connection_age".to_owned()),
            Some(Some(_)) | None => scalar::duration(text, grace_range, ""),
        },
    );
    Some(ConnectionTimes {
        first_byte_timeout: first_byte?.unwrap_or(limits::FIRST_BYTE_TIMEOUT_DEFAULT),
        handshake_timeout: handshake?.unwrap_or(limits::HANDSHAKE_TIMEOUT_DEFAULT),
        idle_timeout: idle?.unwrap_or_else(|| idle_default(alpn)),
        quiet_timeout: quiet?.unwrap_or(limits::QUIET_TIMEOUT_DEFAULT),
        max_connection_age: age?,
        max_connection_age_grace: grace?.unwrap_or(limits::CONNECTION_AGE_GRACE_DEFAULT),
    })
}

/// gRPC clients keep a connection that is silent, send nothing on it, and connect anew when it is closed.
fn idle_default(alpn: &[Vec<u8>]) -> Duration {
    match alpn.iter().any(|protocol| protocol == b"h2") {
        true => limits::IDLE_TIMEOUT_DEFAULT_HTTP2,
        false => limits::IDLE_TIMEOUT_DEFAULT,
    }
}
