//! Errors of records, and the one place that maps them to alerts.
//! In: an error. Out: its alert. A new error does not compile until it has one.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use crate::alert::Alert;

/// Why a record of the peer is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The record is changed, replayed, out of order, or too short.
    #[error("a record is not authentic")]
    Forged,
    /// The record is longer than allowed, with or without its padding.
    #[error("a record is too long")]
    Overflow,
    /// The record is not encrypted, a `change_cipher_spec`, or of an unknown type.
    #[error("a record of an unexpected type")]
    UnexpectedType,
    /// The record is authentic, and only padding.
    #[error("a record without a content type")]
    NoContentType,
    /// The record is of type handshake or alert and has no content.
    #[error("an empty handshake or alert record")]
    Empty,
    /// Another record came between the parts of a handshake message.
    #[error("a record between the parts of a handshake message")]
    Interleaved,
    /// The peer may not send this handshake message after the handshake.
    #[error("an unexpected handshake message")]
    UnexpectedMessage,
    /// A KeyUpdate is not the last message of its record.
    #[error("bytes after a KeyUpdate")]
    NotAligned,
    /// Too many KeyUpdates in a row, or in a minute.
    #[error("too many KeyUpdates")]
    TooManyKeyUpdates,
    /// Too many records in a row without data.
    #[error("too many records without content")]
    TooManyEmptyRecords,
    /// A handshake message has a wrong length, or one beyond our bound, or a part of it has.
    #[error("a handshake message of a wrong length, or with a part of one")]
    MalformedMessage,
    /// A KeyUpdate has an undefined value.
    #[error("an illegal KeyUpdate")]
    IllegalKeyUpdate,
    /// An alert has a wrong length.
    #[error("a malformed alert")]
    MalformedAlert,
    /// The peer has used up its sequence numbers.
    #[error("no sequence number is left")]
    SequenceExhausted,
    /// The peer closed the connection with this alert.
    #[error("the peer sent alert {}", .0.0)]
    PeerAlert(Alert),
}

impl OpenError {
    /// Whether it is an alert by which a peer refuses our certificate (RFC 8446 section 6.2): one of those about certificates,
    /// access_denied or certificate_required.
    pub const fn refuses_our_certificate(self) -> bool {
        matches!(self, OpenError::PeerAlert(Alert(42..=46 | 48 | 49 | 116)))
    }

    /// The alert to send; `None` to a peer that has sent one.
    pub const fn alert(self) -> Option<Alert> {
        match self {
            OpenError::Forged => Some(Alert::BAD_RECORD_MAC),
            OpenError::Overflow => Some(Alert::RECORD_OVERFLOW),
            // RFC 8446 section 5: an unexpected type; section 5.4: no type, or no content; section 5.1: between
            // parts, or before a change of keys.
            OpenError::UnexpectedType
            | OpenError::NoContentType
            | OpenError::Empty
            | OpenError::Interleaved
            | OpenError::UnexpectedMessage
            | OpenError::NotAligned
            | OpenError::TooManyKeyUpdates
            | OpenError::TooManyEmptyRecords => Some(Alert::UNEXPECTED_MESSAGE),
            OpenError::MalformedMessage | OpenError::MalformedAlert => Some(Alert::DECODE_ERROR),
            OpenError::IllegalKeyUpdate => Some(Alert::ILLEGAL_PARAMETER), // section 4.6.3
            OpenError::SequenceExhausted => Some(Alert::INTERNAL_ERROR),
            OpenError::PeerAlert(_) => None,
        }
    }
}

/// Why no more records can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key has protected its maximum of records, and there is no next key.
    #[error("the key has protected as many records as it may")]
    KeyExhausted,
    /// The direction has sent a close_notify or a fatal alert.
    #[error("the direction is closed")]
    Closed,
    /// The cryptographic library has refused.
    #[error("the cipher refused to seal")]
    Cipher,
}
