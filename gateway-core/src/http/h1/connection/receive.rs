//! The receiving side of a connection: bytes become events. In: received bytes. Out: one event at a time. Holds a
//! section that is not complete; never content.

use std::time::Instant;

use super::{Ending, Http1Connection, InFlight, Incoming};
use crate::http::h1::Fault;
use crate::http::h1::chunks::{Chunks, NextPart};
use crate::http::h1::fields::Framing;
use crate::http::h1::request::read_request_head;
use crate::http::h1::response::{read_response_head, read_trailers};
use crate::http::h1::section::Kind;
use crate::http::h2::{ErrorCode, Event, Role};
use crate::http::limits::{DRAINED_BYTES_MAX, OUTPUT_BYTES_MAX, UNRELEASED_BYTES_MAX};
use crate::http::message::HeaderList;

type EventOrNot<'a> = Result<Option<Event<'a>>, Fault>;

impl Http1Connection {
    /// Reads from the front of `input` until something has to be told. Fields go to `list`, which is emptied first.
    /// `None`: nothing more can be read now; what is left of `input` is given again once [`Self::wants_input`] says so.
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
        let event = self.next_event(input, list).unwrap_or_else(|fault| {
            *input = &[];
            self.fail(fault);
            Some(Event::Malformed(fault))
        });
        self.has_unread = event.is_none() && !input.is_empty();
        self.note_incomplete(now);
        event
    }

    fn next_event<'a>(&mut self, input: &mut &'a [u8], list: &mut HeaderList) -> EventOrNot<'a> {
        let is_server = self.role == Role::Server;
        match &self.in_flight {
            _ if input.is_empty() => Ok(None),
            None if is_server => self.take_request(input, list),
            None => Err(Fault::Unsolicited),
            Some(one) if !is_server && !one.has_left => Err(Fault::Unsolicited),
            Some(one) => match one.incoming {
                Incoming::Head => self.take_response(input, list),
                Incoming::Length(_) | Incoming::Chunks(_) | Incoming::UntilClose => {
                    self.take_content(input, list)
                }
                Incoming::Trailers => self.take_trailers(input, list),
                Incoming::Ended if is_server => Ok(None),
                Incoming::Ended => Err(Fault::Surplus),
            },
        }
    }

    fn take_request(&mut self, input: &mut &[u8], list: &mut HeaderList) -> EventOrNot<'static> {
        // A client that does not read its responses gets no more of them.
        if self.output.len() >= OUTPUT_BYTES_MAX {
            return Ok(None);
        }
        let Some(section) = self.section.take(input, Kind::Request)? else {
            return Ok(None);
        };
        let head = read_request_head(&section, list)?;
        let incoming = match head.framing {
            Framing::None | Framing::Length(0) => Incoming::Ended,
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunks(Chunks::new()),
        };
        let end_stream = matches!(incoming, Incoming::Ended);
        if head.ends_connection {
            self.ending = Ending::Announced;
        }
        let one = self.begin(0, incoming);
        one.is_head = head.is_head;
        one.is_http_1_0 = head.is_http_1_0;
        one.takes_trailers = head.takes_trailers;
        one.expects_continue = head.expects_continue && !end_stream;
        Ok(Some(Event::Request {
            stream: one.id,
            end_stream,
        }))
    }

    fn take_response(&mut self, input: &mut &[u8], list: &mut HeaderList) -> EventOrNot<'static> {
        let Some(section) = self.section.take(input, Kind::Response)? else {
            return Ok(None);
        };
        let head = read_response_head(&section, list)?;
        let Some(one) = &mut self.in_flight else {
            return Ok(None);
        };
        let key = one.key;
        if head.status < 200 {
            return Ok(Some(Event::Section {
                key,
                end_stream: false,
            }));
        }
        // RFC 9112 section 6.3.
        one.incoming = match head.framing {
            _ if one.is_head || matches!(head.status, 204 | 304) => Incoming::Ended,
            Framing::Length(0) => Incoming::Ended,
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunks(Chunks::new()),
            Framing::None => Incoming::UntilClose,
        };
        if head.ends_connection || matches!(one.incoming, Incoming::UntilClose) {
            self.ending = Ending::Announced;
        }
        let end_stream = matches!(one.incoming, Incoming::Ended);
        self.finish();
        Ok(Some(Event::Section { key, end_stream }))
    }

    fn take_content<'a>(&mut self, input: &mut &'a [u8], list: &mut HeaderList) -> EventOrNot<'a> {
        let Some(one) = &mut self.in_flight else {
            return Ok(None);
        };
        let to_come = match &mut one.incoming {
            Incoming::Length(left) => *left,
            Incoming::Chunks(chunks) => match chunks.next(input)? {
                NextPart::Unknown => return Ok(None),
                NextPart::Content(bytes) => bytes,
                NextPart::Trailers => {
                    one.incoming = Incoming::Trailers;
                    return self.take_trailers(input, list);
                }
            },
            _ => u64::MAX,
        };
        let credit = UNRELEASED_BYTES_MAX.saturating_sub(one.unreleased);
        let bytes = credit
            .min(input.len())
            .min(usize::try_from(to_come).unwrap_or(usize::MAX));
        if bytes == 0 {
            return Ok(None);
        }
        let (data, rest) = input.split_at(bytes);
        *input = rest;
        one.take(bytes);
        // A response comes behind its request as a rule.
        if self.role == Role::Server && one.drained > DRAINED_BYTES_MAX {
            return Ok(self.give_up());
        }
        let key = one.key;
        let end_stream = matches!(one.incoming, Incoming::Ended);
        self.finish();
        Ok(Some(Event::Data {
            key,
            data,
            end_stream,
        }))
    }

    /// A client goes on with a request that has its response, beyond what is worth reading.
    fn give_up(&mut self) -> Option<Event<'static>> {
        self.cut_off();
        self.in_flight.take().map(|one| Event::Reset {
            key: one.key,
            code: ErrorCode::Cancel,
            unsent: one.queue.data().len(),
        })
    }

    fn take_trailers(&mut self, input: &mut &[u8], list: &mut HeaderList) -> EventOrNot<'static> {
        let Some(section) = self.section.take(input, Kind::Trailers)? else {
            return Ok(None);
        };
        read_trailers(&section, list)?;
        let Some(one) = &mut self.in_flight else {
            return Ok(None);
        };
        one.incoming = Incoming::Ended;
        let key = one.key;
        self.finish();
        Ok(Some(match *section == *b"\r\n" {
            true => Event::Data {
                key,
                data: &[],
                end_stream: true,
            },
            false => Event::Section {
                key,
                end_stream: true,
            },
        }))
    }
}

impl InFlight {
    /// Counts content that has come.
    fn take(&mut self, bytes: usize) {
        match &mut self.incoming {
            Incoming::Length(left) => {
                *left -= bytes as u64;
                if *left == 0 {
                    self.incoming = Incoming::Ended;
                }
            }
            Incoming::Chunks(chunks) => chunks.take(bytes),
            Incoming::Head | Incoming::UntilClose | Incoming::Trailers | Incoming::Ended => {}
        }
        self.unreleased += bytes;
        // Whoever sends does not wait.
        self.expects_continue = false;
        if self.is_sent() {
            self.drained += bytes;
        }
    }
}
