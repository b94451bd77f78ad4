//! What a backend is for HTTP listeners: the protocol towards its servers, times and bounds. In: the section as written. Out: an
//! `HttpBackend`. These keys are errors on a backend that no HTTP listener uses; what is for streams, on one that no other does.

use std::time::Duration;

use gateway_core::alpn;
use gateway_core::http::forward::HttpVersion;
use gateway_core::http::limits as http_limits;
use gateway_core::http::policy::HashKey;
use gateway_core::http::pool::EjectionPolicy;

use super::backend::CheckedBackend;
use super::checked::{ProxyProtocol, ServerShare};
use super::diagnostics::{Diagnostics, Location};
use super::health::{self, HealthChecks};
use super::http_mode::mark;
use super::raw::{RawBackend, RawEjection, RawHashHeader, RawHealth, Text};
use super::value::{Field, Spanned, TextOrTable};
use super::{headers, scalar};

/// The protocol towards the servers of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendProtocol {
    /// What the server chooses by ALPN; HTTP/1.1 in clear.
    Auto,
    /// HTTP/2; in clear with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// HTTP/1.1.
    Http1,
}

impl BackendProtocol {
    /// What a server is offered over TLS (RFC 7301), in order of preference.
    pub const fn offer(self) -> &'static [&'static [u8]] {
        match self {
            BackendProtocol::Auto => &[alpn::HTTP_2, alpn::HTTP_1_1],
            BackendProtocol::Http2 => &[alpn::HTTP_2],
            BackendProtocol::Http1 => &[alpn::HTTP_1_1],
        }
    }

    /// The version that a server speaks which chose `protocol`; none over plain TCP.
    pub fn version(self, protocol: Option<&[u8]>) -> HttpVersion {
        match (self, protocol) {
            (BackendProtocol::Http2, _) => HttpVersion::Http2,
            (BackendProtocol::Auto, Some(alpn::HTTP_2)) => HttpVersion::Http2,
            (BackendProtocol::Auto | BackendProtocol::Http1, _) => HttpVersion::Http1,
        }
    }

    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            BackendProtocol::Auto => "auto",
            BackendProtocol::Http2 => "h2",
            BackendProtocol::Http1 => "http/1.1",
        }
    }
}

/// What a backend is for HTTP listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpBackend {
    /// The protocol towards its servers.
    pub protocol: BackendProtocol,
    /// How long a request waits for a server.
    pub patience: Duration,
    /// From the end of a request to the first byte of its response.
    pub response_timeout: Duration,
    /// How long nothing may move on a stream whose response has begun.
    pub stream_idle_timeout: Duration,
    /// How long a connection of HTTP/2 with requests may be silent before its server is asked for a sign of life.
    pub ping_interval: Duration,
    /// Connections to one server, over all workers.
    pub max_connections: u32,
    /// Requests in flight at one server, over all workers.
    pub max_requests: u32,
    /// What keeps requests together at a server; `None`: nothing does.
    pub hash: Option<HashKey>,
    /// The shares of its servers, in their order.
    pub shares: Vec<ServerShare>,
    /// How long a server that comes back takes less than its share.
    pub slow_start: Duration,
    /// When servers are ejected, if ever.
    pub ejection: Option<EjectionPolicy>,
    /// How servers are checked, if they are.
    pub health: Option<HealthChecks>,
}

/// The keys, as written.
pub(super) struct RawHttpBackend {
    protocol: Field<Text>,
    patience: Field<Text>,
    response_timeout: Field<Text>,
    stream_idle_timeout: Field<Text>,
    ping_interval: Field<Text>,
    max_connections: Field<i64>,
    max_requests: Field<i64>,
    hash: Field<TextOrTable<RawHashHeader>>,
    slow_start: Field<Text>,
    health: Field<RawHealth>,
    ejection: Field<RawEjection>,
}

impl RawHttpBackend {
    /// Takes them out of a backend.
    pub(super) fn of(raw: &mut RawBackend) -> Self {
        fn take<T>(field: &mut Field<T>) -> Field<T> {
            std::mem::replace(field, Field::Absent)
        }
        RawHttpBackend {
            protocol: take(&mut raw.protocol),
            patience: take(&mut raw.patience),
            response_timeout: take(&mut raw.response_timeout),
            stream_idle_timeout: take(&mut raw.stream_idle_timeout),
            ping_interval: take(&mut raw.ping_interval),
            max_connections: take(&mut raw.max_connections),
            max_requests: take(&mut raw.max_requests),
            hash: take(&mut raw.hash),
            slow_start: take(&mut raw.slow_start),
            health: take(&mut raw.health),
            ejection: take(&mut raw.ejection),
        }
    }

    /// The keys that are there, and where.
    pub(super) fn marks(&self) -> Vec<(&'static str, Spanned<()>)> {
        let all = [
            ("protocol", mark(&self.protocol)),
            ("patience", mark(&self.patience)),
            ("response_timeout", mark(&self.response_timeout)),
            ("stream_idle_timeout", mark(&self.stream_idle_timeout)),
            ("ping_interval", mark(&self.ping_interval)),
            ("max_connections", mark(&self.max_connections)),
            ("max_requests", mark(&self.max_requests)),
            ("hash", mark(&self.hash)),
            ("slow_start", mark(&self.slow_start)),
            ("health", mark(&self.health)),
            ("ejection", mark(&self.ejection)),
        ];
        let given = all.into_iter();
        given.filter_map(|(key, mark)| Some((key, mark?))).collect()
    }
}

/// Checks the keys of a backend.
pub(super) fn check(
    location: &Location,
    raw: RawHttpBackend,
    shares: Vec<ServerShare>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<HttpBackend> {
    let protocol = diagnostics.optional(location, "protocol", raw.protocol, |text| {
        match text.as_str() {
            "auto" => Ok(BackendProtocol::Auto),
            "h2" => Ok(BackendProtocol::Http2),
            "http/1.1" => Ok(BackendProtocol::Http1),
            _ => Err("must be \"auto\", \"h2\" or \"http/1.1\"".to_owned()),
        }
    });
    let patience = diagnostics.optional(location, "patience", raw.patience, |text| {
        scalar::duration(text, &http_limits::PATIENCE, "")
    });
    let response = raw.response_timeout;
    let response = diagnostics.optional(location, "response_timeout", response, |text| {
        scalar::duration(text, &http_limits::RESPONSE_TIMEOUT, "")
    });
    let idle = raw.stream_idle_timeout;
    let idle = diagnostics.optional(location, "stream_idle_timeout", idle, |text| {
        scalar::duration(text, &http_limits::STREAM_IDLE_TIMEOUT, "")
    });
    let ping = diagnostics.optional(location, "ping_interval", raw.ping_interval, |text| {
        scalar::duration(text, &http_limits::PING_INTERVAL, "")
    });
    let counts = [
        (
            "max_connections",
            raw.max_connections,
            &http_limits::SERVER_CONNECTIONS,
        ),
        (
            "max_requests",
            raw.max_requests,
            &http_limits::SERVER_REQUESTS,
        ),
    ];
    let [connections, requests] = counts.map(|(key, field, range)| {
        diagnostics.optional(location, key, field, |count| {
            let count = scalar::count(*count, range, "")?;
            u32::try_from(count).map_err(|error| error.to_string())
        })
    });
    let hash = hash(location, raw.hash, diagnostics);
    let slow_start = diagnostics.optional(location, "slow_start", raw.slow_start, |text| {
        scalar::duration(text, &http_limits::SLOW_START, "")
    });
    let health = health::check_health(raw.health, diagnostics);
    let ejection = health::check_ejection(raw.ejection, diagnostics);
    Some(HttpBackend {
        protocol: protocol?.unwrap_or(BackendProtocol::Auto),
        patience: patience?.unwrap_or(http_limits::PATIENCE_DEFAULT),
        response_timeout: response?.unwrap_or(http_limits::RESPONSE_TIMEOUT_DEFAULT),
        stream_idle_timeout: idle?.unwrap_or(http_limits::STREAM_IDLE_TIMEOUT_DEFAULT),
        ping_interval: ping?.unwrap_or(http_limits::PING_INTERVAL_DEFAULT),
        max_connections: connections?.unwrap_or(http_limits::SERVER_CONNECTIONS_DEFAULT),
        max_requests: requests?.unwrap_or(http_limits::SERVER_REQUESTS_DEFAULT),
        hash: hash?,
        shares,
        slow_start: slow_start?.unwrap_or(Duration::ZERO),
        ejection: ejection?,
        health: health?,
    })
}

fn hash(
    location: &Location,
    field: Field<TextOrTable<RawHashHeader>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<HashKey>> {
    let expected = "must be \"tenant\", \"identity\" or a table such as { header = \"X-Shard\" }";
    let item = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    match &item.value {
        TextOrTable::Text(text) => match text.as_str() {
            "tenant" => Some(Some(HashKey::Tenant)),
            "identity" => Some(Some(HashKey::Identity)),
            _ => {
                diagnostics.wrong(location, "hash", &item, expected);
                None
            }
        },
        TextOrTable::Table(raw) => {
            let header = raw.header.clone();
            let missing = "name the header, such as \"X-Shard\"";
            let name = diagnostics.required(&raw.location, "header", header, missing, |text| {
                headers::name(text)
            });
            Some(Some(HashKey::Header(name?)))
        }
    }
}

/// Which listeners a backend takes requests or connections of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BackendUsage {
    /// Requests of HTTP listeners.
    pub(super) by_http: bool,
    /// Connections of stream listeners.
    pub(super) by_stream: bool,
}

/// Refuses the keys of a backend that have no effect for what uses it.
pub(super) fn refuse_useless(
    backend: &CheckedBackend,
    usage: BackendUsage,
    diagnostics: &mut Diagnostics<'_>,
) {
    let location = &backend.location;
    if usage.by_stream && !usage.by_http {
        for (key, item) in &backend.http_keys {
            let text =
                "is for backends of listeners of mode \"http\", and none uses this one: remove it";
            diagnostics.wrong(location, key, item, text);
        }
    }
    let Some(checked) = backend.checked.as_ref().filter(|_| usage.by_http) else {
        return;
    };
    if let (Some(item), false) = (&backend.alpn, usage.by_stream) {
        let text = "is for backends of listeners of mode \"stream\": say protocol = \"h2\" or \"http/1.1\" of the backend instead";
        diagnostics.wrong(location, "tls: alpn", item, text);
    }
    if checked.proxy_protocol != ProxyProtocol::Off {
        let text = "must be false: clients of a listener of mode \"http\" share connections, so no header of one can speak for \
                    them; say what the backend is told in [listener.headers]";
        diagnostics.refuse(location.line, location.key("proxy_protocol"), text);
    }
}
