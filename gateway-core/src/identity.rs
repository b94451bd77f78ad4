//! Identities: what a client certificate says, and the rules that turn it into a decision.
//! In: the names of a certificate that a caller parsed. Out: the first rule that matches, or none: a refusal.
//! Never parses a certificate and never verifies one.

use std::fmt;

/// The names a certificate carries, as far as rules look at them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Subject alternative names of type URI (RFC 5280 section 4.2.1.6), in their order.
    pub uris: Vec<String>,
    /// Subject alternative names of type DNS, in lower case.
    pub dns_names: Vec<String>,
    /// The subject's common name.
    pub common_name: Option<String>,
}

/// A name to match: exact, or a prefix where the text ends in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The whole name.
    Exact(String),
    /// The beginning of the name.
    Prefix(String),
}

/// Why a pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing to match.
    #[error("must not be empty")]
    Empty,
    /// A `*` somewhere else than at the end.
    #[error("may have one `*`, at its end")]
    StarInside,
}

impl Pattern {
    /// Reads a pattern as written in the configuration.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (body, prefix) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.contains('*') {
            return Err(PatternError::StarInside);
        }
        match (body.is_empty(), prefix) {
            (true, false) => Err(PatternError::Empty),
            (_, true) => Ok(Pattern::Prefix(body.to_owned())),
            (false, false) => Ok(Pattern::Exact(body.to_owned())),
        }
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(exact) => exact == name,
            Pattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(exact) => formatter.write_str(exact),
            Pattern::Prefix(prefix) => write!(formatter, "{prefix}*"),
        }
    }
}

/// A tenant name as Cortex accepts it: letters, digits and `!-_.*'()`, at most 150, neither `.` nor `..`, and
/// with at least one letter or digit (a tenant `.*` would read everyone's where tenants are matched by expression).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(String);

/// Why a tenant was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 150 letters, digits or !-_.*'() with at least one letter or digit")]
pub struct TenantError;

impl Tenant {
    /// Longest tenant in bytes.
    pub const MAX_BYTES: usize = 150;

    /// Checks a tenant name.
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!-_.*'()".contains(&byte);
        let good = text.len() <= Self::MAX_BYTES
            && text.bytes().all(allowed)
            && text.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if good {
            Ok(Tenant(text.to_owned()))
        } else {
            Err(TenantError)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One `[[identity]]` table: all given patterns must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Matches any URI of the certificate.
    pub uri: Option<Pattern>,
    /// Matches any DNS name of the certificate.
    pub dns: Option<Pattern>,
    /// Matches the common name.
    pub common_name: Option<Pattern>,
    /// Tenant of the clients that match.
    pub tenant: Option<Tenant>,
}

impl Rule {
    /// Whether the certificate's names satisfy every pattern of the rule. A rule without patterns matches nobody.
    pub fn matches(&self, names: &CertificateNames) -> bool {
        let uri = self
            .uri
            .as_ref()
            .map(|p| names.uris.iter().any(|n| p.matches(n)));
        let dns = self
            .dns
            .as_ref()
            .map(|p| names.dns_names.iter().any(|n| p.matches(n)));
        let common_name = self
            .common_name
            .as_ref()
            .map(|p| names.common_name.as_deref().is_some_and(|n| p.matches(n)));
        let mut given = [uri, dns, common_name].into_iter().flatten().peekable();
        given.peek().is_some() && given.all(|matched| matched)
    }
}

/// All rules, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Takes the rules in the order in which they are to be tried.
    pub fn new(rules: Vec<Rule>) -> Self {
        Rules(rules)
    }

    /// The rules in order.
    pub fn as_slice(&self) -> &[Rule] {
        &self.0
    }

    /// The first rule that matches, with its position; `None` is a refusal.
    pub fn decide(&self, names: &CertificateNames) -> Option<(usize, &Rule)> {
        self.0
            .iter()
            .enumerate()
            .find(|(_, rule)| rule.matches(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(uris: &[&str], dns_names: &[&str], common_name: Option<&str>) -> CertificateNames {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        CertificateNames {
            uris: owned(uris),
            dns_names: owned(dns_names),
            common_name: common_name.map(str::to_owned),
        }
    }

    fn rule(uri: Option<&str>, dns: Option<&str>, common_name: Option<&str>) -> Rule {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        Rule {
            uri: uri.map(pattern),
            dns: dns.map(pattern),
            common_name: common_name.map(pattern),
            tenant: None,
        }
    }

    #[test]
    fn several_keys_of_a_rule_mean_and() {
        let both = rule(Some("spiffe://a/*"), None, Some("agent"));
        assert!(both.matches(&names(&["spiffe://a/1"], &[], Some("agent"))));
        assert!(!both.matches(&names(&["spiffe://a/1"], &[], Some("other"))));
        assert!(!both.matches(&names(&["spiffe://a/1"], &[], None)));
        assert!(!both.matches(&names(&["spiffe://b/1"], &[], Some("agent"))));
    }

    #[test]
    fn any_name_of_a_kind_may_match_but_only_of_that_kind() {
        let by_dns = rule(None, Some("agent.example.org"), None);
        assert!(by_dns.matches(&names(&[], &["x.example.org", "agent.example.org"], None)));
        assert!(!by_dns.matches(&names(
            &["agent.example.org"],
            &[],
            Some("agent.example.org")
        )));
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_no_match_is_a_refusal() {
        let rules = Rules::new(vec![
            rule(None, None, Some("a*")),
            rule(None, None, Some("agent")),
        ]);
        assert_eq!(
            rules
                .decide(&names(&[], &[], Some("agent")))
                .map(|(index, _)| index),
            Some(0)
        );
        assert_eq!(rules.decide(&names(&[], &[], Some("bagent"))), None);
        assert_eq!(
            Rules::default().decide(&names(&["spiffe://a"], &["a"], Some("a"))),
            None
        );
        assert!(!rule(None, None, None).matches(&names(&["spiffe://a"], &["a"], Some("a"))));
    }

    #[test]
    fn patterns_take_one_star_at_their_end() {
        assert_eq!(Pattern::parse("a*b"), Err(PatternError::StarInside));
        assert_eq!(Pattern::parse("**"), Err(PatternError::StarInside));
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
        assert!(Pattern::parse("*").unwrap().matches(""));
    }

    #[test]
    fn tenants_are_what_cortex_accepts() {
        let longest = "a".repeat(Tenant::MAX_BYTES);
        for good in ["team-a", "1", "a!-_.*'()", "..a", longest.as_str()] {
            assert!(Tenant::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(Tenant::MAX_BYTES + 1);
        for bad in [
            "",
            ".",
            "..",
            ".*",
            "*",
            "team a",
            "team/a",
            "a|b",
            "ä",
            "a\n",
            too_long.as_str(),
        ] {
            assert_eq!(Tenant::parse(bad), Err(TenantError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_matches_exactly_the_names_that_begin_with_it(prefix in "[a-z/:.]{0,12}", name in "[a-z/:.]{0,16}") {
            let pattern = Pattern::parse(&format!("{prefix}*")).unwrap();
            prop_assert_eq!(pattern.matches(&name), name.starts_with(&prefix));
            let longer = format!("{}{}", prefix, name);
            prop_assert!(pattern.matches(&longer));
        }

        #[test]
        fn an_exact_pattern_matches_itself_alone(text in "[a-z]{1,8}", other in "[a-z]{1,8}") {
            let pattern = Pattern::parse(&text).unwrap();
            prop_assert_eq!(pattern.matches(&other), text == other);
        }
    }
}
