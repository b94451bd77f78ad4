//! Handshake messages after the handshake (RFC 8446 section 4.6), assembled from records.
//! In: contents of handshake records. Out: one message after the other. Bounded; holds memory only while a message is
//! incomplete or not taken.

use super::error::OpenError;
use super::peer::Peer;
use super::{CONTENT_BYTES_MAX, KeyUpdateRequest, MESSAGE_BYTES_MAX};

/// Length of a message's header in bytes: type and length.
const HEADER_BYTES: usize = 4;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A message of the peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    KeyUpdate(KeyUpdateRequest),
    /// The payload, without type and length.
    Ticket(Box<[u8]>),
}

/// Bytes of messages that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// Bytes before this position were taken.
    start: usize,
}

impl Messages {
    /// Whether a message is incomplete, once `next` has returned `None`.
    pub(super) fn is_pending(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// Takes the content of the next handshake record. Call it after `next` has returned `None`.
    pub(super) fn add(&mut self, content: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(content);
        debug_assert!(self.bytes.len() <= HEADER_BYTES + MESSAGE_BYTES_MAX + CONTENT_BYTES_MAX);
    }

    /// The next whole message. Refuses a message by its header, before the rest has arrived.
    pub(super) fn next(&mut self, peer: Peer) -> Result<Option<Message>, OpenError> {
        let rest = &self.bytes[self.start..];
        let Some(&kind) = rest.first() else {
            *self = Messages::default();
            return Ok(None);
        };
        let bytes_max = match (kind, peer) {
            (KEY_UPDATE, _) => 1,
            (NEW_SESSION_TICKET, Peer::Server) => MESSAGE_BYTES_MAX,
            _ => return Err(OpenError::UnexpectedMessage),
        };
        let Some((&[_, high, middle, low], body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > bytes_max || length == 0 {
            return Err(OpenError::MalformedMessage);
        }
        let Some(body) = body.get(..length) else {
            return Ok(None);
        };
        let message = match kind {
            KEY_UPDATE => Message::KeyUpdate(match body {
                [0] => KeyUpdateRequest::NotRequested,
                [1] => KeyUpdateRequest::Requested,
                _ => return Err(OpenError::IllegalKeyUpdate),
            }),
            _ => Message::Ticket(body.into()),
        };
        self.start += HEADER_BYTES + length;
        // RFC 8446 section 5.1: a message before a change of keys ends with its record.
        if matches!(message, Message::KeyUpdate(_)) && self.is_pending() {
            return Err(OpenError::NotAligned);
        }
        Ok(Some(message))
    }
}

/// The message that announces our next key.
pub(super) const fn key_update(request: KeyUpdateRequest) -> [u8; HEADER_BYTES + 1] {
    let asks = match request {
        KeyUpdateRequest::NotRequested => 0,
        KeyUpdateRequest::Requested => 1,
    };
    [KEY_UPDATE, 0, 0, 1, asks]
}
