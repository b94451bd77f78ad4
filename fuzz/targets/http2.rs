//! Any bytes as what the peer of an HTTP/2 connection sends, a client or a backend, behind a preface that is right.
//!
//! What must hold: no panic; in whatever pieces bytes come, the events and the content are the same; content that has
//! not been passed on is never more than the window; what we answer is whole frames, and its length is bounded; and
//! nothing is told after the connection has failed.
#![no_main]

use std::collections::BTreeMap;
use std::time::Instant;

use gateway_core::http::h2::{
    Connection, Event, FrameHeader, HEADER_BYTES, PREFACE, Role, StreamId,
};
use gateway_core::http::limits::{OUTPUT_BYTES_MAX, OUTPUT_CONTROL_BYTES_MAX, WINDOW_BYTES};
use gateway_core::http::message::{Field, HeaderList};
use libfuzzer_sys::fuzz_target;

/// Largest header list, in bytes.
const LIST_SIZE_MAX: usize = 4096;

/// SETTINGS without a parameter, and an acknowledgement.
const SETTINGS: [u8; 18] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];

fuzz_target!(|input: &[u8]| {
    let &[choice, ref sent @ ..] = input else {
        return;
    };
    let now = Instant::now();
    let role = match choice & 1 {
        0 => Role::Server,
        _ => Role::Client,
    };
    let whole = Owner::new(role, choice, now).hear(sent, usize::MAX, now);
    let in_pieces = Owner::new(role, choice, now).hear(sent, 1 + usize::from(choice >> 3), now);
    assert_eq!(whole, in_pieces);
});

/// Answers requests, sends some, and passes content on at once or never.
struct Owner {
    connection: Connection,
    list: HeaderList,
    passes_on: bool,
    /// Content that has not been passed on.
    held: usize,
    told: Vec<String>,
    /// By stream.
    content: BTreeMap<u32, Vec<u8>>,
}

impl Owner {
    fn new(role: Role, choice: u8, now: Instant) -> Self {
        let mut connection = Connection::new(role, LIST_SIZE_MAX as u32, now);
        while let Some(stream) = connection.open(2 * connection.open_streams() as u32 + 1, now) {
            let fields = [Field::new(b":method", b"GET"), Field::new(b":path", b"/")];
            let end_stream = connection.open_streams() % 2 == 0;
            connection.send_section(stream, fields.into_iter(), end_stream);
            if connection.open_streams() == 4 {
                break;
            }
        }
        Owner {
            connection,
            list: HeaderList::new(LIST_SIZE_MAX),
            passes_on: choice & 2 == 0,
            held: 0,
            told: Vec::new(),
            content: BTreeMap::new(),
        }
    }

    /// What is told about some bytes, and what content came.
    fn hear(
        mut self,
        sent: &[u8],
        piece_bytes: usize,
        now: Instant,
    ) -> (Vec<String>, BTreeMap<u32, Vec<u8>>) {
        let is_client = self.connection.output().starts_with(PREFACE);
        check_frames(&self.connection.take_output()[if is_client { PREFACE.len() } else { 0 }..]);
        let preface: &[u8] = if is_client { &[] } else { PREFACE };
        self.take(&[preface, &SETTINGS].concat(), now);
        for piece in sent.chunks(piece_bytes) {
            self.take(piece, now);
        }
        // Not in between: what waits on a stream depends on when it could have been sent.
        while self.connection.send_queued().is_some() {}
        check_frames(&self.connection.take_output());
        (self.told, self.content)
    }

    fn take(&mut self, mut piece: &[u8], now: Instant) {
        let was_closed = self.connection.is_closed();
        while let Some(event) = self.connection.receive(&mut piece, &mut self.list, now) {
            assert!(!was_closed, "{event:?} of a connection that is over");
            assert!(self.list.size() <= LIST_SIZE_MAX);
            if let Event::Data { key, data, .. } = &event {
                self.content
                    .entry(*key)
                    .or_default()
                    .extend_from_slice(data);
                self.held += data.len();
                assert!(self.held <= WINDOW_BYTES as usize);
                if self.passes_on {
                    self.connection
                        .release(StreamId::new(*key), data.len(), now);
                    self.held -= data.len();
                }
                if !data.is_empty() {
                    // How a frame is cut is not told.
                    continue;
                }
            }
            self.told.push(format!("{event:?}"));
            if let Event::Request { stream, .. } = event {
                self.answer(stream);
            }
        }
        assert!(piece.is_empty());
        let bytes = self.connection.output().len();
        assert!(bytes <= 2 * (OUTPUT_BYTES_MAX + OUTPUT_CONTROL_BYTES_MAX));
    }

    fn answer(&mut self, stream: StreamId) {
        self.connection.own(stream, stream.number());
        let fields = [Field::new(b":status", b"200")];
        self.connection
            .send_section(stream, fields.into_iter(), false);
        let sent = self.connection.send_data(stream, &[b'x'; 1000], false);
        assert!(sent <= 1000);
        let trailers = [Field::new(b"grpc-status", b"0")];
        self.connection
            .send_section(stream, trailers.into_iter(), true);
    }
}

fn check_frames(mut output: &[u8]) {
    while let Some((header, rest)) = output.split_first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::parse(header).expect("a frame of ours is allowed");
        output = &rest[header.payload_bytes..];
    }
    assert!(output.is_empty());
}
