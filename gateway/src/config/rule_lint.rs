//! Lints of rules: those that cannot matter, and those that say more than they seem to.
//! In: the rules in order, with their locations. Out: warnings. Decides nothing about clients.

use gateway_core::identity::{Pattern, Rule, Rules};
use gateway_core::limits;

use super::diagnostics::Diagnostics;
use super::identity::RuleLocation;
use super::listener::CheckedListener;

/// Warns of each rule that
///
/// - is never reached,
/// - admits every client with a certificate,
/// - leaves a host open,
/// - cannot be satisfied by any CA of its listeners, or
/// - refuses clients of CAs that are bound to a trust domain;
///
/// of so many at most. Rules have the numbers of `check`'s table.
pub fn warn(
    places: &[RuleLocation],
    rules: &Rules,
    listeners: &[CheckedListener],
    diagnostics: &mut Diagnostics<'_>,
) {
    let mut left = limits::RULE_WARNINGS_MAX;
    for (position, (at, rule)) in places.iter().zip(rules.as_slice()).enumerate() {
        if left == 0 {
            return;
        }
        let never = rules.covering(position).map(|earlier| {
            let before = &places[earlier];
            let line = before.location.line;
            let file = match before.file == at.file {
                true => String::new(),
                false => format!(" of {}", before.file.display()),
            };
            format!("never reached: the rule at line {line}{file} matches all that it matches")
        });
        let wide = (!is_narrow(rule)).then(|| {
            "`*` admits every certificate of the clients' CAs that has such a name".to_owned()
        });
        let found = [
            never,
            wide,
            opens_host(rule),
            refuses_bound(rule, listeners),
            matches_no_client(rule, listeners),
        ];
        for text in found.into_iter().flatten() {
            let key = format!("identity {}", position + 1);
            diagnostics.warn_in(&at.file, at.location.line, &key, text);
            left = left.saturating_sub(1);
        }
    }
}

/// A `*` behind a part of a host: it stands for the rest of another host as well.
fn opens_host(rule: &Rule) -> Option<String> {
    let Some(Pattern::Prefix(begin)) = &rule.uri else {
        return None;
    };
    let (_, authority) = begin.split_once("://")?;
    let is_within = !authority.is_empty() && !authority.contains(['/', '?', '#']);
    is_within.then(|| {
        format!(
            "the `*` of \"{begin}*\" stands within the host of the URI, and matches URIs of other hosts that begin so: end the host, as \
             in \"{begin}/*\""
        )
    })
}

/// What a rule takes that does not count for the CAs of its listeners that are bound.
fn refuses_bound(rule: &Rule, listeners: &[CheckedListener]) -> Option<String> {
    let mut holding = holding(rule, listeners);
    let is_bound = holding.any(CheckedListener::binds_authorities);
    (is_bound && rule.takes_ignored_tenant()).then(|| {
        "takes the tenant from cn or ou, which do not count for CAs that are bound to a trust domain: it refuses their clients \
         unless it matches trust_domain as well"
            .to_owned()
    })
}

/// Listeners on which a rule matches no client: those that it names, or all, have no CA that is bound to its trust domain.
fn matches_no_client(rule: &Rule, listeners: &[CheckedListener]) -> Option<String> {
    let domain = rule.trust_domain.as_ref()?;
    let (with, without): (Vec<_>, Vec<_>) =
        holding(rule, listeners).partition(|listener| listener.may_bind_to(domain));
    let is_told = match &rule.listeners {
        Some(_) => !without.is_empty(),
        None => with.is_empty() && !without.is_empty(),
    };
    let names: Vec<_> = without
        .iter()
        .filter_map(|listener| listener.name())
        .collect();
    is_told.then(|| {
        format!(
            "matches no client on {}: no CA of client_ca is bound to the trust domain {domain} there",
            names.join(", ")
        )
    })
}

/// The listeners that a rule holds for.
fn holding<'l>(
    rule: &Rule,
    listeners: &'l [CheckedListener],
) -> impl Iterator<Item = &'l CheckedListener> {
    let all = listeners.iter().enumerate();
    all.filter(|(position, _)| rule.holds_for(*position))
        .map(|(_, listener)| listener)
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
