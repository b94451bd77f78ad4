//! What happens to a stream on its way: nothing. Byte exactness, ends of every kind, back-pressure, clocks.
//! In: clients and backends that write down every byte. Out: equality, and the right end on the other side.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tests::{Backend, Behaviour, Closing, Ending, Gateway, Workspace, eventually};

const ENDED: &str = "portcullis_connections_ended_total";
const MEBIBYTE: usize = 1024 * 1024;

/// Bytes that differ at every position that matters for framing.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift: cheap, and the same on every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn assert_same(what: &str, received: &[u8], sent: &[u8]) {
    // Not assert_eq: nobody wants to read megabytes.
    assert_eq!(received.len(), sent.len(), "{what}: length");
    let differs = received
        .iter()
        .zip(sent)
        .position(|(received, sent)| received != sent);
    assert_eq!(differs, None, "{what}: first difference");
}

#[test]
fn an_echo_of_every_size_comes_back_as_it_went() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    // Around the bounds of records and buffers.
    for length in [
        1, 2, 100, 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536, 200_000,
    ] {
        let sent = pattern(length);
        client.send(&sent).unwrap();
        assert_same(
            &format!("{length} bytes"),
            &client.receive(length).unwrap(),
            &sent,
        );
    }
    client.finish();
    let (rest, closing) = client.receive_to_end();
    assert_eq!((rest.len(), closing), (0, Closing::CloseNotify));
    assert_eq!(backend.only_connection().ending, Some(Ending::Finished));
    let metrics = gateway.wait_for(ENDED, &[("listener", "edge"), ("reason", "finished")], 1);
    let total = backend.received_bytes() as u64;
    for direction in ["received", "sent"] {
        let counted = metrics.count(
            "portcullis_relayed_bytes_total",
            &[("listener", "edge"), ("direction", direction)],
        );
        assert_eq!(counted, total, "{direction}");
    }
}

#[test]
fn data_in_the_same_flight_as_finished_is_not_lost() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let gateway = workspace.gateway(backend.address());
    // `connect` flushes Finished and returns without a wait, so this data follows at once; many times over, it
    // arrives in one read with Finished.
    for _ in 0..20 {
        let mut client = workspace.client().connect(gateway.address()).unwrap();
        client.send(b"first words").unwrap();
        client.finish();
        assert_eq!(client.receive_to_end().1, Closing::CloseNotify);
    }
    let connections = eventually("all connections have ended", || {
        let connections = backend.connections();
        let done = connections.len() == 20 && connections.iter().all(|one| one.ending.is_some());
        done.then_some(connections)
    });
    for connection in connections {
        assert_eq!(connection.bytes, b"first words");
        assert_eq!(connection.ending, Some(Ending::Finished));
    }
}

#[test]
fn a_client_that_has_finished_still_gets_the_whole_answer() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let gateway = workspace.gateway(backend.address());
    let sent = pattern(8 * MEBIBYTE + 3);
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(&sent).unwrap();
    client.finish();
    let (received, closing) = client.receive_to_end();
    assert_same("the answer", &received, &sent);
    assert_eq!(closing, Closing::CloseNotify);
    let recorded = backend.only_connection();
    assert_same("the request", &recorded.bytes, &sent);
    assert_eq!(recorded.ending, Some(Ending::Finished));
}

#[test]
fn a_backend_that_has_finished_still_gets_the_whole_request() {
    let workspace = Workspace::new();
    let answer = Arc::new(pattern(3 * MEBIBYTE + 1));
    let backend = Backend::start(Behaviour::Source(Arc::clone(&answer)));
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let (received, closing) = client.receive_to_end();
    assert_same("the answer", &received, &answer);
    assert_eq!(closing, Closing::CloseNotify);
    let sent = pattern(2 * MEBIBYTE + 7);
    client.send(&sent).unwrap();
    client.finish();
    let recorded = backend.only_connection();
    assert_same("the request", &recorded.bytes, &sent);
    assert_eq!(recorded.ending, Some(Ending::Finished));
}

#[test]
fn a_truncated_stream_does_not_look_complete_to_the_backend() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"the first half").unwrap();
    eventually("the bytes arrive", || {
        (backend.received_bytes() == 14).then_some(())
    });
    client.vanish();
    assert_eq!(backend.only_connection().ending, Some(Ending::Reset));
    gateway.wait_for(
        ENDED,
        &[("listener", "edge"), ("reason", "client_truncated")],
        1,
    );
}

#[test]
fn a_client_killed_in_mid_stream_resets_the_backend() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Sink);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(&pattern(100_000)).unwrap();
    eventually("the bytes arrive", || {
        (backend.received_bytes() == 100_000).then_some(())
    });
    client.abort();
    assert_eq!(backend.only_connection().ending, Some(Ending::Reset));
    gateway.wait_for(
        ENDED,
        &[("listener", "edge"), ("reason", "client_reset")],
        1,
    );
}

#[test]
fn a_backend_that_breaks_off_does_not_look_finished_to_the_client() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"ping").unwrap();
    client.receive(4).unwrap();
    backend.reset_all();
    let (rest, closing) = client.receive_to_end();
    assert!(rest.is_empty());
    assert_ne!(closing, Closing::CloseNotify);
    gateway.wait_for(
        ENDED,
        &[("listener", "edge"), ("reason", "backend_reset")],
        1,
    );
}

#[test]
fn a_backend_that_does_not_read_slows_the_client_and_bounds_our_memory() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Held);
    let mut gateway = workspace.gateway(backend.address());
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"x").unwrap();
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 1);
    let before = gateway.process().resident_bytes();

    let sent = pattern(96 * MEBIBYTE);
    let sender = thread::spawn({
        let sent = sent.clone();
        move || {
            client.send(&sent).unwrap();
            client.finish();
            client.receive_to_end().1
        }
    });
    // Nobody reads: the sender fills every buffer on the way and then stands still, far from done.
    let received = [("listener", "edge"), ("direction", "received")];
    let mut last = u64::MAX;
    let stalled = eventually("the sender stands still", || {
        thread::sleep(Duration::from_secs(1));
        let taken = gateway
            .metrics()
            .count("portcullis_relayed_bytes_total", &received);
        (std::mem::replace(&mut last, taken) == taken).then_some(taken)
    });
    assert!(
        stalled < 48 * MEBIBYTE as u64,
        "the gateway took {stalled} bytes"
    );
    let grown = gateway.process().resident_bytes().saturating_sub(before);
    assert!(
        grown < 4 * MEBIBYTE as u64,
        "the gateway grew by {grown} bytes"
    );
    assert!(!sender.is_finished());

    backend.release();
    assert_eq!(sender.join().unwrap(), Closing::CloseNotify);
    let recorded = backend.only_connection();
    assert_same("everything, in the end", &recorded.bytes[1..], &sent);
    assert_eq!(recorded.ending, Some(Ending::Finished));
}

#[test]
fn a_client_that_is_cut_off_in_mid_answer_gets_a_reset_and_no_end() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Source(Arc::new(pattern(96 * MEBIBYTE))));
    let listener = "idle_timeout = \"1s\"";
    let servers = [backend.address()];
    let gateway = workspace
        .setup()
        .route("edge", listener, &servers, "")
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    // It reads nothing, so that a write to it stands still, until it counts as idle.
    gateway.wait_for(
        "portcullis_connections_ended_total",
        &[("reason", "idle")],
        1,
    );
    let (_, closing) = client.receive_to_end();
    assert_eq!(closing, Closing::Reset);
}

#[test]
fn a_client_that_does_not_read_slows_the_backend_and_bounds_our_memory() {
    let workspace = Workspace::new();
    let answer = Arc::new(pattern(96 * MEBIBYTE));
    let backend = Backend::start(Behaviour::Source(Arc::clone(&answer)));
    let mut gateway = workspace.gateway(backend.address());
    let before = gateway.process().resident_bytes();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    let sent = [("listener", "edge"), ("direction", "sent")];
    let mut last = u64::MAX;
    let stalled = eventually("the backend's bytes stand still", || {
        thread::sleep(Duration::from_secs(1));
        let given = gateway
            .metrics()
            .count("portcullis_relayed_bytes_total", &sent);
        (given > 0 && std::mem::replace(&mut last, given) == given).then_some(given)
    });
    assert!(
        stalled < 48 * MEBIBYTE as u64,
        "the gateway sent {stalled} bytes to a client that reads none"
    );
    let grown = gateway.process().resident_bytes().saturating_sub(before);
    assert!(
        grown < 4 * MEBIBYTE as u64,
        "the gateway grew by {grown} bytes"
    );

    let (received, closing) = client.receive_to_end();
    assert_same("everything, in the end", &received, &answer);
    assert_eq!(closing, Closing::CloseNotify);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route("edge", "idle_timeout = \"1s\"", &[backend.address()], "")
        .start();
    let mut busy = workspace.client().connect(gateway.address()).unwrap();
    let mut idle = workspace.client().connect(gateway.address()).unwrap();
    idle.send(b"once").unwrap();
    idle.receive(4).unwrap();
    let waiting = thread::spawn(move || idle.receive_to_end());
    // Three times as long as an idle one may live.
    for _ in 0..12 {
        busy.send(b"x").unwrap();
        assert_eq!(busy.receive(1).unwrap(), b"x");
        thread::sleep(Duration::from_millis(250));
    }
    let (received, closing) = waiting.join().unwrap();
    assert!(received.is_empty());
    assert_eq!(closing, Closing::Truncated);
    let metrics = gateway.wait_for(ENDED, &[("listener", "edge"), ("reason", "idle")], 1);
    assert_eq!(
        metrics.count(ENDED, &[]),
        1,
        "{:?}",
        metrics.by_label(ENDED, "reason")
    );
    assert_eq!(
        metrics.count("portcullis_connections_open", &[("listener", "edge")]),
        1
    );
}

#[test]
fn memory_of_clients_that_did_not_read_is_released_when_they_are_gone() {
    const CLIENTS: usize = 500;
    const MIB: u64 = 1 << 20;
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Source(Arc::new(vec![7; 6 << 20])));
    let mut gateway = workspace
        .setup()
        .tables("[workers]\ncount = 1")
        .route("edge", "", &[backend.address()], "")
        .start();
    let address = gateway.address();
    let crowd = |count| -> Vec<_> {
        let connect = |_| workspace.client().connect(address).unwrap();
        (0..count).map(connect).collect()
    };
    // An allocator that learns from what is freed keeps blocks of this size from now on.
    let first = crowd(4);
    let baseline = gateway.process().resident_bytes();
    eventually("the first of them hold buffers", || {
        (gateway.process().resident_bytes() > baseline + (100 << 10)).then_some(())
    });
    drop(first);
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    let before = gateway.process().resident_bytes();
    let clients = crowd(CLIENTS);
    let stalled = eventually("each holds a buffer", || {
        let now = gateway.process().resident_bytes();
        (now > before + CLIENTS as u64 * (100 << 10)).then_some(now)
    });
    drop(clients);
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
    // The worker keeps 32 free buffers, which are 8 MiB.
    eventually(
        &format!("of {} MiB most are released", stalled / MIB),
        || {
            let now = gateway.process().resident_bytes();
            (now < before + 24 * MIB).then_some(())
        },
    );
}

#[test]
fn a_connection_ends_at_its_age_however_busy() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route(
            "edge",
            "max_connection_age = \"1s\"\nmax_connection_age_grace = \"2s\"",
            &[backend.address()],
            "",
        )
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    // Never quiet for long enough to be let go in a quiet moment: the grace for those who are busy runs out.
    eventually("the connection ends", || {
        thread::sleep(Duration::from_millis(50));
        let alive = client.send(b"x").is_ok() && client.receive(1).is_ok();
        (!alive).then_some(())
    });
    assert_ended_by_age(&gateway, &backend);
}

#[test]
fn a_quiet_connection_ends_at_its_age_and_does_not_look_finished_to_either_side() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::Echo);
    let gateway = workspace
        .setup()
        .route(
            "edge",
            "max_connection_age = \"1s\"",
            &[backend.address()],
            "",
        )
        .start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"x").unwrap();
    client.receive(1).unwrap();
    // FIN, so that nothing queued is lost; without close_notify, so that a cut answer does not look whole.
    assert_eq!(client.receive_to_end().1, Closing::Truncated);
    assert_ended_by_age(&gateway, &backend);
}

#[test]
fn a_connection_past_its_age_waits_for_the_answer_to_the_last_call() {
    let workspace = Workspace::new();
    let backend = Backend::start(Behaviour::EchoAfterEnd);
    let keys = "max_connection_age = \"1s\"\nquiet_timeout = \"1m\"";
    let setup = workspace
        .setup()
        .route("edge", keys, &[backend.address()], "");
    let gateway = setup.start();
    let mut client = workspace.client().connect(gateway.address()).unwrap();
    client.send(b"call").unwrap();
    // Old by now, and silent for far longer than the pause that ends an answer.
    thread::sleep(Duration::from_secs(3));
    client.finish();
    let answer = client.receive_to_end();
    assert_eq!(answer, (b"call".to_vec(), Closing::CloseNotify));
    drop(gateway);
}

fn assert_ended_by_age(gateway: &Gateway, backend: &Backend) {
    // The client did not end its stream, so it must not look to the backend as if it had.
    assert_eq!(backend.only_connection().ending, Some(Ending::Reset));
    gateway.wait_for(ENDED, &[("listener", "edge"), ("reason", "age")], 1);
    gateway.wait_for("portcullis_connections_open", &[("listener", "edge")], 0);
}
