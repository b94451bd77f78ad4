//! Two ends of ours against each other, with everything in between at random: pieces, partial writes, credit that comes
//! late, resets, wider windows.
//!
//! What must hold: each byte arrives once and in order; no window is exceeded, or the other end would say so; at the
//! end all that was not reset has arrived, and neither connection has lost credit: as much again passes as before.

use std::time::Instant;

use gateway_core::http::h2::{Connection, ErrorCode, Event, Role, StreamId, WindowBudget};
use gateway_core::http::limits::BACKEND_WINDOW_BYTES;
use gateway_core::http::message::HeaderList;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{REQUEST, fields};

const CLIENT: usize = 0;
const SERVER: usize = 1;

#[derive(Debug, Clone)]
enum Step {
    Open,
    Send {
        side: usize,
        stream: prop::sample::Index,
        bytes: usize,
        ends: bool,
    },
    Move {
        side: usize,
        bytes: usize,
    },
    Release {
        side: usize,
        stream: prop::sample::Index,
        bytes: usize,
    },
    Reset {
        side: usize,
        stream: prop::sample::Index,
    },
    Grow {
        side: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let side = || CLIENT..=SERVER;
    let stream = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Step::Open),
        6 => (side(), stream(), 0_usize..40_000, prop::bool::weighted(0.2))
            .prop_map(|(side, stream, bytes, ends)| Step::Send { side, stream, bytes, ends }),
        8 => (side(), prop_oneof![0_usize..40, 0_usize..50_000])
            .prop_map(|(side, bytes)| Step::Move { side, bytes }),
        4 => (side(), stream(), 0_usize..60_000)
            .prop_map(|(side, stream, bytes)| Step::Release { side, stream, bytes }),
        1 => (side(), stream()).prop_map(|(side, stream)| Step::Reset { side, stream }),
        1 => side().prop_map(|side| Step::Grow { side }),
    ]
}

/// One direction of a stream.
#[derive(Debug, Clone, Default)]
struct Direction {
    /// What its sender has handed over.
    sent: usize,
    /// What its receiver has got.
    got: usize,
    /// What its receiver has not passed on.
    held: usize,
    /// What waits with its sender, as that end says.
    waiting: usize,
    is_ended: bool,
    has_end: bool,
}

#[derive(Debug, Default, Clone)]
struct Stream {
    /// By the side that sends.
    directions: [Direction; 2],
    /// By side: whether it does not know the stream any more.
    is_reset: [bool; 2],
    is_accepted: bool,
}

struct Model {
    ends: [Connection; 2],
    /// What each side has written and the other not read.
    wires: [Vec<u8>; 2],
    streams: Vec<Stream>,
    budget: WindowBudget,
    list: HeaderList,
    now: Instant,
}

fn id(key: usize) -> StreamId {
    StreamId::new(2 * key as u32 + 1)
}

/// Content of a stream from a position on. It differs by stream, side and position.
fn content(key: usize, side: usize, position: usize, bytes: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..251)
        .map(|step| (step + 7 * key + 3 * side) as u8)
        .collect();
    let mut content = period.repeat(bytes / 251 + 2);
    content.drain(..position % 251);
    content.truncate(bytes);
    content
}

impl Model {
    fn new() -> Self {
        let now = Instant::now();
        let ends = [Role::Client, Role::Server].map(|role| Connection::new(role, 1 << 14, now));
        Model {
            ends,
            wires: Default::default(),
            streams: Vec::new(),
            budget: WindowBudget::new(300_000),
            list: HeaderList::new(1 << 14),
            now,
        }
    }

    fn apply(&mut self, step: Step) {
        let count = self.streams.len();
        match step {
            Step::Open => self.open(),
            Step::Move { side, bytes } => self.carry(side, bytes),
            Step::Grow { side } => self.ends[side].grow(&mut self.budget),
            _ if count == 0 => {}
            Step::Send {
                side,
                stream,
                bytes,
                ends,
            } => {
                self.send(side, stream.index(count), bytes, ends);
            }
            Step::Release {
                side,
                stream,
                bytes,
            } => self.release(side, stream.index(count), bytes),
            Step::Reset { side, stream } => self.reset(side, stream.index(count)),
        }
    }

    fn open(&mut self) {
        let key = self.streams.len();
        let Some(stream) = self.ends[CLIENT].open(key as u32, self.now) else {
            return;
        };
        assert_eq!(stream, id(key));
        self.ends[CLIENT].send_section(stream, fields(&REQUEST), false);
        self.streams.push(Stream::default());
    }

    fn send(&mut self, side: usize, key: usize, bytes: usize, ends: bool) {
        let stream = &mut self.streams[key];
        let may_send = side == CLIENT || stream.is_accepted;
        if !may_send || stream.is_reset[side] || stream.directions[side].is_ended {
            return;
        }
        let direction = &mut stream.directions[side];
        let content = content(key, side, direction.sent, bytes);
        direction.sent += bytes;
        direction.is_ended = ends;
        direction.waiting += bytes;
        direction.waiting -= self.ends[side].send_data(id(key), &content, ends);
    }

    /// Moves bytes that one side has written, and what waits for room behind them.
    fn carry(&mut self, side: usize, bytes: usize) {
        let output = self.ends[side].take_output();
        self.wires[side].extend_from_slice(&output);
        self.send_queued(side);
        let bytes = bytes.min(self.wires[side].len());
        let moved: Vec<u8> = self.wires[side].drain(..bytes).collect();
        self.hear(1 - side, &moved);
        self.send_queued(1 - side);
    }

    fn send_queued(&mut self, side: usize) {
        while let Some(left) = self.ends[side].send_queued() {
            self.streams[left.key as usize].directions[side].waiting -= left.bytes;
        }
    }

    fn hear(&mut self, side: usize, mut bytes: &[u8]) {
        while let Some(event) = self.ends[side].receive(&mut bytes, &mut self.list, self.now) {
            match event {
                Event::Request { stream, .. } => {
                    let key = stream.number() / 2;
                    self.ends[side].own(stream, key);
                    self.ends[side].send_section(stream, fields(&[(":status", "200")]), false);
                    self.streams[key as usize].is_accepted = true;
                }
                Event::Section { .. } | Event::Control => {}
                Event::Data {
                    key,
                    data,
                    end_stream,
                } => {
                    self.got(side, key as usize, data, end_stream);
                }
                Event::Reset { key, unsent, .. } => {
                    let stream = &mut self.streams[key as usize];
                    assert_eq!(unsent, stream.directions[side].waiting);
                    stream.is_reset[side] = true;
                    stream.directions[side].waiting = 0;
                }
                other => panic!("{other:?} between two ends that keep the rules"),
            }
        }
    }

    fn got(&mut self, side: usize, key: usize, data: &[u8], end_stream: bool) {
        let direction = &mut self.streams[key].directions[1 - side];
        assert!(!direction.has_end);
        let content = content(key, 1 - side, direction.got, data.len());
        assert!(data == content, "stream {key} from {}", 1 - side);
        direction.got += data.len();
        direction.held += data.len();
        direction.has_end = end_stream;
        assert!(direction.got <= direction.sent);
        let held: usize = self
            .streams
            .iter()
            .map(|stream| stream.directions[1 - side].held)
            .sum();
        let end = &self.ends[side];
        let window = match end.role() {
            Role::Server => 65_535,
            Role::Client => BACKEND_WINDOW_BYTES as usize,
        };
        assert!(
            held <= window + end.growth(),
            "{held} are more than was promised"
        );
    }

    fn release(&mut self, side: usize, key: usize, bytes: usize) {
        let direction = &mut self.streams[key].directions[1 - side];
        let bytes = bytes.min(direction.held);
        direction.held -= bytes;
        self.ends[side].release(id(key), bytes, self.now);
    }

    fn reset(&mut self, side: usize, key: usize) {
        let stream = &mut self.streams[key];
        let knows = side == CLIENT || stream.is_accepted;
        let is_over = stream.directions[side].is_ended && stream.directions[1 - side].has_end;
        if knows && !stream.is_reset[side] && !is_over {
            let unsent = self.ends[side].reset(id(key), ErrorCode::Cancel);
            assert_eq!(unsent, stream.directions[side].waiting);
            stream.is_reset[side] = true;
            stream.directions[side].waiting = 0;
        }
    }

    /// Passes everything on until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for side in [CLIENT, SERVER] {
                self.carry(side, usize::MAX);
                for key in 0..self.streams.len() {
                    self.release(side, key, usize::MAX);
                }
            }
            let holds = |stream: &Stream| stream.directions.iter().any(|one| one.held > 0);
            let is_moving =
                |side: usize| !self.wires[side].is_empty() || !self.ends[side].output().is_empty();
            if !is_moving(CLIENT) && !is_moving(SERVER) && !self.streams.iter().any(holds) {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn everything_arrives_and_credit_is_conserved(steps in vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
        }
        model.settle();
        for stream in &model.streams {
            for (side, direction) in stream.directions.iter().enumerate() {
                if stream.is_reset == [false, false] {
                    prop_assert_eq!(direction.got, direction.sent, "from {}", side);
                    prop_assert_eq!(direction.has_end, direction.is_ended);
                }
                prop_assert!(stream.is_reset[side] || direction.waiting == 0);
            }
        }
        // A stream that both have ended is known to neither, and no other is forgotten.
        let open = model.streams.iter().filter(|stream| {
            let is_over = stream.directions.iter().all(|direction| direction.is_ended);
            !is_over && stream.is_reset == [false, false]
        });
        let open = open.count();
        prop_assert_eq!(model.ends[CLIENT].open_streams(), open);
        prop_assert_eq!(model.ends[SERVER].open_streams(), open);
        // Whatever was lost on the way would be missing now.
        let key = model.streams.len();
        model.open();
        prop_assume!(model.streams.len() > key);
        model.settle();
        for side in [CLIENT, SERVER] {
            for _ in 0..10 {
                model.send(side, key, 30_000, false);
            }
            model.settle();
            prop_assert_eq!(model.streams[key].directions[side].got, 300_000);
        }
    }
}
