//! How connections and streams end: GOAWAY in both directions, resets, ids that run out, time-outs.

use std::time::{Duration, Instant};

use gateway_core::http::h2::{Connection, ErrorCode, Event, PREFACE, Role, StreamId, Violation};
use gateway_core::http::message::HeaderList;

use crate::support::*;

/// How long a peer may take to complete what it has begun.
const TIMEOUT: Duration = Duration::from_secs(5);

const GATEWAYS_PING: &[u8; 8] = b"gateway\0";

#[test]
fn a_drain_serves_what_was_on_its_way_and_ignores_what_comes_later() {
    let mut peer = Peer::client();
    peer.say(&request(1, WHOLE));
    peer.connection.go_away(peer.now);
    let announced = Answer::Goaway(StreamId::LAST.number(), ErrorCode::NoError);
    assert_eq!(peer.hear(), [announced, Answer::Ping]);
    assert_eq!(peer.say(&request(3, WHOLE)), [Told::Request(3, true)]);
    assert_eq!(peer.say(&frame(PING, ACK, 0, GATEWAYS_PING)), []);
    assert_eq!(peer.hear(), [Answer::Goaway(3, ErrorCode::NoError)]);
    // Later ones are ignored, with all that belongs to them.
    let late = [
        request(5, END_HEADERS),
        data(5, 0, 100),
        window_update(5, 1),
        rst_stream(5, ErrorCode::Cancel),
    ];
    assert_eq!(peer.say(&late.concat()), []);
    assert_eq!(peer.hear(), []);
    for stream in [1, 3] {
        assert!(!peer.connection.is_drained());
        peer.respond(stream, true);
    }
    assert!(peer.connection.is_drained() && !peer.connection.is_closed());
    peer.connection.close(ErrorCode::NoError);
    assert_eq!(peer.hear()[2..], [Answer::Goaway(3, ErrorCode::NoError)]);
}

#[test]
fn a_backends_goaway_tells_what_it_has_not_processed() {
    let mut peer = Peer::backend();
    for key in [2, 3] {
        peer.connection.open(key, peer.now).unwrap();
    }
    let payload = [0, 0, 0, 3, 0, 0, 0, 0];
    let told = peer.say(&frame(GOAWAY, 0, 0, &payload));
    assert_eq!(told, [Told::Goaway(3, ErrorCode::NoError)]);
    let above: Vec<_> = peer
        .connection
        .keys_above(StreamId::new(3))
        .map(|(stream, key)| (stream.number(), key))
        .collect();
    assert_eq!(above, [(5, 3)]);
    assert!(!peer.connection.can_open());
    assert_eq!(peer.connection.open(4, peer.now), None);
    // It never takes back what it has promised.
    let told = peer.say(&frame(GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 0]));
    assert_eq!(told, [Told::Goaway(3, ErrorCode::NoError)]);
}

#[test]
fn a_backends_limit_holds_from_its_first_settings_on() {
    let mut peer = Peer::silent(Role::Client);
    let opened = (0..1_000)
        .map_while(|key| peer.connection.open(key, peer.now))
        .count();
    assert_eq!(opened, 100);
    peer.say(&frame(SETTINGS, 0, 0, b""));
    assert!(peer.connection.can_open());
    peer.say(&setting(3, 101));
    assert!(peer.connection.open(0, peer.now).is_some());
    assert!(!peer.connection.can_open());
    peer.say(&setting(3, 0));
    assert!(!peer.connection.can_open());
}

#[test]
fn a_stream_is_forgotten_when_both_sides_have_ended_it() {
    for by_trailers in [false, true] {
        let mut peer = Peer::client();
        peer.say(&request(1, WHOLE));
        peer.respond(1, false);
        assert_eq!(peer.send(1, 10, !by_trailers), 10);
        if by_trailers {
            peer.connection
                .send_section(StreamId::new(1), fields(&[("a", "b")]), true);
        }
        assert_eq!(peer.connection.open_streams(), 0);
        let told = peer.say(&data(1, 0, 1));
        assert_eq!(told, [Told::Failed(Violation::ClosedStream)]);
    }
}

#[test]
fn nothing_is_sent_behind_the_end_of_a_stream() {
    let mut peer = Peer::client();
    peer.say(&request(1, END_HEADERS));
    peer.respond(1, true);
    assert_eq!(peer.hear(), [Answer::Headers(1, true)]);
    peer.respond(1, true);
    assert_eq!(peer.send(1, 10, true), 10);
    assert_eq!(peer.hear(), []);
    assert_eq!(peer.connection.open_streams(), 1);
}

#[test]
fn what_waits_on_a_stream_that_is_reset_is_told() {
    let mut peer = Peer::client();
    peer.say(&request(1, WHOLE));
    peer.respond(1, false);
    peer.hear();
    assert_eq!(peer.send(1, 70_000, true), 65_535);
    let told = peer.say(&rst_stream(1, ErrorCode::Cancel));
    assert_eq!(told, [Told::Reset(1, ErrorCode::Cancel, 4_465)]);
    assert_eq!(peer.connection.send_queued(), None);

    let mut peer = Peer::client();
    peer.say(&request(1, WHOLE));
    peer.respond(1, false);
    peer.hear();
    assert_eq!(peer.send(1, 70_000, true), 65_535);
    assert_eq!(
        peer.connection
            .reset(StreamId::new(1), ErrorCode::InternalError),
        4_465
    );
    assert_eq!(
        peer.hear().pop(),
        Some(Answer::RstStream(1, ErrorCode::InternalError))
    );
}

#[test]
fn a_failed_connection_gives_up_its_streams_once() {
    let mut peer = Peer::client();
    for stream in [1, 3] {
        peer.say(&request(stream, END_HEADERS));
        peer.respond(stream, false);
    }
    peer.hear();
    assert_eq!(peer.send(3, 70_000, true), 65_535);
    let told = peer.say(&[window_update(0, 0), request(5, WHOLE)].concat());
    assert_eq!(told, [Told::Failed(Violation::ZeroIncrement)]);
    let streams: Vec<_> = peer
        .connection
        .take_streams()
        .map(|left| (left.key, left.bytes))
        .collect();
    assert_eq!(streams, [(1, 0), (3, 4_465)]);
    assert_eq!(peer.connection.take_streams().count(), 0);
    assert_eq!(peer.say(&request(7, WHOLE)), []);
}

#[test]
fn settings_are_to_be_acknowledged_in_ten_seconds() {
    let mut peer = Peer::silent(Role::Server);
    peer.wait(Duration::from_millis(9_999));
    assert_eq!(peer.connection.check_time(Duration::MAX, peer.now), None);
    peer.wait(Duration::from_millis(1));
    let late = peer.connection.check_time(Duration::MAX, peer.now);
    assert_eq!(late, Some(Violation::SettingsTimeout));
    assert_eq!(
        peer.hear()[1..],
        [Answer::Goaway(0, ErrorCode::SettingsTimeout)]
    );
    let mut peer = Peer::client();
    peer.wait(Duration::from_secs(1_000_000));
    assert_eq!(peer.connection.check_time(Duration::MAX, peer.now), None);
}

#[test]
fn a_ping_of_ours_is_owed_until_its_own_answer() {
    let mut peer = Peer::backend();
    let asked = peer.now;
    peer.connection.ping(asked);
    peer.wait(Duration::from_secs(1));
    peer.connection.ping(peer.now);
    assert_eq!(peer.hear(), [Answer::Ping]);
    peer.say(&frame(PING, ACK, 0, b"another\0"));
    assert_eq!(peer.connection.pinged_since(), Some(asked));
    peer.say(&frame(PING, ACK, 0, GATEWAYS_PING));
    assert_eq!(peer.connection.pinged_since(), None);
}

/// Some time passes, and the connection is looked at.
fn look(peer: &mut Peer, time: Duration) -> (bool, Option<Violation>) {
    peer.wait(time);
    let is_asked = peer.connection.keep_alive(MINUTE, peer.now);
    (
        is_asked,
        peer.connection.check_time(Duration::MAX, peer.now),
    )
}

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_silent_backend_with_streams_is_asked_and_is_given_up_without_a_sign_of_life() {
    let mut peer = Peer::backend();
    assert_eq!(look(&mut peer, MINUTE - SECOND), (false, None));
    assert_eq!(look(&mut peer, SECOND), (true, None));
    assert_eq!(peer.hear(), [Answer::Ping]);
    // It answers, and is asked again only when it has been silent for as long again.
    peer.say(&frame(PING, ACK, 0, GATEWAYS_PING));
    assert_eq!(look(&mut peer, MINUTE - SECOND), (false, None));
    assert_eq!(look(&mut peer, SECOND), (true, None));
    // Any frame is a sign of life.
    peer.wait(SECOND);
    peer.say(&window_update(0, 1));
    assert_eq!(look(&mut peer, 30 * SECOND), (false, None));
    assert_eq!(look(&mut peer, 30 * SECOND), (true, None));
    assert_eq!(look(&mut peer, 19 * SECOND), (false, None));
    let late = (false, Some(Violation::PingTimeout));
    assert_eq!(look(&mut peer, SECOND), late);
    assert!(peer.connection.is_closed());
    assert_eq!(peer.connection.take_streams().count(), 1);
}

#[test]
fn a_backend_without_streams_is_not_asked_however_long_it_is_silent() {
    let mut peer = Peer::backend();
    let _ = peer.connection.reset(StreamId::new(1), ErrorCode::Cancel);
    peer.hear();
    assert_eq!(look(&mut peer, 100 * MINUTE), (false, None));
    assert_eq!(peer.hear(), []);
}

#[test]
fn what_is_begun_and_not_completed_ends_the_connection_after_a_while() {
    // A preface that does not come, one that stops half way, a frame that does, a field block without its end.
    let preface = PREFACE.as_slice();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let headers = [0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82];
    for (begun, is_slow) in [
        (vec![], true),
        (preface[..10].to_vec(), true),
        ([preface, &settings].concat(), false),
        ([preface, &settings, &headers[..3]].concat(), true),
        ([preface, &settings, &headers].concat(), true),
    ] {
        let start = Instant::now();
        let mut connection = Connection::new(Role::Server, 1000, start);
        let mut list = HeaderList::new(1000);
        let mut input = &begun[..];
        while let Some(event) = connection.receive(&mut input, &mut list, start) {
            assert_eq!(event, Event::Control);
        }
        let violation = connection.check_time(TIMEOUT, start + TIMEOUT - Duration::from_millis(1));
        assert_eq!(violation, None);
        let violation = connection.check_time(TIMEOUT, start + TIMEOUT);
        assert_eq!(
            violation,
            is_slow.then_some(Violation::SlowFrame),
            "{begun:?}"
        );
        assert_eq!(connection.is_closed(), is_slow);
    }
}
