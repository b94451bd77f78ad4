//! TLS 1.3 records (RFC 8446 section 5) after the handshake: opened and sealed in place.
//!
//! In: traffic keys, received bytes, plaintext. Out: plaintext, records, and what the caller has to do about the peer's
//! messages. No I/O, no clock; the cipher comes from outside as an `Aead`. Keys are derived elsewhere: on a
//! KeyUpdate the caller gets the new one and hands it in.
//!
//! A direction never yields a byte of a record that is not authentic and in its place, and none at all after its first
//! error.

mod aead;
mod error;
mod header;
mod message;
mod opener;
mod peer;
mod sealer;
mod update_budget;

pub use aead::{Aead, Forged, Header, IV_BYTES, Suite, TAG_BYTES, TrafficKey};
pub use error::{OpenError, SealError};
pub use header::{HEADER_BYTES, RECORD_BYTES_MAX};
pub use opener::{Batch, Opener, Stop};
pub use peer::Peer;
pub use sealer::{ALERT_RECORD_BYTES, KEY_UPDATE_RECORD_BYTES, KeyUpdateRequest, Sealer};
pub use update_budget::{BYTES_PER_KEY_UPDATE, KEY_UPDATES_PER_MINUTE, UpdateBudget};

/// Content of one record at most (RFC 8446 section 5.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// What a record without padding is longer than its content: header, content type, tag.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Longest handshake message that is put together, in bytes. Only a NewSessionTicket comes near it, and those of common
/// servers have at most a few thousand.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// KeyUpdates in a row, without application data between them, that are followed: each costs us a key derivation and
/// the peer 27 bytes. As many as BoringSSL and rustls follow.
pub const KEY_UPDATES_MAX: u8 = 32;

/// Records in a row that bring nothing, that are followed: data without content, and user_canceled. The standard allows them
/// (section 5.1), and each costs us as much as one with data, of which limits on bytes know nothing. As many as OpenSSL and
/// BoringSSL follow.
pub const EMPTY_RECORDS_MAX: u8 = 32;

/// Content types (RFC 8446 section 5.1). `change_cipher_spec` has no place after Finished.
mod content_type {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}
