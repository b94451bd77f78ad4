//! Exchanges step by step: what is written, when input is welcome, how connections end.

use std::time::Duration;

use gateway_core::http::h1::Fault;
use gateway_core::http::h2::{ErrorCode, Role, StreamId};
use gateway_core::http::limits::{DRAINED_BYTES_MAX, OUTPUT_BYTES_MAX, UNRELEASED_BYTES_MAX};

use crate::support::*;

const OK: &[(&str, &str)] = &[(":status", "200")];

/// A client that has sent a request.
fn client(request: &str) -> Peer {
    let mut peer = Peer::new(Role::Server);
    let told = peer.say(request.as_bytes());
    assert!(matches!(told[0], Told::Request(..)), "{told:?}");
    peer
}

fn get(more: &str) -> Peer {
    client(&format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n"))
}

fn post(more: &str) -> Peer {
    client(&format!("POST / HTTP/1.1\r\nHost: a\r\n{more}\r\n"))
}

#[test]
fn a_response_is_framed_as_its_client_can_read_it() {
    let http_1_0 = |more: &str| client(&format!("GET / HTTP/1.0\r\n{more}\r\n"));
    let head = || client("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let with_length = &[(":status", "200"), ("content-length", "2")][..];
    for (mut peer, response, content, expected, closes) in [
        (
            get(""),
            OK,
            "ok",
            "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            false,
        ),
        (
            get(""),
            with_length,
            "ok",
            "content-length: 2\r\n\r\nok",
            false,
        ),
        (get(""), OK, "", "content-length: 0\r\n\r\n", false),
        (
            get("Connection: close\r\n"),
            with_length,
            "ok",
            "content-length: 2\r\nconnection: close\r\n\r\nok",
            true,
        ),
        (http_1_0(""), OK, "ok", "connection: close\r\n\r\nok", true),
        (
            http_1_0("Connection: keep-alive\r\n"),
            OK,
            "ok",
            "connection: close\r\n\r\nok",
            true,
        ),
        (
            http_1_0("Connection: keep-alive\r\n"),
            with_length,
            "ok",
            "content-length: 2\r\nconnection: keep-alive\r\n\r\nok",
            false,
        ),
        (
            head(),
            with_length,
            "ok",
            "content-length: 2\r\n\r\n",
            false,
        ),
        (head(), OK, "", "\r\n", false),
        (
            get(""),
            &[(":status", "304"), ("content-length", "9")],
            "no",
            "content-length: 9\r\n\r\n",
            false,
        ),
        (get(""), &[(":status", "204")], "", "\r\n", false),
    ] {
        peer.respond(response, content.as_bytes());
        let heard = peer.hear();
        let (line, rest) = heard.split_once("\r\n").unwrap();
        assert!(line.starts_with("HTTP/1.1 "));
        assert_eq!(rest, expected);
        assert_eq!(peer.connection.is_closed(), closes);
        assert!(!peer.connection.is_cut_off());
        assert_eq!(peer.connection.open_streams(), 0);
    }
}

#[test]
fn a_request_is_framed_by_its_length_or_in_chunks() {
    let with_length = &[("content-length", "2"), ("te", "trailers")][..];
    for (method, more, content, expected) in [
        ("GET", &[][..], "", "GET /p HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "POST",
            &[],
            "",
            "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "POST",
            &[],
            "ok",
            "POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (
            "POST",
            with_length,
            "ok",
            "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: te\r\nte: trailers\r\n\r\nok",
        ),
        (
            "GET",
            &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")],
            "",
            "GET /p HTTP/1.1\r\nhost: a\r\nx: y\r\ncookie: a=1; b=2\r\n\r\n",
        ),
    ] {
        let mut peer = Peer::new(Role::Client);
        let pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":path", "/p"),
            (":authority", "a"),
        ];
        peer.stream = peer.connection.open(7).unwrap();
        peer.respond(&[&pseudo[..], more].concat(), content.as_bytes());
        assert_eq!(peer.hear(), expected);
    }
}

#[test]
fn trailers_go_to_backends_and_to_clients_that_said_so() {
    let trailers = [("grpc-status", "0")];
    for (mut peer, expected) in [
        (
            get("TE: trailers\r\nConnection: TE\r\n"),
            "0\r\ngrpc-status: 0\r\n\r\n",
        ),
        (get(""), "0\r\n\r\n"),
        (get("TE: gzip\r\n"), "0\r\n\r\n"),
    ] {
        peer.connection.send_section(peer.stream, fields(OK), false);
        peer.hear();
        peer.connection
            .send_section(peer.stream, fields(&trailers), true);
        assert_eq!(peer.hear(), expected);
        assert_eq!(peer.connection.open_streams(), 0);
    }
    let mut backend = Peer::new(Role::Client);
    backend.request("POST", false);
    backend
        .connection
        .send_section(backend.stream, fields(&trailers), true);
    assert_eq!(backend.hear(), "0\r\ngrpc-status: 0\r\n\r\n");
    // Behind a length there is no place for them.
    let mut peer = get("TE: trailers\r\n");
    let response = [(":status", "200"), ("content-length", "2")];
    peer.connection
        .send_section(peer.stream, fields(&response), false);
    assert_eq!(peer.send(b"ok", false), 2);
    peer.connection
        .send_section(peer.stream, fields(&trailers), true);
    assert!(peer.hear().ends_with("\r\n\r\nok"));
    assert_eq!(peer.connection.open_streams(), 0);
}

#[test]
fn content_that_finds_no_room_waits_and_leaves_later() {
    let mut peer = get("TE: trailers\r\n");
    peer.connection.send_section(peer.stream, fields(OK), false);
    let content = vec![b'c'; OUTPUT_BYTES_MAX];
    let sent = peer.send(&content, false);
    assert!(sent < content.len());
    assert_eq!(peer.send(b"more", false), 0);
    peer.connection
        .send_section(peer.stream, fields(&[("a", "b")]), true);
    assert_eq!(peer.connection.send_queued(), None);
    assert!(peer.connection.output().len() <= OUTPUT_BYTES_MAX);
    peer.hear();
    let left = peer.connection.send_queued().unwrap();
    assert_eq!((left.key, left.bytes), (7, content.len() - sent + 4));
    assert!(peer.hear().ends_with("more\r\n0\r\na: b\r\n\r\n"));
    assert_eq!(peer.connection.send_queued(), None);
    assert_eq!(peer.connection.open_streams(), 0);
}

#[test]
fn input_is_welcome_while_content_is_passed_on() {
    let mut peer = post("Content-Length: 1000000\r\n");
    peer.passes_on = false;
    let told = peer.say(&vec![b'c'; UNRELEASED_BYTES_MAX + 10]);
    assert!(matches!(&told[..], [Told::Data(data, false)] if data.len() == UNRELEASED_BYTES_MAX));
    assert_eq!(peer.unread.len(), 10);
    assert!(!peer.connection.wants_input());
    assert_eq!(peer.say(b""), []);
    peer.connection.release(StreamId::new(3), 100);
    assert!(!peer.connection.wants_input(), "of another exchange");
    peer.connection.release(peer.stream, 4);
    assert!(peer.connection.wants_input());
    assert_eq!(peer.say(b""), [Told::Data(b"cccc".to_vec(), false)]);
    assert!(!peer.connection.wants_input());
}

#[test]
fn the_next_request_of_a_pipeline_waits_for_its_turn() {
    let mut peer = get("");
    // Whether the client leaves is to be seen.
    assert!(peer.connection.wants_input());
    assert_eq!(peer.say(b"GET /2 HTTP/1.1\r\nHost: b\r\n\r\n"), []);
    assert!(!peer.connection.wants_input());
    peer.respond(OK, b"1");
    assert!(peer.connection.wants_input());
    let told = peer.say(b"");
    assert_eq!(told, [Told::Request("GET https /2 b".to_owned(), true)]);
    assert_eq!(peer.stream, StreamId::new(3));
}

#[test]
fn a_client_that_does_not_read_gets_no_further_request_served() {
    let mut peer = Peer::client();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    peer.say(request.repeat(5_000).as_bytes());
    assert!(!peer.unread.is_empty());
    assert!(!peer.connection.wants_input());
    assert!(peer.connection.output().len() < OUTPUT_BYTES_MAX + 100);
    peer.hear();
    while peer.connection.send_queued().is_some() {}
    assert!(peer.connection.wants_input());
}

#[test]
fn nor_one_whose_responses_have_no_content() {
    let mut peer = Peer::new(Role::Server);
    let mut served = 0;
    while !peer.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_empty() {
        peer.respond(&[(":status", "204")], b"");
        served += 1;
        assert!(served < OUTPUT_BYTES_MAX / 20);
    }
    assert!(!peer.connection.wants_input());
    peer.hear();
    assert!(peer.connection.wants_input());
}

#[test]
fn a_client_that_waits_for_status_100_gets_it_once_its_request_is_served() {
    let mut peer = post("Expect: 100-continue\r\nContent-Length: 3\r\n");
    assert_eq!(peer.hear(), "");
    assert_eq!(peer.connection.send_queued(), None);
    assert_eq!(peer.hear(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(peer.connection.send_queued(), None);
    assert_eq!(peer.say(b"abc"), [Told::Data(b"abc".to_vec(), true)]);
    peer.respond(OK, b"");
    assert_eq!(peer.hear(), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert!(!peer.connection.is_closed());
    // One that does not wait gets none, nor one of HTTP/1.0, nor one that is refused.
    let mut peer = post("Expect: 100-continue\r\nContent-Length: 3\r\n");
    assert_eq!(peer.say(b"a"), [Told::Data(b"a".to_vec(), false)]);
    assert_eq!(peer.connection.send_queued(), None);
    assert_eq!(peer.hear(), "");
    let mut peer = client("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(peer.connection.send_queued(), None);
    peer.connection
        .send_section(peer.stream, fields(&[(":status", "103")]), false);
    assert_eq!(peer.hear(), "");
    let mut peer = post("Expect: 100-continue\r\nContent-Length: 3\r\n");
    peer.respond(&[(":status", "403")], b"");
    let expected = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(peer.hear(), expected);
    assert!(peer.connection.is_closed() && !peer.connection.is_cut_off());
    assert_eq!(peer.connection.take_streams().count(), 1);
}

#[test]
fn interim_responses_pass() {
    let mut peer = get("");
    let early = [(":status", "103"), ("link", "x")];
    peer.connection
        .send_section(peer.stream, fields(&early), false);
    assert_eq!(peer.hear(), "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
    peer.respond(OK, b"");
    assert_eq!(peer.connection.open_streams(), 0);
}

#[test]
fn a_request_is_drained_behind_an_early_response_up_to_a_bound() {
    for (bytes, is_read) in [(DRAINED_BYTES_MAX, true), (DRAINED_BYTES_MAX + 1, false)] {
        let mut peer = post(&format!("Content-Length: {bytes}\r\n"));
        peer.respond(&[(":status", "429")], b"");
        let told = peer.say(&vec![b'c'; bytes]);
        match is_read {
            true => {
                assert!(matches!(&told[..], [Told::Data(_, true)]));
                let told = peer.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                assert!(matches!(&told[..], [Told::Request(..)]));
            }
            false => {
                assert_eq!(told.last(), Some(&Told::Reset(ErrorCode::Cancel, 0)));
                assert!(peer.connection.is_closed() && !peer.connection.is_cut_off());
                assert_eq!(
                    peer.hear(),
                    "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
                );
            }
        }
    }
}

#[test]
fn a_response_that_cannot_be_completed_is_seen_to_be_cut_off() {
    let length = [(":status", "200"), ("content-length", "5")];
    for response in [OK, &length] {
        let mut peer = get("");
        peer.connection
            .send_section(peer.stream, fields(response), false);
        assert_eq!(peer.send(b"abc", false), 3);
        assert_eq!(
            peer.connection.reset(peer.stream, ErrorCode::InternalError),
            0
        );
        assert!(peer.connection.is_closed() && peer.connection.is_cut_off());
        assert!(!peer.hear().ends_with("0\r\n\r\n"));
        assert_eq!(peer.connection.open_streams(), 0);
    }
    // One that says it is longer than it is.
    let mut peer = get("");
    peer.respond(&length, b"abc");
    assert!(peer.connection.is_closed() && peer.connection.is_cut_off());
    // More than it says is never sent.
    let mut peer = get("");
    peer.respond(&length, b"abcdefgh");
    assert!(peer.hear().ends_with("\r\n\r\nabcde"));
    assert!(!peer.connection.is_closed());
}

#[test]
fn a_client_is_told_of_its_own_faults_while_no_response_has_begun() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut peer = post(chunked);
    assert_eq!(peer.say(b"x"), [Told::Malformed(Fault::ChunkSize)]);
    assert!(
        peer.hear()
            .starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n")
    );
    assert!(!peer.connection.is_cut_off());
    assert_eq!(peer.connection.take_streams().count(), 1);
    assert_eq!(peer.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), []);
    // Its owner rejects what it says.
    let mut peer = get("");
    assert_eq!(
        peer.connection.reset(peer.stream, ErrorCode::ProtocolError),
        0
    );
    assert!(peer.hear().starts_with("HTTP/1.1 400 "));
    // A response has begun.
    let mut peer = post(chunked);
    peer.connection.send_section(peer.stream, fields(OK), false);
    peer.hear();
    assert_eq!(peer.say(b"x"), [Told::Malformed(Fault::ChunkSize)]);
    assert_eq!(peer.hear(), "");
    assert!(peer.connection.is_cut_off());
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    for mut peer in [post("Content-Length: 3\r\n"), get("")] {
        let told = format!("{:?}", peer.connection.end_of_input(true));
        assert!(told.contains("Reset { key: 7, code: Cancel"), "{told}");
        assert!(peer.connection.is_closed());
        assert_eq!(peer.connection.open_streams(), 0);
    }
    let mut peer = Peer::client();
    peer.say(b"GET / HT");
    assert_eq!(peer.connection.end_of_input(true), None);
    assert!(peer.connection.is_closed());
}

#[test]
fn a_backend_that_leaves_says_how_much_was_processed() {
    let reset = |peer: &mut Peer, is_authentic| {
        let told = format!("{:?}", peer.connection.end_of_input(is_authentic));
        assert!(peer.connection.is_closed() && !peer.connection.can_open());
        told
    };
    // Idle: nothing was asked.
    assert_eq!(reset(&mut Peer::new(Role::Client), true), "None");
    // Nothing has left.
    let mut peer = Peer::new(Role::Client);
    peer.stream = peer.connection.open(7).unwrap();
    let request = [(":method", "GET"), (":path", "/")];
    peer.connection
        .send_section(peer.stream, fields(&request), true);
    assert!(reset(&mut peer, true).contains("code: RefusedStream"));
    // Something has.
    assert!(reset(&mut Peer::backend("GET"), true).contains("code: Cancel"));
    // What may be sent twice is, if the connection was kept.
    for (method, expected) in [("GET", "RefusedStream"), ("POST", "Cancel")] {
        let mut peer = Peer::backend("GET");
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        peer.request(method, true);
        assert!(reset(&mut peer, false).contains(expected));
        let mut peer = Peer::backend("GET");
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        peer.request(method, true);
        peer.say(b"H");
        assert!(reset(&mut peer, false).contains("Cancel"));
    }
    // In the middle of a response.
    for begun in [
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let mut peer = Peer::backend("GET");
        peer.say(begun.as_bytes());
        assert!(reset(&mut peer, true).contains("code: Cancel"));
    }
    // A response that ends with the connection.
    for (is_authentic, expected) in [(true, "end_stream: true"), (false, "code: Cancel")] {
        let mut peer = Peer::backend("GET");
        let told = peer.say(b"HTTP/1.0 200 OK\r\n\r\nabc");
        assert_eq!(told.last(), Some(&Told::Data(b"abc".to_vec(), false)));
        assert!(reset(&mut peer, is_authentic).contains(expected));
        assert_eq!(peer.connection.open_streams(), 0);
    }
}

#[test]
fn what_a_backend_says_unasked_is_no_response() {
    let response = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    let mut peer = Peer::new(Role::Client);
    assert_eq!(peer.say(response), [Told::Malformed(Fault::Unsolicited)]);
    let mut peer = Peer::new(Role::Client);
    peer.stream = peer.connection.open(7).unwrap();
    peer.connection
        .send_section(peer.stream, fields(&[(":method", "GET")]), true);
    assert_eq!(peer.say(response), [Told::Malformed(Fault::Unsolicited)]);
    assert_eq!(Fault::Unsolicited.code(), ErrorCode::RefusedStream);
    assert_eq!(peer.hear(), "", "the request does not leave any more");
    // A whole response before the end of its request may come, more may not.
    let mut peer = Peer::new(Role::Client);
    peer.request("POST", false);
    let told = peer.say(&response[..]);
    assert!(matches!(&told[..], [Told::Section(_, true)]));
    assert!(!peer.connection.can_open());
    assert_eq!(peer.say(b"x"), [Told::Malformed(Fault::Surplus)]);
}

#[test]
fn a_backend_connection_serves_one_request_after_the_other() {
    let mut peer = Peer::new(Role::Client);
    for number in 0..3 {
        assert!(peer.connection.can_open());
        peer.request("HEAD", true);
        assert_eq!(peer.stream, StreamId::new(2 * number + 1));
        assert!(!peer.connection.can_open() && peer.connection.open(8).is_none());
        let told = peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        assert!(matches!(&told[..], [Told::Section(_, true)]));
    }
    peer.connection.go_away();
    assert!(peer.connection.is_closed() && peer.connection.is_drained());
    for last in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 204 No\r\n\r\n",
    ] {
        let mut peer = Peer::backend("GET");
        peer.say(last.as_bytes());
        assert!(peer.connection.is_closed());
    }
    let mut peer = Peer::backend("GET");
    peer.say(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n");
    assert!(peer.connection.can_open());
}

#[test]
fn a_connection_that_is_told_to_end_serves_what_is_in_flight() {
    let mut peer = get("");
    peer.connection.go_away();
    assert!(!peer.connection.is_closed() && !peer.connection.is_drained());
    peer.respond(OK, b"");
    assert!(peer.hear().contains("connection: close\r\n"));
    assert!(peer.connection.is_closed() && peer.connection.is_drained());
    let mut idle = Peer::client();
    idle.connection.go_away();
    assert!(idle.connection.is_closed());
    let mut peer = get("");
    peer.connection.close();
    assert!(peer.connection.is_closed() && peer.connection.is_cut_off());
}

#[test]
fn what_waits_on_a_connection_that_is_over_has_left() {
    let mut peer = Peer::new(Role::Client);
    peer.request("POST", false);
    let content = vec![b'c'; 2 * OUTPUT_BYTES_MAX];
    let sent = peer.send(&content, false);
    peer.say(b"HTTP/1.1 200 OK\r\n\r\nabc");
    assert!(format!("{:?}", peer.connection.end_of_input(true)).contains("Data"));
    let left = peer.connection.send_queued().unwrap();
    assert_eq!((left.key, left.bytes), (7, content.len() - sent));
    assert_eq!(peer.connection.send_queued(), None);
    assert_eq!(peer.send(b"more", true), 4);
}

#[test]
fn a_section_has_to_come_in_time() {
    let second = Duration::from_secs(1);
    let mut peer = Peer::client();
    let start = peer.now;
    assert_eq!(peer.connection.check_time(second, start + 9 * second), None);
    peer.say(b"GET / HTTP/1.1\r\n");
    peer.now += second / 2;
    peer.say(b"Host: a\r\n");
    assert_eq!(peer.connection.check_time(second, peer.now), None);
    let late = peer.connection.check_time(second, start + second);
    assert_eq!(late, Some(Fault::SlowSection));
    assert!(peer.hear().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    assert!(peer.connection.is_closed());
    let mut peer = Peer::client();
    peer.say(b"GET / HTTP/1.1\r\n");
    peer.say(b"Host: a\r\n\r\n");
    assert_eq!(peer.connection.check_time(second, start + 9 * second), None);
}

#[test]
fn the_rest_of_a_request_behind_its_response_has_to_come_in_time() {
    let second = Duration::from_secs(1);
    for rest in ["", "bc"] {
        let mut peer = post("Content-Length: 3\r\n");
        peer.say(b"a");
        peer.respond(&[(":status", "429")], b"");
        assert_eq!(peer.connection.check_time(second, peer.now), None);
        peer.say(rest.as_bytes());
        let late = peer.connection.check_time(second, peer.now + second);
        assert_eq!(late, rest.is_empty().then_some(Fault::SlowSection));
        assert!(!peer.connection.is_cut_off());
        assert_eq!(peer.hear().matches("HTTP/1.1").count(), 1);
    }
}
