//! IP addresses as they lie in packets and maps. In: bytes in network order. Out: an `Address`. Pure.

use core::net::{IpAddr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address mapped into one (RFC 4291 section 2.5.5.2).
///
/// Four words of four bytes, in network order on every machine. As single bytes, an address would move through the
/// kernel program byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Address([u32; 4]);

const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);

impl Address {
    /// `::ffff:0:0/96` without its zeros.
    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// The address with these words, each in network order.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The IPv4 address with these bytes.
    #[inline(always)]
    pub(crate) const fn from_ipv4(bytes: [u8; 4]) -> Self {
        Self([0, 0, Self::MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// The first address of this one's /64; of an IPv4 address, that address.
    #[inline(always)]
    pub(crate) const fn network(self) -> Self {
        let Self([first, second, third, _]) = self;
        if first == 0 && second == 0 && third == Self::MAPPED {
            self
        } else {
            Self([first, second, 0, 0])
        }
    }

    /// The bytes in network order.
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (to, word) in octets.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }
}

impl From<[u8; 16]> for Address {
    #[inline(always)]
    fn from(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from_ipv4(address.octets()),
            IpAddr::V6(address) => Self::from(address.octets()),
        }
    }
}

impl From<Address> for Ipv6Addr {
    fn from(address: Address) -> Self {
        Self::from(address.octets())
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}", Ipv6Addr::from(*self).to_canonical())
    }
}
