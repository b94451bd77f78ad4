//! Every malformed case of RFC 8446 sections 5 and 6 after the handshake, each with its alert, in any pieces.

use gateway_core::alert::Alert;
use gateway_core::record::{
    CONTENT_BYTES_MAX, EMPTY_RECORDS_MAX, KEY_UPDATES_MAX, MESSAGE_BYTES_MAX, OpenError, Opener,
    Peer,
};

use super::support::{
    ALERT, DATA, Forge, HANDSHAKE, Toy, key_update, pieces, read, ticket, toy_key,
};

const UNEXPECTED_MESSAGE: Option<Alert> = Some(Alert(10));
const BAD_RECORD_MAC: Option<Alert> = Some(Alert(20));
const RECORD_OVERFLOW: Option<Alert> = Some(Alert(22));
const ILLEGAL_PARAMETER: Option<Alert> = Some(Alert(47));
const DECODE_ERROR: Option<Alert> = Some(Alert(50));

type Make = fn(&mut Forge<Toy>) -> Vec<u8>;

/// What comes behind a good record, from a client, and the error it is.
const FROM_A_CLIENT: &[(&str, Make, OpenError)] = &[
    (
        "a plaintext alert",
        |_| vec![21, 3, 3, 0, 2, 2, 40],
        OpenError::UnexpectedType,
    ),
    (
        "a plaintext handshake record",
        |_| vec![22, 3, 3, 0, 1, 0],
        OpenError::UnexpectedType,
    ),
    (
        "a change_cipher_spec after Finished",
        |_| vec![20, 3, 3, 0, 1, 1],
        OpenError::UnexpectedType,
    ),
    ("an unknown type", |_| vec![99], OpenError::UnexpectedType),
    (
        "a heartbeat",
        |_| vec![24, 3, 3, 0, 1, 0],
        OpenError::UnexpectedType,
    ),
    (
        "length 2^14 + 257",
        |_| vec![23, 3, 3, 0x41, 0x01],
        OpenError::Overflow,
    ),
    (
        "the greatest length",
        |_| vec![23, 3, 3, 0xff, 0xff],
        OpenError::Overflow,
    ),
    (
        "no room for a tag",
        |_| vec![23, 3, 3, 0, 15],
        OpenError::Forged,
    ),
    (
        "nothing at all",
        |_| vec![23, 3, 3, 0, 0],
        OpenError::Forged,
    ),
    (
        "nothing but a tag",
        |forge| forge.inner(Vec::new()),
        OpenError::NoContentType,
    ),
    (
        "nothing but padding",
        |forge| forge.inner(vec![0; 40]),
        OpenError::NoContentType,
    ),
    (
        "2^14 + 1 of content",
        |forge| forge.record(&vec![1; CONTENT_BYTES_MAX + 1], DATA, 0),
        OpenError::Overflow,
    ),
    (
        "2^14 of content and padding",
        |forge| forge.record(&vec![1; CONTENT_BYTES_MAX], DATA, 1),
        OpenError::Overflow,
    ),
    (
        "2^14 + 2 of padding and no more",
        |forge| forge.inner(vec![0; CONTENT_BYTES_MAX + 2]),
        OpenError::Overflow,
    ),
    (
        "an encrypted change_cipher_spec",
        |forge| forge.record(&[1], 20, 0),
        OpenError::UnexpectedType,
    ),
    (
        "an encrypted unknown type",
        |forge| forge.record(&[1], 99, 0),
        OpenError::UnexpectedType,
    ),
    (
        "an empty handshake record",
        |forge| forge.record(&[], HANDSHAKE, 0),
        OpenError::Empty,
    ),
    (
        "an empty padded handshake record",
        |forge| forge.record(&[], HANDSHAKE, 9),
        OpenError::Empty,
    ),
    (
        "an empty alert",
        |forge| forge.record(&[], ALERT, 0),
        OpenError::Empty,
    ),
    (
        "half an alert",
        |forge| forge.record(&[2], ALERT, 0),
        OpenError::MalformedAlert,
    ),
    (
        "two alerts in one record",
        |forge| forge.record(&[1, 0, 1, 0], ALERT, 0),
        OpenError::MalformedAlert,
    ),
    (
        "a KeyUpdate of no length",
        |forge| forge.record(&[24, 0, 0, 0], HANDSHAKE, 0),
        OpenError::MalformedMessage,
    ),
    (
        "a KeyUpdate of two bytes",
        |forge| forge.record(&[24, 0, 0, 2, 0, 0], HANDSHAKE, 0),
        OpenError::MalformedMessage,
    ),
    (
        "a KeyUpdate that claims a lot",
        |forge| forge.record(&[24, 0xff, 0xff, 0xff], HANDSHAKE, 0),
        OpenError::MalformedMessage,
    ),
    (
        "a KeyUpdate with 2",
        |forge| forge.record(&key_update(2), HANDSHAKE, 0),
        OpenError::IllegalKeyUpdate,
    ),
    (
        "two KeyUpdates in one record",
        |forge| forge.record(&key_update(0).repeat(2), HANDSHAKE, 0),
        OpenError::NotAligned,
    ),
    (
        "a KeyUpdate and a byte",
        |forge| forge.record(&[24, 0, 0, 1, 0, 24], HANDSHAKE, 0),
        OpenError::NotAligned,
    ),
    (
        "a ticket from a client",
        |forge| forge.record(&ticket(&[1; 20]), HANDSHAKE, 0),
        OpenError::UnexpectedMessage,
    ),
    (
        "a ClientHello",
        |forge| forge.record(&[1, 0, 0, 40], HANDSHAKE, 0),
        OpenError::UnexpectedMessage,
    ),
    (
        "a Certificate",
        |forge| forge.record(&[11], HANDSHAKE, 0),
        OpenError::UnexpectedMessage,
    ),
    (
        "a Finished",
        |forge| forge.record(&[20, 0, 0, 32], HANDSHAKE, 0),
        OpenError::UnexpectedMessage,
    ),
    (
        "data between two parts",
        |forge| interleaved(forge, b"x", DATA),
        OpenError::Interleaved,
    ),
    (
        "empty data between two parts",
        |forge| interleaved(forge, b"", DATA),
        OpenError::Interleaved,
    ),
    (
        "close_notify between two parts",
        |forge| interleaved(forge, &[1, 0], ALERT),
        OpenError::Interleaved,
    ),
    (
        "user_canceled between two parts",
        |forge| interleaved(forge, &[1, 90], ALERT),
        OpenError::Interleaved,
    ),
    (
        "a fatal alert",
        |forge| forge.record(&[2, 40], ALERT, 0),
        OpenError::PeerAlert(Alert(40)),
    ),
    (
        "an error that calls itself a warning",
        |forge| forge.record(&[1, 40], ALERT, 0),
        OpenError::PeerAlert(Alert(40)),
    ),
    (
        "an unknown alert of an unknown level",
        |forge| forge.record(&[77, 200], ALERT, 0),
        OpenError::PeerAlert(Alert(200)),
    ),
];

/// Behind a good record, from a server.
const FROM_A_SERVER: &[(&str, Make, OpenError)] = &[
    (
        "a CertificateRequest",
        |forge| forge.record(&[13, 0, 0, 3, 0, 0, 0], HANDSHAKE, 0),
        OpenError::UnexpectedMessage,
    ),
    (
        "a ticket beyond our bound",
        |forge| {
            let length = (MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
            forge.record(&[4, length[1], length[2], length[3]], HANDSHAKE, 0)
        },
        OpenError::MalformedMessage,
    ),
    (
        "a ticket of no length",
        |forge| forge.record(&[4, 0, 0, 0], HANDSHAKE, 0),
        OpenError::MalformedMessage,
    ),
    (
        "a ticket and half a KeyUpdate, then data",
        |forge| {
            let messages = [ticket(&[1; 20]), vec![24, 0]].concat();
            let first = forge.record(&messages, HANDSHAKE, 0);
            [first, forge.record(b"x", DATA, 0)].concat()
        },
        OpenError::Interleaved,
    ),
];

fn interleaved(forge: &mut Forge<Toy>, between: &[u8], content_type: u8) -> Vec<u8> {
    let first = forge.record(&key_update(0)[..3], HANDSHAKE, 0);
    let between = forge.record(between, content_type, 0);
    [
        first,
        between,
        forge.record(&key_update(0)[3..], HANDSHAKE, 0),
    ]
    .concat()
}

#[test]
fn every_malformed_record_is_its_error_and_yields_nothing_in_whatever_pieces_it_comes() {
    let cases = FROM_A_CLIENT.iter().map(|case| (Peer::Client, case));
    let cases = cases.chain(FROM_A_SERVER.iter().map(|case| (Peer::Server, case)));
    let mut seen = 0;
    for (peer, (what, make, error)) in cases {
        let mut forge = Forge::new(0);
        let mut stream = forge.record(b"good", DATA, 2);
        stream.extend(make(&mut forge));
        // Would be taken if the error were forgotten.
        stream.extend(forge.record(b"evil", DATA, 0));
        let lengths: &[usize] = match stream.len() {
            // Miri takes a second for each, and minutes for a long one.
            ..1000 if cfg!(miri) => &[30],
            1000.. if cfg!(miri) => &[],
            ..1000 => &[1, 2, 3, 7, 26, 30, 65536],
            _ => &[4999, 16384, 65536],
        };
        for length in lengths {
            let mut opener = Opener::new(toy_key(0), peer);
            let read = read(&mut opener, pieces(&stream, &[*length]), toy_key);
            assert_eq!(read.error, Some(*error), "{what} in pieces of {length}");
            assert_eq!(read.plaintext, b"good", "{what} in pieces of {length}");
        }
        seen += 1;
    }
    assert_eq!(seen, FROM_A_CLIENT.len() + FROM_A_SERVER.len());
}

#[test]
fn each_error_has_the_alert_that_the_standard_gives_it() {
    let alerts = [
        (OpenError::Forged, BAD_RECORD_MAC),
        (OpenError::Overflow, RECORD_OVERFLOW),
        (OpenError::UnexpectedType, UNEXPECTED_MESSAGE),
        (OpenError::NoContentType, UNEXPECTED_MESSAGE),
        (OpenError::Empty, UNEXPECTED_MESSAGE),
        (OpenError::Interleaved, UNEXPECTED_MESSAGE),
        (OpenError::UnexpectedMessage, UNEXPECTED_MESSAGE),
        (OpenError::NotAligned, UNEXPECTED_MESSAGE),
        (OpenError::TooManyKeyUpdates, UNEXPECTED_MESSAGE),
        (OpenError::TooManyEmptyRecords, UNEXPECTED_MESSAGE),
        (OpenError::MalformedMessage, DECODE_ERROR),
        (OpenError::MalformedAlert, DECODE_ERROR),
        (OpenError::IllegalKeyUpdate, ILLEGAL_PARAMETER),
        (OpenError::SequenceExhausted, Some(Alert(80))),
        (OpenError::PeerAlert(Alert(40)), None),
    ];
    for (error, alert) in alerts {
        assert_eq!(error.alert(), alert, "{error:?}");
    }
}

#[test]
fn a_fatal_alert_between_two_parts_is_heard() {
    let mut forge = Forge::new(0);
    let stream = interleaved(&mut forge, &[2, 80], ALERT);
    let mut opener = Opener::new(toy_key(0), Peer::Client);
    let read = read(&mut opener, [stream], toy_key);
    assert_eq!(read.error, Some(OpenError::PeerAlert(Alert(80))));
}

#[test]
fn the_longest_record_and_the_longest_padding_are_taken() {
    let mut forge = Forge::new(0);
    let longest = vec![7; CONTENT_BYTES_MAX];
    let mut stream = forge.record(&longest, DATA, 0);
    stream.extend(forge.record(&[], DATA, CONTENT_BYTES_MAX));
    stream.extend(forge.record(b"x", DATA, CONTENT_BYTES_MAX - 1));
    let mut opener = Opener::new(toy_key(0), Peer::Client);
    let read = read(&mut opener, [stream], toy_key);
    assert_eq!((read.error, read.left), (None, 0));
    assert!(read.plaintext == [&longest[..], b"x"].concat());
}

#[test]
fn key_updates_without_data_between_them_come_to_an_end_and_data_lets_them_go_on() {
    let mut stream = Vec::new();
    for generation in 0..3 * u64::from(KEY_UPDATES_MAX) {
        let mut forge = Forge::new(generation);
        // Data without content is no reason to go on.
        if generation == u64::from(KEY_UPDATES_MAX) {
            stream.extend(forge.record(b"x", DATA, 0));
        } else {
            stream.extend(forge.record(b"", DATA, 4));
        }
        stream.extend(forge.record(&key_update(0), HANDSHAKE, 0));
    }
    let mut opener = Opener::new(toy_key(0), Peer::Client);
    let read = read(&mut opener, [stream], toy_key);
    assert_eq!(read.events.len(), 2 * usize::from(KEY_UPDATES_MAX));
    assert_eq!(read.error, Some(OpenError::TooManyKeyUpdates));
}

#[test]
fn records_that_bring_nothing_come_to_an_end_and_data_lets_them_go_on() {
    let mut forge = Forge::new(0);
    let mut stream = Vec::new();
    let empties = usize::from(EMPTY_RECORDS_MAX);
    for index in 0..empties {
        stream.extend(match index % 2 {
            0 => forge.record(b"", DATA, index),
            _ => forge.record(&[1, 90], ALERT, 0),
        });
    }
    stream.extend(forge.record(b"x", DATA, 0));
    for index in 0..=empties {
        stream.extend(forge.record(b"", DATA, index));
    }
    stream.extend(forge.record(b"y", DATA, 0));
    let mut opener = Opener::new(toy_key(0), Peer::Client);
    let read = read(&mut opener, pieces(&stream, &[31]), toy_key);
    assert_eq!(read.plaintext, b"x");
    assert_eq!(read.error, Some(OpenError::TooManyEmptyRecords));
}

#[test]
fn tickets_are_taken_in_parts_of_one_byte_and_up_to_the_longest() {
    let payload = vec![9; 2000];
    let mut forge = Forge::new(0);
    let stream: Vec<u8> = ticket(&payload)
        .chunks(1)
        .flat_map(|part| forge.record(part, HANDSHAKE, 0))
        .collect();
    let mut opener = Opener::new(toy_key(0), Peer::Server);
    let read = read(&mut opener, pieces(&stream, &[1000]), toy_key);
    assert_eq!((read.error, read.events.len()), (None, 1));
    let longest = ticket(&vec![9; MESSAGE_BYTES_MAX]);
    let mut forge = Forge::new(0);
    let stream = longest
        .chunks(10_000)
        .flat_map(|part| forge.record(part, HANDSHAKE, 0));
    let mut opener = Opener::new(toy_key(0), Peer::Server);
    let read = super::support::read(&mut opener, [stream.collect()], toy_key);
    assert_eq!((read.error, read.events.len()), (None, 1));
}
