//! Rules that cannot matter, and rules that say more than they seem to.
//! In: a rule and those before it. Out: warnings. Decides nothing about clients.

use gateway_core::identity::{Pattern, Rule};

use super::report::{Place, Report};

/// Tells of a rule that is never reached, or that lets in whoever has a certificate.
pub fn warn_of(place: &Place, rule: &Rule, earlier: &[(Place, Rule)], report: &mut Report<'_>) {
    if let Some((before, _)) = earlier.iter().find(|(_, earlier)| covers(earlier, rule)) {
        let text = format_args!(
            "never reached: the rule at line {} matches all that it matches",
            before.line
        );
        report.warn(place.line, &place.label, text);
    }
    let narrow = |pattern: &Option<Pattern>| {
        pattern
            .as_ref()
            .is_some_and(|pattern| *pattern != Pattern::Prefix(String::new()))
    };
    let is_narrow = patterns(rule).into_iter().any(narrow)
        || rule.ip_address.is_some()
        || rule.fingerprints.is_some();
    if !is_narrow {
        let text = "`*` lets in every certificate of the clients' CAs that has such a name";
        report.warn(place.line, &place.label, text);
    }
}

fn patterns(rule: &Rule) -> [&Option<Pattern>; 5] {
    [
        &rule.uri,
        &rule.dns,
        &rule.common_name,
        &rule.organizational_unit,
        &rule.issuer,
    ]
}

/// Whether `earlier` matches every certificate that `later` matches, wherever `later` holds.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    let pairs = patterns(earlier).into_iter().zip(patterns(later));
    pairs
        .into_iter()
        .all(|(earlier, later)| pattern_covers(earlier, later))
        && (earlier.ip_address.is_none() || earlier.ip_address == later.ip_address)
        && holds_all(&earlier.fingerprints, &later.fingerprints)
        && holds_all(&earlier.listeners, &later.listeners)
}

/// Whether every element of `narrow` is one of `wide`; without a list it is everything.
fn holds_all<T: PartialEq>(wide: &Option<Vec<T>>, narrow: &Option<Vec<T>>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|element| wide.contains(element)),
    }
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
    use gateway_core::certificate::Fingerprint;
    use std::net::IpAddr;

    fn uri(text: &str) -> Rule {
        Rule {
            uri: Some(Pattern::parse(text).unwrap()),
            ..Rule::default()
        }
    }

    #[test]
    fn wider_rule_covers_narrower_ones_only() {
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

    #[test]
    fn every_further_key_narrows_a_rule() {
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let narrowed = [
            Rule {
                organizational_unit: pattern("edge"),
                ..uri("spiffe://a/*")
            },
            Rule {
                issuer: pattern("CN=A"),
                ..uri("spiffe://a/*")
            },
            Rule {
                ip_address: Some(IpAddr::from([192, 0, 2, 1])),
                ..uri("spiffe://a/*")
            },
            Rule {
                fingerprints: Some(vec![Fingerprint([1; 32])]),
                ..uri("spiffe://a/*")
            },
            Rule {
                listeners: Some(vec![1]),
                ..uri("spiffe://a/*")
            },
        ];
        for rule in narrowed {
            assert!(covers(&uri("spiffe://a/*"), &rule), "{rule:?}");
            assert!(!covers(&rule, &uri("spiffe://a/*")), "{rule:?}");
            assert!(covers(&rule, &rule), "{rule:?}");
        }
        let on = |listeners: &[usize]| Rule {
            listeners: Some(listeners.to_vec()),
            ..uri("spiffe://a/*")
        };
        assert!(covers(&on(&[0, 1]), &on(&[1])));
        assert!(!covers(&on(&[0]), &on(&[0, 1])));
    }
}
