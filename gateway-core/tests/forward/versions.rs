//! Clients and backends of either version of HTTP, in all four pairs.

use HttpVersion::{Http1, Http2};
use gateway_core::http::h2::ErrorCode;

use super::*;

const PAIRS: [[HttpVersion; 2]; 4] = [
    [Http1, Http1],
    [Http1, Http2],
    [Http2, Http1],
    [Http2, Http2],
];

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/api/v1/query?query=up"),
    (":authority", "cortex.example"),
];

fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    let found = fields.iter().filter(|(found, _)| found == name);
    found.map(|(_, value)| &**value).collect()
}

fn section(heard: &Heard) -> (&Fields, bool) {
    match heard {
        Heard::Section(fields, ends) => (fields, *ends),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_pass_in_all_pairs_of_versions() {
    for versions in PAIRS {
        let mut path = Path::of(versions, one_tenant());
        let forged = [
            ("x-scope-orgid", "blue"),
            ("x_scope_orgid", "blue"),
            ("x-scope-clientid", "root"),
            ("mine", "1"),
        ];
        path.request(&[&GRPC[..], &forged].concat(), false);
        assert_eq!(path.ends[CLIENT].send_data(ONE, b"abc", false), 3);
        path.send(
            CLIENT,
            ONE,
            &[("x-scope-orgid", "blue"), ("late", "2")],
            true,
        );
        let [_, backend] = path.carry();
        let (head, _) = section(&backend[0]);
        for (name, expected) in [
            (":method", &["POST"][..]),
            (":path", &["/a.B/C"]),
            (":authority", &["collector.example"]),
            ("x-scope-orgid", &["red"]),
            ("x-scope-clientid", &["agent"]),
            ("x_scope_orgid", &[]),
            ("mine", &["1"]),
            ("te", &["trailers"]),
            ("connection", &[]),
            ("host", &[]),
        ] {
            assert_eq!(values(head, name), expected, "{versions:?} {name}");
        }
        assert_eq!(backend[1], Heard::Data(b"abc".to_vec(), false));
        assert_eq!(backend[2], Heard::Section(owned(&[("late", "2")]), true));
        let response = [(":status", "200"), ("content-type", "application/grpc")];
        path.send(BACKEND, ONE, &response, false);
        assert_eq!(path.ends[BACKEND].send_data(ONE, b"xyz", false), 3);
        path.send(BACKEND, ONE, &[("grpc-status", "0")], true);
        let [client, _] = path.carry();
        let expected = [
            Heard::Section(owned(&response), false),
            Heard::Data(b"xyz".to_vec(), false),
            Heard::Section(owned(&[("grpc-status", "0")]), true),
        ];
        assert_eq!(client, expected, "{versions:?}");
        assert_eq!(path.forwarder.exchanges(), 0);
        assert!(
            path.forwarder
                .connection(path.keys[BACKEND])
                .unwrap()
                .can_open()
        );
    }
}

#[test]
fn requests_follow_each_other_on_the_same_connections() {
    for versions in PAIRS {
        let mut path = Path::of(versions, AllowedTenants::None);
        for number in 0..3 {
            let stream = path.request(&GET, true);
            let [_, backend] = path.carry();
            assert!(
                matches!(&backend[..], [Heard::Section(_, true)]),
                "{backend:?}"
            );
            let response = [(":status", "200"), ("content-length", "2")];
            path.send(BACKEND, stream, &response, false);
            assert_eq!(path.ends[BACKEND].send_data(stream, b"ok", true), 2);
            let [client, _] = path.carry();
            let expected = [
                Heard::Section(owned(&response), false),
                Heard::Data(b"ok".to_vec(), true),
            ];
            assert_eq!(client, expected, "{versions:?} {number}");
        }
    }
}

#[test]
fn responses_without_content_pass_in_all_pairs_of_versions() {
    let head = [&[(":method", "HEAD")], &GET[1..]].concat();
    for versions in PAIRS {
        for (request, response) in [
            (
                &head[..],
                &[(":status", "200"), ("content-length", "9")][..],
            ),
            (&GET, &[(":status", "304"), ("content-length", "9")]),
            (&GET, &[(":status", "204")]),
        ] {
            let mut path = Path::of(versions, AllowedTenants::None);
            path.request(request, true);
            path.carry();
            path.send(BACKEND, ONE, &[(":status", "103"), ("link", "x")], false);
            path.send(BACKEND, ONE, response, true);
            let [client, _] = path.carry();
            let early = owned(&[(":status", "103"), ("link", "x")]);
            let expected = [
                Heard::Section(early, false),
                Heard::Section(owned(response), true),
            ];
            assert_eq!(client, expected, "{versions:?}");
            assert_eq!(path.forwarder.exchanges(), 0);
        }
    }
}

/// What a client of HTTP/1 sends as it likes, and what it gets.
struct Raw {
    path: Path,
    key: ConnectionKey,
}

impl Raw {
    fn new(backend: HttpVersion) -> Self {
        let path = Path::of([Http1, backend], AllowedTenants::None);
        let key = path.keys[CLIENT];
        Raw { path, key }
    }

    fn say(&mut self, bytes: &str) -> usize {
        let Path {
            forwarder,
            keys,
            now,
            ..
        } = &mut self.path;
        let mut route = To(Ok(keys[BACKEND]));
        forwarder.receive(self.key, bytes.as_bytes(), &mut route, *now)
    }

    fn hear(&mut self) -> String {
        let Path {
            forwarder,
            keys,
            now,
            ..
        } = &mut self.path;
        let mut route = To(Ok(keys[BACKEND]));
        String::from_utf8(said_on(forwarder, self.key, &mut route, *now)).unwrap()
    }

    fn heard_by_backend(&mut self) -> Vec<Heard> {
        let Path {
            forwarder,
            keys,
            now,
            ends,
        } = &mut self.path;
        let mut route = To(Ok(keys[BACKEND]));
        let bytes = said_on(forwarder, keys[BACKEND], &mut route, *now);
        hear(&mut ends[BACKEND], &bytes, *now)
    }
}

#[test]
fn a_malformed_request_of_http_1_is_answered_and_reaches_no_backend() {
    for backend in [Http1, Http2] {
        for (bytes, status) in [
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                "400",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "400"),
            ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        ] {
            let mut raw = Raw::new(backend);
            assert_eq!(raw.say(bytes), bytes.len());
            assert!(raw.hear().starts_with(&format!("HTTP/1.1 {status} ")));
            assert_eq!(raw.heard_by_backend(), []);
            assert_eq!(raw.path.forwarder.exchanges(), 0);
            let connection = raw.path.forwarder.connection(raw.key).unwrap();
            assert!(connection.is_closed() && !connection.wants_input());
        }
    }
}

#[test]
fn a_chunk_that_is_malformed_takes_the_request_back() {
    let mut raw = Raw::new(Http2);
    raw.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_eq!(raw.heard_by_backend().len(), 2);
    raw.say("nonsense");
    assert!(raw.hear().starts_with("HTTP/1.1 400 "));
    assert_eq!(raw.heard_by_backend(), [Heard::Reset("cancel".to_owned())]);
    assert_eq!(raw.path.forwarder.exchanges(), 0);
}

#[test]
fn a_pipeline_is_served_in_turn_and_stays_with_its_reader() {
    let mut raw = Raw::new(Http2);
    let first = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let taken = raw.say(&[first, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(taken, first.len());
    let connection = raw.path.forwarder.connection(raw.key).unwrap();
    assert!(!connection.wants_input());
    assert_eq!(raw.path.forwarder.exchanges(), 1);
}

#[test]
fn a_client_of_http_1_that_leaves_takes_its_request_along() {
    let mut raw = Raw::new(Http2);
    raw.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.heard_by_backend();
    let (now, backend) = (raw.path.now, raw.path.keys[BACKEND]);
    raw.path
        .forwarder
        .end_of_input(raw.key, true, &mut To(Ok(backend)), now);
    assert_eq!(raw.heard_by_backend(), [Heard::Reset("cancel".to_owned())]);
    assert_eq!(raw.path.forwarder.exchanges(), 0);
}

#[test]
fn a_client_of_http_1_sees_that_its_response_is_cut_off() {
    let mut raw = Raw::new(Http2);
    raw.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.heard_by_backend();
    raw.path.send(BACKEND, ONE, &[(":status", "200")], false);
    assert_eq!(raw.path.ends[BACKEND].send_data(ONE, b"abc", false), 3);
    assert_eq!(
        raw.path.ends[BACKEND].reset(ONE, ErrorCode::InternalError),
        0
    );
    let bytes = raw.path.ends[BACKEND].take_output();
    let (now, backend) = (raw.path.now, raw.path.keys[BACKEND]);
    let mut route = To(Ok(backend));
    let taken = raw.path.forwarder.receive(backend, &bytes, &mut route, now);
    assert_eq!(taken, bytes.len());
    assert!(!raw.hear().ends_with("0\r\n\r\n"));
    let connection = raw.path.forwarder.connection(raw.key).unwrap();
    assert!(connection.is_closed() && connection.is_cut_off());
}

/// A backend of HTTP/1 that has got a request of a client of HTTP/2, and says what it likes.
fn answered(response: &str, ends: Option<bool>) -> Vec<Heard> {
    let mut path = Path::of([Http2, Http1], AllowedTenants::None);
    path.request(&GRPC, true);
    path.carry();
    let (now, backend) = (path.now, path.keys[BACKEND]);
    let mut route = To(Ok(backend));
    let forwarder = &mut path.forwarder;
    let taken = forwarder.receive(backend, response.as_bytes(), &mut route, now);
    assert_eq!(taken, response.len());
    if let Some(is_authentic) = ends {
        forwarder.end_of_input(backend, is_authentic, &mut route, now);
    }
    assert_eq!(forwarder.exchanges(), 0);
    let bytes = said_on(forwarder, path.keys[CLIENT], &mut route, now);
    hear(&mut path.ends[CLIENT], &bytes, now)
}

#[test]
fn a_response_that_ends_with_its_connection_is_complete_only_if_that_ends_well() {
    let response = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabc";
    let complete = answered(response, Some(true));
    assert_eq!(complete.last(), Some(&Heard::Data(vec![], true)));
    let cut_off = answered(response, Some(false));
    let (trailers, ends) = section(cut_off.last().unwrap());
    assert!(ends && values(trailers, "grpc-status") == ["14"]);
}

#[test]
fn a_backend_of_http_1_that_breaks_off_becomes_a_status() {
    for (response, ends) in [
        ("", Some(true)),
        ("HTTP/1.1 2", Some(true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Some(true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", None),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", None),
    ] {
        let heard = answered(response, ends);
        let (fields, ends) = section(heard.last().unwrap());
        assert!(ends, "{response}");
        assert_eq!(values(fields, "grpc-status"), ["14"], "{response}");
    }
}

#[test]
fn a_connection_that_is_over_without_a_word_is_shown_once() {
    let mut path = Path::of([Http2, Http1], AllowedTenants::None);
    path.request(&GRPC, true);
    path.carry();
    let unsent = path.ends[CLIENT].reset(ONE, ErrorCode::Cancel);
    assert_eq!(unsent, 0);
    let bytes = path.ends[CLIENT].take_output();
    let mut route = To(Ok(path.keys[BACKEND]));
    let taken = path
        .forwarder
        .receive(path.keys[CLIENT], &bytes, &mut route, path.now);
    assert_eq!(taken, bytes.len());
    assert_eq!(path.forwarder.next_ready(), Some(path.keys[BACKEND]));
    let backend = path.keys[BACKEND];
    assert_eq!(
        said_on(&mut path.forwarder, backend, &mut route, path.now),
        b""
    );
    assert_eq!(path.forwarder.next_ready(), None);
    assert!(path.forwarder.connection(backend).unwrap().is_closed());
}
