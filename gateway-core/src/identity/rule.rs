//! One rule: what a certificate must say to match.
//! In: what a certificate says. Out: whether the rule matches, key by key, and whether it makes another rule
//! unreachable.

use std::net::IpAddr;
use std::sync::Arc;

use super::tenant::TenantSource;
use crate::authority::TrustDomain;
use crate::certificate::{Certificate, Fingerprint, NameKind};
use crate::http::message::ToldFields;
use crate::http::policy::Rights;
use crate::pattern::Pattern;

/// Limits of one identity, over all its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdentityLimits {
    /// Maximum of open connections.
    pub max_connections: Option<u32>,
    /// Maximum of handshakes per second.
    pub handshakes_per_second: Option<u32>,
    /// Maximum of bytes per second from the client.
    pub bytes_per_second: Option<u64>,
    /// Burst in bytes from the client; `None` for one second's worth.
    pub bytes_burst: Option<u64>,
    /// Maximum of requests per second.
    pub requests_per_second: Option<u32>,
    /// Maximum of requests in flight.
    pub max_requests_in_flight: Option<u32>,
}

/// Limits of each tenant, over all identities that speak for it. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Maximum of requests per second.
    pub requests_per_second: Option<u32>,
    /// Maximum of bytes of requests' content per second.
    pub bytes_per_second: Option<u64>,
    /// Burst of them; `None` for one second's worth.
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
    /// Positions of its listeners; `None` for all.
    pub listeners: Option<Vec<usize>>,
    /// Where the tenant of a matching client comes from.
    pub tenant: TenantSource,
    /// Limits of each matching identity.
    pub limits: IdentityLimits,
    /// Limits of each tenant that matching clients speak for.
    pub tenant_limits: TenantLimits,
    /// What matching clients may call on HTTP listeners; `None`: the rule holds for none.
    pub rights: Option<Arc<Rights>>,
    /// What backends are told of matching clients, beside what the listener says.
    pub told: Option<Arc<ToldFields>>,
}

/// One key of a rule's `match`, and whether a certificate matches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMatch {
    /// The key as written in the configuration.
    pub key: &'static str,
    /// Whether the certificate matches it.
    pub matches: bool,
}

impl Rule {
    /// Whether the certificate matches every pattern of the rule. A rule without patterns matches no certificate.
    pub fn matches(&self, certificate: &Certificate, trust_domain: Option<&TrustDomain>) -> bool {
        let mut given = self.keys(certificate, trust_domain).peekable();
        given.peek().is_some() && given.all(|key| key.matches)
    }

    /// Every key of the rule, compared with a certificate whose authority is bound to `trust_domain`, if any. What
    /// such an authority writes beside URIs and DNS names counts only for rules that name the trust domain: other
    /// rules were written for authorities without bounds.
    pub fn keys(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
    ) -> impl Iterator<Item = KeyMatch> {
        let reads_all = self.reads_all_fields(trust_domain);
        let any = |pattern: &Option<Pattern>, names: &[String]| {
            let pattern = pattern.as_ref()?;
            Some(names.iter().any(|name| pattern.matches(name)))
        };
        let if_read = |matches: Option<bool>| matches.map(|matches| matches && reads_all);
        let common_name = certificate.common_name.as_slice();
        let units = &certificate.organizational_units;
        let issuer = std::slice::from_ref(&certificate.issuer);
        let wanted = self.trust_domain.as_ref();
        let ip_address = self.ip_address.as_ref();
        let fingerprints = self.fingerprints.as_ref();
        let compared = [
            ("uri", any(&self.uri, &certificate.uris)),
            ("dns", any(&self.dns, &certificate.dns_names)),
            ("cn", if_read(any(&self.common_name, common_name))),
            ("ou", if_read(any(&self.organizational_unit, units))),
            ("issuer", if_read(any(&self.issuer, issuer))),
            (
                "trust_domain",
                wanted.map(|wanted| trust_domain == Some(wanted)),
            ),
            (
                "ip",
                if_read(ip_address.map(|address| certificate.ip_addresses.contains(address))),
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

    /// Whether the rule reads all fields of a certificate below an authority bound to `trust_domain`, or only its
    /// URIs and DNS names.
    pub(super) fn reads_all_fields(&self, trust_domain: Option<&TrustDomain>) -> bool {
        trust_domain.is_none() || self.trust_domain.is_some()
    }

    /// Whether it matches by fields that count only below authorities without a trust domain.
    fn matches_by_other_fields(&self) -> bool {
        self.common_name.is_some()
            || self.organizational_unit.is_some()
            || self.issuer.is_some()
            || self.ip_address.is_some()
    }

    /// Whether it has a key; a rule without keys matches no certificate.
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

    /// Whether the rule matches every certificate that `later` matches, on all of its listeners.
    pub fn covers(&self, later: &Rule) -> bool {
        let covers = |wide: &Option<Pattern>, narrow: &Option<Pattern>| match (wide, narrow) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => wide.covers(narrow),
        };
        // Without a trust domain, a rule reads fewer fields than one with it.
        let covers_domain = |wide: &Option<TrustDomain>, later: &Rule| match wide {
            Some(_) => *wide == later.trust_domain,
            None => later.trust_domain.is_none() || !self.matches_by_other_fields(),
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

    /// Whether the rule applies to the listener at this position.
    pub fn holds_for(&self, listener: usize) -> bool {
        let listeners = self.listeners.as_ref();
        listeners.is_none_or(|positions| positions.contains(&listener))
    }

    /// The name of a matching client: the first one that the rule's own pattern matches, or the certificate's name if
    /// the rule reads none.
    pub(super) fn name_of(&self, certificate: &Certificate) -> (NameKind, String) {
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
}

/// Whether `wide` has every element of `narrow`; without a list it has all.
fn holds_all<T: PartialEq>(wide: &Option<Vec<T>>, narrow: &Option<Vec<T>>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|element| wide.contains(element)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{by_uri, names, rule};

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
}
