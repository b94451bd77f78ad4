//! `[defaults]`: what listeners have in common, said once.
//! In: the section and a listener as written. Out: the listener, with what it does not say itself. Keys that only mean
//! something together are taken together: a listener that states one of them states them all.

use super::diagnostics::Diagnostics;
use super::http_mode;
use super::raw::{RawDefaults, RawListener, Text};
use super::value::Field;

/// Gives a listener what it does not state.
pub fn fill(listener: &mut RawListener, defaults: &RawDefaults, diagnostics: &mut Diagnostics<'_>) {
    refuse_halves(listener, defaults, diagnostics);
    fn pair<A: Clone, B: Clone>(
        own: (&mut Field<A>, &mut Field<B>),
        default: (&Field<A>, &Field<B>),
    ) {
        if matches!((&own.0, &own.1), (Field::Absent, Field::Absent)) {
            own.0.clone_from(default.0);
            own.1.clone_from(default.1);
        }
    }
    one(&mut listener.mode, &defaults.mode);
    one(&mut listener.alpn, &defaults.alpn);
    one(&mut listener.sni, &defaults.sni);
    one(&mut listener.client_ca, &defaults.client_ca);
    one(&mut listener.crl, &defaults.crl);
    one(&mut listener.resumption, &defaults.resumption);
    one(&mut listener.backend, &defaults.backend);
    one(
        &mut listener.first_byte_timeout,
        &defaults.first_byte_timeout,
    );
    one(&mut listener.handshake_timeout, &defaults.handshake_timeout);
    one(&mut listener.idle_timeout, &defaults.idle_timeout);
    fill_of_mode(listener, defaults);
    pair(
        (&mut listener.certificate, &mut listener.key),
        (&defaults.certificate, &defaults.key),
    );
    pair(
        (
            &mut listener.crl_grace,
            &mut listener.dangerous_accept_stale_crl,
        ),
        (&defaults.crl_grace, &defaults.dangerous_accept_stale_crl),
    );
    pair(
        (&mut listener.max_connections, &mut listener.max_handshakes),
        (&defaults.max_connections, &defaults.max_handshakes),
    );
    pair(
        (
            &mut listener.max_connection_age,
            &mut listener.max_connection_age_grace,
        ),
        (
            &defaults.max_connection_age,
            &defaults.max_connection_age_grace,
        ),
    );
    pair(
        (&mut listener.at_expiry, &mut listener.expiry_drain),
        (&defaults.at_expiry, &defaults.expiry_drain),
    );
}

/// Gives a listener a key that it does not state.
fn one<T: Clone>(own: &mut Field<T>, default: &Field<T>) {
    if matches!(own, Field::Absent) {
        own.clone_from(default);
    }
}

/// The keys of one mode: they are for the listeners of that mode alone.
fn fill_of_mode(listener: &mut RawListener, defaults: &RawDefaults) {
    match http_mode::is_http(&listener.mode) {
        Some(true) => {
            one(&mut listener.header_timeout, &defaults.header_timeout);
            one(
                &mut listener.request_idle_timeout,
                &defaults.request_idle_timeout,
            );
            one(
                &mut listener.max_request_headers,
                &defaults.max_request_headers,
            );
            one(&mut listener.max_request_body, &defaults.max_request_body);
            one(&mut listener.max_streams, &defaults.max_streams);
            one(&mut listener.grpc_health, &defaults.grpc_health);
            one(&mut listener.headers, &defaults.headers);
        }
        Some(false) | None => one(&mut listener.quiet_timeout, &defaults.quiet_timeout),
    }
}

/// A certificate without its key is of no use, nor a key without its certificate; it is refused here, where it is known why the
/// other one is not there.
fn refuse_halves(
    listener: &mut RawListener,
    defaults: &RawDefaults,
    diagnostics: &mut Diagnostics<'_>,
) {
    let location = listener.location.clone();
    let mut refuse = |own: (&str, &Field<Text>),
                      (key, missing): (&str, &mut Field<Text>),
                      default: &Field<Text>| {
        let (half, own) = own;
        let is_half = matches!(own, Field::Given(_)) && matches!(missing, Field::Absent);
        if is_half && !matches!(default, Field::Absent) {
            let text = format_args!(
                "missing: the one of [defaults] does not count for a listener that states its own {half}: state both here"
            );
            diagnostics.refuse(location.line, location.key(key), text);
            *missing = Field::Wrong;
        }
    };
    let (certificate, key) = (&mut listener.certificate, &mut listener.key);
    refuse(("certificate", certificate), ("key", key), &defaults.key);
    refuse(
        ("key", key),
        ("certificate", certificate),
        &defaults.certificate,
    );
}
