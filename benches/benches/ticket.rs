//! What sealing and opening a session ticket takes, without the evaluation of its lineage. In: nothing. Out: times by
//! Criterion.

use std::hint::black_box;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::crypto::KeyRing;
use gateway::tls::TicketSealer;
use rustls::crypto::ring;

/// A lineage with a SPIFFE identity, and rustls' session.
const CONTENT_BYTES: usize = 400;

fn ticket(criterion: &mut Criterion) {
    let random = ring::default_provider().secure_random;
    let keys =
        KeyRing::generate(SystemTime::UNIX_EPOCH, random).expect("the system has randomness");
    let sealer = TicketSealer::new(&keys, "edge");
    let contents = vec![0x5a; CONTENT_BYTES];
    let seal = || {
        let ticket = sealer.seal(black_box(contents.clone()), random);
        ticket.expect("the ring has a key")
    };
    let ticket = seal();
    let mut group = criterion.benchmark_group("ticket");
    group.bench_function("seal", |bencher| bencher.iter(seal));
    group.bench_function("open", |bencher| {
        bencher.iter(|| sealer.open(black_box(&ticket)).expect("the ticket is ours"));
    });
}

criterion_group!(benches, ticket);
criterion_main!(benches);
