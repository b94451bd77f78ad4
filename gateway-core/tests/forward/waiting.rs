//! Requests of several clients that wait for one backend.

use std::time::{Duration, Instant};

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::{
    Call, ConnectionKey, Ended, Forwarder, HttpVersion, LegEnd, MirroredRequest, PeerConnection,
    PeerFault, Placement, Rewrite, Router,
};
use gateway_core::http::h2::Role;
use gateway_core::http::limits::QUEUED_REQUESTS_MAX;
use gateway_core::http::message::{AllowedTenants, Field};

use crate::{GRPC, Heard, client, hear, limits, receive_all, times};

/// A backend that takes so many requests more; the others wait, in a queue by the last digit of their path.
struct Room {
    backend: ConnectionKey,
    requests: usize,
    /// How often it was asked.
    asked: usize,
}

impl Router for Room {
    fn choose(&mut self, call: &Call<'_>, _: &mut Rewrite) -> Result<Placement, RequestRefusal> {
        self.asked += 1;
        if self.requests == 0 {
            let last = char::from(*call.request.path.last().unwrap());
            return Ok(Placement::Wait(last.to_digit(10).unwrap_or(0) as usize));
        }
        self.requests -= 1;
        Ok(Placement::Connection(self.backend))
    }

    fn full(&mut self, _: ConnectionKey, _: &Call<'_>) -> Result<(), RequestRefusal> {
        Ok(())
    }

    fn left(&mut self, _: ConnectionKey, _: LegEnd) {}

    fn mirror(&mut self, _: MirroredRequest) {}

    fn ended(&mut self, _: &Ended<'_>) {}

    fn failed(&mut self, _: ConnectionKey, _: PeerFault) {}
}

/// Clients, and a backend, which is the first end.
struct Crowd {
    forwarder: Forwarder,
    room: Room,
    ends: Vec<(ConnectionKey, PeerConnection)>,
    heard: Vec<Vec<Heard>>,
    now: Instant,
}

const BACKEND: usize = 0;

impl Crowd {
    fn new() -> Self {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(16 << 10, Duration::from_secs(1));
        let backend = forwarder.connect(times(), HttpVersion::Http2, now);
        let server = PeerConnection::new(HttpVersion::Http2, Role::Server, limits(), now);
        let room = Room {
            backend,
            requests: 0,
            asked: 0,
        };
        let mut crowd = Crowd {
            forwarder,
            room,
            ends: vec![(backend, server)],
            heard: vec![Vec::new()],
            now,
        };
        crowd.carry();
        crowd
    }

    /// A client of an identity. Returns its position.
    fn join(&mut self, identity: u64) -> usize {
        let (version, now) = (HttpVersion::Http2, self.now);
        let client = client(AllowedTenants::None);
        let key = self.forwarder.accept(client, identity, version, now);
        let end = PeerConnection::new(version, Role::Client, limits(), now);
        self.ends.push((key, end));
        self.heard.push(Vec::new());
        self.carry();
        self.ends.len() - 1
    }

    fn ask(&mut self, client: usize, path: &str) {
        let (_, end) = &mut self.ends[client];
        let stream = end.open(0, self.now).unwrap();
        let fields = GRPC.iter().map(|(name, value)| match *name {
            ":path" => Field::new(b":path", path.as_bytes()),
            _ => Field::new(name.as_bytes(), value.as_bytes()),
        });
        end.send_section(stream, fields, true);
    }

    /// Moves all bytes, until there are no more.
    fn carry(&mut self) {
        for _ in 0..20 {
            for (key, end) in &mut self.ends {
                let bytes = end.take_output();
                let forwarder = (&mut self.forwarder, *key);
                receive_all(forwarder, &bytes, (&mut self.room, self.now));
            }
            while let Some(key) = self.forwarder.next_ready() {
                let position = self.ends.iter().position(|(other, _)| *other == key);
                let position = position.unwrap();
                let mut bytes = Vec::new();
                self.forwarder
                    .take_output(key, &mut bytes, &mut self.room, self.now);
                let heard = hear(&mut self.ends[position].1, &bytes, self.now);
                self.heard[position].extend(heard);
            }
        }
    }

    /// Paths of requests that have come to the backend.
    fn arrived(&self) -> Vec<&str> {
        let heard = self.heard[BACKEND].iter();
        let sections = heard.filter_map(|heard| match heard {
            Heard::Section(fields, _) => Some(fields),
            Heard::Data(..) | Heard::Reset(_) | Heard::Goaway => None,
        });
        let paths = sections.flatten().filter(|(name, _)| name == ":path");
        paths.map(|(_, path)| path.as_str()).collect()
    }
}

const GREEDY: u64 = 1;
const OTHER: u64 = 2;

#[test]
fn an_identity_with_few_requests_waits_for_one_of_a_greedy_one() {
    let mut crowd = Crowd::new();
    let (clients, each) = (5, 250);
    let greedy: Vec<usize> = (0..clients).map(|_| crowd.join(GREEDY)).collect();
    for client in &greedy {
        for _ in 0..each {
            crowd.ask(*client, "/greedy");
        }
        crowd.carry();
    }
    let refused = |crowd: &Crowd| -> usize {
        let answers = greedy.iter().map(|client| crowd.heard[*client].len());
        answers.sum()
    };
    assert_eq!(refused(&crowd), clients * each - QUEUED_REQUESTS_MAX);
    let other = crowd.join(OTHER);
    crowd.ask(other, "/other");
    crowd.carry();
    assert_eq!(crowd.heard[other], [], "it waits");
    assert_eq!(refused(&crowd), clients * each - QUEUED_REQUESTS_MAX + 1);
    assert_eq!(crowd.forwarder.waiting(0), QUEUED_REQUESTS_MAX);
    crowd.room.requests = 2;
    crowd.forwarder.place_waiting(0, &mut crowd.room, crowd.now);
    crowd.carry();
    assert_eq!(crowd.arrived(), ["/greedy", "/other"]);
    // No place is lost by a look at those whose time may be over.
    crowd.forwarder.check_time(&mut crowd.room, crowd.now);
    crowd.carry();
    assert_eq!(crowd.forwarder.waiting(0), QUEUED_REQUESTS_MAX - 2);
}

#[test]
fn a_look_asks_for_as_many_as_a_queue_holds_and_comes_to_all_in_turn() {
    let mut crowd = Crowd::new();
    let (queues, clients, each) = (3, 4, 200);
    for queue in 0..queues {
        for _ in 0..clients {
            let client = crowd.join(GREEDY);
            for _ in 0..each {
                crowd.ask(client, &format!("/{queue}"));
            }
            crowd.carry();
        }
    }
    crowd.room.asked = 0;
    for _ in 0..queues {
        let before = crowd.room.asked;
        crowd.forwarder.check_time(&mut crowd.room, crowd.now);
        assert!(crowd.room.asked - before < 2 * QUEUED_REQUESTS_MAX);
    }
    assert!(crowd.room.asked >= queues * clients * each);
    for queue in 0..queues {
        assert_eq!(crowd.forwarder.waiting(queue), clients * each);
    }
}
