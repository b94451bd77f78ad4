//! Any bytes as what a client of HTTP/1 sends.
//!
//! What must hold: no panic; in whatever pieces bytes come, the events, the content and the answers are the same;
//! content that has not been passed on is never more than its bound; what is answered is bounded; a request that is
//! told is well-formed; and nothing is told after a fault.
#![no_main]

use std::time::Instant;

use gateway_core::http::h1::Http1Connection;
use gateway_core::http::h2::{Event, Role, StreamId};
use gateway_core::http::limits::{HEAD_BYTES_MAX, OUTPUT_BYTES_MAX, UNRELEASED_BYTES_MAX};
use gateway_core::http::message::{Field, HeaderList, check_trailers, read_request};
use libfuzzer_sys::fuzz_target;

/// Largest header list, in bytes: no section is larger.
const LIST_SIZE_MAX: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let &[choice, ref sent @ ..] = input else {
        return;
    };
    let now = Instant::now();
    let whole = Owner::new(choice).hear(sent, usize::MAX, now);
    let in_pieces = Owner::new(choice).hear(sent, 1 + usize::from(choice >> 2), now);
    assert_eq!(whole, in_pieces);
});

/// What was told, the content, what was written.
type Heard = (Vec<String>, Vec<u8>, Vec<u8>);

/// Answers each request once it is complete, and passes content on at once or never.
struct Owner {
    connection: Http1Connection,
    list: HeaderList,
    stream: StreamId,
    passes_on: bool,
    /// Content of the request that has not been passed on.
    held: usize,
    unread: Vec<u8>,
    told: Vec<String>,
    content: Vec<u8>,
}

impl Owner {
    fn new(choice: u8) -> Self {
        Owner {
            connection: Http1Connection::new(Role::Server),
            list: HeaderList::new(LIST_SIZE_MAX),
            stream: StreamId::CONNECTION,
            passes_on: choice & 1 == 0,
            held: 0,
            unread: Vec::new(),
            told: Vec::new(),
            content: Vec::new(),
        }
    }

    fn hear(mut self, sent: &[u8], piece_bytes: usize, now: Instant) -> Heard {
        for piece in sent.chunks(piece_bytes) {
            self.take(piece, now);
        }
        let output = self.connection.take_output();
        (self.told, self.content, output)
    }

    fn take(&mut self, piece: &[u8], now: Instant) {
        let was_closed = self.connection.is_closed();
        let mut input = std::mem::take(&mut self.unread);
        input.extend_from_slice(piece);
        let mut rest = &input[..];
        while let Some(event) = self.connection.receive(&mut rest, &mut self.list, now) {
            assert!(!was_closed, "{event:?} of a connection that is over");
            let mut is_complete = false;
            match &event {
                Event::Request { stream, end_stream } => {
                    self.connection.own(*stream, 7);
                    (self.stream, self.held) = (*stream, 0);
                    is_complete = *end_stream;
                    read_request(&self.list).expect("what is told is well-formed");
                }
                Event::Section { end_stream, .. } => {
                    is_complete = *end_stream;
                    check_trailers(&self.list).expect("so are trailers");
                }
                Event::Data {
                    data, end_stream, ..
                } => {
                    self.content.extend_from_slice(data);
                    self.held += data.len();
                    assert!(self.held <= UNRELEASED_BYTES_MAX);
                    if self.passes_on {
                        self.connection.release(self.stream, data.len());
                        self.held = 0;
                    }
                    is_complete = *end_stream;
                }
                Event::Malformed(_) => assert!(self.connection.is_closed()),
                _ => panic!("{event:?} of a client of HTTP/1"),
            }
            // How content is cut is not told.
            if is_complete || !matches!(event, Event::Data { .. }) {
                self.told.push(match event {
                    Event::Data { .. } => "the end".to_owned(),
                    other => format!("{other:?} {:?}", self.list.size()),
                });
            }
            if is_complete {
                self.answer();
            }
        }
        self.unread = rest.to_vec();
        assert!(self.connection.output().len() < OUTPUT_BYTES_MAX + HEAD_BYTES_MAX);
    }

    fn answer(&mut self) {
        let fields = [Field::new(b":status", b"200")];
        self.connection
            .send_section(self.stream, fields.into_iter(), false);
        let sent = self.connection.send_data(self.stream, b"answer", false);
        assert!(sent <= 6);
        let trailers = [Field::new(b"grpc-status", b"0")];
        self.connection
            .send_section(self.stream, trailers.into_iter(), true);
    }
}
