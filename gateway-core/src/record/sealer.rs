//! Seals records for the peer.
//! In: plaintext in a buffer with room around it. Out: records in the same buffer, and our two short records: a
//! KeyUpdate, an alert. One per direction; holds a key and no bytes.

use std::ops::Range;

use super::aead::{Aead, TrafficKey};
use super::error::SealError;
use super::header::{HEADER_BYTES, header_of};
use super::message::key_update;
use super::{CONTENT_BYTES_MAX, OVERHEAD_BYTES, TAG_BYTES, content_type};
use crate::alert::Alert;

/// Length of a record with an alert, in bytes.
pub const ALERT_RECORD_BYTES: usize = 2 + OVERHEAD_BYTES;

/// Length of a record with a KeyUpdate, in bytes.
pub const KEY_UPDATE_RECORD_BYTES: usize = 5 + OVERHEAD_BYTES;

const FATAL: u8 = 2;
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;

/// Whether a KeyUpdate asks the receiver for one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUpdateRequest {
    /// It asks for none.
    NotRequested,
    /// It asks for one.
    Requested,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealerState {
    Open,
    /// Our KeyUpdate is sealed, and the next key is missing.
    AwaitsKey,
    Closed,
}

/// The sending direction.
#[derive(Debug)]
pub struct Sealer<A> {
    key: TrafficKey<A>,
    state: SealerState,
}

impl<A: Aead> Sealer<A> {
    /// Seals records, beginning with the next one under `key`.
    pub fn new(key: TrafficKey<A>) -> Self {
        Sealer {
            key,
            state: SealerState::Open,
        }
    }

    /// Length of `plaintext_bytes` as records of `content_bytes_max` each, in bytes.
    pub const fn sealed_bytes(plaintext_bytes: usize, content_bytes_max: usize) -> usize {
        plaintext_bytes + plaintext_bytes.div_ceil(content_bytes_max) * OVERHEAD_BYTES
    }

    /// Whether a KeyUpdate must go before `records` more, because the key has protected nearly its maximum.
    pub fn needs_update_before(&self, records: u64) -> bool {
        let after = self.key.sequence().saturating_add(records);
        after > self.key.suite().update_after()
    }

    /// Seals `bytes[plaintext]` in place, as records of at most `content_bytes_max` of content. They begin
    /// `HEADER_BYTES` before the plaintext, or at the front if there is less room, and end behind it; the buffer must
    /// have room for `sealed_bytes`. Returns their range. After an error the contents of the buffer are undefined: do
    /// not send them.
    pub fn seal(
        &mut self,
        bytes: &mut [u8],
        plaintext: Range<usize>,
        content_bytes_max: usize,
    ) -> Result<Range<usize>, SealError> {
        assert!(
            (1..=CONTENT_BYTES_MAX).contains(&content_bytes_max),
            "a record has 1 to 16384 bytes of content"
        );
        let start = plaintext.start.saturating_sub(HEADER_BYTES);
        let end = start + Self::sealed_bytes(plaintext.len(), content_bytes_max);
        assert!(end <= bytes.len(), "no room for the records");
        let records = plaintext.len().div_ceil(content_bytes_max);
        self.may_seal(records as u64, self.key.suite().records_max())?;
        // From the last to the first: each moves back further than the one before it, and is sealed while it is in
        // the cache.
        for index in (0..records).rev() {
            let from = plaintext.start + index * content_bytes_max;
            let content_bytes = content_bytes_max.min(plaintext.end - from);
            let to = start + index * (content_bytes_max + OVERHEAD_BYTES);
            let content_at = to + HEADER_BYTES;
            if content_at != from {
                bytes.copy_within(from..from + content_bytes, content_at);
            }
            let record = &mut bytes[to..content_at + content_bytes + 1 + TAG_BYTES];
            let sealed = self.seal_record(index as u64, record, content_type::APPLICATION_DATA);
            if sealed.is_err() {
                // The numbers behind this one are used up without being counted.
                self.state = SealerState::Closed;
                return sealed.map(|()| start..end);
            }
        }
        self.key.advance(records as u64);
        Ok(start..end)
    }

    /// A KeyUpdate, under the old key. `rekey` must follow before the next record.
    pub fn key_update(
        &mut self,
        request: KeyUpdateRequest,
    ) -> Result<[u8; KEY_UPDATE_RECORD_BYTES], SealError> {
        let record = self.short_record(content_type::HANDSHAKE, &key_update(request))?;
        self.state = SealerState::AwaitsKey;
        Ok(record)
    }

    /// Takes our next key, after our KeyUpdate.
    pub fn rekey(&mut self, key: TrafficKey<A>) {
        assert_eq!(self.state, SealerState::AwaitsKey, "a key nobody announced");
        self.key = key;
        self.state = SealerState::Open;
    }

    /// A fatal alert. It closes the direction.
    pub fn alert(&mut self, alert: Alert) -> Result<[u8; ALERT_RECORD_BYTES], SealError> {
        self.last_record(&[FATAL, alert.0])
    }

    /// A close_notify. It closes the direction.
    pub fn close_notify(&mut self) -> Result<[u8; ALERT_RECORD_BYTES], SealError> {
        self.last_record(&[WARNING, CLOSE_NOTIFY])
    }

    fn last_record(&mut self, alert: &[u8; 2]) -> Result<[u8; ALERT_RECORD_BYTES], SealError> {
        let record = self.short_record(content_type::ALERT, alert)?;
        self.state = SealerState::Closed;
        Ok(record)
    }

    fn short_record<const BYTES: usize>(
        &mut self,
        content_type: u8,
        content: &[u8],
    ) -> Result<[u8; BYTES], SealError> {
        self.may_seal(1, u64::MAX)?;
        let mut record = [0; BYTES];
        record[HEADER_BYTES..][..content.len()].copy_from_slice(content);
        self.seal_record(0, &mut record, content_type)?;
        self.key.advance(1);
        Ok(record)
    }

    fn may_seal(&self, records: u64, records_max: u64) -> Result<(), SealError> {
        match self.state {
            SealerState::Open => {}
            SealerState::AwaitsKey => panic!("our next key has to come before our next record"),
            SealerState::Closed => return Err(SealError::Closed),
        }
        let after = self.key.sequence().checked_add(records);
        match after {
            Some(after) if after <= records_max => Ok(()),
            _ => Err(SealError::KeyExhausted),
        }
    }

    /// Seals a record whose content is in place: fills in header, type and tag.
    fn seal_record(
        &self,
        ahead: u64,
        record: &mut [u8],
        content_type: u8,
    ) -> Result<(), SealError> {
        let content_bytes = record.len() - OVERHEAD_BYTES;
        let header = header_of(content_bytes);
        let (header_room, inner) = record.split_at_mut(HEADER_BYTES);
        let (inner, tag_room) = inner.split_at_mut(content_bytes + 1);
        header_room.copy_from_slice(&header);
        inner[content_bytes] = content_type;
        let tag = self.key.seal(ahead, &header, inner)?;
        tag_room.copy_from_slice(&tag);
        Ok(())
    }
}
