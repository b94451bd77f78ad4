//! The header of a record: where it ends, and whether it may be one.
//! In: bytes as they came. Out: the length of the whole record, once it is there. What cannot become a record is refused with
//! its first bytes, not waited for.

use super::aead::TAG_BYTES;
use super::error::OpenError;
use super::{CONTENT_BYTES_MAX, Header, content_type};

/// Length of a record's header: type, version, length.
pub const HEADER_BYTES: usize = 5;

/// What a record's length field may say (RFC 8446 section 5.2).
const ENCRYPTED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;

/// A whole record at most.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + ENCRYPTED_BYTES_MAX;

/// The record at the front of `bytes`: its header and its whole length. `None` as long as it is not complete.
pub(super) fn whole_record(bytes: &[u8]) -> Result<Option<(Header, usize)>, OpenError> {
    let Some(&outer_type) = bytes.first() else {
        return Ok(None);
    };
    // RFC 8446 section 5.2: everything protected says application_data. The version is ignored, and is authenticated.
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

/// The header of a record whose content, without padding, has `content_bytes`.
pub(super) fn header_of(content_bytes: usize) -> Header {
    let encrypted_bytes = content_bytes + 1 + TAG_BYTES;
    let [high, low] = u16::try_from(encrypted_bytes)
        .expect("content is never longer than CONTENT_BYTES_MAX")
        .to_be_bytes();
    // RFC 8446 section 5.2: legacy_record_version is 0x0303.
    [content_type::APPLICATION_DATA, 3, 3, high, low]
}
