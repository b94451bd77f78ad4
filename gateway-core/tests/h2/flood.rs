//! Floods: each kind ends its connection by ENHANCE_YOUR_CALM, and what real clients do does not.

use gateway_core::http::h2::{ErrorCode, StreamId, Violation};
use std::time::Duration;

use crate::support::*;

/// Repeats frames until the connection fails, at most so often.
fn repeat(
    peer: &mut Peer,
    times: u32,
    mut frames: impl FnMut(u32) -> Vec<u8>,
) -> Option<Violation> {
    for time in 0..times {
        for told in peer.say(&frames(time)) {
            if let Told::Failed(violation) = told {
                let goaway = peer.hear().pop();
                let is_calm = matches!(goaway, Some(Answer::Goaway(_, ErrorCode::EnhanceYourCalm)));
                assert!(is_calm, "{goaway:?}");
                return Some(violation);
            }
        }
        // It reads what it is sent.
        peer.hear();
    }
    None
}

#[test]
fn each_flood_ends_the_connection() {
    let open = || {
        let mut peer = Peer::client();
        peer.say(&request(1, END_HEADERS));
        peer
    };
    let large = [("a", "x".repeat(20_000))];
    let large: Vec<(&str, &str)> = large
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    let large = block(&large);
    let (first, rest) = large.split_at(16_000);
    let rapid = |time| {
        [
            request(2 * time + 3, WHOLE),
            rst_stream(2 * time + 3, ErrorCode::Cancel),
        ]
        .concat()
    };
    assert_eq!(
        repeat(&mut open(), 300, rapid),
        Some(Violation::RapidResetFlood)
    );
    let forced = |time| [request(2 * time + 3, WHOLE), window_update(2 * time + 3, 0)].concat();
    assert_eq!(
        repeat(&mut open(), 300, forced),
        Some(Violation::ForcedResetFlood)
    );
    let crowd = |time| request(2 * time + 3, END_HEADERS);
    assert_eq!(
        repeat(&mut open(), 500, crowd),
        Some(Violation::ForcedResetFlood)
    );
    let settings = |_| frame(SETTINGS, 0, 0, b"");
    assert_eq!(
        repeat(&mut open(), 100, settings),
        Some(Violation::SettingsFlood)
    );
    let pings = |_| frame(PING, 0, 0, &[0; 8]);
    assert_eq!(
        repeat(&mut open(), 1_000, pings),
        Some(Violation::PingFlood)
    );
    let empty = |_| data(1, 0, 0);
    assert_eq!(
        repeat(&mut open(), 300, empty),
        Some(Violation::EmptyDataFlood)
    );
    let credit = |_| window_update(1, 1);
    assert_eq!(
        repeat(&mut open(), 3_000, credit),
        Some(Violation::WindowUpdateFlood)
    );
    let idle = |_| frame(PRIORITY, 0, 1, &[0; 5]);
    assert_eq!(repeat(&mut open(), 3_000, idle), Some(Violation::IdleFlood));
    let lists = |time| {
        let begin = frame(HEADERS, END_STREAM, 2 * time + 3, first);
        [begin, frame(CONTINUATION, END_HEADERS, 2 * time + 3, rest)].concat()
    };
    assert_eq!(
        repeat(&mut open(), 100, lists),
        Some(Violation::HeaderListFlood)
    );
}

#[test]
fn tiny_data_is_a_flood_only_in_masses() {
    let mut peer = Peer::client();
    peer.say(&request(1, END_HEADERS));
    let tiny = |peer: &mut Peer, times| {
        for _ in 0..times {
            let told = peer.say(&data(1, 0, 1));
            if let [Told::Failed(violation)] = told[..] {
                return Some(violation);
            }
            peer.release(1, 1);
            peer.hear();
        }
        None
    };
    assert_eq!(tiny(&mut peer, 20_001), None);
    peer.wait(Duration::from_secs(1));
    assert_eq!(tiny(&mut peer, 10_000), None);
    assert_eq!(tiny(&mut peer, 1), Some(Violation::TinyDataFlood));
}

#[test]
fn one_that_asks_and_does_not_read_is_gone() {
    let mut peer = Peer::client();
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(400);
    assert_eq!(peer.say(&pings), []);
    peer.wait(Duration::from_secs(3_600));
    // 17 bytes each.
    let told = peer.say(&frame(PING, 0, 0, &[0; 8]).repeat(600));
    assert_eq!(told, [Told::Failed(Violation::OutputFlood)]);
}

#[test]
fn deadlines_that_pass_are_no_flood() {
    let mut peer = Peer::client();
    for time in 0..1_000 {
        let stream = 2 * time + 1;
        peer.say(&request(stream, WHOLE));
        peer.wait(Duration::from_secs(1));
        let told = peer.say(&rst_stream(stream, ErrorCode::Cancel));
        assert_eq!(told, [Told::Reset(stream, ErrorCode::Cancel, 0)]);
    }
    // A hundred at once, again and again.
    for round in 10..30 {
        let streams = (0..100).map(|step| 2 * (100 * round + step) + 1);
        streams
            .clone()
            .for_each(|stream| drop(peer.say(&request(stream, WHOLE))));
        peer.wait(Duration::from_secs(5));
        for stream in streams {
            let told = peer.say(&rst_stream(stream, ErrorCode::Cancel));
            assert_eq!(told, [Told::Reset(stream, ErrorCode::Cancel, 0)]);
        }
    }
}

#[test]
fn pings_that_measure_while_data_is_read_are_no_flood() {
    let mut peer = Peer::client();
    peer.say(&request(1, WHOLE));
    peer.respond(1, false);
    for _ in 0..10_000 {
        assert_eq!(peer.send(1, 10, false), 10);
        let said = [
            frame(PING, 0, 0, &[0; 8]),
            window_update(0, 10),
            window_update(1, 10),
        ];
        assert_eq!(peer.say(&said.concat()), []);
        peer.hear();
    }
}

#[test]
fn short_messages_are_no_flood_however_many_requests_there_are() {
    let mut client = Peer::client();
    let mut backend = Peer::backend();
    let response = |stream| {
        let begin = frame(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")]));
        let end = frame(HEADERS, WHOLE, stream, &block(&[("grpc-status", "0")]));
        [begin, data(stream, 0, 5), end].concat()
    };
    for number in 0..50_000 {
        let stream = 2 * number + 1;
        let said = [
            request(stream, END_HEADERS),
            data(stream, 0, 5),
            data(stream, END_STREAM, 0),
        ];
        assert_eq!(client.say(&said.concat()).len(), 3);
        client.release(stream, 5);
        client.respond(stream, true);
        client.hear();
        if number > 0 {
            backend.connection.open(stream, backend.now).unwrap();
        }
        assert_eq!(backend.say(&response(stream)).len(), 3);
        backend.release(stream, 5);
        let _ = backend
            .connection
            .reset(StreamId::new(stream), ErrorCode::NoError);
        backend.hear();
    }
}

#[test]
fn what_comes_late_from_a_backend_is_not_its_fault() {
    let mut backend = Peer::backend();
    for number in 1..5_000 {
        let stream = backend.connection.open(number, backend.now).unwrap();
        assert_eq!(backend.connection.reset(stream, ErrorCode::Cancel), 0);
        let late = frame(
            HEADERS,
            WHOLE,
            stream.number(),
            &block(&[(":status", "200")]),
        );
        assert_eq!(backend.say(&[late, data(3, 0, 0)].concat()), []);
        backend.hear();
    }
}
