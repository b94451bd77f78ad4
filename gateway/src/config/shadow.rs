//! Rules that cannot matter, and rules that say more than they seem to.
//! In: the rules in order, with their places. Out: warnings. Decides nothing about clients.

use gateway_core::identity::{Pattern, Rule, Rules};

use super::identity::RulePlace;
use super::report::Report;
use crate::limits;

/// Tells of each rule that is never reached, that lets in whoever has a certificate, or that refuses clients of the CAs that are
/// `bound` to a trust domain, by the listeners' positions; of so many at most.
pub fn warn(places: &[RulePlace], rules: &Rules, bound: &[bool], report: &mut Report<'_>) {
    let mut left = limits::RULE_WARNINGS_MAX;
    for (position, (at, rule)) in places.iter().zip(rules.as_slice()).enumerate() {
        if left == 0 {
            return;
        }
        if let Some(earlier) = rules.covering(position) {
            let before = &places[earlier];
            let line = before.place.line;
            let file = match before.file == at.file {
                true => String::new(),
                false => format!(" of {}", before.file.display()),
            };
            let text = format_args!(
                "never reached: the rule at line {line}{file} matches all that it matches"
            );
            report.warn_in(&at.file, at.place.line, &at.place.label, text);
            left -= 1;
        }
        if !is_narrow(rule) {
            let text = "`*` lets in every certificate of the clients' CAs that has such a name";
            report.warn_in(&at.file, at.place.line, &at.place.label, text);
            left = left.saturating_sub(1);
        }
        let mut bound = bound.iter().enumerate();
        let holds = bound.any(|(listener, bound)| *bound && rule.holds_for(listener));
        if holds && rule.takes_unheard_tenant() {
            let text = "takes the tenant from cn or ou, which do not count for CAs that are bound to a trust domain: it refuses \
                        their clients unless it matches trust_domain as well";
            report.warn_in(&at.file, at.place.line, &at.place.label, text);
            left = left.saturating_sub(1);
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
