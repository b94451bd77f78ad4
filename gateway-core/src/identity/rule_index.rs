//! The index of the rules: finds the rules that a certificate could match without trying each.
//! In: all rules, then a certificate. Out: the first rule that matches. Each rule is filed under the one of its keys
//! that the fewest rules share, so that ten thousand rules for ten thousand agents cost as much as ten.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Rule;
use crate::authority::TrustDomain;
use crate::certificate::{Certificate, Fingerprint};
use crate::pattern::Pattern;
use crate::pattern_map::PatternMap;

/// Positions of rules, in order.
type Bucket = Vec<u32>;

/// The rules that a certificate could match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleIndex(Keys<Bucket>);

/// One key of a rule, in the form that finds rules.
#[derive(Debug, Clone, Copy)]
enum Key<'r> {
    Text(Kind, &'r Pattern),
    Address(IpAddr),
    Fingerprint(Fingerprint),
    TrustDomain(&'r TrustDomain),
}

/// The kinds of names that patterns match, in order of how well they usually tell clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uri,
    Dns,
    CommonName,
    OrganizationalUnit,
    Issuer,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Uri,
        Kind::Dns,
        Kind::CommonName,
        Kind::OrganizationalUnit,
        Kind::Issuer,
    ];

    fn pattern(self, rule: &Rule) -> Option<&Pattern> {
        match self {
            Kind::Uri => rule.uri.as_ref(),
            Kind::Dns => rule.dns.as_ref(),
            Kind::CommonName => rule.common_name.as_ref(),
            Kind::OrganizationalUnit => rule.organizational_unit.as_ref(),
            Kind::Issuer => rule.issuer.as_ref(),
        }
    }

    fn names(self, certificate: &Certificate) -> &[String] {
        match self {
            Kind::Uri => &certificate.uris,
            Kind::Dns => &certificate.dns_names,
            Kind::CommonName => certificate.common_name.as_slice(),
            Kind::OrganizationalUnit => &certificate.organizational_units,
            Kind::Issuer => std::slice::from_ref(&certificate.issuer),
        }
    }
}

/// A map from keys of rules to values.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys<V> {
    texts: [PatternMap<V>; Kind::ALL.len()],
    addresses: HashMap<IpAddr, V>,
    fingerprints: HashMap<Fingerprint, V>,
    trust_domains: HashMap<TrustDomain, V>,
}

impl<V> Default for Keys<V> {
    fn default() -> Self {
        Keys {
            texts: Default::default(),
            addresses: HashMap::new(),
            fingerprints: HashMap::new(),
            trust_domains: HashMap::new(),
        }
    }
}

impl<V: Default> Keys<V> {
    fn entry(&mut self, key: Key<'_>) -> &mut V {
        match key {
            Key::Text(kind, pattern) => self.texts[kind as usize].entry(pattern),
            Key::Address(address) => self.addresses.entry(address).or_default(),
            Key::Fingerprint(fingerprint) => self.fingerprints.entry(fingerprint).or_default(),
            Key::TrustDomain(domain) => self.trust_domains.entry(domain.clone()).or_default(),
        }
    }
}

impl<V> Keys<V> {
    fn get(&self, key: Key<'_>) -> Option<&V> {
        match key {
            Key::Text(kind, pattern) => self.texts[kind as usize].get(pattern),
            Key::Address(address) => self.addresses.get(&address),
            Key::Fingerprint(fingerprint) => self.fingerprints.get(&fingerprint),
            Key::TrustDomain(domain) => self.trust_domains.get(domain),
        }
    }

    /// Passes the values of all keys that the certificate matches to `visit`.
    fn find<'k>(
        &'k self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
        visit: &mut dyn FnMut(&'k V),
    ) {
        for kind in Kind::ALL {
            let texts = &self.texts[kind as usize];
            if texts.is_empty() {
                continue;
            }
            for name in kind.names(certificate) {
                texts.find(name, visit);
            }
        }
        if !self.addresses.is_empty() {
            let addresses = certificate.ip_addresses.iter();
            addresses
                .filter_map(|address| self.addresses.get(address))
                .for_each(&mut *visit);
        }
        if let Some(value) = self.fingerprints.get(&certificate.fingerprint) {
            visit(value);
        }
        if let Some(value) = trust_domain.and_then(|domain| self.trust_domains.get(domain)) {
            visit(value);
        }
    }

    /// Passes the values of all keys that cover a key of the rule to `visit`.
    fn find_covering<'k>(&'k self, rule: &Rule, visit: &mut dyn FnMut(&'k V)) {
        for kind in Kind::ALL {
            if let Some(pattern) = kind.pattern(rule) {
                self.texts[kind as usize].find_covering(pattern, visit);
            }
        }
        let address = rule
            .ip_address
            .and_then(|address| self.addresses.get(&address));
        // A rule that covers a list of certificates covers each of them.
        let first = rule.fingerprints.as_ref().and_then(|list| list.first());
        let fingerprint = first.and_then(|fingerprint| self.fingerprints.get(fingerprint));
        let domain = rule.trust_domain.as_ref();
        let domain = domain.and_then(|domain| self.trust_domains.get(domain));
        let others = address.into_iter().chain(fingerprint).chain(domain);
        others.for_each(visit);
    }
}

/// The keys of a rule. Any of them finds the rule: every certificate that the rule matches matches each key.
fn alternatives(rule: &Rule) -> impl Iterator<Item = Vec<Key<'_>>> {
    let fingerprints = rule.fingerprints.as_ref();
    let fingerprints =
        fingerprints.map(|list| list.iter().copied().map(Key::Fingerprint).collect());
    let address = rule.ip_address.map(|address| vec![Key::Address(address)]);
    let texts = Kind::ALL.into_iter().filter_map(|kind| {
        let pattern = kind.pattern(rule)?;
        Some(vec![Key::Text(kind, pattern)])
    });
    let domain = rule.trust_domain.as_ref();
    let domain = domain.map(|domain| vec![Key::TrustDomain(domain)]);
    let single = fingerprints.into_iter().chain(address).chain(texts);
    single.chain(domain)
}

impl RuleIndex {
    /// The index of `rules`.
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let mut shares = Keys::<u32>::default();
        for key in rules.iter().flat_map(alternatives).flatten() {
            *shares.entry(key) += 1;
        }
        let mut index = Keys::<Bucket>::default();
        for (position, rule) in rules.iter().enumerate() {
            let position = u32::try_from(position).expect("a configuration has fewer rules");
            // A prefix finds more names than it is written for.
            let cost = |keys: &Vec<Key<'_>>| {
                let share = keys.iter().filter_map(|key| shares.get(*key)).max();
                let is_wide = keys
                    .iter()
                    .any(|key| matches!(key, Key::Text(_, pattern) if pattern.has_star()));
                (share.copied(), is_wide)
            };
            for key in alternatives(rule).min_by_key(cost).into_iter().flatten() {
                let bucket = index.entry(key);
                // A rule may name a certificate twice.
                if bucket.last() != Some(&position) {
                    bucket.push(position);
                }
            }
        }
        RuleIndex(index)
    }

    /// The first rule that `matches`, among those that the certificate could match.
    pub(crate) fn first(
        &self,
        certificate: &Certificate,
        trust_domain: Option<&TrustDomain>,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut first = None;
        self.0.find(certificate, trust_domain, &mut |bucket| {
            improve(&mut first, bucket, &matches)
        });
        first
    }

    /// The first rule that `covers`, among those that could cover `rule`.
    pub(crate) fn first_covering(
        &self,
        rule: &Rule,
        covers: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut first = None;
        self.0
            .find_covering(rule, &mut |bucket| improve(&mut first, bucket, &covers));
        first
    }
}

/// Keeps the first rule of the bucket that passes the test, if it precedes the one found so far.
fn improve(first: &mut Option<usize>, bucket: &[u32], asked_for: impl Fn(usize) -> bool) {
    let positions = bucket.iter().map(|position| *position as usize);
    let mut earlier = positions.take_while(|position| first.is_none_or(|first| *position < first));
    if let Some(found) = earlier.find(|position| asked_for(*position)) {
        *first = Some(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Rules;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    /// Few names, so that rules often match.
    const NAMES: &str = "[ab]{1,2}(/[ab]{1,2}){0,2}";

    fn pattern() -> impl Strategy<Value = Pattern> {
        "([ab]{1,2}|\\*)(/([ab]{1,2}|\\*)){0,2}\\*?"
            .prop_filter_map("no pattern", |text| Pattern::parse_uri(&text).ok())
    }

    fn trust_domain() -> impl Strategy<Value = TrustDomain> {
        "[ab]".prop_map(|text| TrustDomain::parse(&text).unwrap())
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let texts = (
            of(pattern()),
            of(pattern()),
            of(pattern()),
            of(pattern()),
            of(pattern()),
        );
        let others = (
            of(0..3_u8),
            of(vec(0..3_u8, 1..3)),
            of(vec(0..2_usize, 1..3)),
            of(trust_domain()),
        );
        (texts, others).prop_map(
            |(texts, (address, fingerprints, listeners, trust_domain))| Rule {
                uri: texts.0,
                dns: texts.1,
                common_name: texts.2,
                organizational_unit: texts.3,
                issuer: texts.4,
                ip_address: address.map(|last| IpAddr::from([192, 0, 2, last])),
                fingerprints: fingerprints.map(|list| {
                    list.into_iter()
                        .map(|byte| Fingerprint([byte; 32]))
                        .collect()
                }),
                listeners,
                trust_domain,
                ..Rule::default()
            },
        )
    }

    fn certificate() -> impl Strategy<Value = Certificate> {
        let names = || vec(NAMES, 0..3);
        let others = (vec(0..3_u8, 0..2), 0..3_u8);
        (names(), names(), of(NAMES), names(), NAMES, others).prop_map(
            |(uris, dns_names, common_name, organizational_units, issuer, (addresses, byte))| {
                Certificate {
                    uris,
                    dns_names,
                    common_name,
                    organizational_units,
                    issuer,
                    ip_addresses: addresses
                        .into_iter()
                        .map(|last| IpAddr::from([192, 0, 2, last]))
                        .collect(),
                    fingerprint: Fingerprint([byte; 32]),
                    twin: Some(Fingerprint([byte + 1; 32])),
                    ..Certificate::default()
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn the_index_finds_the_rule_that_trying_one_by_one_finds(
            rules in vec(rule(), 0..24), certificate in certificate(), domain in of(trust_domain()), listener in 0..2_usize
        ) {
            let domain = domain.as_ref();
            let mut one_by_one = rules.iter();
            let expected = one_by_one.position(|rule| rule.holds_for(listener) && rule.matches(&certificate, domain));
            let found = Rules::new(rules).first(&certificate, domain, listener);
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_rule_that_covers_another_is_the_one_that_trying_one_by_one_finds(rules in vec(rule(), 0..24)) {
            let indexed = Rules::new(rules.clone());
            for (position, rule) in rules.iter().enumerate() {
                let expected = rules[..position].iter().position(|earlier| earlier.covers(rule));
                prop_assert_eq!(indexed.covering(position), expected);
            }
        }
    }

    #[test]
    fn a_rule_stands_under_the_key_that_the_fewest_share() {
        let rules: Vec<_> = (0..100)
            .map(|number| Rule {
                uri: Some(Pattern::parse_uri("spiffe://a/*").unwrap()),
                common_name: Some(Pattern::parse(&format!("agent-{number}")).unwrap()),
                organizational_unit: Some(Pattern::parse("edge").unwrap()),
                ..Rule::default()
            })
            .collect();
        let index = RuleIndex::new(&rules);
        let agent = Certificate {
            uris: vec!["spiffe://a/7".to_owned()],
            common_name: Some("agent-7".to_owned()),
            organizational_units: vec!["edge".to_owned()],
            ..Certificate::default()
        };
        let mut tried = 0;
        index
            .0
            .find(&agent, None, &mut |bucket| tried += bucket.len());
        assert_eq!(tried, 1);
    }
}
