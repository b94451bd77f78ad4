//! Where connections come from: addresses and ranges of them, as given on the command line.
//! In: text such as `10.0.0.2-10.0.0.50,10.0.1.7`. Out: an address for each number, each address in its turn.
//! Never held as a list: forged sources may be all of IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};

use crate::limits::FLOOD_SOURCES_MAX;

/// Addresses of one family, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    ranges: Vec<Range>,
    is_ipv4: bool,
}

/// First and last address as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u128,
    last: u128,
}

impl Range {
    /// One less than its length, which may be more than fits.
    fn reach(self) -> u128 {
        self.last - self.first
    }
}

impl Sources {
    /// The first `number` addresses from 127.0.0.1 on.
    pub fn loopback(number: u8) -> Self {
        let first = u128::from(Ipv4Addr::LOCALHOST.to_bits());
        Self {
            ranges: vec![Range {
                first,
                last: first + u128::from(number.max(1)) - 1,
            }],
            is_ipv4: true,
        }
    }

    /// Fails unless packets to `target` can bear these addresses.
    pub fn ensure_family(&self, target: IpAddr) -> Result<()> {
        ensure!(
            self.is_ipv4 == target.is_ipv4(),
            "--sources {self}: must be of the same family as {target}"
        );
        Ok(())
    }

    /// Fails unless a connection to `target` can come from each of them.
    pub fn ensure_usable(&self, target: IpAddr) -> Result<()> {
        self.ensure_family(target)?;
        self.ensure_own()
    }

    /// How many there are, or as many as can be counted.
    fn total(&self) -> u128 {
        self.ranges.iter().fold(0, |sum: u128, range| {
            sum.saturating_add(range.reach()).saturating_add(1)
        })
    }

    /// The address of attempt `number`; after the last one the first follows.
    pub(crate) fn at(&self, number: u64) -> IpAddr {
        let mut left = u128::from(number) % self.total();
        for range in &self.ranges {
            if left <= range.reach() {
                return self.address(range.first + left);
            }
            left -= range.reach() + 1;
        }
        unreachable!("the rest of a division by the total lies in one of the ranges")
    }

    /// How often `at` has gone through all addresses before `number`.
    pub(crate) fn round(&self, number: u64) -> u64 {
        u64::try_from(u128::from(number) / self.total()).unwrap_or(u64::MAX)
    }

    fn address(&self, number: u128) -> IpAddr {
        if self.is_ipv4 {
            // `parse` took it from an IPv4 address or the range between two.
            Ipv4Addr::from_bits(number as u32).into()
        } else {
            Ipv6Addr::from_bits(number).into()
        }
    }

    /// Tries each address: one that this host does not have would show only as attempts that could not be made.
    fn ensure_own(&self) -> Result<()> {
        let total = self.total();
        ensure!(
            total <= u128::from(FLOOD_SOURCES_MAX),
            "--sources: {total} addresses; must be at most {FLOOD_SOURCES_MAX} to connect from"
        );
        for number in 0..total as u64 {
            let address = self.at(number);
            TcpListener::bind((address, 0))
                .with_context(|| format!("--sources: {address} is not an address of this host"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(formatter, "{comma}{}", self.address(range.first))?;
            if range.reach() > 0 {
                write!(formatter, "-{}", self.address(range.last))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Sources {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut ranges = Vec::new();
        let mut families = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (parse(first)?, parse(last)?);
            families.extend([first.is_ipv4(), last.is_ipv4()]);
            let range = Range {
                first: number(first),
                last: number(last),
            };
            ensure!(
                range.first <= range.last,
                "{part:?}: the first address must not be behind the last"
            );
            ranges.push(range);
        }
        ensure!(
            families.windows(2).all(|pair| pair[0] == pair[1]),
            "{text:?}: must be all IPv4 or all IPv6"
        );
        Ok(Self {
            ranges,
            is_ipv4: families.first() == Some(&true),
        })
    }
}

fn parse(text: &str) -> Result<IpAddr> {
    text.trim().parse().with_context(|| {
        format!("{text:?}: must be an IP address; give several as FIRST-LAST or with commas")
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str) -> Sources {
        text.parse().unwrap()
    }

    fn first(text: &str, count: u64) -> Vec<String> {
        let sources = sources(text);
        (0..count)
            .map(|number| sources.at(number).to_string())
            .collect()
    }

    #[test]
    fn each_address_has_its_turn_before_the_first_comes_again() {
        assert_eq!(
            first("10.0.0.254-10.0.1.1,192.0.2.7", 7),
            [
                "10.0.0.254",
                "10.0.0.255",
                "10.0.1.0",
                "10.0.1.1",
                "192.0.2.7",
                "10.0.0.254",
                "10.0.0.255"
            ]
        );
        assert_eq!(
            first("2001:db8::ffff-2001:db8::1:0", 3),
            ["2001:db8::ffff", "2001:db8::1:0", "2001:db8::ffff"]
        );
        let round = |number| sources("10.0.0.1-10.0.0.3").round(number);
        assert_eq!([0, 2, 3, 8].map(round), [0, 0, 1, 2]);
    }

    #[test]
    fn all_addresses_of_ipv6_are_a_range_as_good_as_any() {
        let text = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(first(text, 2), ["::", "::1"]);
        assert!(sources(text).ensure_own().is_err());
    }

    #[test]
    fn what_is_no_list_of_addresses_is_refused() {
        for text in [
            "",
            "veth0",
            "10.0.0.2-10.0.0.1",
            "10.0.0.1,::1",
            "10.0.0.1-::1",
            "10.0.0.0/8",
        ] {
            assert!(text.parse::<Sources>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_of_somebody_else_is_found_before_the_flood() {
        sources("127.0.0.2-127.0.0.20").ensure_own().unwrap();
        // Of TEST-NET-3 (RFC 5737), which no host has.
        let error = sources("127.0.0.2,203.0.113.9").ensure_own().unwrap_err();
        assert!(error.to_string().contains("203.0.113.9"), "{error}");
    }
}
