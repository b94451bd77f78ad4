//! HTTP/2 by hand, right and wrong: frames as bytes (RFC 9113 section 4), field blocks of whatever a test puts in.
//! In: types, flags, payloads, header lists; or bytes of the other side. Out: the other. Shares no code with the gateway:
//! field blocks are read by another project's decoder.

use fluke_hpack::Decoder;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 section 6).
pub mod frame_type {
    #![allow(missing_docs, reason = "the names are those of the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    #![allow(missing_docs, reason = "the names are those of the RFC")]
    pub const NONE: u8 = 0;
    pub const END_STREAM: u8 = 0x01;
    pub const ACK: u8 = 0x01;
    pub const END_HEADERS: u8 = 0x04;
    pub const PADDED: u8 = 0x08;
}

/// Error codes (RFC 9113 section 7).
pub mod code {
    #![allow(missing_docs, reason = "the names are those of the RFC")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

const HEADER_BYTES: usize = 9;

/// A frame as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Its type.
    pub frame_type: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl RawFrame {
    /// Whether all of these are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The 32 bits at this place of the payload, such as an error code.
    pub fn number_at(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).expect("the payload goes on");
        u32::from_be_bytes(bytes.try_into().expect("these are four bytes"))
    }

    /// The payload without its padding and its priority.
    fn unpadded(&self) -> &[u8] {
        let mut payload = &self.payload[..];
        if matches!(self.frame_type, frame_type::DATA | frame_type::HEADERS)
            && self.has(flag::PADDED)
        {
            let padding = usize::from(payload[0]);
            payload = &payload[1..payload.len() - padding];
        }
        const PRIORITY: u8 = 0x20;
        if self.frame_type == frame_type::HEADERS && self.has(PRIORITY) {
            payload = &payload[5..];
        }
        payload
    }
}

/// A frame's bytes, whatever its parts say.
pub fn frame(frame_type: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of a test is short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([frame_type, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// SETTINGS of these.
pub fn settings(these: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (setting, value) in these {
        payload.extend(setting.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(frame_type::SETTINGS, flag::NONE, 0, &payload)
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(
        frame_type::RST_STREAM,
        flag::NONE,
        stream,
        &code.to_be_bytes(),
    )
}

/// GOAWAY.
pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    frame(frame_type::GOAWAY, flag::NONE, 0, &payload)
}

/// WINDOW_UPDATE.
pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(
        frame_type::WINDOW_UPDATE,
        flag::NONE,
        stream,
        &bytes.to_be_bytes(),
    )
}

/// HEADERS with a whole field block.
pub fn headers(stream: u32, fields: &[(&[u8], &[u8])], ends: bool) -> Vec<u8> {
    let flags = flag::END_HEADERS | if ends { flag::END_STREAM } else { 0 };
    frame(frame_type::HEADERS, flags, stream, &field_block(fields))
}

/// DATA.
pub fn data(stream: u32, content: &[u8], ends: bool) -> Vec<u8> {
    let flags = if ends { flag::END_STREAM } else { flag::NONE };
    frame(frame_type::DATA, flags, stream, content)
}

/// A field block of literals that no table learns (RFC 7541 section 6.2.2), in this order and spelling.
pub fn field_block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    block
}

/// A string without Huffman's code (RFC 7541 section 5.2).
pub fn literal(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX_MAX: usize = 127;
    if text.len() < PREFIX_MAX {
        block.push(u8::try_from(text.len()).expect("it is below 127"));
    } else {
        block.push(127);
        let mut rest = text.len() - PREFIX_MAX;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).expect("it is below 128") | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).expect("it is below 128"));
    }
    block.extend(text);
}

/// Takes frames from the front of what has been received, as far as they are whole.
pub fn take_frame(received: &mut Vec<u8>) -> Option<RawFrame> {
    let header = received.get(..HEADER_BYTES)?;
    let length =
        usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    let (frame_type, flags) = (header[3], header[4]);
    let stream = u32::from_be_bytes(header[5..].try_into().expect("these are four bytes"));
    let payload = received.get(HEADER_BYTES..HEADER_BYTES + length)?.to_vec();
    received.drain(..HEADER_BYTES + length);
    Some(RawFrame {
        frame_type,
        flags,
        stream,
        payload,
    })
}

/// A name and a value.
pub type Field = (String, String);

/// What frames of one direction say: header lists, content, ends.
pub struct Sections {
    decoder: Decoder<'static>,
    block: Vec<u8>,
    /// END_STREAM stands on HEADERS, also where CONTINUATION follows.
    ends: bool,
}

/// What a frame adds to its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A header list, and whether it ends the stream.
    Section(Vec<Field>, bool),
    /// Content, and whether it ends the stream.
    Content(Vec<u8>, bool),
    /// The stream's reset, with its code.
    Reset(u32),
}

impl Default for Sections {
    fn default() -> Self {
        Sections {
            decoder: Decoder::new(),
            block: Vec::new(),
            ends: false,
        }
    }
}

impl Sections {
    /// Takes a frame of the direction; all of them have to pass, in their order.
    ///
    /// # Panics
    ///
    /// When a field block is not one.
    pub fn take(&mut self, frame: &RawFrame) -> Option<Said> {
        match frame.frame_type {
            frame_type::HEADERS | frame_type::CONTINUATION => {
                self.block.extend(frame.unpadded());
                if frame.frame_type == frame_type::HEADERS {
                    self.ends = frame.has(flag::END_STREAM);
                }
                if !frame.has(flag::END_HEADERS) {
                    return None;
                }
                let block = std::mem::take(&mut self.block);
                let fields = self.decoder.decode(&block).expect("a field block is one");
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (text(name), text(value)))
                    .collect();
                Some(Said::Section(fields, self.ends))
            }
            frame_type::DATA => Some(Said::Content(
                frame.unpadded().to_vec(),
                frame.has(flag::END_STREAM),
            )),
            frame_type::RST_STREAM => Some(Said::Reset(frame.number_at(0))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = [b'a'; 400];
        let fields: [(&[u8], &[u8]); 2] = [(b":status", b"200"), (b"x", &long)];
        let mut bytes = headers(1, &fields, false);
        bytes.extend(data(1, b"content", true));
        bytes.extend(reset(3, code::CANCEL));
        bytes.push(0);
        let mut sections = Sections::default();
        let mut said = Vec::new();
        while let Some(frame) = take_frame(&mut bytes) {
            said.extend(sections.take(&frame));
        }
        let long = String::from_utf8(long.to_vec()).unwrap();
        let fields = vec![
            (":status".to_owned(), "200".to_owned()),
            ("x".to_owned(), long),
        ];
        assert_eq!(
            said,
            [
                Said::Section(fields, false),
                Said::Content(b"content".to_vec(), true),
                Said::Reset(code::CANCEL)
            ]
        );
        assert_eq!(bytes, [0], "the rest is kept");
    }
}
