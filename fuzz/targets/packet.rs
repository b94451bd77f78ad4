//! Any bytes as a frame, through the parser that runs in the kernel.
//!
//! What must hold: no panic (the kernel's verifier would refuse the program); cutting bytes off a frame makes it
//! truncated or changes nothing, and never makes it a different packet; where the first bytes do not lie in one piece,
//! it is the same packet; and where another parser sees a TCP segment too, both see the same addresses and ports.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use gateway_common::{NotUnderstood, Packet, Segment, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let whole = parse(frame);
    assert_eq!(parse(&InPieces(frame)), whole);
    for length in 0..frame.len() {
        let cut = parse(&frame[..length]);
        assert!(
            cut == whole || cut == Err(NotUnderstood::Truncated),
            "{whole:?} cut to {length} bytes is {cut:?}"
        );
    }
    if let Ok(segment) = whole {
        compare(frame, &segment);
    }
});

/// A frame of which no two bytes lie together: it is read the long way.
struct InPieces<'a>(&'a [u8]);

impl Packet for InPieces<'_> {
    fn length(&self) -> u32 {
        self.0.length()
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset)
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        None
    }
}

/// Asks another parser. It refuses some frames that we understand (it wants more of a packet than its ports), so only
/// its agreement is held against ours.
fn compare(frame: &[u8], segment: &Segment) {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return;
    };
    let addresses = match packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                IpAddr::from(header.source_addr()),
                IpAddr::from(header.destination_addr()),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                IpAddr::from(header.source_addr()),
                IpAddr::from(header.destination_addr()),
            )
        }
        Some(NetSlice::Arp(_)) | None => panic!("{segment:?} is not IP to another parser"),
    };
    let ours = |address| Ipv6Addr::from(address).to_canonical();
    assert_eq!(
        (ours(segment.source), ours(segment.destination)),
        (addresses.0.to_canonical(), addresses.1.to_canonical())
    );
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => assert_eq!(
            (segment.source_port, segment.destination_port),
            (tcp.source_port(), tcp.destination_port())
        ),
        // It does not look into fragments, not even the first.
        None => {}
        Some(other) => panic!("{segment:?} is not TCP to another parser: {other:?}"),
    }
}
