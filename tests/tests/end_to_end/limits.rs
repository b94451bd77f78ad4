//! Limits per identity: who has reached one is refused or slowed down, and nobody else notices.
//! In: several connections of one certificate, on all workers. Out: which of them got in, and how fast their bytes went.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::{
    Backend, Behaviour, Client, Closing, Credentials, DATA, Gateway, Http2Client, HttpBackend,
    Reply, Request, Speaks, TlsFailure, Wire, Workspace, eventually, headers,
};

const FAILURES: &str = "portcullis_handshake_failures_total";
const OVER_LIMIT: &[(&str, &str)] = &[("reason", "over_limit")];

/// A gateway whose rule sets these limits.
fn gateway(workspace: &Workspace, limits: &str, listener: &str, backend: SocketAddr) -> Gateway {
    let rule = format!("[[identity]]\nmatch = {{ uri = \"spiffe://example.test/*\" }}\n{limits}\n");
    workspace
        .setup()
        .identities(&rule)
        .tables("[workers]\ncount = 2")
        .route("edge", listener, &[backend], "")
        .start()
}

/// Connects and has a word echoed; or is refused without one.
fn attempt(
    workspace: &Workspace,
    gateway: &Gateway,
    agent: &Credentials,
) -> Result<Client, TlsFailure> {
    let client = workspace.client().credentials(agent);
    let mut client = client.connect(gateway.address())?;
    // The reset may come first.
    let sent = client.send(b"hello").map_err(|_| Closing::Reset);
    let received = sent.and_then(|()| client.receive(5));
    match received {
        Ok(echo) => assert_eq!(echo, b"hello"),
        Err(closing) => return Err(TlsFailure::Closed(closing)),
    }
    Ok(client)
}

fn assert_reset(outcome: Result<Client, TlsFailure>) {
    match outcome {
        Err(TlsFailure::Closed(Closing::Reset)) => {}
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("one too many got in"),
    }
}

#[test]
fn one_connection_too_many_of_an_identity_is_refused_over_all_workers_and_a_reload() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let mut gateway = gateway(&workspace, "max_connections = 2", "", backend.address());
    // The same identity in another certificate counts as the same.
    let renewed = Request::client("spiffe://example.test/agent/agent-1");
    let renewed = workspace.agents.issue("renewed", renewed);
    let other = Request::client("spiffe://example.test/agent/agent-2");
    let other = workspace.agents.issue("other", other);

    let first = attempt(&workspace, &gateway, &workspace.agent).unwrap();
    let second = attempt(&workspace, &gateway, &renewed).unwrap();
    for refused in 1..=6 {
        assert_reset(attempt(&workspace, &gateway, &workspace.agent));
        gateway.wait_for(FAILURES, OVER_LIMIT, refused);
    }
    let others = [(); 2].map(|()| attempt(&workspace, &gateway, &other).unwrap());
    let established = gateway.metrics().count("portcullis_handshakes_total", &[]);
    assert_eq!(established, 4, "the refused are not established");
    gateway.process().signal(Signal::HUP);
    gateway.wait_for_reloads(1);
    assert_reset(attempt(&workspace, &gateway, &workspace.agent));

    drop(first);
    eventually("the permit is released", || {
        attempt(&workspace, &gateway, &workspace.agent).ok()
    });
    drop((second, others));
    assert!(
        gateway
            .log()
            .contains("max_connections = 2 of the identity")
    );
}

#[test]
fn handshakes_of_an_identity_beyond_its_rate_are_refused_and_those_of_others_are_not() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = gateway(
        &workspace,
        "handshakes_per_second = 3",
        "",
        backend.address(),
    );
    let started = Instant::now();
    let mut admitted = 0;
    for number in 0..12 {
        let came_in = attempt(&workspace, &gateway, &workspace.agent).is_ok();
        admitted += u64::from(came_in);
        assert!(
            came_in || number >= 3,
            "the first three are within the rate"
        );
    }
    let seconds = started.elapsed().as_secs();
    assert!(
        admitted <= 3 + 3 * (seconds + 1),
        "{admitted} in {seconds}s"
    );
    assert!(admitted < 12, "nobody was refused");
    gateway.wait_for(FAILURES, OVER_LIMIT, 12 - admitted);
    let other = Request::client("spiffe://example.test/agent/agent-2");
    let other = workspace.agents.issue("other", other);
    attempt(&workspace, &gateway, &other).unwrap();
    eventually("the rate gives the next one", || {
        attempt(&workspace, &gateway, &workspace.agent).ok()
    });
}

#[test]
fn a_copied_certificate_uses_up_nothing_of_its_owners_limits() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let limits = "handshakes_per_second = 1\nmax_connections = 1";
    let gateway = gateway(&workspace, limits, "", backend.address());
    let thief = workspace
        .client()
        .credentials(&workspace.agent)
        .without_its_key();
    for count in 1..=8 {
        thief.refused(gateway.address());
        gateway.wait_for(FAILURES, &[("reason", "bad_signature")], count);
    }
    assert!(attempt(&workspace, &gateway, &workspace.agent).is_ok());
    assert_eq!(gateway.metrics().count(FAILURES, OVER_LIMIT), 0);
}

/// Sends bytes to an echo and receives them all; the time it took.
fn echo(workspace: &Workspace, gateway: &Gateway, agent: &Credentials, bytes: usize) -> Duration {
    let client = workspace.client().credentials(agent);
    let mut client = client.connect(gateway.address()).unwrap();
    let sent: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let started = Instant::now();
    client.send(&sent).unwrap();
    let received = client.receive(bytes).expect("nothing is lost");
    assert!(received == sent, "the bytes are those that were sent");
    started.elapsed()
}

#[test]
fn bytes_beyond_the_rate_of_an_identity_wait_and_are_not_lost_and_others_are_not_slowed() {
    const KIB: usize = 1024;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    // Pauses are longer than the idle timeout.
    let listener = "idle_timeout = \"1s\"";
    let limits = "bytes_per_second = \"32KiB\"";
    let gateway = gateway(&workspace, limits, listener, backend.address());
    let other = Request::client("spiffe://example.test/agent/agent-2");
    let other = workspace.agents.issue("other", other);
    let started = Instant::now();
    let elapsed = thread::scope(|scope| {
        // Two connections of one identity, one after the other, share its rate.
        let slow = scope.spawn(|| {
            echo(&workspace, &gateway, &workspace.agent, 128 * KIB);
            echo(&workspace, &gateway, &workspace.agent, 96 * KIB);
            started.elapsed()
        });
        let quick = echo(&workspace, &gateway, &other, 16 * KIB);
        let slow = slow.join().unwrap();
        assert!(slow > quick, "{quick:?} {slow:?}");
        slow
    });
    // A connection's first read is free, and takes 64 KiB at most. So before the last read of the second connection 160 KiB at
    // least have been taken, of which one second's worth, 32 KiB, may come at once: four seconds. By itself it would wait for one.
    assert!(elapsed > Duration::from_millis(3900), "{elapsed:?}");
    let ended = "portcullis_connections_ended_total";
    assert_eq!(gateway.metrics().count(ended, &[("reason", "idle")]), 0);
}

const SLOWED: &str = "portcullis_identity_slowed_seconds_total";

#[test]
fn a_burst_passes_unhindered_and_an_identity_beyond_it_is_named_in_log_and_metrics() {
    const KIB: usize = 1024;
    const IDENTITY: (&str, &str) = ("identity", "spiffe://example.test/agent/agent-1");
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let limits = "bytes_per_second = \"64KiB\"\nbytes_burst = \"256KiB\"";
    let gateway = gateway(&workspace, limits, "", backend.address());
    echo(&workspace, &gateway, &workspace.agent, 128 * KIB);
    assert!(!gateway.metrics().has(SLOWED, &[]), "it had a burst left");
    for _ in 0..2 {
        echo(&workspace, &gateway, &workspace.agent, 256 * KIB);
    }
    assert!(gateway.metrics().sum(SLOWED, &[IDENTITY]) > 0.0);
    let log = gateway.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("slowed down to bytes_per_second"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains(IDENTITY.1), "{}", told[0]);
}

/// Makes records of one byte of data.
type OneByte = fn(&mut Wire) -> Vec<u8>;

#[test]
fn records_that_cost_more_than_their_data_count_for_more() {
    let one_byte_each: [(&str, OneByte); 2] = [
        ("changes of keys", |client| {
            [client.sent.key_update(false), client.sent.data(b"x")].concat()
        }),
        ("padding", |client| client.sent.record(DATA, b"x", 16_000)),
    ];
    for (what, make) in one_byte_each {
        let workspace = Workspace::new();
        let backend = Backend::start(Behaviour::Sink);
        let limits = "bytes_per_second = \"64KiB\"";
        let gateway = gateway(&workspace, limits, "", backend.address());
        let mut client = Wire::connect(&workspace.client(), gateway.address());
        for _ in 0..100 {
            let records = make(&mut client);
            client.send(&records);
        }
        // All of them may have been read at once: who sends nothing more is idle and not slowed down.
        eventually(what, || {
            let records = make(&mut client);
            client.send(&records);
            gateway.metrics().has(SLOWED, &[]).then_some(())
        });
    }
}

#[test]
fn what_a_slowed_client_has_given_up_is_not_stored_up_before_what_it_sends_anew() {
    const BURST_BYTES: usize = 4 << 20;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let limits = "bytes_per_second = \"16KiB\"\nbytes_burst = \"4MiB\"";
    let gateway = gateway(&workspace, limits, "", backend.address());
    let mut client = Wire::connect(&workspace.client(), gateway.address());
    let socket = client.socket().try_clone().unwrap();
    socket2::SockRef::from(&socket)
        .set_send_buffer_size(64 << 10)
        .unwrap();
    socket
        .set_write_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    // The burst has made the buffers on the way as long as they get. Then nothing is taken any more.
    let mut taken_bytes = 0;
    while taken_bytes < 4 * BURST_BYTES {
        let record = client.sent.data(&[7; 16 << 10]);
        match (&socket).write(&record) {
            Ok(count) if count == record.len() => taken_bytes += count,
            _ => break,
        }
    }
    assert!(taken_bytes >= BURST_BYTES, "{taken_bytes}");
    assert!(taken_bytes < BURST_BYTES + (1 << 20), "{taken_bytes}");
}

#[test]
fn whoever_comes_back_for_every_few_bytes_is_no_faster_than_who_stays() {
    const KIB: usize = 1024;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let limits = "bytes_per_second = \"32KiB\"";
    let gateway = gateway(&workspace, limits, "", backend.address());
    let started = Instant::now();
    for _ in 0..9 {
        echo(&workspace, &gateway, &workspace.agent, 16 * KIB);
    }
    // The last one comes after 128 KiB, of which 32 may come at once: three seconds.
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_secs(2), "{elapsed:?}");
}

#[test]
fn a_client_that_is_gone_does_not_keep_its_place_for_as_long_as_it_would_be_paused() {
    const COUNT: u64 = 60;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let limits = "bytes_per_second = \"16KiB\"";
    let gateway = gateway(&workspace, limits, "", backend.address());
    let clients: Vec<_> = (0..COUNT)
        .map(|_| attempt(&workspace, &gateway, &workspace.agent).unwrap())
        .collect();
    // Each sends a second's worth and more, and all of them at once: a pause of two minutes.
    for mut client in clients {
        client.send(&[7; 96 * 1024]).unwrap();
        client.abort();
    }
    let ended = "portcullis_connections_ended_total";
    gateway.wait_for(ended, &[("reason", "client_reset")], COUNT);
}

#[test]
fn requests_of_a_client_that_is_slowed_are_answered_however_many_came_at_once() {
    const COUNT: u32 = 60;
    let workspace = Workspace::new();
    let backend = HttpBackend::clear(workspace.host.free(), Speaks::Http1, |_| Reply::status(200));
    let rules = "[[identity]]\nmatch = { uri = \"spiffe://example.test/agent/*\" }\nbytes_per_second = \"16KiB\"\n";
    let setup = workspace.setup().identities(rules).http();
    let gateway = setup.route("edge", "", &[backend.address()], "").start();
    let mut client = Http2Client::connect(&workspace.client(), gateway.address());
    let fields = |method: &'static str| -> [(&[u8], &[u8]); 4] {
        [
            (b":method", method.as_bytes()),
            (b":scheme", b"https"),
            (b":path", b"/v1/traces"),
            (b":authority", b"gateway.test"),
        ]
    };
    // More than it may send in a second: from now on it is slowed.
    let upload = client.request(&fields("POST"), &[7; 40_000]);
    assert_eq!(client.answer(upload).status(), Some(200));
    let streams = (0..COUNT).map(|position| upload + 2 + 2 * position);
    let requests = streams
        .clone()
        .map(|stream| headers(stream, &fields("GET"), true));
    client.send(&requests.collect::<Vec<_>>().concat());
    for stream in streams {
        assert_eq!(client.answer(stream).status(), Some(200), "stream {stream}");
    }
}
