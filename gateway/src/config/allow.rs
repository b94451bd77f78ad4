//! `allow` of an identity rule: what its clients may call on HTTP listeners. In: ready sets by name, and tables of networks,
//! hosts, methods, paths and services. Out: `Rights`.

use std::net::IpAddr;

use gateway_core::http::message::{PathPrefix, is_method};
use gateway_core::http::policy::{Grant, HostPattern, ReadySet, Rights, Target};
use ipnet::IpNet;

use super::diagnostics::{Diagnostics, Location};
use super::raw::{RawAllow, RawAllowEntry, RawGrant, Texts};
use super::value::{Field, OneOrMore, Spanned};

/// Reads `allow`.
pub(super) fn check(
    location: &Location,
    list: Spanned<RawAllow>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Rights> {
    if list.value.is_empty() {
        let text = "must have at least one element, such as \"otlp\": without it, no request is let through";
        diagnostics.wrong(location, "allow", &list, text);
        return None;
    }
    let count = list.value.len();
    let grants = list.value.into_iter().filter_map(|entry| match entry {
        RawAllowEntry::Set(item) => match ready_set(&item.value) {
            Ok(ready) => Some(of_set(ready)),
            Err(expectation) => {
                diagnostics.wrong(location, "allow", &item, expectation);
                None
            }
        },
        RawAllowEntry::Table(raw) => grant(*raw, diagnostics),
    });
    let grants: Vec<_> = grants.collect();
    (grants.len() == count).then(|| Rights::new(grants))
}

fn ready_set(name: &str) -> Result<ReadySet, String> {
    ReadySet::named(name).ok_or_else(|| {
        let known: Vec<_> = ReadySet::ALL.map(ReadySet::label).to_vec();
        format!(
            "must be a ready set or a table such as {{ methods = [\"POST\"], path = \"/api/v1/push\" }}; the sets: {}",
            known.join(", ")
        )
    })
}

fn of_set(ready: ReadySet) -> Grant {
    Grant {
        targets: ready.targets(),
        ready: Some(ready),
        ..Grant::default()
    }
}

fn grant(raw: RawGrant, diagnostics: &mut Diagnostics<'_>) -> Option<Grant> {
    let location = raw.location;
    let networks = networks(&location, raw.from, diagnostics);
    let hosts = hosts(&location, raw.host, diagnostics);
    let ready = diagnostics.optional(&location, "set", raw.set, |text| ready_set(text));
    let has_set = !matches!(ready, Some(None));
    let written = Written {
        methods: raw.methods,
        path: raw.path,
        service: raw.service,
    };
    if has_set && written.has_any() {
        let text =
            "must not stand beside methods, path or service: write a second element of allow";
        diagnostics.refuse(location.line, location.key("set"), text);
        return None;
    }
    let targets = match ready? {
        Some(ready) => Some(ready.targets()),
        None => targets(&location, written, diagnostics),
    };
    Some(Grant {
        networks: networks?,
        hosts: hosts?,
        targets: targets?,
        ready: ready?,
    })
}

/// What is called, as rules and routes write it.
pub(super) struct Written {
    pub(super) methods: Field<Texts>,
    pub(super) path: Field<OneOrMore>,
    pub(super) service: Field<OneOrMore>,
}

impl Written {
    fn has_any(&self) -> bool {
        !matches!(
            (&self.methods, &self.path, &self.service),
            (Field::Absent, Field::Absent, Field::Absent)
        )
    }
}

/// What is called: paths by methods, and services; every path, if it names neither.
pub(super) fn targets(
    location: &Location,
    written: Written,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<Target>> {
    let Written {
        methods,
        path,
        service,
    } = written;
    let has_path = !matches!(path, Field::Absent);
    let has_service = !matches!(service, Field::Absent);
    if let (Field::Given(item), false, true) = (&methods, has_path, has_service) {
        let text = "is for path: gRPC has one method of HTTP";
        diagnostics.wrong(location, "methods", item, text);
        return None;
    }
    let methods = listed(
        location,
        "methods",
        texts(methods),
        diagnostics,
        |text| match is_method(text.as_bytes()) {
            true => Ok(Box::from(text.as_bytes())),
            false => Err("must hold methods of HTTP, such as \"POST\"".to_owned()),
        },
    );
    let prefixes = listed(location, "path", path, diagnostics, |text| {
        PathPrefix::parse(text).map_err(|error| error.to_string())
    });
    let services = listed(location, "service", service, diagnostics, |text| {
        Target::service(text).map_err(|error| error.to_string())
    });
    let (methods, mut prefixes, services) = (methods?, prefixes?, services?);
    if !has_path && !has_service {
        prefixes.extend(PathPrefix::parse("/"));
    }
    let paths = prefixes.into_iter();
    let paths = paths.map(|prefix| Target::path(prefix, methods.clone()));
    Some(paths.chain(services).collect())
}

/// An array as one of the values that may be one or several.
fn texts(field: Field<Texts>) -> Field<OneOrMore> {
    match field {
        Field::Absent => Field::Absent,
        Field::Wrong => Field::Wrong,
        Field::Given(item) => Field::Given(Spanned {
            value: OneOrMore(item.value),
            written: item.written,
            line: item.line,
        }),
    }
}

/// Hosts that a request may be for.
pub(super) fn hosts(
    location: &Location,
    field: Field<OneOrMore>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<HostPattern>> {
    listed(location, "host", field, diagnostics, |text| {
        HostPattern::parse(text).map_err(|error| error.to_string())
    })
}

/// Networks that a client may be in.
fn networks(
    location: &Location,
    field: Field<OneOrMore>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Vec<IpNet>> {
    listed(location, "from", field, diagnostics, |text| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        match text.parse::<IpNet>().or_else(|_| address()) {
            Ok(network) if network.addr() != network.network() => Err(format!(
                "has bits beyond its prefix: say \"{}\"",
                network.trunc()
            )),
            Ok(network) => Ok(network),
            Err(_) => Err(
                "must be a network or an address, such as \"10.0.0.0/8\" or \"2001:db8::1\""
                    .to_owned(),
            ),
        }
    })
}

/// Reads each of one or several texts; none, if the key is absent.
pub(super) fn listed<T: PartialEq>(
    location: &Location,
    key: &str,
    field: Field<OneOrMore>,
    diagnostics: &mut Diagnostics<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let list = match field {
        Field::Absent => return Some(Vec::new()),
        given => given.given()?,
    };
    let items = &list.value.0;
    if items.is_empty() {
        let text = "must name at least one, or be left out for any";
        diagnostics.wrong(location, key, &list, text);
        return None;
    }
    let mut values = Vec::new();
    for item in items {
        match parse(&item.value) {
            Ok(value) if values.contains(&value) => {
                diagnostics.wrong(location, key, item, "is named twice");
            }
            Ok(value) => values.push(value),
            Err(expectation) => diagnostics.wrong(location, key, item, expectation),
        }
    }
    (values.len() == items.len()).then_some(values)
}
