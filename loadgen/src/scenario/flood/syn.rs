//! The first packet of a TCP connection, with a forged source.
//! In: the number of the attempt. Out: one IP packet on a raw socket, which takes CAP_NET_RAW. Never reads.
//! The kernel does not know these connections, and resets each whose answer finds its way back.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use etherparse::{PacketBuilder, TcpOptionElement};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sources::Sources;

/// `IPPROTO_RAW` of raw(7): packets bring their own IP header.
const WHOLE_PACKETS: i32 = 255;

/// Source ports start above the privileged ones.
const FIRST_PORT: u64 = 1024;

/// What common systems send.
const HOPS: u8 = 64;
const WINDOW_BYTES: u16 = 64_240;
const OPTIONS: [TcpOptionElement; 5] = [
    TcpOptionElement::MaximumSegmentSize(1460),
    TcpOptionElement::SelectiveAcknowledgementPermitted,
    TcpOptionElement::Noop,
    TcpOptionElement::Noop,
    TcpOptionElement::WindowScale(7),
];

/// Sends SYNs to one target.
pub(super) struct Forger {
    socket: Socket,
    target: SocketAddr,
    sources: Sources,
    packet: Vec<u8>,
}

impl Forger {
    pub(super) fn new(target: SocketAddr, sources: Sources) -> Result<Self> {
        let domain = Domain::for_address(target);
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(WHOLE_PACKETS)))
            .context("a raw socket for `syn`, which takes CAP_NET_RAW")?;
        Ok(Self {
            socket,
            target,
            sources,
            packet: Vec::new(),
        })
    }

    /// Sends one. The pair of source address and port is a new one each time, as long as there are new ones.
    pub(super) fn send(&mut self, number: u64) -> io::Result<()> {
        let ports = 1 + u64::from(u16::MAX) - FIRST_PORT;
        let port = FIRST_PORT + self.sources.round(number) % ports;
        let source = SocketAddr::new(self.sources.at(number), port as u16);
        self.packet.clear();
        write_syn(&mut self.packet, source, self.target, number)?;
        // A raw socket has no ports, and IPv6 refuses an address that has one.
        let whither = SocketAddr::new(self.target.ip(), 0);
        self.socket.send_to(&self.packet, &whither.into())?;
        Ok(())
    }
}

fn write_syn(
    packet: &mut Vec<u8>,
    source: SocketAddr,
    target: SocketAddr,
    number: u64,
) -> io::Result<()> {
    let builder = match (source.ip(), target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            PacketBuilder::ipv4(source.octets(), target.octets(), HOPS)
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            PacketBuilder::ipv6(source.octets(), target.octets(), HOPS)
        }
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    // Scattered, as real initial sequence numbers are: multiplication by an odd number permutes.
    let sequence = (number as u32).wrapping_mul(0x9e37_79b9);
    builder
        .tcp(source.port(), target.port(), sequence, WINDOW_BYTES)
        .syn()
        .options(&OPTIONS)
        .expect("the options are constants that fit into a header")
        .write(packet, &[])
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn a_syn_has_the_forged_source_and_sums_that_the_receiver_accepts() {
        for (source, target) in [
            ("198.18.0.7:1024", "10.0.0.1:4317"),
            ("[2001:2::7]:1024", "[2001:db8::1]:4317"),
        ] {
            let (source, target): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), target.parse().unwrap());
            let mut packet = Vec::new();
            write_syn(&mut packet, source, target, 3).unwrap();
            let sliced = SlicedPacket::from_ip(&packet).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
                panic!("{sliced:?}")
            };
            assert!(tcp.syn() && !tcp.ack() && !tcp.rst());
            assert_eq!((tcp.source_port(), tcp.destination_port()), (1024, 4317));
            let (from, sum) = match sliced.net.as_ref().unwrap() {
                NetSlice::Ipv4(ip) => (
                    IpAddr::from(ip.header().source_addr()),
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
                ),
                NetSlice::Ipv6(ip) => (
                    IpAddr::from(ip.header().source_addr()),
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
                ),
                other => panic!("{other:?}"),
            };
            assert_eq!(from, source.ip());
            assert_eq!(tcp.checksum(), sum.unwrap());
        }
    }
}
