//! `[defaults]`: what listeners have in common, said once.
//! In: the section and a listener as written. Out: the listener, with what it does not say itself. Keys that only mean something
//! together are taken together: who states one of them states them all.

use super::raw::{RawDefaults, RawListener};
use super::value::Field;

/// Gives a listener what it does not state.
pub fn fill(listener: &mut RawListener, defaults: &RawDefaults) {
    fn one<T: Clone>(own: &mut Field<T>, default: &Field<T>) {
        if matches!(own, Field::Absent) {
            own.clone_from(default);
        }
    }
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
    one(&mut listener.handshake_timeout, &defaults.handshake_timeout);
    one(&mut listener.idle_timeout, &defaults.idle_timeout);
    one(&mut listener.quiet_timeout, &defaults.quiet_timeout);
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
