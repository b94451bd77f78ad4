//! A server of `grpc.health.v1`, at the other end of a connection of the gateway's own: the forwarder passes requests for
//! health to it as to any backend. In: bytes of HTTP/2, what services are good for. Out: bytes of HTTP/2. Pure; its
//! connection bounds how many requests it has at once.

use std::collections::BTreeMap;
use std::time::Instant;

use super::service::{
    HealthMethod, REPLY_FIELDS, ServingStatus, health_method, health_reply, requested_service,
};
use crate::http::h2::{Connection, Event, StreamId};
use crate::http::limits::{CLIENT_STREAMS_MAX, HEADER_LIST_BYTES_MAX, HEALTH_REQUEST_BYTES_MAX};
use crate::http::message::{Field, HeaderList};

/// A request, by its stream.
#[derive(Debug)]
struct Asked {
    method: HealthMethod,
    /// Its header section, by which it would have found its backend.
    list: HeaderList,
    /// As much of its content as has come.
    content: Vec<u8>,
    /// The last status that its client was told, of `Watch`.
    told: Option<ServingStatus>,
}

/// How a reply without a message ends.
#[derive(Debug, Clone, Copy)]
enum Unanswered {
    InvalidArgument,
    NotFound,
    Unimplemented,
}

impl Unanswered {
    /// What gRPC's trailers say.
    fn fields(self) -> [Field<'static>; 2] {
        let (status, words): (&[u8], &[u8]) = match self {
            Self::InvalidArgument => (b"3", b"the message is malformed"),
            Self::NotFound => (b"5", b"unknown service"),
            Self::Unimplemented => (b"12", b"the gateway answers check and watch"),
        };
        [
            Field::new(b"grpc-status", status),
            Field::new(b"grpc-message", words),
        ]
    }
}

/// One end of a connection that brings requests for health.
#[derive(Debug)]
pub struct HealthServer {
    connection: Connection,
    list: HeaderList,
    asked: BTreeMap<u32, Asked>,
}

impl HealthServer {
    /// A connection that has just been opened.
    pub fn new(now: Instant) -> Self {
        let size_max = HEADER_LIST_BYTES_MAX as u32;
        HealthServer {
            connection: Connection::server(size_max, CLIENT_STREAMS_MAX, now),
            list: HeaderList::new(HEADER_LIST_BYTES_MAX),
            asked: BTreeMap::new(),
        }
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Takes what is to be written to the other end.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.connection.take_output()
    }

    /// Takes bytes. `status` says what a service is good for to a request with this header section.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        status: &mut impl FnMut(&HeaderList, &[u8]) -> ServingStatus,
        now: Instant,
    ) {
        while let Some(event) = self.connection.receive(&mut bytes, &mut self.list, now) {
            match event {
                Event::Request { stream, end_stream } => self.begin(stream, end_stream, status),
                Event::Data {
                    key,
                    data,
                    end_stream,
                } => {
                    self.connection.release(StreamId::new(key), data.len(), now);
                    self.take_content(key, data, end_stream, status);
                }
                Event::Section { key, end_stream } => {
                    self.take_content(key, &[], end_stream, status);
                }
                Event::Reset { key, .. } | Event::Broken { key, .. } => {
                    self.asked.remove(&key);
                }
                Event::Goaway { .. } | Event::Control | Event::Failed(_) | Event::Malformed(_) => {}
            }
        }
        while self.connection.send_queued().is_some() {}
    }

    /// Tells those that watch what has changed.
    pub fn tell(&mut self, status: &mut impl FnMut(&HeaderList, &[u8]) -> ServingStatus) {
        for (key, asked) in &mut self.asked {
            let (Some(told), Some(service)) = (asked.told, requested_service(&asked.content))
            else {
                continue;
            };
            let now = status(&asked.list, service);
            if now != told {
                asked.told = Some(now);
                send_status(&mut self.connection, StreamId::new(*key), now, false);
            }
        }
    }

    fn begin(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        status: &mut impl FnMut(&HeaderList, &[u8]) -> ServingStatus,
    ) {
        let list = std::mem::replace(&mut self.list, HeaderList::new(HEADER_LIST_BYTES_MAX));
        self.connection.own(stream, stream.number());
        let path = list.iter().find(|field| field.name == b":path");
        let Some(method) = path.and_then(|path| health_method(path.value)) else {
            return self.leave_unanswered(stream, Unanswered::Unimplemented);
        };
        let asked = Asked {
            method,
            list,
            content: Vec::new(),
            told: None,
        };
        self.asked.insert(stream.number(), asked);
        self.take_content(stream.number(), &[], end_stream, status);
    }

    fn take_content(
        &mut self,
        key: u32,
        data: &[u8],
        end_stream: bool,
        status: &mut impl FnMut(&HeaderList, &[u8]) -> ServingStatus,
    ) {
        let stream = StreamId::new(key);
        let Some(asked) = self.asked.get_mut(&key) else {
            return;
        };
        if asked.content.len() + data.len() > HEALTH_REQUEST_BYTES_MAX {
            self.asked.remove(&key);
            return self.leave_unanswered(stream, Unanswered::InvalidArgument);
        }
        asked.content.extend_from_slice(data);
        if !end_stream {
            return;
        }
        let Some(service) = requested_service(&asked.content) else {
            self.asked.remove(&key);
            return self.leave_unanswered(stream, Unanswered::InvalidArgument);
        };
        let status = status(&asked.list, service);
        match asked.method {
            HealthMethod::Watch => {
                asked.told = Some(status);
                let fields = REPLY_FIELDS.into_iter();
                self.connection.send_section(stream, fields, false);
                send_status(&mut self.connection, stream, status, false);
            }
            HealthMethod::Check => {
                self.asked.remove(&key);
                if status == ServingStatus::ServiceUnknown {
                    return self.leave_unanswered(stream, Unanswered::NotFound);
                }
                let fields = REPLY_FIELDS.into_iter();
                self.connection.send_section(stream, fields, false);
                send_status(&mut self.connection, stream, status, true);
            }
        }
    }

    fn leave_unanswered(&mut self, stream: StreamId, why: Unanswered) {
        let fields = REPLY_FIELDS.into_iter().chain(why.fields());
        self.connection.send_section(stream, fields, true);
    }
}

/// Sends a message, which is small: it waits for its turn where the window is used up.
fn send_status(
    connection: &mut Connection,
    stream: StreamId,
    status: ServingStatus,
    is_last: bool,
) {
    let _ = connection.send_data(stream, &health_reply(status), false);
    if is_last {
        let trailers = [Field::new(b"grpc-status", b"0")];
        connection.send_section(stream, trailers.into_iter(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        GrpcHealthReply, HealthFailure, grpc_health_request, grpc_health_request_content,
    };
    use super::*;
    use crate::http::deadline::GrpcTimeout;
    use crate::http::h2::Role;
    use crate::http::limits::HEALTH_SERVICE_BYTES_MAX;
    use crate::http::message::read_response;
    use std::time::Duration;

    /// A client, a server, and what the service `known` is good for.
    struct World {
        client: Connection,
        server: HealthServer,
        serves: bool,
        now: Instant,
    }

    /// What a client has heard on one stream.
    #[derive(Default)]
    struct Heard {
        reply: GrpcHealthReply,
        messages: Vec<Vec<u8>>,
        grpc_status: Option<String>,
        has_ended: bool,
    }

    impl World {
        fn new() -> Self {
            // Time is invented, from a start that is real.
            #[allow(clippy::disallowed_methods)]
            let now = Instant::now();
            World {
                client: Connection::new(Role::Client, 10_000, now),
                server: HealthServer::new(now),
                serves: true,
                now,
            }
        }

        /// Moves all bytes, until there are no more.
        fn carry(&mut self, heard: &mut Heard) {
            let (serves, now) = (self.serves, self.now);
            let mut status = |_: &HeaderList, service: &[u8]| match (service, serves) {
                (b"" | b"known", true) => ServingStatus::Serving,
                (b"" | b"known", false) => ServingStatus::NotServing,
                _ => ServingStatus::ServiceUnknown,
            };
            self.server.tell(&mut status);
            for _ in 0..5 {
                let bytes = self.client.take_output();
                self.server.receive(&bytes, &mut status, now);
                let bytes = self.server.take_output();
                let mut rest = &bytes[..];
                let mut list = HeaderList::new(10_000);
                while let Some(event) = self.client.receive(&mut rest, &mut list, now) {
                    match event {
                        Event::Section { end_stream, .. } => {
                            heard.reply.section(&list);
                            assert!(read_response(&list).is_ok() || end_stream);
                            let status = list.iter().find(|field| field.name == b"grpc-status");
                            heard.grpc_status = status
                                .map(|field| String::from_utf8(field.value.to_vec()).unwrap());
                            heard.has_ended |= end_stream;
                        }
                        Event::Data { data, .. } => {
                            heard.reply.data(data);
                            heard.messages.push(data.to_vec());
                        }
                        Event::Control => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        }

        /// A request for a path with this content.
        fn ask(&mut self, path: &[u8], content: &[u8]) -> (StreamId, Heard) {
            let stream = self.client.open(1, self.now).unwrap();
            let timeout = GrpcTimeout::of(Duration::from_secs(1));
            let fields = grpc_health_request(true, b"gateway.test", &timeout);
            let fields = fields.map(|field| match field.name {
                b":path" => Field::new(b":path", path),
                _ => field,
            });
            self.client.send_section(stream, fields, false);
            assert_eq!(self.client.send_data(stream, content, true), content.len());
            let mut heard = Heard::default();
            self.carry(&mut heard);
            (stream, heard)
        }
    }

    const CHECK: &[u8] = b"/grpc.health.v1.Health/Check";
    const WATCH: &[u8] = b"/grpc.health.v1.Health/Watch";

    #[test]
    fn a_client_that_checks_reads_what_the_gateway_writes() {
        for (service, serves, verdict) in [
            ("", true, Ok(())),
            ("known", true, Ok(())),
            ("known", false, Err(HealthFailure::NotServing)),
            ("other", true, Err(HealthFailure::Unknown)),
        ] {
            let mut world = World::new();
            world.serves = serves;
            let (_, heard) = world.ask(CHECK, &grpc_health_request_content(service));
            assert_eq!(heard.reply.verdict(), verdict, "{service}");
            assert!(heard.has_ended);
            assert_eq!(world.server.asked.len(), 0);
        }
    }

    #[test]
    fn one_that_watches_hears_the_status_and_then_every_change() {
        let mut world = World::new();
        let (stream, mut heard) = world.ask(WATCH, &grpc_health_request_content("known"));
        let serving = |serves: bool| {
            health_reply(match serves {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            })
        };
        assert_eq!(heard.messages, [serving(true)]);
        world.carry(&mut heard);
        assert_eq!(heard.messages.len(), 1, "nothing has changed");
        world.serves = false;
        world.carry(&mut heard);
        assert_eq!(heard.messages, [serving(true), serving(false)]);
        assert!(!heard.has_ended);
        let _ = world
            .client
            .reset(stream, crate::http::h2::ErrorCode::Cancel);
        world.carry(&mut heard);
        assert_eq!(world.server.asked.len(), 0, "it is forgotten");
        // A service that nobody knows may come later: the protocol has it watched.
        let (_, heard) = world.ask(WATCH, &grpc_health_request_content("other"));
        assert_eq!(
            heard.messages,
            [health_reply(ServingStatus::ServiceUnknown)]
        );
    }

    #[test]
    fn what_is_no_request_for_health_is_told_so() {
        let long = "a".repeat(HEALTH_SERVICE_BYTES_MAX + 100);
        for (path, content, status) in [
            (CHECK, b"\x01\0\0\0\0".to_vec(), "3"),
            (WATCH, Vec::new(), "3"),
            (CHECK, grpc_health_request_content(&long), "3"),
            (
                &b"/grpc.health.v1.Health/List"[..],
                b"\0\0\0\0\0".to_vec(),
                "12",
            ),
        ] {
            let mut world = World::new();
            let (_, heard) = world.ask(path, &content);
            assert_eq!(heard.grpc_status.as_deref(), Some(status), "{content:?}");
            assert!(heard.has_ended && heard.messages.is_empty());
            assert!(!world.server.is_closed());
        }
    }
}
