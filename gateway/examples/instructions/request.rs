//! Sixteen requests of gRPC that come in one piece, each passed to a backend, and their responses, which come back in one.
//! In: how often. Out: nothing; every request has to be answered. What both peers send was written once, so that next to nothing
//! of it is counted: a client with a table, which spells out its path and its deadline each time, and a backend with a table.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::{
    BackendTimes, Call, Client, ConnectionKey, Ended, Forwarder, HttpVersion, LegEnd,
    MirroredRequest, PeerFault, Placement, Rewrite, Router,
};
use gateway_core::http::h2::{
    PREFACE, Setting, StreamId, write_data_header, write_field_block, write_settings,
    write_settings_ack, write_window_update,
};
use gateway_core::http::limits::{HEADER_LIST_BYTES_MAX, RETRY_WAIT};
use gateway_core::http::message::{AllowedTenants, HeaderList, ReservedNames, SCOPE_ORG_ID};
use gateway_core::http::policy::{Grant, RequestContext, Rights, RouteTable, Target, decide};
use gateway_core::identity::Tenant;

/// Requests that come in one piece.
const REQUESTS: u32 = 16;
/// Content of a request: one span.
const CONTENT: [u8; 526] = [7; 526];
/// Content of a response: an empty message.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];
const FRAME_BYTES_MAX: usize = 16_384;

/// Field blocks with Huffman codes, of the first exchange and of all others: a request, the header section of its response, trailers.
/// The request has `POST`, `https`, an authority, the path of OTLP's traces, `te`, a content type, `grpc-timeout`,
/// `grpc-accept-encoding` and a user agent; the response 200 and its content type, then `grpc-status: 0`. What does not change goes
/// into the tables.
const BLOCKS: [[&str; 3]; 2] = [
    [
        "8387418f98692f81fa5cbe474d7416e34c85df04aa60f596a49682d254d9e97aec3a4eb90f4505224f62e9b0642afdc2befb0642ee2d9dcc\
         42b183cd67b13f4082497f864d833505b11f5f8b1d75d0620d263d4c4d656400899acac8b24d494f6a7f8669f7df75e72d408e9acac8b0c8\
         42d6958b510f21aa9b863485a9264faf7a8a9acac8b4c7602bbc05c1",
        "885f8b1d75d0620d263d4c4d6564",
        "40889acac8b21234da8f0130",
    ],
    [
        "8387c204aa60f596a49682d254d9e97aec3a4eb90f4505224f62e9b0642afdc2befb0642ee2d9dcc42b183cd67b13fc1c000899acac8b24d\
         494f6a7f8669f7df6c22b7bfbe",
        "88bf",
        "be",
    ],
];

fn decoded(hexadecimal: &str) -> Vec<u8> {
    let (bytes, _) = hexadecimal.as_bytes().as_chunks::<2>();
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    let byte = |[high, low]: &[u8; 2]| 16 * value(*high) + value(*low);
    bytes.iter().map(byte).collect()
}

/// Passes `count` times sixteen requests to a backend, and the responses back.
pub fn pass_sixteen(count: usize) {
    let mut passing = Passing::begin();
    for turn in 0..count {
        passing.turn(turn == 0);
    }
    assert_eq!(passing.router.answered, REQUESTS as usize * count);
}

struct Passing {
    forwarder: Forwarder,
    client: ConnectionKey,
    router: OneBackend,
    now: Instant,
    /// The next streams of the client; those of the backend have the same numbers.
    next: u32,
    blocks: [[Vec<u8>; 3]; 2],
    /// What a peer sends.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Passing {
    fn begin() -> Self {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(HEADER_LIST_BYTES_MAX, RETRY_WAIT);
        let times = BackendTimes {
            queue: 0,
            response_timeout: None,
            idle_timeout: None,
            ping_interval: Duration::MAX,
        };
        let backend = forwarder.connect(times, HttpVersion::Http2, now);
        let client = forwarder.accept(Rc::new(client()), 0, HttpVersion::Http2, now);
        let mut passing = Passing {
            forwarder,
            client,
            router: OneBackend::new(backend),
            now,
            next: 1,
            blocks: BLOCKS.map(|blocks| blocks.map(decoded)),
            input: PREFACE.to_vec(),
            output: Vec::new(),
        };
        let streams = [Setting::MaxConcurrentStreams(1000)];
        write_settings(&mut passing.input, &streams);
        write_settings_ack(&mut passing.input);
        passing.give(client);
        write_settings(&mut passing.input, &streams);
        write_settings_ack(&mut passing.input);
        write_window_update(&mut passing.input, StreamId::CONNECTION, 1 << 30);
        passing.give(backend);
        passing
    }

    fn turn(&mut self, is_first: bool) {
        let first = self.next;
        self.next += 2 * REQUESTS;
        let streams = (0..REQUESTS).map(|number| StreamId::new(first + 2 * number));
        for (number, stream) in streams.clone().enumerate() {
            let is_first = is_first && number == 0;
            let [block, ..] = &self.blocks[usize::from(!is_first)];
            write_field_block(&mut self.input, stream, block, false, FRAME_BYTES_MAX);
            write_data_header(&mut self.input, stream, CONTENT.len(), true);
            self.input.extend_from_slice(&CONTENT);
        }
        self.give(self.client);
        for (number, stream) in streams.enumerate() {
            let is_first = is_first && number == 0;
            let [_, header, trailers] = &self.blocks[usize::from(!is_first)];
            write_field_block(&mut self.input, stream, header, false, FRAME_BYTES_MAX);
            write_data_header(&mut self.input, stream, EMPTY_MESSAGE.len(), false);
            self.input.extend_from_slice(&EMPTY_MESSAGE);
            write_field_block(&mut self.input, stream, trailers, true, FRAME_BYTES_MAX);
        }
        write_window_update(&mut self.input, StreamId::CONNECTION, 1 << 10);
        self.give(self.router.backend);
    }

    /// Has the forwarder read what a peer sends, and takes what it says to both.
    fn give(&mut self, from: ConnectionKey) {
        let (router, now) = (&mut self.router, self.now);
        let taken = self.forwarder.receive(from, &self.input, router, now);
        assert_eq!(taken, self.input.len());
        self.input.clear();
        while let Some(key) = self.forwarder.next_ready() {
            self.forwarder
                .take_output(key, &mut self.output, router, now);
        }
    }
}

fn client() -> Client {
    Client {
        reserved: Arc::new(ReservedNames::new([])),
        told: HeaderList::new(HEADER_LIST_BYTES_MAX),
        tenants: AllowedTenants::One(Tenant::parse("team-a").unwrap()),
        tenant_name: SCOPE_ORG_ID.into(),
        content_bytes_max: u64::MAX,
        header_list_bytes_max: HEADER_LIST_BYTES_MAX,
        streams_max: 1000,
        header_timeout: Duration::MAX,
        request_idle_timeout: Duration::MAX,
    }
}

/// Has every request decided on, and sends it to the one backend.
struct OneBackend {
    backend: ConnectionKey,
    routes: RouteTable,
    rights: Rights,
    answered: usize,
}

impl OneBackend {
    fn new(backend: ConnectionKey) -> Self {
        let service = "opentelemetry.proto.collector.trace.v1.TraceService";
        let grant = Grant {
            targets: vec![Target::service(service).unwrap()],
            ..Grant::default()
        };
        OneBackend {
            backend,
            routes: RouteTable::new(Vec::new(), Some(0)),
            rights: Rights::new(vec![grant]),
            answered: 0,
        }
    }
}

impl Router for OneBackend {
    fn choose(
        &mut self,
        call: &Call<'_>,
        rewrite: &mut Rewrite,
    ) -> Result<Placement, RequestRefusal> {
        let told = HeaderList::new(0);
        let context = RequestContext {
            request: call.request,
            list: call.list,
            told: &told,
            tenant: call.tenant,
            address: [192, 0, 2, 1].into(),
            draw: 0,
        };
        decide(&self.routes, &self.rights, &context, &mut rewrite.path)?;
        Ok(Placement::Connection(self.backend))
    }

    fn full(&mut self, _: ConnectionKey, _: &Call<'_>) -> Result<(), RequestRefusal> {
        Ok(())
    }

    fn left(&mut self, _: ConnectionKey, _: LegEnd) {}

    fn mirror(&mut self, _: MirroredRequest) {}

    fn ended(&mut self, ended: &Ended<'_>) {
        self.answered += usize::from(ended.is_complete && ended.grpc_status == Some(0));
    }

    fn failed(&mut self, _: ConnectionKey, fault: PeerFault) {
        panic!("{}", fault.label());
    }
}
