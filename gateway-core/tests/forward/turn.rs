//! Turns: what one client sends at once is taken piece by piece, so that the requests of others come in between.

use gateway_core::http::h2::HEADER_BYTES;
use gateway_core::http::limits::{TURN_BYTES_MAX, TURN_REQUEST_BYTES, WINDOW_BYTES};

use super::*;

/// A frame as a client may send it.
fn frame(frame_type: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([frame_type, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What the client of a path has to send for requests, each taken back at once if `are_taken_back`.
fn requests(path: &mut Path, count: usize, are_taken_back: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let stream = path.ends[CLIENT].open(0, path.now).unwrap();
        path.send(CLIENT, stream, &GRPC, true);
        if are_taken_back {
            let _ = path.ends[CLIENT].reset(stream, ErrorCode::Cancel);
        }
        bytes.extend(path.ends[CLIENT].take_output());
    }
    bytes
}

fn turns(path: &mut Path, side: usize, bytes: &[u8]) -> usize {
    let mut route = To(Ok(path.keys[BACKEND]));
    let forwarder = (&mut path.forwarder, path.keys[side]);
    receive_all(forwarder, bytes, (&mut route, path.now))
}

/// A path with a request that is not complete.
fn uploading(versions: [HttpVersion; 2]) -> Path {
    let mut path = Path::of(versions, AllowedTenants::None);
    path.request(&GRPC, false);
    path.carry();
    path
}

const HTTP2: [HttpVersion; 2] = [HttpVersion::Http2; 2];

#[test]
fn small_frames_and_chunks_are_taken_a_turn_at_a_time() {
    let small = [
        ("PING", frame(6, 0, 0, b"opaque!!")),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("of an unknown type", frame(0xbb, 0, 1, b"")),
        ("DATA of one byte", frame(0, 0, 1, b"x")),
        ("DATA that is padded", frame(0, 8, 1, &[1, b'x', 0])),
    ];
    for (name, one) in small {
        let mut path = uploading(HTTP2);
        let bytes = one.repeat(400);
        // Each DATA frame carries a byte that does not count.
        let overhead = bytes.len() - if one[3] == 0 { 400 } else { 0 };
        let turns = turns(&mut path, CLIENT, &bytes);
        assert_eq!(turns, overhead.div_ceil(TURN_BYTES_MAX), "{name}");
    }
    let mut path = Path::of(
        [HttpVersion::Http1, HttpVersion::Http2],
        AllowedTenants::None,
    );
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(turns(&mut path, CLIENT, head), 1);
    let chunks = b"1\r\nx\r\n".repeat(2_000);
    let overhead = chunks.len() - 2_000;
    assert_eq!(
        turns(&mut path, CLIENT, &chunks),
        overhead.div_ceil(TURN_BYTES_MAX)
    );
}

#[test]
fn requests_cost_more_of_a_turn_than_their_bytes() {
    for are_taken_back in [false, true] {
        let mut path = Path::new(AllowedTenants::None);
        let bytes = requests(&mut path, 100, are_taken_back);
        let cost = bytes.len() + 100 * TURN_REQUEST_BYTES;
        let turns = turns(&mut path, CLIENT, &bytes);
        let expected = cost / TURN_BYTES_MAX;
        assert!((expected - 1..=expected + 1).contains(&turns), "{turns}");
    }
}

#[test]
fn content_and_what_a_backend_sends_is_taken_at_once() {
    let mut path = uploading(HTTP2);
    let content: Vec<u8> = (0..WINDOW_BYTES as usize / 16_000)
        .flat_map(|_| frame(0, 0, 1, &[7; 16_000]))
        .collect();
    assert!(content.len() > 10 * TURN_BYTES_MAX);
    assert_eq!(turns(&mut path, CLIENT, &content), 1);
    let pings = frame(6, 0, 0, b"opaque!!").repeat(400);
    assert!(pings.len() > TURN_BYTES_MAX + HEADER_BYTES);
    assert_eq!(turns(&mut path, BACKEND, &pings), 1);
}

#[test]
fn a_frame_that_ends_with_a_turn_is_complete() {
    let mut path = uploading(HTTP2);
    let one = frame(0xbb, 0, 1, b"nothing");
    let bytes = one.repeat(1 + TURN_BYTES_MAX / one.len());
    let (begun, rest) = bytes.split_at(5);
    assert_eq!(rest.len().div_ceil(one.len()) * one.len(), bytes.len());
    assert_eq!(turns(&mut path, CLIENT, begun), 1);
    assert_eq!(turns(&mut path, CLIENT, rest), 1);
    let later = path.now + Duration::from_secs(60);
    let connection = path.forwarder.connection(path.keys[CLIENT]).unwrap();
    assert_eq!(connection.check_time(Duration::from_secs(1), later), None);
}
