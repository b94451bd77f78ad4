//! Frames at random, of a peer that keeps no rule: whatever it sends, the connection stays within its bounds, and says
//! the same however the bytes are cut.

use gateway_core::http::h2::{Connection, ErrorCode, Event, PREFACE, Role, StreamId};
use gateway_core::http::message::HeaderList;
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Instant;

use crate::support::*;

/// Frames of which many are nearly right.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let stream = || prop_oneof![4 => (0_u32..6).prop_map(|step| 2 * step + 1), 1 => 0_u32..12];
    let flags = || prop_oneof![3 => prop::sample::select(&[0, 1, 4, 5][..]), 1 => any::<u8>()];
    let one = prop_oneof![
        4 => (stream(), flags()).prop_map(|(stream, flags)| request(stream, flags & 0x05)),
        4 => (stream(), flags(), 0_usize..4_000).prop_map(|(stream, flags, bytes)| data(stream, flags & 0x09, bytes)),
        2 => (stream(), 0_u32..70_000).prop_map(|(stream, credit)| window_update(stream, credit)),
        1 => stream().prop_map(|stream| rst_stream(stream, ErrorCode::Cancel)),
        1 => (1_u16..8, 0_u32..80_000).prop_map(|(name, value)| setting(name, value)),
        1 => (0_u8..12, flags(), stream(), vec(any::<u8>(), 0..20))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
    ];
    vec(one, 0..40).prop_map(|frames| frames.concat())
}

/// What a connection does about some bytes, whose owner answers every request and passes on all content.
fn play(role: Role, bytes: &[u8], piece_bytes: usize, now: Instant) -> (Vec<String>, Vec<u8>) {
    let mut connection = Connection::new(role, 1 << 14, now);
    let mut list = HeaderList::new(1 << 14);
    if role == Role::Client {
        for key in [1, 3, 5] {
            let stream = connection.open(key, now).unwrap();
            connection.send_section(stream, fields(&REQUEST), key == 3);
        }
    }
    let mut told = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        let mut piece = piece;
        while let Some(event) = connection.receive(&mut piece, &mut list, now) {
            match &event {
                Event::Request { stream, .. } => {
                    connection.own(*stream, stream.number());
                    connection.send_section(*stream, fields(&[(":status", "200")]), false);
                    let sent = connection.send_data(*stream, &[b'c'; 3_000], true);
                    assert!(sent <= 3_000);
                }
                Event::Data { key, data, .. } => {
                    // Pieces of a frame are not told.
                    connection.release(StreamId::new(*key), data.len(), now);
                    continue;
                }
                Event::Section { .. } => assert!(list.size() <= 1 << 14),
                _ => {}
            }
            told.push(format!("{event:?}"));
        }
        assert!(connection.output().len() < 90_000);
    }
    // Not in between: what waits on a stream depends on when it could have been sent.
    while connection.send_queued().is_some() {}
    (told, connection.take_output())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn frames_at_random_break_nothing_and_mean_the_same_in_pieces(
        frames in frames(),
        is_client: bool,
        piece_bytes in 1_usize..50,
    ) {
        let settings = frame(SETTINGS, 0, 0, b"");
        let (role, bytes) = match is_client {
            true => (Role::Server, [&PREFACE[..], &settings, &frames].concat()),
            false => (Role::Client, [&settings[..], &frames].concat()),
        };
        let now = Instant::now();
        let (told, output) = play(role, &bytes, usize::MAX, now);
        let (told_in_pieces, _) = play(role, &bytes, piece_bytes, now);
        prop_assert_eq!(told, told_in_pieces);
        // What is answered is frames, but for the preface of a client.
        let output = output.strip_prefix(&PREFACE[..]).unwrap_or(&output);
        answers(output);
    }

    #[test]
    fn any_bytes_break_nothing(bytes in vec(any::<u8>(), 0..300), is_client: bool) {
        let bytes = [&frame(SETTINGS, 0, 0, b"")[..], &bytes].concat();
        let now = Instant::now();
        match is_client {
            true => play(Role::Server, &[&PREFACE[..], &bytes].concat(), 7, now),
            false => play(Role::Client, &bytes, 7, now),
        };
    }
}
