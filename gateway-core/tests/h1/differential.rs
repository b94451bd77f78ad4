//! Another implementation beside ours: the same bytes to hyper's server. Where the two do not agree on a request, the
//! difference stands in a list, with its reason.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use crate::rules::{CHUNKS, FIELDS, REQUESTS, raw, rows};
use crate::support::*;

/// What hyper has instead of a socket: bytes that come, and then nothing; bytes that were written.
struct Wire {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        // An end would seem to be that of a client that has left.
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let bytes = buffer.remaining().min(self.input.len());
        buffer.put_slice(&self.input[..bytes]);
        self.input.drain(..bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How many requests hyper reads to their ends.
fn hyper_serves(bytes: &[u8]) -> usize {
    let served = std::cell::Cell::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let served = &served;
        async move {
            if request.into_body().collect().await.is_ok() {
                served.set(served.get() + 1);
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let mut wire = Wire {
        input: bytes.to_vec(),
        output: Vec::new(),
    };
    let mut serving = pin!(http1::Builder::new().serve_connection(&mut wire, service));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if serving.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    served.get()
}

/// How many requests ours reads to their ends.
fn ours_serves(bytes: &[u8]) -> usize {
    let mut peer = Peer::client();
    let told = peer.say(bytes);
    let ends = told.iter().filter(|one| {
        matches!(
            one,
            Told::Request(_, true) | Told::Section(_, true) | Told::Data(_, true)
        )
    });
    ends.count()
}

/// Claims of the tables on which hyper decides otherwise, by the reason why we do as we do.
const DIFFERENCES: &[(&str, &[&str])] = &[
    (
        "RFC 9112 section 2.2 lets a server take these; servers that do and servers that do not see different messages",
        &[
            "2.2: two empty lines before it",
            "2.2: bare LF behind the request line",
            "2.2: bare LF behind a field",
            "2.2: bare LF as the empty line",
            "2.2: bare LF before the request",
        ],
    ),
    (
        "RFC 9110 section 2.5: a higher minor version is read as the highest that is known",
        &["2.3: a version to come"],
    ),
    (
        "hyper leaves Host to its user; RFC 9112 section 3.2 has the server refuse",
        &[
            "3.2: no Host",
            "3.2: two Hosts",
            "3.2: two equal Hosts",
            "3.2: an empty Host",
            "3.2: two names in Host",
            "3.2: a path in Host",
            "3.2: user information in Host",
            "3.2: two Hosts in HTTP/1.0",
            "3.2.2: absolute form and another Host",
            "3.2.2: absolute form and another port",
            "3.2.2: absolute form and no Host",
            "9.3.2: a fault in a pipeline",
        ],
    ),
    (
        "hyper leaves targets to its user; a gateway sends on what others read",
        &[
            "3.2: a target beyond ASCII",
            "3.2: a fragment",
            "3.2: a relative target",
            "3.2.2: absolute form, another scheme",
            "3.2.2: absolute form, user information",
            "3.2.3: authority form of GET",
            "3.2.4: GET of the server",
        ],
    ),
    (
        "what a gateway does not serve",
        &[
            "3.2.3: CONNECT",
            "7.8: an upgrade",
            "7.8: one to HTTP/2",
            "10.1.1: another one",
        ],
    ),
    (
        "RFC 9110 section 8.6 lets equal ones pass as one; some hop may see another one",
        &["6.3: two equal lengths"],
    ),
    (
        "hyper is no intermediary, and forwards nothing that Connection names",
        &[
            "7.6.1: Connection that names a length",
            "7.6.1: Connection that names Host",
            "7.6.1: Connection that names no name",
            "7.6.1: Connection that names a pseudo-header field",
            "7.6.1: Connection that names many",
        ],
    ),
    (
        "the grammar of RFC 9112 section 7.1 does not have these, and has no bound for zeros",
        &[
            "7.1: a space behind",
            "7.1: too many zeros",
            "7.1.1: NUL in one",
        ],
    ),
    (
        "RFC 9110 section 6.5.1: these do not stand in trailers; hyper drops or keeps them",
        &[
            "7.1.2: a length in trailers",
            "7.1.2: an encoding in trailers",
            "7.1.2: Host in trailers",
            "7.1.2: Connection in trailers",
        ],
    ),
];

#[test]
fn hyper_agrees_but_for_a_list_of_differences() {
    let requests = rows(REQUESTS).map(|[claim, bytes, _]| (claim, raw(bytes)));
    let fields = rows(FIELDS).map(|[claim, fields, _]| {
        let text = format!("POST / HTTP/1.1⏎{fields}Host: a⏎⏎xyz");
        (claim, raw(&text))
    });
    let chunks = rows(CHUNKS).map(|[claim, content, _]| {
        let head = "POST / HTTP/1.1⏎Host: a⏎Transfer-Encoding: chunked⏎⏎";
        (claim, raw(&format!("{head}{content}")))
    });
    let mut found = Vec::new();
    for (claim, bytes) in requests.chain(fields).chain(chunks) {
        let (theirs, ours) = (hyper_serves(&bytes), ours_serves(&bytes));
        if theirs != ours {
            found.push(claim);
        }
    }
    let mut listed: Vec<&str> = DIFFERENCES
        .iter()
        .flat_map(|(_, claims)| *claims)
        .copied()
        .collect();
    found.sort_unstable();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
