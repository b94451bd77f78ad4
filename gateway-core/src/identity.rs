//! Identities: the rules that turn a client certificate into a decision.
//! In: what a certificate says. Out: what the first rule that matches admits it as, or a refusal.
//! Never parses a certificate and never verifies one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::authority::{self, OutOfScope, TrustDomain};
use crate::certificate::{Certificate, Fingerprint, Identity, NameKind};
pub use crate::pattern::{Pattern, PatternError};
use crate::rule_index::RuleIndex;

/// A tenant name as Cortex accepts it: letters, digits and `!-_.*'()`, at most 150, neither `.` nor `..`, and
/// with at least one letter or digit (a tenant `.*` would read everyone's where tenants are matched by expression).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// A part of the certificate that a tenant is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantPart {
    /// Of the URI that the rule matches, what the first star of the rule's pattern stands for, up to the next `/`.
    Uri,
    /// The first label of the DNS name that the rule matches.
    Dns,
    /// The common name.
    CommonName,
    /// The organizational unit that the rule matches.
    OrganizationalUnit,
}

impl TenantPart {
    /// The key that names the part, if it is one of those that are no names of a trust domain: what an authority that is bound to
    /// one writes there counts only for rules that name the trust domain.
    fn unheard_key(self) -> Option<&'static str> {
        match self {
            TenantPart::Uri | TenantPart::Dns => None,
            TenantPart::CommonName => Some("cn"),
            TenantPart::OrganizationalUnit => Some("ou"),
        }
    }
}

/// Where a rule's tenant comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TenantSource {
    /// There is none.
    #[default]
    Nowhere,
    /// The rule names it.
    Literal(Tenant),
    /// The certificate names it.
    Certificate {
        /// Where.
        part: TenantPart,
        /// The tenants it may be; `None` for any.
        among: Option<BTreeSet<Tenant>>,
    },
}

/// What one identity may use, over all its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdentityLimits {
    /// Connections at once.
    pub max_connections: Option<u32>,
    /// Handshakes per second.
    pub handshakes_per_second: Option<u32>,
    /// Bytes per second from the client.
    pub bytes_per_second: Option<u64>,
    /// Bytes from the client that may come at once; a second's worth without it.
    pub bytes_burst: Option<u64>,
}

/// One `[[identity]]` table: all given patterns must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Matches any URI of the certificate.
    pub uri: Option<Pattern>,
    /// Matches any DNS name of the certificate.
    pub dns: Option<Pattern>,
    /// Matches the common name.
    pub common_name: Option<Pattern>,
    /// Matches any organizational unit.
    pub organizational_unit: Option<Pattern>,
    /// Matches the issuer's name as RFC 4514 text.
    pub issuer: Option<Pattern>,
    /// Matches the trust domain that the client's authority is bound to.
    pub trust_domain: Option<TrustDomain>,
    /// Matches any IP address of the certificate.
    pub ip_address: Option<IpAddr>,
    /// Matches the certificate itself, if it is one of these; `None` for any.
    pub fingerprints: Option<Vec<Fingerprint>>,
    /// Positions of the listeners it holds for; `None` for all.
    pub listeners: Option<Vec<usize>>,
    /// Tenant of the clients that match.
    pub tenant: TenantSource,
    /// What each of their identities may use.
    pub limits: IdentityLimits,
}

/// What a rule admits a client as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Position of the rule, counted from 0.
    pub rule: usize,
    /// The name it goes by: the one that the rule matched.
    pub identity: Identity,
    /// The tenant it sends as.
    pub tenant: Option<Tenant>,
    /// What its identity may use.
    pub limits: IdentityLimits,
}

/// Why no rule admits a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// None matches.
    #[error("no identity rule matches")]
    NoRule,
    /// X509-SVID section 2: a certificate has one SPIFFE ID, or nobody knows which is meant.
    #[error("it has more than one SPIFFE ID")]
    SeveralSpiffeIds,
    /// It has a name that its authority may not give.
    #[error(transparent)]
    OutOfScope(#[from] OutOfScope),
    /// One matches, and what the certificate names as tenant is none.
    #[error("identity rule {} takes the tenant from the certificate, and {found}", .rule + 1)]
    NoTenant {
        /// Position of the rule, counted from 0.
        rule: usize,
        /// What was found instead.
        found: String,
    },
}

/// One key of a rule's `match`, and whether a certificate satisfies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMatch {
    /// The key as written in the configuration.
    pub key: &'static str,
    /// Whether the certificate satisfies it.
    pub matches: bool,
}

impl Rule {
    /// Whether the certificate satisfies every pattern of the rule. A rule without patterns matches nobody.
    pub fn matches(&self, certificate: &Certificate, trust_domain: Option<&TrustDomain>) -> bool {
        let mut given = self.keys(certificate, trust_domain).peekable();
        given.peek().is_some() && given.all(|key| key.matches)
    }

    /// Every key that the rule has, compared with a certificate below an authority that is bound to `trust_domain`, if it
    /// is bound. What such an authority writes beside URIs and DNS names counts only for rules that name the trust domain:
    /// all others were written for authorities that may say anything.
    pub fn keys(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
    ) -> impl Iterator<Item = KeyMatch> {
        let is_heard = self.hears_all(trust_domain);
        let any = |pattern: &Option<Pattern>, names: &[String]| {
            let pattern = pattern.as_ref()?;
            Some(names.iter().any(|name| pattern.matches(name)))
        };
        let heard = |matches: Option<bool>| matches.map(|matches| matches && is_heard);
        let common_name = certificate.common_name.as_slice();
        let units = &certificate.organizational_units;
        let issuer = std::slice::from_ref(&certificate.issuer);
        let wanted = self.trust_domain.as_ref();
        let ip_address = self.ip_address.as_ref();
        let fingerprints = self.fingerprints.as_ref();
        let compared = [
            ("uri", any(&self.uri, &certificate.uris)),
            ("dns", any(&self.dns, &certificate.dns_names)),
            ("cn", heard(any(&self.common_name, common_name))),
            ("ou", heard(any(&self.organizational_unit, units))),
            ("issuer", heard(any(&self.issuer, issuer))),
            (
                "trust_domain",
                wanted.map(|wanted| trust_domain == Some(wanted)),
            ),
            (
                "ip",
                heard(ip_address.map(|address| certificate.ip_addresses.contains(address))),
            ),
            (
                "fingerprint",
                fingerprints.map(|known| known.contains(&certificate.fingerprint)),
            ),
        ];
        compared
            .into_iter()
            .filter_map(|(key, matches)| matches.map(|matches| KeyMatch { key, matches }))
    }

    /// Whether all that an authority bound to `trust_domain` writes counts, and not its URIs and DNS names alone.
    fn hears_all(&self, trust_domain: Option<&TrustDomain>) -> bool {
        trust_domain.is_none() || self.trust_domain.is_some()
    }

    /// Whether its tenant is taken from what authorities with a trust domain are not heard on.
    pub fn takes_unheard_tenant(&self) -> bool {
        let part = match &self.tenant {
            TenantSource::Nowhere | TenantSource::Literal(_) => return false,
            TenantSource::Certificate { part, .. } => *part,
        };
        self.trust_domain.is_none() && part.unheard_key().is_some()
    }

    /// Whether it matches by what only authorities without a trust domain are heard on.
    fn needs_hearing(&self) -> bool {
        self.common_name.is_some()
            || self.organizational_unit.is_some()
            || self.issuer.is_some()
            || self.ip_address.is_some()
    }

    /// Whether it has anything to match by; a rule without matches nobody.
    fn has_key(&self) -> bool {
        let texts = [
            &self.uri,
            &self.dns,
            &self.common_name,
            &self.organizational_unit,
            &self.issuer,
        ];
        texts.into_iter().any(Option::is_some)
            || self.trust_domain.is_some()
            || self.ip_address.is_some()
            || self.fingerprints.is_some()
    }

    /// Whether the rule matches every certificate that `later` matches, wherever that holds.
    pub fn covers(&self, later: &Rule) -> bool {
        let covers = |wide: &Option<Pattern>, narrow: &Option<Pattern>| match (wide, narrow) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => wide.covers(narrow),
        };
        // Without a trust domain a rule does not hear all that one with it does.
        let covers_domain = |wide: &Option<TrustDomain>, later: &Rule| match wide {
            Some(_) => *wide == later.trust_domain,
            None => later.trust_domain.is_none() || !self.needs_hearing(),
        };
        self.has_key()
            && covers(&self.uri, &later.uri)
            && covers(&self.dns, &later.dns)
            && covers(&self.common_name, &later.common_name)
            && covers(&self.organizational_unit, &later.organizational_unit)
            && covers(&self.issuer, &later.issuer)
            && covers_domain(&self.trust_domain, later)
            && (self.ip_address.is_none() || self.ip_address == later.ip_address)
            && holds_all(&self.fingerprints, &later.fingerprints)
            && holds_all(&self.listeners, &later.listeners)
    }

    /// Whether the rule holds for the listener at this position.
    pub fn holds_for(&self, listener: usize) -> bool {
        let listeners = self.listeners.as_ref();
        listeners.is_none_or(|positions| positions.contains(&listener))
    }

    /// The name that a client which matches goes by: the first of those that the rule's own pattern matches, or what the
    /// certificate is called where the rule looks at none of its names.
    fn name_of(&self, certificate: &Certificate) -> (NameKind, String) {
        let matching = |kind, pattern: &Option<Pattern>, names: &[String]| {
            let pattern = pattern.as_ref()?;
            let mut names = names.iter();
            let name = names.find(|name| pattern.matches(name))?;
            Some((kind, name.clone()))
        };
        let common_name = certificate.common_name.as_slice();
        matching(NameKind::Uri, &self.uri, &certificate.uris)
            .or_else(|| matching(NameKind::Dns, &self.dns, &certificate.dns_names))
            .or_else(|| matching(NameKind::CommonName, &self.common_name, common_name))
            .or_else(|| Some((NameKind::IpAddress, self.ip_address?.to_string())))
            .unwrap_or_else(|| certificate.name())
    }

    /// The tenant of a client that matches, or what was found where its certificate names none.
    fn tenant_of(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
    ) -> Result<Option<Tenant>, String> {
        let (part, among) = match &self.tenant {
            TenantSource::Nowhere => return Ok(None),
            TenantSource::Literal(tenant) => return Ok(Some(tenant.clone())),
            TenantSource::Certificate { part, among } => (*part, among),
        };
        if let (Some(domain), Some(key)) = (trust_domain, part.unheard_key())
            && !self.hears_all(trust_domain)
        {
            return Err(format!(
                "its CA is bound to the trust domain {domain}: {key} counts only for rules that match trust_domain as well"
            ));
        }
        let mut candidates = self.tenant_candidates(part, certificate);
        candidates.dedup();
        let one = match candidates.as_slice() {
            [] => return Err("it has no such name".to_owned()),
            [one] => *one,
            [one, other, ..] => return Err(format!("it could be {one:?} or {other:?}")),
        };
        let tenant = Tenant::parse(one).map_err(|error| format!("{one:?} {error}"))?;
        match among {
            Some(among) if !among.contains(&tenant) => {
                Err(format!("{one:?} is none of the rule's tenants"))
            }
            _ => Ok(Some(tenant)),
        }
    }

    /// What may be meant as the tenant: every name that the rule's own pattern of that kind matches.
    fn tenant_candidates<'c>(
        &self,
        part: TenantPart,
        certificate: &'c Certificate,
    ) -> Vec<&'c str> {
        let first = |text: &'c str, end: char| text.split(end).next().unwrap_or(text);
        let matching = |pattern: &Option<Pattern>, name: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
        };
        match part {
            TenantPart::Uri => {
                let uris = certificate.uris.iter();
                let rests = uris.filter_map(|uri| self.uri.as_ref()?.star(uri));
                rests.map(|rest| first(rest, '/')).collect()
            }
            TenantPart::Dns => {
                let names = certificate.dns_names.iter();
                let names = names.filter(|name| matching(&self.dns, name));
                names.map(|name| first(name, '.')).collect()
            }
            TenantPart::CommonName => certificate.common_name.as_deref().into_iter().collect(),
            TenantPart::OrganizationalUnit => {
                let units = certificate.organizational_units.iter();
                let units = units.filter(|unit| matching(&self.organizational_unit, unit));
                units.map(String::as_str).collect()
            }
        }
    }
}

/// Whether every element of `narrow` is one of `wide`; without a list it is everything.
fn holds_all<T: PartialEq>(wide: &Option<Vec<T>>, narrow: &Option<Vec<T>>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|element| wide.contains(element)),
    }
}

/// All rules, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    index: RuleIndex,
}

impl Rules {
    /// Takes the rules in the order in which they are to be tried.
    pub fn new(rules: Vec<Rule>) -> Self {
        let index = RuleIndex::new(&rules);
        Rules { rules, index }
    }

    /// The same rules for a gateway on which the listener at position `n` is at position `positions[n]`, or not there at all.
    pub fn on_listeners_at(&self, positions: &[Option<usize>]) -> Rules {
        let rules = self.rules.iter().map(|rule| {
            let move_one = |listener: &usize| positions.get(*listener).copied().flatten();
            let move_all = |listeners: &Vec<usize>| listeners.iter().filter_map(move_one).collect();
            Rule {
                listeners: rule.listeners.as_ref().map(move_all),
                ..rule.clone()
            }
        });
        Rules::new(rules.collect())
    }

    /// The rules in order.
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// Position of the first rule that matches on the listener at this position.
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

    /// Position of the first rule before the one at `position` that matches all that it matches: that one is never reached.
    pub fn covering(&self, position: usize) -> Option<usize> {
        let rule = &self.rules[position];
        let covers = |earlier: usize| earlier < position && self.rules[earlier].covers(rule);
        self.index.first_covering(rule, covers)
    }

    /// What the first rule that matches on the listener at this position admits the client as. `trust_domain` is what its
    /// authority is bound to. A rule that matches and finds no tenant refuses: the client must not slip through to a rule
    /// that was meant for others.
    pub fn decide(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
        listener: usize,
    ) -> Result<Admission, Denial> {
        // X509-SVID section 2: exactly one. Of two, a rule would look at the one and a backend at the other.
        let uris = certificate.uris.iter();
        if uris.filter(|uri| authority::is_spiffe(uri)).count() > 1 {
            return Err(Denial::SeveralSpiffeIds);
        }
        let found = self.first(certificate, trust_domain, listener);
        let position = found.ok_or(Denial::NoRule)?;
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
            limits: rule.limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(uris: &[&str], dns_names: &[&str], common_name: Option<&str>) -> Certificate {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Certificate {
            uris: owned(uris),
            dns_names: owned(dns_names),
            common_name: common_name.map(str::to_owned),
            ..Certificate::default()
        }
    }

    fn rule(uri: Option<&str>, dns: Option<&str>, common_name: Option<&str>) -> Rule {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        Rule {
            uri: uri.map(pattern),
            dns: dns.map(pattern),
            common_name: common_name.map(pattern),
            ..Rule::default()
        }
    }

    #[test]
    fn several_keys_of_a_rule_mean_and() {
        let both = rule(Some("spiffe://a/*"), None, Some("agent"));
        assert!(both.matches(&names(&["spiffe://a/1"], &[], Some("agent")), None));
        assert!(!both.matches(&names(&["spiffe://a/1"], &[], Some("other")), None));
        assert!(!both.matches(&names(&["spiffe://a/1"], &[], None), None));
        assert!(!both.matches(&names(&["spiffe://b/1"], &[], Some("agent")), None));
    }

    #[test]
    fn any_name_of_a_kind_may_match_but_only_of_that_kind() {
        let by_dns = rule(None, Some("agent.example.org"), None);
        assert!(by_dns.matches(
            &names(&[], &["x.example.org", "agent.example.org"], None),
            None
        ));
        assert!(!by_dns.matches(
            &names(&["agent.example.org"], &[], Some("agent.example.org")),
            None
        ));
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
            Err(Denial::NoRule)
        );
        assert_eq!(
            Rules::default().decide(&names(&["spiffe://a"], &["a"], Some("a")), None, 0),
            Err(Denial::NoRule)
        );
        assert!(!rule(None, None, None).matches(&names(&["spiffe://a"], &["a"], Some("a")), None));
    }

    #[test]
    fn unit_issuer_address_and_fingerprint_match_what_they_name() {
        let certificate = Certificate {
            organizational_units: vec!["edge".to_owned(), "team-a".to_owned()],
            issuer: "CN=Agents CA".to_owned(),
            ip_addresses: vec![IpAddr::from([192, 0, 2, 1])],
            fingerprint: Fingerprint([7; 32]),
            ..Certificate::default()
        };
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let unit = |text: &str| Rule {
            organizational_unit: pattern(text),
            ..Rule::default()
        };
        let issuer = |text: &str| Rule {
            issuer: pattern(text),
            ..Rule::default()
        };
        let address = |last: u8| Rule {
            ip_address: Some(IpAddr::from([192, 0, 2, last])),
            ..Rule::default()
        };
        let fingerprint = |byte: u8| Rule {
            fingerprints: Some(vec![Fingerprint([0; 32]), Fingerprint([byte; 32])]),
            ..Rule::default()
        };
        let table = [
            (unit("team-*"), true),
            (unit("team"), false),
            (issuer("CN=Agents CA"), true),
            (issuer("CN=Other CA"), false),
            (address(1), true),
            (address(2), false),
            (fingerprint(7), true),
            (fingerprint(8), false),
        ];
        for (rule, expected) in table {
            assert_eq!(rule.matches(&certificate, None), expected, "{rule:?}");
        }
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
        // None at all is not any.
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
        assert_eq!(rules.decide(&agent, None, 0), Err(Denial::NoRule));
        assert!(rules.decide(&agent, None, 1).is_ok());
    }

    #[test]
    fn a_tenant_is_taken_from_the_named_part_or_the_client_is_refused() {
        let taken = |part: TenantPart, rule: Rule, certificate: &Certificate| {
            let rule = Rule {
                tenant: TenantSource::Certificate { part, among: None },
                ..rule
            };
            let decided = Rules::new(vec![rule]).decide(certificate, None, 0);
            let tenant = decided.map(|admission| admission.tenant.unwrap().as_str().to_owned());
            tenant.map_err(|denial| denial.to_string())
        };
        let by_uri = || rule(Some("spiffe://a/team/*"), None, None);
        let uri = |uris: &[&str]| taken(TenantPart::Uri, by_uri(), &names(uris, &[], None));
        assert_eq!(uri(&["spiffe://a/team/red/agent/1"]), Ok("red".to_owned()));
        assert_eq!(
            uri(&["https://b/x", "spiffe://a/team/red"]),
            Ok("red".to_owned())
        );
        assert!(uri(&["spiffe://a/team/red", "spiffe://a/team/blue"]).is_err());
        assert!(uri(&["spiffe://a/team/"]).is_err());
        assert!(uri(&["spiffe://a/team/.."]).is_err());
        let by_dns = rule(None, Some("*"), None);
        let agent = names(&[], &["red.agents.example.org"], Some("blue"));
        assert_eq!(taken(TenantPart::Dns, by_dns, &agent), Ok("red".to_owned()));
        let by_name = || rule(None, None, Some("*"));
        assert_eq!(
            taken(TenantPart::CommonName, by_name(), &agent),
            Ok("blue".to_owned())
        );
        let unit = taken(TenantPart::OrganizationalUnit, by_name(), &agent);
        assert_eq!(
            unit.unwrap_err(),
            "identity rule 1 takes the tenant from the certificate, and it has no such name"
        );
    }

    #[test]
    fn a_tenant_from_the_certificate_is_one_of_the_closed_set_or_the_client_is_refused() {
        let among = ["red", "blue"].map(|name| Tenant::parse(name).unwrap());
        let rule = Rule {
            uri: Some(Pattern::parse_uri("spiffe://a/*/agent").unwrap()),
            tenant: TenantSource::Certificate {
                part: TenantPart::Uri,
                among: Some(among.into()),
            },
            ..Rule::default()
        };
        let rules = Rules::new(vec![rule, self::rule(Some("spiffe://a/*"), None, None)]);
        let decide = |uri: &str| rules.decide(&names(&[uri], &[], None), None, 0);
        let tenant = decide("spiffe://a/red/agent").unwrap().tenant;
        assert_eq!(tenant, Some(Tenant::parse("red").unwrap()));
        let denial = decide("spiffe://a/admin/agent").unwrap_err();
        assert_eq!(
            denial.to_string(),
            "identity rule 1 takes the tenant from the certificate, and \"admin\" is none of the rule's tenants"
        );
        assert_eq!(decide("spiffe://a/admin/other").unwrap().rule, 1);
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

    fn by_uri(uri: &str) -> Rule {
        rule(Some(uri), None, None)
    }

    #[test]
    fn wider_rule_covers_narrower_ones_only() {
        let with_name = |text: &str| Rule {
            common_name: Some(Pattern::parse("a").unwrap()),
            ..by_uri(text)
        };
        assert!(by_uri("spiffe://a/*").covers(&by_uri("spiffe://a/b")));
        assert!(by_uri("spiffe://a/*").covers(&by_uri("spiffe://a/b*")));
        assert!(by_uri("spiffe://a/*").covers(&with_name("spiffe://a/b")));
        assert!(by_uri("spiffe://a").covers(&by_uri("spiffe://a")));
        assert!(!by_uri("spiffe://a/b*").covers(&by_uri("spiffe://a/*")));
        assert!(!by_uri("spiffe://a").covers(&by_uri("spiffe://a*")));
        assert!(!with_name("spiffe://a/*").covers(&by_uri("spiffe://a/b")));
    }

    #[test]
    fn every_further_key_narrows_a_rule() {
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let narrowed = [
            Rule {
                organizational_unit: pattern("edge"),
                ..by_uri("spiffe://a/*")
            },
            Rule {
                issuer: pattern("CN=A"),
                ..by_uri("spiffe://a/*")
            },
            Rule {
                ip_address: Some(IpAddr::from([192, 0, 2, 1])),
                ..by_uri("spiffe://a/*")
            },
            Rule {
                fingerprints: Some(vec![Fingerprint([1; 32])]),
                ..by_uri("spiffe://a/*")
            },
            Rule {
                listeners: Some(vec![1]),
                ..by_uri("spiffe://a/*")
            },
        ];
        for rule in narrowed {
            assert!(by_uri("spiffe://a/*").covers(&rule), "{rule:?}");
            assert!(!rule.covers(&by_uri("spiffe://a/*")), "{rule:?}");
            assert!(rule.covers(&rule), "{rule:?}");
        }
        let on = |listeners: &[usize]| Rule {
            listeners: Some(listeners.to_vec()),
            ..by_uri("spiffe://a/*")
        };
        assert!(on(&[0, 1]).covers(&on(&[1])));
        assert!(!on(&[0]).covers(&on(&[0, 1])));
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

    #[test]
    fn a_bound_authority_names_a_tenant_beside_uris_and_dns_names_for_rules_of_its_trust_domain_alone()
     {
        let ours = TrustDomain::parse("example.org").unwrap();
        let certificate = Certificate {
            organizational_units: vec!["red".to_owned()],
            ..names(
                &["spiffe://example.org/red"],
                &["red.example.org"],
                Some("red"),
            )
        };
        let tenant = |part: TenantPart, rule: Rule, trust_domain: Option<&TrustDomain>| {
            let tenant = TenantSource::Certificate { part, among: None };
            let rules = Rules::new(vec![Rule { tenant, ..rule }]);
            let decided = rules.decide(&certificate, trust_domain, 0);
            let tenant = decided.map(|admission| admission.tenant.unwrap().as_str().to_owned());
            tenant.map_err(|denial| denial.to_string())
        };
        let unnamed = || by_uri("spiffe://example.org/*");
        let named = || Rule {
            trust_domain: Some(ours.clone()),
            ..unnamed()
        };
        let red = || Ok("red".to_owned());
        for (part, key) in [
            (TenantPart::CommonName, "cn"),
            (TenantPart::OrganizationalUnit, "ou"),
        ] {
            assert_eq!(tenant(part, unnamed(), None), red());
            assert_eq!(tenant(part, named(), Some(&ours)), red());
            let refusal = format!(
                "identity rule 1 takes the tenant from the certificate, and its CA is bound to the trust domain example.org: \
                 {key} counts only for rules that match trust_domain as well"
            );
            assert_eq!(tenant(part, unnamed(), Some(&ours)), Err(refusal));
        }
        for part in [TenantPart::Uri, TenantPart::Dns] {
            assert_eq!(tenant(part, unnamed(), Some(&ours)), red());
        }
    }
}
