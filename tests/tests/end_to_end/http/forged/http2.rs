//! The table for clients of HTTP/2.
//! In: rows of a claim, what is sent, what is to become of it. Out: complaints.

use std::net::SocketAddr;
use std::time::Instant;

use tests::{
    Answer, ClientBuilder, Http2Client, data, field_block, flag, frame, frame_type, headers,
    literal, window_update,
};

use super::Expected::{self, Clean, Either, Refused};
use super::judge::Judge;
use super::{CONTENT, Row};

type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

/// What a row sends.
enum Sent {
    /// These behind the fields of a good request.
    With(Fields<'static>),
    /// A good request, with this value for a name that it has.
    But(&'static str, &'static [u8]),
    /// A good request without this name.
    Without(&'static str),
    /// These fields alone.
    Only(Fields<'static>),
    /// These bytes in the field block behind the fields of a good request.
    Block(&'static [u8]),
    /// These bytes before them.
    BlockBefore(&'static [u8]),
    /// A good request with these trailers.
    Trailers(Fields<'static>),
    /// Frames in place of a request.
    Frames(fn() -> Vec<u8>),
}

use Sent::{Block, BlockBefore, But, Frames, Only, Trailers, With, Without};

/// The stream of every row.
const STREAM: u32 = 1;

const GOOD: Fields<'static> = &[
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":path", b"/case"),
    (b":authority", b"gateway.test"),
    (b"content-type", b"text/plain"),
];

type Case = (&'static str, Sent, Expected);

/// Names that backends believe, in every spelling and form.
#[rustfmt::skip]
const NAMES: &[Case] = &[
    ("nothing forged", With(&[]), Clean),
    ("the tenant", With(&[(b"x-scope-orgid", b"forged")]), Clean),
    ("the tenant twice", With(&[(b"x-scope-orgid", b"forged"), (b"x-scope-orgid", b"forged-2")]), Clean),
    ("the right tenant, then another", With(&[(b"x-scope-orgid", b"team-a"), (b"x-scope-orgid", b"forged")]), Clean),
    ("two tenants in one value", With(&[(b"x-scope-orgid", b"team-a|forged")]), Clean),
    ("underscores", With(&[(b"x_scope_orgid", b"forged")]), Clean),
    ("one underscore", With(&[(b"x-scope_orgid", b"forged")]), Clean),
    ("upper case", With(&[(b"X-Scope-OrgID", b"forged")]), Refused),
    ("one letter in upper case", With(&[(b"x-scope-orgiD", b"forged")]), Refused),
    ("a blank behind the name", With(&[(b"x-scope-orgid ", b"forged")]), Refused),
    ("a tab behind the name", With(&[(b"x-scope-orgid\t", b"forged")]), Refused),
    ("a blank before the name", With(&[(b" x-scope-orgid", b"forged")]), Refused),
    ("a colon behind the name", With(&[(b"x-scope-orgid:", b"forged")]), Refused),
    ("a NUL behind the name", With(&[(b"x-scope-orgid\0", b"forged")]), Refused),
    ("a line end in a name", With(&[(b"x-a: b\r\nx-scope-orgid", b"forged")]), Refused),
    ("a line feed in a name", With(&[(b"x-a: b\nx-scope-orgid", b"forged")]), Refused),
    ("a letter beyond ASCII in the name", With(&[("x-\u{17f}cope-orgid".as_bytes(), b"forged")]), Refused),
    ("an empty name", With(&[(b"", b"forged")]), Refused),
    ("a line end in a value", With(&[(b"x-a", b"b\r\nx-scope-orgid: forged")]), Refused),
    ("a line feed in a value", With(&[(b"x-a", b"b\nx-scope-orgid: forged")]), Refused),
    ("a carriage return in a value", With(&[(b"x-a", b"b\rx-scope-orgid: forged")]), Refused),
    ("a NUL in a value", With(&[(b"x-a", b"b\0c")]), Refused),
    ("a value that ends the head", With(&[(b"x-a", b"b\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")]), Refused),
    ("the certificate", With(&[(b"x-forwarded-client-cert", b"Hash=forged")]), Clean),
    ("the certificate with underscores", With(&[(b"x_forwarded_client_cert", b"Hash=forged")]), Clean),
    ("the client's identity", With(&[(b"x-scope-clientid", b"forged")]), Clean),
    ("the address", With(&[(b"x-forwarded-for", b"forged")]), Clean),
    ("the scheme of the client", With(&[(b"x-forwarded-proto", b"forged")]), Clean),
    ("the address by RFC 7239", With(&[(b"forwarded", b"for=forged")]), Clean),
    ("the tenant in trailers", Trailers(&[(b"x-scope-orgid", b"forged")]), Clean),
    ("the tenant in trailers with underscores", Trailers(&[(b"x_scope_orgid", b"forged")]), Clean),
    ("the tenant in trailers in upper case", Trailers(&[(b"X-Scope-OrgID", b"forged")]), Refused),
    ("a pseudo-header field in trailers", Trailers(&[(b":path", b"/smuggled")]), Refused),
    ("Transfer-Encoding in trailers", Trailers(&[(b"transfer-encoding", b"chunked")]), Refused),
    ("Content-Length in trailers", Trailers(&[(b"content-length", b"40")]), Either),
    ("Host in trailers", Trailers(&[(b"host", b"forged")]), Either),
    ("a line end in trailers", Trailers(&[(b"x-a", b"b\r\nx-scope-orgid: forged")]), Refused),
];

/// What HPACK can hide.
#[rustfmt::skip]
const HPACK: &[Case] = &[
    ("the tenant, never indexed", Block(b"\x10\x0dx-scope-orgid\x06forged"), Clean),
    ("the tenant, learnt and repeated", Block(b"\x40\x0dx-scope-orgid\x06forged\xbe"), Clean),
    ("the tenant's name, learnt, with another value", Block(b"\x40\x0dx-scope-orgid\x06team-a\x7e\x06forged"), Clean),
    ("the tenant in Huffman's code", Block(b"\x00\x8a\xf2\xb2\x08\x7a\xca\xb1\xec\x98\xd2\x7f\x85\x94\xf6\x4c\x59\x3f"), Clean),
    ("a table of no size", BlockBefore(b"\x20"), Clean),
    ("a table beyond the limit", BlockBefore(b"\x3f\xff\xff\x7f"), Refused),
    ("a table's size behind fields", Block(b"\x20"), Refused),
    ("index 0", Block(b"\x80"), Refused),
    ("an index that nobody has learnt", Block(b"\xff\x80\x01"), Refused),
    ("an integer without an end", Block(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Refused),
    ("a string longer than the block", Block(b"\x00\x0dx-scope"), Refused),
    ("Huffman's code with a long padding", Block(b"\x00\x01a\x82\x1f\xff"), Refused),
    ("Huffman's code with zeros for padding", Block(b"\x00\x01a\x81\x18"), Refused),
    ("the end of string in Huffman's code", Block(b"\x00\x01a\x84\xff\xff\xff\xff"), Refused),
];

/// Pseudo-header fields.
#[rustfmt::skip]
const PSEUDO: &[Case] = &[
    ("two methods", With(&[(b":method", b"GET")]), Refused),
    ("two paths", Only(&[(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/case"), (b":path", b"/smuggled"), (b":authority", b"gateway.test")]), Refused),
    ("two authorities", Only(&[(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/case"), (b":authority", b"gateway.test"), (b":authority", b"forged")]), Refused),
    ("two schemes", Only(&[(b":method", b"POST"), (b":scheme", b"https"), (b":scheme", b"http"), (b":path", b"/case"), (b":authority", b"gateway.test")]), Refused),
    ("a pseudo-header field behind another", With(&[(b":path", b"/smuggled")]), Refused),
    ("an unknown pseudo-header field", Only(&[(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/case"), (b":x-scope-orgid", b"forged"), (b":authority", b"gateway.test")]), Refused),
    ("a status in a request", Only(&[(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/case"), (b":status", b"200"), (b":authority", b"gateway.test")]), Refused),
    ("a protocol for CONNECT", Only(&[(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":path", b"/case"), (b":authority", b"gateway.test")]), Refused),
    ("CONNECT", Only(&[(b":method", b"CONNECT"), (b":authority", b"forged:443")]), Refused),
    ("no method", Without(":method"), Refused),
    ("no scheme", Without(":scheme"), Refused),
    ("no path", Without(":path"), Refused),
    ("no authority and no Host", Without(":authority"), Either),
    ("an empty path", But(":path", b""), Refused),
    ("a path without a slash", But(":path", b"case"), Refused),
    ("a path with a line end", But(":path", b"/case HTTP/1.1\r\nx-scope-orgid: forged\r\nx: y"), Refused),
    ("a path with a request behind it", But(":path", b"/case HTTP/1.1\r\n\r\nGET /smuggled"), Refused),
    ("a path with a blank", But(":path", b"/case /smuggled"), Refused),
    ("a path with a tab", But(":path", b"/case\t/smuggled"), Refused),
    ("a path with a NUL", But(":path", b"/case\0"), Refused),
    ("a path with a fragment", But(":path", b"/case#smuggled"), Refused),
    ("a path that walks up", But(":path", b"/case/../smuggled"), Refused),
    ("a path that walks up, encoded", But(":path", b"/case/%2e%2E/smuggled"), Refused),
    ("a path that walks up behind an encoded slash", But(":path", b"/case/x%2f..%2fsmuggled"), Refused),
    ("a path that walks up behind a backslash", But(":path", b"/case\\..\\smuggled"), Refused),
    ("an empty segment", But(":path", b"//case"), Refused),
    ("an encoded letter", But(":path", b"/c%61se"), Refused),
    ("a path that is a whole URI", But(":path", b"https://forged/case"), Refused),
    ("an asterisk for POST", But(":path", b"*"), Refused),
    ("a method with a blank", But(":method", b"POST /smuggled HTTP/1.1\r\nx: y\r\n\r\nGET"), Refused),
    ("an empty method", But(":method", b""), Refused),
    ("a method with a line end", But(":method", b"POST\r\nx"), Refused),
    ("an authority with a line end", But(":authority", b"gateway.test\r\nx-scope-orgid: forged"), Refused),
    ("an authority with a path", But(":authority", b"gateway.test/smuggled"), Refused),
    ("an authority with a user", But(":authority", b"forged@gateway.test"), Refused),
    ("an authority with a blank", But(":authority", b"gateway.test forged"), Refused),
    ("an empty authority", But(":authority", b""), Refused),
    ("a scheme of another kind", But(":scheme", b"ftp"), Refused),
    ("a scheme with a host", But(":scheme", b"https://forged/?"), Refused),
    ("a Host that is the authority", With(&[(b"host", b"gateway.test")]), Clean),
    ("a Host that is another", With(&[(b"host", b"forged")]), Refused),
    ("two Hosts", With(&[(b"host", b"gateway.test"), (b"host", b"gateway.test")]), Refused),
];

/// What frames a message or speaks of the connection.
#[rustfmt::skip]
const FRAMING: &[Case] = &[
    ("Transfer-Encoding", With(&[(b"transfer-encoding", b"chunked")]), Refused),
    ("Transfer-Encoding and Content-Length", With(&[(b"transfer-encoding", b"chunked"), (b"content-length", b"4")]), Refused),
    ("Transfer-Encoding with an underscore", With(&[(b"transfer_encoding", b"chunked")]), Either),
    ("Connection", With(&[(b"connection", b"x-scope-orgid")]), Refused),
    ("Keep-Alive", With(&[(b"keep-alive", b"timeout=5")]), Refused),
    ("Proxy-Connection", With(&[(b"proxy-connection", b"close")]), Refused),
    ("Upgrade", With(&[(b"upgrade", b"h2c")]), Refused),
    ("TE other than trailers", With(&[(b"te", b"gzip")]), Refused),
    ("TE: trailers", With(&[(b"te", b"trailers")]), Clean),
    ("the right Content-Length", With(&[(b"content-length", b"4")]), Clean),
    ("the right Content-Length twice", With(&[(b"content-length", b"4"), (b"content-length", b"4")]), Refused),
    ("two lengths", With(&[(b"content-length", b"4"), (b"content-length", b"5")]), Refused),
    ("two lengths in one value", With(&[(b"content-length", b"4, 4")]), Refused),
    ("a length below the content", With(&[(b"content-length", b"3")]), Refused),
    ("a length above the content", With(&[(b"content-length", b"5")]), Refused),
    ("a length with a sign", With(&[(b"content-length", b"+4")]), Refused),
    ("a negative length", With(&[(b"content-length", b"-4")]), Refused),
    ("a length in hexadecimal digits", With(&[(b"content-length", b"0x4")]), Refused),
    ("a length with a blank", With(&[(b"content-length", b" 4")]), Refused),
    ("a length beyond 64 bits", With(&[(b"content-length", b"18446744073709551620")]), Refused),
    ("an empty length", With(&[(b"content-length", b"")]), Refused),
    ("a length with an underscore in its name", With(&[(b"content_length", b"40")]), Either),
    ("a length without content", Frames(length_without_content), Refused),
];

/// Frames.
#[rustfmt::skip]
const FRAMES: &[Case] = &[
    ("a list over two frames", Frames(continued), Clean),
    ("a name cut by the end of a frame", Frames(cut_in_a_name), Clean),
    ("padding that looks like fields", Frames(padded_headers), Clean),
    ("padding that looks like a request", Frames(padded_data), Clean),
    ("padding longer than its frame", Frames(|| frame(frame_type::HEADERS, END | flag::PADDED, STREAM, b"\xff\x00")), Refused),
    ("DATA between HEADERS and CONTINUATION", Frames(interleaved), Refused),
    ("CONTINUATION of another stream", Frames(continued_elsewhere), Refused),
    ("CONTINUATION without HEADERS", Frames(|| frame(frame_type::CONTINUATION, END, STREAM, &field_block(GOOD))), Refused),
    ("a stream of the server's", Frames(|| headers(2, GOOD, true)), Refused),
    ("a request on the connection itself", Frames(|| headers(0, GOOD, true)), Refused),
    ("DATA before HEADERS", Frames(|| [data(STREAM, b"x", false), headers(STREAM, GOOD, false), data(STREAM, CONTENT, true)].concat()), Refused),
    ("DATA behind the end", Frames(data_behind_the_end), Either),
    ("a push by the client", Frames(|| frame(frame_type::PUSH_PROMISE, flag::END_HEADERS, STREAM, &[&[0, 0, 0, 2][..], &field_block(GOOD)].concat())), Refused),
    ("a second list that does not end the stream", Frames(two_lists), Refused),
    ("a window of no size", Frames(|| [headers(STREAM, GOOD, false), window_update(STREAM, 0)].concat()), Refused),
    ("a list that is too large", Frames(too_large), Refused),
];

const END: u8 = flag::END_HEADERS | flag::END_STREAM;

fn length_without_content() -> Vec<u8> {
    let fields = [GOOD, &[(b"content-length", b"4")]].concat();
    headers(STREAM, &fields, true)
}

fn continued() -> Vec<u8> {
    let first = field_block(GOOD);
    let second = field_block(&[(b"x-scope-orgid", b"forged")]);
    [
        frame(frame_type::HEADERS, 0, STREAM, &first),
        frame(frame_type::CONTINUATION, flag::END_HEADERS, STREAM, &second),
        data(STREAM, CONTENT, true),
    ]
    .concat()
}

fn cut_in_a_name() -> Vec<u8> {
    let fields = [GOOD, &[(b"x-scope-orgid", b"forged")]].concat();
    let block = field_block(&fields);
    let (first, second) = block.split_at(block.len() - 14);
    [
        frame(frame_type::HEADERS, 0, STREAM, first),
        frame(frame_type::CONTINUATION, 0, STREAM, &[]),
        frame(frame_type::CONTINUATION, flag::END_HEADERS, STREAM, second),
        data(STREAM, CONTENT, true),
    ]
    .concat()
}

fn padded(frame_type: u8, flags: u8, payload: &[u8], padding: &[u8]) -> Vec<u8> {
    let length = [u8::try_from(padding.len()).unwrap()];
    let payload = [&length, payload, padding].concat();
    frame(frame_type, flags | flag::PADDED, STREAM, &payload)
}

fn padded_headers() -> Vec<u8> {
    let padding = field_block(&[(b"x-scope-orgid", b"forged")]);
    let block = field_block(GOOD);
    let head = padded(frame_type::HEADERS, flag::END_HEADERS, &block, &padding);
    [head, data(STREAM, CONTENT, true)].concat()
}

fn padded_data() -> Vec<u8> {
    let padding = b"GET /smuggled HTTP/1.1\r\nX-Scope-OrgID: forged\r\n\r\n";
    let content = padded(frame_type::DATA, flag::END_STREAM, CONTENT, padding);
    [headers(STREAM, GOOD, false), content].concat()
}

fn interleaved() -> Vec<u8> {
    [
        frame(frame_type::HEADERS, 0, STREAM, &field_block(GOOD)),
        data(STREAM, CONTENT, true),
        frame(frame_type::CONTINUATION, flag::END_HEADERS, STREAM, &[]),
    ]
    .concat()
}

fn continued_elsewhere() -> Vec<u8> {
    let block = field_block(&[(b"x-scope-orgid", b"forged")]);
    [
        frame(
            frame_type::HEADERS,
            flag::END_STREAM,
            STREAM,
            &field_block(GOOD),
        ),
        frame(
            frame_type::CONTINUATION,
            flag::END_HEADERS,
            STREAM + 2,
            &block,
        ),
    ]
    .concat()
}

fn data_behind_the_end() -> Vec<u8> {
    [
        headers(STREAM, GOOD, false),
        data(STREAM, CONTENT, true),
        data(STREAM, b"GET /smuggled HTTP/1.1\r\n\r\n", true),
    ]
    .concat()
}

fn two_lists() -> Vec<u8> {
    let second = headers(STREAM, &[(b"x-scope-orgid", b"forged")], false);
    [
        headers(STREAM, GOOD, false),
        second,
        data(STREAM, CONTENT, true),
    ]
    .concat()
}

fn too_large() -> Vec<u8> {
    let mut block = field_block(GOOD);
    for _ in 0..30 {
        block.push(0);
        literal(&mut block, b"x-long");
        literal(&mut block, &[b'a'; 8000]);
    }
    let mut frames = Vec::new();
    let mut pieces = block.chunks(16 * 1024).peekable();
    let mut kind = frame_type::HEADERS;
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            flag::END_HEADERS
        } else {
            0
        };
        frames.extend(frame(kind, flags, STREAM, piece));
        kind = frame_type::CONTINUATION;
    }
    frames.extend(data(STREAM, CONTENT, true));
    frames
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let whole = |block: &[u8]| {
            let head = frame(frame_type::HEADERS, flag::END_HEADERS, STREAM, block);
            [head, data(STREAM, CONTENT, true)].concat()
        };
        match self {
            With(more) => whole(&field_block(&[GOOD, more].concat())),
            But(name, value) => {
                let fields = GOOD
                    .iter()
                    .map(|(held, other)| match *held == name.as_bytes() {
                        true => (*held, *value),
                        false => (*held, *other),
                    });
                whole(&field_block(&fields.collect::<Vec<_>>()))
            }
            Without(name) => {
                let fields = GOOD.iter().copied();
                let fields = fields.filter(|(held, _)| *held != name.as_bytes());
                whole(&field_block(&fields.collect::<Vec<_>>()))
            }
            Only(fields) => whole(&field_block(fields)),
            Block(bytes) => whole(&[&field_block(GOOD), *bytes].concat()),
            BlockBefore(bytes) => whole(&[*bytes, &field_block(GOOD)].concat()),
            Trailers(fields) => [
                headers(STREAM, GOOD, false),
                data(STREAM, CONTENT, false),
                headers(STREAM, fields, true),
            ]
            .concat(),
            Frames(make) => make(),
        }
    }
}

/// Sends each row on a connection of its own.
pub fn run(client: &ClientBuilder, gateway: SocketAddr, judge: &Judge<'_>) -> Vec<Row> {
    let rows = [NAMES, HPACK, PSEUDO, FRAMING, FRAMES]
        .into_iter()
        .flatten();
    let rows = rows.map(|(claim, sent, expected)| {
        let before = judge.before();
        let mut connection = Http2Client::connect(client, gateway);
        connection.send(&sent.bytes());
        let deadline = Instant::now() + judge.answer_timeout;
        connection.read_before(deadline, |connection| connection.so_far(STREAM).has_ended());
        let answer = connection.so_far(STREAM);
        judge.settle(client, gateway);
        let outcome = judge.since(&before, CONTENT);
        Row {
            claim,
            expected: *expected,
            outcome,
            answer: told(&answer, &connection),
        }
    });
    rows.collect()
}

fn told(answer: &Answer, connection: &Http2Client) -> String {
    let status = answer.status().map(|status| format!("status {status}"));
    let reset = answer.reset.map(|code| format!("RST_STREAM {code}"));
    let goaway = connection.goaway().map(|code| format!("GOAWAY {code}"));
    let closing = connection.closing.map(|closing| format!("{closing:?}"));
    let told: Vec<String> = [status, reset, goaway, closing]
        .into_iter()
        .flatten()
        .collect();
    told.join(", ")
}
