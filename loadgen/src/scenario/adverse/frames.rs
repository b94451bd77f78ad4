//! Frames of HTTP/2 as no library would send them. In: types, flags, payloads. Out: bytes, and what comes back.
//! Written apart from what it is aimed at: only what adverse clients need, and nothing is checked.

use h2::Reason;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length of what stands before each payload.
pub(super) const HEADER: usize = 9;

/// Types of frames, by their numbers on the wire (RFC 9113 section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(super) const NONE: u8 = 0;
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// SETTINGS_INITIAL_WINDOW_SIZE.
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

/// Appends a frame.
pub(super) fn frame(output: &mut Vec<u8>, frame_type: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("payloads here are short");
    output.extend_from_slice(&length.to_be_bytes()[1..]);
    output.extend_from_slice(&[frame_type, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
    output.extend_from_slice(payload);
}

/// A parameter of SETTINGS.
pub(super) fn setting(number: u16, value: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    payload
}

/// The field block of a request by POST, without the dynamic table (RFC 7541 section 6.2.2).
pub(super) fn request(path: &str, authority: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: https` of the static table.
    let mut block = vec![0x83, 0x87];
    // `:path` is its fourth, `:authority` its first.
    block.push(0x04);
    text(&mut block, path.as_bytes());
    block.push(0x01);
    text(&mut block, authority.as_bytes());
    field(&mut block, b"content-type", b"application/grpc");
    field(&mut block, b"te", b"trailers");
    block
}

/// Appends a field that no table keeps.
pub(super) fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    text(block, name);
    text(block, value);
}

/// Appends a field that the peer's dynamic table keeps (RFC 7541 section 6.2.1).
pub(super) fn kept_field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0x40);
    text(block, name);
    text(block, value);
}

/// The newest field of the dynamic table: the 62nd of both tables.
pub(super) const NEWEST_FIELD: u8 = 0x80 | 62;

/// A length with seven bits in its first byte, and text without Huffman (RFC 7541 section 5).
fn text(block: &mut Vec<u8>, text: &[u8]) {
    const FIRST_MAX: usize = 127;
    if text.len() < FIRST_MAX {
        block.push(text.len() as u8);
    } else {
        block.push(FIRST_MAX as u8);
        let mut rest = text.len() - FIRST_MAX;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
}

/// A frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) frame_type: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) length: usize,
}

impl Incoming {
    /// Reads what stands before a payload.
    pub(super) fn parse(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, frame_type, flags, stream @ ..] = bytes;
        Self {
            frame_type,
            flags,
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            length: u32::from_be_bytes([0, a, b, c]) as usize,
        }
    }
}

/// A number in a payload; 0 where it is too short.
pub(super) fn number_at(payload: &[u8], offset: usize) -> u32 {
    let bytes = payload.get(offset..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// The reason in the payload of GOAWAY.
pub(super) fn goaway_reason(payload: &[u8]) -> Reason {
    number_at(payload, 4).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_is_read_again() {
        let mut bytes = Vec::new();
        frame(&mut bytes, PING, ACK, 7, &[1; 300]);
        let header = Incoming::parse(*bytes.first_chunk().unwrap());
        let expected = Incoming {
            frame_type: PING,
            flags: ACK,
            stream: 7,
            length: 300,
        };
        assert_eq!((header, bytes.len()), (expected, HEADER + 300));
    }

    #[test]
    fn texts_of_any_length_have_their_length_before_them() {
        // RFC 7541 section 5.1, with a prefix of seven bits.
        for (length, expected) in [
            (10, vec![10]),
            (126, vec![126]),
            (127, vec![127, 0]),
            (1337, vec![127, 186, 9]),
        ] {
            let mut block = Vec::new();
            text(&mut block, &vec![b'x'; length]);
            assert_eq!(block[..block.len() - length], expected);
        }
    }
}
