//! Flow control (RFC 9113 section 5.2, 6.9) by raw frames: what is counted, what is given back, and when.

use gateway_core::http::h2::{ErrorCode, StreamId, Violation, WindowBudget};
use gateway_core::http::limits::WINDOW_SPENT;
use std::time::{Duration, Instant};

use crate::support::*;

fn open() -> Peer {
    let mut peer = Peer::client();
    peer.say(&request(1, END_HEADERS));
    peer.respond(1, false);
    assert_eq!(peer.hear(), [Answer::Headers(1, false)]);
    peer
}

#[test]
fn credit_is_given_when_content_has_been_passed_on_and_not_before() {
    let mut peer = open();
    for _ in 0..3 {
        peer.say(&data(1, 0, 16_384));
    }
    assert_eq!(peer.hear(), []);
    peer.release(1, 32_767);
    assert_eq!(peer.hear(), []);
    peer.release(1, 1);
    let credit = [
        Answer::WindowUpdate(1, 32_768),
        Answer::WindowUpdate(0, 32_768),
    ];
    assert_eq!(peer.hear(), credit);
}

#[test]
fn a_stream_gets_no_more_than_its_window() {
    let mut peer = open();
    for _ in 0..3 {
        peer.say(&data(1, 0, 16_384));
    }
    peer.say(&data(1, 0, 16_383));
    // An end needs no window.
    assert_eq!(
        peer.say(&data(1, END_STREAM, 0)),
        [Told::Data(1, vec![], true)]
    );
    let mut peer = open();
    for _ in 0..3 {
        peer.say(&data(1, 0, 16_384));
    }
    let told = peer.say(&data(1, 0, 16_384));
    assert_eq!(told, [Told::Failed(Violation::ConnectionWindow)]);
    assert_eq!(
        peer.hear(),
        [Answer::Goaway(1, ErrorCode::FlowControlError)]
    );
}

#[test]
fn a_stream_beyond_its_window_is_reset_and_the_connection_keeps_its_credit() {
    let mut peer = open();
    let mut budget = WindowBudget::new(1 << 20);
    // Wider for the connection alone.
    for _ in 0..4 {
        peer.say(&data(1, 0, 8_192));
    }
    peer.release(1, 32_768);
    peer.connection.grow(&mut budget);
    assert_eq!(
        (budget.left(), peer.connection.growth()),
        ((1 << 20) - 65_535, 65_535)
    );
    peer.hear();
    for _ in 0..3 {
        peer.say(&data(1, 0, 16_384));
    }
    let told = peer.say(&data(1, 0, 16_384));
    assert_eq!(told, [Told::Broken(1, Violation::StreamWindow)]);
    peer.release(1, 3 * 16_384);
    // What came too much was given back at once, the rest when it was passed on: half of the window was due by then.
    let credit = [
        Answer::RstStream(1, ErrorCode::FlowControlError),
        Answer::WindowUpdate(0, 65_536),
    ];
    assert_eq!(peer.hear(), credit);
}

#[test]
fn padding_counts_and_is_given_back_at_once() {
    let mut peer = open();
    let mut payload = vec![255];
    payload.extend([b'd'; 10]);
    payload.extend([0; 255]);
    for _ in 0..128 {
        let told = peer.say(&frame(DATA, PADDED, 1, &payload));
        assert_eq!(told, [Told::Data(1, vec![b'd'; 10], false)]);
    }
    let credit = [
        Answer::WindowUpdate(1, 32_768),
        Answer::WindowUpdate(0, 32_768),
    ];
    assert_eq!(peer.hear(), credit);
}

#[test]
fn content_of_streams_that_are_gone_is_given_back_at_once() {
    let mut peer = open();
    peer.say(&data(1, 0, 16_384));
    assert_eq!(
        peer.connection.reset(StreamId::new(1), ErrorCode::Cancel),
        0
    );
    peer.hear();
    // Two frames that nobody hears of, the second in pieces.
    assert_eq!(peer.say(&data(1, 0, 16_384)), []);
    for piece in data(1, END_STREAM, 16_384).chunks(1000) {
        assert_eq!(peer.say(piece), []);
    }
    assert_eq!(peer.hear(), [Answer::WindowUpdate(0, 32_768)]);
    // What was passed on before is given back as well.
    peer.release(1, 16_384);
    peer.say(&request(3, END_HEADERS));
    peer.say(&data(3, 0, 16_384));
    peer.release(3, 16_384);
    assert_eq!(peer.hear(), [Answer::WindowUpdate(0, 32_768)]);
}

#[test]
fn content_waits_for_credit_of_stream_and_connection() {
    let mut peer = open();
    assert_eq!(peer.send(1, 65_536, true), 65_535);
    let frames = [16_384, 16_384, 16_384, 16_383].map(|bytes| Answer::Data(1, bytes, false));
    assert_eq!(peer.hear(), frames);
    assert_eq!(peer.connection.send_queued(), None);
    peer.say(&window_update(1, 10));
    assert_eq!(peer.connection.send_queued(), None);
    peer.say(&window_update(0, 10));
    let left = peer.connection.send_queued().unwrap();
    assert_eq!((left.key, left.bytes), (1, 1));
    assert_eq!(peer.hear(), [Answer::Data(1, 1, true)]);
    assert_eq!(peer.connection.send_queued(), None);
}

#[test]
fn trailers_wait_for_the_content_before_them() {
    let mut peer = open();
    assert_eq!(peer.send(1, 70_000, false), 65_535);
    peer.connection
        .send_section(StreamId::new(1), fields(&[("grpc-status", "0")]), true);
    assert_eq!(peer.hear().len(), 4);
    peer.say(&[window_update(0, 10_000), window_update(1, 10_000)].concat());
    assert_eq!(peer.connection.send_queued().unwrap().bytes, 4_465);
    assert_eq!(
        peer.hear(),
        [Answer::Data(1, 4_465, false), Answer::Headers(1, true)]
    );
    // Nothing can follow.
    assert_eq!(peer.send(1, 5, true), 5);
    assert_eq!(peer.hear(), []);
}

#[test]
fn windows_that_a_setting_made_negative_have_to_be_filled_first() {
    let mut peer = open();
    assert_eq!(peer.send(1, 1_000, false), 1_000);
    peer.say(&setting(4, 100));
    assert_eq!(peer.send(1, 50, false), 0);
    peer.say(&window_update(1, 900));
    assert_eq!(peer.connection.send_queued(), None);
    peer.say(&window_update(1, 20));
    assert_eq!(peer.connection.send_queued().unwrap().bytes, 20);
    assert_eq!(peer.connection.send_queued(), None);
    peer.say(&setting(4, 200));
    assert_eq!(peer.connection.send_queued().unwrap().bytes, 30);
}

#[test]
fn streams_that_wait_have_their_turns() {
    let mut peer = Peer::client();
    peer.say(&window_update(0, 1 << 20));
    for stream in [1, 3, 5] {
        peer.say(&request(stream, WHOLE));
        peer.respond(stream, false);
    }
    // No more than this waits in the output, whoever sends it.
    assert!(peer.send(1, 65_000, false) < 65_536);
    for stream in [1, 3, 5] {
        let _ = peer.send(stream, 40_000, false);
    }
    assert!(peer.connection.output().len() <= 65_536 + 100);
    assert_eq!(peer.connection.send_queued(), None);
    peer.hear();
    let turns: Vec<u32> = (0..4)
        .map_while(|_| peer.connection.send_queued())
        .map(|left| left.key)
        .collect();
    // The first has used up its own window.
    assert_eq!(turns[1..], [3, 5, 3]);
}

#[test]
fn a_window_widens_only_for_a_fast_peer_and_within_the_budget() {
    let use_up_half = |peer: &mut Peer| {
        for _ in 0..4 {
            peer.say(&data(1, 0, 8_192));
        }
        peer.release(1, 32_768);
    };
    let mut budget = WindowBudget::new(65_535);
    let mut slow = open();
    slow.wait(Duration::from_millis(100));
    use_up_half(&mut slow);
    slow.connection.grow(&mut budget);
    assert_eq!(slow.connection.growth(), 0);
    let mut fast = open();
    use_up_half(&mut fast);
    fast.connection.grow(&mut budget);
    assert_eq!((fast.connection.growth(), budget.left()), (65_535, 0));
    let mut late = open();
    use_up_half(&mut late);
    late.connection.grow(&mut budget);
    assert_eq!(late.connection.growth(), 0);
}

#[test]
fn a_streams_window_widens_behind_its_connections() {
    let mut peer = open();
    let mut budget = WindowBudget::new(1 << 20);
    let mut credit = Vec::new();
    for _ in 0..4 {
        for _ in 0..8 {
            peer.say(&data(1, 0, 8_192));
            peer.release(1, 8_192);
        }
        peer.connection.grow(&mut budget);
        credit.extend(peer.hear());
    }
    assert_eq!(peer.connection.growth(), 7 * 65_535);
    let of_stream: Vec<u32> = credit
        .iter()
        .filter_map(|answer| match answer {
            Answer::WindowUpdate(1, credit) => Some(*credit),
            _ => None,
        })
        .collect();
    // A quarter of the connection's becomes half of it.
    let wider = 32_768 + 65_535;
    assert_eq!(of_stream, [32_768, 32_768, 32_768, 32_768, wider, 65_536]);
}

/// Since when the window is as good as spent.
fn spent_since(peer: &Peer) -> Option<Instant> {
    let stall = peer.connection.stalled()?;
    assert!(stall.is_spent);
    Some(stall.since)
}

#[test]
fn a_connection_whose_credit_is_spent_tells_when_the_last_was_given() {
    let mut peer = Peer::backend();
    let opened = peer.now;
    assert_eq!(peer.connection.stalled(), None);
    peer.wait(Duration::from_secs(1));
    let mut sent = 0;
    while sent < 65_535 {
        sent += peer.send(1, 65_535 - sent, false);
        peer.hear();
    }
    assert_eq!(spent_since(&peer), Some(opened));
    // Credit of a stream is none for the connection.
    peer.say(&window_update(1, 1));
    assert_eq!(spent_since(&peer), Some(opened));
    // Below a small part of the window it is as good as spent.
    let few = 65_535 / WINDOW_SPENT as u32;
    peer.say(&window_update(0, few - 1));
    let given = peer.now;
    assert_eq!(spent_since(&peer), Some(given));
    peer.say(&window_update(0, 1));
    assert_eq!(peer.connection.stalled(), None);
    peer.wait(Duration::from_secs(1));
    assert_eq!(peer.send(1, 1, false), 1);
    assert_eq!(spent_since(&peer), Some(given));
}

#[test]
fn pieces_that_follow_each_other_leave_as_one_frame() {
    let mut peer = open();
    for _ in 0..10 {
        assert_eq!(peer.send(1, 3, false), 3);
    }
    assert_eq!(peer.hear(), [Answer::Data(1, 30, false)]);
    // What was taken is out of reach, also if as much has been written since.
    peer.send(1, 30, false);
    assert_eq!(peer.hear(), [Answer::Data(1, 30, false)]);
    // Up to the longest frame, and to an end.
    peer.send(1, 16_380, false);
    peer.send(1, 10, true);
    let frames = [Answer::Data(1, 16_384, false), Answer::Data(1, 6, true)];
    assert_eq!(peer.hear(), frames);
    let mut peer = open();
    peer.send(1, 3, false);
    peer.send(1, 3, true);
    assert_eq!(peer.hear(), [Answer::Data(1, 6, true)]);
}

#[test]
fn pieces_between_which_something_else_is_said_stay_apart() {
    let mut peer = open();
    peer.say(&request(3, END_HEADERS));
    peer.send(1, 3, false);
    peer.respond(3, false);
    peer.send(1, 3, false);
    peer.send(3, 3, false);
    peer.send(1, 3, true);
    let frames = [
        Answer::Data(1, 3, false),
        Answer::Headers(3, false),
        Answer::Data(1, 3, false),
        Answer::Data(3, 3, false),
        Answer::Data(1, 3, true),
    ];
    assert_eq!(peer.hear(), frames);
}
