//! Identities: the rules that admit clients by their certificates.
//! In: what a certificate says. Out: the admission of the first rule that matches, or a denial. Never parses or
//! verifies a certificate.

mod rule;
mod rule_index;
mod tenant;

use std::fmt;

use crate::authority::{self, OutOfScope, TrustDomain};
use crate::certificate::{Certificate, Identity};

pub use crate::pattern::{Pattern, PatternError};
pub use rule::{IdentityLimits, KeyMatch, Rule, TenantLimits};
use rule_index::RuleIndex;
pub use tenant::{Tenant, TenantError, TenantPart, TenantSource};

/// All rules, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    list: RuleList,
    rules: Vec<Rule>,
    index: RuleIndex,
}

/// Where rules are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RuleList {
    /// `[[identity]]`.
    #[default]
    Identity,
    /// `allow` of `[admin.tls]`.
    Allow,
}

impl fmt::Display for RuleList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            RuleList::Identity => "identity rule",
            RuleList::Allow => "element of allow in [admin.tls]",
        })
    }
}

impl Rules {
    /// Takes identity rules in the order of evaluation.
    pub fn new(rules: Vec<Rule>) -> Self {
        Rules::of(RuleList::Identity, rules)
    }

    /// Takes the rules of a list in the order of evaluation.
    pub fn of(list: RuleList, rules: Vec<Rule>) -> Self {
        let index = RuleIndex::new(&rules);
        Rules { list, rules, index }
    }

    /// The same rules for a gateway whose listener at position `positions[n]` was at position `n`; `None` for a
    /// listener that is gone.
    pub fn on_listeners_at(&self, positions: &[Option<usize>]) -> Rules {
        let rules = self.rules.iter().map(|rule| {
            let move_one = |listener: &usize| positions.get(*listener).copied().flatten();
            let move_all = |listeners: &Vec<usize>| listeners.iter().filter_map(move_one).collect();
            Rule {
                listeners: rule.listeners.as_ref().map(move_all),
                ..rule.clone()
            }
        });
        Rules::of(self.list, rules.collect())
    }

    /// The rules in order.
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// Position of the first rule that matches on this listener.
    pub fn first(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
        listener: usize,
    ) -> Option<usize> {
        self.index.first(certificate, trust_domain, |position| {
            let rule = &self.rules[position];
            rule.holds_for(listener) && rule.matches(certificate, trust_domain)
        })
    }

    /// Position of the first earlier rule that matches everything that the rule at `position` matches, which is then
    /// unreachable.
    pub fn covering(&self, position: usize) -> Option<usize> {
        let rule = &self.rules[position];
        let covers = |earlier: usize| earlier < position && self.rules[earlier].covers(rule);
        self.index.first_covering(rule, covers)
    }

    /// The admission by the first rule that matches on this listener. `trust_domain` is the one that the client's
    /// authority is bound to, if any. If the rule that matches finds no tenant, the client is refused: it must not
    /// fall through to a rule for others.
    ///
    /// # Errors
    ///
    /// Why no rule admits the client.
    pub fn decide(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
        listener: usize,
    ) -> Result<Admission, Denial> {
        // X509-SVID section 2: exactly one. Of two, a rule could read the one and a backend the other.
        let uris = certificate.uris.iter();
        if uris.filter(|uri| authority::is_spiffe(uri)).count() > 1 {
            return Err(Denial::SeveralSpiffeIds);
        }
        let found = self.first(certificate, trust_domain, listener);
        let position = found.ok_or(Denial::NoRule(self.list))?;
        let rule = &self.rules[position];
        let tenant = rule.tenant_of(certificate, trust_domain);
        let (kind, name) = rule.name_of(certificate);
        Ok(Admission {
            rule: position,
            identity: Identity {
                kind,
                name,
                trust_domain: trust_domain.cloned(),
            },
            tenant: tenant.map_err(|found| Denial::NoTenant {
                rule: position,
                found,
            })?,
            limits: (rule.limits != IdentityLimits::default()).then(|| Box::new(rule.limits)),
        })
    }
}

/// How a rule admits a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Position of the rule, counted from 0.
    pub rule: usize,
    /// The client's identity: the name that the rule matched.
    pub identity: Identity,
    /// The client's tenant.
    pub tenant: Option<Tenant>,
    /// Boxed: few identities have limits, and each connection keeps its admission.
    limits: Option<Box<IdentityLimits>>,
}

impl Admission {
    /// The limits of the client's identity.
    pub fn limits(&self) -> IdentityLimits {
        self.limits.as_deref().copied().unwrap_or_default()
    }
}

/// Why no rule admits a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No rule matches.
    #[error("no {0} matches")]
    NoRule(RuleList),
    /// X509-SVID section 2: a certificate has one SPIFFE ID; of several, the client's is unknown.
    #[error("it has more than one SPIFFE ID")]
    SeveralSpiffeIds,
    /// It has a name that its authority may not issue.
    #[error(transparent)]
    OutOfScope(#[from] OutOfScope),
    /// A rule matches, and the certificate names no valid tenant.
    #[error("identity rule {} takes the tenant from the certificate, and {found}", .rule + 1)]
    NoTenant {
        /// Position of the rule, counted from 0.
        rule: usize,
        /// What was found instead, in words.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{Fingerprint, NameKind};
    use std::net::IpAddr;

    pub(super) fn names(
        uris: &[&str],
        dns_names: &[&str],
        common_name: Option<&str>,
    ) -> Certificate {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Certificate {
            uris: owned(uris),
            dns_names: owned(dns_names),
            common_name: common_name.map(str::to_owned),
            ..Certificate::default()
        }
    }

    pub(super) fn rule(uri: Option<&str>, dns: Option<&str>, common_name: Option<&str>) -> Rule {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        Rule {
            uri: uri.map(pattern),
            dns: dns.map(pattern),
            common_name: common_name.map(pattern),
            ..Rule::default()
        }
    }

    pub(super) fn by_uri(uri: &str) -> Rule {
        rule(Some(uri), None, None)
    }

    #[test]
    fn the_first_rule_that_matches_wins_and_no_match_is_a_refusal() {
        let rules = Rules::new(vec![
            rule(None, None, Some("a*")),
            rule(None, None, Some("agent")),
        ]);
        let decide = |certificate: &Certificate| {
            let decided = rules.decide(certificate, None, 0);
            decided.map(|admission| admission.rule)
        };
        assert_eq!(decide(&names(&[], &[], Some("agent"))), Ok(0));
        assert_eq!(
            decide(&names(&[], &[], Some("bagent"))),
            Err(Denial::NoRule(RuleList::Identity))
        );
        assert_eq!(
            Rules::default().decide(&names(&["spiffe://a"], &["a"], Some("a")), None, 0),
            Err(Denial::NoRule(RuleList::Identity))
        );
        assert!(!rule(None, None, None).matches(&names(&["spiffe://a"], &["a"], Some("a")), None));
    }

    #[test]
    fn rules_follow_their_listeners_to_other_positions_and_hold_for_none_that_is_not_there() {
        let on = |listeners: Option<Vec<usize>>| Rule {
            listeners,
            ..Rule::default()
        };
        let rules = Rules::new(vec![on(Some(vec![0, 1])), on(Some(vec![2])), on(None)]);
        let moved = rules.on_listeners_at(&[Some(4), None, None]);
        let listeners: Vec<_> = moved
            .as_slice()
            .iter()
            .map(|rule| &rule.listeners)
            .collect();
        assert_eq!(listeners, [&Some(vec![4]), &Some(vec![]), &None]);
        // An empty list is not "any".
        assert!(!moved.as_slice()[1].holds_for(2));
    }

    #[test]
    fn a_rule_holds_for_the_listeners_it_names_alone() {
        let second_only = Rule {
            listeners: Some(vec![1]),
            ..rule(None, None, Some("agent"))
        };
        let rules = Rules::new(vec![second_only]);
        let agent = names(&[], &[], Some("agent"));
        assert_eq!(
            rules.decide(&agent, None, 0),
            Err(Denial::NoRule(RuleList::Identity))
        );
        assert!(rules.decide(&agent, None, 1).is_ok());
    }

    #[test]
    fn a_client_goes_by_the_name_that_the_rule_matched_and_its_kind() {
        let certificate = names(
            &["https://example.org/1", "spiffe://a/agent/1"],
            &["a.example", "b.example"],
            Some("agent"),
        );
        let identity = |rule: Rule| {
            let decided = Rules::new(vec![rule]).decide(&certificate, None, 0);
            let identity = decided.unwrap().identity;
            (identity.kind, identity.name)
        };
        let of = |kind, name: &str| (kind, name.to_owned());
        let by_uri = identity(rule(Some("spiffe://a/*"), Some("*"), Some("*")));
        assert_eq!(by_uri, of(NameKind::Uri, "spiffe://a/agent/1"));
        let by_dns = identity(rule(None, Some("b.*"), Some("*")));
        assert_eq!(by_dns, of(NameKind::Dns, "b.example"));
        let by_common_name = identity(rule(None, None, Some("*")));
        assert_eq!(by_common_name, of(NameKind::CommonName, "agent"));
        let by_fingerprint = identity(Rule {
            fingerprints: Some(vec![Fingerprint::default()]),
            ..Rule::default()
        });
        assert_eq!(by_fingerprint, of(NameKind::Uri, "https://example.org/1"));
    }

    #[test]
    fn a_certificate_with_two_spiffe_ids_is_refused_whichever_a_rule_would_match() {
        let rules = Rules::new(vec![rule(Some("*"), None, None)]);
        let decide = |uris: &[&str]| rules.decide(&names(uris, &[], None), None, 0);
        for uris in [
            ["spiffe://a/1", "spiffe://a/2"],
            ["spiffe://a/1", "SPIFFE://b/2"],
        ] {
            assert_eq!(decide(&uris), Err(Denial::SeveralSpiffeIds));
        }
        assert!(decide(&["spiffe://a/1", "https://a/1"]).is_ok());
    }

    #[test]
    fn what_a_bound_authority_writes_beside_uris_and_dns_names_counts_for_rules_of_its_trust_domain_alone()
     {
        let domain = |text: &str| TrustDomain::parse(text).unwrap();
        let ours = domain("example.org");
        let certificate = Certificate {
            organizational_units: vec!["ops".to_owned()],
            ip_addresses: vec![IpAddr::from([192, 0, 2, 1])],
            issuer: "CN=CA".to_owned(),
            ..names(&["spiffe://example.org/1"], &[], Some("admin"))
        };
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let unbound = [
            rule(None, None, Some("admin")),
            Rule {
                organizational_unit: pattern("ops"),
                ..Rule::default()
            },
            Rule {
                issuer: pattern("CN=CA"),
                ..Rule::default()
            },
            Rule {
                ip_address: Some(IpAddr::from([192, 0, 2, 1])),
                ..Rule::default()
            },
        ];
        for rule in unbound {
            assert!(rule.matches(&certificate, None), "{rule:?}");
            assert!(!rule.matches(&certificate, Some(&ours)), "{rule:?}");
            let of = |text: &str| Rule {
                trust_domain: Some(domain(text)),
                ..rule.clone()
            };
            assert!(of("example.org").matches(&certificate, Some(&ours)));
            assert!(!of("example.net").matches(&certificate, Some(&ours)));
            assert!(!of("example.org").matches(&certificate, None));
            assert!(!rule.covers(&of("example.org")) && !of("example.org").covers(&rule));
        }
        assert!(by_uri("spiffe://*").matches(&certificate, Some(&ours)));
    }
}
