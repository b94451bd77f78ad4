//! The sending side of a connection: sections and content of its owner become frames, as windows and the peer's
//! reading allow. In: fields, content. Out: frames in the output; what has to wait, in its stream's queue.

use super::{Connection, Left};
use crate::http::h2::flood::Flood;
use crate::http::h2::stream::Half;
use crate::http::h2::{
    HEADER_BYTES, StreamId, frame_field_block, rewrite_data_header, write_data_header,
    write_field_block,
};
use crate::http::hpack::encode_without_state;
use crate::http::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::http::message::Field;
use crate::http::queue::QueueEnd;

/// A DATA frame in the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastData {
    stream: StreamId,
    start: usize,
    end: usize,
}

impl Connection {
    /// Sends a header or trailer section. It waits for content that waits before it. A section for a stream that is
    /// gone, or has ended, is dropped.
    pub fn send_section<'a>(
        &mut self,
        stream: StreamId,
        fields: impl Iterator<Item = Field<'a>>,
        end_stream: bool,
    ) {
        let Some(open) = self
            .streams
            .get_mut(stream)
            .filter(|open| open.send != Half::Ended)
        else {
            return;
        };
        let is_first = open.send == Half::Reserved;
        open.send = if end_stream { Half::Ended } else { Half::Open };
        if !open.queue.is_empty() {
            let mut block = Vec::new();
            fields.for_each(|field| encode_without_state(field, &mut block));
            open.queue.set_end(QueueEnd::Trailers(block));
            return;
        }
        let start = self.output.len();
        self.output.resize(start + HEADER_BYTES, 0);
        match &mut self.encoder {
            // Trailers are too rare for the table, and may have to wait.
            Some(encoder) if is_first => {
                encoder.begin_block(&mut self.output);
                fields.for_each(|field| encoder.encode(field, &mut self.output));
            }
            _ => fields.for_each(|field| encode_without_state(field, &mut self.output)),
        }
        frame_field_block(
            &mut self.output,
            start,
            stream,
            end_stream,
            FRAME_PAYLOAD_BYTES_MAX,
        );
        self.forget_if_over(stream);
    }

    /// Sends content. Returns how many bytes have left, for which their source gets its credit; the rest waits.
    /// Content for a stream that is gone, or has ended, is dropped: it has left too.
    #[must_use = "the source of what has left gets credit for it"]
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> usize {
        let Some(open) = self
            .streams
            .get_mut(stream)
            .filter(|open| open.send != Half::Ended)
        else {
            return data.len();
        };
        if end_stream {
            open.send = Half::Ended;
        }
        if !open.queue.is_empty() {
            open.queue.push(data);
            if end_stream {
                open.queue.set_end(QueueEnd::Data);
            }
            return 0;
        }
        let sent = self.write_data(stream, data, end_stream);
        let is_whole = sent == data.len();
        if !is_whole && let Some(open) = self.streams.get_mut(stream) {
            open.queue.push(&data[sent..]);
            if end_stream {
                open.queue.set_end(QueueEnd::Data);
            }
            self.join_row(stream);
        }
        self.forget_if_over(stream);
        sent
    }

    /// Writes content that waited, a frame of one stream: each stream in turn. `None` if nothing can be written before
    /// the peer gives credit or the output is taken.
    pub fn send_queued(&mut self) -> Option<Left> {
        self.join_held_back();
        loop {
            let stream = *self.row.front()?;
            if !self.may_send(stream) {
                self.leave_row();
                continue;
            }
            let room = self.output_room().min(self.send_window.available());
            let open = self.streams.get_mut(stream)?;
            if room == 0 && !open.queue.data().is_empty() {
                return None;
            }
            let key = open.key;
            let waits = open.queue.data().len().min(FRAME_PAYLOAD_BYTES_MAX);
            let wanted = waits.min(open.send_window.available()).min(room);
            let bytes = self.write_queued(stream);
            // What got no more than its share has had its turn: the next time it is behind those that got less.
            match bytes < wanted {
                true => self.hold_back(),
                false => self.row.rotate_left(1),
            }
            if bytes == 0 && wanted > 0 {
                continue;
            }
            if let Some(shares) = self.shares.as_mut().filter(|_| bytes > 0) {
                shares.note_moved(self.heard_at);
            }
            self.forget_if_over(stream);
            return Some(Left { key, bytes });
        }
    }

    /// Whether a stream in the row has something to send, and credit of its own.
    fn may_send(&mut self, stream: StreamId) -> bool {
        self.streams.get_mut(stream).is_some_and(|open| {
            let needs_no_credit = open.queue.data().is_empty();
            !open.queue.is_empty() && (needs_no_credit || open.send_window.available() > 0)
        })
    }

    pub(super) fn leave_row(&mut self) {
        let stream = self.row.pop_front().and_then(|id| self.streams.get_mut(id));
        if let Some(stream) = stream {
            stream.is_in_row = false;
        }
    }

    /// A stream has something to send, and may have credit for it.
    pub(super) fn join_row(&mut self, stream: StreamId) {
        if let Some(open) = self.streams.get_mut(stream)
            && !open.queue.is_empty()
            && !open.is_held_back
            && !std::mem::replace(&mut open.is_in_row, true)
        {
            self.row.push_back(stream);
        }
    }

    /// All streams may have credit again.
    pub(super) fn join_all(&mut self) {
        for stream in self.streams.iter_mut() {
            if !stream.queue.is_empty()
                && !stream.is_held_back
                && !std::mem::replace(&mut stream.is_in_row, true)
            {
                self.row.push_back(stream.id);
            }
        }
        if let Some(shares) = &mut self.shares {
            shares.note_more();
        }
    }

    /// Writes one frame of what waits on a stream, or its end. Returns how much content that was.
    fn write_queued(&mut self, stream: StreamId) -> usize {
        let Some(open) = self.streams.get_mut(stream) else {
            return 0;
        };
        let mut queue = std::mem::take(&mut open.queue);
        let frame = queue.data().len().min(FRAME_PAYLOAD_BYTES_MAX);
        let ends = frame == queue.data().len() && queue.end() == Some(&QueueEnd::Data);
        let mut sent = 0;
        if frame > 0 || ends {
            sent = self.write_data(stream, &queue.data()[..frame], ends);
            queue.advance(sent);
            if ends && sent == frame {
                queue.take_end();
            }
        }
        if queue.data().is_empty()
            && let Some(QueueEnd::Trailers(block)) = queue.take_end()
        {
            write_field_block(
                &mut self.output,
                stream,
                &block,
                true,
                FRAME_PAYLOAD_BYTES_MAX,
            );
        }
        if let Some(open) = self.streams.get_mut(stream) {
            open.queue = queue;
        }
        sent
    }

    /// Writes as many DATA frames as windows and output allow. Returns how many bytes they carry. The last has
    /// END_STREAM if all could be written.
    fn write_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> usize {
        let (room, available) = (self.output_room(), self.send_window.available());
        let Some(open) = self.streams.get_mut(stream) else {
            return 0;
        };
        let wanted = data.len().min(open.send_window.available());
        let sent = match (&mut self.shares, open.client) {
            (Some(shares), Some(client)) => {
                let share = shares.of(client, available, wanted);
                let sent = wanted.min(room).min(share);
                open.held += sent as u32;
                shares.hold(client, sent);
                sent
            }
            _ => wanted.min(room).min(available),
        };
        open.send_window.take(sent);
        self.send_window.take(sent);
        let ends = end_stream && sent == data.len();
        let joined = self.join_data(stream, &data[..sent], ends);
        let mut rest = &data[joined..sent];
        // Nothing but an end is a frame too.
        let mut is_due = !rest.is_empty() || (ends && joined == 0);
        while is_due {
            let (payload, after) = rest.split_at(rest.len().min(FRAME_PAYLOAD_BYTES_MAX));
            rest = after;
            is_due = !rest.is_empty();
            let start = self.output.len();
            write_data_header(&mut self.output, stream, payload.len(), ends && !is_due);
            self.output.extend_from_slice(payload);
            self.last_data = Some(LastData {
                stream,
                start,
                end: self.output.len(),
            });
            self.forgive_answers();
        }
        sent
    }

    /// Writes content into the frame before it, if that is of the same stream and has room. Returns how many bytes: small pieces, which
    /// cost the peer as much as large ones, are passed on as one.
    fn join_data(&mut self, stream: StreamId, data: &[u8], ends: bool) -> usize {
        let output_end = self.output.len();
        let Some(last) = &mut self.last_data else {
            return 0;
        };
        if last.stream != stream || last.end != output_end {
            return 0;
        }
        let before = last.end - last.start - HEADER_BYTES;
        let joined = data.len().min(FRAME_PAYLOAD_BYTES_MAX - before);
        if joined == 0 {
            return 0;
        }
        self.output.extend_from_slice(&data[..joined]);
        last.end += joined;
        let ends = ends && joined == data.len();
        rewrite_data_header(&mut self.output, last.start, stream, before + joined, ends);
        self.forgive_answers();
        joined
    }

    /// What the peer sends in answer to DATA is no flood.
    fn forgive_answers(&mut self) {
        self.floods.forgive(Flood::Ping, 1);
        self.floods.forgive(Flood::WindowUpdate, 2);
    }

    /// RFC 9113 section 5.1: a stream that both sides have ended is closed.
    pub(super) fn forget_if_over(&mut self, stream: StreamId) {
        if self
            .streams
            .get_mut(stream)
            .is_some_and(|open| open.is_over())
        {
            self.remove(stream);
        }
    }
}
