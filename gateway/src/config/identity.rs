//! `[[identity]]`: who gets in, and as which tenant. In: the sections as written. Out: rules in the order of the file.
//! What a rule means is decided in `gateway_core::identity`; here it is only read, and rules that cannot matter are told of.

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

use super::listener::CheckedListener;
use super::raw::{RawIdentity, RawMatch, Text, Texts};
use super::report::{Place, Report};
use super::value::{Field, OneOrMore, Sections};
use super::{include, scalar, shadow};

/// Where a rule stands.
#[derive(Debug, Clone)]
pub struct RulePlace {
    /// Its file.
    pub file: Arc<Path>,
    /// Its place there.
    pub place: Place,
}

/// Checks all rules, those of the file first and then those of the files it includes. Wrong ones are reported and left out.
pub fn check_all(
    place: &Place,
    (field, included): (Field<Sections<RawIdentity>>, Field<Texts>),
    listeners: &[CheckedListener],
    report: &mut Report<'_>,
) -> Rules {
    let names: Vec<_> = listeners.iter().map(CheckedListener::name).collect();
    let sections = field.sections();
    let has_none = sections.as_ref().is_some_and(Vec::is_empty);
    let file: Arc<Path> = report.file().into();
    let mut rules = Vec::new();
    let sections = sections.unwrap_or_default();
    check_sections(&file, sections, &names, (&mut rules, report));
    rules.extend(include::rules(place, included, &names, report));
    if has_none && rules.is_empty() {
        report.warn(
            place.line,
            "identity",
            "there is no [[identity]] rule: no client gets in",
        );
    }
    let (places, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
    let rules = Rules::new(rules);
    shadow::warn(&places, &rules, listeners, report);
    rules
}

/// Checks the rules of a file, or of a piece of it, and adds them to those before them.
pub(super) fn check_sections(
    file: &Arc<Path>,
    sections: Vec<RawIdentity>,
    listeners: &[Option<&str>],
    (rules, report): (&mut Vec<(RulePlace, Rule)>, &mut Report<'_>),
) {
    for raw in sections {
        let place = RulePlace {
            file: Arc::clone(file),
            place: raw.place.clone(),
        };
        if let Some(rule) = check(raw, listeners, report) {
            rules.push((place, rule));
        }
    }
}

fn check(
    mut raw: RawIdentity,
    listeners: &[Option<&str>],
    report: &mut Report<'_>,
) -> Option<Rule> {
    let place = raw.place.clone();
    if matches!(raw.patterns, Field::Absent) {
        report.missing(
            &place,
            "match",
            "name the clients, such as match = { uri = \"spiffe://example.org/agent/*\" }",
        );
    }
    let written = std::mem::replace(&mut raw.listeners, Field::Absent);
    let listeners = listeners_of(&place, written, listeners, report);
    let limits = limits_of(&mut raw, report);
    let patterns = std::mem::replace(&mut raw.patterns, Field::Absent).given();
    let rule = patterns.and_then(|patterns| patterns_of(patterns.value, report));
    let tenant = tenant_of(raw, rule.as_ref(), report);
    Some(Rule {
        listeners: listeners?,
        tenant: tenant?,
        limits: limits?,
        ..rule?
    })
}

/// The listeners a rule holds for, by position; `Some(None)` for all.
fn listeners_of(
    place: &Place,
    field: Field<Texts>,
    names: &[Option<&str>],
    report: &mut Report<'_>,
) -> Option<Option<Vec<usize>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    if list.value.is_empty() {
        let text = "must name at least one, or be left out for all";
        report.wrong(place, "listeners", &list, text);
        return None;
    }
    let mut positions = Vec::new();
    for item in &list.value {
        let found = names
            .iter()
            .position(|name| *name == Some(item.value.as_str()));
        match found {
            Some(position) if positions.contains(&position) => {
                report.wrong(place, "listeners", item, "is named twice");
            }
            Some(position) => positions.push(position),
            None => {
                let known: Vec<_> = names.iter().copied().flatten().collect();
                let text = format_args!("must name a [[listener]]: {}", known.join(", "));
                report.wrong(place, "listeners", item, text);
                return None;
            }
        }
    }
    Some(Some(positions))
}

/// What each identity of the rule may use.
fn limits_of(raw: &mut RawIdentity, report: &mut Report<'_>) -> Option<IdentityLimits> {
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
        report.optional(&raw.place, key, field, count)
    });
    let bytes = std::mem::replace(&mut raw.bytes_per_second, Field::Absent);
    let bytes = report.optional(&raw.place, "bytes_per_second", bytes, |text| {
        scalar::size(text, &limits::IDENTITY_BYTES_PER_SECOND)
    });
    let burst = std::mem::replace(&mut raw.bytes_burst, Field::Absent);
    let burst = report.optional(&raw.place, "bytes_burst", burst, |text| match bytes {
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
    report: &mut Report<'_>,
) -> Option<TenantSource> {
    let place = raw.place;
    let literal = report.optional(&place, "tenant", raw.tenant, |text| {
        Tenant::parse(text).map_err(|error| error.to_string())
    });
    let written = raw.tenant_from.clone().given();
    let part = report.optional(&place, "tenant_from", raw.tenant_from, |text| {
        tenant_part(text)
    });
    let among = tenants_of(&place, raw.tenants, part.flatten().is_some(), report);
    let (literal, part, among) = (literal?, part?, among?);
    if let (Some(_), Some(written)) = (&literal, &written) {
        report.wrong(
            &place,
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
        report.wrong(&place, "tenant_from", written, text);
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
    place: &Place,
    field: Field<Texts>,
    is_taken_from_certificate: bool,
    report: &mut Report<'_>,
) -> Option<Option<BTreeSet<Tenant>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    if !is_taken_from_certificate {
        let text = "needs tenant_from: it bounds what a certificate may name";
        report.wrong(place, "tenants", &list, text);
        return None;
    }
    if list.value.is_empty() {
        let text = "must name at least one, or be left out for any";
        report.wrong(place, "tenants", &list, text);
        return None;
    }
    let mut tenants = BTreeSet::new();
    for item in &list.value {
        match Tenant::parse(&item.value) {
            Ok(tenant) if tenants.contains(&tenant) => {
                report.wrong(place, "tenants", item, "is named twice");
            }
            Ok(tenant) => {
                tenants.insert(tenant);
            }
            Err(error) => report.wrong(place, "tenants", item, error),
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
pub(super) fn patterns_of(raw: RawMatch, report: &mut Report<'_>) -> Option<Rule> {
    let place = raw.place;
    let parse = |text: &Text| Pattern::parse(text).map_err(|error| error.to_string());
    let uri = report.optional(&place, "uri", raw.uri, |text| {
        Pattern::parse_uri(text).map_err(|error| error.to_string())
    });
    let dns = report.optional(&place, "dns", raw.dns, |text| dns_pattern(text));
    let common_name = report.optional(&place, "cn", raw.cn, parse);
    let organizational_unit = report.optional(&place, "ou", raw.ou, parse);
    let issuer = report.optional(&place, "issuer", raw.issuer, parse);
    let trust_domain = report.optional(&place, "trust_domain", raw.trust_domain, |text| {
        TrustDomain::parse(text).map_err(|error| error.to_string())
    });
    let ip_address = report.optional(&place, "ip", raw.ip, |text| {
        text.parse::<IpAddr>()
            .map_err(|_| "must be an IP address, such as \"10.0.0.7\"".to_owned())
    });
    let fingerprints = fingerprints_of(&place, raw.fingerprint, report);
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
        report.refuse(
            place.line,
            place.label,
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
    place: &Place,
    field: Field<OneOrMore>,
    report: &mut Report<'_>,
) -> Option<Option<Vec<Fingerprint>>> {
    let list = match field {
        Field::Absent => return Some(None),
        given => given.given()?,
    };
    let items = &list.value.0;
    if items.is_empty() {
        report.wrong(place, "fingerprint", &list, "must name at least one");
        return None;
    }
    let mut fingerprints = Vec::new();
    for item in items {
        match Fingerprint::parse(&item.value) {
            Ok(fingerprint) => fingerprints.push(fingerprint),
            Err(error) => report.wrong(place, "fingerprint", item, error),
        }
    }
    (fingerprints.len() == items.len()).then_some(Some(fingerprints))
}
