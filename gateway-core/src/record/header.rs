//! The header of a record: its length and type.
//! In: received bytes. Out: the length of the whole record, once all of it is there. Refuses what cannot become a
//! record by its first bytes.

use super::aead::TAG_BYTES;
use super::error::OpenError;
use super::{CONTENT_BYTES_MAX, Header, content_type};

/// Length of a record's header in bytes: type, version, length.
pub const HEADER_BYTES: usize = 5;

/// Maximum of a record's length field (RFC 8446 section 5.2).
const ENCRYPTED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;

/// Maximum length of a whole record, in bytes.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + ENCRYPTED_BYTES_MAX;

/// The record at the front of `bytes`: its header and its whole length; `None` until it is complete.
pub(super) fn whole_record(bytes: &[u8]) -> Result<Option<(Header, usize)>, OpenError> {
    let Some(&outer_type) = bytes.first() else {
        return Ok(None);
    };
    // RFC 8446 section 5.2: every protected record has type application_data. The version is ignored, and
    // authenticated.
    if outer_type != content_type::APPLICATION_DATA {
        return Err(OpenError::UnexpectedType);
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let encrypted_bytes = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if encrypted_bytes > ENCRYPTED_BYTES_MAX {
        return Err(OpenError::Overflow);
    }
    if encrypted_bytes < TAG_BYTES {
        return Err(OpenError::Forged);
    }
    let record_bytes = HEADER_BYTES + encrypted_bytes;
    Ok((bytes.len() >= record_bytes).then_some((*header, record_bytes)))
}

/// The header of a record with `content_bytes` of content, without padding.
pub(super) fn header_of(content_bytes: usize) -> Header {
    let encrypted_bytes = content_bytes + 1 + TAG_BYTES;
    let [high, low] = u16::try_from(encrypted_bytes)
        .expect("content is never longer than CONTENT_BYTES_MAX")
        .to_be_bytes();
    // RFC 8446 section 5.2: legacy_record_version is 0x0303.
    [content_type::APPLICATION_DATA, 3, 3, high, low]
}
