//! What the verdict on a packet takes, maps left out: the code of the kernel program, compiled for this machine.
//! In: nothing. Out: times by Criterion.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_common::{
    Account, Address, Ban, Flow, FlowKey, Listed, PacketVerdict, PassReason, Settings, Source,
    State, evaluate_packet, first_bytes, flow_state, mode, parse,
};

const PORT: u16 = 443;

/// One flow that is open, in one state; nobody is listed or banned.
struct Known(u8);

impl State for Known {
    fn now_ns(&self) -> u64 {
        1
    }

    fn listed(&self, _: &Address) -> Option<Listed> {
        None
    }

    fn flow(&self, _: &FlowKey) -> Option<Flow> {
        Some(Flow {
            opened_at_ns: 0,
            first_sequence: 1000,
            state: self.0,
            first_bytes: first_bytes::UNSEEN,
            is_over_cap: 0,
            padding: 0,
        })
    }

    fn account(&self, _: &Source) -> Option<Account> {
        None
    }

    fn ban(&self, _: &Source) -> Option<Ban> {
        None
    }
}

/// An Ethernet frame with an IPv4 segment that carries the beginning of a ClientHello.
fn frame() -> Vec<u8> {
    let payload = [&[22, 3, 1, 2, 0, 1][..], &[0; 200]].concat();
    let ip_bytes = u16::try_from(20 + 20 + payload.len()).expect("the packet is short");
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0]);
    frame.extend(ip_bytes.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(1000_u32.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

fn packet(criterion: &mut Criterion) {
    let frame = frame();
    let settings = Settings {
        alive_until_ns: 2,
        ..Settings::new(mode::ENFORCE)
    };
    let mut group = criterion.benchmark_group("packet");
    group.bench_function("read", |bencher| {
        bencher.iter(|| black_box(parse(black_box(frame.as_slice()))));
    });
    for (name, state, expected) in [
        (
            "authenticated",
            flow_state::AUTHENTICATED,
            PassReason::Authenticated,
        ),
        ("pending", flow_state::PENDING, PassReason::Pending),
    ] {
        let known = Known(state);
        let segment = parse(frame.as_slice()).expect("it is a segment");
        let evaluation = evaluate_packet(frame.as_slice(), &segment, &settings, &known);
        assert_eq!(evaluation.verdict, PacketVerdict::Passed(expected));
        group.bench_function(format!("read and evaluate, {name}"), |bencher| {
            bencher.iter(|| {
                let frame = black_box(frame.as_slice());
                let segment = parse(frame).expect("it is a segment");
                black_box(evaluate_packet(frame, &segment, &settings, &known))
            });
        });
    }
}

criterion_group!(benches, packet);
criterion_main!(benches);
