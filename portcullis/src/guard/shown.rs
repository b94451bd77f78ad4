//! How operators read and write sources, times and counts. In: the numbers of the maps, or an argument. Out: words. Pure.

use std::net::IpAddr;
use std::time::Duration;

use comfy_table::{Table, presets};
use gateway_common::mode;
use ipnet::IpNet;

/// Why an argument is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSource {
    /// It is no address at all.
    #[error("must be an IP address, or an IPv6 network with /64")]
    NoAddress,
    /// It is a network of another size.
    #[error(
        "is a network of another size: a ban is on an IPv4 address or on an IPv6 /64 (to shut out a larger network for \
         good, deny it in the configuration)"
    )]
    OtherNetwork,
}

/// The source that an argument names, by its first address.
pub fn source_of(text: &str) -> Result<IpAddr, NoSource> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(first_address(address));
    }
    let network: IpNet = text.parse().map_err(|_| NoSource::NoAddress)?;
    match network {
        IpNet::V4(network) if network.prefix_len() == 32 => Ok(network.addr().into()),
        IpNet::V6(network) if network.prefix_len() == 64 => {
            Ok(first_address(network.addr().into()))
        }
        IpNet::V4(_) | IpNet::V6(_) => Err(NoSource::OtherNetwork),
    }
}

/// The address that the source of an address goes by.
fn first_address(address: IpAddr) -> IpAddr {
    gateway_guard::address_of(gateway_guard::source_of(address))
}

/// The name of a source: an IPv4 address, or an IPv6 network.
pub fn source_name(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}

/// A time in whole seconds, as arguments are written.
pub fn seconds(time_ns: u64) -> String {
    let whole = Duration::from_secs(Duration::from_nanos(time_ns).as_secs());
    humantime::format_duration(whole).to_string()
}

/// Whole seconds, for JSON.
pub fn whole_seconds(time_ns: u64) -> u64 {
    Duration::from_nanos(time_ns).as_secs()
}

/// The name of a mode of the kernel program.
pub fn mode_name(number: u32) -> &'static str {
    match number {
        mode::MONITOR => "monitor",
        mode::ENFORCE => "enforce",
        _ => "off",
    }
}

/// A table in the style of the other commands.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_by_any_of_its_addresses_or_by_its_network() {
        let table = [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:3:4:5:6/64", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ];
        for (text, name) in table {
            let source = source_of(text).unwrap();
            assert_eq!(source_name(&source), name, "{text}");
            assert_eq!(source_of(name), Ok(source), "what is shown can be typed");
        }
    }

    #[test]
    fn networks_of_another_size_and_names_are_refused() {
        for text in ["192.0.2.0/24", "2001:db8::/32", "2001:db8::1/128", "::/0"] {
            assert_eq!(source_of(text), Err(NoSource::OtherNetwork), "{text}");
        }
        for text in ["", "localhost", "192.0.2", "192.0.2.1:4317", "192.0.2.1/33"] {
            assert_eq!(source_of(text), Err(NoSource::NoAddress), "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_whole_seconds() {
        let second = 1_000_000_000;
        let table = [
            (0, "0s"),
            (second - 1, "0s"),
            (second, "1s"),
            (3725 * second + 7, "1h 2m 5s"),
        ];
        for (time_ns, text) in table {
            assert_eq!(seconds(time_ns), text);
        }
    }
}
