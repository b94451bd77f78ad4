//! Tenants: where a rule's tenant comes from.
//! In: a rule and a certificate that it matches. Out: the tenant, or why the certificate names none.

use std::collections::BTreeSet;

use super::Rule;
use crate::authority::TrustDomain;
use crate::certificate::Certificate;
use crate::http::message::AllowedTenants;
use crate::pattern::Pattern;

/// A tenant name that Cortex accepts: at most 150 letters, digits and `!-_.*'()`, with at least one letter or digit.
/// A tenant `.*` could read all tenants where they are matched by expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(String);

/// The text is not a valid tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 150 letters, digits or !-_.*'() with at least one letter or digit")]
pub struct TenantError;

impl Tenant {
    /// Maximum length of a tenant, in bytes.
    pub const MAX_BYTES: usize = 150;

    /// Checks a tenant name.
    ///
    /// # Errors
    ///
    /// It has a length or characters that Cortex does not accept.
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

/// The part of the certificate that names a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantPart {
    /// The text that the first star of the rule's URI pattern stands for, up to the next `/`.
    Uri,
    /// The first label of the DNS name that the rule matches.
    Dns,
    /// The common name.
    CommonName,
    /// The organizational unit that the rule matches.
    OrganizationalUnit,
}

impl TenantPart {
    /// The part's key in the configuration, if a rule without a trust domain ignores that field of a certificate
    /// below a bound authority.
    fn ignored_key(self) -> Option<&'static str> {
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
    /// The rule gives no tenant.
    #[default]
    Nowhere,
    /// The rule names it.
    Literal(Tenant),
    /// The certificate names it.
    Certificate {
        /// The part that names it.
        part: TenantPart,
        /// The allowed tenants; `None` for any.
        among: Option<BTreeSet<Tenant>>,
    },
    /// A request of HTTP names it, or several.
    Request {
        /// The allowed tenants.
        tenants: BTreeSet<Tenant>,
        /// The tenant of a request that names none.
        default: Option<Tenant>,
    },
    /// A request of HTTP names any: the client is a component of the backend's own system.
    Component,
}

impl TenantSource {
    /// The tenants that requests of a client may name, of which a rule has found `found` in its certificate.
    pub fn allowed(&self, found: Option<&Tenant>) -> AllowedTenants {
        match self {
            TenantSource::Nowhere | TenantSource::Literal(_) | TenantSource::Certificate { .. } => {
                found.map_or(AllowedTenants::None, |tenant| {
                    AllowedTenants::One(tenant.clone())
                })
            }
            TenantSource::Request { tenants, default } => AllowedTenants::Among {
                tenants: tenants.clone(),
                default: default.clone(),
            },
            TenantSource::Component => AllowedTenants::Any,
        }
    }
}

impl Rule {
    /// Whether its tenant comes from a field that it ignores below authorities with a trust domain.
    pub fn takes_ignored_tenant(&self) -> bool {
        let part = match &self.tenant {
            TenantSource::Nowhere
            | TenantSource::Literal(_)
            | TenantSource::Request { .. }
            | TenantSource::Component => return false,
            TenantSource::Certificate { part, .. } => *part,
        };
        self.trust_domain.is_none() && part.ignored_key().is_some()
    }

    /// The tenant of a matching client, or in words what the certificate has instead.
    pub(super) fn tenant_of(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
    ) -> Result<Option<Tenant>, String> {
        let (part, among) = match &self.tenant {
            TenantSource::Nowhere | TenantSource::Request { .. } | TenantSource::Component => {
                return Ok(None);
            }
            TenantSource::Literal(tenant) => return Ok(Some(tenant.clone())),
            TenantSource::Certificate { part, among } => (*part, among),
        };
        if let (Some(domain), Some(key)) = (trust_domain, part.ignored_key())
            && !self.reads_all_fields(trust_domain)
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
                Err(format!("{one:?} is not one of the rule's tenants"))
            }
            _ => Ok(Some(tenant)),
        }
    }

    /// The candidates for the tenant: every name that the rule's own pattern of that kind matches.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Rules;
    use crate::identity::tests::{by_uri, names, rule};

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
            "identity rule 1 takes the tenant from the certificate, and \"admin\" is not one of the rule's tenants"
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
