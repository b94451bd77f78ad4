//! What sealing and opening records takes, by suite, size and library: the record layer of `gateway-core` with the ciphers
//! that the gateway gives it. In: nothing. Out: times by Criterion, and bytes a second.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gateway::crypto::record_cipher;
use gateway_core::record::{
    Aead, Batch, CONTENT_BYTES_MAX, HEADER_BYTES, Opener, Peer, Sealer, Stop, Suite, TrafficKey,
};
use rustls::SupportedCipherSuite;
use rustls::crypto::{aws_lc_rs, ring};

/// Content in bytes. The last one is a batch of four full records, as a busy stream has them.
const SIZES: [usize; 4] = [64, 1 << 10, 16 << 10, 64 << 10];

/// Names with suites and how long their keys are.
fn suites() -> [(&'static str, SupportedCipherSuite, usize); 6] {
    [
        (
            "ring/aes-128-gcm",
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            16,
        ),
        (
            "ring/aes-256-gcm",
            ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            32,
        ),
        (
            "ring/chacha20-poly1305",
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            32,
        ),
        (
            "aws-lc/aes-128-gcm",
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            16,
        ),
        (
            "aws-lc/aes-256-gcm",
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            32,
        ),
        (
            "aws-lc/chacha20-poly1305",
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            32,
        ),
    ]
}

/// A key for one direction. With the bounds of ChaCha20-Poly1305, which no measurement reaches.
fn key(suite: SupportedCipherSuite, key_bytes: usize) -> TrafficKey<impl Aead> {
    let cipher = record_cipher(suite, &[7; 32][..key_bytes]).expect("the key has its length");
    TrafficKey::new(cipher, [9; 12], 0, Suite::ChaCha20Poly1305)
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for (name, suite, key_bytes) in suites() {
        for size in SIZES {
            let mut sealer = Sealer::new(key(suite, key_bytes));
            let mut bytes = room(&sealer, size);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| records(&mut sealer, &mut bytes, size));
            });
        }
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for (name, suite, key_bytes) in suites() {
        for size in SIZES {
            // They keep step: what one seals next is what the other opens next.
            let mut sealer = Sealer::new(key(suite, key_bytes));
            let mut opener = Opener::new(key(suite, key_bytes), Peer::Client);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_batched(
                    || {
                        let mut bytes = room(&sealer, size);
                        records(&mut sealer, &mut bytes, size);
                        bytes
                    },
                    |mut bytes| {
                        let mut batch = Batch::new(&mut bytes);
                        let stop = opener.open(&mut batch).expect("the records are ours");
                        assert_eq!((stop, batch.opened()), (Stop::Incomplete, size));
                        bytes
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

/// Room for the records that so many bytes become.
fn room<A: Aead>(_: &Sealer<A>, size: usize) -> Vec<u8> {
    vec![0x5a; Sealer::<A>::sealed_bytes(size, CONTENT_BYTES_MAX)]
}

/// Makes records of so many bytes.
fn records<A: Aead>(sealer: &mut Sealer<A>, bytes: &mut [u8], size: usize) {
    let plaintext = HEADER_BYTES..HEADER_BYTES + size;
    let sealed = sealer.seal(black_box(bytes), plaintext, CONTENT_BYTES_MAX);
    black_box(sealed.expect("the key has room"));
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
