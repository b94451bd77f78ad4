//! The receiving side of a connection: bytes become frames, frames become events. In: received bytes, the time.
//! Out: one event at a time. Holds a frame that is not complete, and a field block until its last frame; never DATA.

use std::borrow::Cow;
use std::time::Instant;

use super::{Connection, Ending, Event, PING, PREFACE, Role};
use crate::http::h2::flood::Flood;
use crate::http::h2::history::Past;
use crate::http::h2::stream::Half;
use crate::http::h2::{
    DataPayload, ErrorCode, ErrorScope, Flags, Frame, FrameHeader, FrameType, HEADER_BYTES,
    Setting, StreamId, Violation, settings, write_goaway, write_ping, write_rst_stream,
    write_settings_ack,
};
use crate::http::hpack::Decoder;
use crate::http::limits::{
    CONTINUATION_FRAMES_MAX, FIELD_BLOCK_BYTES_MAX, RAPID_RESET_AGE, TINY_DATA_BYTES,
};
use crate::http::message::HeaderList;

/// What the receiving side knows between two pieces of input.
#[derive(Debug)]
pub(super) struct Receiver {
    /// What is left of the client's preface.
    preface: &'static [u8],
    /// Whether the first frame has come.
    has_settings: bool,
    /// The beginning of a frame that is not complete.
    partial: Vec<u8>,
    data: Option<ArrivingData>,
    block: Option<Box<ArrivingBlock>>,
    decoder: Decoder,
}

/// A DATA frame whose payload has not all come.
#[derive(Debug)]
struct ArrivingData {
    stream: StreamId,
    payload: DataPayload,
    /// Whether END_STREAM is still to be told.
    end_stream: bool,
}

/// A field block of which CONTINUATION frames are to come.
#[derive(Debug)]
struct ArrivingBlock {
    stream: StreamId,
    end_stream: bool,
    bytes: Vec<u8>,
    continuations: u32,
}

type EventOrNot<'a> = Result<Option<Event<'a>>, Violation>;

impl Receiver {
    pub(super) fn new(role: Role) -> Self {
        Receiver {
            preface: match role {
                Role::Server => PREFACE,
                Role::Client => &[],
            },
            has_settings: false,
            partial: Vec::new(),
            data: None,
            block: None,
            decoder: Decoder::default(),
        }
    }

    /// Whether something has come only in part. DATA is passed on as it comes.
    fn is_incomplete(&self) -> bool {
        !self.preface.is_empty() || !self.partial.is_empty() || self.block.is_some()
    }

    /// Takes what has come of the preface. Whether all of it has.
    fn take_preface(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        let (came, rest) = input.split_at(self.preface.len().min(input.len()));
        self.preface = self.preface.strip_prefix(came).ok_or(Violation::Preface)?;
        *input = rest;
        Ok(self.preface.is_empty())
    }

    /// The header of the next frame, once it is there. It stays where it is.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, Violation> {
        let header = match input.first_chunk() {
            Some(header) if self.partial.is_empty() => header,
            _ => {
                self.collect(input, HEADER_BYTES);
                let Some(header) = self.partial.first_chunk() else {
                    return Ok(None);
                };
                header
            }
        };
        FrameHeader::parse(header).map(Some)
    }

    /// Takes the first `bytes` of a frame, once they are there.
    fn take<'a>(&mut self, input: &mut &'a [u8], bytes: usize) -> Option<Cow<'a, [u8]>> {
        if self.partial.is_empty()
            && let Some((frame, rest)) = input.split_at_checked(bytes)
        {
            *input = rest;
            return Some(Cow::Borrowed(frame));
        }
        self.collect(input, bytes);
        (self.partial.len() == bytes).then(|| Cow::Owned(std::mem::take(&mut self.partial)))
    }

    /// Moves input behind what is there of a frame, until so many bytes of it are.
    fn collect(&mut self, input: &mut &[u8], bytes: usize) {
        let missing = bytes.saturating_sub(self.partial.len());
        let (more, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(more);
        *input = rest;
    }

    /// RFC 9113 sections 3.4, 4.3: SETTINGS come first, and nothing stands between the frames of a field block.
    fn check_order(&self, header: &FrameHeader) -> Result<(), Violation> {
        let is_settings = header.frame_type == Some(FrameType::Settings);
        if !self.has_settings && (!is_settings || header.flags.has(Flags::ACK)) {
            return Err(Violation::NoSettings);
        }
        let is_continuation = header.frame_type == Some(FrameType::Continuation);
        match &self.block {
            Some(block) if !is_continuation || block.stream != header.stream => {
                Err(Violation::Interleaved)
            }
            None if is_continuation => Err(Violation::LoneContinuation),
            _ => Ok(()),
        }
    }
}

impl Connection {
    /// Reads from the front of `input` until something has to be told. Fields go to `list`, which is emptied first.
    /// `None`: all input has been read.
    pub fn receive<'a>(
        &mut self,
        input: &mut &'a [u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> Option<Event<'a>> {
        if self.is_closed() {
            *input = &[];
            return None;
        }
        self.heard_at = now;
        let event = match self.overdue.take() {
            Some(violation) => Err(violation),
            None => self.next_event(input, list, now),
        };
        // Not a frame that has begun before, if one is complete now: what is behind it may be read much later.
        self.incomplete_since = match (&event, self.receiver.is_incomplete()) {
            (Ok(None), true) => self.incomplete_since.or(Some(now)),
            _ => None,
        };
        event.unwrap_or_else(|violation| {
            *input = &[];
            self.receiver.partial = Vec::new();
            self.receiver.block = None;
            self.close(violation.code());
            Some(Event::Failed(violation))
        })
    }

    fn next_event<'a>(
        &mut self,
        input: &mut &'a [u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> EventOrNot<'a> {
        // Empty as a rule, and comparing nothing costs as much as comparing something.
        if !self.receiver.preface.is_empty() && !self.receiver.take_preface(input)? {
            return Ok(None);
        }
        loop {
            if self.receiver.data.is_some() {
                let event = self.take_data(input, now)?;
                if event.is_some() || self.receiver.data.is_some() {
                    return Ok(event);
                }
            }
            let Some(header) = self.receiver.header(input)? else {
                return Ok(None);
            };
            self.receiver.check_order(&header)?;
            let is_data = header.frame_type == Some(FrameType::Data);
            let payload_bytes = if is_data { 0 } else { header.payload_bytes };
            let Some(frame) = self.receiver.take(input, HEADER_BYTES + payload_bytes) else {
                return Ok(None);
            };
            let event = match is_data {
                true => self.begin_data(&header, now),
                false => self.take_frame(&header, &frame[HEADER_BYTES..], list, now),
            };
            let event = match event {
                Err(violation) if violation.scope() == ErrorScope::Stream => {
                    self.break_stream(header.stream, violation, now)?
                }
                event => event?,
            };
            if event.is_some() || !is_data {
                return Ok(event.or(Some(Event::Control)));
            }
        }
    }

    /// RFC 9113 section 5.4.2. Of a stream that is gone nothing more can be reset; of one that never was, nothing at
    /// all (section 6.4).
    fn break_stream(
        &mut self,
        stream: StreamId,
        violation: Violation,
        now: Instant,
    ) -> EventOrNot<'static> {
        let Some(key) = self.streams.get_mut(stream).map(|open| open.key) else {
            return match self.past(stream) {
                Past::Idle => Err(Violation::IdleStream),
                Past::Skipped | Past::Ended | Past::Abandoned => Ok(None),
            };
        };
        let unsent = self.reject(stream, violation.code(), now);
        Ok(Some(Event::Broken {
            key,
            violation,
            unsent,
        }))
    }

    /// What a stream is that is not open. Those that came after our last one are ignored (RFC 9113 section 6.8).
    fn past(&self, stream: StreamId) -> Past {
        match self.ending {
            Ending::Last(last) if stream > last && stream.is_of_client() => Past::Abandoned,
            _ => self.history.past(stream),
        }
    }

    fn begin_data(&mut self, header: &FrameHeader, now: Instant) -> EventOrNot<'static> {
        let bytes = header.payload_bytes;
        let end_stream = header.flags.has(Flags::END_STREAM);
        let taken = self.receive_window.take(bytes);
        taken.map_err(|_| Violation::ConnectionWindow)?;
        self.receiver.data = Some(ArrivingData {
            stream: header.stream,
            payload: DataPayload::new(header),
            end_stream,
        });
        match self.streams.get_mut(header.stream) {
            Some(open) => {
                match open.receive {
                    Half::Ended => return Err(Violation::EndedStream),
                    Half::Reserved => return Err(Violation::DataBeforeHeaders),
                    Half::Open => {}
                }
                let taken = open.receive_window.take(bytes);
                taken.map_err(|_| Violation::StreamWindow)?;
                let is_first = !std::mem::replace(&mut open.has_data, true);
                if bytes < TINY_DATA_BYTES && !end_stream && !is_first {
                    self.count_flood(Flood::of_tiny_data(bytes), now)?;
                }
            }
            None => match self.past(header.stream) {
                Past::Idle => return Err(Violation::IdleStream),
                Past::Skipped | Past::Ended => return Err(Violation::ClosedStream),
                Past::Abandoned => self.count_flood(Flood::Idle, now)?,
            },
        }
        Ok(None)
    }

    /// Passes on what has come of a DATA frame. What belongs to no stream any more is credited at once.
    fn take_data<'a>(&mut self, input: &mut &'a [u8], now: Instant) -> EventOrNot<'a> {
        let Some(arriving) = &mut self.receiver.data else {
            return Ok(None);
        };
        let taken = arriving.payload.take(input)?;
        let stream = arriving.stream;
        let end_stream = arriving.end_stream && arriving.payload.has_all_data();
        arriving.end_stream &= !end_stream;
        if arriving.payload.is_complete() {
            self.receiver.data = None;
        }
        if taken.padding_bytes > 0 {
            self.release(stream, taken.padding_bytes, now);
        }
        let Some(open) = self.streams.get_mut(stream) else {
            self.release_on_connection(taken.data.len(), now);
            return Ok(None);
        };
        if taken.data.is_empty() && !end_stream {
            return Ok(None);
        }
        let key = open.key;
        if end_stream {
            open.receive = Half::Ended;
            self.forget_if_over(stream);
        }
        Ok(Some(Event::Data {
            key,
            data: taken.data,
            end_stream,
        }))
    }

    fn take_frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> EventOrNot<'static> {
        let stream = header.stream;
        match Frame::parse(header, payload)? {
            Frame::Headers(fragment) => self.begin_block(header, fragment, list, now),
            Frame::Continuation(fragment) => self.continue_block(header, fragment, list, now),
            Frame::Settings(payload) => self.take_settings(payload, now),
            Frame::SettingsAck => {
                self.unacknowledged_since = None;
                Ok(None)
            }
            Frame::Ping(opaque) => {
                self.count_flood(Flood::Ping, now)?;
                write_ping(&mut self.output, opaque, true);
                self.count_control(HEADER_BYTES + opaque.len())?;
                Ok(None)
            }
            Frame::PingAck(opaque) => {
                self.take_pong(opaque);
                Ok(None)
            }
            Frame::WindowUpdate(credit) => self.take_credit(stream, credit, now),
            Frame::RstStream(code) => self.take_reset(stream, code, now),
            Frame::Goaway { last, code } => {
                let before = self.peers_last.unwrap_or(StreamId::LAST);
                let last = last.min(before);
                self.peers_last = Some(last);
                Ok(Some(Event::Goaway { last, code }))
            }
            Frame::PushPromise => Err(Violation::Pushed),
            Frame::Priority | Frame::Unknown => {
                self.count_flood(Flood::Idle, now)?;
                Ok(None)
            }
        }
    }

    fn begin_block(
        &mut self,
        header: &FrameHeader,
        fragment: &[u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> EventOrNot<'static> {
        let end_stream = header.flags.has(Flags::END_STREAM);
        if header.flags.has(Flags::END_HEADERS) {
            self.decode(fragment, list, now)?;
            return self.take_section(header.stream, end_stream, now);
        }
        self.receiver.block = Some(Box::new(ArrivingBlock {
            stream: header.stream,
            end_stream,
            bytes: fragment.to_vec(),
            continuations: 0,
        }));
        Ok(None)
    }

    fn continue_block(
        &mut self,
        header: &FrameHeader,
        fragment: &[u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> EventOrNot<'static> {
        let Some(mut block) = self.receiver.block.take() else {
            return Err(Violation::LoneContinuation);
        };
        block.continuations += 1;
        block.bytes.extend_from_slice(fragment);
        if block.continuations > CONTINUATION_FRAMES_MAX
            || block.bytes.len() > FIELD_BLOCK_BYTES_MAX
        {
            return Err(Violation::ContinuationFlood);
        }
        if !header.flags.has(Flags::END_HEADERS) {
            self.receiver.block = Some(block);
            return Ok(None);
        }
        self.decode(&block.bytes, list, now)?;
        self.take_section(block.stream, block.end_stream, now)
    }

    /// Every block is decoded, also one whose stream is refused or gone: later ones build on it.
    fn decode(
        &mut self,
        block: &[u8],
        list: &mut HeaderList,
        now: Instant,
    ) -> Result<(), Violation> {
        list.clear();
        let decoded = self.receiver.decoder.decode(block, list);
        decoded.map_err(|_| Violation::Compression)?;
        if list.is_too_large() {
            self.count_flood(Flood::HeaderList, now)?;
        }
        Ok(())
    }

    /// A whole section has come, and is decoded.
    fn take_section(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        now: Instant,
    ) -> EventOrNot<'static> {
        let Some(open) = self.streams.get_mut(stream) else {
            return self.take_section_of_no_stream(stream, end_stream, now);
        };
        match open.receive {
            Half::Ended => return Err(Violation::EndedStream),
            // RFC 9113 section 8.1: a second section of a request is its last. Responses have as many as they like
            // that go before them; their owner knows.
            Half::Open if self.role == Role::Server && !end_stream => {
                return Err(Violation::UnendedTrailers);
            }
            Half::Open | Half::Reserved => {}
        }
        open.receive = if end_stream { Half::Ended } else { Half::Open };
        let key = open.key;
        self.forget_if_over(stream);
        Ok(Some(Event::Section { key, end_stream }))
    }

    fn take_section_of_no_stream(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        now: Instant,
    ) -> EventOrNot<'static> {
        match (self.past(stream), self.role) {
            // A client opens a stream (RFC 9113 section 5.1.1).
            (Past::Idle, Role::Server) if stream.is_of_client() => {
                self.take_request(stream, end_stream, now)
            }
            (Past::Idle, Role::Client) => Err(Violation::IdleStream),
            (Past::Idle, Role::Server) | (Past::Skipped, _) => Err(Violation::StreamOrder),
            (Past::Ended, _) => Err(Violation::ClosedStream),
            (Past::Abandoned, _) => {
                self.count_flood(Flood::Idle, now)?;
                Ok(None)
            }
        }
    }

    fn take_request(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        now: Instant,
    ) -> EventOrNot<'static> {
        self.history.open(stream);
        // RFC 9113 section 5.1.2: nothing of it was processed.
        if self.streams.len() >= self.streams_max as usize {
            if !end_stream {
                self.history.abandon(stream);
            }
            self.count_flood(Flood::ForcedReset, now)?;
            write_rst_stream(&mut self.output, stream, ErrorCode::RefusedStream);
            return Ok(None);
        }
        self.insert(stream, 0, now);
        if let Some(open) = self.streams.get_mut(stream) {
            open.receive = if end_stream { Half::Ended } else { Half::Open };
        }
        Ok(Some(Event::Request { stream, end_stream }))
    }

    fn take_settings(&mut self, payload: &[u8], now: Instant) -> EventOrNot<'static> {
        self.count_flood(Flood::Settings, now)?;
        if !std::mem::replace(&mut self.receiver.has_settings, true) {
            // RFC 9113 section 6.5.2: without the setting there is no limit.
            self.peer.streams_max = u32::MAX;
        }
        for setting in settings(payload) {
            match setting? {
                Setting::HeaderTableSize(bytes) => {
                    if let Some(encoder) = &mut self.encoder {
                        encoder.resize(bytes as usize);
                    }
                }
                Setting::EnablePush(true) if self.role == Role::Client => {
                    return Err(Violation::PushByServer);
                }
                Setting::MaxConcurrentStreams(streams) => self.peer.streams_max = streams,
                Setting::InitialWindowSize(bytes) => self.take_initial_window(bytes)?,
                // We push nothing, send no frame that is too long for anyone, and the rest is advice.
                Setting::EnablePush(_)
                | Setting::MaxFrameSize(_)
                | Setting::MaxHeaderListSize(_) => {}
            }
        }
        write_settings_ack(&mut self.output);
        self.count_control(HEADER_BYTES)?;
        Ok(None)
    }

    /// RFC 9113 section 6.9.2: a new initial window changes that of every open stream by the difference.
    fn take_initial_window(&mut self, bytes: u32) -> Result<(), Violation> {
        let difference = i64::from(bytes) - i64::from(self.peer.initial_window);
        self.peer.initial_window = bytes;
        for stream in self.streams.iter_mut() {
            let added = stream.send_window.add(difference);
            added.map_err(|_| Violation::WindowOverflow)?;
        }
        self.join_all();
        Ok(())
    }

    fn take_pong(&mut self, opaque: [u8; 8]) {
        if opaque != PING || self.ping_since.take().is_none() {
            return;
        }
        if self.ending == Ending::Announced {
            let last = self.last_of_peer();
            self.ending = Ending::Last(last);
            write_goaway(&mut self.output, last, ErrorCode::NoError);
        }
    }

    fn take_credit(&mut self, stream: StreamId, credit: u32, now: Instant) -> EventOrNot<'static> {
        self.count_flood(Flood::WindowUpdate, now)?;
        if stream == StreamId::CONNECTION {
            let added = self.send_window.add(credit.into());
            added.map_err(|_| Violation::WindowOverflow)?;
            if let Some(shares) = &mut self.shares {
                shares.widen(credit as usize, self.send_window.available(), now);
            }
            return Ok(None);
        }
        let Some(open) = self.streams.get_mut(stream) else {
            return match self.past(stream) {
                Past::Idle => Err(Violation::IdleStream),
                // RFC 9113 section 5.1: the peer may not know yet that it is closed.
                Past::Skipped | Past::Ended | Past::Abandoned => Ok(None),
            };
        };
        let added = open.send_window.add(credit.into());
        added.map_err(|_| Violation::StreamWindowOverflow)?;
        if let (Some(shares), Some(client)) = (&mut self.shares, open.client) {
            let back = open.held.min(credit);
            open.held -= back;
            shares.give_back(client, back as usize);
        }
        self.join_row(stream);
        Ok(None)
    }

    fn take_reset(
        &mut self,
        stream: StreamId,
        code: ErrorCode,
        now: Instant,
    ) -> EventOrNot<'static> {
        let Some(open) = self.streams.get_mut(stream) else {
            return match self.past(stream) {
                Past::Idle => Err(Violation::IdleStream),
                Past::Skipped | Past::Ended | Past::Abandoned => {
                    self.count_flood(Flood::Idle, now)?;
                    Ok(None)
                }
            };
        };
        let age = now.saturating_duration_since(open.opened);
        let event = Event::Reset {
            key: open.key,
            code,
            unsent: open.queue.data().len(),
        };
        if self.role == Role::Server && age < RAPID_RESET_AGE {
            self.count_flood(Flood::RapidReset, now)?;
        }
        self.remove(stream);
        Ok(Some(event))
    }
}
