//! Rules that cannot matter, and rules that say more than they seem to.
//! In: the rules in order, with their places. Out: warnings. Decides nothing about clients.

use gateway_core::identity::{Pattern, Rule, Rules};

use super::report::{Place, Report};

/// Tells of each rule that is never reached, or that lets in whoever has a certificate.
pub fn warn(places: &[Place], rules: &Rules, report: &mut Report<'_>) {
    for (position, (place, rule)) in places.iter().zip(rules.as_slice()).enumerate() {
        if let Some(earlier) = rules.covering(position) {
            let text = format_args!(
                "never reached: the rule at line {} matches all that it matches",
                places[earlier].line
            );
            report.warn(place.line, &place.label, text);
        }
        if !is_narrow(rule) {
            let text = "`*` lets in every certificate of the clients' CAs that has such a name";
            report.warn(place.line, &place.label, text);
        }
    }
}

fn is_narrow(rule: &Rule) -> bool {
    let patterns = [
        &rule.uri,
        &rule.dns,
        &rule.common_name,
        &rule.organizational_unit,
        &rule.issuer,
    ];
    let mut given = patterns.into_iter().flatten();
    given.any(|pattern: &Pattern| !pattern.is_everything())
        || rule.trust_domain.is_some()
        || rule.ip_address.is_some()
        || rule.fingerprints.is_some()
}
