//! `[[route]]`: which backend takes which requests of an HTTP listener. In: the sections as written, the listeners, the rules. Out:
//! each HTTP listener with its routes, in the order of the file.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_core::http::message::{PathPrefix, is_authority, is_value};
use gateway_core::http::policy::{Canary, CanaryShare, FieldMatch, FieldSource, Route, RouteTable};
use gateway_core::identity::{Rules, Tenant};

use super::allow::{self, Written};
use super::backend::Names;
use super::checked::Mode;
use super::diagnostics::{Diagnostics, Location};
use super::http_mode::HttpMode;
use super::ids::BackendId;
use super::listener::CheckedListener;
use super::raw::{RawCanary, RawRoute};
use super::value::{Field, OneOrMore, Pairs, Sections};
use super::{headers, scalar};

/// A field's name in lower case, and its value.
type NameAndValue = (Box<[u8]>, Box<[u8]>);

/// A route that is right but for its fields: whose word those are, each listener says.
struct CheckedRoute {
    listeners: Vec<usize>,
    fields: Vec<NameAndValue>,
    route: Route,
}

/// Gives each HTTP listener its routes, and the names that rules add to those that no client may use.
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
        let is_lost = listener.is_http == Some(true) && !listener.has_backend && !has_route;
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
        let Mode::Http(mode) = &checked.mode else {
            continue;
        };
        let mode = mode.with_rules(position, rules);
        let own = routes.iter();
        let own = own.filter(|route| route.listeners.contains(&position));
        let own = own.map(|route| on_listener(route, &mode)).collect();
        let routes = RouteTable::new(own, backend);
        checked.mode = Mode::Http(Arc::new(HttpMode { routes, ..mode }));
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
    let on = on(&location, raw.listener, listeners, diagnostics);
    let hosts = allow::hosts(&location, raw.host, diagnostics);
    let has_service = !matches!(raw.service, Field::Absent);
    let written = Written {
        methods: raw.methods,
        path: raw.path,
        service: raw.service,
    };
    let targets = allow::targets(&location, written, diagnostics);
    let fields = fields(&location, raw.header, diagnostics);
    let missing = "give the name of a [[backend]]";
    let backend = diagnostics.required(&location, "backend", raw.backend, missing, |text| {
        backends.find(text)
    });
    let canary = canary(raw.canary, backends, diagnostics);
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
    Some(CheckedRoute {
        listeners: on?,
        fields: fields?,
        route: Route {
            hosts: hosts?,
            targets: targets?,
            fields: Vec::new(),
            backend: backend?.0,
            canary: canary?,
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
        diagnostics.missing(
            location,
            "listener",
            "give the name of a [[listener]] of mode \"http\"",
        );
        return None;
    }
    allow::listed(location, "listener", field, diagnostics, |text| {
        let mut all = listeners.iter();
        let found = all.position(|listener| listener.name() == Some(text));
        let is_stream = |at: usize| listeners[at].is_http == Some(false);
        match found {
            Some(at) if is_stream(at) => Err("must be a listener of mode \"http\"".to_owned()),
            Some(at) => Ok(at),
            None => {
                let known: Vec<_> = listeners.iter().filter_map(CheckedListener::name).collect();
                Err(format!("must name a [[listener]]: {}", known.join(", ")))
            }
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
    let missing = "give the name of a [[backend]]";
    let backend = diagnostics.required(&location, "backend", raw.backend, missing, |text| {
        backends.find(text)
    });
    let percent = diagnostics.optional(&location, "percent", raw.percent, |count| {
        let count = scalar::count(*count, &(1..=99), " of a hundred requests")?;
        u8::try_from(count).map_err(|error| error.to_string())
    });
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
