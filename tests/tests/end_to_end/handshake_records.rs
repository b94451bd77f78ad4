//! Records of a handshake that RFC 8446 does not allow, by clients that make every byte of theirs: each is answered by the alert of
//! the standard, in clear before there are keys and encrypted afterwards, and nothing of it reaches a backend.
//! In: a ClientHello of a real stack, changed and cut; records under handshake keys. Out: one alert, and one counted refusal.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use tests::{
    ALERT, Backend, Behaviour, DATA, Direction, Ending, Gateway, HANDSHAKE, Heard, PATIENCE, Wire,
    Workspace,
};

const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const MISSING_EXTENSION: u8 = 109;

const FAILURES: &str = "portcullis_handshake_failures_total";
const CONTENT_BYTES_MAX: usize = 1 << 14;
/// All bytes of a handshake that the gateway takes of a client.
const HANDSHAKE_BYTES_MAX: usize = 65_536;

/// A ClientHello message without its record.
fn hello(workspace: &Workspace) -> Vec<u8> {
    workspace.client().client_hello()[5..].to_vec()
}

/// A ClientHello message of this length, filled up by an extension that nobody knows. The stack's own extensions stay in front:
/// it offers no ticket, so any may be the last.
fn long_hello(workspace: &Workspace, message_bytes: usize) -> Vec<u8> {
    let mut hello = hello(workspace);
    let extensions_at = extensions_at(&hello);
    let filled = message_bytes - hello.len() - 4;
    hello.extend([0xfa, 0xfa]);
    hello.extend(u16::try_from(filled).unwrap().to_be_bytes());
    hello.extend(vec![0; filled]);
    let extensions = u16::try_from(hello.len() - extensions_at - 2).unwrap();
    hello[extensions_at..extensions_at + 2].copy_from_slice(&extensions.to_be_bytes());
    with_length(hello)
}

/// Where the length of the extensions stands: behind version, random, session, suites and compression.
fn extensions_at(hello: &[u8]) -> usize {
    let session_at = 4 + 2 + 32;
    let suites_at = session_at + 1 + usize::from(hello[session_at]);
    let suites = u16::from_be_bytes([hello[suites_at], hello[suites_at + 1]]);
    let compression_at = suites_at + 2 + usize::from(suites);
    compression_at + 1 + usize::from(hello[compression_at])
}

/// The message with the length that it has now.
fn with_length(mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    message
}

fn without_extension(mut hello: Vec<u8>, number: u16) -> Vec<u8> {
    let at = extensions_at(&hello);
    let extensions = hello.split_off(at + 2);
    let mut rest = &extensions[..];
    while let [high, low, length @ ..] = rest {
        let bytes = 4 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if u16::from_be_bytes([*high, *low]) != number {
            hello.extend_from_slice(&rest[..bytes]);
        }
        rest = &rest[bytes..];
    }
    let length = u16::try_from(hello.len() - at - 2).unwrap();
    hello[at..at + 2].copy_from_slice(&length.to_be_bytes());
    with_length(hello)
}

/// A record in clear.
fn record(content_type: u8, version: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[content_type, 3, version, high, low], content].concat()
}

/// Sends `bytes` and hears everything up to the end. A reset behind the answer is an end too.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // The gateway may be gone before all is sent.
    let _ = socket.write_all(bytes);
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard);
    heard
}

/// What answers an alert in clear.
fn alert_in_clear(description: u8) -> Vec<u8> {
    vec![ALERT, 3, 3, 0, 2, 2, description]
}

/// A gateway on which every refusal is of this reason in the end.
fn assert_refused(workspace: &Workspace, attempt: impl FnOnce(&Gateway), expected: &[(&str, u64)]) {
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    attempt(&gateway);
    for (reason, count) in expected {
        gateway.wait_for(FAILURES, &[("reason", reason)], *count);
    }
    let all: u64 = expected.iter().map(|(_, count)| count).sum();
    assert_eq!(
        gateway.wait_for(FAILURES, &[], all).count(FAILURES, &[]),
        all
    );
    assert!(
        backend.connections().is_empty(),
        "the backend was connected"
    );
}

#[test]
fn a_hello_in_a_record_of_2_to_the_14_bytes_is_answered_and_one_in_a_longer_record_overflows() {
    let workspace = Workspace::new();
    let attempt = |gateway: &Gateway| {
        for bytes in [CONTENT_BYTES_MAX + 1, CONTENT_BYTES_MAX + 2047] {
            let hello = record(HANDSHAKE, 1, &long_hello(&workspace, bytes));
            let heard = answer(gateway.address(), &hello);
            assert_eq!(heard, alert_in_clear(RECORD_OVERFLOW), "{bytes} bytes");
            // Its header says enough.
            let heard = answer(gateway.address(), &hello[..5]);
            assert_eq!(heard, alert_in_clear(RECORD_OVERFLOW), "{bytes} bytes");
        }
        // The same hello is taken if its records are short enough: what made the difference is the record.
        let longest = long_hello(&workspace, CONTENT_BYTES_MAX);
        let mut longer = long_hello(&workspace, CONTENT_BYTES_MAX + 1);
        let rest = longer.split_off(CONTENT_BYTES_MAX);
        let split = [record(HANDSHAKE, 1, &longer), record(HANDSHAKE, 1, &rest)].concat();
        for right in [record(HANDSHAKE, 1, &longest), split] {
            assert_answered(gateway.address(), &right);
        }
    };
    assert_refused(&workspace, attempt, &[("malformed", 4), ("reset", 2)]);
}

/// Sends a hello and hears a ServerHello.
fn assert_answered(address: SocketAddr, hello: &[u8]) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(hello).unwrap();
    let mut heard = [0; 6];
    socket.read_exact(&mut heard).unwrap();
    assert_eq!([heard[0], heard[5]], [HANDSHAKE, 2], "a ServerHello");
}

#[test]
fn the_version_of_a_record_is_ignored_and_a_hello_of_ssl_3_is_answered_by_protocol_version() {
    let workspace = Workspace::new();
    let attempt = |gateway: &Gateway| {
        // RFC 8446 section 5.1: ignored for all purposes.
        for version in [0, 1, 3, 4, 255] {
            assert_answered(
                gateway.address(),
                &record(HANDSHAKE, version, &hello(&workspace)),
            );
        }
        for version in [[3, 0], [2, 0], [0, 2]] {
            let mut hello = hello(&workspace);
            hello[4..6].copy_from_slice(&version);
            let whole = record(HANDSHAKE, 1, &hello);
            let heard = answer(gateway.address(), &whole);
            assert_eq!(heard, alert_in_clear(PROTOCOL_VERSION), "{version:?}");
            let pieces = hello.chunks(3).map(|piece| record(HANDSHAKE, 1, piece));
            let heard = answer(gateway.address(), &pieces.collect::<Vec<_>>().concat());
            assert_eq!(heard, alert_in_clear(PROTOCOL_VERSION), "{version:?}");
        }
    };
    assert_refused(&workspace, attempt, &[("version", 6), ("reset", 5)]);
}

#[test]
fn nothing_comes_between_the_parts_of_a_hello_and_no_part_is_empty() {
    let workspace = Workspace::new();
    let attempt = |gateway: &Gateway| {
        let hello = hello(&workspace);
        let (first, second) = hello.split_at(hello.len() / 2);
        let between = [
            record(DATA, 3, b""),
            record(DATA, 3, b"data"),
            record(HANDSHAKE, 3, b""),
            record(ALERT, 3, &[1, 0]),
            record(20, 3, &[1]),
            record(99, 3, b"x"),
        ];
        for one in &between {
            let bytes = [
                record(HANDSHAKE, 1, first),
                one.clone(),
                record(HANDSHAKE, 1, second),
            ];
            let heard = answer(gateway.address(), &bytes.concat());
            assert_eq!(heard, alert_in_clear(UNEXPECTED_MESSAGE), "{one:?}");
        }
    };
    assert_refused(&workspace, attempt, &[("malformed", 6)]);
}

#[test]
fn a_hello_without_the_key_share_that_section_9_2_wants_is_answered_by_missing_extension() {
    const KEY_SHARE: u16 = 51;
    let workspace = Workspace::new();
    let attempt = |gateway: &Gateway| {
        let hello = without_extension(hello(&workspace), KEY_SHARE);
        let heard = answer(gateway.address(), &record(HANDSHAKE, 1, &hello));
        assert_eq!(heard, alert_in_clear(MISSING_EXTENSION));
    };
    assert_refused(&workspace, attempt, &[("group", 1)]);
}

/// Makes what a client sends under its handshake key.
type Make = fn(&mut Direction) -> Vec<u8>;

#[test]
fn what_is_wrong_under_handshake_keys_is_answered_by_an_alert_that_the_client_can_read() {
    let cases: [(&str, Make, u8); 11] = [
        (
            "nothing but zeros",
            |sent| sent.inner(&[0; 300]),
            UNEXPECTED_MESSAGE,
        ),
        ("nothing at all", |sent| sent.inner(&[]), UNEXPECTED_MESSAGE),
        (
            "an empty alert",
            |sent| sent.record(ALERT, &[], 0),
            UNEXPECTED_MESSAGE,
        ),
        (
            "half an alert",
            |sent| sent.record(ALERT, &[2], 0),
            DECODE_ERROR,
        ),
        (
            "data between two parts of a message",
            |sent| {
                let first = sent.record(HANDSHAKE, &[11, 0, 0, 100, 0], 0);
                [first, sent.data(b"data")].concat()
            },
            UNEXPECTED_MESSAGE,
        ),
        (
            "an encrypted change_cipher_spec",
            |sent| sent.record(20, &[1], 0),
            UNEXPECTED_MESSAGE,
        ),
        (
            "2^14 + 1 of content",
            |sent| sent.record(HANDSHAKE, &[0; CONTENT_BYTES_MAX + 1], 0),
            RECORD_OVERFLOW,
        ),
        (
            "a length of 2^14 + 257",
            |_| vec![23, 3, 3, 0x41, 1],
            RECORD_OVERFLOW,
        ),
        (
            "the longest length",
            |_| vec![23, 3, 3, 0xff, 0xff],
            RECORD_OVERFLOW,
        ),
        (
            "a handshake record in clear",
            |_| record(HANDSHAKE, 3, &[24, 0, 0, 1, 0]),
            UNEXPECTED_MESSAGE,
        ),
        (
            "a record of an unknown type",
            |_| record(99, 3, b"x"),
            UNEXPECTED_MESSAGE,
        ),
    ];
    let workspace = Workspace::new();
    let attempt = |gateway: &Gateway| {
        for (name, make, alert) in cases {
            let mut wire = Wire::connect_within_handshake(&workspace.client(), gateway.address());
            let bytes = make(&mut wire.sent);
            wire.send(&bytes);
            assert_eq!(wire.hear(), Heard::Alert(alert), "{name}");
            let end = wire.hear();
            assert!(matches!(end, Heard::End(_)), "{name}: {end:?}");
        }
    };
    assert_refused(&workspace, attempt, &[("malformed", 11)]);
}

#[test]
fn a_handshake_beyond_our_own_limit_is_answered_by_an_alert_with_and_without_keys() {
    let workspace = Workspace::new();
    let attempt = |gateway: &Gateway| {
        // A Certificate that never ends, under keys.
        let mut wire = Wire::connect_within_handshake(&workspace.client(), gateway.address());
        let first = wire.sent.record(HANDSHAKE, &[11, 0, 0xff, 0xf0, 0], 0);
        wire.send(&first);
        for _ in 0..HANDSHAKE_BYTES_MAX / 16_000 + 1 {
            let part = wire.sent.record(HANDSHAKE, &[0; 16_000], 0);
            wire.send(&part);
        }
        assert_eq!(wire.hear(), Heard::Alert(DECODE_ERROR));
        assert!(matches!(
            wire.hear(),
            Heard::End(Ending::Finished | Ending::Reset)
        ));

        // A hello that never ends, in clear.
        let begin = record(HANDSHAKE, 1, &[1, 0, 0xff, 0xf0, 3, 3]);
        let part = record(HANDSHAKE, 1, &[7; 16_000]);
        let endless = [begin, part.repeat(5)].concat();
        let heard = answer(gateway.address(), &endless);
        assert_eq!(heard, alert_in_clear(DECODE_ERROR));
    };
    assert_refused(&workspace, attempt, &[("malformed", 2)]);
}
