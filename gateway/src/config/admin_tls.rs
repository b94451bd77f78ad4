//! `[admin.tls]`: the metrics page for other hosts, behind a listener like any other.
//! In: the section as written. Out: a checked listener that serves this page alone, and whose own rules say which clients
//! may read it. None exists without authorities that clients are verified by, nor without rules.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::identity::{RuleList, Rules};
use gateway_core::limits;
use rustls::crypto::CryptoProvider;

use super::checked::{ConnectionTimes, Destination, Listener, Mode};
use super::credentials::{self, Role};
use super::diagnostics::{Diagnostics, Location};
use super::identity::{self, RuleLocation};
use super::listener::{self, CheckedListener, ClientTrust, RawClients};
use super::raw::{RawAdminTls, RawMatch};
use super::value::{Field, Sections};
use super::{client_ca, rule_lint, scalar};

/// What the listener is called in metrics, logs, audit lines and commands.
pub const NAME: &str = "admin";

/// Checks the section.
pub fn check(
    raw: RawAdminTls,
    provider: &CryptoProvider,
    diagnostics: &mut Diagnostics<'_>,
) -> CheckedListener {
    let location = raw.location;
    let written_address = raw.address.clone().given();
    let address_for = "give an IP address and a port, such as \"0.0.0.0:9465\"";
    let address = diagnostics.required(&location, "address", raw.address, address_for, |text| {
        scalar::socket_address(text)
    });
    let own = (raw.certificate, raw.key);
    let own = credentials::own(&location, own, Role::Server, provider, diagnostics);
    let written = RawClients {
        client_ca: raw.client_ca,
        crl: raw.crl,
        crl_grace: raw.crl_grace,
        dangerous_accept_stale_crl: raw.dangerous_accept_stale_crl,
    };
    let mut clients = listener::clients(&location, written, provider, diagnostics);
    let authorities = clients.as_mut().map(ClientTrust::take_elements);
    let (places, rules) = rules(&location, raw.allow, diagnostics).unzip();
    let assemble = || {
        let clients = clients?;
        Some(Listener {
            name: NAME.to_owned(),
            address: address?,
            // Prometheus offers h2 beside it; the page is one answer.
            alpn: vec![b"http/1.1".to_vec()],
            certificates: listener::certificates(own?, Vec::new()),
            client_roots: clients.roots,
            client_scopes: clients.scopes,
            revocation: clients.revocation,
            revoking: clients.revoking,
            // No scraper that is known resumes.
            resumption: false,
            // The page is a plain response on a stream of its own.
            mode: Mode::Stream,
            destination: Destination::Metrics(Arc::new(rules?)),
            times: TIMES,
            max_connections: limits::ADMIN_TLS_CONNECTIONS_MAX,
            max_handshakes: limits::ADMIN_TLS_CONNECTIONS_MAX,
            expiry_drain: None,
        })
    };
    let checked = assemble();
    let checked = CheckedListener {
        // No rule of others and no other configuration can name it.
        name: None,
        location,
        written_address,
        address,
        backend: None,
        has_backend: false,
        is_http: Some(false),
        authorities: authorities.unwrap_or_default(),
        is_for_metrics: true,
        checked,
    };
    warn(&checked, &places.unwrap_or_default(), diagnostics);
    checked
}

/// Tells what the rules of a listener are told, of these and the CAs that they are for.
fn warn(checked: &CheckedListener, places: &[RuleLocation], diagnostics: &mut Diagnostics<'_>) {
    let listener = checked.checked.as_ref();
    if let Some(Destination::Metrics(rules)) = listener.map(|listener| &listener.destination) {
        let only = std::slice::from_ref(checked);
        rule_lint::warn(places, rules, only, diagnostics);
        client_ca::warn_of_overlap(only, rules, diagnostics);
        client_ca::warn_of_useless(only, rules, diagnostics);
    }
}

/// The listeners that `[[identity]]` rules hold for.
pub fn others(listeners: &[CheckedListener]) -> &[CheckedListener] {
    match listeners.split_last() {
        Some((last, others)) if last.is_for_metrics => others,
        _ => listeners,
    }
}

/// Refuses a listener that has the name of this one.
pub fn refuse_namesakes(listeners: &[CheckedListener], diagnostics: &mut Diagnostics<'_>) {
    for listener in listeners {
        if let Some(name) = listener.name.as_ref().filter(|name| name.value == NAME) {
            let text = "is what the listener of [admin.tls] is called in metrics and logs: choose another name";
            diagnostics.wrong(&listener.location, "name", name, text);
        }
    }
}

/// A scrape is one request on a connection of its own.
const TIMES: ConnectionTimes = ConnectionTimes {
    first_byte_timeout: limits::FIRST_BYTE_TIMEOUT_DEFAULT,
    handshake_timeout: limits::HANDSHAKE_TIMEOUT_DEFAULT,
    idle_timeout: limits::ADMIN_TIMEOUT,
    quiet_timeout: limits::ADMIN_TIMEOUT,
    // A client that reads the answer byte by byte is not idle.
    max_connection_age: Some(limits::ADMIN_TLS_CONNECTION_AGE),
    max_connection_age_grace: Duration::ZERO,
};

/// The clients that may read the page.
fn rules(
    location: &Location,
    field: Field<Sections<RawMatch>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Vec<RuleLocation>, Rules)> {
    let expectation = "name the clients that may read the metrics, such as allow = [{ dns = \"prometheus.example.org\" }]";
    if matches!(field, Field::Absent) {
        diagnostics.missing(location, "allow", expectation);
    }
    let list = field.given()?;
    if list.value.0.is_empty() {
        let text = "must name at least one: without it no client could read anything";
        diagnostics.wrong(location, "allow", &list, text);
        return None;
    }
    let file: Arc<Path> = diagnostics.file().into();
    let written = list.value.0.len();
    let (mut places, mut rules) = (Vec::new(), Vec::new());
    for raw in list.value.0 {
        places.push(RuleLocation {
            file: Arc::clone(&file),
            location: raw.location.clone(),
        });
        rules.extend(identity::patterns_of(raw, diagnostics));
    }
    if rules.len() < written {
        return None;
    }
    Some((places, Rules::of(RuleList::Allow, rules)))
}
