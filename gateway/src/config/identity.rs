//! `[[identity]]`: which clients get in, and as which tenant. In: the sections as written. Out: rules in the order of the
//! file. `gateway_core::identity` decides what a rule means; this module reads it, and warns of rules that cannot matter.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use gateway_core::authority::TrustDomain;
use gateway_core::certificate::Fingerprint;
use gateway_core::identity::{
    IdentityLimits, Pattern, Rule, Rules, Tenant, TenantPart, TenantSource,
};
use gateway_core::limits;

use super::diagnostics::{Diagnostics, Location};
use super::listener::CheckedListener;
use super::raw::{RawIdentity, RawMatch, Text, Texts};
use super::value::{Field, OneOrMore, Sections};
use super::{include, rule_lint, scalar};

/// Where a rule stands.
#[derive(Debug, Clone)]
pub struct RuleLocation {
    /// Its file.
    pub file: Arc<Path>,
    /// Its location there.
    pub location: Location,
}

/// Checks all rules, those of the file first and then those of the files it includes. Wrong ones are reported and left out.
pub fn check_all(
    location: &Location,
    (field, included): (Field<Sections<RawIdentity>>, Field<Texts>),
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) -> Rules {
    let names: Vec<_> = listeners.iter().map(CheckedListener::name).collect();
    let sections = field.sections();
    let has_none = sections.as_ref().is_some_and(Vec::is_empty);
    let file: Arc<Path> = diagnostics.file().into();
    let mut rules = Vec::new();
    let sections = sections.unwrap_or_default();
    check_sections(&file, sections, &names, (&mut rules, diagnostics));
    rules.extend(include::rules(location, included, &names, diagnostics));
    if has_none && rules.is_empty() {
        diagnostics.warn(
            location.line,
            "identity",
            "there is no [[identity]] rule: no client gets in",
        );
    }
    let (places, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    let rules = Rules::new(rules);
    rule_lint::warn(&places, &rules, listeners, diagnostics);
    rules
}

/// Checks the rules of a file, or of a piece of it, and adds them to those before them.
pub(super) fn check_sections(
    file: &Arc<Path>,
    sections: Vec<RawIdentity>,
    listeners: &[Option<&str>],
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
    listeners: &[Option<&str>],
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
    let listeners = listeners_of(&location, written, listeners, diagnostics);
    let limits = limits_of(&mut raw, diagnostics);
    let patterns = std::mem::replace(&mut raw.patterns, Field::Absent).given();
    let rule = patterns.and_then(|patterns| patterns_of(patterns.value, diagnostics));
    let tenant = tenant_of(raw, rule.as_ref(), diagnostics);
    Some(Rule {
        listeners: listeners?,
        tenant: tenant?,
        limits: limits?,
        ..rule?
    })
}

/// The listeners a rule holds for, by position; `Some(None)` for all.
fn listeners_of(
    location: &Location,
    field: Field<Texts>,
    names: &[Option<&str>],
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
        let found = names
            .iter()
            .position(|name| *name == Some(item.value.as_str()));
        match found {
            Some(position) if positions.contains(&position) => {
                diagnostics.wrong(location, "listeners", item, "is named twice");
            }
            Some(position) => positions.push(position),
            None => {
                let known: Vec<_> = names.iter().copied().flatten().collect();
                let text = format_args!("must name a [[listener]]: {}", known.join(", "));
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
    ];
    let [connections, handshakes] = counts.map(|(key, field, range)| {
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
    })
}

/// Where the tenant comes from. `rule` has the patterns that a part of the certificate is found by.
fn tenant_of(
    raw: RawIdentity,
    rule: Option<&Rule>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<TenantSource> {
    let location = raw.location;
    let literal = diagnostics.optional(&location, "tenant", raw.tenant, |text| {
        Tenant::parse(text).map_err(|error| error.to_string())
    });
    let written = raw.tenant_from.clone().given();
    let part = diagnostics.optional(&location, "tenant_from", raw.tenant_from, |text| {
        tenant_part(text)
    });
    let among = tenants_of(
        &location,
        raw.tenants,
        part.flatten().is_some(),
        diagnostics,
    );
    let (literal, part, among) = (literal?, part?, among?);
    if let (Some(_), Some(written)) = (&literal, &written) {
        diagnostics.wrong(
            &location,
            "tenant_from",
            written,
            "must not stand beside tenant",
        );
        return None;
    }
    let has_star = |rule: &Rule| rule.uri.as_ref().is_some_and(Pattern::has_star);
    if let (Some(TenantPart::Uri), Some(written), Some(rule)) = (part, &written, rule)
        && !has_star(rule)
    {
        let text = "needs a match with uri = \"…*\": the tenant is what the first `*` stands for, up to the next `/`";
        diagnostics.wrong(&location, "tenant_from", written, text);
        return None;
    }
    Some(match (literal, part) {
        (Some(tenant), _) => TenantSource::Literal(tenant),
        (None, Some(part)) => TenantSource::Certificate { part, among },
        (None, None) => TenantSource::Nowhere,
    })
}

/// The closed set that a tenant of the certificate has to be of; `Some(None)` for any tenant.
fn tenants_of(
    location: &Location,
    field: Field<Texts>,
    is_taken_from_certificate: bool,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Option<BTreeSet<Tenant>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    if !is_taken_from_certificate {
        let text = "needs tenant_from: it bounds what a certificate may name";
        diagnostics.wrong(location, "tenants", &list, text);
        return None;
    }
    if list.value.is_empty() {
        let text = "must name at least one, or be left out for any";
        diagnostics.wrong(location, "tenants", &list, text);
        return None;
    }
    let mut tenants = BTreeSet::new();
    for item in &list.value {
        match Tenant::parse(&item.value) {
            Ok(tenant) if tenants.contains(&tenant) => {
                diagnostics.wrong(location, "tenants", item, "is named twice");
            }
            Ok(tenant) => {
                tenants.insert(tenant);
            }
            Err(error) => diagnostics.wrong(location, "tenants", item, error),
        }
    }
    Some(Some(tenants))
}

fn tenant_part(text: &str) -> Result<TenantPart, String> {
    match text {
        "uri" => Ok(TenantPart::Uri),
        "dns" => Ok(TenantPart::Dns),
        "cn" => Ok(TenantPart::CommonName),
        "ou" => Ok(TenantPart::OrganizationalUnit),
        _ => Err("must be \"uri\", \"dns\", \"cn\" or \"ou\"".to_owned()),
    }
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
