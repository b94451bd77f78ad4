//! Packets under somebody else's name. In: addresses, flags, numbers. Out: IP packets on a raw socket of the namespace
//! it was made in. Never reads.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

/// `IPPROTO_RAW` of raw(7): packets bring their own IP header.
const WHOLE_PACKETS: i32 = 255;

const HOPS: u8 = 64;
const WINDOW_BYTES: u16 = 64_240;

/// What a forged packet claims to be.
#[derive(Clone, Copy)]
pub enum Forged {
    /// The first of a connection.
    Syn,
    /// One of the middle of a connection, with bytes.
    Ack,
    /// The last of a connection.
    Rst,
}

/// Sends forged packets to one target.
pub struct Forger {
    socket: Socket,
    target: SocketAddr,
    packet: Vec<u8>,
}

impl Forger {
    /// For the network namespace of this thread.
    pub fn new(target: SocketAddr) -> Self {
        let domain = Domain::for_address(target);
        let protocol = Some(Protocol::from(WHOLE_PACKETS));
        Self {
            socket: Socket::new(domain, Type::RAW, protocol).expect("root may"),
            target,
            packet: Vec::new(),
        }
    }

    /// Sends one with sums that the receiver accepts.
    pub fn send(&mut self, kind: Forged, source: SocketAddr, sequence: u32) {
        let ip = match (source.ip(), self.target.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                PacketBuilder::ipv4(source.octets(), target.octets(), HOPS)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                PacketBuilder::ipv6(source.octets(), target.octets(), HOPS)
            }
            _ => panic!("{source} and {} are of two families", self.target),
        };
        let tcp = ip.tcp(source.port(), self.target.port(), sequence, WINDOW_BYTES);
        let (tcp, payload): (_, &[u8]) = match kind {
            Forged::Syn => (tcp.syn(), &[]),
            Forged::Ack => (tcp.ack(sequence.rotate_left(7)), b"forged"),
            Forged::Rst => (tcp.rst(), &[]),
        };
        self.packet.clear();
        tcp.write(&mut self.packet, payload)
            .expect("a vector grows");
        // A raw socket has no ports, and IPv6 refuses an address that has one.
        let whither = SocketAddr::new(self.target.ip(), 0);
        let sent = self.socket.send_to(&self.packet, &whither.into());
        assert_eq!(sent.expect("it leaves"), self.packet.len());
    }
}
