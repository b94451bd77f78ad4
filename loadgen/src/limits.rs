//! Every bound of the load generator in one place. No load runs without an end.
//! Constants only; their relations are asserted when the crate is compiled.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How long a scenario runs when neither `--for` nor `--count` is given.
pub const SPAN_DEFAULT: Duration = Duration::from_secs(10);

/// How long a scenario may take at most when only `--count` is given.
pub const SPAN_WITH_COUNT: Duration = Duration::from_secs(600);

/// The longest `--for` of a scenario, a backend or the receiver.
pub const SPAN_MAX: Duration = Duration::from_secs(3600);

/// The largest `--count`.
pub const COUNT_MAX: u64 = 1_000_000_000;

/// The most connections of one process. The descriptor limit usually ends it earlier.
pub const CONNECTIONS_MAX: usize = 60_000;

/// The most threads of one process.
pub const THREADS_MAX: usize = 64;

/// The highest `--rate`, in units of work per second.
pub const RATE_MAX: f64 = 1_000_000.0;

/// Connections being opened at once while a scenario prepares: more would overflow common listen backlogs.
pub const CONNECTING_MAX: usize = 64;

/// The largest echo. It must fit into the socket buffers on the way, because it is written before it is read.
pub const ECHO_SIZE_MAX: u64 = 64 * 1024;

/// The most bytes one connection of `stream` moves in a direction.
pub const STREAM_BYTES_MAX: u64 = 1 << 40;

/// The most records in one OTLP request; about 4 MiB, what receivers accept by default.
pub const RECORDS_MAX: usize = 10_000;

/// The largest OTLP request the receiver takes, after decompression.
pub const RECEIVER_BODY_MAX: usize = 16 << 20;

/// Distinct senders, and distinct names per signal, the receiver counts apart; further ones share one entry.
pub const RECEIVER_KEYS_MAX: usize = 4096;

/// Source addresses 127.0.0.1 and up that a loopback target is contacted from: each brings 28000 ports.
pub const SOURCES_DEFAULT: u8 = 32;

/// How many such addresses there may be.
pub const SOURCES: RangeInclusive<u8> = 1..=250;

/// Descriptors kept free for everything that is not a connection of the load.
pub const DESCRIPTORS_RESERVED: u64 = 128;

/// How late an open-loop turn may start after the end of the run and still start.
pub const START_GRACE: Duration = Duration::from_millis(100);

/// How often each thread of the load notes how late it is woken up.
pub const LAG_INTERVAL: Duration = Duration::from_millis(5);

/// The pause between two attempts of a client that must be refused, where a scenario has no turns for it.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Pause before a held connection that broke is opened again, so that a dead server is not hammered.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How long a backend that leaves waits for the answers that it owes.
pub const LEAVING_MAX: Duration = Duration::from_secs(10);

/// How often a held connection may send its small message.
pub const BEAT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);

/// The longest revocation list: making one takes about 300 bytes of memory an entry.
pub const CRL_ENTRIES_MAX: u64 = 5_000_000;

/// Connections of a flood that are held at once, unless `--connections` says more.
pub const FLOOD_CONNECTIONS_DEFAULT: usize = 1000;

/// The most source addresses that a flood connects from: each is tried before it starts.
pub const FLOOD_SOURCES_MAX: u32 = 65_536;

/// How long an attempt of a flood may last. Longer than servers commonly wait for a handshake, so that they end it.
pub const FLOOD_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// How late an attempt of a flood may start because all connections were in use; later ones would be a burst.
pub const FLOOD_LATENESS_MAX: Duration = Duration::from_secs(1);

/// What `--timeout` of a flood may be.
pub const FLOOD_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);

/// The pause of a slow client after each byte.
pub const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The most random bytes of one attempt; they fit into one packet.
pub const JUNK_BYTES_MAX: usize = 1024;

/// The most streams at once on one connection of `h2`.
pub const STREAMS_MAX: usize = 10_000;

/// The largest content of a request that is held in one piece; what is behind it is made while it is sent.
pub const CONTENT_WHOLE_MAX: u64 = 1 << 20;

/// The largest content of a request.
pub const CONTENT_MAX: u64 = 1 << 40;

/// The most messages of one gRPC stream.
pub const GRPC_STREAM_MESSAGES_MAX: u32 = 10_000;

/// What a stream of ours may be sent before we give credit.
pub const CLIENT_STREAM_WINDOW: u32 = 1 << 20;

/// The same of a connection.
pub const CLIENT_CONNECTION_WINDOW: u32 = 16 << 20;

/// How long a backend may be away that is started again, when it is asked what has arrived.
pub const RESTARTING_MAX: Duration = Duration::from_secs(3);

/// How long a backend may take to say what has arrived.
pub const STATS_TIMEOUT: Duration = Duration::from_secs(10);

/// The most content of one request that a backend keeps to read it; it skips what is behind.
pub const READ_CONTENT_MAX: usize = 4 << 20;

/// The most frames of one attempt of an adverse client. Streams have no more than 2^30 identifiers.
pub const ADVERSE_FRAMES_MAX: u64 = 1 << 29;

const _: () = assert!(SPAN_DEFAULT.as_secs() <= SPAN_WITH_COUNT.as_secs());
const _: () = assert!(SPAN_WITH_COUNT.as_secs() <= SPAN_MAX.as_secs());
const _: () = assert!(FLOOD_TIMEOUT_DEFAULT.as_secs() <= FLOOD_TIMEOUT.end().as_secs());
const _: () = assert!(CONNECTING_MAX < CONNECTIONS_MAX);
