//! Opens the peer's records.
//! In: received bytes in one piece, of many records or a part of one. Out: their plaintext, in one piece at the front
//! of the same bytes, and what to do before the next record. One per direction; holds a key, and the bytes of an
//! incomplete handshake message.

use super::aead::{Aead, TrafficKey};
use super::error::OpenError;
use super::header::{HEADER_BYTES, whole_record};
use super::message::{Message, Messages};
use super::peer::Peer;
use super::{
    CONTENT_BYTES_MAX, EMPTY_RECORDS_MAX, KEY_UPDATES_MAX, KeyUpdateRequest, TAG_BYTES,
    content_type,
};
use crate::alert::Alert;

const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// Why opening stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The rest is not a whole record.
    Incomplete,
    /// The next records are under the peer's next key: call `Opener::rekey` first. If requested, our own next data
    /// record must be under our next key too (RFC 8446 section 4.6.3).
    KeyUpdate(KeyUpdateRequest),
    /// A NewSessionTicket, without its type and length.
    Ticket(Box<[u8]>),
    /// close_notify: the peer's data is complete, and the rest is ignored.
    Closed,
}

/// Received bytes while they are opened: plaintext at the front, unopened bytes at the end, undefined bytes in
/// between.
#[derive(Debug)]
pub struct Batch<'a> {
    bytes: &'a mut [u8],
    opened: usize,
    taken: usize,
}

impl<'a> Batch<'a> {
    /// Takes bytes of which none has been opened.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Batch {
            bytes,
            opened: 0,
            taken: 0,
        }
    }

    /// Number of plaintext bytes, at the front.
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// Number of received bytes that were taken; keep those behind them.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The plaintext so far.
    pub fn plaintext(&self) -> &[u8] {
        &self.bytes[..self.opened]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenerState {
    Open,
    /// The peer has changed its key, and the next one is missing.
    AwaitsKey,
    Closed,
    Failed(OpenError),
}

/// The receiving direction.
#[derive(Debug)]
pub struct Opener<A> {
    key: TrafficKey<A>,
    peer: Peer,
    state: OpenerState,
    messages: Messages,
    key_updates_left: u8,
    empty_records_left: u8,
    has_asked_for_update: bool,
}

/// The content of one record.
enum Record {
    Data,
    Messages,
    Nothing,
    Closed,
}

impl<A: Aead> Opener<A> {
    /// Opens records of `peer`, beginning with the next one under `key`.
    pub fn new(key: TrafficKey<A>, peer: Peer) -> Self {
        Opener {
            key,
            peer,
            state: OpenerState::Open,
            messages: Messages::default(),
            key_updates_left: KEY_UPDATES_MAX,
            empty_records_left: EMPTY_RECORDS_MAX,
            has_asked_for_update: false,
        }
    }

    /// Opens whole records until it must stop.
    ///
    /// # Errors
    ///
    /// A record is invalid. From then on every call returns the same error; do not use the batch's plaintext.
    pub fn open(&mut self, batch: &mut Batch<'_>) -> Result<Stop, OpenError> {
        match self.state {
            OpenerState::Open => {}
            OpenerState::AwaitsKey => {
                panic!("the peer's next key has to come before its next record")
            }
            OpenerState::Closed => {
                batch.taken = batch.bytes.len();
                return Ok(Stop::Closed);
            }
            OpenerState::Failed(error) => return Err(error),
        }
        let stop = self.open_until_stopped(batch);
        match &stop {
            Ok(Stop::Incomplete | Stop::Ticket(_)) => {}
            Ok(Stop::KeyUpdate(_)) => self.state = OpenerState::AwaitsKey,
            Ok(Stop::Closed) => {
                self.state = OpenerState::Closed;
                batch.taken = batch.bytes.len();
            }
            Err(error) => self.state = OpenerState::Failed(*error),
        }
        stop
    }

    /// Takes the peer's next key, after its KeyUpdate.
    pub fn rekey(&mut self, key: TrafficKey<A>) {
        assert_eq!(self.state, OpenerState::AwaitsKey, "a key nobody announced");
        self.key = key;
        self.state = OpenerState::Open;
        self.has_asked_for_update = false;
    }

    /// Whether to ask the peer for a new key, because its own has protected nearly its maximum. Returns true once for
    /// each key.
    pub fn asks_for_update(&mut self) -> bool {
        let is_due = self.key.sequence() >= self.key.suite().ask_after();
        is_due && !std::mem::replace(&mut self.has_asked_for_update, true)
    }

    fn open_until_stopped(&mut self, batch: &mut Batch<'_>) -> Result<Stop, OpenError> {
        loop {
            match self.messages.next(self.peer)? {
                Some(Message::Ticket(ticket)) => return Ok(Stop::Ticket(ticket)),
                Some(Message::KeyUpdate(request)) => {
                    let left = self.key_updates_left.checked_sub(1);
                    self.key_updates_left = left.ok_or(OpenError::TooManyKeyUpdates)?;
                    return Ok(Stop::KeyUpdate(request));
                }
                None => {}
            }
            let record = loop {
                match self.open_record(batch)? {
                    None => return Ok(Stop::Incomplete),
                    Some(Record::Data | Record::Nothing) => {}
                    Some(record) => break record,
                }
            };
            if matches!(record, Record::Closed) {
                return Ok(Stop::Closed);
            }
        }
    }

    /// Opens one record. Its data joins the plaintext; any other content stays behind it until it has been read.
    fn open_record(&mut self, batch: &mut Batch<'_>) -> Result<Option<Record>, OpenError> {
        let Some((header, record_bytes)) = whole_record(&batch.bytes[batch.taken..])? else {
            return Ok(None);
        };
        let end = batch.taken + record_bytes;
        let from = batch.taken + HEADER_BYTES - batch.opened;
        let window = &mut batch.bytes[batch.opened..end];
        self.key.open(&header, window, from)?;
        batch.taken = end;
        let inner = &window[..record_bytes - HEADER_BYTES - TAG_BYTES];
        // RFC 8446 section 5.4: content, type and padding together.
        if inner.len() > CONTENT_BYTES_MAX + 1 {
            return Err(OpenError::Overflow);
        }
        let content_bytes = inner.iter().rposition(|byte| *byte != 0);
        let content_bytes = content_bytes.ok_or(OpenError::NoContentType)?;
        let content = &inner[..content_bytes];
        match inner[content_bytes] {
            content_type::APPLICATION_DATA => {
                if self.messages.is_pending() {
                    return Err(OpenError::Interleaved);
                }
                if content_bytes == 0 {
                    return self.take_empty_record().map(Some);
                }
                self.key_updates_left = KEY_UPDATES_MAX;
                self.empty_records_left = EMPTY_RECORDS_MAX;
                batch.opened += content_bytes;
                Ok(Some(Record::Data))
            }
            content_type::HANDSHAKE if content.is_empty() => Err(OpenError::Empty),
            content_type::HANDSHAKE => {
                self.messages.add(content);
                Ok(Some(Record::Messages))
            }
            content_type::ALERT => self.take_alert(content).map(Some),
            _ => Err(OpenError::UnexpectedType),
        }
    }

    fn take_empty_record(&mut self) -> Result<Record, OpenError> {
        let left = self.empty_records_left.checked_sub(1);
        self.empty_records_left = left.ok_or(OpenError::TooManyEmptyRecords)?;
        Ok(Record::Nothing)
    }

    /// RFC 8446 section 6: one alert per record; its level is ignored.
    fn take_alert(&mut self, content: &[u8]) -> Result<Record, OpenError> {
        let description = match *content {
            [] => return Err(OpenError::Empty),
            [_, description] => description,
            _ => return Err(OpenError::MalformedAlert),
        };
        match description {
            CLOSE_NOTIFY | USER_CANCELED if self.messages.is_pending() => {
                Err(OpenError::Interleaved)
            }
            CLOSE_NOTIFY => Ok(Record::Closed),
            // Section 6.1: a close_notify should follow; only that one closes.
            USER_CANCELED => self.take_empty_record(),
            error => Err(OpenError::PeerAlert(Alert(error))),
        }
    }
}
