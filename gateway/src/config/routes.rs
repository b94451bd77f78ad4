//! `[[route]]`: which backend takes which requests or streams of a listener. In: the sections as written, the listeners, the rules.
//! Out: each listener with its routes, in the order of the file.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use gateway_core::http::message::{PathPrefix, is_authority, is_value};
use gateway_core::http::policy::{
    Canary, CanaryShare, FieldMatch, FieldSource, Mirror, Route, RouteTable,
};
use gateway_core::identity::{Rules, Tenant};
use gateway_core::limits;
use gateway_core::pattern::Pattern;
use gateway_core::stream_route::{StreamRoute, StreamRoutes};

use super::allow::{self, Written};
use super::backend::Names;
use super::checked::{Destination, Mode};
use super::diagnostics::{Diagnostics, Location};
use super::http_mode::{HttpMode, mark};
use super::ids::BackendId;
use super::listener::CheckedListener;
use super::raw::{RawCanary, RawMirror, RawRoute};
use super::value::{Field, OneOrMore, Pairs, Sections};
use super::{headers, scalar};

/// A field's name in lower case, and its value.
type NameAndValue = (Box<[u8]>, Box<[u8]>);

/// A route that is right but for its fields: whose word those are, each listener says.
struct CheckedRoute {
    location: Location,
    listeners: Vec<usize>,
    fields: Vec<NameAndValue>,
    route: Route,
    stream: StreamRoute,
}

/// Gives each listener its routes, and those of mode "http" the names that rules add to those that no client may use.
pub(super) fn check_all(
    field: Field<Sections<RawRoute>>,
    listeners: &mut [CheckedListener],
    (rules, backends): (&Rules, &Names),
    diagnostics: &mut Diagnostics<'_>,
) {
    let sections = field.sections().unwrap_or_default();
    let is_written = |position: usize, raw: &RawRoute, listeners: &[CheckedListener]| {
        let name = listeners[position].name();
        let named = raw.listener.clone().given();
        let named = named.map(|item| item.value.0).unwrap_or_default();
        named.iter().any(|item| Some(item.value.as_str()) == name)
    };
    for (position, listener) in listeners.iter().enumerate() {
        let has_route = sections
            .iter()
            .any(|raw| is_written(position, raw, listeners));
        let is_ours = listener.is_http.is_some() && !listener.is_for_metrics;
        let is_lost = is_ours && !listener.has_backend && !has_route;
        if is_lost {
            let text = "give the name of a [[backend]], or a [[route]] for this listener";
            diagnostics.missing(&listener.location, "backend", text);
        }
    }
    let routes = sections.into_iter();
    let routes: Vec<_> = routes
        .filter_map(|raw| check(raw, listeners, backends, diagnostics))
        .collect();
    for (position, listener) in listeners.iter_mut().enumerate() {
        let backend = listener.backend.map(|BackendId(position)| position);
        let Some(checked) = &mut listener.checked else {
            continue;
        };
        let own = routes.iter();
        let own = own.filter(|route| route.listeners.contains(&position));
        let Mode::Http(mode) = &checked.mode else {
            let own: Vec<_> = own.map(|route| route.stream.clone()).collect();
            if !own.is_empty() {
                let routes = StreamRoutes::new(own, backend);
                checked.destination = Destination::Streams(Arc::new(routes));
            }
            continue;
        };
        let mode = mode.with_rules(position, rules);
        let own: Vec<_> = own.collect();
        let applied = own.iter().map(|route| on_listener(route, &mode));
        let table = RouteTable::new(applied.collect(), backend);
        warn_of_unreachable(&own, &table, &checked.name, diagnostics);
        checked.mode = Mode::Http(Arc::new(HttpMode {
            routes: table,
            ..mode
        }));
    }
}

/// Warns of routes of a listener that no request can reach; of so many at most.
fn warn_of_unreachable(
    routes: &[&CheckedRoute],
    table: &RouteTable,
    listener: &str,
    diagnostics: &mut Diagnostics<'_>,
) {
    let mut left = limits::RULE_WARNINGS_MAX;
    for (position, route) in routes.iter().enumerate() {
        let earlier = table.covering(position);
        if earlier.is_empty() || left == 0 {
            continue;
        }
        let lines = earlier
            .iter()
            .map(|at| routes[*at].location.line.to_string());
        let lines: Vec<_> = lines.collect();
        let (noun, verb) = match lines.len() {
            1 => ("the route at line", "takes"),
            _ => ("the routes at lines", "take"),
        };
        let text = format_args!(
            "never reached on listener \"{listener}\": {noun} {} {verb} all of its requests before; put it first, or remove it",
            lines.join(", ")
        );
        diagnostics.warn(route.location.line, &route.location.label, text);
        left -= 1;
    }
}

/// The route with its fields, as one listener has them.
fn on_listener(checked: &CheckedRoute, mode: &HttpMode) -> Route {
    let fields = checked.fields.iter().map(|(name, value)| {
        let source = match name {
            name if **name == *mode.told.tenant_name() => FieldSource::Tenant,
            name if mode.reserved.contains(name) => FieldSource::Told(name.clone()),
            name => FieldSource::Sent(name.clone()),
        };
        FieldMatch {
            source,
            value: value.clone(),
        }
    });
    Route {
        fields: fields.collect(),
        ..checked.route.clone()
    }
}

fn check(
    raw: RawRoute,
    listeners: &[CheckedListener],
    backends: &Names,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<CheckedRoute> {
    let location = raw.location.clone();
    let on = on(&location, raw.listener.clone(), listeners, diagnostics);
    let named: Vec<_> = on.iter().flatten().map(|at| &listeners[*at]).collect();
    refuse_useless(&raw, &named, diagnostics);
    let hosts = allow::hosts(&location, raw.host, diagnostics);
    let protocols = protocols(&location, raw.alpn, &named, diagnostics);
    let identities = allow::listed(&location, "identity", raw.identity, diagnostics, |text| {
        Pattern::parse(text).map_err(|error| error.to_string())
    });
    let of_tenants = tenants(&location, raw.tenants, diagnostics);
    let has_service = !matches!(raw.service, Field::Absent);
    let written = Written {
        methods: raw.methods,
        path: raw.path,
        service: raw.service,
    };
    let targets = allow::targets(&location, written, diagnostics);
    let fields = fields(&location, raw.header, diagnostics);
    let backend = backend(&location, raw.backend, backends, diagnostics);
    let canary = canary(raw.canary, backends, diagnostics);
    let mirror = mirror(raw.mirror, backends, diagnostics);
    let prefix = raw.replace_prefix;
    let prefix = diagnostics.optional(
        &location,
        "replace_prefix",
        prefix,
        |text| match has_service {
            true => {
                Err("must not stand beside service: its paths are those of its methods".to_owned())
            }
            false => PathPrefix::parse(text).map_err(|error| error.to_string()),
        },
    );
    let authority = raw.replace_host;
    let authority =
        diagnostics.optional(
            &location,
            "replace_host",
            authority,
            |text| match is_authority(text.as_bytes()) {
                true => Ok(Box::from(text.as_bytes())),
                false => Err("must be a host, with a port or without".to_owned()),
            },
        );
    let (hosts, BackendId(backend)) = (hosts?, backend?);
    Some(CheckedRoute {
        listeners: on?,
        location,
        fields: fields?,
        stream: StreamRoute {
            hosts: hosts.clone(),
            protocols: protocols?,
            identities: identities?,
            tenants: of_tenants?.unwrap_or_default(),
            backend,
        },
        route: Route {
            hosts,
            targets: targets?,
            fields: Vec::new(),
            backend,
            canary: canary?,
            mirror: mirror?,
            prefix: prefix?,
            authority: authority?,
        },
    })
}

/// Positions of the listeners that a route is for.
fn on(
    location: &Location,
    field: Field<OneOrMore>,
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<usize>> {
    if matches!(field, Field::Absent) {
        diagnostics.missing(location, "listener", "give the name of a [[listener]]");
        return None;
    }
    allow::listed(location, "listener", field, diagnostics, |text| {
        let mut all = listeners.iter();
        let found = all.position(|listener| listener.name() == Some(text));
        found.ok_or_else(|| {
            let known: Vec<_> = listeners.iter().filter_map(CheckedListener::name).collect();
            format!("must name a [[listener]]: {}", known.join(", "))
        })
    })
}

/// Refuses keys that have no meaning on one of the listeners that a route names.
fn refuse_useless(raw: &RawRoute, named: &[&CheckedListener], diagnostics: &mut Diagnostics<'_>) {
    let of_requests = [
        ("path", mark(&raw.path)),
        ("service", mark(&raw.service)),
        ("methods", mark(&raw.methods)),
        ("header", mark(&raw.header)),
        ("canary", mark(&raw.canary)),
        ("mirror", mark(&raw.mirror)),
        ("replace_prefix", mark(&raw.replace_prefix)),
        ("replace_host", mark(&raw.replace_host)),
    ];
    let of_streams = [
        ("alpn", mark(&raw.alpn)),
        ("identity", mark(&raw.identity)),
        ("tenants", mark(&raw.tenants)),
    ];
    for (keys, is_for_http, own, other) in [
        (of_requests.as_slice(), true, "http", "stream"),
        (of_streams.as_slice(), false, "stream", "http"),
    ] {
        let mut named = named.iter();
        let is_other = |listener: &&&CheckedListener| listener.is_http == Some(!is_for_http);
        let Some(listener) = named.find(is_other).and_then(|listener| listener.name()) else {
            continue;
        };
        for (key, mark) in keys {
            if let Some(item) = mark {
                let text = format_args!(
                    "is for listeners of mode \"{own}\", and that of \"{listener}\" is \"{other}\": remove it"
                );
                diagnostics.wrong(&raw.location, key, item, text);
            }
        }
    }
}

/// Application protocols that a stream may have: those that its listeners let clients choose.
fn protocols(
    location: &Location,
    field: Field<OneOrMore>,
    named: &[&CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<Vec<u8>>> {
    allow::listed(location, "alpn", field, diagnostics, |text| {
        let protocol = scalar::alpn(text)?;
        let lacks_it = |listener: &&&CheckedListener| {
            let checked = listener.checked.as_ref();
            checked.is_some_and(|checked| !checked.alpn.contains(&protocol))
        };
        let mut named = named.iter();
        match named.find(lacks_it).and_then(|listener| listener.name()) {
            Some(listener) => Err(format!(
                "must stand in alpn of listener \"{listener}\" as well"
            )),
            None => Ok(protocol),
        }
    })
}

/// Names and values of fields that a request has to have.
fn fields(
    location: &Location,
    field: Field<Pairs<String>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<NameAndValue>> {
    let pairs = match field {
        Field::Absent => return Some(Vec::new()),
        given => given.given()?.value.0,
    };
    let count = pairs.len();
    let mut fields = Vec::new();
    for (written, item) in pairs {
        let found =
            headers::name(&written).and_then(|name| match is_value(item.value.as_bytes()) {
                true => Ok((name, Box::from(item.value.as_bytes()))),
                false => Err("must be one line, without white space at its ends".to_owned()),
            });
        match found {
            Ok(field) => fields.push(field),
            Err(expectation) => {
                let key = format!("header: {written}");
                diagnostics.wrong(location, &key, &item, expectation);
            }
        }
    }
    (fields.len() == count).then_some(fields)
}

fn canary(
    field: Field<RawCanary>,
    backends: &Names,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Canary>> {
    let raw = match field {
        Field::Absent => return Some(None),
        given => given.given()?.value,
    };
    let location = raw.location;
    let backend = backend(&location, raw.backend, backends, diagnostics);
    let percent = percent(&location, raw.percent, &(1..=99), diagnostics);
    let tenants = tenants(&location, raw.tenants, diagnostics);
    let share = match (percent?, tenants?) {
        (Some(percent), None) => CanaryShare::Percent(percent),
        (None, Some(tenants)) => CanaryShare::Tenants(tenants),
        (Some(_), Some(_)) | (None, None) => {
            let text = "must have percent or tenants, one of the two";
            diagnostics.refuse(location.line, location.label, text);
            return None;
        }
    };
    Some(Some(Canary {
        backend: backend?.0,
        share,
    }))
}

fn mirror(
    field: Field<RawMirror>,
    backends: &Names,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Mirror>> {
    let raw = match field {
        Field::Absent => return Some(None),
        given => given.given()?.value,
    };
    let location = raw.location;
    let backend = backend(&location, raw.backend, backends, diagnostics);
    let percent = percent(&location, raw.percent, &(1..=100), diagnostics);
    Some(Some(Mirror {
        backend: backend?.0,
        percent: percent?.unwrap_or(100),
    }))
}

/// The backend that a section names.
fn backend(
    location: &Location,
    field: Field<String>,
    backends: &Names,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<BackendId> {
    let missing = "give the name of a [[backend]]";
    diagnostics.required(location, "backend", field, missing, |text| {
        backends.find(text)
    })
}

/// A share of requests; `Some(None)` if the key is absent.
fn percent(
    location: &Location,
    field: Field<i64>,
    bounds: &RangeInclusive<u64>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<u8>> {
    diagnostics.optional(location, "percent", field, |count| {
        let count = scalar::count(*count, bounds, " of a hundred requests")?;
        u8::try_from(count).map_err(|error| error.to_string())
    })
}

/// A set of tenants; `Some(None)` if the key is absent.
fn tenants(
    location: &Location,
    field: Field<OneOrMore>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<BTreeSet<Tenant>>> {
    if matches!(field, Field::Absent) {
        return Some(None);
    }
    let list = allow::listed(location, "tenants", field, diagnostics, |text| {
        Tenant::parse(text).map_err(|error| error.to_string())
    });
    Some(Some(list?.into_iter().collect()))
}
