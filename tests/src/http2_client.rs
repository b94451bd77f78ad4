//! An HTTP/2 client whose every frame the test decides, over mTLS.
//! In: requests, or bytes that are none. Out: what came back on each stream, and how the connection ended. Gives credit and
//! acknowledges by itself, so that a test says only what it is about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::client::{Client, ClientBuilder, Closing};
use crate::frames::{
    Field, PREFACE, RawFrame, Said, Sections, data, flag, frame, frame_type, headers, settings,
    take_frame, window_update,
};

/// What came back on a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Header lists, interim ones and trailers among them.
    pub sections: Vec<Vec<Field>>,
    /// The content.
    pub content: Vec<u8>,
    /// Whether the stream was ended properly.
    pub is_complete: bool,
    /// The code with which it was reset.
    pub reset: Option<u32>,
}

impl Answer {
    /// The first value of that name, of the last section that has it.
    pub fn value(&self, name: &str) -> Option<&str> {
        let sections = self.sections.iter().rev();
        let mut fields = sections.flatten();
        let found = fields.find(|(held, _)| held == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The status of the final response.
    pub fn status(&self) -> Option<u16> {
        self.value(":status").and_then(|status| status.parse().ok())
    }

    /// The status of gRPC, wherever it stands.
    pub fn grpc_status(&self) -> Option<u32> {
        let status = self.value("grpc-status");
        status.and_then(|status| status.parse().ok())
    }

    /// Nothing comes any more.
    pub fn has_ended(&self) -> bool {
        self.is_complete || self.reset.is_some()
    }
}

/// A connection.
pub struct Http2Client {
    client: Client,
    received: Vec<u8>,
    sections: Sections,
    answers: BTreeMap<u32, Answer>,
    next: u32,
    gives_credit: bool,
    /// Frames of the connection itself, in the order of their arrival, acknowledgements included.
    pub control: Vec<RawFrame>,
    /// How it ended, once it has.
    pub closing: Option<Closing>,
}

impl Http2Client {
    /// Connects, and sends the preface with SETTINGS that change nothing.
    pub fn connect(builder: &ClientBuilder, address: SocketAddr) -> Http2Client {
        Http2Client::connect_with(builder, address, &[])
    }

    /// Connects, and sends the preface with these SETTINGS.
    pub fn connect_with(
        builder: &ClientBuilder,
        address: SocketAddr,
        these: &[(u16, u32)],
    ) -> Http2Client {
        let builder = builder.clone().alpn("h2");
        let client = builder.connect(address).expect("the client is admitted");
        let mut connection = Http2Client {
            client,
            received: Vec::new(),
            sections: Sections::default(),
            answers: BTreeMap::new(),
            next: 1,
            gives_credit: true,
            control: Vec::new(),
            closing: None,
        };
        connection.send(&[PREFACE, &settings(these)].concat());
        connection
    }

    /// From now on gives no credit: what comes fills the windows.
    pub fn stall(&mut self) {
        self.gives_credit = false;
    }

    /// Sends bytes as they are. A connection that is closed meanwhile is no failure: its end is heard of by reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.client.send(bytes);
    }

    /// Opens a stream with the next number.
    pub fn open(&mut self, fields: &[(&[u8], &[u8])], ends: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.send(&headers(stream, fields, ends));
        stream
    }

    /// Sends a request with this content, in frames of at most 16 KiB. Not more than a first window, unless credit was given.
    pub fn request(&mut self, fields: &[(&[u8], &[u8])], content: &[u8]) -> u32 {
        let stream = self.open(fields, content.is_empty());
        let mut rest = content;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(16 * 1024));
            self.send(&data(stream, piece, after.is_empty()));
            rest = after;
        }
        stream
    }

    /// Reads until the stream has ended, or the connection.
    pub fn answer(&mut self, stream: u32) -> Answer {
        self.read_until(|client| client.so_far(stream).has_ended());
        self.so_far(stream)
    }

    /// What has come on a stream so far.
    pub fn so_far(&self, stream: u32) -> Answer {
        self.answers.get(&stream).cloned().unwrap_or_default()
    }

    /// Reads until this holds, or the connection has ended.
    pub fn read_until(&mut self, mut holds: impl FnMut(&Http2Client) -> bool) {
        while !holds(self) && self.closing.is_none() {
            self.read_once();
        }
    }

    /// The same, at most until then.
    pub fn read_before(
        &mut self,
        deadline: Instant,
        mut holds: impl FnMut(&Http2Client) -> bool,
    ) -> bool {
        loop {
            if holds(self) || self.closing.is_some() {
                return true;
            }
            if !self.client.is_readable_before(deadline) {
                return false;
            }
            self.read_once();
        }
    }

    /// Reads to the connection's end.
    pub fn read_to_end(&mut self) -> Closing {
        self.read_until(|_| false);
        self.closing.expect("it has ended")
    }

    /// Every GOAWAY so far.
    pub fn goaways(&self) -> Vec<&RawFrame> {
        let is_goaway = |frame: &&RawFrame| frame.frame_type == frame_type::GOAWAY;
        self.control.iter().filter(is_goaway).collect()
    }

    /// The code of the GOAWAY that came last.
    pub fn goaway(&self) -> Option<u32> {
        self.goaways().last().map(|frame| frame.number_at(4))
    }

    /// Leaves properly.
    pub fn finish(mut self) {
        self.client.finish();
    }

    /// Leaves by RST.
    pub fn abort(self) {
        self.client.abort();
    }

    fn read_once(&mut self) {
        let mut buffer = [0; 64 * 1024];
        match self.client.receive_once(&mut buffer) {
            Ok(None) => {}
            Ok(Some(count)) => self.received.extend_from_slice(&buffer[..count]),
            Err(closing) => self.closing = Some(closing),
        }
        while let Some(frame) = take_frame(&mut self.received) {
            self.take(frame);
        }
    }

    fn take(&mut self, frame: RawFrame) {
        self.reply(&frame);
        let said = self.sections.take(&frame);
        if frame.stream == 0 {
            self.control.push(frame);
            return;
        }
        let answer = self.answers.entry(frame.stream).or_default();
        match said {
            None => {}
            Some(Said::Section(fields, ends)) => {
                answer.sections.push(fields);
                answer.is_complete |= ends;
            }
            Some(Said::Content(content, ends)) => {
                answer.content.extend(content);
                answer.is_complete |= ends;
            }
            Some(Said::Reset(code)) => answer.reset = Some(code),
        }
    }

    /// Acknowledges SETTINGS and PING, gives credit for DATA.
    fn reply(&mut self, received: &RawFrame) {
        let length = u32::try_from(received.payload.len()).expect("a frame is short");
        match received.frame_type {
            frame_type::SETTINGS if !received.has(flag::ACK) => {
                self.send(&frame(frame_type::SETTINGS, flag::ACK, 0, &[]));
            }
            frame_type::PING if !received.has(flag::ACK) => {
                self.send(&frame(frame_type::PING, flag::ACK, 0, &received.payload));
            }
            frame_type::DATA if length > 0 && self.gives_credit => {
                let connection = window_update(0, length);
                self.send(&[connection, window_update(received.stream, length)].concat());
            }
            _ => {}
        }
    }
}
