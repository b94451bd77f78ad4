//! A peer that sends raw bytes, and reads what is answered.

use std::time::Instant;

use gateway_core::http::h1::{Fault, Http1Connection};
use gateway_core::http::h2::{ErrorCode, Event, Role, StreamId};
use gateway_core::http::message::{Field, HeaderList};

/// Largest header list.
pub const LIST_SIZE_MAX: usize = 64 << 10;

/// An event, with what it points to. Content that comes in pieces is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Request(String, bool),
    Section(String, bool),
    Data(Vec<u8>, bool),
    Reset(ErrorCode, usize),
    Malformed(Fault),
}

/// A list on one line: values of pseudo-header fields, then the fields.
pub fn text(list: &HeaderList) -> String {
    let words = list.iter().map(|field| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        match field.name {
            [b':', ..] => value,
            name => format!("{}={value}", String::from_utf8_lossy(name)),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

pub fn fields<'a>(fields: &'a [(&str, &str)]) -> impl Iterator<Item = Field<'a>> {
    let fields = fields.iter();
    fields.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()))
}

/// One end of ours, and a peer that says what it likes.
pub struct Peer {
    pub connection: Http1Connection,
    pub now: Instant,
    list: HeaderList,
    /// What the connection has not read.
    pub unread: Vec<u8>,
    /// The newest exchange.
    pub stream: StreamId,
    /// Whether a request is answered once it is complete.
    pub answers: bool,
    /// Whether content is passed on as it comes.
    pub passes_on: bool,
}

impl Peer {
    pub fn new(role: Role) -> Self {
        Peer {
            connection: Http1Connection::new(role),
            now: Instant::now(),
            list: HeaderList::new(LIST_SIZE_MAX),
            unread: Vec::new(),
            stream: StreamId::CONNECTION,
            answers: false,
            passes_on: true,
        }
    }

    /// A client, whose requests are answered by `200` and `ok`.
    pub fn client() -> Self {
        let mut peer = Peer::new(Role::Server);
        peer.answers = true;
        peer
    }

    /// A backend, which has got a request with a method.
    pub fn backend(method: &str) -> Self {
        let mut peer = Peer::new(Role::Client);
        peer.request(method, true);
        peer
    }

    /// Sends a request, and has it written.
    pub fn request(&mut self, method: &str, end_stream: bool) {
        let request = [(":method", method), (":path", "/"), (":authority", "a")];
        self.stream = self.connection.open(7).unwrap();
        self.connection
            .send_section(self.stream, fields(&request), end_stream);
        self.connection.take_output();
    }

    /// Receives bytes, behind what was left unread.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<Told> {
        let mut input = std::mem::take(&mut self.unread);
        input.extend_from_slice(bytes);
        let (mut rest, mut told) = (&input[..], Vec::new());
        while let Some(event) = self.connection.receive(&mut rest, &mut self.list, self.now) {
            let (one, is_end) = match event {
                Event::Request { stream, end_stream } => {
                    self.stream = stream;
                    self.connection.own(stream, 7);
                    (Told::Request(text(&self.list), end_stream), end_stream)
                }
                Event::Section { key, end_stream } => {
                    assert_eq!(key, 7);
                    (Told::Section(text(&self.list), end_stream), end_stream)
                }
                Event::Data {
                    key,
                    data,
                    end_stream,
                } => {
                    assert_eq!(key, 7);
                    if self.passes_on {
                        self.connection.release(self.stream, data.len());
                    }
                    (Told::Data(data.to_vec(), end_stream), end_stream)
                }
                Event::Reset { key, code, unsent } => {
                    assert_eq!(key, 7);
                    (Told::Reset(code, unsent), false)
                }
                Event::Malformed(fault) => (Told::Malformed(fault), false),
                other => panic!("{other:?} is not of HTTP/1"),
            };
            put(&mut told, one);
            if is_end && self.answers {
                self.respond(&[(":status", "200"), ("content-length", "2")], b"ok");
            }
        }
        self.unread = rest.to_vec();
        told
    }

    pub fn respond(&mut self, response: &[(&str, &str)], content: &[u8]) {
        let (stream, end_stream) = (self.stream, content.is_empty());
        self.connection
            .send_section(stream, fields(response), end_stream);
        if !end_stream {
            self.send(content, true);
        }
    }

    pub fn send(&mut self, content: &[u8], end_stream: bool) -> usize {
        self.connection.send_data(self.stream, content, end_stream)
    }

    /// What was written since the last time.
    pub fn hear(&mut self) -> String {
        String::from_utf8(self.connection.take_output()).unwrap()
    }
}

/// Appends what was told. Content grows.
pub fn put(told: &mut Vec<Told>, one: Told) {
    match (told.last_mut(), one) {
        (Some(Told::Data(before, end @ false)), Told::Data(data, ends)) => {
            before.extend(data);
            *end = ends;
        }
        (_, one) => told.push(one),
    }
}
