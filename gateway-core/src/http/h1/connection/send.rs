//! The sending side of a connection: sections and content of its owner become bytes, as the peer's reading allows.
//! In: fields, content. Out: bytes in the output; what has to wait, in the queue.

use super::{Ending, Http1Connection, InFlight, Outgoing};
use crate::http::h1::write::{
    CHUNK_OVERHEAD_BYTES, LAST_CHUNK, write_chunk, write_field, write_fields, write_request_line,
    write_status_line,
};
use crate::http::h2::{Left, Role, StreamId};
use crate::http::message::Field;
use crate::http::queue::QueueEnd;

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

impl Http1Connection {
    /// Sends a header or trailer section. Trailers wait for content that waits before them. A section for an exchange
    /// that is gone, or whose message has ended, is dropped.
    pub fn send_section<'a>(
        &mut self,
        stream: StreamId,
        fields: impl Iterator<Item = Field<'a>>,
        end_stream: bool,
    ) {
        let Some(one) = self.find_unended(stream) else {
            return;
        };
        match (one.outgoing, self.role) {
            (Outgoing::Head, Role::Server) => self.send_response(fields, end_stream),
            (Outgoing::Head, Role::Client) => self.send_request(fields, end_stream),
            _ => self.send_trailers(fields),
        }
        self.finish();
    }

    fn send_response<'a>(&mut self, fields: impl Iterator<Item = Field<'a>>, end_stream: bool) {
        let Some(one) = &mut self.in_flight else {
            return;
        };
        let mut fields = fields.peekable();
        let status = fields.next_if(|field| field.name == b":status");
        let status = status.map_or(&b"500"[..], |field| field.value);
        if status.first() == Some(&b'1') {
            // RFC 9110 section 15.2: HTTP/1.0 has none of these.
            if !one.is_http_1_0 {
                one.expects_continue &= status != b"100";
                write_status_line(&mut self.output, status);
                write_fields(&mut self.output, fields);
                self.output.extend_from_slice(b"\r\n");
            }
            return;
        }
        write_status_line(&mut self.output, status);
        let length = write_fields(&mut self.output, fields);
        one.outgoing = match length {
            _ if one.is_head || matches!(status, b"204" | b"304") => Outgoing::NoContent,
            Some(length) => Outgoing::Length(length),
            None if end_stream => {
                write_field(&mut self.output, Field::new(b"content-length", b"0"));
                Outgoing::Length(0)
            }
            None if one.is_http_1_0 => Outgoing::UntilClose,
            None => {
                let chunked = Field::new(b"transfer-encoding", b"chunked");
                write_field(&mut self.output, chunked);
                Outgoing::Chunks
            }
        };
        // A client that still waits for status 100 may send its content or not: what follows could be either.
        if one.expects_continue || one.outgoing == Outgoing::UntilClose {
            self.ending = Ending::Announced;
        }
        match self.ending {
            Ending::Announced | Ending::Closed => {
                write_field(&mut self.output, Field::new(b"connection", b"close"));
            }
            Ending::No if one.is_http_1_0 => {
                write_field(&mut self.output, Field::new(b"connection", b"keep-alive"));
            }
            Ending::No => {}
        }
        self.output.extend_from_slice(b"\r\n");
        if end_stream {
            self.end();
        }
    }

    fn send_request<'a>(&mut self, fields: impl Iterator<Item = Field<'a>>, end_stream: bool) {
        let Some(one) = &mut self.in_flight else {
            return;
        };
        let mut fields = fields.peekable();
        let [mut method, mut path, mut authority] = [&b""[..]; 3];
        while let Some(field) = fields.next_if(|field| field.name.starts_with(b":")) {
            match field.name {
                b":method" => method = field.value,
                b":path" => path = field.value,
                b":authority" => authority = field.value,
                _ => {}
            }
        }
        one.is_head = method == b"HEAD";
        one.is_idempotent = is_idempotent(method);
        write_request_line(&mut self.output, method, path, authority);
        let length = write_fields(&mut self.output, fields);
        one.outgoing = match length {
            Some(length) => Outgoing::Length(length),
            None if end_stream => {
                // RFC 9110 section 8.6: where content would be expected, its absence is said.
                if matches!(method, b"POST" | b"PUT" | b"PATCH") {
                    write_field(&mut self.output, Field::new(b"content-length", b"0"));
                }
                Outgoing::NoContent
            }
            None => {
                let chunked = Field::new(b"transfer-encoding", b"chunked");
                write_field(&mut self.output, chunked);
                Outgoing::Chunks
            }
        };
        self.output.extend_from_slice(b"\r\n");
        if end_stream {
            self.end();
        }
    }

    /// RFC 9110 section 6.5.1: trailers are dropped where they cannot be sent, or nobody said that they are welcome.
    fn send_trailers<'a>(&mut self, fields: impl Iterator<Item = Field<'a>>) {
        let Some(one) = &mut self.in_flight else {
            return;
        };
        one.has_end = true;
        let mut block = Vec::new();
        if one.takes_trailers && one.outgoing == Outgoing::Chunks {
            fields.for_each(|field| write_field(&mut block, field));
        }
        match one.queue.is_empty() {
            true => self.write_end(&block),
            false => one.queue.set_end(QueueEnd::Trailers(block)),
        }
    }

    /// Sends content. Returns how many bytes have left, for which their source gets its credit; the rest waits.
    /// Content for an exchange that is gone, or whose message has ended, is dropped: it has left too.
    #[must_use = "the source of what has left gets credit for it"]
    pub fn send_data(&mut self, stream: StreamId, data: &[u8], end_stream: bool) -> usize {
        let Some(one) = self.find_unended(stream) else {
            return data.len();
        };
        let waits = !one.queue.is_empty();
        let sent = if waits { 0 } else { self.write_content(data) };
        if let Some(one) = &mut self.in_flight {
            one.queue.push(&data[sent..]);
        }
        if end_stream {
            self.end();
        }
        self.finish();
        sent
    }

    /// Writes content that waited. `None` if nothing can be written before the output is taken. What waits on a
    /// connection that is over is dropped, and has left.
    ///
    /// A client that waits for status 100 gets it here: behind the decision to serve its request, which its owner makes
    /// as soon as it hears of it.
    pub fn send_queued(&mut self) -> Option<Left> {
        let is_closed = self.is_closed();
        let one = self.in_flight.as_mut()?;
        if !is_closed && one.outgoing == Outgoing::Head && one.expects_continue {
            one.expects_continue = false;
            write_status_line(&mut self.output, b"100");
            self.output.extend_from_slice(b"\r\n");
        }
        let one = self.in_flight.as_mut()?;
        if one.queue.is_empty() {
            return None;
        }
        let key = one.key;
        let mut queue = std::mem::take(&mut one.queue);
        let sent = match is_closed {
            true => queue.data().len(),
            false => self.write_content(queue.data()),
        };
        if sent == 0 && !queue.data().is_empty() {
            self.in_flight.as_mut()?.queue = queue;
            return None;
        }
        queue.advance(sent);
        if queue.data().is_empty() && !is_closed {
            match queue.take_end() {
                Some(QueueEnd::Data) => self.write_end(b""),
                Some(QueueEnd::Trailers(block)) => self.write_end(&block),
                None => {}
            }
        }
        if let Some(one) = &mut self.in_flight {
            one.queue = queue;
        }
        self.finish();
        Some(Left { key, bytes: sent })
    }

    /// Our message ends, behind what waits.
    fn end(&mut self) {
        let Some(one) = &mut self.in_flight else {
            return;
        };
        one.has_end = true;
        match one.queue.is_empty() {
            true => self.write_end(b""),
            false => one.queue.set_end(QueueEnd::Data),
        }
    }

    /// Writes as much content as there is room for. Returns how much has left: what the message cannot have is dropped.
    fn write_content(&mut self, data: &[u8]) -> usize {
        let room = self.output_room();
        let Some(InFlight { outgoing, .. }) = &mut self.in_flight else {
            return data.len();
        };
        match outgoing {
            Outgoing::Head | Outgoing::NoContent | Outgoing::Length(0) => data.len(),
            Outgoing::UntilClose => {
                let sent = data.len().min(room);
                self.output.extend_from_slice(&data[..sent]);
                sent
            }
            Outgoing::Chunks => {
                let sent = data.len().min(room.saturating_sub(CHUNK_OVERHEAD_BYTES));
                write_chunk(&mut self.output, &data[..sent]);
                sent
            }
            Outgoing::Length(left) => {
                let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
                let sent = data.len().min(room).min(allowed);
                *left -= sent as u64;
                self.output.extend_from_slice(&data[..sent]);
                sent
            }
        }
    }

    /// Writes the end of a message. One that is shorter than it said cannot end well.
    fn write_end(&mut self, trailers: &[u8]) {
        match self.in_flight.as_ref().map(|one| one.outgoing) {
            Some(Outgoing::Chunks) if trailers.is_empty() => {
                self.output.extend_from_slice(LAST_CHUNK);
            }
            Some(Outgoing::Chunks) => {
                for part in [b"0\r\n", trailers, b"\r\n"] {
                    self.output.extend_from_slice(part);
                }
            }
            Some(Outgoing::Length(1..) | Outgoing::Head) => {
                self.ending = Ending::Closed;
                self.is_cut_off = true;
            }
            Some(Outgoing::Length(0) | Outgoing::UntilClose | Outgoing::NoContent) | None => {}
        }
    }
}
