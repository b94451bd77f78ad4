//! Checks the records of a handshake before the TLS library reads them, for what the library accepts and RFC 8446
//! forbids.
//! In: the header of each record, and the content of plaintext ones. Out: a fault, with the alert of the standard.
//! Keeps a few bytes of the message in progress, never the message itself.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use crate::alert::Alert;
use crate::failure::Failure;
use crate::record::{CONTENT_BYTES_MAX, HEADER_BYTES};

/// Content types (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Maximum length of an encrypted record beyond its content (RFC 8446 section 5.2).
const EXPANSION_BYTES_MAX: usize = 256;

/// Type and length of a handshake message (section 4), and the version at the start of a ClientHello or ServerHello.
const MESSAGE_HEADER_BYTES: usize = 4;
const HEAD_BYTES: usize = MESSAGE_HEADER_BYTES + 2;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SSL_3_0: u16 = 0x0300;
const TLS_1_2: u16 = 0x0303;

/// Why a record of a handshake is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It is longer than a record may be.
    #[error("a record is longer than RFC 8446 sections 5.1 and 5.2 allow")]
    TooLong,
    /// Plaintext data or an unknown type, or a plaintext handshake record after keys exist.
    #[error(
        "a record of a type that is not allowed at this point of the handshake (RFC 8446 section 5)"
    )]
    UnexpectedType,
    /// A plaintext record without content.
    #[error("an empty record in clear (RFC 8446 section 5.1)")]
    Empty,
    /// Another record came between the parts of a handshake message.
    #[error("a record between the parts of a handshake message (RFC 8446 section 5.1)")]
    Interleaved,
    /// A hello whose `legacy_version` is SSL 3.0 or older.
    #[error("a hello with the version number of SSL 3.0 or older (RFC 8446 section D.5)")]
    OldVersion,
}

impl RecordFault {
    /// The failure to count and log.
    pub const fn failure(self) -> Failure {
        match self {
            RecordFault::OldVersion => Failure::Version,
            RecordFault::TooLong
            | RecordFault::UnexpectedType
            | RecordFault::Empty
            | RecordFault::Interleaved => Failure::Malformed,
        }
    }

    /// The alert for the peer.
    pub const fn alert(self) -> Alert {
        match self {
            RecordFault::TooLong => Alert::RECORD_OVERFLOW,
            RecordFault::UnexpectedType | RecordFault::Empty | RecordFault::Interleaved => {
                Alert::UNEXPECTED_MESSAGE
            }
            RecordFault::OldVersion => Alert::PROTOCOL_VERSION,
        }
    }
}

/// Whether the peer's records are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Neither side has keys: the next message is a ClientHello or a ServerHello.
    Clear,
    /// Both sides have the handshake keys.
    Encrypted,
}

/// Checks one direction of a handshake.
#[derive(Debug)]
pub struct HandshakeScreen {
    /// The hello that the peer must send. The TLS library refuses any other message, whatever version it names.
    hello: u8,
    /// The first bytes of the plaintext message in progress.
    head: [u8; HEAD_BYTES],
    /// Received bytes of that message.
    received_bytes: usize,
}

impl HandshakeScreen {
    /// A screen for the records of a client.
    pub const fn of_client() -> Self {
        HandshakeScreen::new(CLIENT_HELLO)
    }

    /// A screen for the records of a server.
    pub const fn of_server() -> Self {
        HandshakeScreen::new(SERVER_HELLO)
    }

    const fn new(hello: u8) -> Self {
        HandshakeScreen {
            hello,
            head: [0; HEAD_BYTES],
            received_bytes: 0,
        }
    }

    /// Checks the header of the next record, before its content has arrived. Ignores its version, as section 5.1
    /// demands.
    ///
    /// # Errors
    ///
    /// The header is that of an invalid record.
    pub fn header(
        &self,
        header: [u8; HEADER_BYTES],
        protection: Protection,
    ) -> Result<(), RecordFault> {
        let [content_type, _, _, high, low] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let length_max = match content_type {
            APPLICATION_DATA => CONTENT_BYTES_MAX + EXPANSION_BYTES_MAX,
            _ => CONTENT_BYTES_MAX,
        };
        match (content_type, protection) {
            (HANDSHAKE, Protection::Clear)
            | (APPLICATION_DATA, Protection::Encrypted)
            // A plaintext alert may come at any time: a client that refuses a ServerHello has no keys. So may a
            // change_cipher_spec, after the first ClientHello (section 5).
            | (ALERT | CHANGE_CIPHER_SPEC, _) => {}
            _ => return Err(RecordFault::UnexpectedType),
        }
        if length > length_max {
            return Err(RecordFault::TooLong);
        }
        if length == 0 && content_type != APPLICATION_DATA {
            return Err(RecordFault::Empty);
        }
        match self.received_bytes > 0 && protection == Protection::Clear {
            true if content_type != HANDSHAKE => Err(RecordFault::Interleaved),
            _ => Ok(()),
        }
    }

    /// Checks the content of a whole record with a valid header.
    ///
    /// # Errors
    ///
    /// The content makes the record invalid.
    pub fn content(
        &mut self,
        content_type: u8,
        mut content: &[u8],
        protection: Protection,
    ) -> Result<(), RecordFault> {
        if (content_type, protection) != (HANDSHAKE, Protection::Clear) {
            return Ok(());
        }
        while !content.is_empty() {
            let taken = self.take(content);
            content = &content[taken..];
            self.version()?;
        }
        Ok(())
    }

    /// Whether the last hello's `legacy_version` is older than that of TLS 1.2, which is what every client of TLS 1.3 sends
    /// (section 4.1.2).
    pub fn is_hello_before_tls_1_2(&self) -> bool {
        let [kind, _, _, _, major, minor] = self.head;
        kind == self.hello && u16::from_be_bytes([major, minor]) < TLS_1_2
    }

    /// Takes bytes of one message. Returns their number.
    fn take(&mut self, content: &[u8]) -> usize {
        let wanted = match self.received_bytes < HEAD_BYTES {
            // A message may be shorter: its length is known after its fourth byte.
            true if self.received_bytes < MESSAGE_HEADER_BYTES => MESSAGE_HEADER_BYTES,
            true => HEAD_BYTES.min(self.message_bytes()),
            false => self.message_bytes(),
        };
        let taken = content.len().min(wanted - self.received_bytes);
        if let Some(head) = self.head.get_mut(self.received_bytes..) {
            let kept = taken.min(head.len());
            head[..kept].copy_from_slice(&content[..kept]);
        }
        self.received_bytes += taken;
        taken
    }

    /// The length of the message in progress, once its header has arrived.
    fn message_bytes(&self) -> usize {
        let [_, high, middle, low, ..] = self.head;
        MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize
    }

    /// Checks the version of a hello once it has arrived. Starts anew behind the end of a message.
    fn version(&mut self) -> Result<(), RecordFault> {
        if self.received_bytes < MESSAGE_HEADER_BYTES {
            return Ok(());
        }
        let [message_type, .., major, minor] = self.head;
        let is_hello = message_type == self.hello;
        // Section D.5: protocol_version answers a hello with this version or an older one.
        if is_hello
            && self.received_bytes == HEAD_BYTES
            && u16::from_be_bytes([major, minor]) <= SSL_3_0
        {
            return Err(RecordFault::OldVersion);
        }
        if self.received_bytes == self.message_bytes() {
            self.received_bytes = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR: Protection = Protection::Clear;
    const ENCRYPTED: Protection = Protection::Encrypted;

    fn hello(version: u16) -> Vec<u8> {
        let [major, minor] = version.to_be_bytes();
        [&[CLIENT_HELLO, 0, 0, 40, major, minor][..], &[7; 38]].concat()
    }

    /// What becomes of these contents of handshake records in clear.
    fn screened<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Result<(), RecordFault> {
        let mut screen = HandshakeScreen::of_client();
        records.into_iter().try_for_each(|content| {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            screen.header([HANDSHAKE, 3, 1, high, low], CLEAR)?;
            screen.content(HANDSHAKE, content, CLEAR)
        })
    }

    #[test]
    fn a_record_is_as_long_as_the_standard_allows_and_no_longer() {
        let screen = HandshakeScreen::of_client();
        let header = |content_type, length: u16, protection| {
            let [high, low] = length.to_be_bytes();
            screen.header([content_type, 3, 3, high, low], protection)
        };
        assert_eq!(header(HANDSHAKE, 1 << 14, CLEAR), Ok(()));
        assert_eq!(
            header(HANDSHAKE, (1 << 14) + 1, CLEAR),
            Err(RecordFault::TooLong)
        );
        assert_eq!(header(APPLICATION_DATA, (1 << 14) + 256, ENCRYPTED), Ok(()));
        let too_long = header(APPLICATION_DATA, (1 << 14) + 257, ENCRYPTED);
        assert_eq!(too_long, Err(RecordFault::TooLong));
        assert_eq!(header(HANDSHAKE, 0, CLEAR), Err(RecordFault::Empty));
        assert_eq!(header(ALERT, 0, ENCRYPTED), Err(RecordFault::Empty));
    }

    #[test]
    fn each_type_of_record_has_its_time() {
        let screen = HandshakeScreen::of_client();
        let passes = |content_type, protection| {
            let passed = screen.header([content_type, 3, 3, 0, 2], protection);
            passed == Ok(())
        };
        let types = [
            HANDSHAKE,
            APPLICATION_DATA,
            ALERT,
            CHANGE_CIPHER_SPEC,
            24,
            0,
        ];
        let in_clear = types.map(|content_type| passes(content_type, CLEAR));
        assert_eq!(in_clear, [true, false, true, true, false, false]);
        let encrypted = types.map(|content_type| passes(content_type, ENCRYPTED));
        assert_eq!(encrypted, [false, true, true, true, false, false]);
    }

    #[test]
    fn the_version_of_a_record_is_ignored_and_that_of_a_hello_is_not() {
        let screen = HandshakeScreen::of_client();
        for version in [0_u8, 1, 3, 4, 255] {
            assert_eq!(screen.header([HANDSHAKE, 3, version, 1, 0], CLEAR), Ok(()));
        }
        for version in [0x0301, 0x0303, 0x0304, 0x7f12] {
            assert_eq!(screened([&hello(version)[..]]), Ok(()));
        }
        for version in [0x0300, 0x0200, 0x0002, 0] {
            let hello = hello(version);
            assert_eq!(screened([&hello[..]]), Err(RecordFault::OldVersion));
            // However it is cut, and in a second hello as well.
            assert_eq!(screened(hello.chunks(1)), Err(RecordFault::OldVersion));
            let twice = [&super::tests::hello(0x0303)[..], &hello].concat();
            for piece in 1..=twice.len() {
                assert_eq!(screened(twice.chunks(piece)), Err(RecordFault::OldVersion));
            }
        }
        // Another message has no version there, or is refused for what it is, and a short one has none at all.
        assert_eq!(
            screened([
                &[20, 0, 0, 2, 3, 0][..],
                &[2, 0, 0, 2, 3, 0],
                &[1, 0, 0, 0],
                &[1, 0, 0, 1, 0]
            ]),
            Ok(())
        );
        let mut of_server = HandshakeScreen::of_server();
        let old = of_server.content(HANDSHAKE, &[2, 0, 0, 2, 3, 0], CLEAR);
        assert_eq!(old, Err(RecordFault::OldVersion));
    }

    #[test]
    fn a_hello_of_tls_1_1_is_let_through_and_told_from_later_ones() {
        for (version, is_before) in [(0x0301, true), (0x0302, true), (0x0303, false)] {
            for piece in [1, 5, 44] {
                let mut screen = HandshakeScreen::of_client();
                assert!(!screen.is_hello_before_tls_1_2(), "none has come");
                for content in hello(version).chunks(piece) {
                    screen.content(HANDSHAKE, content, CLEAR).unwrap();
                }
                assert_eq!(screen.is_hello_before_tls_1_2(), is_before, "{version:x}");
            }
        }
    }

    #[test]
    fn nothing_comes_between_the_parts_of_a_hello() {
        let hello = hello(0x0303);
        for cut in 1..hello.len() {
            let mut screen = HandshakeScreen::of_client();
            screen.content(HANDSHAKE, &hello[..cut], CLEAR).unwrap();
            for content_type in [ALERT, CHANGE_CIPHER_SPEC] {
                let between = screen.header([content_type, 3, 3, 0, 2], CLEAR);
                assert_eq!(between, Err(RecordFault::Interleaved));
            }
            let data = screen.header([APPLICATION_DATA, 3, 3, 0, 0], CLEAR);
            assert_eq!(data, Err(RecordFault::UnexpectedType));
            screen.content(HANDSHAKE, &hello[cut..], CLEAR).unwrap();
            assert_eq!(
                screen.header([CHANGE_CIPHER_SPEC, 3, 3, 0, 1], CLEAR),
                Ok(())
            );
        }
    }
}
