//! What is special to mode "http", in words: bounds and fields of a listener, its routes, the hop to its backends.
//! In: the checked configuration. Out: rows and tables. Pure.

use std::num::NonZeroU32;

use bytesize::ByteSize;
use comfy_table::Table;
use gateway::config::{
    Backend, BackendId, Config, HealthChecks, HealthKind, HttpBackend, HttpMode, Listener, Mode,
    ServerShare,
};
use gateway_core::http::health::HealthSchedule;
use gateway_core::http::message::{FixedField, ForwardedFormat, Part, ToldFields};
use gateway_core::http::policy::{
    Canary, CanaryShare, FieldMatch, FieldSource, Grant, HashKey, HostPattern, Mirror, Rights,
    Route, Target,
};
use gateway_core::http::pool::EjectionPolicy;
use gateway_core::identity::Tenant;

pub(crate) use super::listener::backend_name;
use super::{duration, plain_table};

/// The word of the configuration.
pub(super) fn mode(mode: &Mode) -> &'static str {
    match mode {
        Mode::Stream => "stream",
        Mode::Http(_) => "http",
    }
}

/// What bounds requests, and what backends are told.
pub(super) fn listener(mode: &HttpMode) -> Vec<(&'static str, String)> {
    let HttpMode {
        header_timeout,
        request_idle_timeout,
        max_request_headers,
        max_request_body,
        max_streams,
        grpc_health,
        told,
        // Follow from what is told here and by rules.
        reserved: _,
        // In a table of their own.
        routes: _,
    } = mode;
    vec![
        ("header timeout", duration(*header_timeout)),
        ("request idle timeout", duration(*request_idle_timeout)),
        (
            "max. request headers",
            ByteSize(*max_request_headers as u64).to_string(),
        ),
        ("max. request body", ByteSize(*max_request_body).to_string()),
        ("max. streams", format!("{max_streams} of a connection")),
        (
            "grpc.health.v1",
            match grpc_health {
                true => "answered by the gateway".to_owned(),
                false => "as any request".to_owned(),
            },
        ),
        ("headers", fields(told, Some(told.tenant_name()))),
    ]
}

/// What backends are told, a line a field. Values of files are not shown.
pub(crate) fn fields(told: &ToldFields, tenant: Option<&[u8]>) -> String {
    let ToldFields {
        // As the caller says it: a rule may leave it to the listener.
        tenant: _,
        parts,
        forwarded,
        fixed,
    } = told;
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut lines: Vec<String> = tenant
        .map(|name| format!("{}: the tenant, if there is one", text(name)))
        .into_iter()
        .collect();
    let parts = parts.iter();
    lines.extend(parts.map(|(name, part)| format!("{}: {}", text(name), part_name(*part))));
    lines.extend(forwarded.map(|format| match format {
        ForwardedFormat::XForwarded => "x-forwarded-for, x-forwarded-proto".to_owned(),
        ForwardedFormat::Forwarded => "forwarded".to_owned(),
    }));
    lines.extend(fixed.iter().map(|field| {
        let FixedField {
            name,
            value,
            is_secret,
        } = field;
        match is_secret {
            true => format!("{}: (what its file holds)", text(name)),
            false => format!("{}: {}", text(name), text(value)),
        }
    }));
    lines.join("\n")
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Identity => "the identity",
        Part::Uri => "the first URI",
        Part::Dns => "the first DNS name",
        Part::CommonName => "the common name",
        Part::OrganizationalUnit => "the first organizational unit",
        Part::Issuer => "the issuer",
        Part::Fingerprint => "the fingerprint",
        Part::ForwardedClientCert => "the certificate in Envoy's format",
    }
}

/// The routes of a listener, if it may have any.
pub(super) fn routes(listener: &Listener, config: &Config) -> Option<Table> {
    let Mode::Http(mode) = &listener.mode else {
        return None;
    };
    let mut table = plain_table();
    table.set_header([" #", "CALLS", "HOSTS", "HEADERS", "BACKEND", "SENT AS"]);
    for (position, route) in mode.routes.routes().iter().enumerate() {
        let Route {
            hosts: at,
            targets: called,
            fields,
            backend,
            canary,
            mirror,
            prefix,
            authority,
        } = route;
        let fields: Vec<_> = fields
            .iter()
            .map(|field| field_match(field, mode))
            .collect();
        let to = backend_name(BackendId(*backend), config);
        let canary = canary.as_ref();
        let canary = canary.map_or(String::new(), |canary| self::canary(canary, config));
        let prefix = prefix.as_ref().map(|prefix| format!("path {prefix}"));
        let authority = authority.as_ref();
        let authority = authority.map(|host| format!("host {}", host.escape_ascii()));
        let sent: Vec<_> = prefix.into_iter().chain(authority).collect();
        table.add_row([
            format!(" {}", position + 1),
            targets(called),
            hosts(at),
            fields.join("\n"),
            format!("{to}{canary}{}", self::mirror(*mirror, config)),
            sent.join("\n"),
        ]);
    }
    (!mode.routes.routes().is_empty()).then_some(table)
}

fn mirror(mirror: Option<Mirror>, config: &Config) -> String {
    mirror.map_or(String::new(), |Mirror { backend, percent }| {
        let to = backend_name(BackendId(backend), config);
        format!("\n{percent} % copied to {to}")
    })
}

fn canary(canary: &Canary, config: &Config) -> String {
    let Canary { backend, share } = canary;
    let to = backend_name(BackendId(*backend), config);
    match share {
        CanaryShare::Percent(percent) => format!("\n{percent} % to {to}"),
        CanaryShare::Tenants(tenants) => {
            let names: Vec<_> = tenants.iter().map(Tenant::as_str).collect();
            format!("\n{to} for {}", names.join(", "))
        }
    }
}

fn field_match(field: &FieldMatch, mode: &HttpMode) -> String {
    let FieldMatch { source, value } = field;
    let (name, whose) = match source {
        FieldSource::Tenant => (mode.told.tenant_name(), ""),
        FieldSource::Told(name) => (&**name, ""),
        FieldSource::Sent(name) => (&**name, " (by the client)"),
    };
    let (name, value) = (name.escape_ascii(), value.escape_ascii());
    format!("{name}: {value}{whose}")
}

/// What is called, a line a target.
fn targets(targets: &[Target]) -> String {
    let lines: Vec<_> = targets.iter().map(Target::to_string).collect();
    lines.join("\n")
}

pub(super) fn hosts(hosts: &[HostPattern]) -> String {
    let names: Vec<_> = hosts.iter().map(HostPattern::to_string).collect();
    match names.is_empty() {
        true => "any".to_owned(),
        false => names.join(", "),
    }
}

/// What the clients of a rule may call, a line a grant.
pub(crate) fn rights(rights: &Rights) -> String {
    let lines: Vec<_> = rights.grants().iter().map(grant).collect();
    lines.join("\n")
}

/// A grant in one line.
pub(crate) fn grant(grant: &Grant) -> String {
    let Grant {
        networks,
        hosts: at,
        targets,
        ready,
    } = grant;
    let mut text = match ready {
        Some(ready) => ready.label().to_owned(),
        None => {
            let calls: Vec<_> = targets.iter().map(Target::to_string).collect();
            calls.join(", ")
        }
    };
    if !at.is_empty() {
        text += &format!(" at {}", hosts(at));
    }
    if !networks.is_empty() {
        let names: Vec<_> = networks.iter().map(ToString::to_string).collect();
        text += &format!(" from {}", names.join(", "));
    }
    text
}

/// Whether requests of an HTTP listener may go to a backend.
pub(super) fn is_routed_to(backend: &Backend, config: &Config) -> bool {
    let is_it = |id: &BackendId| backend_name(*id, config) == backend.name;
    let mut listeners = config.listeners.iter();
    listeners.any(|listener| {
        matches!(listener.mode, Mode::Http(_)) && listener.backends().iter().any(is_it)
    })
}

/// What a backend is for HTTP listeners.
pub(super) fn backend(http: &HttpBackend) -> Vec<(&'static str, String)> {
    let HttpBackend {
        protocol,
        patience,
        response_timeout,
        stream_idle_timeout,
        ping_interval,
        max_connections,
        max_requests,
        hash,
        // Beside the servers.
        shares: _,
        slow_start,
        ejection,
        health,
    } = http;
    let hash = match hash {
        None => "by requests in flight".to_owned(),
        Some(HashKey::Tenant) => "by a hash of the tenant".to_owned(),
        Some(HashKey::Identity) => "by a hash of the identity".to_owned(),
        Some(HashKey::Header(name)) => format!("by a hash of {}", name.escape_ascii()),
    };
    vec![
        ("protocol", protocol.name().to_owned()),
        ("patience", duration(*patience)),
        ("response timeout", duration(*response_timeout)),
        ("stream idle timeout", duration(*stream_idle_timeout)),
        ("ping interval", duration(*ping_interval)),
        ("max. connections", format!("{max_connections} to a server")),
        ("max. requests", format!("{max_requests} at a server")),
        ("server chosen", hash),
        ("slow start", duration(*slow_start)),
        (
            "ejection",
            ejection.map_or("never".to_owned(), self::ejection),
        ),
        (
            "health checks",
            health.as_ref().map_or("none".to_owned(), self::health),
        ),
    ]
}

/// What sets a server apart from one that takes requests like any other.
pub(super) fn share(share: ServerShare) -> String {
    let ServerShare { weight, is_backup } = share;
    let weight = (weight > NonZeroU32::MIN).then(|| format!("weight {weight}"));
    let backup = is_backup.then(|| "backup".to_owned());
    let both: Vec<_> = weight.into_iter().chain(backup).collect();
    match both.is_empty() {
        true => String::new(),
        false => format!(" ({})", both.join(", ")),
    }
}

fn ejection(policy: EjectionPolicy) -> String {
    let EjectionPolicy {
        consecutive_failures,
        failure_percent,
        requests_min,
        window,
        first,
        longest,
        share_percent_max,
    } = policy;
    format!(
        "after {consecutive_failures} failures in a row, or {failure_percent} % of {requests_min} requests or more in {}\n\
         for {} to {}, at most {share_percent_max} % of the servers",
        duration(window),
        duration(first),
        duration(longest),
    )
}

fn health(health: &HealthChecks) -> String {
    let HealthChecks { kind, schedule } = health;
    let HealthSchedule {
        interval,
        timeout,
        healthy_after,
        unhealthy_after,
    } = schedule;
    let what = match kind {
        HealthKind::Grpc(service) if service.is_empty() => "grpc.health.v1".to_owned(),
        HealthKind::Grpc(service) => format!("grpc.health.v1 of {service}"),
        HealthKind::Http(path) => format!("GET {path}"),
        HealthKind::Tcp => "a connection".to_owned(),
    };
    format!(
        "{what} every {}, within {}\nhealthy after {healthy_after}, unhealthy after {unhealthy_after}",
        duration(*interval),
        duration(*timeout),
    )
}
