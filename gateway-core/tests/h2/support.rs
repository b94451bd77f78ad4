//! A peer that sends raw frames, and reads what is answered.

use std::time::{Duration, Instant};

use gateway_core::http::h2::{
    Connection, ErrorCode, Event, Flags, Frame, FrameHeader, FrameType, HEADER_BYTES, PREFACE,
    Role, StreamId, Violation,
};
use gateway_core::http::hpack::encode_without_state;
use gateway_core::http::message::{Field, HeaderList};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = Flags::END_STREAM.0;
pub const END_HEADERS: u8 = Flags::END_HEADERS.0;
pub const PADDED: u8 = Flags::PADDED.0;
pub const ACK: u8 = Flags::ACK.0;
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Bytes from hexadecimal digits.
pub fn bytes(digits: &str) -> Vec<u8> {
    let octets = digits.as_bytes().chunks(2);
    octets
        .map(|octet| u8::from_str_radix(std::str::from_utf8(octet).unwrap(), 16).unwrap())
        .collect()
}

/// A frame as bytes.
pub fn frame(frame_type: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![l0, l1, l2, frame_type, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        encode_without_state(Field::new(name.as_bytes(), value.as_bytes()), &mut block);
    }
    block
}

pub const REQUEST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/v1/traces"),
    (":authority", "collector.example"),
];

/// A request's HEADERS.
pub fn request(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(&REQUEST))
}

pub fn data(stream: u32, flags: u8, bytes: usize) -> Vec<u8> {
    frame(DATA, flags, stream, &vec![b'd'; bytes])
}

pub fn window_update(stream: u32, credit: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &credit.to_be_bytes())
}

pub fn rst_stream(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.number().to_be_bytes())
}

pub fn setting(identifier: u16, value: u32) -> Vec<u8> {
    let payload = [&identifier.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

/// An event, with what it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Request(u32, bool),
    Section(u32, bool),
    Data(u32, Vec<u8>, bool),
    Reset(u32, ErrorCode, usize),
    Broken(u32, Violation),
    Goaway(u32, ErrorCode),
    Failed(Violation),
}

/// A frame that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Data(u32, usize, bool),
    Headers(u32, bool),
    RstStream(u32, ErrorCode),
    Settings,
    SettingsAck,
    Ping,
    PingAck([u8; 8]),
    Goaway(u32, ErrorCode),
    WindowUpdate(u32, u32),
}

/// Reads what was written.
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::parse(header).unwrap();
        let (payload, rest) = rest.split_at(header.payload_bytes);
        bytes = rest;
        let stream = header.stream.number();
        let end_stream = header.flags.has(Flags::END_STREAM);
        if header.frame_type == Some(FrameType::Data) {
            answers.push(Answer::Data(stream, payload.len(), end_stream));
            continue;
        }
        answers.push(match Frame::parse(&header, payload).unwrap() {
            Frame::Headers(_) => Answer::Headers(stream, end_stream),
            Frame::RstStream(code) => Answer::RstStream(stream, code),
            Frame::Settings(_) => Answer::Settings,
            Frame::SettingsAck => Answer::SettingsAck,
            Frame::Ping(_) => Answer::Ping,
            Frame::PingAck(opaque) => Answer::PingAck(opaque),
            Frame::Goaway { last, code } => Answer::Goaway(last.number(), code),
            Frame::WindowUpdate(credit) => Answer::WindowUpdate(stream, credit),
            other => panic!("{other:?} was not to be sent"),
        });
    }
    assert_eq!(bytes, []);
    answers
}

/// One end of ours, and a peer that says what it likes.
pub struct Peer {
    pub connection: Connection,
    pub now: Instant,
    list: HeaderList,
}

impl Peer {
    /// A client of ours that has said its preface and acknowledged ours.
    pub fn client() -> Self {
        let mut peer = Peer::silent(Role::Server);
        let hello = [
            &PREFACE[..],
            &frame(SETTINGS, 0, 0, b""),
            &frame(SETTINGS, ACK, 0, b""),
        ];
        assert_eq!(peer.say(&hello.concat()), []);
        assert_eq!(peer.hear(), [Answer::Settings, Answer::SettingsAck]);
        peer
    }

    /// A backend that has said its SETTINGS and acknowledged ours, with a stream that we have opened and its key 1.
    pub fn backend() -> Self {
        let mut peer = Peer::silent(Role::Client);
        assert!(peer.connection.take_output().starts_with(PREFACE));
        let hello = [frame(SETTINGS, 0, 0, b""), frame(SETTINGS, ACK, 0, b"")];
        assert_eq!(peer.say(&hello.concat()), []);
        let stream = peer.connection.open(1, peer.now).unwrap();
        peer.connection
            .send_section(stream, fields(&REQUEST), false);
        assert_eq!(
            peer.hear(),
            [Answer::SettingsAck, Answer::Headers(1, false)]
        );
        peer
    }

    /// One that has said nothing yet.
    pub fn silent(role: Role) -> Self {
        let now = Instant::now();
        Peer {
            connection: Connection::new(role, 16 << 10, now),
            now,
            list: HeaderList::new(16 << 10),
        }
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Sends bytes. Requests get their stream as key.
    pub fn say(&mut self, mut bytes: &[u8]) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(event) = self
            .connection
            .receive(&mut bytes, &mut self.list, self.now)
        {
            told.push(match event {
                Event::Request { stream, end_stream } => {
                    self.connection.own(stream, stream.number());
                    Told::Request(stream.number(), end_stream)
                }
                Event::Section { key, end_stream } => Told::Section(key, end_stream),
                Event::Data {
                    key,
                    data,
                    end_stream,
                } => Told::Data(key, data.to_vec(), end_stream),
                Event::Reset { key, code, unsent } => Told::Reset(key, code, unsent),
                Event::Broken { key, violation, .. } => Told::Broken(key, violation),
                Event::Control => continue,
                Event::Goaway { last, code } => Told::Goaway(last.number(), code),
                Event::Failed(violation) => Told::Failed(violation),
                Event::Malformed(fault) => panic!("{fault:?} is of HTTP/1"),
            });
        }
        assert_eq!(bytes, []);
        told
    }

    /// What was answered since the last time.
    pub fn hear(&mut self) -> Vec<Answer> {
        answers(&self.connection.take_output())
    }

    /// Passes content on: its sender gets credit.
    pub fn release(&mut self, stream: u32, bytes: usize) {
        self.connection
            .release(StreamId::new(stream), bytes, self.now);
    }

    /// Sends content to the peer.
    pub fn send(&mut self, stream: u32, bytes: usize, end_stream: bool) -> usize {
        let content = vec![b'c'; bytes];
        self.connection
            .send_data(StreamId::new(stream), &content, end_stream)
    }

    /// Sends a response's header section.
    pub fn respond(&mut self, stream: u32, end_stream: bool) {
        let status = [(":status", "200")];
        self.connection
            .send_section(StreamId::new(stream), fields(&status), end_stream);
    }
}

pub fn fields<'a>(fields: &'a [(&str, &str)]) -> impl Iterator<Item = Field<'a>> {
    let fields = fields.iter();
    fields.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()))
}
