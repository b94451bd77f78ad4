//! Rules of RFC 9113, each by the raw frames that break it or barely keep it.

use ErrorCode::ProtocolError;
use gateway_core::http::h2::{ErrorCode, PREFACE, Role, StreamId};

use crate::support::*;

/// What frames lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The connection ends.
    Goaway(ErrorCode),
    /// This stream is reset, and the connection stays.
    Reset(u32, ErrorCode),
    /// Nothing ends.
    Fine,
}
use Outcome::{Fine, Goaway, Reset};

/// A rule a line: its section, frames, and what follows. Frames are a word and numbers: stream, flags, bytes. `raw` has
/// type, flags, stream and payload, as hexadecimal digits or so many zeros (`z9`); `split` is a request of which `rest`
/// is missing. A star and a number repeat a frame.
pub const CLIENTS: &str = "
4.1: the reserved bit is ignored | request 2147483649 5 | fine
4.1: flags without a meaning are ignored | raw 6 fe 0 z8 | fine
4.2: a frame as long as allowed | request 1 4, data 1 1 16384 | fine
4.2: DATA longer than allowed | request 1 4, data 1 0 16385 | goaway frame_size_error
4.2: HEADERS longer than allowed | raw 1 5 1 z16385 | goaway frame_size_error
4.2: an unknown frame longer than allowed | raw 16 0 0 z16385 | goaway frame_size_error
5.3.2: a stream that depends on itself, which says nothing any more | raw 2 0 1 0000000109 | fine
5.5: a frame of an unknown type | raw 16 ff 7 616263 | fine
6.1: DATA on stream 0 | data 0 0 1 | goaway protocol_error
6.1: padding as long as the payload | request 1 4, raw 0 8 1 0500000000 | goaway protocol_error
6.1: nothing but padding | request 1 4, raw 0 9 1 0400000000 | fine
6.1: no room for the length of the padding | request 1 4, raw 0 8 1 - | goaway frame_size_error
6.2: HEADERS on stream 0 | request 0 5 | goaway protocol_error
6.2: padding longer than the fragment | raw 1 d 1 0982 | goaway protocol_error
6.2: no room for the priority | raw 1 25 1 z4 | goaway frame_size_error
6.3: PRIORITY on stream 0 | raw 2 0 0 z5 | goaway protocol_error
6.3: PRIORITY of four bytes | request 1 4, raw 2 0 1 z4 | reset 1 frame_size_error
6.3: PRIORITY of an idle stream | raw 2 0 9 z5 | fine
6.4: RST_STREAM on stream 0 | reset 0 | goaway protocol_error
6.4: RST_STREAM of three bytes | request 1 4, raw 3 0 1 z3 | goaway frame_size_error
6.4: RST_STREAM of an idle stream | reset 1 | goaway protocol_error
6.4: RST_STREAM of a stream of the server's | reset 2 | goaway protocol_error
6.5: SETTINGS on a stream | raw 4 0 1 - | goaway protocol_error
6.5: SETTINGS of seven bytes | raw 4 0 0 z7 | goaway frame_size_error
6.5: an acknowledgement with a payload | raw 4 1 0 z6 | goaway frame_size_error
6.5.2: ENABLE_PUSH of 2 | setting 2 2 | goaway protocol_error
6.5.2: INITIAL_WINDOW_SIZE of 2^31 | setting 4 2147483648 | goaway flow_control_error
6.5.2: MAX_FRAME_SIZE of 2^14 - 1 | setting 5 16383 | goaway protocol_error
6.5.2: MAX_FRAME_SIZE of 2^24 | setting 5 16777216 | goaway protocol_error
6.5.2: an unknown setting | setting 255 7 | fine
6.6: PUSH_PROMISE by a client | request 1 4, raw 5 4 1 00000002 | goaway protocol_error
6.6: PUSH_PROMISE on stream 0 | raw 5 4 0 00000002 | goaway protocol_error
6.7: PING on a stream | raw 6 0 1 z8 | goaway protocol_error
6.7: PING of seven bytes | raw 6 0 0 z7 | goaway frame_size_error
6.7: an answer to no PING | raw 6 1 0 z8 | fine
6.8: GOAWAY on a stream | raw 7 0 1 z8 | goaway protocol_error
6.8: GOAWAY of seven bytes | raw 7 0 0 z7 | goaway frame_size_error
6.8: GOAWAY by a client, with a reason | raw 7 0 0 0000000000000000616263, request 1 5 | fine
6.9: credit of five bytes' length | raw 8 0 0 z5 | goaway frame_size_error
6.9: no credit for the connection | credit 0 0 | goaway protocol_error
6.9: no credit for a stream | request 1 4, credit 1 0 | reset 1 protocol_error
6.9: no credit for a stream that is gone | request 1 4, reset 1, credit 1 0 | fine
6.9: credit for an idle stream | credit 1 1 | goaway protocol_error
6.9.1: too much credit for the connection | credit 0 2147483647 | goaway flow_control_error
6.9.1: too much credit for a stream | request 1 4, credit 1 2147483647 | reset 1 flow_control_error
6.9.1: just as much as goes | credit 0 2147418112 | fine
6.9.1: more DATA than the window | request 1 4, data 1 0 16384 * 4 | goaway flow_control_error
6.9.2: a setting that overflows a window | request 1 4, credit 1 1, setting 4 2147483647 | goaway flow_control_error
6.9.2: a setting that just does not | request 1 4, setting 4 2147483647 | fine
";

pub const FIELD_BLOCKS: &str = "
6.10: a block in two frames | split 1, rest 1 4 | fine
6.10: an empty CONTINUATION between | split 1, raw 9 0 1 -, rest 1 4 | fine
6.10: CONTINUATION of another stream | split 1, rest 3 4 | goaway protocol_error
6.10: CONTINUATION of stream 0 | split 1, rest 0 4 | goaway protocol_error
6.10: CONTINUATION of nothing | raw 9 4 1 - | goaway protocol_error
6.10: CONTINUATION behind a whole block | request 1 4, raw 9 4 1 - | goaway protocol_error
6.10: CONTINUATION behind DATA | request 1 4, data 1 0 1, raw 9 4 1 - | goaway protocol_error
4.3: PING within a block | split 1, raw 6 0 0 z8 | goaway protocol_error
4.3: DATA within a block | split 1, data 1 0 1 | goaway protocol_error
4.3: HEADERS within a block | split 1, request 3 5 | goaway protocol_error
4.3: an unknown frame within a block | split 1, raw 16 0 0 - | goaway protocol_error
4.3: a block that cannot be decoded | raw 1 5 1 ff | goaway compression_error
4.3: one of a stream that is gone | request 1 5, reset 1, raw 1 5 3 80 | goaway compression_error
4.3: a size of the table behind a field | raw 1 5 1 8220 | goaway compression_error
10.5.1: nine CONTINUATION frames | raw 1 0 1 -, raw 9 0 1 - * 9 | goaway enhance_your_calm
10.5.1: a block of more than 64 KiB | raw 1 0 1 z16384, raw 9 0 1 z16384 * 4 | goaway enhance_your_calm
";

pub const STATES: &str = "
5.1.1: streams rise | request 1 5, request 5 5, request 7 5 | fine
5.1.1: a stream below one that was opened | request 5 5, request 3 5 | goaway protocol_error
5.1.1: a stream of the server's | request 2 5 | goaway protocol_error
5.1: DATA on an idle stream | data 1 0 1 | goaway protocol_error
5.1: DATA on a stream of the server's | request 1 4, data 2 0 1 | goaway protocol_error
5.1: DATA behind the end | request 1 5, data 1 0 1 | reset 1 stream_closed
5.1: HEADERS behind the end | request 1 5, request 1 5 | reset 1 stream_closed
5.1: WINDOW_UPDATE behind the end | request 1 5, credit 1 1 | fine
5.1: DATA behind RST_STREAM | request 1 4, reset 1, data 1 0 1 | goaway stream_closed
5.1: HEADERS behind RST_STREAM | request 1 4, reset 1, request 1 5 | goaway stream_closed
5.1: WINDOW_UPDATE behind RST_STREAM | request 1 4, reset 1, credit 1 1 | fine
5.1: RST_STREAM twice | request 1 4, reset 1, reset 1 | fine
5.1: PRIORITY behind RST_STREAM | request 1 4, reset 1, raw 2 0 1 z5 | fine
5.1: DATA on a stream that was skipped | request 5 5, data 3 0 1 | goaway stream_closed
8.1: trailers | request 1 4, data 1 0 5, trailers 1 5 | fine
8.1: trailers behind nothing | request 1 4, trailers 1 5 | fine
8.1: trailers that do not end the stream | request 1 4, trailers 1 4 | reset 1 protocol_error
";

const BACKENDS: &str = "
8.1: a response | response 1 4, data 1 1 5 | fine
8.1: interim responses before it | response 1 4 * 3, response 1 5 | fine
8.1: DATA before the header section | data 1 0 1 | reset 1 protocol_error
5.1: a response on a stream that was not opened | response 3 5 | goaway protocol_error
5.1: DATA on a stream that was not opened | data 3 0 1 | goaway protocol_error
5.1.1: a response on a stream of the server's | response 2 5 | goaway protocol_error
5.1: DATA behind the end | response 1 5, data 1 0 1 | reset 1 stream_closed
6.4: RST_STREAM of a stream that was not opened | reset 3 | goaway protocol_error
6.5.2: a server that accepts pushed streams | setting 2 1 | goaway protocol_error
6.5.2: a server that does not | setting 2 0 | fine
6.9: credit for a stream that was not opened | credit 3 1 | goaway protocol_error
6.9.1: too much credit | credit 1 2147483647 | reset 1 flow_control_error
8.4: PUSH_PROMISE | raw 5 4 1 00000002 | goaway protocol_error
";

/// The bytes of a frame of the tables above.
fn frame_of(words: &[&str]) -> Vec<u8> {
    let number = |position: usize| words[position].parse::<u32>().unwrap();
    let octet = |position: usize| u8::from_str_radix(words[position], 16).unwrap();
    let fields = |fields: &[(&str, &str)]| frame(HEADERS, octet(2), number(1), &block(fields));
    match words[0] {
        "request" => fields(&REQUEST),
        "trailers" => fields(&[("grpc-status", "0")]),
        "response" => fields(&[(":status", "200")]),
        "split" => frame(HEADERS, END_STREAM, number(1), &block(&REQUEST)[..4]),
        "rest" => frame(CONTINUATION, octet(2), number(1), &block(&REQUEST)[4..]),
        "data" => data(number(1), octet(2), number(3) as usize),
        "reset" => rst_stream(number(1), ErrorCode::Cancel),
        "credit" => window_update(number(1), number(2)),
        "setting" => setting(number(1) as u16, number(2)),
        "raw" => {
            let payload = match words[4].strip_prefix('z') {
                Some(zeros) => vec![0; zeros.parse().unwrap()],
                None => bytes(words[4].trim_matches('-')),
            };
            frame(octet(1), octet(2), number(3), &payload)
        }
        word => panic!("{word} is no frame"),
    }
}

/// The bytes of a rule's frames.
pub fn frames_of(text: &str) -> Vec<u8> {
    let frames = text.split(',').map(|frame| {
        let words: Vec<&str> = frame.split_whitespace().collect();
        match words[..] {
            [ref words @ .., "*", times] => frame_of(words).repeat(times.parse().unwrap()),
            _ => frame_of(&words),
        }
    });
    frames.collect::<Vec<_>>().concat()
}

fn outcome_of(text: &str) -> Outcome {
    let code = |label: &str| {
        let mut all = ErrorCode::ALL.into_iter();
        all.find(|code| code.label() == label).unwrap()
    };
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["goaway", label] => Goaway(code(label)),
        ["reset", stream, label] => Reset(stream.parse().unwrap(), code(label)),
        ["fine"] => Fine,
        _ => panic!("{text} is no outcome"),
    }
}

fn outcome(peer: &mut Peer, bytes: &[u8], piece_bytes: usize) -> (Outcome, Vec<Answer>) {
    for piece in bytes.chunks(piece_bytes.max(1)) {
        peer.say(piece);
    }
    let heard = peer.hear();
    let mut ends = heard.iter().filter_map(|answer| match answer {
        Answer::Goaway(_, code) => Some(Goaway(*code)),
        Answer::RstStream(stream, code) => Some(Reset(*stream, *code)),
        _ => None,
    });
    let outcome = ends.next().unwrap_or(Fine);
    assert_eq!(ends.next(), None, "one fault ends one thing");
    assert_eq!(peer.connection.is_closed(), matches!(outcome, Goaway(_)));
    (outcome, heard)
}

fn check(peer: fn() -> Peer, rules: &str) {
    for rule in rules.lines().filter(|line| !line.is_empty()) {
        let [_, frames, expected] = rule.split('|').collect::<Vec<_>>()[..] else {
            panic!("{rule}");
        };
        let bytes = frames_of(frames);
        let whole = outcome(&mut peer(), &bytes, bytes.len());
        assert_eq!(whole.0, outcome_of(expected), "{rule}");
        for piece_bytes in [1, 2, 9, 10, 100] {
            let in_pieces = outcome(&mut peer(), &bytes, piece_bytes);
            assert_eq!(in_pieces, whole, "{rule}, {piece_bytes} bytes at once");
        }
    }
}

#[test]
fn clients_are_held_to_every_rule_in_whatever_pieces_they_send() {
    check(Peer::client, CLIENTS);
    check(Peer::client, FIELD_BLOCKS);
    check(Peer::client, STATES);
}

#[test]
fn backends_are_held_to_every_rule_in_whatever_pieces_they_send() {
    check(Peer::backend, BACKENDS);
}

#[test]
fn a_connection_begins_with_preface_and_settings() {
    let check_first = |bytes: &[u8], expected| {
        let (outcome, _) = outcome(&mut Peer::silent(Role::Server), bytes, bytes.len());
        assert_eq!(outcome, expected, "{bytes:?}");
    };
    let settings = frame(SETTINGS, 0, 0, b"");
    let with = |frame: &[u8]| [&PREFACE[..], frame].concat();
    check_first(&with(&settings), Fine);
    check_first(PREFACE, Fine);
    check_first(b"GET / HTTP/1.1\r\n", Goaway(ProtocolError));
    check_first(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Goaway(ProtocolError));
    check_first(&with(&request(1, WHOLE)), Goaway(ProtocolError));
    check_first(&with(&frame(PING, 0, 0, &[0; 8])), Goaway(ProtocolError));
    check_first(&with(&frame(SETTINGS, ACK, 0, b"")), Goaway(ProtocolError));
    check_first(&with(&frame(77, 0, 0, b"")), Goaway(ProtocolError));
}

#[test]
fn a_stream_that_we_reset_may_still_be_sent_to() {
    for late in [
        data(1, END_STREAM, 100),
        frame(HEADERS, WHOLE, 1, &block(&[("a", "b")])),
        window_update(1, 5),
        rst_stream(1, ErrorCode::Cancel),
    ] {
        let mut peer = Peer::client();
        assert_eq!(
            peer.say(&request(1, END_HEADERS)),
            [Told::Request(1, false)]
        );
        let unsent = peer.connection.reset(StreamId::new(1), ErrorCode::Cancel);
        assert_eq!(unsent, 0);
        assert_eq!(peer.hear(), [Answer::RstStream(1, ErrorCode::Cancel)]);
        assert_eq!(peer.say(&late), []);
        assert_eq!(peer.hear(), []);
        // And what it learnt from the late section, later ones build on.
        assert_eq!(peer.say(&request(3, WHOLE)), [Told::Request(3, true)]);
    }
}

#[test]
fn pings_are_answered_and_settings_acknowledged_in_order() {
    let mut peer = Peer::client();
    let said = [
        frame(PING, 0, 0, b"abcdefgh"),
        setting(3, 5),
        frame(PING, 0, 0, b"12345678"),
    ];
    assert_eq!(peer.say(&said.concat()), []);
    let expected = [
        Answer::PingAck(*b"abcdefgh"),
        Answer::SettingsAck,
        Answer::PingAck(*b"12345678"),
    ];
    assert_eq!(peer.hear(), expected);
}

#[test]
fn a_stream_beyond_the_limit_is_refused_and_its_block_is_decoded() {
    let mut peer = Peer::client();
    for number in 0..256 {
        let stream = 2 * number + 1;
        assert_eq!(
            peer.say(&request(stream, END_HEADERS)),
            [Told::Request(stream, false)]
        );
    }
    // It puts a field into the table, which a later request names.
    let literal = [&block(&REQUEST)[..], &[0x40, 1, b'a', 1, b'b']].concat();
    assert_eq!(peer.say(&frame(HEADERS, END_HEADERS, 513, &literal)), []);
    assert_eq!(
        peer.hear(),
        [Answer::RstStream(513, ErrorCode::RefusedStream)]
    );
    assert_eq!(peer.say(&data(513, END_STREAM, 10)), []);
    let unsent = peer.connection.reset(StreamId::new(1), ErrorCode::Cancel);
    assert_eq!(unsent, 0);
    let indexed = [&block(&REQUEST)[..], &[0xbe]].concat();
    let told = peer.say(&frame(HEADERS, WHOLE, 515, &indexed));
    assert_eq!(told, [Told::Request(515, true)]);
}
