//! Bytes at random, many of them nearly right: whatever a peer sends, the connection stays within its bounds, and says
//! the same however the bytes are cut. And what one end of ours writes, the other one reads.

use gateway_core::http::h1::Http1Connection;
use gateway_core::http::h2::{Event, Role, StreamId};
use gateway_core::http::limits::{HEAD_BYTES_MAX, OUTPUT_BYTES_MAX};
use gateway_core::http::message::{HeaderList, check_trailers, read_request, read_response};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::*;

/// Words that messages are made of, and that break them.
const WORDS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 204\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "content-length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close, x\r\n",
    "Connection: keep-alive\r\n",
    "TE: trailers\r\n",
    "Expect: 100-continue\r\n",
    "X: y\r\n",
    "\r\n",
    "\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n",
    "1;a=b\r\n",
    "\n",
    "\r",
    " ",
    ":",
    "\0",
    "é",
    "Upgrade: x\r\n",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let words = vec(prop::sample::select(WORDS), 0..24).prop_map(|words| words.concat());
    let right = vec(
        (
            prop::sample::select(&["GET", "POST"][..]),
            prop::sample::select(&["", "X: y\r\n", "Connection: x\r\n"][..]),
            prop::sample::select(
                &[
                    "\r\n",
                    "Content-Length: 3\r\n\r\nabc",
                    "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nT: 1\r\n\r\n",
                ][..],
            ),
        ),
        1..4,
    );
    let right = right.prop_map(|requests| {
        let requests = requests.iter().map(|(method, field, rest)| {
            format!("{method} / HTTP/1.1\r\nHost: a\r\n{field}{rest}")
        });
        requests.collect::<String>()
    });
    prop_oneof![
        3 => words.prop_map(String::into_bytes),
        2 => right.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..60),
    ]
}

/// What a connection does about some bytes.
fn play(role: Role, bytes: &[u8], piece_bytes: usize) -> (Vec<Told>, String) {
    let mut peer = match role {
        Role::Server => Peer::client(),
        Role::Client => Peer::backend("GET"),
    };
    let mut told = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        let was_closed = peer.connection.is_closed();
        let more = peer.say(piece);
        assert!(!was_closed || more.is_empty());
        more.into_iter().for_each(|one| put(&mut told, one));
        assert!(peer.connection.output().len() < OUTPUT_BYTES_MAX + HEAD_BYTES_MAX);
        assert!(peer.unread.is_empty() || !peer.connection.wants_input());
    }
    (told, peer.hear())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn bytes_at_random_break_nothing_and_mean_the_same_in_pieces(
        bytes in bytes(),
        is_client: bool,
        piece_bytes in 1_usize..30,
    ) {
        let role = if is_client { Role::Server } else { Role::Client };
        prop_assert_eq!(play(role, &bytes, piece_bytes), play(role, &bytes, usize::MAX));
    }

    /// Whatever is told is a message that the rest of the program takes as well-formed, or refuses for what it says;
    /// never one that could be read in two ways.
    #[test]
    fn what_is_told_speaks_of_its_message_alone(bytes in bytes(), is_client: bool) {
        let role = if is_client { Role::Server } else { Role::Client };
        let mut connection = Http1Connection::new(role);
        if role == Role::Client {
            let stream = connection.open(1).unwrap();
            connection.send_section(stream, fields(&[(":method", "GET")]), true);
            connection.take_output();
        }
        let mut list = HeaderList::new(LIST_SIZE_MAX);
        let (mut rest, mut has_response) = (&bytes[..], false);
        let now = std::time::Instant::now();
        while let Some(event) = connection.receive(&mut rest, &mut list, now) {
            let checked = match event {
                Event::Request { .. } => read_request(&list).map(|_| ()),
                Event::Section { .. } if role == Role::Server || has_response => {
                    check_trailers(&list)
                }
                Event::Section { .. } => read_response(&list).map(|response| {
                    has_response = !response.is_interim();
                }),
                _ => continue,
            };
            prop_assert_eq!(checked, Ok(()), "{}", text(&list));
        }
    }

    #[test]
    fn what_one_end_writes_the_other_one_reads(
        method in prop::sample::select(&["GET", "POST", "PUT"][..]),
        path in "/[a-z0-9?=/%.-]{0,20}",
        more in vec(("[a-z][a-z0-9-]{0,12}", "([!-~]([ -~]{0,20}[!-~])?)?"), 0..8),
        content in vec(vec(any::<u8>(), 0..200), 0..5),
        has_length: bool,
        has_trailers: bool,
        piece_bytes in 1_usize..300,
    ) {
        let length = content.iter().map(Vec::len).sum::<usize>().to_string();
        let mut request = vec![(":method", method), (":scheme", "https"), (":path", &*path), (":authority", "a.example:1")];
        let special = ["host", "te", "connection", "expect", "upgrade", "keep-alive", "cookie", "content-length"];
        let regular = more.iter().filter(|(name, _)| !special.contains(&&**name));
        request.extend(regular.map(|(name, value)| (&**name, &**value)));
        if has_length {
            request.push(("content-length", &length));
        }
        let has_trailers = has_trailers && !has_length;
        let mut sender = Http1Connection::new(Role::Client);
        let stream = sender.open(1).unwrap();
        let is_empty = content.is_empty() && !has_trailers;
        sender.send_section(stream, fields(&request), is_empty && !has_length);
        let mut sent = Vec::new();
        for (position, piece) in content.iter().enumerate() {
            let ends = position + 1 == content.len() && !has_trailers;
            prop_assert_eq!(sender.send_data(stream, piece, ends), piece.len());
            sent.extend_from_slice(piece);
        }
        if has_trailers {
            sender.send_section(stream, fields(&[("grpc-status", "0")]), true);
        } else if content.is_empty() && has_length {
            prop_assert_eq!(sender.send_data(stream, b"", true), 0);
        }
        let written = sender.take_output();
        let mut receiver = Peer::client();
        let mut told = Vec::new();
        for piece in written.chunks(piece_bytes) {
            receiver.say(piece).into_iter().for_each(|one| put(&mut told, one));
        }
        let Told::Request(head, _) = &told[0] else {
            panic!("{told:?}");
        };
        let mut expected = format!("{method} https {path} a.example:1");
        for (name, value) in &request[4..] {
            expected += &format!(" {name}={value}");
        }
        // A request that says nothing of its content has none, which is said.
        let says_none = is_empty && !has_length && method != "GET";
        prop_assert_eq!(head.clone(), expected + if says_none { " content-length=0" } else { "" });
        let got = told.iter().filter_map(|one| match one {
            Told::Data(data, _) => Some(&data[..]),
            _ => None,
        });
        prop_assert_eq!(got.collect::<Vec<_>>().concat(), sent);
        let trailers = Told::Section("grpc-status=0".to_owned(), true);
        prop_assert_eq!(told.contains(&trailers), has_trailers);
        prop_assert_eq!(receiver.stream, StreamId::new(1));
        prop_assert!(receiver.connection.open_streams() == 0 && !receiver.connection.is_closed());
    }
}
