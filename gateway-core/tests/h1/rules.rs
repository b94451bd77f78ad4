//! Rules of RFC 9112, each by the bytes that break it or barely keep it. A rule a line: the claim, the bytes (`⏎` is CR
//! LF, `␍` and `␊` stand alone), and what follows: the label of a fault, or what was read, with bars in between.

use gateway_core::http::h1::Fault;

use crate::support::*;

/// Whole requests.
pub const REQUESTS: &str = "
3: a request → GET /p?q=1 HTTP/1.1⏎Host: a⏎⏎ → GET https /p?q=1 a
2.2: an empty line before it → ⏎GET / HTTP/1.1⏎Host: a⏎⏎ → GET https / a
2.2: two empty lines before it → ⏎⏎GET / HTTP/1.1⏎Host: a⏎⏎ → request_line
2.2: bare LF behind the request line → GET / HTTP/1.1␊Host: a⏎⏎ → bare_line_feed
2.2: bare LF behind a field → GET / HTTP/1.1⏎Host: a␊⏎ → bare_line_feed
2.2: bare LF as the empty line → GET / HTTP/1.1⏎Host: a⏎␊ → bare_line_feed
2.2: bare LF before the request → ␊GET / HTTP/1.1⏎Host: a⏎⏎ → bare_line_feed
2.2: bare CR in the request line → GET /␍ HTTP/1.1⏎Host: a⏎⏎ → request_target
2.2: bare CR behind the version → GET / HTTP/1.1␍⏎Host: a⏎⏎ → version
2.2: bare CR in a value → GET / HTTP/1.1⏎Host: a⏎X: b␍Y: c⏎⏎ → header_value
2.2: bare CR in a name → GET / HTTP/1.1⏎Host: a⏎X␍: b⏎⏎ → header_name
2.2: white space before the first field → GET / HTTP/1.1⏎ X: y⏎Host: a⏎⏎ → folded_line
2.3: lower case → GET / http/1.1⏎Host: a⏎⏎ → version
2.3: no minor version → GET / HTTP/1⏎Host: a⏎⏎ → version
2.3: two digits → GET / HTTP/1.10⏎Host: a⏎⏎ → version
2.3: a version to come → GET / HTTP/1.2⏎Host: a⏎⏎ → GET https / a
2.3: HTTP/2 → GET / HTTP/2.0⏎Host: a⏎⏎ → version_unsupported
2.3: the preface of HTTP/2 → PRI * HTTP/2.0⏎⏎SM⏎⏎ → version_unsupported
2.3: HTTP/0.9 → GET /⏎⏎ → request_line
2.3: HTTP/0.9 as a version → GET / HTTP/0.9⏎Host: a⏎⏎ → version_unsupported
3: nothing but words → hello⏎⏎ → request_line
3: two spaces → GET  / HTTP/1.1⏎Host: a⏎⏎ → version
3: two spaces before the version → GET /  HTTP/1.1⏎Host: a⏎⏎ → version
3: a space before the method →  GET / HTTP/1.1⏎Host: a⏎⏎ → request_method
3: a space behind the version → GET / HTTP/1.1 ⏎Host: a⏎⏎ → version
3: a tab instead of a space → GET\t/ HTTP/1.1⏎Host: a⏎⏎ → request_line
3: a space in the target → GET /a b HTTP/1.1⏎Host: a⏎⏎ → version
3.1: a method of any case → gEt_! / HTTP/1.1⏎Host: a⏎⏎ → gEt_! https / a
3.1: a method that is no token → G(T / HTTP/1.1⏎Host: a⏎⏎ → request_method
3.2: a target with a control character → GET /\x01 HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2: a target with NUL → GET /\0 HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2: a target beyond ASCII → GET /é HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2: a fragment → GET /#a HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2: a relative target → GET a HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2: no Host → GET / HTTP/1.1⏎X: y⏎⏎ → host_field
3.2: two Hosts → GET / HTTP/1.1⏎Host: a⏎Host: b⏎⏎ → host_field
3.2: two equal Hosts → GET / HTTP/1.1⏎Host: a⏎host: a⏎⏎ → host_field
3.2: an empty Host → GET / HTTP/1.1⏎Host:⏎⏎ → host_field
3.2: two names in Host → GET / HTTP/1.1⏎Host: a, b⏎⏎ → host_field
3.2: a path in Host → GET / HTTP/1.1⏎Host: a/b⏎⏎ → host_field
3.2: user information in Host → GET / HTTP/1.1⏎Host: u@a⏎⏎ → host_field
3.2: a port in Host → GET / HTTP/1.1⏎Host: [::1]:80⏎⏎ → GET https / [::1]:80
3.2: no Host in HTTP/1.0 → GET / HTTP/1.0⏎⏎ → GET https /
3.2: two Hosts in HTTP/1.0 → GET / HTTP/1.0⏎Host: a⏎Host: a⏎⏎ → host_field
3.2.2: absolute form → GET http://A/p HTTP/1.1⏎Host: a⏎⏎ → GET https /p A
3.2.2: absolute form, another scheme → GET ftp://a/ HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2.2: absolute form without a path → GET HTTPS://a?q HTTP/1.1⏎Host: a⏎⏎ → GET https /?q a
3.2.2: absolute form and another Host → GET http://a/ HTTP/1.1⏎Host: b⏎⏎ → host_mismatch
3.2.2: absolute form and another port → GET http://a:1/ HTTP/1.1⏎Host: a⏎⏎ → host_mismatch
3.2.2: absolute form and no Host → GET http://a/ HTTP/1.1⏎X: y⏎⏎ → host_field
3.2.2: absolute form, user information → GET http://u@a/ HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2.2: absolute form without an authority → GET http:///p HTTP/1.1⏎Host: a⏎⏎ → request_target
3.2.3: CONNECT → CONNECT a:443 HTTP/1.1⏎Host: a:443⏎⏎ → connect
3.2.3: authority form of GET → GET a:443 HTTP/1.1⏎Host: a:443⏎⏎ → request_target
3.2.4: OPTIONS of the server → OPTIONS * HTTP/1.1⏎Host: a⏎⏎ → OPTIONS https * a
3.2.4: the same in absolute form → OPTIONS http://a HTTP/1.1⏎Host: a⏎⏎ → OPTIONS https * a
3.2.4: GET of the server → GET * HTTP/1.1⏎Host: a⏎⏎ → request_target
6.1: chunked in HTTP/1.0 → POST / HTTP/1.0⏎Transfer-Encoding: chunked⏎⏎0⏎⏎ → encoding_in_http_1_0
6.2: Content-Length in HTTP/1.0 → POST / HTTP/1.0⏎Content-Length: 1⏎⏎x → POST https / content-length=1 | x
9.3.2: a pipeline → GET /1 HTTP/1.1⏎Host: a⏎⏎GET /2 HTTP/1.1⏎Host: a⏎⏎ → GET https /1 a | GET https /2 a
9.3.2: a pipeline with content → POST /1 HTTP/1.1⏎Host: a⏎Content-Length: 3⏎⏎abcGET /2 HTTP/1.1⏎Host: a⏎⏎ → POST https /1 a content-length=3 | abc | GET https /2 a
9.3.2: a fault in a pipeline → GET /1 HTTP/1.1⏎Host: a⏎⏎GET /2 HTTP/1.1⏎⏎ → host_field
9.3: nothing is read behind the last request → GET /1 HTTP/1.1⏎Host: a⏎Connection: close⏎⏎nonsense → GET https /1 a
9.3: nor behind one of HTTP/1.0 → GET /1 HTTP/1.0⏎⏎nonsense → GET https /1
9.3: HTTP/1.0 that keeps the connection → GET /1 HTTP/1.0⏎Connection: Keep-Alive⏎⏎GET /2 HTTP/1.0⏎⏎ → GET https /1 | GET https /2
";

/// Fields of a `POST` of three bytes, `xyz`, which is followed by nothing.
pub const FIELDS: &str = "
5: names in any case, values trimmed → X-Y:  \tz \t⏎Content-Length: 3⏎ → x-y=z content-length=3
5: an empty value → X:⏎Content-Length: 3⏎ → x= content-length=3
5: all characters of a value → X: \"é\t{}:⏎Content-Length: 3⏎ → x=\"é\t{}: content-length=3
5.1: a space before the colon → Content-Length : 3⏎ → header_name
5.1: a tab before the colon → X\t: y⏎Content-Length: 3⏎ → header_name
5.1: no name → : y⏎Content-Length: 3⏎ → header_name
5.1: no colon → X⏎Content-Length: 3⏎ → header_name
5.1: a pseudo-header field → :path: /other⏎Content-Length: 3⏎ → header_name
5.1: NUL in a name → X\0: y⏎Content-Length: 3⏎ → header_name
5.1: a name beyond ASCII → é: y⏎Content-Length: 3⏎ → header_name
5.1: brackets in a name → X[0]: y⏎Content-Length: 3⏎ → header_name
5.2: a folded line → X: y⏎ z⏎Content-Length: 3⏎ → folded_line
5.2: one folded by a tab → Content-Length: 3⏎\tX: y⏎ → folded_line
5.5: NUL in a value → X: \0⏎Content-Length: 3⏎ → header_value
5.5: DEL in a value → X: a\x7fb⏎Content-Length: 3⏎ → header_value
5.5: a vertical tab before a value → Content-Length:\x0b3⏎ → header_value
6.1: chunked → Transfer-Encoding: chunked⏎ → chunk_size
6.1: Chunked → Transfer-Encoding: Chunked⏎ → encoding_unknown
6.1: gzip, chunked → Transfer-Encoding: gzip, chunked⏎ → encoding_unknown
6.1: chunked, identity → Transfer-Encoding: chunked, identity⏎ → encoding_unknown
6.1: chunked, chunked → Transfer-Encoding: chunked, chunked⏎ → encoding_unknown
6.1: identity → Transfer-Encoding: identity⏎ → encoding_unknown
6.1: xchunked → Transfer-Encoding: xchunked⏎ → encoding_unknown
6.1: chunked with a parameter → Transfer-Encoding: chunked;a=b⏎ → encoding_unknown
6.1: chunked in quotes → Transfer-Encoding: \"chunked\"⏎ → encoding_unknown
6.1: nothing → Transfer-Encoding:⏎ → encoding_unknown
6.1: a comma → Transfer-Encoding: ,chunked⏎ → encoding_unknown
6.1: a vertical tab → Transfer-Encoding: \x0bchunked⏎ → header_value
6.1: twice → Transfer-Encoding: chunked⏎Transfer-Encoding: chunked⏎ → encoding_repeated
6.1: two kinds → Transfer-Encoding: chunked⏎Transfer-Encoding: identity⏎ → encoding_repeated
6.1: folded → Transfer-Encoding:⏎ chunked⏎ → encoding_unknown
6.1: chunked with a length → Content-Length: 3⏎Transfer-Encoding: chunked⏎ → two_lengths
6.1: chunked before a length → Transfer-Encoding: chunked⏎Content-Length: 3⏎ → two_lengths
6.1: identity with a length → Content-Length: 3⏎Transfer-Encoding: identity⏎ → encoding_unknown
6.1: an underscore for the dash is another field → Transfer_Encoding: chunked⏎Content-Length: 3⏎ → transfer_encoding=chunked content-length=3
6.3: two lengths → Content-Length: 3⏎Content-Length: 4⏎ → length_field
6.3: two equal lengths → Content-Length: 3⏎Content-Length: 3⏎ → length_field
6.3: two lengths in one field → Content-Length: 3, 3⏎ → length_field
6.3: a sign → Content-Length: +3⏎ → length_field
6.3: less than nothing → Content-Length: -3⏎ → length_field
6.3: hexadecimal digits → Content-Length: 0x3⏎ → length_field
6.3: no digit → Content-Length:⏎ → length_field
6.3: digits beyond ASCII → Content-Length: ３⏎ → length_field
6.3: a fraction → Content-Length: 3.0⏎ → length_field
6.3: a space within → Content-Length: 0 3⏎ → length_field
6.3: zeros in front → Content-Length: 0003⏎ → content-length=0003
6.3: 2^63 → Content-Length: 9223372036854775808⏎ → length_too_large
6.3: 2^64 and three → Content-Length: 18446744073709551619⏎ → length_too_large
7.6.1: fields of the connection → Connection: keep-alive⏎Keep-Alive: 5⏎Proxy-Connection: x⏎Content-Length: 3⏎ → content-length=3
7.6.1: a field that Connection names → X: 1⏎Connection: x, Y,, close⏎Content-Length: 3⏎y: 2⏎Z: 3⏎ → content-length=3 z=3
7.6.1: Connection that is repeated → Connection: x⏎Connection: y⏎X: 1⏎Y: 2⏎Content-Length: 3⏎ → content-length=3
7.6.1: Connection that names a length → Connection: content-length⏎Content-Length: 3⏎ → connection_option
7.6.1: Connection that names Host → Connection: Host⏎Content-Length: 3⏎ → connection_option
7.6.1: Connection that names no name → Connection: a b⏎Content-Length: 3⏎ → connection_option
7.6.1: Connection that names a pseudo-header field → Connection: :path⏎Content-Length: 3⏎ → connection_option
7.6.1: Connection that names many → Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q⏎Content-Length: 3⏎ → connection_option
7.8: an upgrade → Connection: Upgrade⏎Upgrade: websocket⏎Content-Length: 3⏎ → upgrade
7.8: one to HTTP/2 → Upgrade: h2c⏎HTTP2-Settings: AAAA⏎Content-Length: 3⏎ → upgrade
10.1.1: an expectation → Expect: 100-Continue⏎Content-Length: 3⏎ → content-length=3
10.1.1: another one → Expect: 200-ok⏎Content-Length: 3⏎ → expectation
10.1.4: trailers are welcome → TE: deflate, Trailers;q=1, trailers⏎Connection: TE⏎Content-Length: 3⏎ → content-length=3 te=trailers
10.1.4: they are not → TE: gzip⏎Content-Length: 3⏎ → content-length=3
";

/// Content of a `POST` in chunks, and what follows.
pub const CHUNKS: &str = "
7.1: chunks → 3⏎abc⏎0a⏎0123456789⏎0⏎⏎ → abc0123456789
7.1: no content → 0⏎⏎ →
7.1: zeros → 0000⏎⏎ →
7.1: a request behind it → 1⏎a⏎0⏎⏎GET / HTTP/1.1⏎Host: a⏎⏎ → a | GET https / a
7.1: no size → ⏎abc⏎0⏎⏎ → chunk_size
7.1: a sign → +3⏎abc⏎0⏎⏎ → chunk_size
7.1: 0x → 0x3⏎abc⏎0⏎⏎ → chunk_size
7.1: a space before →  3⏎abc⏎0⏎⏎ → chunk_size
7.1: a space behind → 3 ⏎abc⏎0⏎⏎ → chunk_extension
7.1: an underscore → 3_0⏎abc⏎0⏎⏎ → chunk_size
7.1: 2^64 and three → 10000000000000003⏎abc⏎0⏎⏎ → length_too_large
7.1: 2^63 → 8000000000000000⏎abc⏎0⏎⏎ → length_too_large
7.1: too many zeros → 00000000000000003⏎abc⏎0⏎⏎ → chunk_size
7.1: bare LF behind the size → 3␊abc⏎0⏎⏎ → chunk_size
7.1: bare CR behind the size → 3␍abc⏎0⏎⏎ → chunk_size
7.1: bare LF behind content → 3⏎abc␊0⏎⏎ → chunk_end
7.1: content longer than its size → 3⏎abcd⏎0⏎⏎ → chunk_end
7.1: content shorter than its size → 3⏎ab⏎0⏎⏎ → chunk_end
7.1: bare LF as the end → 3⏎abc⏎0⏎␊ → bare_line_feed
7.1.1: extensions → 3;a=b;c=\"d\"⏎abc⏎0;e⏎⏎ → abc
7.1.1: white space before one → 3 \t; a⏎abc⏎0⏎⏎ → abc
7.1.1: bare LF in one → 3;a␊abc⏎0⏎⏎ → chunk_extension
7.1.1: bare CR in one → 3;a␍b⏎abc⏎0⏎⏎ → chunk_size
7.1.1: NUL in one → 3;\0⏎abc⏎0⏎⏎ → chunk_extension
7.1.2: trailers → 3⏎abc⏎0⏎X: y⏎Z: ⏎⏎ → abc | x=y z=
7.1.2: a length in trailers → 0⏎Content-Length: 3⏎⏎ → trailer_field
7.1.2: an encoding in trailers → 0⏎Transfer-Encoding: chunked⏎⏎ → trailer_field
7.1.2: Host in trailers → 0⏎Host: b⏎⏎ → trailer_field
7.1.2: Connection in trailers → 0⏎Connection: close⏎⏎ → trailer_field
7.1.2: a folded trailer → 0⏎X: y⏎ z⏎⏎ → folded_line
7.1.2: a space before the colon → 0⏎X : y⏎⏎ → header_name
7.1.2: bare LF in trailers → 0⏎X: y␊⏎ → bare_line_feed
7.1.2: a request as a trailer → 0⏎GET / HTTP/1.1⏎Host: a⏎⏎ → header_name
";

/// Responses to a `GET`.
const RESPONSES: &str = "
4: a response → HTTP/1.1 200 OK⏎Content-Length: 3⏎⏎abc → 200 content-length=3 | abc
4: no reason → HTTP/1.1 200 ⏎Content-Length: 0⏎⏎ → 200 content-length=0
4: no space for one → HTTP/1.1 200⏎Content-Length: 0⏎⏎ → 200 content-length=0
4: two digits → HTTP/1.1 20 OK⏎Content-Length: 0⏎⏎ → status_line
4: four digits → HTTP/1.1 2000 OK⏎Content-Length: 0⏎⏎ → status_line
4: below 100 → HTTP/1.1 099 OK⏎Content-Length: 0⏎⏎ → status_line
4: letters → HTTP/1.1 2xx OK⏎Content-Length: 0⏎⏎ → status_line
4: two spaces → HTTP/1.1  200 OK⏎Content-Length: 0⏎⏎ → status_line
4: a bare CR in the reason → HTTP/1.1 200 O␍K⏎Content-Length: 0⏎⏎ → status_line
2.3: another version → HTTP/2.0 200 OK⏎Content-Length: 0⏎⏎ → version_unsupported
2.3: no version → ICY 200 OK: x⏎Content-Length: 0⏎⏎ → version
2.2: an empty line before it → ⏎HTTP/1.1 200 OK⏎Content-Length: 0⏎⏎ → status_line
2.2: bare LF → HTTP/1.1 200 OK␊Content-Length: 0⏎⏎ → bare_line_feed
5.2: a folded line → HTTP/1.1 200 OK⏎X: y⏎ z⏎Content-Length: 0⏎⏎ → folded_line
6.1: chunks → HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎⏎1⏎a⏎0⏎⏎ → 200 | a
6.1: chunks with trailers → HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎⏎1⏎a⏎0⏎X: y⏎⏎ → 200 | a | x=y
6.1: chunks and a length → HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎Content-Length: 3⏎⏎abc → two_lengths
6.1: chunks in HTTP/1.0 → HTTP/1.0 200 OK⏎Transfer-Encoding: chunked⏎⏎0⏎⏎ → encoding_in_http_1_0
6.1: gzip → HTTP/1.1 200 OK⏎Transfer-Encoding: gzip⏎⏎ → encoding_unknown
6.3: two lengths → HTTP/1.1 200 OK⏎Content-Length: 3⏎Content-Length: 3⏎⏎abc → length_field
6.3: 204 has no content → HTTP/1.1 204 No Content⏎Content-Length: 0⏎⏎ → 204
6.3: 304 has none either → HTTP/1.1 304 Not Modified⏎Content-Length: 9⏎⏎ → 304 content-length=9
6.3: content that a 204 cannot have → HTTP/1.1 204 No Content⏎⏎x → unsolicited
6.3: content until the end → HTTP/1.1 200 OK⏎⏎abc → 200 | abc
7.1: a chunk that is too long → HTTP/1.1 200 OK⏎Transfer-Encoding: chunked⏎⏎fffffffffffffffff⏎ → length_too_large
15.2: interim responses → HTTP/1.1 100 Continue⏎⏎HTTP/1.1 103 Early Hints⏎Link: x⏎⏎HTTP/1.1 200 OK⏎Content-Length: 0⏎⏎ → 100 | 103 link=x | 200 content-length=0
15.2.2: another protocol → HTTP/1.1 101 Switching Protocols⏎Upgrade: x⏎⏎ → switched_protocols
9.2: a second response → HTTP/1.1 200 OK⏎Content-Length: 0⏎⏎HTTP/1.1 200 OK⏎Content-Length: 0⏎⏎ → unsolicited
9.2: more than the length → HTTP/1.1 200 OK⏎Content-Length: 1⏎⏎ab → unsolicited
7.8: an upgrade that is offered → HTTP/1.1 200 OK⏎Upgrade: h2⏎Connection: upgrade, X⏎X: y⏎Content-Length: 0⏎⏎ → 200 content-length=0
";

/// The bytes of a table's text.
pub fn raw(text: &str) -> Vec<u8> {
    let text = text.replace('⏎', "\r\n");
    text.replace('␊', "\n").replace('␍', "\r").into_bytes()
}

/// Claim, bytes and what follows, of each line.
pub fn rows(table: &str) -> impl Iterator<Item = [&str; 3]> {
    let lines = table.lines().filter(|line| !line.is_empty());
    lines.map(|line| {
        let mut parts = line.split(" →");
        [(); 3].map(|()| {
            let part = parts.next().unwrap();
            part.strip_prefix(' ').unwrap_or(part)
        })
    })
}

/// What was told, as it stands in a row.
fn summary(told: &[Told]) -> String {
    if let Some(Told::Malformed(fault)) = told.last() {
        return fault.label().to_owned();
    }
    let texts = told.iter().map(|one| match one {
        Told::Request(text, _) | Told::Section(text, _) => text.clone(),
        Told::Data(data, _) => String::from_utf8(data.clone()).unwrap(),
        Told::Reset(..) | Told::Malformed(_) => format!("{one:?}"),
    });
    texts.collect::<Vec<_>>().join(" | ")
}

fn play(mut peer: Peer, bytes: &[u8], piece_bytes: usize) -> (Vec<Told>, String, Peer) {
    let mut told = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        peer.say(piece)
            .into_iter()
            .for_each(|one| put(&mut told, one));
        assert!(peer.unread.is_empty() || peer.connection.is_closed());
    }
    let heard = peer.hear();
    (told, heard, peer)
}

/// Whole and in pieces, the same is told, and the same is answered.
fn check(peer: fn() -> Peer, claim: &str, bytes: &[u8], expected: &str) {
    let (told, heard, peer_after) = play(peer(), bytes, usize::MAX);
    assert_eq!(summary(&told), expected, "{claim}");
    let fault = Fault::ALL
        .into_iter()
        .find(|fault| fault.label() == expected);
    assert_eq!(
        matches!(told.last(), Some(Told::Malformed(_))),
        fault.is_some()
    );
    if let Some(fault) = fault {
        assert!(peer_after.connection.is_closed());
        let status = format!("HTTP/1.1 {} ", fault.status());
        let is_client = peer_after.answers;
        assert_eq!(heard.contains(&status), is_client, "{claim}: {heard}");
        assert_eq!(heard.contains("connection: close"), is_client);
    }
    for piece_bytes in [1, 2, 3, 9, 100] {
        let (in_pieces, heard_in_pieces, _) = play(peer(), bytes, piece_bytes);
        assert_eq!(in_pieces, told, "{claim}, {piece_bytes} bytes at once");
        assert_eq!(
            heard_in_pieces, heard,
            "{claim}, {piece_bytes} bytes at once"
        );
    }
}

#[test]
fn requests_are_held_to_every_rule_in_whatever_pieces_they_come() {
    for [claim, bytes, expected] in rows(REQUESTS) {
        check(Peer::client, claim, &raw(bytes), expected);
    }
}

#[test]
fn fields_are_held_to_every_rule_in_whatever_pieces_they_come() {
    for [claim, fields, expected] in rows(FIELDS) {
        let bytes = raw(&format!("POST / HTTP/1.1⏎{fields}Host: a⏎⏎xyz"));
        let expected = match expected.contains('=') {
            true => format!("POST https / a {expected} | xyz"),
            false => expected.to_owned(),
        };
        check(Peer::client, claim, &bytes, &expected);
    }
}

#[test]
fn chunks_are_held_to_every_rule_in_whatever_pieces_they_come() {
    for [claim, content, expected] in rows(CHUNKS) {
        let bytes = raw(&format!(
            "POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎⏎{content}"
        ));
        let is_fault = Fault::ALL
            .into_iter()
            .any(|fault| fault.label() == expected);
        let expected = match is_fault {
            true => expected.to_owned(),
            false => format!("POST https / a | {expected}"),
        };
        check(Peer::client, claim, &bytes, &expected);
    }
}

#[test]
fn responses_are_held_to_every_rule_in_whatever_pieces_they_come() {
    for [claim, bytes, expected] in rows(RESPONSES) {
        check(|| Peer::backend("GET"), claim, &raw(bytes), expected);
    }
}

#[test]
fn every_fault_stands_in_a_row_or_has_a_test_of_its_own() {
    let elsewhere = [
        Fault::RequestLineTooLong,
        Fault::SectionTooLarge,
        Fault::TooManyFields,
        Fault::SlowSection,
        Fault::Message,
        Fault::Surplus,
    ];
    let tables = [REQUESTS, FIELDS, CHUNKS, RESPONSES];
    let rows: Vec<_> = tables.into_iter().flat_map(rows).collect();
    assert!(rows.len() > 150, "{} rows", rows.len());
    for fault in Fault::ALL {
        let stands_there = rows.iter().any(|[.., expected]| *expected == fault.label());
        assert_ne!(stands_there, elsewhere.contains(&fault), "{fault:?}");
    }
}

#[test]
fn a_head_is_bounded_in_its_line_its_bytes_and_its_fields() {
    let head = |target: usize, fields: usize, value: usize| {
        let fields = format!("x: {}\r\n", "v".repeat(value)).repeat(fields);
        format!(
            "GET /{} HTTP/1.1\r\n{fields}Host: a\r\n\r\n",
            "t".repeat(target)
        )
        .into_bytes()
    };
    for (bytes, expected) in [
        (head(16_000, 0, 0), None),
        (head(16_400, 0, 0), Some(Fault::RequestLineTooLong)),
        (head(0, 127, 0), None),
        (head(0, 128, 0), Some(Fault::TooManyFields)),
        (head(0, 100, 310), None),
        (head(0, 100, 330), Some(Fault::SectionTooLarge)),
    ] {
        for piece_bytes in [1, 1000, usize::MAX] {
            let (told, ..) = play(Peer::client(), &bytes, piece_bytes);
            match (told.last(), expected) {
                (Some(Told::Malformed(fault)), Some(expected)) => assert_eq!(*fault, expected),
                (Some(Told::Request(..)), None) => {}
                (other, _) => panic!("{other:?}"),
            }
        }
    }
    let trailers = format!("0\r\nx: {}\r\n\r\n", "v".repeat(8200));
    let bytes =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{trailers}");
    let (told, ..) = play(Peer::client(), bytes.as_bytes(), 100);
    assert_eq!(told.last(), Some(&Told::Malformed(Fault::SectionTooLarge)));
}
