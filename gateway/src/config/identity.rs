//! `[[identity]]`: who gets in, and as which tenant. In: the sections as written. Out: rules in the order of the file.
//! What a rule means is decided in `gateway_core::identity`; here it is only read, and rules that cannot matter are told of.

use gateway_core::identity::{Pattern, Rule, Rules, Tenant, TenantSource};

use super::raw::{RawIdentity, RawMatch, Text};
use super::report::{Place, Report};
use super::value::{Field, Sections};

/// Checks all rules. Wrong ones are reported and left out.
pub fn check_all(
    place: &Place,
    field: Field<Sections<RawIdentity>>,
    report: &mut Report<'_>,
) -> Rules {
    let sections = field.sections();
    if sections.as_ref().is_some_and(Vec::is_empty) {
        report.warn(
            place.line,
            "identity",
            "there is no [[identity]] rule: nobody gets in",
        );
    }
    let mut rules: Vec<(Place, Rule)> = Vec::new();
    for raw in sections.unwrap_or_default() {
        let place = raw.place.clone();
        if let Some(rule) = check(raw, report) {
            warn_of(&place, &rule, &rules, report);
            rules.push((place, rule));
        }
    }
    Rules::new(rules.into_iter().map(|(_, rule)| rule).collect())
}

fn check(raw: RawIdentity, report: &mut Report<'_>) -> Option<Rule> {
    let place = raw.place;
    let tenant = report.optional(&place, "tenant", raw.tenant, |text| {
        Tenant::parse(text).map_err(|error| error.to_string())
    });
    if matches!(raw.patterns, Field::Absent) {
        report.missing(
            &place,
            "match",
            "say whom, such as match = { uri = \"spiffe://example.org/agent/*\" }",
        );
    }
    let patterns = raw.patterns.given()?.value;
    let rule = patterns_of(patterns, report);
    Some(Rule {
        tenant: tenant?.map_or(TenantSource::Nowhere, TenantSource::Literal),
        ..rule?
    })
}

fn patterns_of(raw: RawMatch, report: &mut Report<'_>) -> Option<Rule> {
    let place = raw.place;
    let parse = |text: &Text| Pattern::parse(text).map_err(|error| error.to_string());
    let uri = report.optional(&place, "uri", raw.uri, parse);
    // DNS names have no case (RFC 4343); a certificate's are compared in lower case.
    let dns = report.optional(&place, "dns", raw.dns, |text| {
        parse(&text.to_ascii_lowercase())
    });
    let common_name = report.optional(&place, "cn", raw.cn, parse);
    let rule = Rule {
        uri: uri?,
        dns: dns?,
        common_name: common_name?,
        ..Rule::default()
    };
    if rule.uri.is_none() && rule.dns.is_none() && rule.common_name.is_none() {
        report.refuse(
            place.line,
            place.label,
            "must have at least one of uri, dns, cn",
        );
        return None;
    }
    Some(rule)
}

/// Tells of a rule that is never reached, or that lets in whoever has a certificate.
fn warn_of(place: &Place, rule: &Rule, earlier: &[(Place, Rule)], report: &mut Report<'_>) {
    if let Some((before, _)) = earlier.iter().find(|(_, earlier)| covers(earlier, rule)) {
        let text = format_args!(
            "never reached: the rule at line {} matches all that it matches",
            before.line
        );
        report.warn(place.line, &place.label, text);
    }
    let anything = |pattern: &Option<Pattern>| {
        pattern
            .as_ref()
            .is_none_or(|pattern| *pattern == Pattern::Prefix(String::new()))
    };
    if anything(&rule.uri) && anything(&rule.dns) && anything(&rule.common_name) {
        let text = "`*` lets in every certificate of the clients' CAs that has such a name";
        report.warn(place.line, &place.label, text);
    }
}

/// Whether `earlier` matches every certificate that `later` matches.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    pattern_covers(&earlier.uri, &later.uri)
        && pattern_covers(&earlier.dns, &later.dns)
        && pattern_covers(&earlier.common_name, &later.common_name)
}

fn pattern_covers(earlier: &Option<Pattern>, later: &Option<Pattern>) -> bool {
    match (earlier, later) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(Pattern::Exact(exact))) => earlier.matches(exact),
        (Some(Pattern::Prefix(wide)), Some(Pattern::Prefix(narrow))) => {
            narrow.starts_with(wide.as_str())
        }
        (Some(Pattern::Exact(_)), Some(Pattern::Prefix(_))) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_rule_covers_narrower_ones_only() {
        let uri = |text: &str| Rule {
            uri: Some(Pattern::parse(text).unwrap()),
            ..Rule::default()
        };
        let with_name = |text: &str| Rule {
            common_name: Some(Pattern::parse("a").unwrap()),
            ..uri(text)
        };
        assert!(covers(&uri("spiffe://a/*"), &uri("spiffe://a/b")));
        assert!(covers(&uri("spiffe://a/*"), &uri("spiffe://a/b*")));
        assert!(covers(&uri("spiffe://a/*"), &with_name("spiffe://a/b")));
        assert!(covers(&uri("spiffe://a"), &uri("spiffe://a")));
        assert!(!covers(&uri("spiffe://a/b*"), &uri("spiffe://a/*")));
        assert!(!covers(&uri("spiffe://a"), &uri("spiffe://a*")));
        assert!(!covers(&with_name("spiffe://a/*"), &uri("spiffe://a/b")));
    }
}
