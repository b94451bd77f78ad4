//! `[backend.health]` and `[backend.ejection]`: how servers are checked, and when those get nothing that fail requests. In: the
//! sections as written. Out: a `HealthChecks`, an `EjectionPolicy`.

use std::ops::RangeInclusive;

use gateway_core::http::health::HealthSchedule;
use gateway_core::http::limits as http_limits;
use gateway_core::http::pool::EjectionPolicy;

use super::checked::BackendTransport;
use super::diagnostics::{Diagnostics, Location};
use super::http_backend::{BackendProtocol, HttpBackend};
use super::raw::{RawEjection, RawHealth, Text};
use super::scalar;
use super::value::{Field, Spanned};

/// How the servers of a backend are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChecks {
    /// What a check is.
    pub kind: HealthKind,
    /// When to check, and what to conclude.
    pub schedule: HealthSchedule,
}

/// What a check is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthKind {
    /// `grpc.health.v1.Health/Check` for this service; an empty name asks for the server as a whole.
    Grpc(String),
    /// A GET of this path.
    Http(String),
    /// A connection, with TLS where the backend has it.
    Tcp,
}

/// The word for what a check is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KindName {
    Grpc,
    Http,
    Tcp,
}

/// Reads `health`. `None`: it is wrong; `Some(None)`: there is none.
pub(super) fn check_health(
    field: Field<RawHealth>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<HealthChecks>> {
    let raw = match field {
        Field::Absent => return Some(None),
        given => given.given()?.value,
    };
    let location = raw.location;
    let kind = diagnostics.required(
        &location,
        "kind",
        raw.kind,
        "say what a check is: \"grpc\", \"http\" or \"tcp\"",
        |text: &Text| match text.as_str() {
            "grpc" => Ok(KindName::Grpc),
            "http" => Ok(KindName::Http),
            "tcp" => Ok(KindName::Tcp),
            _ => Err("must be \"grpc\", \"http\" or \"tcp\"".to_owned()),
        },
    );
    let kind = kind.and_then(|kind| {
        let path = only_for(
            "http",
            "path",
            &location,
            (raw.path, kind == KindName::Http),
            diagnostics,
        )?;
        let service = only_for(
            "grpc",
            "service",
            &location,
            (raw.service, kind == KindName::Grpc),
            diagnostics,
        )?;
        Some(match kind {
            KindName::Grpc => HealthKind::Grpc(service_name(service, &location, diagnostics)?),
            KindName::Http => HealthKind::Http(path_of(path, &location, diagnostics)?),
            KindName::Tcp => HealthKind::Tcp,
        })
    });
    let default = http_limits::HEALTH_DEFAULT;
    let counts = [
        ("healthy_after", raw.healthy_after),
        ("unhealthy_after", raw.unhealthy_after),
    ];
    let [healthy_after, unhealthy_after] = counts.map(|(key, field)| {
        let range = &http_limits::HEALTH_THRESHOLD;
        number(key, &location, field, range, diagnostics)
    });
    let interval = diagnostics.optional(&location, "interval", raw.interval, |text| {
        scalar::duration(text, &http_limits::HEALTH_INTERVAL, "")
    });
    let longest = interval.flatten().unwrap_or(default.interval);
    let range =
        *http_limits::HEALTH_TIMEOUT.start()..=longest.min(*http_limits::HEALTH_TIMEOUT.end());
    let timeout = diagnostics.optional(&location, "timeout", raw.timeout, |text| {
        scalar::duration(text, &range, ": a check ends before the next one begins")
    });
    let schedule = HealthSchedule {
        interval: interval?.unwrap_or(default.interval),
        timeout: timeout?.unwrap_or(default.timeout.min(longest)),
        healthy_after: healthy_after?.unwrap_or(default.healthy_after),
        unhealthy_after: unhealthy_after?.unwrap_or(default.unhealthy_after),
    };
    let kind = kind?;
    Some(Some(HealthChecks { kind, schedule }))
}

/// The value of a key that only one kind of check has. `None`: another kind has it.
fn only_for(
    kind: &str,
    key: &str,
    location: &Location,
    (field, is_kind): (Field<Text>, bool),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Spanned<Text>>> {
    let item = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    if !is_kind {
        let text = format_args!("is for kind = \"{kind}\": remove it");
        diagnostics.wrong(location, key, &item, text);
        return None;
    }
    Some(Some(item))
}

fn service_name(
    item: Option<Spanned<Text>>,
    location: &Location,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<String> {
    let Some(item) = item else {
        return Some(String::new());
    };
    let is_name = item
        .value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/'));
    if !is_name || item.value.len() > http_limits::HEALTH_SERVICE_BYTES_MAX {
        let text = "must be the name of a gRPC service, such as \"example.v1.Traces\"";
        diagnostics.wrong(location, "service", &item, text);
        return None;
    }
    Some(item.value)
}

fn path_of(
    item: Option<Spanned<Text>>,
    location: &Location,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<String> {
    let expected = "must be a path that begins with a slash, such as \"/ready\"";
    let Some(item) = item else {
        diagnostics.missing(location, "path", "name the path to get, such as \"/ready\"");
        return None;
    };
    let is_path = item.value.starts_with('/')
        && item
            .value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_path {
        diagnostics.wrong(location, "path", &item, expected);
        return None;
    }
    Some(item.value)
}

/// Checks by gRPC need HTTP/2 towards the servers.
pub(super) fn check_protocol(
    location: &Location,
    http: &HttpBackend,
    transport: &BackendTransport,
    diagnostics: &mut Diagnostics<'_>,
) {
    let by_grpc = |health: &HealthChecks| matches!(health.kind, HealthKind::Grpc(_));
    let is_http2 = match http.protocol {
        BackendProtocol::Http2 => true,
        BackendProtocol::Auto => matches!(transport, BackendTransport::Tls(_)),
        BackendProtocol::Http1 => false,
    };
    if http.health.as_ref().is_some_and(by_grpc) && !is_http2 {
        let text = "kind = \"grpc\" needs protocol = \"h2\" of the backend";
        diagnostics.refuse(location.line, location.key("health"), text);
    }
}

/// Reads `ejection`. `None`: it is wrong; `Some(None)`: no server is ever ejected.
pub(super) fn check_ejection(
    field: Field<RawEjection>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<EjectionPolicy>> {
    let default = http_limits::EJECTION_DEFAULT;
    let raw = match field {
        Field::Absent => return Some(Some(default)),
        given => given.given()?.value,
    };
    let location = raw.location;
    let is_enabled =
        diagnostics.optional(&location, "enabled", raw.enabled, |enabled| Ok(*enabled));
    let failures = &http_limits::EJECTION_FAILURES;
    let percent = &http_limits::EJECTION_PERCENT;
    let counts = [
        ("consecutive_failures", raw.consecutive_failures, failures),
        ("failure_percent", raw.failure_percent, percent),
        ("max_percent", raw.max_percent, percent),
    ];
    let [consecutive_failures, failure_percent, share_percent_max] =
        counts.map(|(key, field, range)| number(key, &location, field, range, diagnostics));
    let time = |text: &Text| scalar::duration(text, &http_limits::EJECTION_TIME, "");
    let first = diagnostics.optional(&location, "first", raw.first, time);
    let least = first.flatten().unwrap_or(default.first);
    let range = least..=*http_limits::EJECTION_TIME.end();
    let longest = diagnostics.optional(&location, "longest", raw.longest, |text| {
        scalar::duration(text, &range, ": not below `first`")
    });
    let policy = EjectionPolicy {
        consecutive_failures: consecutive_failures?.unwrap_or(default.consecutive_failures),
        failure_percent: failure_percent?.unwrap_or(default.failure_percent),
        share_percent_max: share_percent_max?.unwrap_or(default.share_percent_max),
        first: first?.unwrap_or(default.first),
        longest: longest?.unwrap_or(default.longest.max(least)),
        ..default
    };
    Some(is_enabled?.unwrap_or(true).then_some(policy))
}

fn number(
    key: &str,
    location: &Location,
    field: Field<i64>,
    range: &RangeInclusive<u64>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<u32>> {
    diagnostics.optional(location, key, field, |number| {
        let number = scalar::count(*number, range, "")?;
        u32::try_from(number).map_err(|error| error.to_string())
    })
}
