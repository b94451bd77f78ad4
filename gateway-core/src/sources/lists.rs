//! Networks that an operator has a word on. In: networks, each allowed or denied. Out: the word on an address, the most
//! specific network's, as the kernel's prefix tree gives it. Read by every worker, never changed.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use gateway_common::{Address, Listed};
use ipnet::{IpNet, Ipv6Net};

/// The words on networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// IPv4 networks are mapped into IPv6, as addresses are.
    words: HashMap<Ipv6Net, Listed>,
    /// The lengths of prefixes that occur, the longest first: a lookup tries each.
    prefix_lengths: Vec<u8>,
}

/// In front of an IPv4 address that is mapped into IPv6 (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

impl Lists {
    /// The lists of so many networks. Of two words on the very same network the last counts.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, Listed)>) -> Self {
        let words: HashMap<_, _> = networks
            .into_iter()
            .map(|(network, listed)| (mapped(network), listed))
            .collect();
        let mut prefix_lengths: Vec<u8> = words.keys().map(Ipv6Net::prefix_len).collect();
        prefix_lengths.sort_unstable_by(|one, other| other.cmp(one));
        prefix_lengths.dedup();
        Self {
            words,
            prefix_lengths,
        }
    }

    /// The word on an address, if there is one.
    pub fn find(&self, address: Address) -> Option<Listed> {
        let address = Ipv6Addr::from(address);
        self.prefix_lengths.iter().find_map(|length| {
            let network = Ipv6Net::new(address, *length).ok()?.trunc();
            self.words.get(&network).copied()
        })
    }

    /// The networks, IPv4 mapped into IPv6, each with its word; in no order.
    pub fn networks(&self) -> impl Iterator<Item = (Ipv6Net, Listed)> {
        self.words
            .iter()
            .map(|(network, listed)| (*network, *listed))
    }

    /// How many networks have this word.
    pub fn count(&self, word: Listed) -> usize {
        self.words
            .values()
            .filter(|listed| **listed == word)
            .count()
    }

    /// Whether there is no word on anybody.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

/// A network as the addresses in it are written: in IPv6, without the bits behind its prefix.
fn mapped(network: IpNet) -> Ipv6Net {
    match network {
        IpNet::V6(network) => network.trunc(),
        IpNet::V4(network) => {
            let address = network.network().to_ipv6_mapped();
            let length = MAPPED_PREFIX_BITS + network.prefix_len();
            Ipv6Net::new(address, length).expect("96 and at most 32 are at most 128")
        }
    }
}
