//! Single values: text and numbers as written, turned into what they mean.
//! In: one value. Out: its meaning, or what was expected instead. Knows nothing of files or of other values.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use gateway_core::endpoint::{Endpoint, UNIX_PREFIX, UnixPath};
use gateway_core::limits;
use gateway_core::names::{Name, SERVICE_PREFIX};
use rustls::pki_types::DnsName;

use super::checked::ServerAddress;

/// A time with its unit, within a range.
pub fn duration(
    text: &str,
    range: &RangeInclusive<Duration>,
    why: &str,
) -> Result<Duration, String> {
    let (least, most) = (range.start(), range.end());
    let bounds = format!("{} to {}", format_duration(*least), format_duration(*most));
    match humantime::parse_duration(text) {
        Ok(duration) if range.contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("must be {bounds}{why}")),
        Err(_) => Err(format!(
            "must be a time with its unit, such as \"10s\": {bounds}"
        )),
    }
}

/// A duration as the configuration writes it: `1m 30s`.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A whole number within a range.
pub fn count(number: i64, range: &RangeInclusive<u64>, why: &str) -> Result<usize, String> {
    let expected = || format!("must be {} to {}{why}", range.start(), range.end());
    let number = u64::try_from(number).map_err(|_| expected())?;
    if !range.contains(&number) {
        return Err(expected());
    }
    usize::try_from(number).map_err(|_| expected())
}

/// A number of bytes with its unit, within a range.
pub fn size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let shown = |bytes: u64| ByteSize(bytes).to_string().replace(".0 ", " ");
    let expected = || {
        let (least, most) = (shown(*range.start()), shown(*range.end()));
        format!("must be a size with its unit, such as \"10MiB\": {least} to {most}")
    };
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    let size = text.parse::<ByteSize>().ok().map(|size| size.as_u64());
    size.filter(|size| has_unit && range.contains(size))
        .ok_or_else(expected)
}

/// The name of a listener or backend, which stands in metrics and logs.
pub fn name(text: &str) -> Result<String, String> {
    let good = (1..=limits::NAME_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match good {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 64 letters, digits, `.`, `_` or `-`".to_owned()),
    }
}

/// An address to listen on.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        // An IPv4 address written as IPv6 is that IPv4 address: two listeners must not share it unnoticed.
        Ok(SocketAddr::V6(address)) if address.port() != 0 => {
            let mapped = address
                .ip()
                .to_ipv4_mapped()
                .map(|ip| (ip, address.port()).into());
            Ok(mapped.unwrap_or(address.into()))
        }
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => Err("must have a port from 1 to 65535".to_owned()),
        Err(_) => Err(
            "must be an IP address and a port, such as \"0.0.0.0:4317\" or \"[::]:4317\""
                .to_owned(),
        ),
    }
}

/// The path of a Unix socket, as it stands after `unix:`.
pub fn unix_path(path: &str) -> Result<UnixPath, String> {
    let expected = "must be an absolute path of at most 107 bytes after `unix:`";
    UnixPath::new(path).ok_or_else(|| expected.to_owned())
}

/// A server of a backend.
pub fn server_address(text: &str) -> Result<ServerAddress, String> {
    let expected = "must be an address or DNS name and a port, such as \"10.0.0.11:4317\" or \"collector.example.org:4317\", \
                    or a Unix socket, such as \"unix:/run/collector/otlp.sock\", or a service of DNS, such as \"srv:_otlp._tcp.example.org\"";
    if let Some(path) = text.strip_prefix(UNIX_PREFIX) {
        let endpoint = unix_path(path).map(Endpoint::Unix);
        return endpoint.map(ServerAddress::Address);
    }
    if let Some(service) = text.strip_prefix(SERVICE_PREFIX) {
        return self::service(service).map(ServerAddress::Name);
    }
    if text.parse::<SocketAddr>().is_ok() {
        let endpoint = socket_address(text).map(Endpoint::Ip);
        return endpoint.map(ServerAddress::Address);
    }
    let (host, port) = text.rsplit_once(':').ok_or(expected)?;
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|port| *port != 0)
        .ok_or(expected)?;
    // A name that ends in digits only is a mistyped address: no top-level domain is numeric (RFC 3696 section 2).
    let last = host.rsplit('.').next().unwrap_or_default();
    if DnsName::try_from(host).is_err() || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected.to_owned());
    }
    Ok(ServerAddress::Name(Name::Host {
        host: host.to_ascii_lowercase(),
        port,
    }))
}

/// The name of a service, RFC 2782: `_service._tcp.` and a domain.
fn service(text: &str) -> Result<Name, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut labels = text.split('.');
    let is_label =
        |label: Option<&str>| label.is_some_and(|label| label.len() > 1 && label.starts_with('_'));
    let is_service = is_label(labels.next()) && labels.next() == Some("_tcp");
    match is_service && labels.next().is_some() && DnsName::try_from(text).is_ok() {
        true => Ok(Name::Service(text.to_ascii_lowercase())),
        false => Err(
            "must be `srv:`, a service and a domain, such as \"srv:_otlp._tcp.example.org\""
                .to_owned(),
        ),
    }
}

/// An application protocol, RFC 7301.
pub fn alpn(text: &str) -> Result<Vec<u8>, String> {
    match (1..=limits::ALPN_BYTES_MAX).contains(&text.len()) {
        true => Ok(text.as_bytes().to_vec()),
        false => Err("must hold names of 1 to 255 bytes, such as \"h2\"".to_owned()),
    }
}

/// A network interface.
pub fn interface(text: &str) -> Result<String, String> {
    let good = (1..=limits::INTERFACE_NAME_BYTES_MAX).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    match good {
        true => Ok(text.to_owned()),
        false => Err("must hold names of network interfaces, such as \"eth0\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_told_from_mistyped_ones() {
        let name = |host: &str, port| {
            let host = host.to_owned();
            ServerAddress::Name(Name::Host { host, port })
        };
        assert_eq!(
            server_address("Collector.Example.org:4317"),
            Ok(name("collector.example.org", 4317))
        );
        assert_eq!(server_address("localhost:1"), Ok(name("localhost", 1)));
        assert_eq!(
            server_address("[::1]:4317"),
            Ok(ServerAddress::Address(Endpoint::Ip(
                "[::1]:4317".parse().unwrap()
            )))
        );
        let socket = server_address("unix:/run/collector/otlp.sock").unwrap();
        assert_eq!(socket.to_string(), "unix:/run/collector/otlp.sock");
        let service = server_address("srv:_OTLP._tcp.Example.org.").unwrap();
        assert_eq!(service.to_string(), "srv:_otlp._tcp.example.org");
        for bad in [
            "srv:",
            "srv:otlp.example.org",
            "srv:_otlp._udp.a",
            "srv:_otlp._tcp",
            "srv:_._tcp.a",
            "srv:_a._tcp.b c",
        ] {
            let refused = server_address(bad).unwrap_err();
            assert!(
                refused.contains("a service and a domain"),
                "{bad}: {refused}"
            );
        }
        let too_long = format!("unix:/{}", "a".repeat(107));
        for bad in ["unix:", "unix:run/otlp.sock", "unix://run/\0", &too_long] {
            let refused = server_address(bad).unwrap_err();
            assert!(refused.contains("absolute path of at most 107"), "{bad}");
        }
        for bad in [
            "",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "10.0.0.300:4317",
            "10.0.0.1",
            "a b:1",
            "1:2:3",
        ] {
            assert!(server_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_need_a_unit_and_a_range() {
        let range = 16 << 10..=1 << 30;
        assert_eq!(size("10MiB", &range), Ok(10 << 20));
        assert_eq!(size("64 KiB", &range), Ok(64 << 10));
        for bad in ["10485760", "", "MiB", "1KiB", "2GiB", "-1MiB"] {
            let refused = size(bad, &range).unwrap_err();
            assert!(refused.ends_with(": 16 KiB to 1 GiB"), "{bad}: {refused}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_a_range() {
        let range = Duration::from_millis(100)..=Duration::from_secs(60);
        assert_eq!(duration("1m", &range, ""), Ok(Duration::from_secs(60)));
        assert_eq!(
            duration("0s", &range, " (why)"),
            Err("must be 100ms to 1m (why)".to_owned())
        );
        assert!(duration("10", &range, "").is_err());
        assert!(duration("", &range, "").is_err());
    }
}
