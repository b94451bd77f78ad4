//! Where a server is reached: an address and a port, or a Unix socket of this host.
//! In: an address, or a path as written. Out: one value to copy and compare. On any thread; opens nothing.

use std::fmt;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};

/// Bytes that the path of a Unix socket may have, with the byte that ends it (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What precedes the path of a Unix socket, where it is written.
pub const UNIX_PREFIX: &str = "unix:";

/// Where a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// By TCP.
    Ip(SocketAddr),
    /// By a Unix socket.
    Unix(UnixPath),
}

/// The absolute path of a Unix socket. Held in place: a server is copied and compared more often than it is configured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixPath {
    /// Zero after the end.
    bytes: [u8; SOCKET_PATH_BYTES_MAX],
    length: u8,
}

impl UnixPath {
    /// Takes an absolute path that fits into the address of a socket. `None`: it is neither.
    pub fn new(path: &str) -> Option<Self> {
        let is_usable = path.starts_with('/') && !path.contains('\0');
        let mut bytes = [0; SOCKET_PATH_BYTES_MAX];
        bytes
            .get_mut(..path.len())
            .filter(|_| is_usable)?
            .copy_from_slice(path.as_bytes());
        let length = u8::try_from(path.len()).ok()?;
        Some(UnixPath { bytes, length })
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        std::str::from_utf8(bytes).expect("it was made of text")
    }
}

impl Endpoint {
    /// Whether what is sent there cannot leave this host.
    pub fn is_this_host(&self) -> bool {
        match self {
            Endpoint::Ip(address) => address.ip().to_canonical().is_loopback(),
            Endpoint::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Endpoint::Ip(address)
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(formatter)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Ip(address) => address.fmt(formatter),
            Endpoint::Unix(path) => write!(formatter, "{UNIX_PREFIX}{}", path.as_str()),
        }
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_fits_into_the_address_of_a_socket() {
        let of_length = |length: usize| format!("/{}", "a".repeat(length - 1));
        let longest = of_length(SOCKET_PATH_BYTES_MAX);
        let path = UnixPath::new(&longest).expect("it fits");
        assert_eq!(path.as_str(), longest);
        let too_long = of_length(SOCKET_PATH_BYTES_MAX + 1);
        for bad in ["", "run/collector.sock", "/run/a\0b", too_long.as_str()] {
            assert_eq!(UnixPath::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn endpoints_read_as_they_are_written_and_sockets_stay_on_this_host() {
        let unix = Endpoint::Unix(UnixPath::new("/run/collector.sock").expect("a path"));
        assert_eq!(unix.to_string(), "unix:/run/collector.sock");
        assert!(unix.is_this_host());
        for (address, is_this_host) in [
            ("127.0.0.1:4317", true),
            ("[::ffff:127.0.0.1]:4317", true),
            ("10.0.0.11:4317", false),
        ] {
            let endpoint = Endpoint::Ip(address.parse().expect("an address"));
            assert_eq!(endpoint.is_this_host(), is_this_host, "{address}");
            assert_eq!(endpoint.to_string(), address);
        }
    }
}
