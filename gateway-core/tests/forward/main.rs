//! Clients and backends around a forwarder, with everything at random: who sends what, in which pieces bytes move, who
//! resets or leaves.
//!
//! What must hold: content arrives once, in order and at its own stream; no name of the gateway's passes from a client,
//! in whatever spelling, and what the gateway says stands there once; at the end nothing is in flight, and every
//! connection carries as much again: no credit was lost.

// Helpers of tests may do what tests may; time is invented from a start that is real.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod mirror;
mod model;
mod turn;
mod versions;
mod waiting;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_core::http::answer::RequestRefusal;
use gateway_core::http::forward::{
    BackendTimes, Call, Client, ConnectionKey, Ended, Forwarder, HttpVersion, LegEnd,
    MirroredRequest, PeerConnection, PeerFault, PeerLimits, Placement, Rewrite, Router,
};
use gateway_core::http::h2::{ErrorCode, Event, Role, StreamId};
use gateway_core::http::limits::{OUTPUT_BYTES_MAX, OUTPUT_CONTROL_BYTES_MAX};
use gateway_core::http::message::{AllowedTenants, Field, HeaderList, ReservedNames, SCOPE_ORG_ID};
use gateway_core::identity::Tenant;

/// A route to one backend, or to none.
struct To(Result<ConnectionKey, RequestRefusal>);

impl Router for To {
    fn choose(&mut self, call: &Call<'_>, _: &mut Rewrite) -> Result<Placement, RequestRefusal> {
        match call.attempts {
            0 => self.0.map(Placement::Connection),
            _ => Err(RequestRefusal::BackendBusy),
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

/// What a peer of a test may ask.
fn limits() -> PeerLimits {
    PeerLimits {
        header_list_bytes: 16 << 10,
        streams: 256,
    }
}

/// What the forwarder says on a connection.
fn said_on(
    forwarder: &mut Forwarder,
    key: ConnectionKey,
    router: &mut impl Router,
    now: Instant,
) -> Vec<u8> {
    let mut output = Vec::new();
    forwarder.take_output(key, &mut output, router, now);
    output
}

/// Has the forwarder take bytes that came on a connection, a turn at a time. Returns how many turns that took.
fn receive_all(
    (forwarder, key): (&mut Forwarder, ConnectionKey),
    bytes: &[u8],
    (router, now): (&mut impl Router, Instant),
) -> usize {
    let (mut rest, mut turns) = (bytes, 0);
    while !rest.is_empty() {
        let taken = forwarder.receive(key, rest, router, now);
        assert!(taken > 0, "nothing is taken any more");
        rest = &rest[taken..];
        turns += 1;
    }
    turns
}

/// A backend that may take its time.
fn times() -> BackendTimes {
    BackendTimes {
        queue: 0,
        response_timeout: None,
        idle_timeout: None,
        ping_interval: Duration::from_secs(60),
    }
}

fn client(tenants: AllowedTenants) -> Rc<Client> {
    let mut told = HeaderList::new(1000);
    told.push(Field::new(b"x-scope-clientid", b"agent"));
    Rc::new(Client {
        reserved: Arc::new(ReservedNames::new([])),
        told,
        tenants,
        tenant_name: SCOPE_ORG_ID.into(),
        content_bytes_max: u64::MAX,
        header_list_bytes_max: 16 << 10,
        streams_max: 256,
        header_timeout: Duration::from_secs(10),
        request_idle_timeout: Duration::from_secs(10),
    })
}

fn one_tenant() -> AllowedTenants {
    AllowedTenants::One(Tenant::parse("red").unwrap())
}

/// A client and a backend at the ends of one path.
struct Path {
    forwarder: Forwarder,
    keys: [ConnectionKey; 2],
    ends: [PeerConnection; 2],
    now: Instant,
}

type Fields = Vec<(String, String)>;

/// What an end has heard.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Section(Fields, bool),
    Data(Vec<u8>, bool),
    Reset(String),
    Goaway,
}

const CLIENT: usize = 0;
const BACKEND: usize = 1;

impl Path {
    fn new(tenants: AllowedTenants) -> Self {
        Path::of([HttpVersion::Http2; 2], tenants)
    }

    /// One between a client and a backend of these versions.
    fn of(versions: [HttpVersion; 2], tenants: AllowedTenants) -> Self {
        let now = Instant::now();
        let mut forwarder = Forwarder::new(16 << 10, Duration::from_secs(1));
        let keys = [
            forwarder.accept(client(tenants), 0, versions[CLIENT], now),
            forwarder.connect(times(), versions[BACKEND], now),
        ];
        let ends = [Role::Client, Role::Server].map(|role| {
            PeerConnection::new(
                versions[usize::from(role == Role::Server)],
                role,
                limits(),
                now,
            )
        });
        let mut path = Path {
            forwarder,
            keys,
            ends,
            now,
        };
        assert_eq!(path.carry(), [vec![], vec![]]);
        path
    }

    /// Moves all bytes, until there are no more.
    fn carry(&mut self) -> [Vec<Heard>; 2] {
        let mut heard = [vec![], vec![]];
        for _ in 0..20 {
            for side in [CLIENT, BACKEND] {
                let bytes = self.ends[side].take_output();
                let mut route = To(Ok(self.keys[BACKEND]));
                receive_all(
                    (&mut self.forwarder, self.keys[side]),
                    &bytes,
                    (&mut route, self.now),
                );
            }
            while let Some(key) = self.forwarder.next_ready() {
                let side = usize::from(key == self.keys[BACKEND]);
                let mut route = To(Ok(self.keys[BACKEND]));
                let mut bytes = Vec::new();
                self.forwarder
                    .take_output(key, &mut bytes, &mut route, self.now);
                heard[side].extend(hear(&mut self.ends[side], &bytes, self.now));
            }
        }
        heard
    }

    /// Sends a request from the client.
    fn request(&mut self, fields: &[(&str, &str)], end_stream: bool) -> StreamId {
        let stream = self.ends[CLIENT].open(0, self.now).unwrap();
        self.send(CLIENT, stream, fields, end_stream);
        stream
    }

    fn send(&mut self, side: usize, stream: StreamId, fields: &[(&str, &str)], end_stream: bool) {
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
        self.ends[side].send_section(stream, fields, end_stream);
    }
}

fn hear(end: &mut PeerConnection, mut bytes: &[u8], now: Instant) -> Vec<Heard> {
    let mut list = HeaderList::new(16 << 10);
    let mut heard = Vec::new();
    while let Some(event) = end.receive(&mut bytes, &mut list, now) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let fields = |list: &HeaderList| {
            list.iter()
                .map(|field| (text(field.name), text(field.value)))
                .collect()
        };
        heard.push(match event {
            Event::Request { end_stream, .. } | Event::Section { end_stream, .. } => {
                Heard::Section(fields(&list), end_stream)
            }
            Event::Data {
                data, end_stream, ..
            } => Heard::Data(data.to_vec(), end_stream),
            Event::Reset { code, .. } => Heard::Reset(code.label().to_owned()),
            Event::Control => continue,
            Event::Goaway { .. } => Heard::Goaway,
            other => panic!("{other:?}"),
        });
    }
    heard
}

const GRPC: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/a.B/C"),
    (":authority", "collector.example"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

const ONE: StreamId = StreamId::new(1);

fn owned(fields: &[(&str, &str)]) -> Fields {
    let fields = fields.iter();
    fields
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_request_arrives_with_what_the_gateway_says_and_nothing_forged() {
    let mut path = Path::new(one_tenant());
    let forged = [
        ("x-scope-orgid", "blue"),
        ("x_scope_orgid", "blue"),
        ("x-scope_orgid", "blue"),
        ("x-scope-clientid", "root"),
        ("x-forwarded-client-cert", "Hash=0"),
        ("x_forwarded_for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("host", "collector.example"),
        ("mine", "1"),
    ];
    path.request(&[&GRPC[..], &forged].concat(), false);
    path.send(
        CLIENT,
        ONE,
        &[
            ("x-scope-orgid", "blue"),
            ("content-length", "7"),
            ("mine", "2"),
        ],
        true,
    );
    let [_, at_backend] = path.carry();
    let mut expected = owned(&GRPC);
    expected.extend(owned(&[
        ("mine", "1"),
        ("x-scope-clientid", "agent"),
        ("x-scope-orgid", "red"),
    ]));
    let trailers = owned(&[("mine", "2")]);
    assert_eq!(
        at_backend,
        [
            Heard::Section(expected, false),
            Heard::Section(trailers, true)
        ]
    );
}

#[test]
fn host_becomes_the_authority_in_front_of_regular_fields() {
    let mut path = Path::new(AllowedTenants::None);
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        ("a", "b"),
        ("host", "c"),
    ];
    path.request(&fields, true);
    let [_, at_backend] = path.carry();
    let expected = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "c"),
        ("a", "b"),
        ("x-scope-clientid", "agent"),
    ];
    assert_eq!(at_backend, [Heard::Section(owned(&expected), true)]);
}

#[test]
fn a_response_passes_with_interim_ones_and_trailers() {
    let mut path = Path::new(AllowedTenants::None);
    path.request(&GRPC, true);
    path.carry();
    let (early, head, end) = (
        [(":status", "103"), ("link", "x")],
        [(":status", "200"), ("content-length", "3")],
        [("grpc-status", "0")],
    );
    path.send(BACKEND, ONE, &early, false);
    path.send(BACKEND, ONE, &head, false);
    assert_eq!(path.ends[BACKEND].send_data(ONE, b"abc", false), 3);
    path.send(BACKEND, ONE, &end, true);
    let [at_client, _] = path.carry();
    let expected = [
        Heard::Section(owned(&early), false),
        Heard::Section(owned(&head), false),
        Heard::Data(b"abc".to_vec(), false),
        Heard::Section(owned(&end), true),
    ];
    assert_eq!(at_client, expected);
    assert_eq!(path.forwarder.exchanges(), 0);
}

#[test]
fn a_backend_that_breaks_off_becomes_a_status_and_never_a_bare_reset() {
    use gateway_core::http::h2::ErrorCode::{Cancel, RefusedStream};
    for (code, begins) in [(Cancel, false), (Cancel, true), (RefusedStream, false)] {
        let mut path = Path::new(AllowedTenants::None);
        path.request(&GRPC, false);
        path.carry();
        if begins {
            path.send(BACKEND, ONE, &[(":status", "200")], false);
        }
        assert_eq!(path.ends[BACKEND].reset(ONE, code), 0);
        let [mut at_client, _] = path.carry();
        let Some(Heard::Section(fields, true)) = at_client.pop() else {
            panic!("{at_client:?}");
        };
        assert_eq!(at_client.len(), usize::from(begins));
        assert!(fields.contains(&("grpc-status".to_owned(), "14".to_owned())));
        assert_eq!(
            fields.contains(&(":status".to_owned(), "200".to_owned())),
            !begins
        );
        // The rest of the request is taken and dropped.
        assert_eq!(path.forwarder.exchanges(), 1);
        assert_eq!(path.ends[CLIENT].send_data(ONE, &[0; 100], true), 100);
        assert_eq!(path.carry(), [vec![], vec![]]);
        assert_eq!(path.forwarder.exchanges(), 0);
    }
}

#[test]
fn malformed_messages_do_not_pass() {
    let mut path = Path::new(AllowedTenants::None);
    for fields in [
        [&GRPC[..], &[("connection", "close")]].concat(),
        [&GRPC[..], &[("Upper", "case")]].concat(),
        [&GRPC[..], &[("content-length", "5")]].concat(),
    ] {
        path.request(&fields, true);
        let reset = Heard::Reset("protocol_error".to_owned());
        assert_eq!(path.carry(), [vec![reset], vec![]], "{fields:?}");
    }
    // More content than was announced, less than was announced.
    for content in [&b"abcdef"[..], b"abcd"] {
        let stream = path.request(&[&GRPC[..], &[("content-length", "5")]].concat(), false);
        path.carry();
        assert_eq!(
            path.ends[CLIENT].send_data(stream, content, true),
            content.len()
        );
        let [client, backend] = path.carry();
        assert_eq!(client, [Heard::Reset("protocol_error".to_owned())]);
        assert_eq!(backend, [Heard::Reset("cancel".to_owned())]);
    }
    assert_eq!(path.forwarder.exchanges(), 0);
}

#[test]
fn a_malformed_response_becomes_a_status() {
    for response in [
        &[(":status", "200"), ("transfer-encoding", "chunked")][..],
        &[(":status", "101")],
        &[("no", "status")],
    ] {
        let mut path = Path::new(AllowedTenants::None);
        path.request(&GRPC, true);
        path.carry();
        path.send(BACKEND, ONE, response, false);
        let [client, backend] = path.carry();
        assert_eq!(backend, [Heard::Reset("protocol_error".to_owned())]);
        assert!(
            matches!(&client[..], [Heard::Section(_, true)]),
            "{client:?}"
        );
        assert_eq!(path.forwarder.exchanges(), 0);
    }
}

#[test]
fn a_client_that_leaves_takes_its_requests_along() {
    let mut path = Path::new(AllowedTenants::None);
    for _ in 0..3 {
        path.request(&GRPC, false);
    }
    path.carry();
    let mut route = To(Ok(path.keys[BACKEND]));
    path.forwarder
        .remove(path.keys[CLIENT], &mut route, path.now);
    let [_, backend] = path.carry();
    assert_eq!(backend, vec![Heard::Reset("cancel".to_owned()); 3]);
    assert_eq!(path.forwarder.exchanges(), 0);
}

#[test]
fn what_a_client_takes_back_or_breaks_with_the_same_input_reaches_no_backend() {
    let mut path = Path::new(AllowedTenants::None);
    let one_byte = [&GRPC[..], &[("content-length", "1")]].concat();
    for _ in 0..5 {
        let taken_back = path.request(&GRPC, false);
        let _ = path.ends[CLIENT].reset(taken_back, ErrorCode::Cancel);
        let broken = path.request(&one_byte, false);
        assert_eq!(path.ends[CLIENT].send_data(broken, b"22", true), 2);
    }
    let stays = path.request(&one_byte, false);
    assert_eq!(path.ends[CLIENT].send_data(stays, b"1", true), 1);
    let [client, backend] = path.carry();
    assert_eq!(client, vec![Heard::Reset("protocol_error".to_owned()); 5]);
    assert!(
        matches!(&backend[..], [Heard::Section(_, false), Heard::Data(content, true)] if content == b"1"),
        "{backend:?}"
    );
    assert_eq!(path.forwarder.exchanges(), 1);
}

#[test]
fn a_tenant_that_the_certificate_does_not_allow_is_refused() {
    let tenants = [
        Tenant::parse("red").unwrap(),
        Tenant::parse("blue").unwrap(),
    ];
    let mut path = Path::new(AllowedTenants::Among {
        tenants: tenants.into(),
        default: None,
    });
    path.request(&[&GRPC[..], &[("x-scope-orgid", "green")]].concat(), true);
    let [client, backend] = path.carry();
    assert!(
        matches!(&client[..], [Heard::Section(fields, true)] if fields.contains(&("grpc-status".to_owned(), "7".to_owned())))
    );
    assert_eq!(backend, []);
    path.request(
        &[&GRPC[..], &[("x-scope-orgid", "red|blue")]].concat(),
        true,
    );
    let [_, backend] = path.carry();
    assert!(
        matches!(&backend[..], [Heard::Section(fields, true)] if fields.contains(&("x-scope-orgid".to_owned(), "red|blue".to_owned())))
    );
}

#[test]
fn a_client_that_reads_nothing_is_read_no_more() {
    let mut path = Path::new(AllowedTenants::None);
    let mut refusing = To(Err(RequestRefusal::NotAllowed));
    let (client, now) = (path.keys[CLIENT], path.now);
    let bound = OUTPUT_BYTES_MAX + OUTPUT_CONTROL_BYTES_MAX;
    let mut pieces = 0;
    while path.forwarder.connection(client).unwrap().wants_input() {
        // Less than a turn.
        let mut piece = Vec::new();
        for _ in 0..10 {
            let stream = path.ends[CLIENT].open(0, now).unwrap();
            path.send(CLIENT, stream, &GRPC, true);
            piece.extend(path.ends[CLIENT].take_output());
            let _ = path.ends[CLIENT].reset(stream, ErrorCode::Cancel);
            let _ = path.ends[CLIENT].take_output();
        }
        let taken = path.forwarder.receive(client, &piece, &mut refusing, now);
        assert_eq!(taken, piece.len());
        pieces += 1;
        assert!(pieces < 200, "it is read for ever");
    }
    let said = |path: &mut Path| path.forwarder.connection(client).unwrap().output().len();
    assert!((OUTPUT_BYTES_MAX..bound).contains(&said(&mut path)));
    // What it was told has left: it is read again.
    let told = said_on(&mut path.forwarder, client, &mut refusing, now);
    assert!(told.len() < bound);
    assert!(path.forwarder.connection(client).unwrap().wants_input());
}

#[test]
fn a_response_to_head_has_no_content_whoever_answers() {
    let mut head = GRPC.to_vec();
    (head[0].1, head[4].1) = ("HEAD", "text/plain");
    let mut path = Path::new(AllowedTenants::None);
    let stream = path.request(&head, true);
    path.carry();
    path.send(
        BACKEND,
        stream,
        &[(":status", "200"), ("content-length", "5")],
        false,
    );
    let _ = path.ends[BACKEND].send_data(stream, b"12345", true);
    let [at_client, _] = path.carry();
    assert!(
        at_client
            .iter()
            .all(|heard| !matches!(heard, Heard::Data(data, _) if !data.is_empty())),
        "{at_client:?}"
    );
    // Refused before a backend has it.
    let among = AllowedTenants::Among {
        tenants: [Tenant::parse("red").unwrap()].into(),
        default: None,
    };
    let mut path = Path::new(among);
    path.request(&head, true);
    let [at_client, _] = path.carry();
    assert!(
        matches!(&at_client[..], [Heard::Section(_, true)]),
        "{at_client:?}"
    );
}

#[test]
fn interim_responses_that_a_client_does_not_read_are_dropped_and_do_not_count_as_a_response() {
    let mut path = Path::new(AllowedTenants::None);
    path.request(&GRPC, true);
    path.carry();
    let early = [(":status", "103"), ("link", &"x".repeat(1_000))];
    for _ in 0..200 {
        path.send(BACKEND, ONE, &early, false);
        let bytes = path.ends[BACKEND].take_output();
        let (backend, now) = (path.keys[BACKEND], path.now);
        let mut route = To(Ok(backend));
        let taken = path.forwarder.receive(backend, &bytes, &mut route, now);
        assert_eq!(taken, bytes.len());
    }
    let client = path.forwarder.connection(path.keys[CLIENT]).unwrap();
    assert!(client.output().len() < OUTPUT_BYTES_MAX + 2_000);
    path.send(BACKEND, ONE, &[(":status", "200")], true);
    let [at_client, _] = path.carry();
    let last = at_client.last().unwrap();
    assert_eq!(last, &Heard::Section(owned(&[(":status", "200")]), true));
}

#[test]
fn clients_that_read_nothing_take_neither_credit_nor_places_from_others() {
    let mut path = Path::new(AllowedTenants::None);
    // Ends that give no credit back: each of these streams keeps a whole window of the backend's connection.
    let stalled: Vec<StreamId> = (0..3).map(|_| path.request(&GRPC, true)).collect();
    path.carry();
    for stream in &stalled {
        path.send(BACKEND, *stream, &[(":status", "200")], false);
        let _ = path.ends[BACKEND].send_data(*stream, &[0; 70_000], true);
        // Beyond what the client's stream takes, as far as the backend's does.
        for _ in 0..3 {
            path.carry();
            while path.ends[BACKEND].send_queued().is_some() {}
        }
    }
    // Another client of the same backend.
    let other = path.forwarder.accept(
        client(AllowedTenants::None),
        0,
        HttpVersion::Http2,
        path.now,
    );
    let mut end = PeerConnection::new(HttpVersion::Http2, Role::Client, limits(), path.now);
    let stream = end.open(0, path.now).unwrap();
    let fields = GRPC.map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
    end.send_section(stream, fields.into_iter(), true);
    let mut route = To(Ok(path.keys[BACKEND]));
    let bytes = end.take_output();
    let taken = path.forwarder.receive(other, &bytes, &mut route, path.now);
    assert_eq!(taken, bytes.len());
    let said = said_on(&mut path.forwarder, other, &mut route, path.now);
    hear(&mut end, &said, path.now);
    let said = said_on(
        &mut path.forwarder,
        path.keys[BACKEND],
        &mut route,
        path.now,
    );
    hear(&mut path.ends[BACKEND], &said, path.now);
    let at_backend = StreamId::new(2 * stalled.len() as u32 + 1);
    path.send(BACKEND, at_backend, &[(":status", "200")], false);
    assert_eq!(
        path.ends[BACKEND].send_data(at_backend, &[1; 10_000], true),
        10_000
    );
    let mut heard = Vec::new();
    for _ in 0..5 {
        let bytes = path.ends[BACKEND].take_output();
        let backend = path.keys[BACKEND];
        let taken = path
            .forwarder
            .receive(backend, &bytes, &mut route, path.now);
        assert_eq!(taken, bytes.len());
        let said = said_on(&mut path.forwarder, other, &mut route, path.now);
        heard.extend(hear(&mut end, &said, path.now));
    }
    let content = |heard: &Heard| match heard {
        Heard::Data(data, _) => data.len(),
        _ => 0,
    };
    assert_eq!(
        heard.iter().map(content).sum::<usize>(),
        10_000,
        "{heard:?}"
    );
    // What is not read is given up after a while, and its place with it.
    assert!(path.forwarder.exchanges() > 0);
    let later = path.now + Duration::from_secs(11);
    path.forwarder.check_time(&mut route, later);
    assert_eq!(path.forwarder.exchanges(), 0);
}
