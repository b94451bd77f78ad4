//! Blocks: who an operator has shut out by hand, without waiting for a certificate authority.
//! In: entries of the block list; a certificate and its chain. Out: whether one of them is meant. Looked up as fast for
//! a thousand serial numbers as for one; name prefixes are tried one by one.

use std::collections::{BTreeSet, HashSet};

use crate::certificate::{Certificate, Chain, Fingerprint};
use crate::identity::Pattern;
use crate::revocation::Serial;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Block {
    /// A serial number, whoever issued it, of a client's certificate or of one above it.
    Serial(Serial),
    /// Exactly this certificate.
    Fingerprint(Fingerprint),
    /// Every certificate with a name that matches: URI, DNS, common name or IP address.
    Identity(Pattern),
}

/// All entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    serials: HashSet<Serial>,
    fingerprints: HashSet<Fingerprint>,
    names: HashSet<String>,
    prefixes: HashSet<String>,
    /// How long the prefixes are: what a name costs depends on these few, not on the number of entries.
    prefix_lengths: BTreeSet<usize>,
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
                Block::Identity(Pattern::Exact(name)) => {
                    list.names.insert(name);
                }
                Block::Identity(Pattern::Prefix(prefix)) => {
                    list.prefix_lengths.insert(prefix.len());
                    list.prefixes.insert(prefix);
                }
            }
        }
        list
    }

    /// Whether anything of the client is blocked.
    pub fn blocks(&self, certificate: &Certificate, chain: &Chain) -> bool {
        if self.is_empty() {
            return false;
        }
        let beginning = |name: &str, length: &usize| {
            let beginning = name.get(..*length);
            beginning.is_some_and(|beginning| self.prefixes.contains(beginning))
        };
        let lengths = self.prefix_lengths.iter();
        let named = |name: String| {
            self.names.contains(&name) || lengths.clone().any(|length| beginning(&name, length))
        };
        self.fingerprints.contains(&certificate.fingerprint)
            || chain
                .links
                .iter()
                .any(|link| self.serials.contains(&link.serial))
            || certificate.names().any(named)
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.serials.len() + self.fingerprints.len() + self.names.len() + self.prefixes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{AuthorityId, Link};
    use std::time::SystemTime;

    fn client() -> (Certificate, Chain) {
        let certificate = Certificate {
            uris: vec!["spiffe://example.org/agent/1".to_owned()],
            common_name: Some("agent".to_owned()),
            fingerprint: Fingerprint([7; 32]),
            ..Certificate::default()
        };
        let link = |serial: u8| Link {
            issuer: AuthorityId([1; 32]),
            serial: Serial::new(&[serial]).unwrap(),
        };
        let chain = Chain {
            links: vec![link(5), link(6)],
            anchor: AuthorityId([1; 32]),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
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
            (identity("spiffe://example.org/agent/1"), true),
            (identity("spiffe://example.org/agent/*"), true),
            (identity("spiffe://example.org/agent"), false),
            (identity("agent"), true),
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
