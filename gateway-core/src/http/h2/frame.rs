//! Frames (RFC 9113 sections 4 and 6): what their headers and payloads say, and how ours are written.
//! In: the bytes of a header, later those of a payload. Out: a frame, or a violation. Knows nothing of what came
//! before, holds no bytes. DATA is read piece by piece, every other frame whole.

use gateway_common::closed_list;

use super::settings::{SETTING_BYTES, Setting};
use super::{ErrorCode, Violation};
use crate::http::limits::FRAME_PAYLOAD_BYTES_MAX;

/// Length of a frame's header in bytes (RFC 9113 section 4.1).
pub const HEADER_BYTES: usize = 9;

/// Bytes of the deprecated priority fields (RFC 9113 section 6.2), which say nothing any more.
const PRIORITY_BYTES: usize = 5;

closed_list! {
    /// The type of a frame (RFC 9113 section 6).
    pub enum FrameType {
        /// Content of a stream.
        Data = "data";
        /// Begins a field block.
        Headers = "headers";
        /// Deprecated.
        Priority = "priority";
        /// Ends a stream at once.
        RstStream = "rst_stream";
        /// Parameters of the sender.
        Settings = "settings";
        /// Announces a pushed response, which we allow nobody.
        PushPromise = "push_promise";
        /// Asks for a sign of life.
        Ping = "ping";
        /// Ends a connection.
        Goaway = "goaway";
        /// Gives credit to send.
        WindowUpdate = "window_update";
        /// Continues a field block.
        Continuation = "continuation";
    }
}

impl FrameType {
    /// The numbers on the wire are the positions in the list.
    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    const fn number(self) -> u8 {
        self as u8
    }
}

/// The number of a stream, or of the connection itself (RFC 9113 section 5.1.1). The reserved bit is not part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// The connection itself.
    pub const CONNECTION: StreamId = StreamId(0);
    /// The last one that can be.
    pub const LAST: StreamId = StreamId((1 << 31) - 1);

    /// Takes the 31 bits of a number.
    pub const fn new(number: u32) -> Self {
        StreamId(number & Self::LAST.0)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether a client opens it.
    pub const fn is_of_client(self) -> bool {
        self.0 % 2 == 1
    }
}

/// The flags of a frame. What a flag means depends on the frame's type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// DATA, HEADERS: the stream's last frame, but for CONTINUATION.
    pub const END_STREAM: Flags = Flags(0x01);
    /// SETTINGS, PING: an acknowledgement.
    pub const ACK: Flags = Flags(0x01);
    /// HEADERS, PUSH_PROMISE, CONTINUATION: the field block ends.
    pub const END_HEADERS: Flags = Flags(0x04);
    /// DATA, HEADERS, PUSH_PROMISE: the payload begins with the length of its padding.
    pub const PADDED: Flags = Flags(0x08);
    /// HEADERS: priority fields stand before the fragment.
    pub const PRIORITY: Flags = Flags(0x20);

    /// Whether all of these are set.
    pub const fn has(self, these: Flags) -> bool {
        self.0 & these.0 == these.0
    }

    /// These, if the condition holds.
    const fn when(self, condition: bool) -> Flags {
        if condition { self } else { Flags::NONE }
    }

    const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the payload.
    pub payload_bytes: usize,
    /// The type; `None` if RFC 9113 has none of its number. Such a frame is ignored (section 4.1).
    pub frame_type: Option<FrameType>,
    /// The flags.
    pub flags: Flags,
    /// The stream.
    pub stream: StreamId,
}

impl FrameHeader {
    /// Reads a header.
    ///
    /// # Errors
    ///
    /// The header alone shows that the frame is against RFC 9113: its length (section 4.2, and those of its type in
    /// section 6) or its stream.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Violation> {
        let [l0, l1, l2, frame_type, flags, stream @ ..] = *bytes;
        let header = FrameHeader {
            payload_bytes: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            frame_type: FrameType::from_number(frame_type),
            flags: Flags(flags),
            stream: StreamId::new(u32::from_be_bytes(stream)),
        };
        header.check().map(|()| header)
    }

    fn check(&self) -> Result<(), Violation> {
        let bytes = self.payload_bytes;
        if bytes > FRAME_PAYLOAD_BYTES_MAX {
            return Err(Violation::FrameTooLarge);
        }
        let Some(frame_type) = self.frame_type else {
            return Ok(());
        };
        let is_of_connection = self.stream == StreamId::CONNECTION;
        let (stream_is_right, length_is_right) = match frame_type {
            FrameType::Data => (!is_of_connection, bytes >= self.prefix_bytes()),
            FrameType::Headers | FrameType::PushPromise => {
                (!is_of_connection, bytes >= self.prefix_bytes())
            }
            FrameType::Continuation => (!is_of_connection, true),
            FrameType::Priority => (!is_of_connection, true),
            FrameType::RstStream => (!is_of_connection, bytes == 4),
            FrameType::Settings if self.flags.has(Flags::ACK) => (is_of_connection, bytes == 0),
            FrameType::Settings => (is_of_connection, bytes.is_multiple_of(SETTING_BYTES)),
            FrameType::Ping => (is_of_connection, bytes == 8),
            FrameType::Goaway => (is_of_connection, bytes >= 8),
            FrameType::WindowUpdate => (true, bytes == 4),
        };
        if !stream_is_right {
            return Err(Violation::WrongStreamId);
        }
        if !length_is_right {
            return Err(Violation::FrameLength);
        }
        Ok(())
    }

    /// Bytes that stand before data, fragment or promise because a flag says so.
    fn prefix_bytes(&self) -> usize {
        let has_priority = self.frame_type == Some(FrameType::Headers);
        let has_promise = self.frame_type == Some(FrameType::PushPromise);
        usize::from(self.flags.has(Flags::PADDED))
            + usize::from(has_priority && self.flags.has(Flags::PRIORITY)) * PRIORITY_BYTES
            + usize::from(has_promise) * 4
    }
}

/// A whole frame other than DATA.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Begins a field block (RFC 9113 section 6.2). The flags END_STREAM and END_HEADERS are in the header.
    Headers(&'a [u8]),
    /// Says nothing any more (section 6.3).
    Priority,
    /// Ends a stream (section 6.4). A code that RFC 9113 does not know is taken for INTERNAL_ERROR (section 7).
    RstStream(ErrorCode),
    /// Parameters (section 6.5), for [`settings`](super::settings()).
    Settings(&'a [u8]),
    /// Acknowledges ours.
    SettingsAck,
    /// Announces a response (section 6.6).
    PushPromise,
    /// Asks for an answer with the same bytes (section 6.7).
    Ping([u8; 8]),
    /// The answer.
    PingAck([u8; 8]),
    /// Ends the connection (section 6.8). Debug data is left out.
    Goaway {
        /// No higher stream was processed.
        last: StreamId,
        /// Why it ends.
        code: ErrorCode,
    },
    /// Credit of this many bytes, at least one (section 6.9).
    WindowUpdate(u32),
    /// Continues a field block (section 6.10).
    Continuation(&'a [u8]),
    /// Of a type that nobody here knows.
    Unknown,
}

impl<'a> Frame<'a> {
    /// Reads the payload behind a header.
    ///
    /// # Errors
    ///
    /// Its padding is too long, it gives no credit, or it is a PRIORITY frame of the wrong length.
    ///
    /// # Panics
    ///
    /// The header is that of a DATA frame, which [`DataPayload`] reads, or the payload does not have its length.
    pub fn parse(header: &FrameHeader, payload: &'a [u8]) -> Result<Self, Violation> {
        assert_eq!(payload.len(), header.payload_bytes, "a whole payload");
        let Some(frame_type) = header.frame_type else {
            return Ok(Frame::Unknown);
        };
        let is_ack = header.flags.has(Flags::ACK);
        let frame = match frame_type {
            FrameType::Data => unreachable!("DATA is read in pieces"),
            FrameType::Headers => Frame::Headers(fragment(header, payload)?),
            // RFC 9113 section 6.3: its stream alone suffers.
            FrameType::Priority if payload.len() != PRIORITY_BYTES => {
                return Err(Violation::PriorityLength);
            }
            FrameType::Priority => Frame::Priority,
            FrameType::RstStream => Frame::RstStream(code(number_at(payload, 0))),
            FrameType::Settings if is_ack => Frame::SettingsAck,
            FrameType::Settings => Frame::Settings(payload),
            FrameType::PushPromise => Frame::PushPromise,
            FrameType::Ping if is_ack => Frame::PingAck(opaque(payload)),
            FrameType::Ping => Frame::Ping(opaque(payload)),
            FrameType::Goaway => Frame::Goaway {
                last: StreamId::new(number_at(payload, 0)),
                code: code(number_at(payload, 4)),
            },
            FrameType::WindowUpdate => match StreamId::new(number_at(payload, 0)).number() {
                0 if header.stream == StreamId::CONNECTION => {
                    return Err(Violation::ZeroIncrement);
                }
                0 => return Err(Violation::ZeroStreamIncrement),
                increment => Frame::WindowUpdate(increment),
            },
            FrameType::Continuation => Frame::Continuation(payload),
        };
        Ok(frame)
    }
}

/// The fragment of a HEADERS frame, without priority and padding.
fn fragment<'a>(header: &FrameHeader, payload: &'a [u8]) -> Result<&'a [u8], Violation> {
    let rest = &payload[header.prefix_bytes()..];
    if !header.flags.has(Flags::PADDED) {
        return Ok(rest);
    }
    let fragment_bytes = rest.len().checked_sub(usize::from(payload[0]));
    // RFC 9113 section 6.2: padding longer than what is left for it.
    fragment_bytes
        .map(|bytes| &rest[..bytes])
        .ok_or(Violation::Padding)
}

fn number_at(payload: &[u8], offset: usize) -> u32 {
    let bytes = payload[offset..].first_chunk();
    u32::from_be_bytes(*bytes.expect("the header's length was checked"))
}

fn opaque(payload: &[u8]) -> [u8; 8] {
    *payload
        .first_chunk()
        .expect("the header's length was checked")
}

fn code(number: u32) -> ErrorCode {
    ErrorCode::from_number(number).unwrap_or(ErrorCode::InternalError)
}

/// The payload of a DATA frame (RFC 9113 section 6.1) while it arrives: its data is passed on piece by piece, its
/// padding is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPayload {
    /// Whether the next byte is the length of the padding.
    announces_padding: bool,
    /// Bytes of data to come; with the padding, as long as its length is not known.
    data_bytes: usize,
    /// Bytes of padding to come after the data.
    padding_bytes: usize,
}

/// What was taken of a DATA frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken<'a> {
    /// Data.
    pub data: &'a [u8],
    /// How many other bytes: padding, and its length. Windows count them too (RFC 9113 section 6.9.1).
    pub padding_bytes: usize,
}

impl DataPayload {
    /// The payload behind the header of a DATA frame.
    pub fn new(header: &FrameHeader) -> Self {
        let announces_padding = header.flags.has(Flags::PADDED);
        DataPayload {
            announces_padding,
            data_bytes: header.payload_bytes - usize::from(announces_padding),
            padding_bytes: 0,
        }
    }

    /// Takes data from the front of `input`, and what belongs to the padding.
    ///
    /// # Errors
    ///
    /// The padding is longer than what is left for it.
    pub fn take<'a>(&mut self, input: &mut &'a [u8]) -> Result<Taken<'a>, Violation> {
        let mut dropped = 0;
        if self.announces_padding {
            let Some((length, rest)) = input.split_first() else {
                return Ok(Taken {
                    data: &[],
                    padding_bytes: 0,
                });
            };
            self.padding_bytes = usize::from(*length);
            let data_bytes = self.data_bytes.checked_sub(self.padding_bytes);
            self.data_bytes = data_bytes.ok_or(Violation::Padding)?;
            self.announces_padding = false;
            *input = rest;
            dropped = 1;
        }
        let data = take_front(input, &mut self.data_bytes);
        if self.data_bytes == 0 {
            dropped += take_front(input, &mut self.padding_bytes).len();
        }
        Ok(Taken {
            data,
            padding_bytes: dropped,
        })
    }

    /// Whether all data has been taken.
    pub fn has_all_data(&self) -> bool {
        self.data_bytes == 0 && !self.announces_padding
    }

    /// Whether the frame is complete, with its padding.
    pub fn is_complete(&self) -> bool {
        self.has_all_data() && self.padding_bytes == 0
    }
}

/// Splits off what is there of the next `left` bytes.
fn take_front<'a>(input: &mut &'a [u8], left: &mut usize) -> &'a [u8] {
    let (front, rest) = input.split_at((*left).min(input.len()));
    *left -= front.len();
    *input = rest;
    front
}

/// The bytes of a header.
fn header(
    frame_type: FrameType,
    flags: Flags,
    stream: StreamId,
    payload_bytes: usize,
) -> [u8; HEADER_BYTES] {
    let [_, l0, l1, l2] = u32::try_from(payload_bytes)
        .expect("no frame of ours is longer than 2^24 - 1 bytes")
        .to_be_bytes();
    let [s0, s1, s2, s3] = stream.number().to_be_bytes();
    let frame_type = frame_type.number();
    [l0, l1, l2, frame_type, flags.0, s0, s1, s2, s3]
}

/// Writes the header of a DATA frame (RFC 9113 section 6.1); the caller writes its payload behind it.
pub fn write_data_header(
    output: &mut Vec<u8>,
    stream: StreamId,
    data_bytes: usize,
    end_stream: bool,
) {
    let flags = Flags::END_STREAM.when(end_stream);
    output.extend_from_slice(&header(FrameType::Data, flags, stream, data_bytes));
}

/// Writes the header of a DATA frame anew that begins at `start`: it carries more than when it was written.
pub fn rewrite_data_header(
    output: &mut [u8],
    start: usize,
    stream: StreamId,
    data_bytes: usize,
    end_stream: bool,
) {
    let flags = Flags::END_STREAM.when(end_stream);
    let written = header(FrameType::Data, flags, stream, data_bytes);
    output[start..start + HEADER_BYTES].copy_from_slice(&written);
}

/// Writes a field block as one HEADERS frame and as many CONTINUATION frames (RFC 9113 sections 6.2, 6.10) as it takes
/// with `payload_bytes_max` bytes in each.
pub fn write_field_block(
    output: &mut Vec<u8>,
    stream: StreamId,
    block: &[u8],
    end_stream: bool,
    payload_bytes_max: usize,
) {
    let mut rest = block;
    let mut frame_type = FrameType::Headers;
    let mut flags = Flags::END_STREAM.when(end_stream);
    loop {
        let (fragment, after) = rest.split_at(rest.len().min(payload_bytes_max));
        let flags_of_this = flags.with(Flags::END_HEADERS.when(after.is_empty()));
        output.extend_from_slice(&header(frame_type, flags_of_this, stream, fragment.len()));
        output.extend_from_slice(fragment);
        if after.is_empty() {
            return;
        }
        (rest, frame_type, flags) = (after, FrameType::Continuation, Flags::NONE);
    }
}

/// Makes frames of a field block that lies at the end of `output`, behind [`HEADER_BYTES`] of room at `start`.
pub fn frame_field_block(
    output: &mut Vec<u8>,
    start: usize,
    stream: StreamId,
    end_stream: bool,
    payload_bytes_max: usize,
) {
    let block_bytes = output.len() - start - HEADER_BYTES;
    if block_bytes > payload_bytes_max {
        let block = output.split_off(start + HEADER_BYTES);
        output.truncate(start);
        write_field_block(output, stream, &block, end_stream, payload_bytes_max);
        return;
    }
    let flags = Flags::END_HEADERS.with(Flags::END_STREAM.when(end_stream));
    let header = header(FrameType::Headers, flags, stream, block_bytes);
    output[start..start + HEADER_BYTES].copy_from_slice(&header);
}

/// Writes RST_STREAM (RFC 9113 section 6.4).
pub fn write_rst_stream(output: &mut Vec<u8>, stream: StreamId, code: ErrorCode) {
    output.extend_from_slice(&header(FrameType::RstStream, Flags::NONE, stream, 4));
    output.extend_from_slice(&code.number().to_be_bytes());
}

/// Writes SETTINGS (RFC 9113 section 6.5).
pub fn write_settings(output: &mut Vec<u8>, settings: &[Setting]) {
    let bytes = settings.len() * SETTING_BYTES;
    output.extend_from_slice(&header(
        FrameType::Settings,
        Flags::NONE,
        StreamId::CONNECTION,
        bytes,
    ));
    for setting in settings {
        output.extend_from_slice(&setting.to_bytes());
    }
}

/// Acknowledges the peer's SETTINGS (RFC 9113 section 6.5.3).
pub fn write_settings_ack(output: &mut Vec<u8>) {
    output.extend_from_slice(&header(
        FrameType::Settings,
        Flags::ACK,
        StreamId::CONNECTION,
        0,
    ));
}

/// Writes PING, or the answer to one (RFC 9113 section 6.7).
pub fn write_ping(output: &mut Vec<u8>, opaque: [u8; 8], is_ack: bool) {
    let flags = Flags::ACK.when(is_ack);
    output.extend_from_slice(&header(FrameType::Ping, flags, StreamId::CONNECTION, 8));
    output.extend_from_slice(&opaque);
}

/// Writes GOAWAY without debug data (RFC 9113 section 6.8).
pub fn write_goaway(output: &mut Vec<u8>, last: StreamId, code: ErrorCode) {
    output.extend_from_slice(&header(
        FrameType::Goaway,
        Flags::NONE,
        StreamId::CONNECTION,
        8,
    ));
    output.extend_from_slice(&last.number().to_be_bytes());
    output.extend_from_slice(&code.number().to_be_bytes());
}

/// Writes WINDOW_UPDATE (RFC 9113 section 6.9). The increment is between 1 and 2^31 - 1.
pub fn write_window_update(output: &mut Vec<u8>, stream: StreamId, increment: u32) {
    debug_assert!((1..=StreamId::LAST.0).contains(&increment));
    output.extend_from_slice(&header(FrameType::WindowUpdate, Flags::NONE, stream, 4));
    output.extend_from_slice(&increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const PRIORITY: u8 = 2;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PUSH_PROMISE: u8 = 5;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;

    fn header_bytes(length: usize, frame_type: u8, flags: u8, stream: u32) -> [u8; HEADER_BYTES] {
        let [_, l0, l1, l2] = (length as u32).to_be_bytes();
        let [s0, s1, s2, s3] = stream.to_be_bytes();
        [l0, l1, l2, frame_type, flags, s0, s1, s2, s3]
    }

    fn header(
        length: usize,
        frame_type: u8,
        flags: u8,
        stream: u32,
    ) -> Result<FrameHeader, Violation> {
        FrameHeader::parse(&header_bytes(length, frame_type, flags, stream))
    }

    fn frame(
        frame_type: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> Result<Frame<'_>, Violation> {
        Frame::parse(&header(payload.len(), frame_type, flags, stream)?, payload)
    }

    /// What was written, frame by frame.
    fn read(mut bytes: &[u8]) -> Vec<(FrameHeader, &[u8])> {
        let mut frames = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk() {
            let header = FrameHeader::parse(header).unwrap();
            let (payload, rest) = rest.split_at(header.payload_bytes);
            frames.push((header, payload));
            bytes = rest;
        }
        assert_eq!(bytes, []);
        frames
    }

    #[test]
    fn a_header_has_24_bits_of_length_and_31_of_stream() {
        let bytes = header_bytes(0x0102, 0, 0x0d, 0xffff_fffe);
        let header = FrameHeader::parse(&bytes).unwrap();
        assert_eq!(header.payload_bytes, 0x102);
        assert_eq!(header.frame_type, Some(FrameType::Data));
        assert_eq!(header.stream, StreamId::new(0x7fff_fffe));
        assert!(header.flags.has(Flags::END_STREAM) && header.flags.has(Flags::PADDED));
        assert!(!header.flags.has(Flags::PRIORITY));
        assert!(!header.stream.is_of_client());
    }

    #[test]
    fn a_frame_of_any_type_is_at_most_as_long_as_we_allow() {
        for frame_type in 0..=255 {
            for length in [FRAME_PAYLOAD_BYTES_MAX + 1, 0xff_ffff] {
                let parsed = header(length, frame_type, 0, 1);
                assert_eq!(parsed, Err(Violation::FrameTooLarge), "{frame_type}");
            }
        }
        for frame_type in [DATA, HEADERS, CONTINUATION, 77] {
            assert!(header(FRAME_PAYLOAD_BYTES_MAX, frame_type, 0, 1).is_ok());
        }
    }

    #[test]
    fn frames_of_a_stream_name_one_and_frames_of_the_connection_none() {
        for (frame_type, length) in [
            (DATA, 1),
            (HEADERS, 1),
            (PRIORITY, 5),
            (RST_STREAM, 4),
            (PUSH_PROMISE, 4),
            (CONTINUATION, 1),
        ] {
            assert!(header(length, frame_type, 0, 1).is_ok());
            let on_connection = header(length, frame_type, 0, 0);
            assert_eq!(on_connection, Err(Violation::WrongStreamId), "{frame_type}");
            // The reserved bit does not make a stream of it.
            let reserved = header(length, frame_type, 0, 1 << 31);
            assert_eq!(reserved, Err(Violation::WrongStreamId), "{frame_type}");
        }
        for (frame_type, length) in [(SETTINGS, 6), (PING, 8), (GOAWAY, 8)] {
            assert!(header(length, frame_type, 0, 0).is_ok());
            let on_stream = header(length, frame_type, 0, 1);
            assert_eq!(on_stream, Err(Violation::WrongStreamId), "{frame_type}");
        }
        assert!(header(4, WINDOW_UPDATE, 0, 0).is_ok());
        assert!(header(4, WINDOW_UPDATE, 0, 1).is_ok());
    }

    #[test]
    fn lengths_that_a_type_cannot_have_are_violations() {
        for (frame_type, flags, stream, length) in [
            (DATA, Flags::PADDED.0, 1, 0),
            (HEADERS, Flags::PADDED.0, 1, 0),
            (HEADERS, Flags::PRIORITY.0, 1, 4),
            (HEADERS, Flags::PRIORITY.0 | Flags::PADDED.0, 1, 5),
            (RST_STREAM, 0, 1, 3),
            (RST_STREAM, 0, 1, 5),
            (SETTINGS, 0, 0, 5),
            (SETTINGS, 0, 0, 7),
            (SETTINGS, Flags::ACK.0, 0, 6),
            (PUSH_PROMISE, 0, 1, 3),
            (PUSH_PROMISE, Flags::PADDED.0, 1, 4),
            (PING, 0, 0, 7),
            (PING, Flags::ACK.0, 0, 9),
            (GOAWAY, 0, 0, 7),
            (WINDOW_UPDATE, 0, 1, 3),
            (WINDOW_UPDATE, 0, 0, 5),
        ] {
            let parsed = header(length, frame_type, flags, stream);
            assert_eq!(parsed, Err(Violation::FrameLength), "{frame_type} {length}");
        }
        for length in [0, 4, 6] {
            let payload = vec![0; length];
            let parsed = frame(PRIORITY, 0, 1, &payload);
            assert_eq!(parsed, Err(Violation::PriorityLength));
        }
    }

    #[test]
    fn a_frame_of_an_unknown_type_is_passed_over_whatever_it_says() {
        for frame_type in 10..=255 {
            assert_eq!(frame(frame_type, 0xff, 0, b"xyz"), Ok(Frame::Unknown));
            assert_eq!(frame(frame_type, 0xff, 2, b""), Ok(Frame::Unknown));
        }
    }

    #[test]
    fn a_fragment_stands_between_priority_and_padding() {
        let both = Flags::PADDED.0 | Flags::PRIORITY.0;
        let payload = [3, 0, 0, 0, 1, 16, b'h', b'p', 0, 0, 0];
        assert_eq!(frame(HEADERS, both, 1, &payload), Ok(Frame::Headers(b"hp")));
        let padded = [2, b'h', 0, 0];
        let parsed = frame(HEADERS, Flags::PADDED.0, 1, &padded);
        assert_eq!(parsed, Ok(Frame::Headers(b"h")));
        assert_eq!(frame(HEADERS, 0, 1, b"h"), Ok(Frame::Headers(b"h")));
        assert_eq!(
            frame(CONTINUATION, 0xff, 1, b"h"),
            Ok(Frame::Continuation(b"h"))
        );
    }

    #[test]
    fn padding_longer_than_what_is_left_is_a_violation() {
        let parsed = frame(HEADERS, Flags::PADDED.0, 1, &[2, 0, 0]);
        assert_eq!(parsed, Ok(Frame::Headers(b"")));
        let parsed = frame(HEADERS, Flags::PADDED.0, 1, &[3, 0, 0]);
        assert_eq!(parsed, Err(Violation::Padding));
        let both = Flags::PADDED.0 | Flags::PRIORITY.0;
        let parsed = frame(HEADERS, both, 1, &[1, 0, 0, 0, 1, 16]);
        assert_eq!(parsed, Err(Violation::Padding));
        let all_padding = Taken {
            data: b"",
            padding_bytes: 3,
        };
        for (length, expected) in [(2, Ok(all_padding)), (3, Err(Violation::Padding))] {
            let header = header(3, DATA, Flags::PADDED.0, 1).unwrap();
            let payload = [length, 0, 0];
            let taken = DataPayload::new(&header).take(&mut &payload[..]);
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn credit_of_nothing_is_a_violation() {
        let with_reserved_bit = [0x80, 0, 0, 0];
        for payload in [[0; 4], with_reserved_bit] {
            let of_stream = frame(WINDOW_UPDATE, 0, 1, &payload);
            assert_eq!(of_stream, Err(Violation::ZeroStreamIncrement));
            let of_connection = frame(WINDOW_UPDATE, 0, 0, &payload);
            assert_eq!(of_connection, Err(Violation::ZeroIncrement));
        }
        let most = frame(WINDOW_UPDATE, 0, 1, &[0xff; 4]);
        assert_eq!(most, Ok(Frame::WindowUpdate((1 << 31) - 1)));
    }

    #[test]
    fn an_unknown_error_code_is_an_internal_error() {
        let parsed = frame(RST_STREAM, 0, 1, &[0, 0, 0, 0x0e]);
        assert_eq!(parsed, Ok(Frame::RstStream(ErrorCode::InternalError)));
        let parsed = frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]);
        assert_eq!(parsed, Ok(Frame::RstStream(ErrorCode::RefusedStream)));
    }

    #[test]
    fn frames_are_read_as_they_are_written() {
        let stream = StreamId::new(5);
        let mut bytes = Vec::new();
        write_rst_stream(&mut bytes, stream, ErrorCode::Cancel);
        write_settings(&mut bytes, &[Setting::EnablePush(false)]);
        write_settings_ack(&mut bytes);
        write_ping(&mut bytes, *b"12345678", false);
        write_ping(&mut bytes, *b"87654321", true);
        write_goaway(&mut bytes, stream, ErrorCode::EnhanceYourCalm);
        write_window_update(&mut bytes, stream, 77);
        write_data_header(&mut bytes, stream, 2, true);
        bytes.extend_from_slice(b"ab");
        let frames = read(&bytes);
        let parsed: Vec<_> = frames[..7]
            .iter()
            .map(|(header, payload)| Frame::parse(header, payload).unwrap())
            .collect();
        let expected = [
            Frame::RstStream(ErrorCode::Cancel),
            Frame::Settings(&[0, 2, 0, 0, 0, 0]),
            Frame::SettingsAck,
            Frame::Ping(*b"12345678"),
            Frame::PingAck(*b"87654321"),
            Frame::Goaway {
                last: stream,
                code: ErrorCode::EnhanceYourCalm,
            },
            Frame::WindowUpdate(77),
        ];
        assert_eq!(parsed, expected);
        let (data, payload) = frames[7];
        assert_eq!((data.stream, payload), (stream, &b"ab"[..]));
        assert_eq!(data.flags, Flags::END_STREAM);
    }

    proptest! {
        #[test]
        fn a_field_block_of_any_length_arrives_whole(
            block in vec(any::<u8>(), 0..300),
            end_stream: bool,
            payload_bytes_max in 1_usize..100,
        ) {
            let mut bytes = Vec::new();
            let stream = StreamId::new(3);
            write_field_block(&mut bytes, stream, &block, end_stream, payload_bytes_max);
            let mut in_place = vec![7; HEADER_BYTES];
            in_place.extend_from_slice(&block);
            frame_field_block(&mut in_place, 0, stream, end_stream, payload_bytes_max);
            prop_assert_eq!(&in_place, &bytes);
            let frames = read(&bytes);
            let mut joined = Vec::new();
            for (index, (header, payload)) in frames.iter().enumerate() {
                prop_assert!(payload.len() <= payload_bytes_max);
                prop_assert_eq!(header.stream, stream);
                let is_last = index + 1 == frames.len();
                prop_assert_eq!(header.flags.has(Flags::END_HEADERS), is_last);
                match Frame::parse(header, payload) {
                    Ok(Frame::Headers(fragment)) => {
                        prop_assert_eq!(index, 0);
                        prop_assert_eq!(header.flags.has(Flags::END_STREAM), end_stream);
                        joined.extend_from_slice(fragment);
                    }
                    Ok(Frame::Continuation(fragment)) => {
                        prop_assert!(index > 0);
                        joined.extend_from_slice(fragment);
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(joined, block);
        }

        #[test]
        fn data_is_the_same_in_whatever_pieces_it_comes(
            data in vec(any::<u8>(), 0..100),
            padding in proptest::option::of(0_usize..20),
            pieces in vec(1_usize..30, 1..20),
        ) {
            let mut payload = Vec::new();
            payload.extend(padding.map(|bytes| bytes as u8));
            payload.extend_from_slice(&data);
            payload.extend(std::iter::repeat_n(0, padding.unwrap_or(0)));
            let flags = Flags::PADDED.when(padding.is_some());
            let header = header(payload.len(), DATA, flags.0, 1).unwrap();
            payload.extend_from_slice(b"the next frame");
            let (mut rest, mut joined, mut dropped) = (&payload[..], Vec::new(), 0);
            let mut reader = DataPayload::new(&header);
            let mut pieces = pieces.iter().cycle();
            while !reader.is_complete() {
                let piece_bytes = (*pieces.next().unwrap()).min(rest.len());
                let mut piece = &rest[..piece_bytes];
                let taken = reader.take(&mut piece).unwrap();
                joined.extend_from_slice(taken.data);
                dropped += taken.padding_bytes;
                rest = &rest[piece_bytes - piece.len()..];
                let has_length = padding.is_none() || dropped > 0;
                prop_assert_eq!(reader.has_all_data(), has_length && joined.len() == data.len());
            }
            prop_assert_eq!(dropped, padding.map_or(0, |bytes| bytes + 1));
            prop_assert_eq!(joined, data);
            prop_assert_eq!(rest, b"the next frame");
        }

        #[test]
        fn any_frame_is_read_without_a_panic(
            frame_type: u8,
            flags: u8,
            stream in 0_u32..4,
            payload in vec(any::<u8>(), 0..40),
        ) {
            let Ok(header) = header(payload.len(), frame_type, flags, stream) else {
                return Ok(());
            };
            if header.frame_type == Some(FrameType::Data) {
                let mut reader = DataPayload::new(&header);
                if let Ok(taken) = reader.take(&mut &payload[..]) {
                    prop_assert_eq!(taken.data.len() + taken.padding_bytes, payload.len());
                    prop_assert!(reader.is_complete());
                }
            } else if let Ok(Frame::Settings(parameters)) = Frame::parse(&header, &payload) {
                let count = crate::http::h2::settings(parameters).count();
                prop_assert!(count <= payload.len() / SETTING_BYTES);
            }
        }
    }
}
