//! Blocks: certificates and names that an operator shuts out without waiting for a certificate authority.
//! In: entries of the block list; a certificate and its chain. Out: whether an entry matches. A lookup costs the same
//! for one entry and for a thousand.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use crate::authority::TrustDomain;
use crate::certificate::{Certificate, Chain, Fingerprint, NameKind, without_root};
use crate::pattern::Pattern;
use crate::pattern_map::PatternMap;
use crate::revocation::{Link, Serial};

/// One entry of the block list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Block {
    /// A serial number of any issuer, of a client's certificate or of one above it.
    Serial(Serial),
    /// This very certificate, in both forms of its signature.
    Fingerprint(Fingerprint),
    /// Every certificate with a matching name.
    Identity(BlockedNames),
}

/// Blocked names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlockedNames {
    /// The pattern of the name.
    pub pattern: Pattern,
    /// The kind of the name, and the certificates that count.
    pub only: Only,
}

/// What a name must be beside its text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Only {
    /// The kind of the name; `None` for any.
    pub kind: Option<NameKind>,
    /// The trust domain that the certificate's authority is bound to; `None` for any authority.
    pub trust_domain: Option<TrustDomain>,
}

impl Only {
    fn takes(&self, kind: NameKind, trust_domain: Option<&TrustDomain>) -> bool {
        let is_of_kind = self.kind.is_none_or(|only| only == kind);
        let wanted = self.trust_domain.as_ref();
        is_of_kind && wanted.is_none_or(|wanted| trust_domain == Some(wanted))
    }
}

impl From<Pattern> for BlockedNames {
    /// A name of any kind, in any certificate.
    fn from(pattern: Pattern) -> Self {
        BlockedNames {
            pattern,
            only: Only::default(),
        }
    }
}

impl fmt::Display for BlockedNames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(formatter)
    }
}

/// All entries of the block list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    /// The number of entries.
    entries: usize,
    serials: HashSet<Serial>,
    fingerprints: HashSet<Fingerprint>,
    names: PatternMap<Vec<Only>>,
    /// The names again, in lower case and without a dot at the end.
    dns_names: PatternMap<Vec<Only>>,
}

impl BlockList {
    /// Builds the list; a repeated entry counts once.
    pub fn new(blocks: impl IntoIterator<Item = Block>) -> Self {
        let mut list = BlockList::default();
        let blocks: HashSet<Block> = blocks.into_iter().collect();
        list.entries = blocks.len();
        for block in blocks {
            match block {
                Block::Serial(serial) => {
                    list.serials.insert(serial);
                }
                Block::Fingerprint(fingerprint) => {
                    list.fingerprints.insert(fingerprint);
                }
                Block::Identity(names) => list.insert(names),
            }
        }
        list
    }

    fn insert(&mut self, BlockedNames { pattern, only }: BlockedNames) {
        // White space at both ends is not part of a name (RFC 5280 section 7.1).
        let pattern = match pattern {
            Pattern::Exact(name) => Pattern::Exact(name.trim().to_owned()),
            Pattern::Prefix(begin) => Pattern::Prefix(begin.trim_start().to_owned()),
            segment @ Pattern::Segment { .. } => segment,
        };
        let dns_pattern = match pattern.to_ascii_lowercase() {
            Pattern::Exact(name) => Pattern::Exact(without_root(&name).to_owned()),
            starred @ (Pattern::Prefix(_) | Pattern::Segment { .. }) => starred,
        };
        self.dns_names.entry(&dns_pattern).push(only.clone());
        // An address has several spellings, and one form here.
        let names = self.names.entry(&match pattern {
            Pattern::Exact(name) => {
                let address = name.parse().map(|address: IpAddr| address.to_string());
                Pattern::Exact(address.unwrap_or(name))
            }
            starred @ (Pattern::Prefix(_) | Pattern::Segment { .. }) => starred,
        });
        names.push(only);
    }

    /// Whether an entry matches the client. `trust_domain` is the one that its authority is bound to, if any.
    pub fn blocks(
        &self,
        certificate: &Certificate,
        chain: &Chain,
        trust_domain: Option<&TrustDomain>,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_serial = |link: &Link| self.serials.contains(&link.serial);
        let is_in = |names: &PatternMap<Vec<Only>>, kind, name: &str| {
            let mut is_in = false;
            names.find(name.trim(), &mut |all| {
                is_in |= all.iter().any(|only| only.takes(kind, trust_domain));
            });
            is_in
        };
        let is_name = |(kind, name): (NameKind, Cow<'_, str>)| {
            is_in(&self.names, kind, &name)
                // DNS names have no case (RFC 4343); the certificate's are in lower case and without a dot at the
                // end.
                || kind == NameKind::Dns && is_in(&self.dns_names, kind, &name)
        };
        let mut forms = std::iter::once(&certificate.fingerprint).chain(&certificate.twin);
        forms.any(|form| self.fingerprints.contains(form))
            || chain.links.iter().any(is_serial)
            || certificate.names().any(is_name)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{AuthorityId, AuthorityKey};
    use std::time::SystemTime;

    fn client() -> (Certificate, Chain) {
        let certificate = Certificate {
            uris: vec!["spiffe://example.org/agent/1".to_owned()],
            dns_names: vec!["agent-1.example.org".to_owned()],
            ip_addresses: vec!["2001:db8::1".parse().unwrap()],
            common_name: Some("agent".to_owned()),
            further_common_names: vec!["one of two".to_owned(), " the other".to_owned()],
            fingerprint: Fingerprint([7; 32]),
            twin: Some(Fingerprint([9; 32])),
            ..Certificate::default()
        };
        let link = |serial: u8| Link {
            issuer: AuthorityId([1; 32]),
            key: AuthorityKey::default(),
            serial: Serial::new(&[serial]).unwrap(),
        };
        let chain = Chain {
            links: vec![link(5), link(6)],
            points: Vec::new(),
            anchor: AuthorityId([1; 32]),
            constraints: None,
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            ends_with_anchor: false,
        };
        (certificate, chain)
    }

    #[test]
    fn each_kind_of_entry_blocks_whom_it_names_and_nobody_else() {
        let (certificate, chain) = client();
        let serial = |serial: u8| Block::Serial(Serial::new(&[0, serial]).unwrap());
        let identity = |text: &str| Block::Identity(Pattern::parse(text).unwrap().into());
        let table = [
            (serial(5), true),
            (serial(6), true),
            (serial(7), false),
            (Block::Fingerprint(Fingerprint([7; 32])), true),
            (Block::Fingerprint(Fingerprint([8; 32])), false),
            // The certificate as it was before its holder turned the signature round.
            (Block::Fingerprint(Fingerprint([9; 32])), true),
            (identity("spiffe://example.org/agent/1"), true),
            (identity("spiffe://example.org/agent/*"), true),
            (identity("spiffe://example.org/agent"), false),
            (identity("agent"), true),
            (identity("Agent"), false),
            (identity("SPIFFE://example.org/agent/*"), false),
            (identity("agent-1.example.org"), true),
            (identity("Agent-1.Example.ORG"), true),
            (identity("AGENT-1.*"), true),
            (identity("agent-2.example.org"), false),
            // The root's empty label may be left out (RFC 1034 section 3.1).
            (identity("Agent-1.example.org."), true),
            (identity("agent-2.example.org."), false),
            (identity("agent."), false),
            (identity(" agent "), true),
            (identity(" age*"), true),
            (identity("one of two"), true),
            (identity("the other"), true),
            (identity("2001:DB8:0::1"), true),
            (identity("2001:db8::2"), false),
            (identity("spiffe://example.net/*"), false),
        ];
        for (block, expected) in table {
            let list = BlockList::new([block.clone(), block.clone()]);
            assert_eq!(list.len(), 1);
            let blocks = list.blocks(&certificate, &chain, None);
            assert_eq!(blocks, expected, "{block:?}");
        }
        assert!(!BlockList::default().blocks(&certificate, &chain, None));
    }

    #[test]
    fn a_name_of_a_kind_and_a_trust_domain_blocks_nobody_of_another() {
        use NameKind::{CommonName, Dns, IpAddress, Uri};
        let chain = client().1;
        let certificate = |kind| {
            let name = "spiffe://example.org/agent/1".to_owned();
            let mut certificate = Certificate::default();
            match kind {
                Uri => certificate.uris = vec![name],
                Dns => certificate.dns_names = vec![name],
                _ => certificate.common_name = Some(name),
            }
            certificate
        };
        let domain = |text| TrustDomain::parse(text).unwrap();
        let (ours, theirs) = (domain("example.org"), domain("example.net"));
        for text in [
            "spiffe://example.org/agent/1",
            "SPIFFE://example.org/*",
            "spiffe://*",
        ] {
            for only_kind in [
                None,
                Some(Uri),
                Some(Dns),
                Some(CommonName),
                Some(IpAddress),
            ] {
                for only_domain in [None, Some(&ours)] {
                    let only = Only {
                        kind: only_kind,
                        trust_domain: only_domain.cloned(),
                    };
                    let pattern = Pattern::parse(text).unwrap();
                    let list = BlockList::new([Block::Identity(BlockedNames { pattern, only })]);
                    for kind in [Uri, Dns, CommonName] {
                        for of in [None, Some(&ours), Some(&theirs)] {
                            // Only a DNS name has no case.
                            let is_text = kind == Dns || text.starts_with('s');
                            let is_kind = only_kind.is_none_or(|only| only == kind);
                            let is_domain = only_domain.is_none_or(|only| of == Some(only));
                            let blocks = list.blocks(&certificate(kind), &chain, of);
                            let expected = is_text && is_kind && is_domain;
                            assert_eq!(blocks, expected, "{list:?} {kind:?} {of:?}");
                        }
                    }
                }
            }
        }
    }
}
