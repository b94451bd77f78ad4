//! The table for clients of HTTP/1.1.
//! In: rows of a claim, what is sent, what is to become of it. Out: complaints.

use std::net::SocketAddr;
use std::time::Instant;

use tests::ClientBuilder;

use super::Expected::{self, Clean, Either, Refused};
use super::judge::Judge;
use super::{CONTENT, Row};

/// What a row sends.
enum Sent {
    /// These lines in the head of a good request, each with its end.
    With(&'static str),
    /// This first line, and the rest of a good request.
    Line(&'static str),
    /// These lines in place of Host.
    Hosts(&'static str),
    /// These lines in place of Content-Length.
    Framed(&'static str),
    /// This content behind `Transfer-Encoding: chunked`.
    Chunked(&'static str),
    /// All of it.
    Whole(&'static str),
    /// A good request with a very long head.
    Long,
}

use Sent::{Chunked, Framed, Hosts, Line, Long, Whole, With};

type Case = (&'static str, Sent, Expected);

/// Names that backends believe.
#[rustfmt::skip]
const NAMES: &[Case] = &[
    ("nothing forged", With(""), Clean),
    ("the tenant", With("X-Scope-OrgID: forged\r\n"), Clean),
    ("the tenant in other letters", With("x-SCOPE-orgid: forged\r\n"), Clean),
    ("the tenant twice", With("X-Scope-OrgID: team-a\r\nX-Scope-OrgID: forged\r\n"), Clean),
    ("underscores", With("X_Scope_OrgID: forged\r\n"), Clean),
    ("one underscore", With("X-Scope_OrgID: forged\r\n"), Clean),
    ("the certificate", With("X-Forwarded-Client-Cert: Hash=forged\r\n"), Clean),
    ("the client's identity", With("X-Scope-ClientID: forged\r\n"), Clean),
    ("the address", With("X-Forwarded-For: forged\r\n"), Clean),
    ("the scheme of the client", With("X-Forwarded-Proto: forged\r\n"), Clean),
    ("the address by RFC 7239", With("Forwarded: for=forged\r\n"), Clean),
    ("a folded line", With("X-A: b\r\n X-Scope-OrgID: forged\r\n"), Refused),
    ("a folded tenant", With("X-Scope-OrgID:\r\n forged\r\n"), Refused),
    ("a line folded by a tab", With("X-A: b\r\n\tX-Scope-OrgID: forged\r\n"), Refused),
    ("a folded first line", Line("POST /case HTTP/1.1\r\n X-Scope-OrgID: forged"), Refused),
    ("a blank before the colon", With("X-Scope-OrgID : forged\r\n"), Refused),
    ("a tab before the colon", With("X-Scope-OrgID\t: forged\r\n"), Refused),
    ("no colon", With("X-Scope-OrgID\r\n"), Refused),
    ("no name", With(": forged\r\n"), Refused),
    ("a NUL in a name", With("X-Scope-OrgID\0: forged\r\n"), Refused),
    ("a vertical tab before the colon", With("X-Scope-OrgID\u{b}: forged\r\n"), Refused),
    ("a letter beyond ASCII in a name", With("X-\u{17f}cope-OrgID: forged\r\n"), Refused),
    ("a pseudo-header field for a path", With(":path: /smuggled\r\n"), Refused),
    ("a pseudo-header field for an authority", With(":authority: forged\r\n"), Refused),
    ("a NUL in a value", With("X-A: b\0c\r\n"), Refused),
    ("another control character in a value", With("X-A: b\u{1}c\r\n"), Refused),
    ("a carriage return in a value", With("X-A: b\rX-Scope-OrgID: forged\r\n"), Refused),
    ("a line that ends by a line feed alone", With("X-A: b\nX-Scope-OrgID: forged\r\n"), Refused),
    ("a line that ends by a carriage return alone", With("X-Scope-OrgID: forged\r"), Refused),
    ("a head that ends by line feeds alone", Whole("POST /case HTTP/1.1\nHost: gateway.test\nConnection: close\nContent-Length: 4\n\nbody"), Refused),
    ("Connection takes the tenant away", With("Connection: X-Scope-OrgID\r\n"), Clean),
    ("Connection takes a told name away", With("Connection: x-forwarded-for, close\r\n"), Clean),
    ("Connection names what it also sends", With("X-Drop: forged\r\nConnection: X-Drop\r\n"), Clean),
    ("a head that is too large", Long, Refused),
];

/// What frames a message: every pair, and every spelling that some server reads otherwise.
#[rustfmt::skip]
const FRAMING: &[Case] = &[
    ("a length, then chunks", Framed("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), Refused),
    ("chunks, then a length", Framed("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), Refused),
    ("a length twice", Framed("Content-Length: 4\r\nContent-Length: 4\r\n"), Refused),
    ("two lengths", Framed("Content-Length: 4\r\nContent-Length: 0\r\n"), Refused),
    ("two lengths in one line", Framed("Content-Length: 4, 4\r\n"), Refused),
    ("two different lengths in one line", Framed("Content-Length: 4, 5\r\n"), Refused),
    ("a length with a sign", Framed("Content-Length: +4\r\n"), Refused),
    ("a negative length", Framed("Content-Length: -4\r\n"), Refused),
    ("a length in hexadecimal digits", Framed("Content-Length: 0x4\r\n"), Refused),
    ("a length with a fraction", Framed("Content-Length: 4.0\r\n"), Refused),
    ("a length with a blank in it", Framed("Content-Length: 4 4\r\n"), Refused),
    ("a length beyond 64 bits", Framed("Content-Length: 18446744073709551620\r\n"), Refused),
    ("an empty length", Framed("Content-Length:\r\n"), Refused),
    ("a length behind a blank before the colon", Framed("Content-Length : 4\r\n"), Refused),
    ("a length on a folded line", Framed("Content-Length:\r\n 4\r\n"), Refused),
    ("a length with an underscore beside the right one", With("Content_Length: 0\r\n"), Either),
    ("an encoding twice", Framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Refused),
    ("two encodings", Framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), Refused),
    ("an encoding before chunked", Framed("Transfer-Encoding: gzip, chunked\r\n"), Refused),
    ("an encoding behind chunked", Framed("Transfer-Encoding: chunked, identity\r\n"), Refused),
    ("chunked twice in one line", Framed("Transfer-Encoding: chunked, chunked\r\n"), Refused),
    ("identity", Framed("Transfer-Encoding: identity\r\nContent-Length: 4\r\n"), Refused),
    ("an encoding that is almost chunked", Framed("Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n"), Refused),
    ("chunked in quotes", Framed("Transfer-Encoding: \"chunked\"\r\nContent-Length: 4\r\n"), Refused),
    ("chunked with a parameter", Framed("Transfer-Encoding: chunked;q=1\r\n"), Refused),
    ("chunked behind a vertical tab", Framed("Transfer-Encoding: \u{b}chunked\r\nContent-Length: 4\r\n"), Refused),
    ("an empty encoding", Framed("Transfer-Encoding:\r\nContent-Length: 4\r\n"), Refused),
    ("an encoding with a blank before the colon", Framed("Transfer-Encoding : chunked\r\nContent-Length: 4\r\n"), Refused),
    ("an encoding on a folded line", Framed("Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n"), Refused),
    ("an encoding behind a line feed", Framed("X-A: b\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n"), Refused),
    ("an encoding with an underscore beside a length", With("Transfer_Encoding: chunked\r\n"), Either),
    ("an encoding of HTTP/1.0", Whole("POST /case HTTP/1.0\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), Refused),
    ("Connection takes the length away", With("Connection: close, Content-Length\r\n"), Either),
    ("Connection takes the encoding away", Whole("POST /case HTTP/1.1\r\nHost: gateway.test\r\nConnection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), Either),
    ("Connection takes Host away", With("Connection: close, Host\r\n"), Either),
];

/// Chunks.
#[rustfmt::skip]
const CHUNKS: &[Case] = &[
    ("chunks", Chunked("4\r\nbody\r\n0\r\n\r\n"), Clean),
    ("chunks of one byte", Chunked("1\r\nb\r\n1\r\no\r\n1\r\nd\r\n1\r\ny\r\n0\r\n\r\n"), Clean),
    ("a chunk's extension", Chunked("4;a=b\r\nbody\r\n0\r\n\r\n"), Either),
    ("an extension with a line feed", Chunked("4;a\nX\r\nbody\r\n0\r\n\r\n"), Refused),
    ("an extension with a carriage return", Chunked("4;a\rX\r\nbody\r\n0\r\n\r\n"), Refused),
    ("an extension in quotes with a line end", Chunked("4;a=\"\r\n\"\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a size that ends by a line feed", Chunked("4\nbody\r\n0\r\n\r\n"), Refused),
    ("a chunk that ends by a line feed", Chunked("4\r\nbody\n0\r\n\r\n"), Refused),
    ("a chunk that ends by a carriage return", Chunked("4\r\nbody\r0\r\n\r\n"), Refused),
    ("a chunk longer than its size", Chunked("3\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a chunk without its line end", Chunked("4\r\nbody0\r\n\r\n"), Refused),
    ("a size with a prefix", Chunked("0x4\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a size with a sign", Chunked("+4\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a negative size", Chunked("-4\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a size with a blank before it", Chunked(" 4\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a size with a blank behind it", Chunked("4 \r\nbody\r\n0\r\n\r\n"), Refused),
    ("a size with an underscore", Chunked("0_4\r\nbody\r\n0\r\n\r\n"), Refused),
    ("an empty size", Chunked("\r\nbody\r\n0\r\n\r\n"), Refused),
    ("a size beyond 64 bits", Chunked("10000000000000004\r\nbody\r\n0\r\n\r\n"), Refused),
    ("the tenant in trailers", Chunked("4\r\nbody\r\n0\r\nX-Scope-OrgID: forged\r\n\r\n"), Clean),
    ("the tenant in trailers with underscores", Chunked("4\r\nbody\r\n0\r\nx_scope_orgid: forged\r\n\r\n"), Clean),
    ("a length in trailers", Chunked("4\r\nbody\r\n0\r\nContent-Length: 40\r\n\r\n"), Either),
    ("a folded trailer", Chunked("4\r\nbody\r\n0\r\nX-A: b\r\n X-Scope-OrgID: forged\r\n\r\n"), Refused),
    ("a trailer with a line feed", Chunked("4\r\nbody\r\n0\r\nX-A: b\nX-Scope-OrgID: forged\r\n\r\n"), Refused),
    ("trailers that end by line feeds", Chunked("4\r\nbody\r\n0\r\nX-A: b\n\nGET /smuggled HTTP/1.1\r\n\r\n"), Refused),
];

/// The first line, and whom it speaks to.
#[rustfmt::skip]
const TARGETS: &[Case] = &[
    ("no Host", Hosts(""), Refused),
    ("Host twice", Hosts("Host: gateway.test\r\nHost: gateway.test\r\n"), Refused),
    ("two Hosts", Hosts("Host: gateway.test\r\nHost: forged\r\n"), Refused),
    ("an empty Host", Hosts("Host:\r\n"), Either),
    ("two Hosts in one line", Hosts("Host: gateway.test, forged\r\n"), Refused),
    ("a Host with a path", Hosts("Host: gateway.test/smuggled\r\n"), Refused),
    ("a Host with a user", Hosts("Host: forged@gateway.test\r\n"), Refused),
    ("a Host with a blank", Hosts("Host: gateway.test forged\r\n"), Refused),
    ("a folded Host", Hosts("Host:\r\n gateway.test\r\n"), Refused),
    ("a whole URI", Line("POST https://gateway.test/case HTTP/1.1"), Clean),
    ("a whole URI of another host", Line("POST https://forged/case HTTP/1.1"), Either),
    ("a whole URI with a user", Line("POST https://forged@gateway.test/case HTTP/1.1"), Refused),
    ("a whole URI of another scheme", Line("POST ftp://gateway.test/case HTTP/1.1"), Refused),
    ("CONNECT", Line("CONNECT gateway.test:443 HTTP/1.1"), Refused),
    ("a path without a slash", Line("POST case HTTP/1.1"), Refused),
    ("an asterisk", Line("POST * HTTP/1.1"), Refused),
    ("a path with a fragment", Line("POST /case#smuggled HTTP/1.1"), Refused),
    ("a path that walks up", Line("POST /case/../smuggled HTTP/1.1"), Refused),
    ("a path that walks up, encoded", Line("POST /case/%2e%2E/smuggled HTTP/1.1"), Refused),
    ("a path that walks up behind a backslash", Line("POST /case\\..\\smuggled HTTP/1.1"), Refused),
    ("an empty segment", Line("POST //case HTTP/1.1"), Refused),
    ("an encoded letter", Line("POST /c%61se HTTP/1.1"), Refused),
    ("a path with a NUL", Line("POST /case\0 HTTP/1.1"), Refused),
    ("a path with letters beyond ASCII", Line("POST /case\u{e9} HTTP/1.1"), Refused),
    ("a path with a blank", Line("POST /case /smuggled HTTP/1.1"), Refused),
    ("two blanks before the path", Line("POST  /case HTTP/1.1"), Refused),
    ("two blanks before the version", Line("POST /case  HTTP/1.1"), Refused),
    ("a tab for a blank", Line("POST\t/case\tHTTP/1.1"), Refused),
    ("a blank behind the version", Line("POST /case HTTP/1.1 "), Refused),
    ("a blank before the method", Line(" POST /case HTTP/1.1"), Refused),
    ("a carriage return before the version", Line("POST /case\rHTTP/1.1"), Refused),
    ("a line feed behind the first line", Whole("POST /case HTTP/1.1\nHost: gateway.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"), Refused),
    ("no version", Line("POST /case"), Refused),
    ("a version of one number", Line("POST /case HTTP/1"), Refused),
    ("a version in small letters", Line("POST /case http/1.1"), Refused),
    ("version 1.2", Line("POST /case HTTP/1.2"), Either),
    ("version 2.0", Line("POST /case HTTP/2.0"), Refused),
    ("version 11", Line("POST /case HTTP/1.11"), Refused),
    ("a method with a character that tokens lack", Line("PO(ST /case HTTP/1.1"), Refused),
    ("an empty line first", Whole("\r\nPOST /case HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"), Either),
    ("an upgrade to HTTP/2", With("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n"), Either),
    ("an upgrade to WebSocket", With("Upgrade: websocket\r\nConnection: Upgrade\r\n"), Either),
    ("the preface of HTTP/2 behind HTTP/1.1", Whole("PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"), Refused),
];

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        const LINE: &str = "POST /case HTTP/1.1";
        const HOST: &str = "Host: gateway.test\r\n";
        const LENGTH: &str = "Content-Length: 4\r\n";
        let request = |line: &str, host: &str, more: &str, framing: &str, content: &str| {
            let close = if more.contains("Connection:") {
                ""
            } else {
                "Connection: close\r\n"
            };
            format!("{line}\r\n{host}{close}{more}{framing}\r\n{content}").into_bytes()
        };
        match self {
            With(lines) => request(LINE, HOST, lines, LENGTH, "body"),
            Line(line) => request(line, HOST, "", LENGTH, "body"),
            Hosts(lines) => request(LINE, lines, "", LENGTH, "body"),
            Framed(lines) => {
                let is_chunked = lines.contains("chunked");
                let content = if is_chunked {
                    "4\r\nbody\r\n0\r\n\r\n"
                } else {
                    "body"
                };
                request(LINE, HOST, "", lines, content)
            }
            Chunked(content) => request(LINE, HOST, "", "Transfer-Encoding: chunked\r\n", content),
            Whole(text) => text.as_bytes().to_vec(),
            Long => {
                let long = format!("X-Long: {}\r\n", "a".repeat(8000)).repeat(30);
                request(LINE, HOST, &long, LENGTH, "body")
            }
        }
    }
}

/// Sends each row on a connection of its own.
pub fn run(client: &ClientBuilder, gateway: SocketAddr, judge: &Judge<'_>) -> Vec<Row> {
    let probing = client;
    let client = client.clone().alpn("http/1.1");
    let rows = [NAMES, FRAMING, CHUNKS, TARGETS].into_iter().flatten();
    let rows = rows.map(|(claim, sent, expected)| {
        let before = judge.before();
        let mut connection = client.connect(gateway).unwrap();
        // It may be refused before all of it is sent.
        let _ = connection.send(&sent.bytes());
        let deadline = Instant::now() + judge.answer_timeout;
        let mut answer = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while connection.is_readable_before(deadline) {
            match connection.receive_once(&mut buffer) {
                Ok(count) => answer.extend_from_slice(&buffer[..count.unwrap_or(0)]),
                Err(_) => break,
            }
        }
        judge.settle(probing, gateway);
        let outcome = judge.since(&before, CONTENT);
        let answer = String::from_utf8_lossy(&answer);
        let told = answer.lines().next().unwrap_or("nothing");
        Row {
            claim,
            expected: *expected,
            outcome,
            answer: told.to_owned(),
        }
    });
    rows.collect()
}
