//! What clients are told when their backend fails: the status of their own protocol, which they retry on.
//! In: backends that are down, refuse, reset, die. Out: statuses over HTTP/2 and HTTP/1.1, and never a success.

use std::process::Command;

use tests::{
    Answer, Arrived, Gateway, Http1Client, Http2Client, HttpBackend, Process, Reply, Speaks,
    Workspace, code, eventually, program,
};

const UNAVAILABLE: Option<u32> = Some(14);

type Fields<'a> = [(&'a [u8], &'a [u8]); 6];

const GRPC: Fields<'static> = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (
        b":path",
        b"/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ),
    (b":authority", b"gateway.test"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
];

/// OTLP and remote write over HTTP: path, further fields, the type of a refusal.
const OTHERS: [(&str, &str, &str); 3] = [
    (
        "/v1/traces",
        "Content-Type: application/x-protobuf\r\n",
        "application/x-protobuf",
    ),
    (
        "/v1/traces",
        "Content-Type: application/json\r\n",
        "application/json",
    ),
    (
        "/api/v1/push",
        "Content-Type: application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n",
        "text/plain",
    ),
];

/// A message of gRPC's with five bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

fn backend(
    workspace: &Workspace,
    speaks: Speaks,
    script: impl Fn(&Arrived) -> Reply + Send + Sync + 'static,
) -> (HttpBackend, Gateway) {
    let backend = HttpBackend::over_mtls(workspace, 14317, speaks, script);
    let keys = workspace.backend_keys();
    let setup = workspace.setup().http();
    let gateway = setup.route("edge", "", &[backend.address()], &keys).start();
    (backend, gateway)
}

fn grpc(workspace: &Workspace, gateway: &Gateway) -> Answer {
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = client.request(&GRPC, MESSAGE);
    let answer = client.answer(stream);
    assert_eq!(client.goaway(), None, "the connection goes on");
    answer
}

/// A refusal as gRPC's clients read it: a response that is complete, whose status stands in trailers.
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status(), Some(200), "{answer:?}");
    assert_eq!(answer.grpc_status(), UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.value("content-type"), Some("application/grpc"));
    assert!(answer.is_complete && answer.reset.is_none(), "{answer:?}");
}

/// Refusals as exporters over HTTP/1.1 read them.
fn assert_all_unavailable(workspace: &Workspace, gateway: &Gateway, statuses: &[u16]) {
    for (path, fields, media_type) in OTHERS {
        let mut client = Http1Client::connect(&workspace.client(), gateway.address());
        let answer = client.post(path, fields, b"content");
        assert!(statuses.contains(&answer.status), "{path}: {answer:?}");
        assert!(answer.is_complete, "{path}: {answer:?}");
        assert!(
            answer
                .value("content-type")
                .is_some_and(|value| value.starts_with(media_type)),
            "{path}: {answer:?}"
        );
        // Exporters wait for so long; none means their own pause.
        if answer.status == 503 && path != "/api/v1/push" {
            assert!(answer.value("retry-after").is_some(), "{path}: {answer:?}");
        }
    }
}

#[test]
fn a_backend_that_is_down_is_unavailable_in_every_protocol() {
    let workspace = Workspace::new();
    let setup = workspace.setup().http();
    let gateway = setup
        .route("edge", "", &[workspace.host.free()], "protocol = \"h2\"")
        .start();
    assert_unavailable(&grpc(&workspace, &gateway));
    assert_all_unavailable(&workspace, &gateway, &[503]);
}

#[test]
fn a_backend_that_refuses_every_stream_is_unavailable() {
    let workspace = Workspace::new();
    let (backend, gateway) = backend(&workspace, Speaks::Http2, |_| {
        Reply::status(200)
            .without_head()
            .reset(code::REFUSED_STREAM)
    });
    assert_unavailable(&grpc(&workspace, &gateway));
    let tries = backend.requests().len();
    assert!((1..=10).contains(&tries), "{tries}");
    assert_all_unavailable(&workspace, &gateway, &[503]);
}

#[test]
fn a_backend_that_resets_a_request_is_asked_only_once() {
    let workspace = Workspace::new();
    let (backend, gateway) = backend(&workspace, Speaks::Http2, |_| {
        Reply::status(200)
            .without_head()
            .reset(code::INTERNAL_ERROR)
    });
    assert_unavailable(&grpc(&workspace, &gateway));
    assert_eq!(backend.requests().len(), 1, "it may have been processed");
    assert_all_unavailable(&workspace, &gateway, &[502, 503]);
}

#[test]
fn a_backend_that_dies_before_it_answers_is_unavailable() {
    for speaks in [Speaks::Http2, Speaks::Http1] {
        let workspace = Workspace::new();
        let (_backend, gateway) = backend(&workspace, speaks, |_| {
            Reply::status(200).without_head().death()
        });
        if speaks == Speaks::Http2 {
            assert_unavailable(&grpc(&workspace, &gateway));
        }
        assert_all_unavailable(&workspace, &gateway, &[502, 503]);
    }
}

#[test]
fn a_response_that_breaks_off_is_told_by_trailers_in_grpc() {
    for reply in [
        Reply::status(200).reset(code::INTERNAL_ERROR),
        Reply::status(200).death(),
        Reply::status(200).reset(code::REFUSED_STREAM),
    ] {
        let workspace = Workspace::new();
        let reply = reply
            .field("content-type", "application/grpc")
            .content(MESSAGE);
        let (_backend, gateway) = backend(&workspace, Speaks::Http2, move |_| reply.clone());
        let answer = grpc(&workspace, &gateway);
        assert_unavailable(&answer);
        assert_eq!(answer.content, MESSAGE);
        assert_eq!(answer.sections.len(), 2, "{answer:?}");
    }
}

#[test]
fn a_response_that_breaks_off_never_looks_complete() {
    for speaks in [Speaks::Http2, Speaks::Http1] {
        for has_length in [true, false] {
            let workspace = Workspace::new();
            let (_backend, gateway) = backend(&workspace, speaks, move |_| {
                let reply = Reply::status(200).content(b"half").death();
                match has_length {
                    true => reply.field("content-length", "8"),
                    false => reply,
                }
            });
            let claim = format!("{speaks:?}, length {has_length}");
            let mut client = Http1Client::connect(&workspace.client(), gateway.address());
            let answer = client.post("/v1/traces", OTHERS[0].1, b"content");
            assert_eq!(answer.status, 200, "{claim}: {answer:?}");
            assert_eq!(answer.content, b"half", "{claim}");
            assert!(!answer.is_complete, "{claim}: {answer:?}");
            let mut client = Http2Client::connect(&workspace.client(), gateway.address());
            let mut fields = GRPC;
            fields[4].1 = b"application/x-protobuf";
            let stream = client.request(&fields, b"content");
            let answer = client.answer(stream);
            assert!(answer.reset.is_some(), "{claim}: {answer:?}");
            assert!(!answer.is_complete, "{claim}: {answer:?}");
        }
    }
}

#[test]
fn an_early_response_reaches_the_client_and_the_connection_serves_the_next() {
    let workspace = Workspace::new();
    let (backend, gateway) = backend(&workspace, Speaks::Http2, |request| {
        match request.path.as_str() {
            "/early" => Reply::status(413).early(),
            _ => Reply::grpc(),
        }
    });
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let mut early = GRPC;
    early[2].1 = b"/early";
    early[4].1 = b"text/plain";
    let stream = client.open(&early, false);
    let answer = client.answer(stream);
    assert_eq!(answer.status(), Some(413));
    let stream = client.request(&GRPC, MESSAGE);
    assert_eq!(client.answer(stream).grpc_status(), Some(0));
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn nothing_listens_for_grpc_behind_a_backend_of_http_1() {
    let workspace = Workspace::new();
    let (backend, gateway) = backend(&workspace, Speaks::Http1, |_| Reply::status(200));
    let answer = grpc(&workspace, &gateway);
    assert_eq!(answer.grpc_status(), Some(12), "{answer:?}");
    assert_eq!(backend.requests().len(), 0);
}

#[test]
fn a_request_that_finds_no_stream_left_is_told_so_when_it_has_waited() {
    let workspace = Workspace::new();
    let address = "127.83.0.1:14317";
    let mut command = Command::new(program("portcullis-loadgen"));
    command.args(["backend", "--protocol", "h2", "--max-streams", "4"]);
    command.args(["--listen", address, "--for", "2m"]);
    let backend = Process::start(workspace.folder(), "backend", &mut command);
    eventually("the backend listens", || {
        backend.log().contains("listening").then_some(())
    });
    let setup = workspace.setup().http();
    let server = address.parse().unwrap();
    let gateway = setup
        .route("edge", "", &[server], "protocol = \"h2\"\n")
        .start();
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let mut stalled = GRPC;
    stalled[2].1 = b"/stall";
    // More than two connections to the server have streams for.
    let streams = [0; 12].map(|_| client.request(&stalled, MESSAGE));
    assert_unavailable(&client.answer(streams[11]));
}

#[test]
fn what_a_server_refuses_unprocessed_goes_to_another_one() {
    const REFUSED_STREAM: u32 = 7;
    // One key leads to one of the two: in one of the rounds that is the one that refuses.
    for refusing in [0, 1] {
        let workspace = Workspace::new();
        let servers = [0, 1].map(|number| {
            let address = workspace.host.free();
            HttpBackend::clear(address, Speaks::Http2, move |_| match number == refusing {
                true => Reply::grpc().without_head().reset(REFUSED_STREAM),
                false => Reply::grpc(),
            })
        });
        let addresses = servers.each_ref().map(HttpBackend::address);
        let keys = "protocol = \"h2\"\nhash = \"identity\"\n";
        let setup = workspace.setup().http();
        let gateway = setup.route("edge", "", &addresses, keys).start();
        let answer = grpc(&workspace, &gateway);
        assert_eq!(answer.grpc_status(), Some(0), "{refusing}: {answer:?}");
    }
}
