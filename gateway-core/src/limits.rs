//! Every limit of the program, with what it costs. In: nothing. Out: constants, checked against each other when compiled.
//! Configuration reads its defaults and ranges here; nothing else in the program invents a bound of its own.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest configuration file in bytes; it is held in memory once, while it is read.
pub const CONFIGURATION_BYTES_MAX: usize = 1 << 20;
/// Longest file of identity rules that a configuration includes, in bytes. Held once, while it is read.
pub const RULES_FILE_BYTES_MAX: usize = 128 << 20;
/// Lines of all files of rules together. A rule takes two lines at least, and about 700 bytes while it is in force.
pub const RULES_LINES_MAX: usize = 1_000_000;
/// How much of a file of rules is taken apart at once, in bytes: its syntax takes twenty times as much while it is.
pub const RULES_PIECE_BYTES: usize = 64 << 10;
/// How many errors of a piece end the reading of its file: no operator reads more.
pub const RULES_ERRORS_MAX: usize = 100;
/// How many warnings of rules are given.
pub const RULE_WARNINGS_MAX: usize = 100;
/// How many rules of a listener are looked at for whether two of its CAs may satisfy one.
pub const OVERLAP_RULES_MAX: usize = 100_000;
/// How many networks of `[guard] allow` and of `deny` `check` shows.
pub const NETWORKS_SHOWN_MAX: usize = 16;
/// How many rules `check` shows.
pub const RULES_SHOWN_MAX: usize = 1000;
/// Longest file of certificates in bytes: a bundle of every public CA takes 250 KiB. Held once, while it is read.
pub const CERTIFICATE_FILE_BYTES_MAX: usize = 16 << 20;
/// Longest revocation list in bytes: a million entries take 35 MB, in PEM 47 MB. Held once, in PEM together with what
/// it says, while it is read; the set that stays takes 46 bytes an entry, measured.
pub const CRL_FILE_BYTES_MAX: usize = 128 << 20;
/// What is asked of the kernel at once when a file is read, in bytes: a twentieth of a millisecond on the CPU.
pub const READ_BYTES: u64 = 64 << 10;
/// How much memory is released to the kernel at once, in bytes: a quarter of a millisecond on the CPU.
pub const RELEASED_BYTES: usize = 1 << 20;
/// Blocks of memory from this size in bytes on are mapped by themselves: I/O buffers, and what is left of them in a stall.
pub const MAPPED_BYTES: i32 = 64 << 10;
/// Free memory in bytes at the end of a heap that is kept for the next use.
pub const UNTRIMMED_BYTES: i32 = 1 << 20;
/// How long an unused revocation list stays in memory at most; then the reloading thread releases it.
pub const LIST_SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Verified client chains in the cache of a worker: a kibibyte each as a rule, so 4 MiB.
pub const CACHED_CHAINS_MAX: usize = 4096;
/// A chain in that cache takes this many bytes at most.
pub const CACHED_CHAIN_BYTES_MAX: usize = 8 << 10;
/// Longest request for a certificate in bytes: a few names and a key take one or two KiB. Held once, while it is read.
pub const SIGNING_REQUEST_FILE_BYTES_MAX: usize = 64 << 10;
/// Shortest RSA key that `pki` certifies, in bits (NIST SP 800-131A revision 2 section 3).
pub const RSA_BITS_MIN: usize = 2048;
/// Longest database of an authority's revoked certificates: a hundred thousand lines.
pub const REVOCATION_DB_BYTES_MAX: usize = 16 << 20;
/// Distribution points of one certificate that lists are compared with, eight bytes each for as long as the connection.
pub const DISTRIBUTION_POINTS_MAX: usize = 16;
/// Longest file of what is remembered of revocation lists: ten thousand CAs.
pub const LIST_RANKS_FILE_BYTES_MAX: usize = 4 << 20;
/// How far a CA's clock may be ahead of ours: a list dated later than this is refused until its time comes.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// How often it is looked whether the wall clock has been set: a connection outlives its certificate for no longer.
pub const CLOCK_SET_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// What could not be read for want of descriptors or memory is read again after this time.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// The wall clock is looked at this often for times that have come: it may be set at any moment.
pub const CLOCK_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer than its nextUpdate a revocation list may be used.
pub const CRL_GRACE: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 60 * 60);
/// Longest private key file in bytes; a buffer of this size is taken once per key and zeroed.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;
/// Longest name of a listener or backend in bytes: it stands in every metric of theirs.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest name of a gateway in bytes: with the usual folders its sockets' paths stay below 107 bytes.
pub const GATEWAY_NAME_BYTES_MAX: usize = 48;
/// Longest name of a network interface in bytes (IFNAMSIZ less its terminating zero).
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// Longest application protocol name (RFC 7301 section 3.1).
pub const ALPN_BYTES_MAX: usize = 255;

/// Worker threads: each costs a thread, a ring and a listening socket per listener.
pub const WORKERS: RangeInclusive<u64> = 1..=1024;

/// Bound on a whole handshake. A handshake in flight costs a socket and buffers as its peer sends.
pub const HANDSHAKE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// Default of `handshake_timeout`: three retransmissions of a lost packet fit.
pub const HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Time for a client's first byte. Until then it costs a socket and a few kibibytes, and no handshake slot.
pub const FIRST_BYTE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
/// Default of `first_byte_timeout`: two retransmissions of a lost packet fit.
pub const FIRST_BYTE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Silence after which a connection is closed. An idle connection costs two sockets and was measured at 10 KiB.
pub const IDLE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Default of `idle_timeout`: HTTP/1.1 clients close or reuse a connection sooner. TCP keepalive finds dead peers.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// Default of `idle_timeout` where `alpn` has `h2`: gRPC exporters send no keepalive unless told to, and connect anew as soon as a
/// silent connection is closed, so that closing it only costs a handshake.
pub const IDLE_TIMEOUT_DEFAULT_HTTP2: Duration = *IDLE_TIMEOUT.end();

/// Longest list of CAs' names in a CertificateRequest, in bytes. Without the list a client chooses among its certificates by
/// itself, and most have one. Java fails above 32 KiB.
pub const AUTHORITY_NAMES_BYTES_MAX: usize = 16 << 10;

/// Connections at once per listener, each of which costs two descriptors.
pub const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// Default of `max_connections`: 20000 descriptors and about 100 MiB when all are idle.
pub const CONNECTIONS_DEFAULT: usize = 10_000;

/// Handshakes at once per listener, over all workers; as many connections may be silent before theirs, and a few more.
pub const HANDSHAKES: RangeInclusive<u64> = 1..=65_536;
/// Default of `max_handshakes`: 64 MiB if all send as much as `HANDSHAKE_BYTES_MAX`.
pub const HANDSHAKES_DEFAULT: usize = 1024;

/// Age at which a connection is closed; without the setting there is none.
pub const CONNECTION_AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// Bound on one attempt to connect to a server of a backend, TCP and TLS together.
pub const CONNECT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// Default of `connect_timeout`: one retransmitted SYN fits.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);

/// Time for connections to finish after SIGTERM; zero cuts them at once.
pub const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
/// Default of `drain_timeout`: well below the 60 s after which deploy/portcullis.service has a service killed.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How far before their making `pki` dates certificates: machines whose clocks lag by less accept them at once.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Bytes of randomness in a serial number. RFC 5280 section 4.1.2.2 allows 20 bytes and asks for a positive number.
pub const SERIAL_BYTES: usize = 16;

const _: () = {
    assert!(HANDSHAKES_DEFAULT <= CONNECTIONS_DEFAULT);
    assert!(CONNECTIONS_DEFAULT as u64 <= *CONNECTIONS.end());
    assert!(HANDSHAKES_DEFAULT as u64 <= *HANDSHAKES.end());
    assert!(SERIAL_BYTES <= 20);
};

/// Largest TLS ciphertext record: 2^14 bytes of content, 256 of overhead (RFC 8446 section 5.2), 5 of header.
pub const RECORD_BYTES_MAX: usize = 16384 + 256 + 5;

/// Plaintext that fits into one TLS record (RFC 8446 section 5.1).
pub const RECORD_PLAINTEXT_BYTES_MAX: usize = 16384;

/// Content of the first records of a connection: less than that of the longest, so that the peer can open them as they arrive.
pub const SHORT_RECORD_CONTENT_BYTES: usize = 4096;
/// Bytes after which records become long.
pub const SHORT_RECORDS_BYTES: usize = 16 << 10;

/// Size of one I/O buffer: sixteen full records, so that one read and one write move up to 256 KiB of a stream. A quarter of
/// that costs a sixth more CPU per byte (docs/performance.md).
/// Bytes are opened and sealed where they lie, so a connection that moves bytes in both directions holds at most two; an idle
/// one holds none.
pub const IO_BUFFER_BYTES: usize = 16 * RECORD_BYTES_MAX;

/// What is read at once of a client whose identity has a limit of bytes per second: it is counted when it has been read, so
/// this is how much may come too soon.
pub const PACED_READ_BYTES: usize = 4 * RECORD_BYTES_MAX;

/// A buffer that the peer has not taken anything of for this long shrinks to what is in it ...
pub const STALL: Duration = Duration::from_secs(1);
/// ... if that releases so many bytes at least.
pub const STALL_SHRINK_BYTES_MIN: usize = 8 << 10;

/// Free buffers a worker keeps for the next use: 8 MiB per worker at most. More go back to the allocator.
pub const POOLED_BUFFERS_MAX: usize = 32;

/// Bytes a client may send before its handshake is complete: its certificate chain and the first requests behind
/// its Finished. Bounds the memory of a handshake; larger chains are refused as malformed.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// Reads a handshake may take. Each looks through all that has come so far, so a ClientHello in thousands of pieces would
/// cost its sender little and us much; real ones come in one to ten.
pub const HANDSHAKE_READS_MAX: usize = 2048;

/// What one read of a handshake takes: a ClientHello with a post-quantum key share fits.
pub const HANDSHAKE_READ_BYTES: usize = 4096;
/// Connections that wait in a listener's accept queue (the kernel bounds it by `net.core.somaxconn` too).
pub const LISTEN_BACKLOG: i32 = 4096;
/// How long a start, and a look at one, wait for an address that a process was listening on which has just been killed.
pub const LISTENER_LINGER_MAX: Duration = Duration::from_secs(1);
/// Time a refused client gets to read its alert before its socket is closed.
pub const LINGER_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes discarded from a peer while it reads its alert. A client that has got in, and whose backend has broken off, has
/// `LINGER_TIMEOUT` and no bound on bytes.
pub const LINGER_BYTES_MAX: usize = 64 * 1024;

/// Silence before the first TCP keepalive probe. A dead peer is found `KEEPALIVE_PROBES` times `KEEPALIVE_INTERVAL` later.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// No connection lives longer than this, whatever its certificate says.
pub const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Time between keepalive probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Probes without an answer before the kernel resets the connection.
pub const KEEPALIVE_PROBES: u32 = 6;

/// A peer that has acknowledged nothing for this long, while something waits for its acknowledgement, is gone. Longer than
/// the two minutes that the kernel waits at most between two probes of a closed window: a peer that answers those is alive.
/// And longer than keepalive takes. (TCP_USER_TIMEOUT of tcp(7) is not set: it takes a reader that pauses for a dead one.)
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(150);

/// How often it is looked whether what was sent has arrived, as long as it has not: two system calls for each side.
pub const DELIVERY_LOOK_INTERVAL: Duration = Duration::from_secs(30);

const _: () = {
    let keepalive =
        KEEPALIVE_IDLE.as_secs() + KEEPALIVE_INTERVAL.as_secs() * KEEPALIVE_PROBES as u64;
    assert!(PEER_SILENCE_MAX.as_secs() > keepalive && PEER_SILENCE_MAX.as_secs() > 120);
};

/// A server that could not be reached is passed over for this long, unless all are; after each further failure for twice as
/// long ...
pub const SERVER_COOL_DOWN: Duration = Duration::from_secs(5);

/// ... up to this: a server that is back is in use a minute later ...
pub const SERVER_COOL_DOWN_MAX: Duration = Duration::from_secs(60);

/// ... and an address that fails while another one of the same name serves, up to this.
pub const ADDRESS_COOL_DOWN_MAX: Duration = Duration::from_secs(10 * 60);

/// Where all servers have failed, each is tried again after this long.
pub const SERVER_RETRY: Duration = Duration::from_millis(250);

/// What connecting to one server has for itself before another is tried beside it: RFC 8305 section 5 recommends 250 ms ...
pub const HEAD_START: Duration = Duration::from_millis(250);
/// ... and allows two seconds, for servers that are far.
pub const HEAD_START_MAX: Duration = Duration::from_secs(2);

/// A client is held for this many times `connect_timeout` while servers are tried, however many there are.
pub const CONNECT_TIMEOUTS: u32 = 2;

/// How often one looks whether a client is still there while its server is being connected.
pub const CLIENT_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often a connection looks what became of servers that other connections try.
pub const SERVER_LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Backends that reloads may come to; a start may begin with more. Places for counters: 200 bytes a worker, 16 a listener of it.
pub const BACKENDS_RELOADED_MAX: usize = 256;
/// Servers of one backend that a worker counts failures of by name, each about 100 bytes; those beyond are counted together.
pub const SERVERS_COUNTED_MAX: usize = 64;
/// Failures of servers that a worker keeps until a client reports them: about 200 bytes each. More are not counted.
pub const SERVER_NEWS_MAX: usize = 256;

/// Bytes of a client's offer of protocols that the log repeats.
pub const SHOWN_PROTOCOLS_BYTES_MAX: usize = 128;

/// Names of backends are resolved again this often.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(15);
/// After this long without an answer a name counts as not resolved: the start waits no longer for it. Its answer is still taken.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Hosts that the records of one service may name, each of which is resolved; those beyond are left out.
pub const SERVICE_TARGETS_MAX: usize = 64;
/// A name that could not be resolved is asked for again after this long, then after twice that, up to `RESOLVE_INTERVAL`.
pub const RESOLVE_RETRY: Duration = Duration::from_secs(1);

/// Names that are asked for at once: each takes a thread while the resolver is silent, at most 20 KiB that are touched.
pub const RESOLUTIONS_MAX: usize = 256;

/// A connection that has to go, for its age, its certificate or a drain, goes at the first quiet moment: when the backend's
/// answer has been passed on and nothing has followed for this long, which is longer than the pauses within most answers ...
pub const ANSWER_PAUSE: Duration = Duration::from_millis(250);

/// ... or when nothing has moved either way for this long, however it began.
pub const QUIET_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(10 * 60);
/// Default of `quiet_timeout`: as long as common exporters wait for an answer.
pub const QUIET_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// A connection past its maximum age goes after this much longer in any case.
pub const CONNECTION_AGE_GRACE: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(24 * 60 * 60);
/// Default of `max_connection_age_grace`.
pub const CONNECTION_AGE_GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// In a drain, connections of a worker begin to look for their quiet moment this long after each other, on average: those that
/// come back elsewhere cost a handshake there.
pub const DRAIN_STEP: Duration = Duration::from_millis(2);

/// At the end of a drain connections that are still open are counted this long before the deadline ...
pub const DRAIN_COUNT_MARGIN: Duration = Duration::from_millis(50);
/// ... and their ends are recorded within this time after it.
pub const DRAIN_RECORD_TIMEOUT: Duration = Duration::from_millis(500);

/// How much the thread that reloads stands back (nice(1)) where it shares a CPU with a worker: it gets about a tenth of it.
pub const RELOAD_NICENESS: i32 = 10;

/// How long it would like to be left alone, which is the most that Linux grants: a worker that is woken need not wait.
pub const RELOAD_SLICE: Duration = Duration::from_millis(100);

/// Closes after a reload, other than of clients that are revoked or blocked, are spread over this time ...
pub const CLOSE_SPREAD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
/// ... by default ten seconds ...
pub const CLOSE_SPREAD_DEFAULT: Duration = Duration::from_secs(10);

/// ... and each waits for a quiet moment for this long.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Log lines per second, worker and reason about refused clients; the rest is counted and said with the next line.
pub const REFUSAL_LINES_PER_SECOND: u32 = 5;

/// Log lines that wait to be written, in bytes; beyond it lines are dropped and counted, and a worker never waits.
pub const LOG_QUEUE_BYTES_MAX: usize = 8 << 20;
/// At the end of the process the log has this long for what still waits.
pub const LOG_FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Submission queue entries of a worker's ring, and what is tried where the user may not lock memory for so many; the
/// completion queue has twice as many. A ring takes about 100 bytes an entry: 400 KiB, 50 KiB, 8 KiB.
pub const RING_ENTRIES: [u32; 3] = [4096, 512, 64];

/// Descriptors that are held back from connections: for as many local requests as the administration endpoint and the control socket
/// take at once, and as many again for the kernel programs' maps, logs, questions for names, and files that are read.
pub const DESCRIPTORS_HELD_BACK: u64 = 4 * ADMIN_CONNECTIONS_MAX as u64;
/// What a worker takes beside its connections: a ring or an epoll with its waker, its mailbox, and what its turns wait for.
pub const DESCRIPTORS_PER_WORKER: u64 = 7;
/// What a listener takes on each worker: its socket twice, and a connection that is accepted and waits for a descriptor.
pub const DESCRIPTORS_PER_LISTENING_SOCKET: u64 = 3;
/// A gateway that could hold fewer descriptors than this for connections does not start.
pub const CONNECTION_DESCRIPTORS_MIN: u64 = 64;
/// How often it is looked how many descriptors are left, and whether the limit has been changed.
pub const DESCRIPTORS_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often a listener looks whether it may accept once more, where it waits for a descriptor, a handshake slot or a silent
/// connection.
pub const ACCEPT_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a connection may be silent before it can be made to give its place to another: a round trip, and a lost packet that is
/// sent again, fit.
pub const SILENCE_GRACE: Duration = Duration::from_millis(500);
/// So many connections of a listener may be silent on each worker, however many workers share `max_handshakes`.
pub const SILENT_CONNECTIONS_MIN: usize = 16;

/// Pause of a listener whose `accept` fails, out of descriptors of the whole system for instance.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections the administration endpoint serves at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Connections to `[admin.tls]` at once, handshakes included: up to three descriptors each, of the budget of connections.
pub const ADMIN_TLS_CONNECTIONS_MAX: usize = 256;
/// A connection to `[admin.tls]` ends at this age, whatever is left of the answer.
pub const ADMIN_TLS_CONNECTION_AGE: Duration = Duration::from_secs(30);
/// Administration requests that wait to be accepted.
pub const ADMIN_BACKLOG: i32 = 128;
/// How long a local peer may be silent before it has asked for something.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// An administration request has this long, and so has its answer; what the gateway does in between is not counted.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after the full handshake its tickets may resume. RFC 8446 section 4.6.1 allows seven days at most.
pub const AUTHENTICATION_AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);

/// Default of `max_authentication_age`.
pub const AUTHENTICATION_AGE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// Master keys of tickets kept at once: a rotation every three hours keeps all that can matter for a week.
pub const TICKET_KEYS_MAX: usize = 64;

/// How often master keys in memory are rotated, at most and at least; between them, twice in `max_authentication_age`.
pub const TICKET_KEY_ROTATION: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(12 * 60 * 60);

/// Tickets of one ClientHello that are tried; each costs a key derivation. Common clients offer one or two.
pub const TICKETS_TRIED_MAX: usize = 4;

/// Tickets given out per handshake, about 1.5 KB each: a client comes back with the newest.
pub const TICKETS_ISSUED: usize = 1;

/// Clients that an observed configuration would refuse and that each worker remembers by name, each about 400 bytes.
pub const DRY_RUN_CLIENTS_MAX: usize = 10_000;

const _: () = assert!(HANDSHAKE_READ_BYTES <= HANDSHAKE_BYTES_MAX);
const _: () = assert!(HANDSHAKE_BYTES_MAX >= RECORD_BYTES_MAX);
const _: () = assert!(
    IO_BUFFER_BYTES >= RECORD_BYTES_MAX,
    "a whole record must fit, or it is never opened"
);

/// Certificates that a peer may send, its own included. Deep hierarchies have five; no peer needs more.
pub const CHAIN_CERTIFICATES_MAX: usize = 10;
/// Bytes of the certificates that a peer may send.
pub const CHAIN_BYTES_MAX: usize = 64 << 10;
/// DER values of which one certificate may be made. Parsers take 50 to 150 ns for each, so ten such certificates cost about a
/// millisecond; common ones have a hundred, one with a thousand names has 1,100.
pub const CERTIFICATE_VALUES_MAX: usize = 2048;
/// Signatures that are checked in the search for one path: of the longest chain, and five guesses. Those of RSA-2048 and P-256 take
/// 20 to 100 us each ...
pub const CHAIN_SIGNATURES_MAX: usize = 12;
/// ... those of P-384, P-521 and longer RSA keys up to a few hundred: together they may cost this much, in microseconds with the slowest
/// library. The longest chain of P-384 keys takes 2,800.
pub const CHAIN_SIGNATURE_WORK_US_MAX: usize = 3000;
/// Beginnings of paths that a search looks at, about 1 us each ...
pub const CHAIN_CANDIDATES_MAX: usize = 64;
/// ... and whole paths of which it has the signatures checked: webpki takes 5 to 50 us for each beside those.
pub const CHAIN_PATHS_MAX: usize = 16;
/// Orders in which webpki may put the certificates of the paths that it is shown, counted by certificates: it is shown only paths
/// whose signatures hold, takes the first order of one that is good, and tries all orders of namesakes of one that is not. Five
/// namesakes in a row have 120 orders of 600 certificates, at about 1 us each; a CA whose key has changed four times has as many.
pub const CHAIN_ORDERS_MAX: usize = 768;
/// Longest name in bytes that is compared as RFC 5280 section 7.1 wants it, at about 10 ns a byte; longer ones are compared byte
/// by byte. Names of CAs have 30 to 200.
pub const NAME_COMPARED_BYTES_MAX: usize = 1024;
/// Product of the DER values of a path and those of its CAs' name constraints: webpki compares each name with each constraint,
/// at 50 to 100 ns, and two values of a constraint are one.
pub const CHAIN_CONSTRAINT_WORK_MAX: usize = 1 << 16;
const _: () = assert!(CHAIN_SIGNATURES_MAX > *CHAIN_DEPTH.end() as usize);

/// Certificates in a client's chain, its own included and the CA's not. Each costs a signature check. webpki goes no further.
pub const CHAIN_DEPTH: RangeInclusive<u64> = 1..=7;
/// Default of `max_chain_depth`: three intermediates are more than common hierarchies have.
pub const CHAIN_DEPTH_DEFAULT: usize = 4;

/// Length of RSA keys in bits: shorter ones are within reach of being factored (NIST SP 800-57), for longer ones the
/// libraries have no code, and verifying would cost more than it proves.
pub const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

const _: () = assert!(CHAIN_DEPTH_DEFAULT as u64 <= *CHAIN_DEPTH.end());

/// Connections at once of one identity.
pub const IDENTITY_CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// Handshakes per second of one identity; as many may come at once after a quiet second.
pub const IDENTITY_HANDSHAKES_PER_SECOND: RangeInclusive<u64> = 1..=1_000_000;
/// Bytes per second from one identity. A connection that has just read a whole buffer then pauses for four seconds at most,
/// if it is the only one.
pub const IDENTITY_BYTES_PER_SECOND: RangeInclusive<u64> = 16 << 10..=1 << 40;
/// Bytes from one identity that may come at once; by default a second's worth.
pub const IDENTITY_BYTES_BURST: RangeInclusive<u64> = 16 << 10..=1 << 40;
/// Receive buffer in bytes of a client whose bytes are slowed down: a second's worth within these bounds. What a client
/// has given up by then still waits here, before what it sends anew. The kernel's default for `net.core.rmem_max` is the most
/// that it grants.
pub const PACED_RECEIVE_BYTES: RangeInclusive<u64> = 64 << 10..=208 << 10;
/// Beyond this rate the kernel sizes the buffer by itself: a fixed one would bound the rate on a long way.
pub const PACED_RECEIVE_BYTES_PER_SECOND_MAX: u64 = 2 << 20;
/// What a KeyUpdate counts for where bytes are limited: as many bytes of data cost as much.
pub const KEY_UPDATE_COST_BYTES: u64 = 16 << 10;
/// An identity that has not been slowed down for this long is told of anew when it is, and leaves the metrics page.
pub const SLOWED_MEMORY: Duration = Duration::from_secs(5 * 60);
/// Identities that are slowed down and named on the metrics page at once, each about 200 bytes; the log names all.
pub const SLOWED_IDENTITIES_MAX: usize = 1000;

/// Identities with limits that are known at once, each about 250 bytes; those beyond are refused. Idle ones are forgotten.
pub const IDENTITY_RECORDS_MAX: usize = 100_000;
/// Below so many, idle ones are not looked for.
pub const IDENTITY_RECORDS_MIN: usize = 1024;
/// How long a full table is not looked through again for idle entries: with 100,000 a look takes milliseconds, under a lock.
pub const FULL_TABLE_PAUSE: Duration = Duration::from_secs(1);

/// After the last sign of a change, files are looked at when nothing has happened for this long ...
pub const FILE_QUIET_PERIOD: Duration = Duration::from_millis(50);
/// ... and however much goes on, this long after the first sign ...
pub const FILE_BURST_MAX: Duration = Duration::from_millis(300);
/// ... unless a file is open for writing: then its writer has this long. New state is to be in force within a second.
pub const FILE_WRITING_MAX: Duration = Duration::from_millis(600);
/// Files are looked at this often even if the kernel announces nothing, which it does not on network file systems.
pub const FILE_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Longest file in bytes whose content is compared; of longer ones what the file system says of them. Read and released.
pub const DIGEST_FILE_BYTES_MAX: u64 = 1 << 20;
/// Links on the way to a file, as many as the kernel follows (path_resolution(7)).
pub const LINKS_MAX: usize = 40;
const _: () = assert!(FILE_QUIET_PERIOD.as_millis() < FILE_BURST_MAX.as_millis());
const _: () = assert!(FILE_BURST_MAX.as_millis() <= FILE_WRITING_MAX.as_millis());

/// How long before the end of a client's certificate its connection may end, where it is to end early.
pub const EXPIRY_DRAIN: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Default of `expiry_drain`: agents that read certificates anew do so every minute or with each connection.
pub const EXPIRY_DRAIN_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Longest block list in bytes: about fifty thousand entries. Held once, while it is read.
pub const BLOCK_FILE_BYTES_MAX: usize = 16 << 20;
/// Records of unblocked clients that a block list keeps.
pub const UNBLOCKED_MAX: usize = 100;
/// Longest reason of a block in bytes.
pub const BLOCK_REASON_BYTES_MAX: usize = 1000;
/// How long a command waits for another one that is changing the block list.
pub const BLOCK_LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a command waits for the gateway to say that it has taken the block list.
pub const BLOCK_CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest file of the notes on bans by hand in bytes. Notes go with their bans; held once, while it is read.
pub const GUARD_NOTES_FILE_BYTES_MAX: usize = 16 << 20;
/// How often `guard watch` looks.
pub const GUARD_WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Longest request over the control socket in bytes: a name and a reason.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Longest answer over the control socket in bytes: a whole block list.
pub const CONTROL_ANSWER_BYTES_MAX: usize = BLOCK_FILE_BYTES_MAX + (64 << 10);
/// Commands that are being done at once, each on a thread of its own; more wait.
pub const CONTROL_THREADS_MAX: usize = 8;
/// How long a command waits for the gateway's answer; those that wait for a reload say that they still do, and wait on.
pub const CONTROL_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a command waits for the socket of the next process, when the one before has let it go.
pub const CONTROL_CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a change of the block list waits for the other processes of the gateway to act by it.
pub const SIBLING_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Clients by their certificates that such a process tells of, connected and seen each: two times 7 MB in an answer.
pub const SIBLING_CLIENTS_MAX: usize = 100_000;
/// How many gateways of a host a command asks that does not find its own; and processes of one gateway that tell each other.
pub const RUNNING_GATEWAYS_MAX: usize = 32;
/// How long such a command waits for each of them.
pub const RUNNING_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a process that takes over waits for the name once the one before it has been asked for it.
pub const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that has been asked for the name waits for the other one's socket, before it takes the name back ...
pub const TAKEOVER_OFFER: Duration = Duration::from_secs(5);
/// ... and how often it looks.
pub const TAKEOVER_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long a process that takes over waits for the one before it to answer, and to act by the block list that it reads.
pub const TAKEOVER_LISTS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the workers have to take a new state, before the gateway says that they have not.
pub const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a key and its certificate have to match, when a reload finds that they do not: whatever renews them writes one after the
/// other.
pub const KEY_PAIR_PATIENCE: Duration = Duration::from_secs(5);
/// Files that were no block list and are kept beside it, at most; the last one makes room for the next.
pub const BLOCK_FILES_ASIDE_MAX: usize = 100;

/// Audit lines that wait to be written, in bytes: about 12000 lines. Beyond it lines are dropped and counted.
pub const AUDIT_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Room beside it that only lines about operators' doings may take, so that a flood of refusals does not push them out.
pub const AUDIT_QUEUE_RESERVE_BYTES: usize = 256 << 10;
/// Longest text in bytes of what a peer chose, in one field of a log or audit line, or of one name: what is longer is cut, and
/// ends with `…`. Distinguished names have 64 characters in each attribute as a rule (X.520).
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest object identifier in bytes that is written in numbers and looked up; registered ones have up to 20.
pub const OID_BYTES_MAX: usize = 64;
/// The audit log's thread rests this long after each write, so that lines gather: at a thousand connections a second its
/// writes took 2 % of a CPU with 5 ms, and the lines themselves 1 %.
pub const AUDIT_REST: Duration = Duration::from_millis(25);
/// A failed write of the audit log is tried again after this time, or when the file is opened again.
pub const AUDIT_RETRY: Duration = Duration::from_secs(1);
/// The log speaks of an audit log that cannot be written, or loses lines, this often at most.
pub const AUDIT_COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
/// Memory the audit log's thread keeps for its next batch.
pub const AUDIT_BATCH_BYTES_KEPT: usize = 256 << 10;
/// At the end of the process the audit log has this long for what still waits.
pub const AUDIT_FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// After a second signal it has this long.
pub const AUDIT_FINISH_AT_ONCE_TIMEOUT: Duration = Duration::from_millis(500);

/// How often it is looked whether certificates and lists come to their end; a metric says it at any time.
pub const EXPIRY_LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How often workers count their clients by what is left of their certificates: 50 ns a client, on the client's worker.
pub const CLIENT_COUNT_INTERVAL: Duration = Duration::from_secs(15);

/// A client that is paused for its rate is looked at this often: one that is gone releases its permit. One system call.
pub const PAUSE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Longest ticket in bytes; it holds the client's chain, its names once more, and about 300 bytes. A client that would get a
/// longer one gets none, and authenticates in full each time.
pub const TICKET_BYTES_MAX: usize = 16 << 10;
const _: () = assert!(2 * TICKET_BYTES_MAX <= HANDSHAKE_BYTES_MAX);

/// Unauthenticated connections of one source at once, which `[guard] max_pending` bounds.
pub const GUARD_PENDING: RangeInclusive<u64> = 1..=65_536;
/// By default so many sources use up `max_handshakes` of a listener ...
pub const GUARD_SOURCES_PER_LISTENER: usize = 16;
/// ... but a few agents behind one address always get through, and a source never has more than the kernel programs' own default.
pub const GUARD_PENDING_DEFAULT: RangeInclusive<u64> = 8..=256;
/// Points of failures beyond which a source is banned.
pub const GUARD_POINTS: RangeInclusive<u64> = 1..=100_000;
/// Default of `[guard] ban_threshold`: ten of the heaviest failures at once are within bounds.
pub const GUARD_POINTS_DEFAULT: u64 = 100;
/// Most points that one failure may cost.
pub const GUARD_WEIGHT_MAX: u16 = 1000;
/// Time in which one point is forgiven. The longest debt, times the heaviest failure, fits into 64 bits of nanoseconds.
pub const GUARD_POINT_LIFETIME: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60 * 60);
/// Length of a ban.
pub const GUARD_BAN: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
/// Bytes that a client may send before it is authenticated, as the kernel counts them; the gateway's own bound,
/// `HANDSHAKE_BYTES_MAX`, is hit first, and the first data behind Finished has to fit too.
pub const GUARD_BYTE_BUDGET: RangeInclusive<u64> = 128 << 10..=64 << 20;
/// How much longer than the longest handshake the kernel waits: the gateway comes first, and says why.
pub const GUARD_DEADLINE_MARGIN: Duration = Duration::from_secs(5);
/// Networks on the guard's lists together.
pub const GUARD_LIST_ENTRIES_MAX: usize = 16_384;
/// How often the gateway tells the kernel programs that it is alive; they go on for ten seconds after the last time.
pub const GUARD_BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Bans that begin in the gateway's own table of sources and have not been reported yet; the next look finds those beyond.
pub const BAN_NEWS_MAX: usize = 4096;
/// How often the bans are looked through for what no event tells of: their ends, and operators' orders. A full map of
/// 65,536 takes about a tenth of a second of the control thread.
pub const GUARD_LOOK_INTERVAL: Duration = Duration::from_secs(10);

const _: () = {
    assert!(*GUARD_BYTE_BUDGET.start() >= 2 * HANDSHAKE_BYTES_MAX as u64);
    assert!(*GUARD_PENDING.start() <= *GUARD_PENDING_DEFAULT.start());
    assert!(*GUARD_PENDING_DEFAULT.end() <= *GUARD_PENDING.end());
    assert!(GUARD_LIST_ENTRIES_MAX == gateway_common::LISTS_MAX as usize);
    let debt_ns = GUARD_POINT_LIFETIME.end().as_nanos() * *GUARD_POINTS.end() as u128;
    let charge_ns = GUARD_POINT_LIFETIME.end().as_nanos() * GUARD_WEIGHT_MAX as u128;
    assert!(debt_ns + charge_ns < u64::MAX as u128 / 2);
};
