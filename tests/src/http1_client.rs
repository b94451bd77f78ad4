//! An HTTP/1.1 client that sends what a test says, over mTLS, and reads one response after the other.
//! In: bytes. Out: responses, and whether they were complete by their own framing.

use std::net::SocketAddr;

use crate::client::{Client, ClientBuilder, Closing};
use crate::frames::Field;

/// A response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http1Answer {
    /// Its status.
    pub status: u16,
    /// Its fields, with names in lower case.
    pub fields: Vec<Field>,
    /// Its content, as much as came.
    pub content: Vec<u8>,
    /// Its trailers.
    pub trailers: Vec<Field>,
    /// Whether all of it came.
    pub is_complete: bool,
}

impl Http1Answer {
    /// The value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(held, _)| held == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A connection.
pub struct Http1Client {
    client: Client,
    received: Vec<u8>,
    /// How it ended, once it has.
    pub closing: Option<Closing>,
}

impl Http1Client {
    /// Connects.
    pub fn connect(builder: &ClientBuilder, address: SocketAddr) -> Http1Client {
        let builder = builder.clone().alpn("http/1.1");
        Http1Client {
            client: builder.connect(address).expect("the client is admitted"),
            received: Vec::new(),
            closing: None,
        }
    }

    /// Sends bytes as they are. A connection that is closed meanwhile is no failure: its end is heard of by reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.client.send(bytes);
    }

    /// Sends a POST and reads the response.
    pub fn post(&mut self, path: &str, fields: &str, content: &[u8]) -> Http1Answer {
        let length = content.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        self.send(&[head.as_bytes(), content].concat());
        self.answer()
    }

    /// Reads the next response, or as much of it as comes.
    pub fn answer(&mut self) -> Http1Answer {
        let mut answer = self.head();
        if answer.status == 0 {
            return answer;
        }
        let length = answer.value("content-length").map(str::to_owned);
        if answer.value("transfer-encoding").is_some() {
            assert_eq!(answer.value("transfer-encoding"), Some("chunked"));
            self.read_chunks(&mut answer);
        } else if matches!(answer.status, 100..200 | 204 | 304) {
            answer.is_complete = true;
        } else if let Some(length) = length {
            let length = length.parse().expect("a length is a number");
            answer.is_complete = self.fill(length);
            let length = length.min(self.received.len());
            answer.content = self.received.drain(..length).collect();
        } else {
            while self.closing.is_none() {
                self.read_once();
            }
            answer.content = std::mem::take(&mut self.received);
            answer.is_complete = self.closing == Some(Closing::CloseNotify);
        }
        answer
    }

    /// Reads the head of the next response, which is all of it for HEAD; of status 0 if the connection ends.
    pub fn head(&mut self) -> Http1Answer {
        let mut answer = Http1Answer::default();
        let Some(head) = self.take_to(b"\r\n\r\n") else {
            return answer;
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let (line, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        answer.status = status
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("not the first line of a response: {line:?}"));
        answer.fields = fields_of(lines);
        answer
    }

    /// Reads to the connection's end, which is to come without anything more.
    pub fn read_to_end(&mut self) -> Closing {
        loop {
            if let Some(closing) = self.closing {
                assert!(self.received.is_empty(), "{:?}", self.received);
                return closing;
            }
            self.read_once();
        }
    }

    fn read_chunks(&mut self, answer: &mut Http1Answer) {
        loop {
            let Some(line) = self.take_to(b"\r\n") else {
                return;
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(&line, 16).expect("a chunk's size is a number");
            if size == 0 {
                break;
            }
            let is_whole = self.fill(size + 2);
            let length = size.min(self.received.len());
            answer.content.extend(self.received.drain(..length));
            if !is_whole {
                return;
            }
            let end: Vec<u8> = self.received.drain(..2).collect();
            assert_eq!(end, b"\r\n");
        }
        // The trailers' lines, up to an empty one.
        let mut lines = String::new();
        while let Some(line) = self.take_to(b"\r\n") {
            if line.is_empty() {
                answer.trailers = fields_of(&lines);
                answer.is_complete = true;
                return;
            }
            lines.push_str(&String::from_utf8_lossy(&line));
            lines.push_str("\r\n");
        }
    }

    /// Reads until so much is there, or the connection has ended. Whether it is there.
    fn fill(&mut self, length: usize) -> bool {
        while self.received.len() < length && self.closing.is_none() {
            self.read_once();
        }
        self.received.len() >= length
    }

    /// Takes what stands before this, which is dropped.
    fn take_to(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let mut windows = self.received.windows(end.len());
            if let Some(at) = windows.position(|window| window == end) {
                let taken = self.received.drain(..at).collect();
                self.received.drain(..end.len());
                return Some(taken);
            }
            if self.closing.is_some() {
                return None;
            }
            self.read_once();
        }
    }

    fn read_once(&mut self) {
        let mut buffer = [0; 64 * 1024];
        match self.client.receive_once(&mut buffer) {
            Ok(count) => self
                .received
                .extend_from_slice(&buffer[..count.unwrap_or(0)]),
            Err(closing) => self.closing = Some(closing),
        }
    }
}

fn fields_of(lines: &str) -> Vec<Field> {
    let lines = lines.split("\r\n").filter(|line| !line.is_empty());
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a field has a colon");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    fields.collect()
}
