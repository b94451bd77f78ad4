//! What can be wrong with records, and the alert that says so: the one place where both meet.
//! A new error does not compile until it has its alert.
#![deny(
    clippy::wildcard_enum_match_arm,
    reason = "a new case has to be decided here, not to fall into another one's arm"
)]

use crate::alert::Alert;

/// What is wrong with what the peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Changed, replayed, out of order, or too short to be a record.
    #[error("a record is not authentic")]
    Forged,
    /// Longer than a record may be, with or without its padding.
    #[error("a record is too long")]
    Overflow,
    /// Not encrypted, a `change_cipher_spec`, or of no known type.
    #[error("a record of a type that has no place here")]
    UnexpectedType,
    /// Authentic, and nothing but padding.
    #[error("a record without a content type")]
    NoContentType,
    /// A handshake or alert record without content.
    #[error("an empty handshake or alert record")]
    Empty,
    /// Something else came between the parts of a handshake message.
    #[error("a record between the parts of a handshake message")]
    Interleaved,
    /// A handshake message that has no place after the handshake.
    #[error("a handshake message that has no place here")]
    UnexpectedMessage,
    /// A KeyUpdate is not the last thing in its record.
    #[error("bytes behind a KeyUpdate")]
    NotAligned,
    /// Nothing but KeyUpdates.
    #[error("too many KeyUpdates")]
    TooManyKeyUpdates,
    /// Nothing but records that bring nothing.
    #[error("too many records without content")]
    TooManyEmptyRecords,
    /// A handshake message whose length cannot be right, or is beyond our bound.
    #[error("a handshake message of a wrong length")]
    MalformedMessage,
    /// A KeyUpdate that says neither yes nor no.
    #[error("an illegal KeyUpdate")]
    IllegalKeyUpdate,
    /// An alert that is not one.
    #[error("a malformed alert")]
    MalformedAlert,
    /// The peer has used up its sequence numbers.
    #[error("no sequence number is left")]
    SequenceExhausted,
    /// The peer ended the connection with this alert.
    #[error("the peer sent alert {}", .0.0)]
    PeerAlert(Alert),
}

impl OpenError {
    /// The alert to send; none to a peer that has given up itself.
    pub const fn alert(self) -> Option<Alert> {
        match self {
            OpenError::Forged => Some(Alert::BAD_RECORD_MAC),
            OpenError::Overflow => Some(Alert::RECORD_OVERFLOW),
            // RFC 8446 section 5: of an unexpected type; section 5.4: without a type, or without content; section 5.1:
            // between parts, or before a change of keys.
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

/// Why nothing more can be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key has protected as many records as it may, and no other has come.
    #[error("the key has protected as many records as it may")]
    KeyExhausted,
    /// Nothing follows a close_notify or a fatal alert.
    #[error("the direction is closed")]
    Closed,
    /// The cryptographic library refused.
    #[error("the cipher refused to seal")]
    Cipher,
}
