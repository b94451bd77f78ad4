//! What becomes of requests in flight when an identity loses its right, or the gateway ends.
//! In: streams that are open, then a block, a reload, a signal. Out: which ones end, which finish, and how.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tests::{
    Closing, Gateway, Http2Client, HttpBackend, Reply, Request, RevocationList, Speaks, Workspace,
    code, data, eventually, program,
};

const GRPC: [(&[u8], &[u8]); 6] = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":path", b"/test.Peer/Talk"),
    (b":authority", b"gateway.test"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
];

/// The last stream that there can be (RFC 9113 section 6.8).
const NOT_YET_KNOWN: u32 = (1 << 31) - 1;

/// A gateway before a backend that sends back what comes.
fn echoing(workspace: &Workspace) -> (HttpBackend, Gateway) {
    echoing_with(workspace, "")
}

/// The same, whose listener has further keys.
fn echoing_with(workspace: &Workspace, listener: &str) -> (HttpBackend, Gateway) {
    let backend = HttpBackend::over_mtls(workspace, 14317, Speaks::Http2, |_| Reply::grpc());
    let keys = workspace.backend_keys();
    let setup = workspace.setup().http().top("drain_timeout = \"20s\"");
    let gateway = setup
        .route("edge", listener, &[backend.address()], &keys)
        .start();
    (backend, gateway)
}

/// A stream that is open in both directions.
fn open(client: &mut Http2Client) -> u32 {
    let stream = client.open(&GRPC, false);
    client.send(&data(stream, b"one", false));
    client.read_until(|client| client.so_far(stream).content == b"one");
    stream
}

/// The stream goes on to its proper end.
fn finishes(client: &mut Http2Client, stream: u32) {
    client.send(&data(stream, b"two", true));
    let answer = client.answer(stream);
    assert_eq!(answer.content, b"onetwo", "{answer:?}");
    assert_eq!(answer.grpc_status(), Some(0), "{answer:?}");
    assert!(answer.is_complete && answer.reset.is_none(), "{answer:?}");
}

#[test]
fn a_drain_lets_streams_finish() {
    let workspace = Workspace::new();
    let (_backend, mut gateway) = echoing(&workspace);
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut client);
    gateway.terminate();
    client.read_until(|client| client.goaway().is_some());
    assert_eq!(client.goaway(), Some(code::NO_ERROR));
    let first = client.goaways()[0].number_at(0);
    assert_eq!(
        first, NOT_YET_KNOWN,
        "what the client sends meanwhile is served"
    );
    finishes(&mut client, stream);
    client.read_to_end();
    let last = client.goaways().last().unwrap().number_at(0);
    assert_eq!(last, stream, "what was served is known");
    assert!(gateway.wait().success());
}

#[test]
fn a_blocked_identity_loses_its_streams_at_once_and_nobody_else_does() {
    let workspace = Workspace::new();
    let (backend, gateway) = echoing(&workspace);
    let other = Request::client("spiffe://example.test/agent/other");
    let other = workspace.agents.issue("other", other);
    let mut blocked = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut blocked);
    let builder = workspace.client().credentials(&other);
    let mut stays = Http2Client::connect(&builder, gateway.address());
    let staying = open(&mut stays);
    let mut block = Command::new(program("portcullis"));
    block.arg("block").arg("--config");
    block.arg(workspace.folder().join("portcullis.toml"));
    block.args(["--identity", "spiffe://example.test/agent/agent-1"]);
    let output = block.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_cut(&mut blocked, stream, &backend);
    finishes(&mut stays, staying);
}

/// The connection ends at once, and the backend hears that its request is not whole.
fn assert_cut(client: &mut Http2Client, stream: u32, backend: &HttpBackend) {
    client.read_to_end();
    assert!(!client.so_far(stream).is_complete);
    eventually("the backend hears that the request is cut", || {
        let requests = backend.requests();
        let mut cut = requests
            .iter()
            .filter(|request| request.is_whole == Some(false));
        cut.next().is_some().then_some(())
    });
}

#[test]
fn a_revoked_client_loses_its_streams_at_once_and_nobody_else_does() {
    let workspace = Workspace::new();
    let other = Request::client("spiffe://example.test/agent/other");
    let other = workspace.agents.issue("other", other);
    let list = workspace
        .agents
        .revoke("agents.crl", &RevocationList::of(&[]));
    let (backend, gateway) = echoing_with(&workspace, &format!("crl = [{list:?}]"));
    let mut revoked = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut revoked);
    let builder = workspace.client().credentials(&other);
    let mut stays = Http2Client::connect(&builder, gateway.address());
    let staying = open(&mut stays);
    let revocation = RevocationList::of(&[&workspace.agent.certificate]);
    // The gateway watches the file.
    workspace.agents.revoke("agents.crl", &revocation);
    assert_cut(&mut revoked, stream, &backend);
    finishes(&mut stays, staying);
}

#[test]
fn a_right_that_is_taken_away_ends_no_request_and_admits_no_further_one() {
    let workspace = Workspace::new();
    let (backend, mut gateway) = echoing(&workspace);
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut client);
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let narrower = text.replace("{ path = \"/\" }", "{ path = \"/other\" }");
    assert_ne!(narrower, text);
    fs::write(&file, narrower).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    const PERMISSION_DENIED: u32 = 7;
    let mut next = Http2Client::connect(&workspace.client(), gateway.address());
    let refused = next.request(&GRPC, b"next");
    assert_eq!(next.answer(refused).grpc_status(), Some(PERMISSION_DENIED));
    finishes(&mut client, stream);
    // On the old connection as well, if it still takes requests.
    if client.goaway().is_none() {
        let refused = client.request(&GRPC, b"next");
        assert_eq!(
            client.answer(refused).grpc_status(),
            Some(PERMISSION_DENIED)
        );
    }
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn open_connections_have_the_rights_of_their_own_rule_wherever_a_reload_moves_it() {
    const PERMISSION_DENIED: u32 = 7;
    let workspace = Workspace::new();
    let (_backend, mut gateway) = echoing(&workspace);
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut client);
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    let before =
        "[[identity]]\nmatch = { cn = \"another\" }\nallow = [{ path = \"/another\" }]\n\n";
    let moved = text.replacen("[[identity]]", &format!("{before}[[identity]]"), 1);
    assert_ne!(moved, text);
    // Long, so that a client without a rule keeps its connection for now.
    let moved = format!("close_spread = \"1h\"\n{moved}");
    fs::write(&file, &moved).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    let allowed = client.request(&GRPC, b"next");
    assert_eq!(client.answer(allowed).grpc_status(), Some(0));
    // And no rights where no rule is its own any more, although another stands in the place of that one.
    fs::write(&file, moved.replace("/agent/*", "/nobody/*")).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(2);
    let refused = client.request(&GRPC, b"next");
    assert_eq!(
        client.answer(refused).grpc_status(),
        Some(PERMISSION_DENIED)
    );
    finishes(&mut client, stream);
}

#[test]
fn an_identity_without_a_rule_any_more_finishes_what_it_has_begun() {
    let workspace = Workspace::new();
    let (_backend, mut gateway) = echoing(&workspace);
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut client);
    let file = workspace.folder().join("portcullis.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("/agent/*", "/nobody/*")).unwrap();
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    client.read_until(|client| client.goaway().is_some());
    finishes(&mut client, stream);
    client.read_to_end();
    workspace.client().refused(gateway.address());
}

#[test]
fn a_backend_that_leaves_by_goaway_loses_no_request() {
    let workspace = Workspace::new();
    let (backend, gateway) = echoing(&workspace);
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let stream = open(&mut client);
    backend.retire();
    // Until the gateway has heard of it, a request may go either way; all of them succeed.
    for _ in 0..20 {
        let next = client.request(&GRPC, b"next");
        assert_eq!(client.answer(next).grpc_status(), Some(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    finishes(&mut client, stream);
    let connections = backend
        .requests()
        .iter()
        .map(|request| request.connection)
        .max();
    assert!(connections > Some(0), "a second connection was opened");
}

#[test]
fn a_listener_of_another_mode_ends_the_connections_that_it_had_and_loses_none_of_their_requests() {
    let workspace = Workspace::new();
    let backend = HttpBackend::over_mtls(&workspace, 14317, Speaks::Http2, |_| Reply::grpc());
    let keys = workspace.backend_keys();
    let setup = workspace.setup().http().top("close_spread = \"1h\"");
    let mut gateway = setup
        .route("edge", "alpn = [\"h2\"]", &[backend.address()], &keys)
        .start();
    let address = gateway.address();
    let connect = || Http2Client::connect(&workspace.client(), address);
    let file = workspace.folder().join("portcullis.toml");
    let http = fs::read_to_string(&file).unwrap();
    let stream = http
        .replace("mode = \"http\"", "mode = \"stream\"")
        .replace("allow = [{ path = \"/\" }]\n", "");
    let at_once = |text: &str| text.replace("\"1h\"", "\"0s\"");
    let mut reloads = 0;
    let mut reload = |gateway: &mut Gateway, text: &str| {
        fs::write(&file, text).unwrap();
        gateway.process().signal(Signal::HUP);
        reloads += 1;
        gateway.wait_for_reloads(reloads);
    };
    let ended = |gateway: &Gateway, count| {
        let labels = [("listener", "edge"), ("reason", "mode")];
        gateway.wait_for("portcullis_connections_ended_total", &labels, count);
    };
    let mut requests = connect();
    let long = open(&mut requests);

    // Its turn is some time within the hour. Until then it is served as it was.
    reload(&mut gateway, &stream);
    let next = open(&mut requests);
    finishes(&mut requests, next);
    let mut opaque = connect();
    let next = open(&mut opaque);
    finishes(&mut opaque, next);
    let tenants = backend.requests();
    let tenants = tenants.iter().map(|one| one.values("x-scope-orgid").len());
    assert_eq!(tenants.collect::<Vec<_>>(), [1, 1, 0]);

    // What is undone ends nothing.
    reload(&mut gateway, &at_once(&http));
    let next = open(&mut requests);
    finishes(&mut requests, next);
    assert_eq!(requests.goaway(), None);
    opaque.read_to_end();
    ended(&gateway, 1);

    reload(&mut gateway, &at_once(&stream));
    requests.read_until(|client| client.goaway().is_some());
    assert_eq!(requests.goaway(), Some(code::NO_ERROR));
    finishes(&mut requests, long);
    assert_eq!(requests.read_to_end(), Closing::CloseNotify);
    ended(&gateway, 2);
}
