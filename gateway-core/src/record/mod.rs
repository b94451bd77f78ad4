//! TLS 1.3 records (RFC 8446 section 5) after the handshake: opened and sealed in place.
//!
//! In: traffic keys, received bytes, plaintext. Out: plaintext, records, and what the peer's messages ask of the
//! caller. No I/O, no clock. The cipher is an `Aead` from outside; on a KeyUpdate the caller derives the next key and
//! hands it in.
//!
//! A direction never yields a byte of a record that is not authentic and in order, and no byte after its first error.

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
pub use message::is_ticket;
pub use opener::{Batch, Opener, Stop};
pub use peer::Peer;
pub use sealer::{ALERT_RECORD_BYTES, KEY_UPDATE_RECORD_BYTES, KeyUpdateRequest, Sealer};
pub use update_budget::{BYTES_PER_KEY_UPDATE, KEY_UPDATES_PER_MINUTE, UpdateBudget};

/// Maximum content of one record, in bytes (RFC 8446 section 5.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// Overhead of a record without padding, in bytes: header, content type, tag.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Maximum length of a handshake message, in bytes. Only a NewSessionTicket comes near it; those of common servers
/// have at most a few thousand bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Maximum of KeyUpdates in a row without application data. Each costs us a key derivation and the peer 27 bytes.
/// BoringSSL and rustls have the same bound.
pub const KEY_UPDATES_MAX: u8 = 32;

/// Maximum of records in a row without data: empty data records and user_canceled. The standard allows them (section
/// 5.1), each costs as much as one with data, and limits on bytes do not see them. OpenSSL and BoringSSL have the
/// same bound.
pub const EMPTY_RECORDS_MAX: u8 = 32;

/// Content types (RFC 8446 section 5.1). `change_cipher_spec` is not allowed after Finished.
mod content_type {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}
