//! Blocks: who an operator has shut out by hand, without waiting for a certificate authority.
//! In: entries of the block list; a certificate and its chain. Out: whether one of them is meant. Looked up as fast for
//! a thousand entries as for one.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::certificate::{Certificate, Chain, Fingerprint};
use crate::pattern::Pattern;
use crate::pattern_map::PatternMap;
use crate::revocation::{Link, Serial};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Block {
    /// A serial number, whoever issued it, of a client's certificate or of one above it.
    Serial(Serial),
    /// Exactly this certificate, in either form of its signature.
    Fingerprint(Fingerprint),
    /// Every certificate with a name that matches: URI, DNS, common name or IP address.
    Identity(Pattern),
}

/// All entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    serials: HashSet<Serial>,
    fingerprints: HashSet<Fingerprint>,
    names: PatternMap<()>,
    /// The names once more, in lower case.
    dns_names: PatternMap<()>,
}

impl BlockList {
    /// Takes all entries; one that stands twice counts once.
    pub fn new(blocks: impl IntoIterator<Item = Block>) -> Self {
        let mut list = BlockList::default();
        for block in blocks {
            match block {
                Block::Serial(serial) => {
                    list.serials.insert(serial);
                }
                Block::Fingerprint(fingerprint) => {
                    list.fingerprints.insert(fingerprint);
                }
                Block::Identity(pattern) => list.insert(pattern),
            }
        }
        list
    }

    fn insert(&mut self, pattern: Pattern) {
        self.dns_names.entry(&pattern.to_ascii_lowercase());
        // An address can be written in several ways, and is compared in one.
        self.names.entry(&match pattern {
            Pattern::Exact(name) => {
                let address = name.parse().map(|address: IpAddr| address.to_string());
                Pattern::Exact(address.unwrap_or(name))
            }
            starred @ (Pattern::Prefix(_) | Pattern::Segment { .. }) => starred,
        });
    }

    /// Whether anything of the client is blocked.
    pub fn blocks(&self, certificate: &Certificate, chain: &Chain) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_serial = |link: &Link| self.serials.contains(&link.serial);
        // DNS names have no case (RFC 4343), and a certificate's are kept in lower case.
        let is_dns_name = |name: &String| self.dns_names.contains(name);
        let mut forms = std::iter::once(&certificate.fingerprint).chain(&certificate.twin);
        forms.any(|form| self.fingerprints.contains(form))
            || chain.links.iter().any(is_serial)
            || certificate.names().any(|name| self.names.contains(&name))
            || certificate.dns_names.iter().any(is_dns_name)
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.serials.len() + self.fingerprints.len() + self.names.len()
    }

    /// Whether there are none.
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
        let identity = |text: &str| Block::Identity(Pattern::parse(text).unwrap());
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
            (identity("2001:DB8:0::1"), true),
            (identity("2001:db8::2"), false),
            (identity("spiffe://example.net/*"), false),
        ];
        for (block, expected) in table {
            let list = BlockList::new([block.clone(), block.clone()]);
            assert_eq!(list.len(), 1);
            assert_eq!(list.blocks(&certificate, &chain), expected, "{block:?}");
        }
        assert!(!BlockList::default().blocks(&certificate, &chain));
    }
}
