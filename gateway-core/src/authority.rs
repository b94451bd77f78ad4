//! Scopes of authorities: the names that an authority may issue when an operator binds it to a trust domain.
//! In: a certificate below that authority. Out: whether all its names are in scope. Pure text.

use std::fmt;

use crate::certificate::Certificate;
use crate::identity::Rule;
use crate::pattern::Pattern;

/// The beginning of SPIFFE IDs (SPIFFE-ID section 2.1); URI schemes have no case (RFC 3986 section 3.1).
const SPIFFE: &str = "spiffe://";

/// The name of a trust domain: lower-case letters, digits, `.`, `-`, `_`, at most 255 (SPIFFE-ID section 2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// Why a trust domain is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the name of a trust domain: 1 to 255 lower-case letters, digits or .-_ and no scheme"
)]
pub struct TrustDomainError;

impl TrustDomain {
    /// Maximum length of a name, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// It has a length or characters that SPIFFE-ID section 2.1 does not allow.
    pub fn parse(text: &str) -> Result<Self, TrustDomainError> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_good =
            !text.is_empty() && text.len() <= Self::MAX_BYTES && text.bytes().all(allowed);
        match is_good {
            true => Ok(TrustDomain(text.to_owned())),
            false => Err(TrustDomainError),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a URI is a SPIFFE ID, or looks like one.
pub fn is_spiffe(uri: &str) -> bool {
    let begin = uri.get(..SPIFFE.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(SPIFFE))
}

/// The trust domain of a SPIFFE ID, as written.
pub fn domain_of(uri: &str) -> Option<&str> {
    let rest = is_spiffe(uri).then(|| &uri[SPIFFE.len()..])?;
    rest.split('/').next()
}

/// The names that an authority may issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The trust domain of its SPIFFE IDs; it may issue no other URI.
    pub trust_domain: TrustDomain,
    /// The patterns of its DNS names.
    pub dns: Vec<Pattern>,
}

/// A name that its authority may not issue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its CA is bound to the trust domain {trust_domain} and may not speak for the {kind} {name:?}"
)]
pub struct OutOfScope {
    /// The trust domain of the authority.
    pub trust_domain: TrustDomain,
    /// `URI` or `DNS name`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
}

impl Scope {
    /// Checks that the authority may issue every URI and DNS name of the certificate. Common name, units and
    /// addresses belong to no trust domain: rules read them only if they name the trust domain as well.
    ///
    /// # Errors
    ///
    /// The first name that is out of scope.
    pub fn check(&self, certificate: &Certificate) -> Result<(), OutOfScope> {
        let refuse = |kind: &'static str, name: &String| OutOfScope {
            trust_domain: self.trust_domain.clone(),
            kind,
            name: name.clone(),
        };
        let mut uris = certificate.uris.iter();
        if let Some(uri) = uris.find(|uri| domain_of(uri) != Some(self.trust_domain.as_str())) {
            return Err(refuse("URI", uri));
        }
        let is_ours = |name: &&String| self.dns.iter().any(|pattern| pattern.matches(name));
        let mut dns_names = certificate.dns_names.iter();
        match dns_names.find(|name| !is_ours(name)) {
            Some(name) => Err(refuse("DNS name", name)),
            None => Ok(()),
        }
    }

    /// Whether the authority may issue a certificate that a rule matches, on any listener.
    pub fn may_satisfy(&self, rule: &Rule) -> bool {
        let is_named = match &rule.trust_domain {
            Some(named) => *named == self.trust_domain,
            // Its other fields count only for rules of its trust domain.
            None => {
                rule.common_name.is_none()
                    && rule.organizational_unit.is_none()
                    && rule.issuer.is_none()
                    && rule.ip_address.is_none()
            }
        };
        let own = format!("{SPIFFE}{}", self.trust_domain);
        let below = Pattern::Prefix(format!("{own}/"));
        let may_have_uri = |uri: &Pattern| uri.matches(&own) || uri.overlaps(&below);
        let may_have_dns = |dns: &Pattern| self.dns.iter().any(|own| own.overlaps(dns));
        is_named
            && rule.uri.as_ref().is_none_or(may_have_uri)
            && rule.dns.as_ref().is_none_or(may_have_dns)
    }

    /// Whether both authorities may issue one name. Within one trust domain they may: there they are one.
    pub fn overlaps(&self, other: &Scope) -> bool {
        let overlap = |pattern: &Pattern| other.dns.iter().any(|other| pattern.overlaps(other));
        self.trust_domain != other.trust_domain && self.dns.iter().any(overlap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(trust_domain: &str, dns: &[&str]) -> Scope {
        let dns = dns.iter().map(|text| Pattern::parse_dns(text).unwrap());
        Scope {
            trust_domain: TrustDomain::parse(trust_domain).unwrap(),
            dns: dns.collect(),
        }
    }

    #[test]
    fn a_bound_authority_speaks_for_its_trust_domain_and_the_listed_dns_names_alone() {
        let bound = scope("example.org", &["*.agents.example.org"]);
        let may = |uri: &str, dns: &str| {
            let one = |name: &str| match name {
                "" => Vec::new(),
                name => vec![name.to_owned()],
            };
            let certificate = Certificate {
                uris: one(uri),
                dns_names: one(dns),
                ..Certificate::default()
            };
            bound.check(&certificate).is_ok()
        };
        assert!(may("spiffe://example.org/agent/1", ""));
        assert!(may("SPIFFE://example.org/agent/1", "a.agents.example.org"));
        assert!(may("spiffe://example.org", ""));
        assert!(may("", ""));
        for uri in [
            "spiffe://example.net/agent/1",
            "spiffe://example.org.evil/agent/1",
            "spiffe://Example.org/agent/1",
            "spiffe://example.org:443/agent/1",
            "spiffe://x@example.org/agent/1",
            "https://example.org/agent/1",
            "urn:example.org",
            "spiffe:/",
        ] {
            assert!(!may(uri, ""), "{uri}");
        }
        assert!(!may("spiffe://example.org/a", "agents.example.org"));
        assert!(!may("spiffe://example.org/a", "a.example.net"));
    }

    #[test]
    fn two_authorities_overlap_where_one_dns_name_could_be_of_both() {
        let wide = scope("a.example", &["*.example.org"]);
        assert!(wide.overlaps(&scope("b.example", &["agent.example.org"])));
        assert!(!wide.overlaps(&scope("b.example", &["agent.example.net"])));
        assert!(!wide.overlaps(&scope("b.example", &[])));
        assert!(!wide.overlaps(&scope("a.example", &["*.example.org"])));
    }

    #[test]
    fn an_authority_satisfies_the_rules_for_names_that_are_its_own_to_give_alone() {
        let bound = scope("a.example", &["*.agents.a.example"]);
        let uri = |text: &str| Rule {
            uri: Some(Pattern::parse_uri(text).unwrap()),
            ..Rule::default()
        };
        let dns = |text: &str| Rule {
            dns: Some(Pattern::parse_dns(text).unwrap()),
            ..Rule::default()
        };
        let of_domain = |domain: &str| Rule {
            trust_domain: Some(TrustDomain::parse(domain).unwrap()),
            common_name: Some(Pattern::parse("agent").unwrap()),
            ..Rule::default()
        };
        for satisfied in [
            uri("spiffe://a.example/agent/*"),
            uri("spiffe://a.example"),
            uri("spiffe://*"),
            uri("spiffe://*/agent"),
            dns("one.agents.a.example"),
            of_domain("a.example"),
        ] {
            assert!(bound.may_satisfy(&satisfied), "{satisfied:?}");
        }
        let common_name = Rule {
            trust_domain: None,
            ..of_domain("a.example")
        };
        for not in [
            uri("spiffe://b.example/*"),
            uri("spiffe://a.example.net/*"),
            uri("https://a.example/*"),
            dns("agents.b.example"),
            of_domain("b.example"),
            common_name,
        ] {
            assert!(!bound.may_satisfy(&not), "{not:?}");
        }
    }

    #[test]
    fn a_trust_domain_is_a_name_in_lower_case_without_a_scheme() {
        let longest = "a".repeat(TrustDomain::MAX_BYTES);
        for good in ["example.org", "prod_1", "a-b", longest.as_str()] {
            assert!(TrustDomain::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(TrustDomain::MAX_BYTES + 1);
        for bad in [
            "",
            "Example.org",
            "spiffe://example.org",
            "a/b",
            "a:1",
            "ä",
            &too_long,
        ] {
            assert_eq!(TrustDomain::parse(bad), Err(TrustDomainError), "{bad}");
        }
    }
}
