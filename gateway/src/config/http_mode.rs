//! Mode "http" of a listener: its bounds, what backends are told of its clients, its routes.
//! In: the section as written, then rules and routes. Out: an `HttpMode`, and from it what is known of each client. Keys of this mode
//! are errors on other listeners, and the reverse.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::certificate::{Certificate, Identity};
use gateway_core::http::forward::Client;
use gateway_core::http::limits as http_limits;
use gateway_core::http::message::{ReservedNames, ToldFields};
use gateway_core::http::policy::{Rights, RouteTable};
use gateway_core::identity::{Rule, Rules, Tenant};

use super::checked::Mode;
use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawHeaders, RawListener, Text};
use super::value::{Field, Spanned};
use super::{headers, scalar};

/// Application protocols of a listener that names none.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How requests of a listener are served.
#[derive(Debug, Clone)]
pub struct HttpMode {
    /// How long a client may take for a header section, from its first byte on; and for the first one of a connection.
    pub header_timeout: Duration,
    /// How long nothing may come of a request that has begun, while it is not complete.
    pub request_idle_timeout: Duration,
    /// The size of a request's header section, as RFC 9113 section 6.5.2 counts it.
    pub max_request_headers: usize,
    /// The size of a request's content. Requests of gRPC have no bound: their streams have no end.
    pub max_request_body: u64,
    /// Requests at once on a connection.
    pub max_streams: u32,
    /// Whether the gateway answers `grpc.health.v1` itself.
    pub grpc_health: bool,
    /// What backends are told of clients, unless their rules say otherwise.
    pub told: ToldFields,
    /// Names that no client may use: those of the listener, and of every rule that holds for it.
    pub reserved: Arc<ReservedNames>,
    /// Where requests go.
    pub routes: RouteTable,
}

impl HttpMode {
    /// What the forwarder needs to know of a client that a rule has admitted as this identity and tenant, and what the client
    /// may call.
    pub fn client(
        &self,
        rule: &Rule,
        (identity, tenant): (&Identity, Option<&Tenant>),
        certificate: &Certificate,
        address: IpAddr,
    ) -> (Client, Arc<Rights>) {
        let merged = rule.told.as_ref().map(|told| self.told.with(told));
        let told = merged.as_ref().unwrap_or(&self.told);
        let client = Client {
            reserved: Arc::clone(&self.reserved),
            told: told.of_client(certificate, identity, address.to_canonical()),
            tenants: rule.tenant.allowed(tenant),
            tenant_name: told.tenant_name().into(),
            content_bytes_max: self.max_request_body,
            header_list_bytes_max: self.max_request_headers,
            streams_max: self.max_streams,
            header_timeout: self.header_timeout,
            request_idle_timeout: self.request_idle_timeout,
        };
        let rights = rule.rights.as_ref().map(Arc::clone);
        (client, rights.unwrap_or_default())
    }

    /// The same at a listener for which these rules hold: their names are reserved as well.
    pub fn with_rules(&self, position: usize, rules: &Rules) -> Self {
        let holding = rules.as_slice().iter();
        let holding = holding.filter(|rule| rule.holds_for(position));
        let told = holding.filter_map(|rule| rule.told.as_deref());
        let names = self.told.names().chain(told.flat_map(ToldFields::names));
        HttpMode {
            reserved: Arc::new(ReservedNames::new(names)),
            ..self.clone()
        }
    }
}

/// Whether `mode` is this one; `None` if it is none at all.
pub(super) fn is_http(mode: &Field<Text>) -> Option<bool> {
    match mode {
        Field::Absent => Some(false),
        Field::Wrong => None,
        Field::Given(item) => match item.value.as_str() {
            "http" => Some(true),
            "stream" => Some(false),
            _ => None,
        },
    }
}

/// The keys of this mode, as written.
pub(super) struct RawHttp {
    header_timeout: Field<Text>,
    request_idle_timeout: Field<Text>,
    max_request_headers: Field<Text>,
    max_request_body: Field<Text>,
    max_streams: Field<i64>,
    grpc_health: Field<bool>,
    headers: Field<RawHeaders>,
}

impl RawHttp {
    /// Takes them out of a listener.
    pub(super) fn of(raw: &mut RawListener) -> Self {
        fn take<T>(field: &mut Field<T>) -> Field<T> {
            std::mem::replace(field, Field::Absent)
        }
        RawHttp {
            header_timeout: take(&mut raw.header_timeout),
            request_idle_timeout: take(&mut raw.request_idle_timeout),
            max_request_headers: take(&mut raw.max_request_headers),
            max_request_body: take(&mut raw.max_request_body),
            max_streams: take(&mut raw.max_streams),
            grpc_health: take(&mut raw.grpc_health),
            headers: take(&mut raw.headers),
        }
    }

    /// Each key with where it stands, if it is there.
    fn marks(&self) -> [(&'static str, Option<Spanned<()>>); 7] {
        [
            ("header_timeout", mark(&self.header_timeout)),
            ("request_idle_timeout", mark(&self.request_idle_timeout)),
            ("max_request_headers", mark(&self.max_request_headers)),
            ("max_request_body", mark(&self.max_request_body)),
            ("max_streams", mark(&self.max_streams)),
            ("grpc_health", mark(&self.grpc_health)),
            ("headers", mark(&self.headers)),
        ]
    }
}

/// Where a field stands, and what is written there.
pub(super) fn mark<T>(field: &Field<T>) -> Option<Spanned<()>> {
    match field {
        Field::Given(item) => Some(Spanned {
            value: (),
            written: item.written.clone(),
            line: item.line,
        }),
        Field::Absent | Field::Wrong => None,
    }
}

/// Checks the mode of a listener, with the keys that belong to it. Its routes are still to come.
pub(super) fn check(
    location: &Location,
    is_http: Option<bool>,
    raw: RawHttp,
    quiet_timeout: &Field<Text>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Mode> {
    let others = match is_http? {
        true => vec![("quiet_timeout", mark(quiet_timeout))],
        false => raw.marks().to_vec(),
    };
    let (own, other) = match is_http? {
        true => ("http", "stream"),
        false => ("stream", "http"),
    };
    for (key, mark) in others {
        if let Some(item) = mark {
            let text = format_args!(
                "is for listeners of mode \"{other}\", and this one's is \"{own}\": remove it"
            );
            diagnostics.wrong(location, key, &item, text);
        }
    }
    match is_http? {
        true => http(location, raw, diagnostics).map(|mode| Mode::Http(Arc::new(mode))),
        false => Some(Mode::Stream),
    }
}

fn http(location: &Location, raw: RawHttp, diagnostics: &mut Diagnostics<'_>) -> Option<HttpMode> {
    let header = diagnostics.optional(location, "header_timeout", raw.header_timeout, |text| {
        scalar::duration(text, &http_limits::HEADER_TIMEOUT, "")
    });
    let idle = raw.request_idle_timeout;
    let idle = diagnostics.optional(location, "request_idle_timeout", idle, |text| {
        scalar::duration(text, &http_limits::REQUEST_IDLE_TIMEOUT, "")
    });
    let headers_max = raw.max_request_headers;
    let headers_max = diagnostics.optional(location, "max_request_headers", headers_max, |text| {
        let bytes = scalar::size(text, &http_limits::REQUEST_HEADER_BYTES)?;
        usize::try_from(bytes).map_err(|error| error.to_string())
    });
    let body_max = raw.max_request_body;
    let body_max = diagnostics.optional(location, "max_request_body", body_max, |text| {
        scalar::size(text, &http_limits::REQUEST_CONTENT_BYTES)
    });
    let streams = diagnostics.optional(location, "max_streams", raw.max_streams, |count| {
        let count = scalar::count(*count, &http_limits::CLIENT_STREAMS, "")?;
        u32::try_from(count).map_err(|error| error.to_string())
    });
    let health = diagnostics.optional(location, "grpc_health", raw.grpc_health, |on| Ok(*on));
    let told = headers::check(raw.headers, diagnostics);
    Some(HttpMode {
        header_timeout: header?.unwrap_or(http_limits::HEADER_TIMEOUT_DEFAULT),
        request_idle_timeout: idle?.unwrap_or(http_limits::REQUEST_IDLE_TIMEOUT_DEFAULT),
        max_request_headers: headers_max?.unwrap_or(http_limits::REQUEST_HEADER_BYTES_DEFAULT),
        max_request_body: body_max?.unwrap_or(http_limits::REQUEST_CONTENT_BYTES_DEFAULT),
        max_streams: streams?.unwrap_or(http_limits::CLIENT_STREAMS_MAX),
        grpc_health: health?.unwrap_or(false),
        told: told?.unwrap_or_default(),
        reserved: Arc::new(ReservedNames::new([])),
        routes: RouteTable::default(),
    })
}

/// Application protocols of a listener of this mode: what it names, or both that there are.
pub(super) fn protocols(
    location: &Location,
    named: Vec<Vec<u8>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<Vec<u8>>> {
    if named.is_empty() {
        return Some(PROTOCOLS.map(<[u8]>::to_vec).to_vec());
    }
    let is_ours = |protocol: &&Vec<u8>| PROTOCOLS.contains(&protocol.as_slice());
    let Some(other) = named.iter().find(|protocol| !is_ours(protocol)) else {
        return Some(named);
    };
    let text = format_args!(
        "must hold \"h2\", \"http/1.1\" or both in mode \"http\", and no \"{}\"",
        other.escape_ascii()
    );
    diagnostics.refuse(location.line, location.key("alpn"), text);
    None
}
