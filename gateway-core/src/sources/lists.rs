//! The operator's lists of networks. In: networks, each allowed or denied. Out: the list of an address, by the most
//! specific network, as the kernel's prefix tree finds it. Every worker reads it; it never changes.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use gateway_common::{Address, Listed};
use ipnet::{IpNet, Ipv6Net};

/// The operator's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// By network; IPv4 networks are mapped into IPv6, as addresses are.
    words: HashMap<Ipv6Net, Listed>,
    /// The prefix lengths that occur, the longest first: a lookup tries each.
    prefix_lengths: Vec<u8>,
}

/// The prefix of an IPv4 address that is mapped into IPv6 (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

impl Lists {
    /// The lists of these networks. If a network occurs twice, the last one counts.
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

    /// The list that an address is on, if any.
    pub fn find(&self, address: Address) -> Option<Listed> {
        let address = Ipv6Addr::from(address);
        self.prefix_lengths.iter().find_map(|length| {
            let network = Ipv6Net::new(address, *length).ok()?.trunc();
            self.words.get(&network).copied()
        })
    }

    /// The networks with their lists, IPv4 mapped into IPv6, in no order.
    pub fn networks(&self) -> impl Iterator<Item = (Ipv6Net, Listed)> {
        self.words
            .iter()
            .map(|(network, listed)| (*network, *listed))
    }

    /// Number of networks on this list.
    pub fn count(&self, word: Listed) -> usize {
        self.words
            .values()
            .filter(|listed| **listed == word)
            .count()
    }

    /// Whether the lists are empty.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

/// A network in the form of its addresses: in IPv6, without the bits behind its prefix.
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
