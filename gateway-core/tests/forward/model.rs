//! Two clients and two backends around a forwarder, each of either version of HTTP, and everything in between at random.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::{
    Call, ConnectionKey, Ended, Forwarder, HttpVersion, LegEnd, MirroredRequest, PeerConnection,
    PeerFault, Placement, Rewrite, Router,
};
use gateway_core::http::h2::{ErrorCode, Event, Role, StreamId, WindowBudget};
use gateway_core::http::limits::HELD_CONTENT_BYTES_MAX;
use gateway_core::http::message::{Field, HeaderList};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{GRPC, client, limits, one_tenant, times};

/// The first two are clients, the others backends.
const ENDS: usize = 4;
const CLIENT: usize = 0;
const BACKEND: usize = 1;

#[derive(Debug, Clone)]
enum Step {
    Open {
        client: usize,
    },
    Send {
        side: usize,
        exchange: Index,
        bytes: usize,
        ends: bool,
    },
    Move {
        end: usize,
        bytes: usize,
    },
    Release {
        side: usize,
        exchange: Index,
        bytes: usize,
    },
    Reset {
        side: usize,
        exchange: Index,
    },
    Leave {
        end: usize,
    },
    Grow {
        end: usize,
    },
    /// Requests wait from now on, or no more.
    Wait {
        waits: bool,
    },
    /// A backend refuses the next request that comes.
    Refuse {
        end: usize,
    },
    /// Clients keep to their shares of a backend's window from now on, or no more.
    Share {
        end: usize,
        are_in_force: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let side = || CLIENT..=BACKEND;
    let exchange = any::<Index>;
    prop_oneof![
        30 => (0_usize..2).prop_map(|client| Step::Open { client }),
        60 => (side(), exchange(), 0_usize..40_000, prop::bool::weighted(0.2))
            .prop_map(|(side, exchange, bytes, ends)| Step::Send { side, exchange, bytes, ends }),
        90 => (0..ENDS, prop_oneof![0_usize..40, 0_usize..50_000])
            .prop_map(|(end, bytes)| Step::Move { end, bytes }),
        30 => (side(), exchange(), 0_usize..60_000)
            .prop_map(|(side, exchange, bytes)| Step::Release { side, exchange, bytes }),
        8 => (side(), exchange()).prop_map(|(side, exchange)| Step::Reset { side, exchange }),
        3 => (0..ENDS).prop_map(|end| Step::Leave { end }),
        10 => (0..ENDS).prop_map(|end| Step::Grow { end }),
        8 => any::<bool>().prop_map(|waits| Step::Wait { waits }),
        8 => (2..ENDS).prop_map(|end| Step::Refuse { end }),
        8 => (2..ENDS, any::<bool>())
            .prop_map(|(end, are_in_force)| Step::Share { end, are_in_force }),
    ]
}

/// What one side of an exchange has sent, and the other one got.
#[derive(Debug, Clone, Default)]
struct Direction {
    sent: usize,
    got: usize,
    held: usize,
    is_ended: bool,
    has_end: bool,
}

#[derive(Debug, Clone, Default)]
struct Exchange {
    /// By side: the end and its stream. The backend is known when the request has come.
    places: [Option<(usize, StreamId)>; 2],
    /// By the side that sends.
    directions: [Direction; 2],
    /// Whether a side has reset it or left: then the other one need not get everything.
    is_broken: bool,
    /// Whether a backend has refused it, and no other one has taken it since.
    is_refused: bool,
}

/// Chooses a backend by the number of the request, and the other one when that has refused it; unless requests wait.
struct ByNumber {
    backends: [ConnectionKey; 2],
    waits: bool,
    is_patient: bool,
    takes_request: Rc<TakesRequest>,
    versions: Versions,
}

type Versions = [HttpVersion; ENDS];

/// Whether each backend can take a request.
type TakesRequest = [Cell<bool>; 2];

impl Router for ByNumber {
    fn choose(&mut self, call: &Call<'_>, _: &mut Rewrite) -> Result<Placement, RequestRefusal> {
        if self.waits {
            return Ok(Placement::Wait(0));
        }
        let last = u32::from(*call.request.path.last().unwrap());
        let position = (last + call.attempts) as usize % 2;
        match self.takes_request[position].get() {
            true => {
                let is_http1 = self.versions[2 + position] == HttpVersion::Http1;
                self.takes_request[position].set(!is_http1);
                Ok(Placement::Connection(self.backends[position]))
            }
            false if self.is_patient => Ok(Placement::Wait(0)),
            false => Err(RequestRefusal::BackendBusy),
        }
    }

    fn full(&mut self, _: ConnectionKey, _: &Call<'_>) -> Result<(), RequestRefusal> {
        Ok(())
    }

    fn left(&mut self, _: ConnectionKey, _: LegEnd) {}

    fn mirror(&mut self, _: MirroredRequest) {}

    fn ended(&mut self, _: &Ended<'_>) {}

    fn failed(&mut self, _: ConnectionKey, _: PeerFault) {}
}

struct Model {
    forwarder: Forwarder,
    keys: [ConnectionKey; ENDS],
    ends: [PeerConnection; ENDS],
    versions: Versions,
    takes_request: Rc<TakesRequest>,
    /// On the way to the forwarder, and from it.
    wires: [[Vec<u8>; 2]; ENDS],
    exchanges: Vec<Exchange>,
    budget: WindowBudget,
    waits: bool,
    is_patient: bool,
    /// By end: whether it refuses the next request.
    refuses: [bool; ENDS],
    now: Instant,
}

fn side_of(end: usize) -> usize {
    if end < 2 { CLIENT } else { BACKEND }
}

fn content(number: usize, side: usize, position: usize, bytes: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..251)
        .map(|step| (step + 7 * number + 3 * side) as u8)
        .collect();
    let mut content = period.repeat(bytes / 251 + 2);
    content.drain(..position % 251);
    content.truncate(bytes);
    content
}

impl Model {
    fn new(versions: Versions) -> Self {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(16 << 10, Duration::from_secs(1));
        let keys = [0, 1, 2, 3].map(|end| match side_of(end) {
            CLIENT => forwarder.accept(client(one_tenant()), 0, versions[end], now),
            _ => forwarder.connect(times(), versions[end], now),
        });
        Model {
            forwarder,
            keys,
            ends: [0, 1, 2, 3].map(|end| Self::end(end, versions, now)),
            versions,
            takes_request: Rc::new([Cell::new(true), Cell::new(true)]),
            wires: Default::default(),
            exchanges: Vec::new(),
            budget: WindowBudget::new(500_000),
            waits: false,
            is_patient: true,
            refuses: [false; ENDS],
            now,
        }
    }

    fn end(end: usize, versions: Versions, now: Instant) -> PeerConnection {
        let role = [Role::Client, Role::Server][side_of(end)];
        PeerConnection::new(versions[end], role, limits(), now)
    }

    fn router(&self) -> ByNumber {
        ByNumber {
            backends: [self.keys[2], self.keys[3]],
            waits: self.waits,
            is_patient: self.is_patient,
            takes_request: Rc::clone(&self.takes_request),
            versions: self.versions,
        }
    }

    fn apply(&mut self, step: Step) {
        let count = self.exchanges.len();
        match step {
            Step::Open { client } => self.open(client),
            Step::Move { end, bytes } => self.carry(end, bytes),
            Step::Leave { end } => self.leave(end),
            Step::Wait { waits } => self.waits = waits,
            Step::Refuse { end } => self.refuses[end] = true,
            Step::Share { end, are_in_force } => {
                let (key, mut router) = (self.keys[end], self.router());
                let now = self.now;
                self.forwarder
                    .enforce_shares(key, are_in_force, &mut router, now);
            }
            Step::Grow { end } => {
                if let Some(connection) = self.forwarder.connection(self.keys[end]) {
                    connection.grow(&mut self.budget);
                }
            }
            _ if count == 0 => {}
            Step::Send {
                side,
                exchange,
                bytes,
                ends,
            } => {
                self.send(side, exchange.index(count), bytes, ends);
            }
            Step::Release {
                side,
                exchange,
                bytes,
            } => {
                self.release(side, exchange.index(count), bytes);
            }
            Step::Reset { side, exchange } => self.reset(side, exchange.index(count)),
        }
    }

    fn open(&mut self, client: usize) {
        let number = self.exchanges.len();
        let Some(stream) = self.ends[client].open(number as u32, self.now) else {
            return;
        };
        let (path, mut fields) = (format!("/a.B/{number}"), GRPC.to_vec());
        fields[2].1 = &path;
        fields.push([("x_scope_orgid", "blue"), ("x-scope-orgid", "blue")][number % 2]);
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
        self.ends[client].send_section(stream, fields, false);
        self.exchanges.push(Exchange {
            places: [Some((client, stream)), None],
            ..Exchange::default()
        });
    }

    fn send(&mut self, side: usize, number: usize, bytes: usize, ends: bool) {
        let exchange = &mut self.exchanges[number];
        let direction = &mut exchange.directions[side];
        let Some((end, stream)) = exchange.places[side] else {
            return;
        };
        if direction.is_ended {
            return;
        }
        let content = content(number, side, direction.sent, bytes);
        direction.sent += bytes;
        direction.is_ended = ends;
        // What is not held cannot be sent again.
        exchange.is_broken |= exchange.is_refused && direction.sent > HELD_CONTENT_BYTES_MAX;
        // What waits here is this end's own.
        let _ = self.ends[end].send_data(stream, &content, ends);
    }

    fn release(&mut self, side: usize, number: usize, bytes: usize) {
        let exchange = &mut self.exchanges[number];
        let direction = &mut exchange.directions[1 - side];
        let bytes = bytes.min(direction.held);
        direction.held -= bytes;
        if let Some((end, stream)) = exchange.places[side].filter(|_| bytes > 0) {
            self.ends[end].release(stream, bytes, self.now);
        }
    }

    fn reset(&mut self, side: usize, number: usize) {
        let exchange = &mut self.exchanges[number];
        if let Some((end, stream)) = exchange.places[side] {
            let is_over = exchange
                .directions
                .iter()
                .all(|one| one.is_ended && one.has_end);
            exchange.is_broken |= !is_over;
            exchange.directions[side].is_ended = true;
            let _ = self.ends[end].reset(stream, ErrorCode::Cancel);
        }
    }

    /// An end leaves without a word, and another one takes its place.
    fn leave(&mut self, end: usize) {
        let (side, version) = (side_of(end), self.versions[end]);
        if side == BACKEND {
            self.takes_request[end - 2].set(false);
        }
        let mut routes = self.router();
        self.forwarder.remove(self.keys[end], &mut routes, self.now);
        self.keys[end] = match side {
            CLIENT => self
                .forwarder
                .accept(client(one_tenant()), 0, version, self.now),
            _ => self.forwarder.connect(times(), version, self.now),
        };
        if side == BACKEND {
            self.takes_request[end - 2].set(true);
        }
        self.ends[end] = Self::end(end, self.versions, self.now);
        self.wires[end] = Default::default();
        for exchange in &mut self.exchanges {
            let may_be_there = side == BACKEND && exchange.places[BACKEND].is_none();
            let is_there = exchange.places[side].is_some_and(|(at, _)| at == end);
            if is_there || may_be_there {
                exchange.is_broken = true;
                exchange.places[side] = None;
                exchange.directions[side].is_ended = true;
                exchange.directions[1 - side].held = 0;
            }
        }
    }

    /// Moves bytes between an end and the forwarder, in both directions.
    fn carry(&mut self, end: usize, bytes: usize) {
        let output = self.ends[end].take_output();
        self.wires[end][0].extend_from_slice(&output);
        while self.ends[end].send_queued().is_some() {}
        let mut routes = self.router();
        let mut output = Vec::new();
        self.forwarder
            .take_output(self.keys[end], &mut output, &mut routes, self.now);
        self.wires[end][1].extend_from_slice(&output);
        let moved = self.wires[end].each_mut().map(|wire| -> Vec<u8> {
            let bytes = bytes.min(wire.len());
            wire.drain(..bytes).collect()
        });
        let taken = self
            .forwarder
            .receive(self.keys[end], &moved[0], &mut routes, self.now);
        self.wires[end][0].splice(..0, moved[0][taken..].iter().copied());
        let heard = self.hear(end, &moved[1]);
        self.wires[end][1].splice(..0, moved[1][heard..].iter().copied());
        while self.ends[end].send_queued().is_some() {}
        self.end_or_go_on(end);
    }

    /// Of HTTP/1, a connection ends with an exchange that is broken off, and can take a request behind one that is over.
    fn end_or_go_on(&mut self, end: usize) {
        if self.versions[end] == HttpVersion::Http2 {
            return;
        }
        let connection = self.forwarder.connection(self.keys[end]).unwrap();
        let is_over = connection.is_closed() && connection.output().is_empty();
        let can_open = connection.can_open();
        if self.ends[end].is_closed() || (is_over && self.wires[end][1].is_empty()) {
            self.leave(end);
        } else if side_of(end) == BACKEND && can_open && !self.takes_request[end - 2].replace(true)
        {
            let mut routes = self.router();
            self.forwarder.place_waiting(0, &mut routes, self.now);
        }
    }

    /// Has an end read what came. Returns how much it has read.
    fn hear(&mut self, end: usize, came: &[u8]) -> usize {
        let mut bytes = came;
        let mut list = HeaderList::new(16 << 10);
        let side = side_of(end);
        while let Some(event) = self.ends[end].receive(&mut bytes, &mut list, self.now) {
            match event {
                Event::Request { stream, end_stream } => {
                    let number = self.accept(end, stream, &list);
                    self.exchanges[number].directions[CLIENT].has_end |= end_stream;
                }
                Event::Section { key, end_stream } => {
                    self.exchanges[key as usize].directions[1 - side].has_end |= end_stream;
                }
                Event::Data {
                    key,
                    data,
                    end_stream,
                } => {
                    let number = key as usize;
                    let direction = &mut self.exchanges[number].directions[1 - side];
                    assert!(data == content(number, 1 - side, direction.got, data.len()));
                    direction.got += data.len();
                    direction.held += data.len();
                    direction.has_end |= end_stream;
                }
                Event::Reset { key, .. } => {
                    let exchange = &mut self.exchanges[key as usize];
                    assert!(exchange.is_broken, "nobody has reset it");
                    exchange.directions[side].is_ended = true;
                }
                Event::Control => {}
                other => panic!("{other:?} between ends that keep the rules"),
            }
        }
        came.len() - bytes.len()
    }

    /// A backend takes a request. Returns the number of its exchange.
    fn accept(&mut self, end: usize, stream: StreamId, list: &HeaderList) -> usize {
        let values = |name: &[u8]| -> Vec<Vec<u8>> {
            let fields = list.iter().filter(|field| field.name == name);
            fields.map(|field| field.value.to_vec()).collect()
        };
        assert_eq!(values(b"x-scope-orgid"), [b"red"]);
        assert_eq!(values(b"x-scope-clientid"), [b"agent"]);
        assert!(values(b"x_scope_orgid").is_empty());
        let path = String::from_utf8(values(b":path")[0].clone()).unwrap();
        let number: usize = path.rsplit('/').next().unwrap().parse().unwrap();
        if std::mem::take(&mut self.refuses[end]) {
            assert_eq!(self.ends[end].reset(stream, ErrorCode::RefusedStream), 0);
            let exchange = &mut self.exchanges[number];
            exchange.is_refused = true;
            exchange.is_broken |= exchange.directions[CLIENT].sent > HELD_CONTENT_BYTES_MAX;
            // HTTP/1 cannot say that it has not processed a request.
            exchange.is_broken |= self.versions[end] == HttpVersion::Http1;
            return number;
        }
        self.ends[end].own(stream, number as u32);
        // Nothing was lost with a backend that left before.
        self.exchanges[number].places[BACKEND] = Some((end, stream));
        self.exchanges[number].is_refused = false;
        self.exchanges[number].directions[BACKEND].is_ended = false;
        let status = [Field::new(b":status", b"200")];
        self.ends[end].send_section(stream, status.into_iter(), false);
        number
    }

    /// What was sent has arrived, but for what was broken off. While requests wait for a backend of HTTP/1, they hold
    /// credit that others need.
    fn check_delivery(&self) {
        let is_waiting = self.forwarder.waiting(0) > 0;
        let intact = self.exchanges.iter().filter(|one| !one.is_broken);
        for direction in intact.flat_map(|one| &one.directions) {
            assert!(direction.got <= direction.sent);
            if !is_waiting {
                assert_eq!(direction.got, direction.sent);
                assert_eq!(direction.has_end, direction.is_ended);
            }
        }
    }

    /// Refuses what still waits: it can hold the very credit that a request needs whose end it waits for.
    fn lose_patience(&mut self) {
        if self.forwarder.waiting(0) > 0 {
            let waiting = self.exchanges.iter_mut();
            waiting
                .filter(|one| one.places[BACKEND].is_none())
                .for_each(|one| one.is_broken = true);
            self.is_patient = false;
            self.settle();
            self.is_patient = true;
        }
    }

    /// Ends everything. What waits for a backend of HTTP/1 gets it when another one ends.
    fn end_everything(&mut self) {
        for _ in 0..=self.exchanges.len() {
            for number in 0..self.exchanges.len() {
                for side in [CLIENT, BACKEND] {
                    self.send(side, number, 0, true);
                }
            }
            self.settle();
        }
    }

    /// Passes everything on until nothing moves any more.
    fn settle(&mut self) {
        self.waits = false;
        let mut router = self.router();
        self.forwarder.place_waiting(0, &mut router, self.now);
        for _ in 0..2_000 {
            let mut is_moving = false;
            for end in 0..ENDS {
                self.carry(end, usize::MAX);
                for number in 0..self.exchanges.len() {
                    is_moving |= self.exchanges[number].directions[1 - side_of(end)].held > 0;
                    self.release(side_of(end), number, usize::MAX);
                }
            }
            for end in 0..ENDS {
                is_moving |= !self.ends[end].output().is_empty();
                let connection = self.forwarder.connection(self.keys[end]).unwrap();
                is_moving |= !connection.output().is_empty();
            }
            if !is_moving {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn content_arrives_and_nothing_is_lost_or_forged(
        steps in vec(step(), 1..200),
        versions in prop::array::uniform4(prop::sample::select(&[HttpVersion::Http1, HttpVersion::Http2][..])),
    ) {
        let mut model = Model::new(versions);
        for step in steps {
            model.apply(step);
        }
        model.settle();
        model.check_delivery();
        // Everything ends, and nothing is forgotten.
        model.end_everything();
        model.lose_patience();
        // What the lack of patience has given credit to ends too.
        model.end_everything();
        prop_assert_eq!(model.forwarder.waiting(0), 0);
        model.check_delivery();
        prop_assert_eq!(model.forwarder.exchanges(), 0);
        for end in 0..ENDS {
            prop_assert_eq!(model.ends[end].open_streams(), 0);
            let connection = model.forwarder.connection(model.keys[end]).unwrap();
            prop_assert_eq!(connection.open_streams(), 0);
        }
        // Whatever credit was lost on the way would be missing now.
        model.refuses = [false; ENDS];
        for client in [0, 1, 0, 1] {
            let number = model.exchanges.len();
            model.open(client);
            model.settle();
            for side in [CLIENT, BACKEND] {
                for _ in 0..5 {
                    model.send(side, number, 30_000, false);
                }
                model.settle();
                prop_assert_eq!(model.exchanges[number].directions[side].got, 150_000);
            }
            for side in [CLIENT, BACKEND] {
                model.send(side, number, 0, true);
            }
            model.settle();
        }
    }
}
