//! The same bytes to the crate h2 and to our connection: their verdicts agree, or stand in a list with the reason.
//! In: the rules of RFC 9113 as raw frames, and header lists good and bad. Out: claims that both end the same thing.

use std::time::Duration;

use gateway_core::http::h2::{Event, PREFACE};
use gateway_core::http::message::{HeaderList, check_trailers, read_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::rules::{CLIENTS, FIELD_BLOCKS, STATES, frames_of};
use crate::support::*;

/// What a verdict ends; the code is each side's own choice (RFC 9113 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Nothing,
    Stream,
    Connection,
}
use Ends::{Connection, Nothing, Stream};

type Fields = &'static [(&'static str, &'static str)];

/// RFC 9113 makes it an error of the stream; other requests of the connection are right and go on.
const WIDER: &str = "h2 ends the connection for an error of the stream";
/// h2 leaves it to its user, and users are rarely as strict as what stands before backends of all kinds has to be.
const LENIENT: &str = "h2 passes it on";
/// Sections 5.3.2 and 5.4.1.
const OBSOLETE: &str = "RFC 9113 has no priorities any more";
/// Section 5.1 lets late frames be ignored, of whatever content.
const LATE: &str = "h2 does not ignore what comes late";
/// A client knows that it has ended the stream itself: the state of the two ends differs (section 5.4.1).
const LIE: &str = "h2 takes it for a frame that comes late";
/// Our connection knows of no lengths; the forwarder resets the stream, and its tests have the row.
const FORWARDER: &str = "h2 counts content in its connection";

/// Where h2 decides otherwise: the claim, what h2 ends, and why we do not follow.
#[rustfmt::skip]
const DIFFERENCES: &[(&str, Ends, &str)] = &[
    ("5.3.2: a stream that depends on itself, which says nothing any more", Stream, OBSOLETE),
    ("6.3: PRIORITY of four bytes", Connection, WIDER),
    ("6.9: no credit for a stream", Connection, WIDER),
    ("6.9: no credit for a stream that is gone", Connection, LATE),
    ("5.1: DATA behind the end", Connection, WIDER),
    ("5.1: HEADERS behind the end", Connection, WIDER),
    ("5.1: DATA behind RST_STREAM", Stream, LIE),
    ("5.1: DATA on a stream that was skipped", Stream, LIE),
    ("8.2.1: upper case", Connection, WIDER),
    ("8.2.1: an empty name", Connection, WIDER),
    ("8.2.1: a blank in a name", Connection, WIDER),
    ("8.2.1: a colon in a name", Connection, WIDER),
    ("8.2.1: a control character in a name", Connection, WIDER),
    ("8.2.1: a letter beyond ASCII in a name", Connection, WIDER),
    ("8.2.1: a line end in a value", Connection, WIDER),
    ("8.2.1: a line feed in a value", Connection, WIDER),
    ("8.2.1: a NUL in a value", Connection, WIDER),
    ("8.2.1: another control character in a value", Connection, WIDER),
    ("8.2.1: a value that begins with a blank", Nothing, LENIENT),
    ("8.2.1: a value that ends with a tab", Nothing, LENIENT),
    ("8.3: an unknown pseudo-header field", Connection, WIDER),
    ("8.3.1: Host of another name", Nothing, LENIENT),
    ("8.3.1: Host twice", Nothing, LENIENT),
    ("8.1.1: a length for no content", Stream, FORWARDER),
    ("8.1.1: a length twice", Nothing, LENIENT),
];

/// Fields behind those of a good request.
#[rustfmt::skip]
const LISTS: &[(&str, Fields)] = &[
    ("8.2: a field", &[("a", "b")]),
    ("8.2.1: upper case", &[("A", "b")]),
    ("8.2.1: an empty name", &[("", "b")]),
    ("8.2.1: a blank in a name", &[("a b", "c")]),
    ("8.2.1: a colon in a name", &[("a:", "c")]),
    ("8.2.1: a control character in a name", &[("a\u{1}", "c")]),
    ("8.2.1: a letter beyond ASCII in a name", &[("\u{e9}", "c")]),
    ("8.2.1: a line end in a value", &[("a", "b\r\nc: d")]),
    ("8.2.1: a line feed in a value", &[("a", "b\nc")]),
    ("8.2.1: a NUL in a value", &[("a", "b\0c")]),
    ("8.2.1: another control character in a value", &[("a", "b\u{1}c")]),
    ("8.2.1: a tab in a value", &[("a", "b\tc")]),
    ("8.2.1: a value that begins with a blank", &[("a", " b")]),
    ("8.2.1: a value that ends with a tab", &[("a", "b\t")]),
    ("8.2.1: an empty value", &[("a", "")]),
    ("8.2.1: letters beyond ASCII in a value", &[("a", "\u{e9}")]),
    ("8.2.2: Connection", &[("connection", "close")]),
    ("8.2.2: Keep-Alive", &[("keep-alive", "5")]),
    ("8.2.2: Proxy-Connection", &[("proxy-connection", "close")]),
    ("8.2.2: Transfer-Encoding", &[("transfer-encoding", "chunked")]),
    ("8.2.2: Upgrade", &[("upgrade", "h2c")]),
    ("8.2.2: TE: trailers", &[("te", "trailers")]),
    ("8.2.2: TE of another value", &[("te", "gzip")]),
    ("8.3: a pseudo-header field behind another field", &[("a", "b"), (":method", "GET")]),
    ("8.3: a method twice", &[(":method", "GET")]),
    ("8.3: a path twice", &[(":path", "/")]),
    ("8.3: a scheme twice", &[(":scheme", "https")]),
    ("8.3: an authority twice", &[(":authority", "other")]),
    ("8.3: an unknown pseudo-header field", &[(":a", "b")]),
    ("8.3: a status", &[(":status", "200")]),
    ("8.3.1: Host as the authority", &[("host", "collector.example")]),
    ("8.3.1: Host of another name", &[("host", "other")]),
    ("8.3.1: Host twice", &[("host", "collector.example"), ("host", "collector.example")]),
    ("8.1.1: a length for no content", &[("content-length", "5")]),
    ("8.1.1: a length of 0", &[("content-length", "0")]),
    ("8.1.1: a length twice", &[("content-length", "0"), ("content-length", "0")]),
    ("8.1.1: a length that is no number", &[("content-length", "a")]),
];

/// What a PING behind everything else carries.
const LAST: [u8; 8] = *b"the last";

/// Sends bytes to a server of h2's that takes every request and answers none.
fn verdict_of_h2(bytes: &[u8]) -> Ends {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let hello = [
        &PREFACE[..],
        &frame(SETTINGS, 0, 0, b""),
        &frame(SETTINGS, ACK, 0, b""),
    ];
    let bytes = [&hello.concat()[..], bytes, &frame(PING, 0, 0, &LAST)].concat();
    runtime.block_on(async {
        let (mut near, far) = duplex(4 << 20);
        let served = tokio::spawn(serve(far));
        near.write_all(&bytes).await.unwrap();
        let heard = hear(&mut near).await;
        served.abort();
        let mut ends = heard.iter().filter_map(|answer| match answer {
            Answer::Goaway(..) => Some(Connection),
            Answer::RstStream(..) => Some(Stream),
            _ => None,
        });
        ends.next().unwrap_or(Nothing)
    })
}

async fn serve(stream: DuplexStream) {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(256)
        .max_header_list_size(16 << 10);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(stream).await else {
        return;
    };
    let mut requests = Vec::new();
    while let Some(Ok(request)) = connection.accept().await {
        requests.push(request);
    }
    // What it has to say last is written before the stream ends.
    let _ = std::future::poll_fn(|context| connection.poll_closed(context)).await;
}

/// What h2 says until it answers the last PING or ends.
async fn hear(near: &mut DuplexStream) -> Vec<Answer> {
    let mut heard = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), near.read(&mut buffer));
        match read.await.expect("h2 answers") {
            Ok(0) | Err(_) => break,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
        }
        let answered = whole_frames(&heard);
        if answers(answered).contains(&Answer::PingAck(LAST)) {
            break;
        }
    }
    answers(whole_frames(&heard))
}

fn whole_frames(bytes: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some([l0, l1, l2]) = bytes.get(end..end + 3) {
        let next = end + 9 + (usize::from(*l0) << 16 | usize::from(*l1) << 8 | usize::from(*l2));
        if next > bytes.len() {
            break;
        }
        end = next;
    }
    &bytes[..end]
}

/// What ours ends, malformed messages included, which the forwarder resets.
fn verdict_of_ours(mut bytes: &[u8]) -> Ends {
    let mut peer = Peer::client();
    let mut list = HeaderList::new(16 << 10);
    let mut verdict = Nothing;
    while let Some(event) = peer.connection.receive(&mut bytes, &mut list, peer.now) {
        let ends = match event {
            Event::Request { stream, .. } => {
                peer.connection.own(stream, stream.number());
                if read_request(&list).is_err() {
                    Stream
                } else {
                    Nothing
                }
            }
            Event::Section { .. } if check_trailers(&list).is_err() => Stream,
            Event::Broken { .. } => Stream,
            Event::Failed(_) => Connection,
            Event::Section { .. }
            | Event::Data { .. }
            | Event::Reset { .. }
            | Event::Malformed(_)
            | Event::Control
            | Event::Goaway { .. } => Nothing,
        };
        if verdict == Nothing {
            verdict = ends;
        }
    }
    // Streams that were refused are told of by no event.
    let is_reset = |answer: &Answer| matches!(answer, Answer::RstStream(..));
    match verdict {
        Nothing if peer.hear().iter().any(is_reset) => Stream,
        verdict => verdict,
    }
}

/// Complains unless both verdicts agree, or the list has the difference.
fn compare(claim: &'static str, bytes: &[u8], met: &mut Vec<&'static str>) -> Option<String> {
    let (ours, theirs) = (verdict_of_ours(bytes), verdict_of_h2(bytes));
    let listed = DIFFERENCES.iter().find(|(listed, ..)| *listed == claim);
    if let Some((listed, ends, reason)) = listed {
        met.push(listed);
        let as_listed = ours != theirs && theirs == *ends;
        return (!as_listed)
            .then(|| format!("{claim}: ours {ours:?}, h2 {theirs:?}, listed: {reason}"));
    }
    (ours != theirs).then(|| format!("{claim}: ours {ours:?}, h2 {theirs:?}"))
}

#[test]
fn h2_and_we_end_the_same_but_for_what_is_listed() {
    let mut met = Vec::new();
    let mut complaints = Vec::new();
    for rules in [CLIENTS, FIELD_BLOCKS, STATES] {
        for rule in rules.lines().filter(|line| !line.is_empty()) {
            let [claim, frames, _] = rule.split('|').collect::<Vec<_>>()[..] else {
                panic!("{rule}");
            };
            complaints.extend(compare(claim.trim(), &frames_of(frames), &mut met));
        }
    }
    for (claim, fields) in LISTS {
        let fields = [&REQUEST[..], fields].concat();
        let bytes = frame(HEADERS, WHOLE, 1, &block(&fields));
        complaints.extend(compare(claim, &bytes, &mut met));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let unmet = DIFFERENCES
        .iter()
        .filter(|(claim, ..)| !met.contains(claim));
    let unmet: Vec<_> = unmet.map(|(claim, ..)| claim).collect();
    assert!(unmet.is_empty(), "listed, and no row: {unmet:?}");
}
