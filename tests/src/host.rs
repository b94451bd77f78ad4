//! A loopback address for one test alone, so that tests in parallel can use fixed ports without meeting.
//! In: nothing. Out: an address of 127.0.0.0/8 that nobody else takes while it is held, and free ports on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of this machine that belongs to one test.
#[derive(Debug)]
pub struct Host {
    address: Ipv4Addr,
    // An abstract Unix socket named after the address: the kernel gives it to one holder and takes it back when the
    // holder is gone, however it went.
    _lock: UnixListener,
}

impl Host {
    /// Takes an address.
    pub fn take() -> Host {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = TAKEN.fetch_add(1, Ordering::Relaxed);
            // Spread by process; 127.0.x.x is left alone, where everything else listens.
            let number = process::id().wrapping_mul(64).wrapping_add(count) % (254 << 16);
            let [_, high, middle, low] = number.to_be_bytes();
            let address = Ipv4Addr::new(127, high + 1, middle, low);
            if low == 0 || low == 255 {
                continue;
            }
            let name = UnixAddress::from_abstract_name(format!("portcullis-tests-{address}"))
                .expect("the name is short");
            if let Ok(lock) = UnixListener::bind_addr(&name) {
                return Host {
                    address,
                    _lock: lock,
                };
            }
        }
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// The address with a port of the test's choice.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(), port)
    }

    /// A port on which nobody listens. Nobody else uses the address, so it stays free.
    pub fn free(&self) -> SocketAddr {
        let listener = TcpListener::bind(self.at(0)).expect("a loopback address can be bound");
        listener
            .local_addr()
            .expect("a bound socket has an address")
    }
}

impl Default for Host {
    fn default() -> Self {
        Host::take()
    }
}
