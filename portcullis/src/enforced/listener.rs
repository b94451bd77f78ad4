//! A listener, in words: its clients, names, revocation and times.
//! In: the listener, the configuration. Out: a table. Pure but for the clock.

use std::collections::BTreeSet;
use std::net::IpAddr;

use comfy_table::Table;
use gateway::config::{
    self, BackendId, Config, ConnectionTimes, Destination, Listener, Mode, ServerCertificate,
};
use gateway_x509::certificate::CertificateInfo;

use super::{authorities, duration, http, lists, properties};
use crate::rules;

pub(super) fn table(listener: &Listener, config: &Config) -> Table {
    let Listener {
        // In the title.
        name: _,
        address,
        alpn,
        certificates,
        // Shown as the certificates they were read from.
        client_roots: _,
        client_scopes: _,
        revocation,
        revoking,
        resumption: _,
        mode,
        destination,
        times,
        max_connections,
        max_handshakes,
        expiry_drain,
    } = listener;
    let alpn = match alpn.is_empty() {
        true => "none chosen".to_owned(),
        false => config::shown_protocols(alpn),
    };
    let authorities = authorities(config, &config::client_ca_usage(listener));
    let expiry = match expiry_drain {
        None => {
            "open connections go on to the end of the certificate, and are closed then".to_owned()
        }
        Some(period) => format!(
            "open connections look for a quiet moment to end from {} before the end of the certificate on",
            duration(*period)
        ),
    };
    let mut rows = vec![
        ("address", address.to_string()),
        ("mode", http::mode(mode).to_owned()),
        (
            "clients",
            format!(
                "must have a certificate by one of:\n{}",
                authorities.join("\n")
            ),
        ),
        ("trust domains", trust_domains(listener)),
        ("server names", server_names(certificates)),
        ("revocation", lists(revocation, revoking, config)),
        (
            "resumption",
            listener_resumption(config, listener).to_owned(),
        ),
        ("ALPN", alpn),
        ("backend", behind(destination, config)),
    ];
    rows.extend(connection_times(times, mode));
    rows.extend([
        ("at expiry", expiry),
        ("max. connections", max_connections.to_string()),
        ("max. handshakes", max_handshakes.to_string()),
    ]);
    if let Mode::Http(mode) = mode {
        rows.extend(http::listener(mode));
    }
    properties(rows)
}

fn behind(destination: &Destination, config: &Config) -> String {
    match destination {
        Destination::Backend(backend) => backend_name(*backend, config).to_owned(),
        Destination::Streams(routes) => match routes.backend() {
            None => "none: closed without a route".to_owned(),
            Some(backend) => {
                format!(
                    "{} without a route",
                    backend_name(BackendId(backend), config)
                )
            }
        },
        Destination::Routes(None) => "none: 404 or UNIMPLEMENTED without a route".to_owned(),
        Destination::Routes(Some(backend)) => {
            format!("{} without a route", backend_name(*backend, config))
        }
        Destination::Metrics(rules) => rules::of_page(rules),
    }
}

/// The name of a backend.
pub(crate) fn backend_name(BackendId(position): BackendId, config: &Config) -> &str {
    let backend = config.backends.get(position);
    backend.map_or("", |backend| backend.name.as_str())
}

fn connection_times(times: &ConnectionTimes, mode: &Mode) -> Vec<(&'static str, String)> {
    let ConnectionTimes {
        first_byte_timeout,
        handshake_timeout,
        idle_timeout,
        quiet_timeout,
        max_connection_age,
        max_connection_age_grace,
    } = times;
    let age = match max_connection_age {
        None => "none".to_owned(),
        Some(age) => {
            let grace = duration(*max_connection_age_grace);
            format!(
                "{} plus or minus a tenth, and up to {grace} more",
                duration(*age)
            )
        }
    };
    let mut rows = vec![
        ("first byte timeout", duration(*first_byte_timeout)),
        ("handshake timeout", duration(*handshake_timeout)),
        ("idle timeout", duration(*idle_timeout)),
        ("max. connection age", age),
    ];
    match mode {
        Mode::Stream => rows.push(("quiet timeout", duration(*quiet_timeout))),
        // Requests in flight are known: no silence has to stand for them.
        Mode::Http(_) => {}
    }
    rows
}

/// The names that the listener's certificates answer to, and the addresses that clients may find in them.
fn server_names(certificates: &[ServerCertificate]) -> String {
    let names = certificates.iter().flat_map(|certificate| {
        let ServerCertificate { key, dns_names } = certificate;
        let info = key
            .cert
            .first()
            .and_then(|leaf| CertificateInfo::parse(leaf).ok());
        let addresses = info.map_or_else(Vec::new, |info| info.ip_addresses);
        let addresses = addresses.iter().map(IpAddr::to_string);
        let names = dns_names.iter().cloned();
        names.chain(addresses).collect::<Vec<_>>()
    });
    let names: Vec<_> = names.collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

fn listener_resumption(config: &Config, listener: &Listener) -> &'static str {
    match (&config.resumption, listener.resumption) {
        (Some(_), true) => "on",
        (Some(_), false) => "off: every connection authenticates in full",
        (None, _) => "off for all listeners",
    }
}

/// What those of the listener's authorities may speak for that are bound.
fn trust_domains(listener: &Listener) -> String {
    let scopes = listener.client_scopes.values();
    let described: BTreeSet<String> = scopes
        .map(|scope| {
            let dns: Vec<_> = scope.dns.iter().map(ToString::to_string).collect();
            match dns.is_empty() {
                true => format!("{}, no DNS names", scope.trust_domain),
                false => format!("{}, DNS names {}", scope.trust_domain, dns.join(", ")),
            }
        })
        .collect();
    match described.is_empty() {
        true => "none: each CA may issue any name".to_owned(),
        false => Vec::from_iter(described).join("\n"),
    }
}
