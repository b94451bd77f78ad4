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

/// Whether a NewSessionTicket, without type and length, has the form of RFC 8446 section 4.6.1: lifetime and age_add, a nonce, a ticket
/// of at least one byte, and extensions that fill the rest.
/// What is in the extensions is not looked at: no ticket is ever used.
pub fn is_ticket(body: &[u8]) -> bool {
    const LIFETIME_AND_AGE_ADD_BYTES: usize = 8;
    let Some((_, rest)) = body.split_at_checked(LIFETIME_AND_AGE_ADD_BYTES) else {
        return false;
    };
    let nonce_and_rest = rest
        .split_first()
        .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
    let Some((ticket, rest)) = nonce_and_rest.and_then(|(_, rest)| split_vector(rest)) else {
        return false;
    };
    match split_vector(rest) {
        Some((extensions, [])) => !ticket.is_empty() && are_extensions(extensions),
        _ => false,
    }
}

/// Whether each extension is whole: a type, and its data.
fn are_extensions(mut bytes: &[u8]) -> bool {
    const TYPE_BYTES: usize = 2;
    while !bytes.is_empty() {
        let data = bytes.split_at_checked(TYPE_BYTES);
        let Some((_, rest)) = data.and_then(|(_, rest)| split_vector(rest)) else {
            return false;
        };
        bytes = rest;
    }
    true
}

/// A vector whose length stands before it in two bytes, and what is behind it.
fn split_vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The message that announces our next key.
pub(super) const fn key_update(request: KeyUpdateRequest) -> [u8; HEADER_BYTES + 1] {
    let asks = match request {
        KeyUpdateRequest::NotRequested => 0,
        KeyUpdateRequest::Requested => 1,
    };
    [KEY_UPDATE, 0, 0, 1, asks]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A NewSessionTicket's payload.
    fn payload(nonce: &[u8], ticket: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 28, 32, 1, 2, 3, 4, nonce.len() as u8];
        bytes.extend_from_slice(nonce);
        for vector in [ticket, extensions] {
            bytes.extend((vector.len() as u16).to_be_bytes());
            bytes.extend_from_slice(vector);
        }
        bytes
    }

    #[test]
    fn a_ticket_is_taken_whole_and_by_its_form_alone() {
        let early_data = [0, 42, 0, 4, 0, 0, 64, 0];
        let unknown = [[0xfe, 0xfe, 0, 0].as_slice(), &early_data].concat();
        for nonce in [&[][..], &[7], &[7; 255]] {
            for extensions in [&[][..], &early_data, &unknown] {
                let whole = payload(nonce, b"ticket", extensions);
                assert!(is_ticket(&whole));
                for length in 0..whole.len() {
                    assert!(!is_ticket(&whole[..length]), "{length} bytes");
                }
                assert!(!is_ticket(&[&whole[..], &[0]].concat()), "a byte behind it");
            }
        }
        assert!(is_ticket(&payload(b"", &[9; 60_000], b"")));
        assert!(!is_ticket(&payload(b"nonce", b"", b"")), "no ticket in it");
        for cut in 1..early_data.len() {
            let cut = &early_data[..cut];
            assert!(!is_ticket(&payload(b"nonce", b"ticket", cut)), "{cut:?}");
        }
    }
}
