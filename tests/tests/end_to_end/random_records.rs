//! Records by the hundred thousand, or by as many as `PORTCULLIS_RECORDS` says, of any length and padding, with changes of keys at
//! random places: every byte arrives, in both directions at once, between rustls as client and rustls as backend.
//! In: a seed, printed, and taken from `PORTCULLIS_SEED` to repeat a run. Out: equality of every byte.

use std::env;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Instant, SystemTime};

use rustls::{CipherSuite, Connection};
use tests::{DATA, Direction, Established};

use crate::records::Between;

/// In CI; some seconds.
const RECORDS: u64 = 120_000;
const CONTENT_BYTES_MAX: u64 = 2048;
/// Records are written in heaps of about this size.
const HEAP_BYTES: usize = 64 << 10;

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// Numbers that depend on the seed alone.
struct Random(u64);

impl Random {
    /// An independent sequence of the same seed.
    fn of(seed: u64, sequence: u64) -> Random {
        let mut random = Random(seed ^ (sequence + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What is sent: the same random bytes over and over, in a period that is no multiple of anything.
fn pattern(position: u64, length: usize) -> &'static [u8] {
    const PERIOD_BYTES: usize = 16_777_213;
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let mut random = Random::of(0, 0);
        let mut bytes: Vec<u8> = (0..PERIOD_BYTES / 4 + 1)
            .flat_map(|_| (random.next() as u32).to_le_bytes())
            .take(PERIOD_BYTES)
            .collect();
        bytes.extend_from_within(..HEAP_BYTES);
        bytes
    });
    let start = (position % PERIOD_BYTES as u64) as usize;
    &pattern[start..start + length]
}

/// One end of a connection. What it sends is made by rustls, or, with records of no content and with padding, by hand.
struct End {
    rustls: Mutex<Connection>,
    by_hand: Option<Mutex<Direction>>,
    socket: std::net::TcpStream,
    /// Where in the pattern each direction starts.
    offsets: [u64; 2],
}

#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    records: u64,
    changes: u64,
    bytes: u64,
}

impl End {
    fn new(established: Established, by_hand: bool, offsets: [u64; 2]) -> End {
        End {
            rustls: Mutex::new(established.connection),
            by_hand: by_hand.then(|| Mutex::new(established.sent)),
            socket: established.socket,
            offsets,
        }
    }

    fn send(&self, records: u64, mut random: Random) -> Sent {
        let mut sent = Sent::default();
        let mut heap = Vec::new();
        while sent.records < records {
            let length = random.below(CONTENT_BYTES_MAX + 1) as usize;
            let content = pattern(self.offsets[0] + sent.bytes, length);
            let changes = random.below(400) == 0;
            match &self.by_hand {
                Some(direction) => {
                    let mut direction = direction.lock().unwrap();
                    if changes {
                        heap.extend(direction.key_update(random.below(2) == 0));
                    }
                    let padding = [0, 0, 0, random.below(100) as usize];
                    let padding = padding[random.below(4) as usize];
                    heap.extend(direction.record(DATA, content, padding));
                }
                None => {
                    let mut connection = self.rustls.lock().unwrap();
                    if changes {
                        // rustls always asks for a change in return.
                        connection.refresh_traffic_keys().unwrap();
                    }
                    connection.writer().write_all(content).unwrap();
                    while connection.wants_write() {
                        connection.write_tls(&mut heap).unwrap();
                    }
                }
            }
            // rustls makes no record without content.
            let is_record = length > 0 || self.by_hand.is_some();
            sent.records += u64::from(is_record);
            sent.changes += u64::from(changes);
            sent.bytes += length as u64;
            if heap.len() >= HEAP_BYTES {
                (&self.socket).write_all(&heap).unwrap();
                heap.clear();
            }
        }
        heap.extend(match &self.by_hand {
            Some(direction) => direction.lock().unwrap().close_notify(),
            None => {
                let mut connection = self.rustls.lock().unwrap();
                connection.send_close_notify();
                let mut records = Vec::new();
                while connection.wants_write() {
                    connection.write_tls(&mut records).unwrap();
                }
                records
            }
        });
        (&self.socket).write_all(&heap).unwrap();
        self.socket.shutdown(Shutdown::Write).unwrap();
        sent
    }

    /// Receives to the close_notify; the number of bytes, each of which was the right one.
    fn receive(&self) -> u64 {
        let mut received = 0;
        let mut heap = vec![0; HEAP_BYTES];
        let mut plaintext = vec![0; HEAP_BYTES];
        loop {
            let count = (&self.socket).read(&mut heap).unwrap();
            assert!(count > 0, "an end without close_notify");
            let mut rest = &heap[..count];
            let mut connection = self.rustls.lock().unwrap();
            while !rest.is_empty() {
                connection.read_tls(&mut rest).unwrap();
                let state = connection.process_new_packets().unwrap();
                let length = state.plaintext_bytes_to_read();
                let has_closed = state.peer_has_closed();
                plaintext.resize(length, 0);
                connection.reader().read_exact(&mut plaintext).unwrap();
                let expected = pattern(self.offsets[1] + received, length);
                assert!(plaintext == expected, "behind {received} bytes");
                received += length as u64;
                if has_closed {
                    return received;
                }
                if self.by_hand.is_some() {
                    // Its answer to a change of keys would be under keys of its own; ours are changed by chance anyway.
                    while connection.wants_write() {
                        connection.write_tls(&mut std::io::sink()).unwrap();
                    }
                }
            }
        }
    }
}

/// Both directions of a connection at once.
fn exchange(client: &End, backend: &End, records: u64, seed: u64) -> [Sent; 2] {
    thread::scope(|scope| {
        let up = scope.spawn(|| client.send(records, Random::of(seed, 1)));
        let down = scope.spawn(|| backend.send(records, Random::of(seed, 2)));
        let at_backend = scope.spawn(|| backend.receive());
        let at_client = client.receive();
        let (up, down) = (up.join().unwrap(), down.join().unwrap());
        assert_eq!(at_backend.join().unwrap(), up.bytes);
        assert_eq!(at_client, down.bytes);
        [up, down]
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.replace('_', "").parse().expect("a whole number"))
}

#[test]
fn records_of_any_length_with_changes_of_keys_in_both_directions_arrive_byte_for_byte() {
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("PORTCULLIS_SEED").unwrap_or(clock);
    let records = number("PORTCULLIS_RECORDS").unwrap_or(RECORDS);
    eprintln!("PORTCULLIS_SEED={seed} PORTCULLIS_RECORDS={records}");
    let between = Between::with("");
    let started = Instant::now();
    let mut pairs = Vec::new();
    for suite in SUITES {
        for by_hand in [false, true] {
            let client = between.workspace.client().only_suite(suite);
            let mut client = Established::client(&client, between.gateway.address());
            let mut last_flight = Vec::new();
            while client.connection.wants_write() {
                client.connection.write_tls(&mut last_flight).unwrap();
            }
            client.socket.write_all(&last_flight).unwrap();
            let backend = between.backend.accept_established();
            let index = pairs.len() as u64;
            let offsets = [seed % 1000 + 3001 * index, seed % 777 + 70_001 * index];
            let client = End::new(client, by_hand, offsets);
            let backend = End::new(backend, by_hand, [offsets[1], offsets[0]]);
            pairs.push((client, backend));
        }
    }
    let share = records.div_ceil(2 * pairs.len() as u64);
    let sent: Vec<Sent> = thread::scope(|scope| {
        let running: Vec<_> = pairs
            .iter()
            .zip(0..)
            .map(|((client, backend), index)| {
                scope.spawn(move || exchange(client, backend, share, seed ^ (index << 40)))
            })
            .collect();
        let done = running.into_iter().map(|one| one.join().unwrap());
        done.flatten().collect()
    });
    let total = sent.iter().fold(Sent::default(), |total, one| Sent {
        records: total.records + one.records,
        changes: total.changes + one.changes,
        bytes: total.bytes + one.bytes,
    });
    eprintln!("{total:?} in {:?}", started.elapsed());
    assert!(total.records >= records);
    let each_changed = sent.iter().all(|one| one.changes > share / 1000);
    assert!(each_changed, "{sent:?}");
    let labels = [("listener", "edge"), ("reason", "finished")];
    let ended = "portcullis_connections_ended_total";
    between.gateway.wait_for(ended, &labels, pairs.len() as u64);
}
