//! Records on their way, by peers that make every byte of theirs: what was changed, moved, cut or never right ends the connection
//! with its alert, and the other side gets what came before and not a byte more. In: clients and backends that speak records
//! by themselves. Out: what each side heard, and how it ended.

use std::io::Write;
use std::thread;

use tests::{
    ALERT, DATA, Direction, Ending, Gateway, HANDSHAKE, Heard, Request, Wire, WireBackend,
    Workspace, key_update,
};

use crate::nginx::backend_tls;

const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;

const CONTENT_BYTES_MAX: usize = 1 << 14;
const SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// Makes what is sent behind a good record, which it is shown.
type Make = fn(&mut Direction, &[u8]) -> Vec<u8>;
/// What it is, and the alert that answers it.
type Case = (&'static str, Make, u8);

/// Whichever side sends it.
const MALFORMED: &[Case] = &[
    (
        "no TLS",
        |_, _| b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        UNEXPECTED_MESSAGE,
    ),
    (
        "a close_notify in clear",
        |_, _| vec![21, 3, 3, 0, 2, 1, 0],
        UNEXPECTED_MESSAGE,
    ),
    (
        "a change_cipher_spec",
        |_, _| vec![20, 3, 3, 0, 1, 1],
        UNEXPECTED_MESSAGE,
    ),
    (
        "a length of 2^14 + 257",
        |_, _| vec![23, 3, 3, 0x41, 0x01],
        RECORD_OVERFLOW,
    ),
    (
        "no room for a tag",
        |_, _| vec![23, 3, 3, 0, 15],
        BAD_RECORD_MAC,
    ),
    (
        "nothing at all",
        |sent, _| sent.inner(&[]),
        UNEXPECTED_MESSAGE,
    ),
    (
        "nothing but padding",
        |sent, _| sent.inner(&[0; 300]),
        UNEXPECTED_MESSAGE,
    ),
    (
        "2^14 + 1 of content",
        |sent, _| sent.data(&[1; CONTENT_BYTES_MAX + 1]),
        RECORD_OVERFLOW,
    ),
    (
        "2^14 of content and padding",
        |sent, _| sent.record(DATA, &[1; CONTENT_BYTES_MAX], 1),
        RECORD_OVERFLOW,
    ),
    (
        "an encrypted change_cipher_spec",
        |sent, _| sent.record(20, &[1], 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "an encrypted unknown type",
        |sent, _| sent.record(99, b"x", 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "an empty handshake record",
        |sent, _| sent.record(HANDSHAKE, &[], 5),
        UNEXPECTED_MESSAGE,
    ),
    (
        "an empty alert",
        |sent, _| sent.record(ALERT, &[], 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "half an alert",
        |sent, _| sent.record(ALERT, &[2], 0),
        DECODE_ERROR,
    ),
    (
        "two alerts in one record",
        |sent, _| sent.record(ALERT, &[1, 0, 1, 0], 0),
        DECODE_ERROR,
    ),
    (
        "a KeyUpdate with 2",
        |sent, _| sent.record(HANDSHAKE, &[24, 0, 0, 1, 2], 0),
        ILLEGAL_PARAMETER,
    ),
    (
        "a KeyUpdate of two bytes",
        |sent, _| sent.record(HANDSHAKE, &[24, 0, 0, 2, 0, 0], 0),
        DECODE_ERROR,
    ),
    (
        "a KeyUpdate that claims a lot",
        |sent, _| sent.record(HANDSHAKE, &[24, 0xff, 0xff, 0xff], 0),
        DECODE_ERROR,
    ),
    (
        "two KeyUpdates in one record",
        |sent, _| sent.record(HANDSHAKE, &key_update(false).repeat(2), 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "data under the old key",
        |sent, _| {
            [
                sent.record(HANDSHAKE, &key_update(false), 0),
                sent.data(b"old"),
            ]
            .concat()
        },
        BAD_RECORD_MAC,
    ),
    (
        "data between two parts of a KeyUpdate",
        |sent, _| {
            [
                sent.record(HANDSHAKE, &[24, 0, 0], 0),
                sent.data(b"between"),
            ]
            .concat()
        },
        UNEXPECTED_MESSAGE,
    ),
    (
        "a close_notify between two parts of a KeyUpdate",
        |sent, _| [sent.record(HANDSHAKE, &[24], 0), sent.close_notify()].concat(),
        UNEXPECTED_MESSAGE,
    ),
    (
        "a ClientHello",
        |sent, _| sent.record(HANDSHAKE, &[1, 0, 0, 40], 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "a Finished",
        |sent, _| sent.record(HANDSHAKE, &[20, 0, 0, 32], 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "33 KeyUpdates and no data",
        |sent, _| (0..33).flat_map(|_| sent.key_update(false)).collect(),
        UNEXPECTED_MESSAGE,
    ),
    (
        "33 records without content",
        |sent, _| {
            (0..33)
                .flat_map(|length| sent.record(DATA, &[], length))
                .collect()
        },
        UNEXPECTED_MESSAGE,
    ),
    ("a record again", |_, good| good.to_vec(), BAD_RECORD_MAC),
    (
        "a record before its time",
        |sent, _| {
            let late = sent.data(b"late");
            [sent.data(b"early"), late].concat()
        },
        BAD_RECORD_MAC,
    ),
    (
        "a record that lacks its last byte",
        |sent, _| {
            let mut cut = sent.data(b"cut");
            cut.pop();
            [cut, sent.data(b"whole")].concat()
        },
        BAD_RECORD_MAC,
    ),
];

/// What a client alone must not send.
const FROM_A_CLIENT: &[Case] = &[(
    "a ticket",
    |sent, _| sent.record(HANDSHAKE, &[&[4, 0, 0, 20][..], &[1; 20]].concat(), 0),
    UNEXPECTED_MESSAGE,
)];

/// What a server alone must not send.
const FROM_A_SERVER: &[Case] = &[
    (
        "a CertificateRequest",
        |sent, _| sent.record(HANDSHAKE, &[13, 0, 0, 3, 0, 0, 0], 0),
        UNEXPECTED_MESSAGE,
    ),
    (
        "a ticket that is none",
        |sent, _| sent.record(HANDSHAKE, &[4, 0, 0, 3, 1, 2, 3], 0),
        DECODE_ERROR,
    ),
    (
        "a ticket of 1 MiB",
        |sent, _| sent.record(HANDSHAKE, &[4, 0x10, 0, 0], 0),
        DECODE_ERROR,
    ),
];

/// A bit changed in byte `at` of a record with 40 bytes of data, and the alert for it. As much follows as a changed length may
/// ask for.
fn changed(sent: &mut Direction, at: usize) -> (Vec<u8>, u8) {
    let mut record = sent.data(&[b'c'; 40]);
    record[at] ^= 1 << (at % 8);
    let claimed_bytes = usize::from(u16::from_be_bytes([record[3], record[4]]));
    let alert = match at {
        0 => UNEXPECTED_MESSAGE,
        _ if claimed_bytes > CONTENT_BYTES_MAX + 256 => RECORD_OVERFLOW,
        _ => BAD_RECORD_MAC,
    };
    record.extend(sent.data(&[b'd'; CONTENT_BYTES_MAX]));
    (record, alert)
}

/// Header, data, type and tag of that record.
const CHANGED_BYTES: usize = 5 + 40 + 1 + 16;

/// A gateway between clients and backends whose records are made here.
pub struct Between {
    pub workspace: Workspace,
    pub backend: WireBackend,
    pub gateway: Gateway,
}

impl Between {
    /// With one suite on both sides.
    fn start(suite: &str) -> Between {
        Between::with(&format!("[tls]\ncipher_suites = [\"{suite}\"]"))
    }

    /// With further tables.
    pub fn with(tables: &str) -> Between {
        let workspace = Workspace::new();
        let request = Request::server("backend.test").dns("backend.test");
        let certificate = workspace.gateways.issue("backend", request);
        let own = Request::client("spiffe://example.test/gateway/edge-1");
        let own = workspace.agents.issue("own", own);
        let backend = WireBackend::start(&certificate, &workspace.agents.certificate());
        let tls = backend_tls(&workspace.gateways.certificate(), &own);
        let gateway = workspace
            .setup()
            .tables(tables)
            .route("edge", "", &[backend.address()], &tls)
            .start();
        Between {
            workspace,
            backend,
            gateway,
        }
    }

    /// Both ends of a new connection, over which a byte has gone each way.
    fn connect(&self) -> (Wire, Wire) {
        let mut client = Wire::connect(&self.workspace.client(), self.gateway.address());
        let mut backend = self.backend.accept();
        client.send_data(b"?");
        backend.expect_data(b"?");
        backend.send_data(b"!");
        client.expect_data(b"!");
        (client, backend)
    }
}

/// `liar` sends a good record, and behind it something else: it hears the alert, and the other side gets the good record and
/// then a reset.
fn assert_ends(
    what: &str,
    (mut liar, mut other): (Wire, Wire),
    make: impl FnOnce(&mut Direction, &[u8]) -> (Vec<u8>, u8),
) {
    let good = liar.sent.data(b"good");
    liar.send(&good);
    other.expect_data(b"good");
    let (bad, alert) = make(&mut liar.sent, &good);
    liar.send(&bad);
    let told = [Heard::Alert(alert), Heard::End(Ending::Finished)];
    assert_eq!(liar.rest(), told, "{what}");
    drop(liar);
    assert_eq!(other.rest(), [Heard::End(Ending::Reset)], "{what}");
}

#[test]
fn a_bit_changed_anywhere_in_a_clients_record_ends_the_connection_and_no_byte_of_it_gets_through() {
    for suite in SUITES {
        let between = Between::start(suite);
        for at in 0..CHANGED_BYTES {
            let what = format!("{suite}, byte {at}");
            assert_ends(&what, between.connect(), |sent, _| changed(sent, at));
        }
        assert_ended(&between, "client_protocol", CHANGED_BYTES);
    }
}

#[test]
fn a_bit_changed_anywhere_in_a_backends_record_ends_the_connection_and_no_byte_of_it_gets_through()
{
    for suite in SUITES {
        let between = Between::start(suite);
        for at in 0..CHANGED_BYTES {
            let (client, backend) = between.connect();
            let what = format!("{suite}, byte {at}");
            assert_ends(&what, (backend, client), |sent, _| changed(sent, at));
        }
        assert_ended(&between, "backend_protocol", CHANGED_BYTES);
    }
}

fn assert_ended(between: &Between, reason: &str, count: usize) {
    let labels = [("listener", "edge"), ("reason", reason)];
    let ended = "portcullis_connections_ended_total";
    between.gateway.wait_for(ended, &labels, count as u64);
}

#[test]
fn every_malformed_record_of_a_client_is_answered_with_its_alert_and_nothing_of_it_gets_through() {
    let between = Between::start(SUITES[0]);
    let cases = [MALFORMED, FROM_A_CLIENT].concat();
    for (what, make, alert) in &cases {
        assert_ends(what, between.connect(), |sent, good| {
            (make(sent, good), *alert)
        });
    }
    assert_ended(&between, "client_protocol", cases.len());
}

#[test]
fn every_malformed_record_of_a_backend_is_answered_with_its_alert_and_nothing_of_it_gets_through() {
    let between = Between::start(SUITES[0]);
    let cases = [MALFORMED, FROM_A_SERVER].concat();
    for (what, make, alert) in &cases {
        let (client, backend) = between.connect();
        assert_ends(what, (backend, client), |sent, good| {
            (make(sent, good), *alert)
        });
    }
    assert_ended(&between, "backend_protocol", cases.len());
}

#[test]
fn an_alert_is_heard_although_much_is_sent_behind_what_it_is_for() {
    let between = Between::start(SUITES[0]);
    for _ in 0..5 {
        assert_ends("a long tail", between.connect(), |sent, _| {
            let (mut bad, alert) = changed(sent, 20);
            bad.extend((0..10).flat_map(|_| sent.data(&[0; CONTENT_BYTES_MAX])));
            (bad, alert)
        });
    }
}

#[test]
fn who_hears_an_alert_and_does_not_go_is_not_waited_for() {
    let between = Between::start(SUITES[0]);
    for is_backend in [false, true] {
        let (client, backend) = between.connect();
        let (mut liar, mut other) = match is_backend {
            true => (backend, client),
            false => (client, backend),
        };
        liar.send(b"no record");
        assert_eq!(other.rest(), [Heard::End(Ending::Reset)]);
        assert_eq!(liar.hear(), Heard::Alert(UNEXPECTED_MESSAGE));
    }
}

#[test]
fn a_record_that_is_cut_short_is_no_end_and_nothing_of_it_gets_through() {
    let between = Between::start(SUITES[0]);
    for is_backend in [false, true] {
        // Nothing of the record, parts of the header and of the body, all but the last byte.
        for length in [0, 1, 4, 5, 20, CHANGED_BYTES - 1] {
            let (client, backend) = between.connect();
            let (mut liar, mut other) = match is_backend {
                true => (backend, client),
                false => (client, backend),
            };
            liar.send_data(b"good");
            other.expect_data(b"good");
            let record = liar.sent.data(&[b'c'; 40]);
            liar.send(&record[..length]);
            liar.finish();
            let cut = [Heard::End(Ending::Reset)];
            assert_eq!(other.rest(), cut, "{length} bytes, {is_backend}");
            assert_eq!(liar.rest(), cut, "{length} bytes, {is_backend}");
        }
    }
    assert_ended(&between, "client_truncated", 6);
    assert_ended(&between, "backend_truncated", 6);
}

#[test]
fn an_alert_of_a_peer_ends_the_connection_without_an_answer_and_is_no_end_for_the_other_side() {
    let between = Between::start(SUITES[0]);
    for (level, description) in [(2, 80), (1, 80), (2, 20), (77, 200)] {
        for is_backend in [false, true] {
            let (client, backend) = between.connect();
            let (mut peer, mut other) = match is_backend {
                true => (backend, client),
                false => (client, backend),
            };
            let alert = peer.sent.record(ALERT, &[level, description], 0);
            peer.send(&alert);
            assert_eq!(other.rest(), [Heard::End(Ending::Reset)]);
            let rest = peer.rest();
            assert!(matches!(rest[..], [Heard::End(_)]), "{rest:?}");
        }
    }
}

#[test]
fn a_change_of_keys_that_is_asked_for_comes_before_our_next_data_once_and_not_earlier() {
    let between = Between::start(SUITES[0]);
    for backend_asks in [false, true] {
        let (client, backend) = between.connect();
        let (mut asking, mut other) = match backend_asks {
            true => (backend, client),
            false => (client, backend),
        };
        for _ in 0..3 {
            let update = asking.sent.key_update(true);
            asking.send(&update);
        }
        // It is at the other side once this is there; RFC 8446 section 4.6.3 gives us until our next data.
        asking.send_data(b"under the fourth key");
        other.expect_data(b"under the fourth key");
        other.send_data(b"answer");
        assert_eq!(asking.hear(), Heard::KeyUpdate(false), "one for all three");
        assert_eq!(asking.hear(), Heard::Data(b"answer".to_vec()));
        let update = asking.sent.key_update(false);
        asking.send(&update);
        asking.send_data(b"more");
        other.expect_data(b"more");
        other.send_data(b"another");
        assert_eq!(asking.hear(), Heard::Data(b"another".to_vec()));
    }
}

#[test]
fn changes_of_keys_that_are_asked_for_while_we_cannot_send_pile_up_nowhere() {
    const CHANGES: usize = 500;
    // More than the buffers on the way hold.
    const ANSWER_RECORDS: usize = 3000;
    let between = Between::start(SUITES[0]);
    let (mut client, mut backend) = between.connect();
    let mut answer: Vec<u8> = (0..ANSWER_RECORDS)
        .flat_map(|_| backend.sent.data(&[7; CONTENT_BYTES_MAX]))
        .collect();
    answer.extend(backend.sent.close_notify());
    let mut socket = backend.socket().try_clone().unwrap();
    let answering = thread::spawn(move || socket.write_all(&answer).unwrap());
    // Nothing of the answer is read meanwhile.
    for _ in 0..CHANGES {
        let update = client.sent.key_update(true);
        client.send(&update);
        client.send_data(b"x");
    }
    backend.expect_data(&[b'x'; CHANGES]);
    assert!(!answering.is_finished(), "the answer waits for the client");
    let (mut received, mut changes) = (0, 0);
    let end = loop {
        match client.hear() {
            Heard::Data(data) => {
                assert!(data.iter().all(|byte| *byte == 7));
                received += data.len();
            }
            Heard::KeyUpdate(false) => changes += 1,
            end => break end,
        }
    };
    answering.join().unwrap();
    let expected = (Heard::CloseNotify, ANSWER_RECORDS * CONTENT_BYTES_MAX);
    assert_eq!((end, received), expected);
    // Those that came while a write was under way are answered by one.
    assert!((1..CHANGES).contains(&changes), "{changes} changes");
}

#[test]
fn padding_and_records_without_content_are_taken_off_and_what_is_left_arrives() {
    let between = Between::start(SUITES[2]);
    let (mut client, mut backend) = between.connect();
    for round in 0..40_u8 {
        for _ in 0..2 {
            let (from, to) = (&mut client, &mut backend);
            let content = vec![round; usize::from(round)];
            let mut records = from.sent.record(DATA, b"", usize::from(round));
            records.extend(from.sent.record(DATA, &content, 300 * usize::from(round)));
            records.extend(from.sent.record(DATA, b".", CONTENT_BYTES_MAX - 1));
            from.send(&records);
            to.expect_data(&[&content[..], b"."].concat());
            std::mem::swap(&mut client, &mut backend);
        }
    }
}

#[test]
fn tickets_of_a_backend_between_its_data_are_heard_and_not_passed_on() {
    let between = Between::start(SUITES[0]);
    let (mut client, mut backend) = between.connect();
    // Lifetime, age_add, a nonce of one byte, a ticket of 32, no extensions; in parts of 10 bytes.
    let body = [
        &[0, 0, 1, 0, 1, 2, 3, 4, 1, 9, 0, 32][..],
        &[7; 32],
        &[0, 0],
    ]
    .concat();
    let message = [&[4, 0, 0, body.len() as u8], &body[..]].concat();
    for round in 0..20 {
        backend.send_data(&[round]);
        for part in message.chunks(10) {
            let record = backend.sent.record(HANDSHAKE, part, 0);
            backend.send(&record);
        }
        client.expect_data(&[round]);
    }
    client.send_data(b"still here");
    backend.expect_data(b"still here");
}

#[test]
fn who_changes_keys_a_thousand_times_a_minute_is_refused() {
    let between = Between::start(SUITES[0]);
    for from_backend in [false, true] {
        let (client, backend) = between.connect();
        let (mut restless, _other) = match from_backend {
            true => (backend, client),
            false => (client, backend),
        };
        for _ in 0..1010 {
            let update = restless.sent.key_update(false);
            restless.send(&update);
            restless.send_data(b"x");
        }
        assert_eq!(restless.hear(), Heard::Alert(UNEXPECTED_MESSAGE));
    }
}

#[test]
fn each_side_may_end_first_change_its_keys_and_go_on_hearing() {
    let between = Between::start(SUITES[1]);
    for backend_is_first in [false, true] {
        let (client, backend) = between.connect();
        let (mut first, mut second) = match backend_is_first {
            true => (backend, client),
            false => (client, backend),
        };
        // What stands behind a close_notify counts for nothing, be it authentic or not.
        let mut last = first.sent.data(b"the last");
        last.extend(first.sent.close_notify());
        last.extend(first.sent.data(b"too late"));
        last.extend(b"no record");
        first.send(&last);
        second.expect_data(b"the last");
        assert_eq!(second.hear(), Heard::CloseNotify);
        for round in 0..50_u8 {
            let update = second.sent.key_update(true);
            second.send(&update);
            second.send_data(&[round; 100]);
            // Nobody answers for a direction that is closed.
            first.expect_data(&[round; 100]);
        }
        let close = second.sent.close_notify();
        second.send(&close);
        assert_eq!(first.hear(), Heard::CloseNotify);
    }
    assert_ended(&between, "finished", 2);
}
