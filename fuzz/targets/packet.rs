//! Any bytes as a frame, through the parser and the verdict that run in the kernel.
//!
//! What must hold: no panic (the kernel's verifier would refuse the program); cutting bytes off a frame makes it
//! truncated or changes nothing, and never makes it a different packet; whatever its flow is, a packet that ends it
//! passes, as does any packet of an authenticated flow; a monitor drops nothing; and where another parser sees a TCP segment too, both see the same addresses and ports.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use gateway_common::{
    Account, Address, Ban, Fate, Flow, FlowKey, Knowledge, Listed, NotUnderstood, Segment,
    Settings, Source, flow_state, judge, mode, parse,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let whole = parse(frame);
    for length in 0..frame.len() {
        let cut = parse(&frame[..length]);
        assert!(
            cut == whole || cut == Err(NotUnderstood::Truncated),
            "{whole:?} cut to {length} bytes is {cut:?}"
        );
    }
    if let Ok(segment) = whole {
        compare(frame, &segment);
        for state in [
            flow_state::PENDING,
            flow_state::AUTHENTICATED,
            flow_state::FAILED,
        ] {
            decide(frame, &segment, state);
        }
    }
});

/// A flow in one state, of a source that is banned from the tenth second on.
struct Known(u8);

impl Knowledge for Known {
    fn listed(&self, _: &Address) -> Option<Listed> {
        None
    }

    fn flow(&self, _: &FlowKey) -> Option<Flow> {
        Some(Flow {
            state: self.0,
            ..Flow::default()
        })
    }

    fn account(&self, _: &Source) -> Option<Account> {
        None
    }

    fn ban(&self, _: &Source) -> Option<Ban> {
        Some(Ban {
            until_ns: 20,
            lasts_ns: 10,
            reason: Ban::NO_REASON,
            operator: 1,
        })
    }
}

fn decide(frame: &[u8], segment: &Segment, state: u8) {
    for now_ns in [15, 25] {
        for mode in [mode::MONITOR, mode::ENFORCE] {
            let settings = Settings {
                alive_until_ns: u64::MAX / 2,
                ..Settings::new(mode)
            };
            match judge(frame, segment, now_ns, &settings, &Known(state)).fate {
                Fate::Passed(_) => {}
                fate => {
                    assert_eq!(state, flow_state::PENDING, "{fate:?}");
                    assert!(!segment.body.is_ending(), "{fate:?}");
                    assert_eq!(mode == mode::ENFORCE, matches!(fate, Fate::Dropped(_)));
                }
            }
        }
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
