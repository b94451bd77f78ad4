//! Limits of HTTP mode, with what each costs. In: nothing. Out: constants, checked against each other when compiled.
//! The rest of the program has its limits in `crate::limits`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::health::HealthSchedule;
use super::pool::EjectionPolicy;
use super::retry_budget::RetryAllowance;

/// Longest payload of a frame that a peer may send: the least that RFC 9113 section 4.2 allows. A frame that is not
/// DATA is held until it is complete; DATA is passed on as it comes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 16_384;

/// Longest field block, over all of its frames. Held once for a connection, until it is complete.
pub const FIELD_BLOCK_BYTES_MAX: usize = 64 << 10;
/// CONTINUATION frames of one field block. Common senders fill each: four carry the longest block.
pub const CONTINUATION_FRAMES_MAX: u32 = 8;

/// Streams that a client may have open on one connection: about 150 bytes each, and what waits for the backend.
pub const CLIENT_STREAMS_MAX: u32 = 256;
/// `max_streams`.
pub const CLIENT_STREAMS: RangeInclusive<u64> = 1..=CLIENT_STREAMS_MAX as u64;
/// Streams that are opened towards a backend before it has said how many it allows.
pub const BACKEND_STREAMS_BEFORE_SETTINGS: u32 = 100;

/// The window that a stream and a connection begin with (RFC 9113 section 6.9.2). It is a promise of memory: a peer may
/// send so much while nothing can be passed on.
pub const WINDOW_BYTES: u32 = 65_535;
/// The widest window that a connection grows to, if the worker's budget allows.
pub const WINDOW_BYTES_MAX: u32 = 1 << 20;
/// A connection whose peer uses half of its window in less time than this gets a wider one: until the peer hears of new
/// credit a round trip passes.
pub const WINDOW_GROWTH_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that wait to be written to a peer before no more DATA joins them; what is left waits with its stream, and its
/// sender gets no credit.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Bytes beyond it in frames that a peer makes us send. One that does not read and asks for still more is gone.
pub const OUTPUT_CONTROL_BYTES_MAX: usize = 16 << 10;

/// Bytes of a client's input that are no content, of one turn: 240 frames of PING, or 450 of DATA that carry a byte each.
/// Each takes up to 0.5 us.
pub const TURN_BYTES_MAX: usize = 4 << 10;
/// What a request costs of a turn beside its bytes: some thirty of the shortest take one, of 10 us each.
pub const TURN_REQUEST_BYTES: usize = 128;

/// How long a peer may take to acknowledge our SETTINGS.
pub const SETTINGS_ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a silent backend may take to answer a PING: as long as gRPC's own clients give it.
pub const PING_ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// `ping_interval` of a backend.
pub const PING_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(24 * 60 * 60);
/// Default of `ping_interval`: servers of gRPC end a connection that sends PING oftener than every five minutes.
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// A reset of a stream younger than this may be part of a flood; deadlines of real clients are longer.
pub const RAPID_RESET_AGE: Duration = Duration::from_secs(1);
/// DATA with fewer bytes than this, which does not end its stream, costs us more than its sender.
pub const TINY_DATA_BYTES: usize = 32;

/// Longest header section of HTTP/1, with its first line. Held once for a connection, until it is complete.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest first line of it: a query of Prometheus or SkyWalking can have some kilobytes.
pub const REQUEST_LINE_BYTES_MAX: usize = 16 << 10;
/// Longest trailer section of HTTP/1. Held as above.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;
/// Fields of a header or trailer section of HTTP/1.
pub const FIELDS_MAX: usize = 128;
/// Fields that a section may name in Connection beyond those that are never forwarded: each costs a walk through the
/// list.
pub const CONNECTION_OPTIONS_MAX: usize = 16;
/// Digits of a chunk's size, with zeros in front.
pub const CHUNK_SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of all chunk extensions of a message: nothing reads them.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 1 << 10;
/// Content of one message of HTTP/1 that has come and has not been passed on. Beyond it nothing is read.
pub const UNRELEASED_BYTES_MAX: usize = WINDOW_BYTES as usize;
/// Content of a request of HTTP/1 that is read behind its response, so that the connection can be used again.
pub const DRAINED_BYTES_MAX: usize = 256 << 10;

/// Content of a request that is kept, so that another server can get it if one has not processed it. Of a longer one
/// nothing is.
pub const HELD_CONTENT_BYTES_MAX: usize = 64 << 10;
/// Content that is kept of all requests of a worker.
pub const HELD_BYTES_MAX: usize = 64 << 20;
/// Requests that wait for a connection to one backend, on one worker: of one identity, as long as no other needs the room.
pub const QUEUED_REQUESTS_MAX: usize = 1024;
/// Requests of a queue that may find no room before no more are asked for, when a connection has some: each costs a
/// decision. Further ones may want another server.
pub const QUEUE_MISSES_MAX: usize = 8;
/// Exchanges whose times are looked at at once: about 10 ns each.
pub const EXCHANGES_LOOKED_AT: u32 = 50_000;
/// Largest header list of any message, as RFC 9113 section 10.5.1 counts it.
pub const HEADER_LIST_BYTES_MAX: usize = FIELD_BLOCK_BYTES_MAX;
/// How often the times of exchanges are looked at: they end by so much later.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often connections are.
pub const CONNECTIONS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The window of a connection to a backend, which the requests of many clients share: as many streams as a client may
/// have open can each hold a whole window of their own before the others wait for them.
pub const BACKEND_WINDOW_BYTES: u32 = CLIENT_STREAMS_MAX * (WINDOW_BYTES + 1);
/// The part of the window of a backend's connection that clients share, in eighths; the rest is for whoever comes first. That has
/// to be more than half: servers give credit when half of the window is used, some when more is.
pub const WINDOW_SHARED_EIGHTHS: usize = 3;
/// The most of it, in bytes: nginx, whose window is of two GiB, gives credit when three quarters of it are used.
pub const WINDOW_SHARED_BYTES_MAX: usize = 1 << 20;
/// How soon after shares are lifted a server gives credit that had waited for more of its window to be used.
pub const CREDIT_LATE_MAX: Duration = Duration::from_secs(2);
/// The part of what is left of it that the content of one client may hold: of seventeen parts sixteen are left to others. Twenty
/// clients whose content the backend does not read leave a ninth of the window.
pub const WINDOW_SHARE: usize = 16;
/// The least share, in bytes, with which content is sent that waits for one, where more of it waits: a frame of a byte costs as much
/// as one of a thousand.
pub const WINDOW_SHARE_BYTES_MIN: usize = 1 << 10;
/// The part of such a window below which it counts as spent.
pub const WINDOW_SPENT: usize = 32;
/// Connections of HTTP/2 to one server, of each worker: a second one where the first has no stream left. A connection
/// promises [`BACKEND_WINDOW_BYTES`].
pub const HTTP2_CONNECTIONS_MAX: usize = 2;
/// Stalled connections to one server that these do not count, of each worker: a server that takes nothing on four
/// connections would take nothing on a fifth. All four promise [`BACKEND_WINDOW_BYTES`] each.
pub const HTTP2_STALLED_CONNECTIONS_MAX: usize = 2;
/// How long a server gives no credit for a connection before requests go to another one: several round trips, and less
/// than clients wait.
pub const SERVER_STALL: Duration = Duration::from_secs(1);
/// How long a further connection of HTTP/2 to a server stays without requests: a load that comes and goes by the minute
/// does not pay for a handshake each time.
pub const HTTP2_FURTHER_IDLE: Duration = Duration::from_secs(60);
/// How long no further connection of HTTP/2 is made to a server where one stands and another could not be made.
pub const HTTP2_FURTHER_RETRY: Duration = Duration::from_secs(1);
/// Connections of HTTP/1 that a worker makes to one server at once.
pub const HTTP1_CONNECTING_MAX: u32 = 32;
/// How often a request is sent to a backend: what two have not processed, a third gets.
pub const ATTEMPTS_MAX: u32 = 3;
/// `patience`: a request that waits holds its place in the queue, and what is kept of its content.
pub const PATIENCE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// Default of `patience`: shorter than the 5 s after which a Collector gives an export up by default, so that it hears
/// why, and long enough for a server that restarts.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(3);
/// When clients are told to send a request again that is refused for now.
pub const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Connections that are looked at at once: about 20 ns each.
pub const CONNECTIONS_LOOKED_AT: u32 = 20_000;
/// How long a backend may take to send a frame that it has begun.
pub const BACKEND_FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// What the connections of a worker may promise beyond the windows that they begin with.
pub const WINDOWS_BYTES_MAX: usize = 64 << 20;
/// Header lists that a worker keeps to use again: about 1 KiB each.
pub const HEADER_LISTS_KEPT: usize = 256;
/// Buffers of held content that a worker keeps to use again: at most 64 KiB each.
pub const HELD_BUFFERS_KEPT: usize = 64;

/// A server's share of requests beside others. Its sum over all servers takes 64 bits.
pub const SERVER_WEIGHT: RangeInclusive<u64> = 1..=1000;
/// How long a server is passed over that closes its connection or is slow to take a new one: as long as a server rests
/// after its first failure.
pub const SERVER_PASS_OVER: Duration = crate::limits::SERVER_COOL_DOWN;
/// How long a server that comes back takes less than its share.
pub const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
/// When servers are ejected, unless the configuration says otherwise. What fails its clients for half a minute is
/// noticed by them; half of the servers carry the load of all for as long.
pub const EJECTION_DEFAULT: EjectionPolicy = EjectionPolicy {
    consecutive_failures: 5,
    failure_percent: 50,
    requests_min: 20,
    window: Duration::from_secs(10),
    first: Duration::from_secs(30),
    longest: Duration::from_secs(5 * 60),
    share_percent_max: 50,
};
/// A count of failures in a row that eject a server.
pub const EJECTION_FAILURES: RangeInclusive<u64> = 1..=1000;
/// A share of failures that ejects a server, and the share of servers that may be ejected.
pub const EJECTION_PERCENT: RangeInclusive<u64> = 1..=100;
/// The time without requests after an ejection.
pub const EJECTION_TIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// The time between two health checks of a server, by each worker: each costs the server a request.
pub const HEALTH_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60 * 60);
/// How long a health check may take.
pub const HEALTH_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// Checks in a row that change what is known of a server.
pub const HEALTH_THRESHOLD: RangeInclusive<u64> = 1..=100;
/// When servers are checked, unless the configuration says otherwise: one that hangs is noticed after half a minute.
pub const HEALTH_DEFAULT: HealthSchedule = HealthSchedule {
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(2),
    healthy_after: 2,
    unhealthy_after: 3,
};
/// Longest name of a service whose health is asked for.
pub const HEALTH_SERVICE_BYTES_MAX: usize = 255;
/// Longest request for health from a client: the longest name, and what protobuf and gRPC put around it.
pub const HEALTH_REQUEST_BYTES_MAX: usize = HEALTH_SERVICE_BYTES_MAX + 16;
/// Longest reply to a health check; one takes seven bytes.
pub const HEALTH_REPLY_BYTES_MAX: usize = 1 << 10;
/// Retries to the servers of a backend, of each worker.
pub const RETRY_ALLOWANCE: RetryAllowance = RetryAllowance {
    percent: 20,
    per_second_min: 3,
    window: Duration::from_secs(10),
};
/// `header_timeout`: a header section is a packet or two, and one that never ends holds a block of 64 KiB.
pub const HEADER_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// Default of `header_timeout`: two retransmissions of a lost packet fit.
pub const HEADER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// `request_idle_timeout`.
pub const REQUEST_IDLE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Default of `request_idle_timeout`: agents send what they have every few seconds, and open a stream anew when one ends.
pub const REQUEST_IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// `max_request_headers`: at most what a field block can hold.
pub const REQUEST_HEADER_BYTES: RangeInclusive<u64> = 4 << 10..=FIELD_BLOCK_BYTES_MAX as u64;
/// Default of `max_request_headers`: one list a worker. Agents send 1 KiB, browsers with cookies 8.
pub const REQUEST_HEADER_BYTES_DEFAULT: usize = 32 << 10;
/// `max_request_body`: it passes piece by piece, and costs no memory.
pub const REQUEST_CONTENT_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 40;
/// Default of `max_request_body`: Cortex takes remote writes of 100 MiB, a Collector of 20.
pub const REQUEST_CONTENT_BYTES_DEFAULT: u64 = 128 << 20;

/// `response_timeout` of a backend.
pub const RESPONSE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);
/// Default of `response_timeout`: Cortex gives a query two minutes, and a write far less.
pub const RESPONSE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2 * 60);
/// `stream_idle_timeout` of a backend.
pub const STREAM_IDLE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Default of `stream_idle_timeout`: streams of agents are open for hours, and may be silent for long.
pub const STREAM_IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// `max_connections` of a backend, to one server: a descriptor and 20 KiB each.
pub const SERVER_CONNECTIONS: RangeInclusive<u64> = 1..=65_536;
/// Default of `max_connections` of a backend. Over HTTP/2 a worker needs one; over HTTP/1.1 one for each request in flight.
pub const SERVER_CONNECTIONS_DEFAULT: u32 = 1024;
/// `max_requests` of a backend, at one server.
pub const SERVER_REQUESTS: RangeInclusive<u64> = 1..=1_000_000;
/// Default of `max_requests` of a backend.
pub const SERVER_REQUESTS_DEFAULT: u32 = 10_000;

/// Clients in mode `http` that keep one descriptor free for servers: over HTTP/2 a worker needs two connections to each
/// server, over HTTP/1.1 one for each request in flight, and most clients have none.
pub const HTTP_CLIENTS_PER_SERVER: u64 = 8;

/// Requests per second of one identity; as many may come at once after a quiet second.
pub const IDENTITY_REQUESTS_PER_SECOND: RangeInclusive<u64> = 1..=10_000_000;
/// Requests in flight of one identity, over all its connections.
pub const IDENTITY_REQUESTS_IN_FLIGHT: RangeInclusive<u64> = 1..=1_000_000;
/// Requests per second of one tenant, over all identities.
pub const TENANT_REQUESTS_PER_SECOND: RangeInclusive<u64> = 1..=10_000_000;
/// Bytes of requests' content per second of one tenant, and its burst: at least a batch of an exporter.
pub const TENANT_BYTES: RangeInclusive<u64> = 16 << 10..=1 << 40;
/// Tenants with limits that are known at once, each about 150 bytes; requests of those beyond are refused. Idle ones are
/// forgotten.
pub const TENANT_RECORDS_MAX: usize = 100_000;
/// Below so many, idle ones are not looked for.
pub const TENANT_RECORDS_MIN: usize = 1024;
/// Bytes of a tenant's name that count: as many as a name may have.
pub const TENANT_BYTES_COUNTED: usize = 150;

/// Longest name of a header in a configuration.
pub const HEADER_NAME_BYTES_MAX: usize = 64;
/// Longest value of a header that a file holds: tokens have a few kilobytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 8 << 10;
/// Tenants whose requests a worker counts by name, each about 200 bytes; those beyond are counted together.
pub const TENANTS_COUNTED_MAX: usize = 500;
/// Requests that an observed configuration would refuse and that each worker remembers by client, method and path, each two
/// kilobytes at most.
pub const DRY_RUN_REQUESTS_MAX: usize = 5_000;
/// Of the method of such a request, and of its path, in bytes.
pub const DRY_RUN_REQUEST_BYTES_MAX: usize = 256;

/// Bytes of copies that wait on a worker for backends that mirror others. Copies for which there is no room are dropped.
pub const MIRRORED_BYTES_MAX: usize = 16 << 20;
/// Connections of a worker to a backend that mirrors, each with one copy at a time.
pub const MIRROR_CONNECTIONS_MAX: usize = 8;
/// How long a copy may take, to the end of its response.
pub const MIRROR_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection for copies stays open without one.
pub const MIRROR_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const _: () = {
    assert!(EJECTION_DEFAULT.share_percent_max <= 100);
    assert!(*SERVER_WEIGHT.end() <= u32::MAX as u64);
    assert!(REQUEST_LINE_BYTES_MAX < HEAD_BYTES_MAX && TRAILER_BYTES_MAX <= HEAD_BYTES_MAX);
    assert!(CHUNK_SIZE_DIGITS_MAX <= 16 && UNRELEASED_BYTES_MAX > 0);
    assert!(FIELD_BLOCK_BYTES_MAX >= FRAME_PAYLOAD_BYTES_MAX);
    assert!(FIELD_BLOCK_BYTES_MAX / FRAME_PAYLOAD_BYTES_MAX <= CONTINUATION_FRAMES_MAX as usize);
    assert!(WINDOW_BYTES <= WINDOW_BYTES_MAX && WINDOW_BYTES_MAX < 1 << 31);
    assert!(OUTPUT_BYTES_MAX >= FRAME_PAYLOAD_BYTES_MAX);
};
