//! Whatever the records and the reads they come in look like: the plaintext is what was sealed, and everything else is
//! heard in its place.

use gateway_core::record::{
    CONTENT_BYTES_MAX, KeyUpdateRequest, OVERHEAD_BYTES, Opener, Peer, Sealer,
};
use proptest::prelude::*;

use super::support::{
    ALERT, DATA, Event, Forge, HANDSHAKE, Read, Toy, key_update, opener_of_a_client, pieces, read,
    real_keys, ticket, toy_key,
};

#[derive(Debug, Clone)]
enum Item {
    Data(Vec<u8>, usize),
    /// In parts of this length, each padded.
    Ticket(Vec<u8>, usize, usize),
    /// So many tickets in one record.
    Tickets(u8),
    KeyUpdate(bool, usize),
    UserCanceled,
}

fn item() -> impl Strategy<Value = Item> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        4 => (bytes(600), 0..40usize).prop_map(|(bytes, padding)| Item::Data(bytes, padding)),
        1 => (bytes(300), 1..50usize, 0..9usize).prop_map(|(mut bytes, part, padding)| {
            bytes.push(1);
            Item::Ticket(bytes, part, padding)
        }),
        1 => (1..5u8).prop_map(Item::Tickets),
        1 => (any::<bool>(), 1..6usize).prop_map(|(asks, part)| Item::KeyUpdate(asks, part)),
        1 => Just(Item::UserCanceled),
    ]
}

/// The records of `items` and of a close_notify, and what should come of them.
fn sealed(items: &[Item]) -> (Vec<u8>, Read) {
    let mut forge = Forge::new(0);
    let mut generation = 0;
    let mut stream = Vec::new();
    let mut expected = Read::default();
    for item in items {
        let position = expected.plaintext.len();
        match item {
            Item::Data(bytes, padding) => {
                stream.extend(forge.record(bytes, DATA, *padding));
                expected.plaintext.extend_from_slice(bytes);
            }
            Item::Ticket(payload, part, padding) => {
                for part in ticket(payload).chunks(*part) {
                    stream.extend(forge.record(part, HANDSHAKE, *padding));
                }
                let event = Event::Ticket(payload.clone());
                expected.events.push((position, event));
            }
            Item::Tickets(count) => {
                let payload = vec![*count; 20];
                let messages = ticket(&payload).repeat(usize::from(*count));
                stream.extend(forge.record(&messages, HANDSHAKE, 0));
                let event = (position, Event::Ticket(payload));
                let events = std::iter::repeat_n(event, usize::from(*count));
                expected.events.extend(events);
            }
            Item::KeyUpdate(asks, part) => {
                for part in key_update(u8::from(*asks)).chunks(*part) {
                    stream.extend(forge.record(part, HANDSHAKE, 0));
                }
                generation += 1;
                forge = Forge::new(generation);
                let request = match asks {
                    true => KeyUpdateRequest::Requested,
                    false => KeyUpdateRequest::NotRequested,
                };
                expected.events.push((position, Event::KeyUpdate(request)));
            }
            Item::UserCanceled => stream.extend(forge.record(&[1, 90], ALERT, 0)),
        }
    }
    stream.extend(forge.record(&[1, 0], ALERT, 3));
    let position = expected.plaintext.len();
    expected.events.push((position, Event::Closed));
    (stream, expected)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_in_any_pieces_are_read_as_they_were_meant(
        items in proptest::collection::vec(item(), 0..24),
        lengths in proptest::collection::vec(1..1500usize, 1..8),
    ) {
        let (stream, expected) = sealed(&items);
        let mut opener = Opener::new(toy_key(0), Peer::Server);
        prop_assert_eq!(read(&mut opener, pieces(&stream, &lengths), toy_key), expected);
    }

    #[test]
    fn what_is_sealed_in_place_opens_as_it_was(
        plaintext in proptest::collection::vec(any::<u8>(), 0..5000),
        room_in_front in 0..40usize,
        content_bytes_max in 100..1500usize,
        lengths in proptest::collection::vec(1..3000usize, 1..4),
    ) {
        let mut sealer = Sealer::new(toy_key(0));
        let sealed_bytes = Sealer::<Toy>::sealed_bytes(plaintext.len(), content_bytes_max);
        let mut buffer = vec![0xaa; room_in_front + sealed_bytes];
        let range = room_in_front..room_in_front + plaintext.len();
        buffer[range.clone()].copy_from_slice(&plaintext);
        let records = sealer.seal(&mut buffer, range, content_bytes_max).unwrap();
        prop_assert_eq!(records.len(), sealed_bytes);
        prop_assert!(buffer[..records.start].iter().all(|byte| *byte == 0xaa), "too far to the front");
        let read = read(&mut opener_of_a_client(), pieces(&buffer[records], &lengths), toy_key);
        prop_assert_eq!(read, Read { plaintext, ..Read::default() });
    }
}

#[test]
fn every_suite_opens_what_it_seals_with_records_of_any_size_in_one_buffer() {
    for (sealing, opening) in real_keys().into_iter().zip(real_keys()) {
        let mut sealer = Sealer::new(sealing);
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        let sizes = [1, 16, 333, 1400, CONTENT_BYTES_MAX];
        for (round, size) in sizes.into_iter().enumerate() {
            let plaintext: Vec<u8> = (0..3 * size + 7).map(|at| (at + round) as u8).collect();
            let mut buffer = vec![0; plaintext.len() + (4 + 7) * OVERHEAD_BYTES];
            buffer[5..5 + plaintext.len()].copy_from_slice(&plaintext);
            let end = 5 + plaintext.len();
            let records = sealer.seal(&mut buffer, 5..end, size).unwrap();
            assert_eq!(records.start, 0);
            stream.extend_from_slice(&buffer[records]);
            expected.extend(plaintext);
        }
        let mut opener = Opener::new(opening, Peer::Client);
        let read = read(&mut opener, [stream], |_| unreachable!("no KeyUpdate"));
        assert!(read.error.is_none() && read.left == 0);
        assert!(read.plaintext == expected);
    }
}

#[test]
fn our_own_short_records_are_what_the_peer_reads() {
    let mut sealer = Sealer::new(toy_key(0));
    let mut stream = sealer
        .key_update(KeyUpdateRequest::Requested)
        .unwrap()
        .to_vec();
    sealer.rekey(toy_key(1));
    let mut buffer = b"-----x________________________".to_vec();
    let records = sealer.seal(&mut buffer, 5..6, 1).unwrap();
    stream.extend_from_slice(&buffer[records]);
    stream.extend(sealer.close_notify().unwrap());
    let expected = Read {
        plaintext: b"x".to_vec(),
        events: vec![
            (0, Event::KeyUpdate(KeyUpdateRequest::Requested)),
            (1, Event::Closed),
        ],
        ..Read::default()
    };
    assert_eq!(read(&mut opener_of_a_client(), [stream], toy_key), expected);
}

#[test]
fn what_follows_a_close_notify_counts_for_nothing() {
    let mut forge = Forge::new(0);
    let mut stream = forge.record(b"data", DATA, 0);
    stream.extend(forge.record(&[1, 0], ALERT, 0));
    stream.extend(forge.record(b"more", DATA, 0));
    stream.extend(b"not even a record");
    for length in 1..stream.len() {
        let mut opener = opener_of_a_client();
        let read = read(&mut opener, pieces(&stream, &[length]), toy_key);
        assert_eq!(read.plaintext, b"data");
        assert_eq!(read.events, [(4, Event::Closed)]);
        assert_eq!((read.error, read.left), (None, 0));
    }
}
