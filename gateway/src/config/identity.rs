//! `[[identity]]`: which clients get in, and as which tenant. In: the sections as written. Out: rules in the order of the
//! file. `gateway_core::identity` decides what a rule means; this module reads it, and warns of rules that cannot matter.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use gateway_core::authority::TrustDomain;
use gateway_core::certificate::Fingerprint;
use gateway_core::http::limits as http_limits;
use gateway_core::identity::{IdentityLimits, Pattern, Rule, Rules};
use gateway_core::limits;

use super::diagnostics::{Diagnostics, Location};
use super::listener::CheckedListener;
use super::raw::{RawIdentity, RawMatch, Text, Texts};
use super::value::{Field, OneOrMore, Sections};
use super::{include, rule_lint, rule_requests, scalar, tenants};

/// Where a rule stands.
#[derive(Debug, Clone)]
pub struct RuleLocation {
    /// Its file.
    pub file: Arc<Path>,
    /// Its location there.
    pub location: Location,
}

/// What rules know of a listener.
#[derive(Debug, Clone, Copy)]
pub struct KnownListener<'l> {
    /// Its name, if it has one.
    pub name: Option<&'l str>,
    /// Whether it serves requests of HTTP; `None` if that is not known.
    pub is_http: Option<bool>,
}

impl<'l> KnownListener<'l> {
    fn of(listener: &'l CheckedListener) -> Self {
        KnownListener {
            name: listener.name(),
            is_http: listener.is_http,
        }
    }
}

/// Checks all rules, those of the file first and then those of the files it includes. Wrong ones are reported and left out.
pub fn check_all(
    location: &Location,
    (field, included): (Field<Sections<RawIdentity>>, Field<Texts>),
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Rules {
    let known: Vec<_> = listeners.iter().map(KnownListener::of).collect();
    let sections = field.sections();
    let has_none = sections.as_ref().is_some_and(Vec::is_empty);
    let file: Arc<Path> = diagnostics.file().into();
    let mut rules = Vec::new();
    let sections = sections.unwrap_or_default();
    check_sections(&file, sections, &known, (&mut rules, diagnostics));
    rules.extend(include::rules(location, included, &known, diagnostics));
    if has_none && rules.is_empty() {
        diagnostics.warn(
            location.line,
            "identity",
            "there is no [[identity]] rule: no client gets in",
        );
    }
    let (places, mut rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    rule_requests::share(&mut rules);
    let rules = Rules::new(rules);
    rule_lint::warn(&places, &rules, listeners, diagnostics);
    rules
}

/// Checks the rules of a file, or of a piece of it, and adds them to those before them.
pub(super) fn check_sections(
    file: &Arc<Path>,
    sections: Vec<RawIdentity>,
    listeners: &[KnownListener<'_>],
    (rules, diagnostics): (&mut Vec<(RuleLocation, Rule)>, &mut Diagnostics<'_>),
) {
    for raw in sections {
        let location = RuleLocation {
            file: Arc::clone(file),
            location: raw.location.clone(),
        };
        if let Some(rule) = check(raw, listeners, diagnostics) {
            rules.push((location, rule));
        }
    }
}

fn check(
    mut raw: RawIdentity,
    listeners: &[KnownListener<'_>],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Rule> {
    let location = raw.location.clone();
    if matches!(raw.patterns, Field::Absent) {
        diagnostics.missing(
            &location,
            "match",
            "name the clients, such as match = { uri = \"spiffe://example.org/agent/*\" }",
        );
    }
    let written = std::mem::replace(&mut raw.listeners, Field::Absent);
    let holding = listeners_of(&location, written, listeners, diagnostics);
    let limits = limits_of(&mut raw, diagnostics);
    let requests = holding.as_ref().and_then(|holding| {
        rule_requests::check(&mut raw, holding.as_deref(), listeners, diagnostics)
    });
    let patterns = std::mem::replace(&mut raw.patterns, Field::Absent).given();
    let rule = patterns.and_then(|patterns| patterns_of(patterns.value, diagnostics));
    let tenant = tenants::check(raw, rule.as_ref(), diagnostics);
    let requests = requests?;
    Some(Rule {
        listeners: holding?,
        tenant: tenant?,
        limits: limits?,
        rights: requests.rights,
        told: requests.told,
        tenant_limits: requests.tenant_limits,
        ..rule?
    })
}

/// The listeners a rule holds for, by position; `Some(None)` for all.
fn listeners_of(
    location: &Location,
    field: Field<Texts>,
    known: &[KnownListener<'_>],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Vec<usize>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    if list.value.is_empty() {
        let text = "must name at least one, or be left out for all";
        diagnostics.wrong(location, "listeners", &list, text);
        return None;
    }
    let mut positions = Vec::new();
    for item in &list.value {
        let found = known
            .iter()
            .position(|listener| listener.name == Some(item.value.as_str()));
        match found {
            Some(position) if positions.contains(&position) => {
                diagnostics.wrong(location, "listeners", item, "is named twice");
            }
            Some(position) => positions.push(position),
            None => {
                let names: Vec<_> = known.iter().filter_map(|known| known.name).collect();
                let text = format_args!("must name a [[listener]]: {}", names.join(", "));
                diagnostics.wrong(location, "listeners", item, text);
                return None;
            }
        }
    }
    Some(Some(positions))
}

/// What each identity of the rule may use.
fn limits_of(raw: &mut RawIdentity, diagnostics: &mut Diagnostics<'_>) -> Option<IdentityLimits> {
    let take = |field: &mut Field<i64>| std::mem::replace(field, Field::Absent);
    let counts = [
        (
            "max_connections",
            take(&mut raw.max_connections),
            &limits::IDENTITY_CONNECTIONS,
        ),
        (
            "handshakes_per_second",
            take(&mut raw.handshakes_per_second),
            &limits::IDENTITY_HANDSHAKES_PER_SECOND,
        ),
        (
            "requests_per_second",
            raw.requests_per_second.clone(),
            &http_limits::IDENTITY_REQUESTS_PER_SECOND,
        ),
        (
            "max_requests_in_flight",
            raw.max_requests_in_flight.clone(),
            &http_limits::IDENTITY_REQUESTS_IN_FLIGHT,
        ),
    ];
    let [connections, handshakes, requests, in_flight] = counts.map(|(key, field, range)| {
        let why = " (leave it out for no limit)";
        let count = |count: &i64| {
            let count = scalar::count(*count, range, why)?;
            u32::try_from(count).map_err(|error| error.to_string())
        };
        diagnostics.optional(&raw.location, key, field, count)
    });
    let bytes = std::mem::replace(&mut raw.bytes_per_second, Field::Absent);
    let bytes = diagnostics.optional(&raw.location, "bytes_per_second", bytes, |text| {
        scalar::size(text, &limits::IDENTITY_BYTES_PER_SECOND)
    });
    let burst = std::mem::replace(&mut raw.bytes_burst, Field::Absent);
    let burst = diagnostics.optional(&raw.location, "bytes_burst", burst, |text| match bytes {
        Some(None) => Err("has no effect without bytes_per_second".to_owned()),
        Some(Some(_)) | None => scalar::size(text, &limits::IDENTITY_BYTES_BURST),
    });
    Some(IdentityLimits {
        max_connections: connections?,
        handshakes_per_second: handshakes?,
        bytes_per_second: bytes?,
        bytes_burst: burst?,
        requests_per_second: requests?,
        max_requests_in_flight: in_flight?,
    })
}

/// The patterns of a `match`; a rule that says nothing but them.
pub(super) fn patterns_of(raw: RawMatch, diagnostics: &mut Diagnostics<'_>) -> Option<Rule> {
    let location = raw.location;
    let parse = |text: &Text| Pattern::parse(text).map_err(|error| error.to_string());
    let uri = diagnostics.optional(&location, "uri", raw.uri, |text| {
        Pattern::parse_uri(text).map_err(|error| error.to_string())
    });
    let dns = diagnostics.optional(&location, "dns", raw.dns, |text| dns_pattern(text));
    let common_name = diagnostics.optional(&location, "cn", raw.cn, parse);
    let organizational_unit = diagnostics.optional(&location, "ou", raw.ou, parse);
    let issuer = diagnostics.optional(&location, "issuer", raw.issuer, parse);
    let trust_domain = diagnostics.optional(&location, "trust_domain", raw.trust_domain, |text| {
        TrustDomain::parse(text).map_err(|error| error.to_string())
    });
    let ip_address = diagnostics.optional(&location, "ip", raw.ip, |text| {
        text.parse::<IpAddr>()
            .map_err(|_| "must be an IP address, such as \"10.0.0.7\"".to_owned())
    });
    let fingerprints = fingerprints_of(&location, raw.fingerprint, diagnostics);
    let rule = Rule {
        uri: uri?,
        dns: dns?,
        common_name: common_name?,
        organizational_unit: organizational_unit?,
        issuer: issuer?,
        trust_domain: trust_domain?,
        ip_address: ip_address?,
        fingerprints: fingerprints?,
        ..Rule::default()
    };
    if rule == Rule::default() {
        diagnostics.refuse(
            location.line,
            location.label,
            "must have at least one of uri, dns, cn, ou, ip, issuer, trust_domain, fingerprint",
        );
        return None;
    }
    Some(rule)
}

/// DNS names have no case (RFC 4343); a certificate's are compared in lower case. They are ASCII and end without a dot
/// (RFC 5280 section 4.2.1.6): a pattern that is not could never match.
pub(super) fn dns_pattern(text: &str) -> Result<Pattern, String> {
    if !text.is_ascii() {
        return Err("must be ASCII: certificates write other letters as \"xn--…\"".to_owned());
    }
    if text.ends_with('.') {
        return Err("must not end in a dot: names in certificates do not".to_owned());
    }
    Pattern::parse_dns(text).map_err(|error| error.to_string())
}

/// The certificates that are meant; `Some(None)` for any.
fn fingerprints_of(
    location: &Location,
    field: Field<OneOrMore>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<Vec<Fingerprint>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    let items = &list.value.0;
    if items.is_empty() {
        diagnostics.wrong(location, "fingerprint", &list, "must name at least one");
        return None;
    }
    let mut fingerprints = Vec::new();
    for item in items {
        match Fingerprint::parse(&item.value) {
            Ok(fingerprint) => fingerprints.push(fingerprint),
            Err(error) => diagnostics.wrong(location, "fingerprint", item, error),
        }
    }
    (fingerprints.len() == items.len()).then_some(Some(fingerprints))
}
