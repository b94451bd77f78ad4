//! Who is counted as what: the kernel's counters by reason against what agents and attackers did.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::{Client, ClientBuilder, Request, eventually};

use crate::topology::{ATTACKERS, ENFORCE, Guarded, MONITOR, PORT, Privileges, Topology};

/// Waits until the kernel has counted so many connections, and says how they came out.
fn flows_when(guarded: &Guarded<'_>, count: u64) -> BTreeMap<String, u64> {
    eventually(&format!("{count} connections are counted"), || {
        let flows = guarded.flows();
        let sum: u64 = flows.iter().map(|(_, count)| count).sum();
        (sum >= count).then(|| flows.into_iter().collect())
    })
}

fn counts<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

#[test]
fn an_agent_is_authenticated_and_a_stranger_is_not() {
    let topology = Topology::new();
    let guarded = topology.start(MONITOR);
    topology.exchange_from("192.0.2.1").expect("it is served");
    let stranger = topology.agent().without_certificate();
    let mut client = topology
        .connect_from("192.0.2.101", &stranger)
        .expect("in TLS 1.3 clients are done first");
    client.receive_to_end();
    let expected = counts([("authenticated", 1), ("no_certificate", 1)]);
    assert_eq!(flows_when(&guarded, 2), expected);
    let opened = guarded.metrics();
    let opened = opened.count("portcullis_guard_flows_opened_total", &[("port", PORT)]);
    assert_eq!(opened, 2);
    guarded.stop();
}

/// The ways to leave in the very moment in which one has got in.
#[derive(Clone, Copy)]
enum Leave {
    Fin,
    Reset,
    DataThenClose,
}

fn leave(mut client: Client, how: Leave) {
    match how {
        Leave::Fin => client.vanish(),
        Leave::Reset => return client.abort(),
        Leave::DataThenClose => {
            // Whoever is not there any more does not listen.
            let _ = client.send(b"a last word");
            client.vanish();
        }
    }
    // An end that is dropped with unread bytes would be a reset.
    let mut socket: &TcpStream = client.socket();
    let _ = std::io::copy(&mut socket, &mut std::io::sink());
}

#[test]
fn ten_thousand_agents_that_close_at_once_are_never_failures() {
    const THREADS: u64 = 4;
    const EACH: u64 = 2500;
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let work = |number: u64| {
        let agent = topology.agent().remembering();
        let full = topology.agent();
        let mut resumed = 0;
        for round in 0..EACH {
            let how = [Leave::Fin, Leave::Reset, Leave::DataThenClose][(round % 3) as usize];
            let source = if number.is_multiple_of(2) {
                "192.0.2.1"
            } else {
                "2001:db8::1"
            };
            // A ticket is fetched by the first of three, and used by the second.
            match round % 4 {
                0 => exchange(&topology, source, &agent),
                1 => {
                    let client = connect(&topology, source, &agent);
                    let kind = client.connection().handshake_kind();
                    resumed += u64::from(kind == Some(rustls::HandshakeKind::Resumed));
                    leave(client, how);
                }
                _ => leave(connect(&topology, source, &full), how),
            }
        }
        resumed
    };
    let resumed: u64 = topology.agents_host.enter(|| {
        thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("it works"))
                .sum()
        })
    });
    assert_eq!(resumed, THREADS * EACH / 4);
    let all = THREADS * EACH;
    assert_eq!(
        flows_when(&guarded, all),
        counts([("authenticated", all)]),
        "{}",
        guarded.log()
    );
    assert_eq!(guarded.bans_in_force(), 0);
    assert_eq!(guarded.packets("dropped"), 0);
    let failures = guarded.metrics();
    assert_eq!(
        failures.count("portcullis_handshake_failures_total", &[]),
        0,
        "{}",
        guarded.log()
    );
}

/// On the agents' host.
fn connect(topology: &Topology, source: &str, agent: &ClientBuilder) -> Client {
    let socket = topology.open(source).expect("it is reached");
    agent.connect_over(socket).expect("it gets in")
}

/// On the agents' host: reads its tickets on the way.
fn exchange(topology: &Topology, source: &str, agent: &ClientBuilder) {
    let mut client = connect(topology, source, agent);
    client.send(b"hello").expect("it is sent");
    assert_eq!(client.receive(5).expect("it comes back"), b"hello");
    client.finish();
    client.receive_to_end();
}

#[test]
fn every_bad_attempt_of_ten_thousand_is_counted_exactly() {
    let topology = Topology::new();
    // Nobody is over the cap by chance: those are counted as that.
    let file = topology.configure("portcullis", &format!("{MONITOR}\nmax_pending = 4096"));
    // Beside other tests a good handshake takes seconds: who is slow on purpose has to be told from it.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("timeout = \"3s\"", "timeout = \"12s\"")).unwrap();
    let guarded = topology.start_configured("portcullis", Privileges::default());
    let kinds = ["badcert", "junk", "half", "idle", "slow"];
    let arguments = [
        "--sources",
        ATTACKERS,
        "--rate",
        "400",
        "--count",
        "9000",
        "--connections",
        "8000",
    ];
    let report = topology.flood(&kinds, &arguments);
    let made = |kind: &str| {
        let attempts = &report["flood"]["kinds"][kind];
        assert_eq!(attempts["made"], attempts["connected"], "{report:#}");
        attempts["made"].as_u64().expect("it is a number")
    };
    let all: u64 = kinds.into_iter().map(made).sum();
    assert_eq!(all, 9000, "{report:#}");
    let left = report["flood"]["kinds"]["half"]["outcomes"]["left"]
        .as_u64()
        .expect("some left");
    let mut expected = counts([
        ("unknown_issuer", made("badcert")),
        ("not_tls", made("junk")),
        ("reset", left),
        ("timeout", made("idle") + made("slow") + made("half") - left),
    ]);
    expected.extend(strangers(&topology, 200));
    let total: u64 = expected.values().sum();
    assert!(total >= 10_000);
    assert_eq!(
        flows_when(&guarded, total),
        expected,
        "{report:#}\n{}",
        guarded.log()
    );
    assert_eq!(guarded.packets("dropped"), 0, "monitor drops nothing");
    assert!(guarded.packets("would_drop") > 0, "{report:#}");
    let metrics = guarded.metrics();
    let refused = metrics.by_label("portcullis_handshake_failures_total", "reason");
    assert_eq!(refused, expected, "the gateway's own count");
}

/// So many of each kind of client whose certificate does not suffice: what they are to be counted as.
fn strangers(topology: &Topology, each: u64) -> BTreeMap<String, u64> {
    let issue = |name: &str, request: Request| topology.workspace.agents.issue(name, request);
    let agent = || Request::client("spiffe://example.test/agent/bad");
    let expired = issue("expired", agent().expired());
    let early = issue("early", agent().not_yet_valid());
    let nobody = issue("nobody", Request::client("spiffe://example.test/nobody"));
    let server = issue("server", Request::server("server.test"));
    let clients: [(&str, ClientBuilder); 6] = [
        ("no_certificate", topology.agent().without_certificate()),
        ("expired", topology.agent().credentials(&expired)),
        ("not_yet_valid", topology.agent().credentials(&early)),
        ("not_authorized", topology.agent().credentials(&nobody)),
        ("wrong_key_usage", topology.agent().credentials(&server)),
        ("bad_signature", topology.agent().without_its_key()),
    ];
    topology.agents_host.enter(|| {
        for _ in 0..each {
            for (_, client) in &clients {
                connect(topology, "192.0.2.1", client).receive_to_end();
            }
        }
    });
    clients
        .into_iter()
        .map(|(reason, _)| (reason.to_owned(), each))
        .collect()
}

#[test]
fn health_checks_ban_nobody() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    for _ in 0..120 {
        topology
            .agents_host
            .enter(|| drop(topology.open("192.0.2.101").expect("it is reached")));
    }
    assert_eq!(flows_when(&guarded, 120), counts([("no_data", 120)]));
    assert_eq!(guarded.bans_in_force(), 0);
    topology
        .exchange_from("192.0.2.101")
        .expect("whoever checks may be an agent too");
}

#[test]
fn attackers_are_banned_in_enforce_and_agents_are_served() {
    let topology = Topology::new();
    let guarded = topology.start(ENFORCE);
    let mut agent = topology
        .connect_from("192.0.2.1", &topology.agent())
        .expect("it gets in");
    let flood = [
        "--sources",
        ATTACKERS,
        "--rate",
        "400",
        "--count",
        "1200",
        "--timeout",
        "900ms",
    ];
    let report = topology.flood(&["badcert", "junk"], &flood);
    assert_eq!(guarded.bans_in_force(), 19, "{report:#}");
    assert!(guarded.packets("dropped") > 0, "{report:#}");
    agent.send(b"still here").expect("it is sent");
    assert_eq!(agent.receive(10).expect("it comes back"), b"still here");
    topology
        .exchange_from("192.0.2.1")
        .expect("new agents are served");
    guarded.stop();
}

#[test]
fn agents_behind_the_address_of_a_banned_client_keep_their_connections() {
    const SHARED: &str = "192.0.2.101";
    let topology = Topology::new();
    let guarded = topology.start(&format!("{ENFORCE}\nban_first = \"10m\""));
    let mut agents: Vec<Client> = (0..50)
        .map(|_| {
            topology
                .connect_from(SHARED, &topology.agent())
                .expect("it gets in")
        })
        .collect();
    let flood = [
        "--sources",
        SHARED,
        "--rate",
        "100",
        "--count",
        "20",
        "--timeout",
        "900ms",
    ];
    let report: Value = topology.flood(&["badcert"], &flood);
    assert_eq!(guarded.bans_in_force(), 1, "{report:#}");
    for agent in &mut agents {
        agent.send(b"still here").expect("it is sent");
        assert_eq!(agent.receive(10).expect("it comes back"), b"still here");
    }
    topology
        .exchange_from(SHARED)
        .expect_err("new ones are not let in");
    // What is documented for addresses that many share.
    topology.configure("portcullis", &format!("{ENFORCE}\nallow = [\"{SHARED}\"]"));
    eventually("the reload is taken", || {
        topology.exchange_from(SHARED).ok()
    });
}

#[test]
fn a_cap_holds_for_each_source_and_not_for_others() {
    let topology = Topology::new();
    let guarded = topology.start(&format!("{ENFORCE}\nmax_pending = 10"));
    let held: Vec<TcpStream> = topology.agents_host.enter(|| {
        (0..15)
            .filter_map(|_| open_quickly(&topology, "192.0.2.101"))
            .collect()
    });
    assert_eq!(held.len(), 10);
    topology
        .exchange_from("192.0.2.1")
        .expect("others are let in");
    drop(held);
    assert_eq!(
        guarded
            .flows()
            .iter()
            .filter(|(reason, _)| reason == "authenticated")
            .count(),
        1
    );
}

/// A connection, if it comes about at once. On the agents' host.
fn open_quickly(topology: &Topology, source: &str) -> Option<TcpStream> {
    topology
        .open_within(source, Duration::from_millis(100))
        .ok()
}

#[test]
fn a_restart_under_load_leaves_no_packet_unchecked_and_no_flow_behind() {
    let topology = Topology::new();
    let first = topology.start(ENFORCE);
    let before = segments(&topology);
    let packets_before = first.metrics().count("portcullis_guard_packets_total", &[]);
    let served = thread::scope(|scope| {
        let agents: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..60)
                        .filter(|_| topology.exchange_from("192.0.2.1").is_ok())
                        .count()
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        let second = topology.succeed("portcullis");
        first.stop();
        let served: usize = agents
            .into_iter()
            .map(|agent| agent.join().expect("it works"))
            .sum();
        (served, second)
    });
    let (served, second) = served;
    // What is half way to the first one's listener when that closes is reset (docs/operations.md): one of each agent at most.
    let lost = 240 - served as u64;
    assert!(lost <= 4, "{served}: {}", second.log());
    eventually("every flow has ended", || {
        (second.metrics().count("portcullis_guard_flows_open", &[]) == 0).then_some(())
    });
    let sent = segments(&topology) - before;
    let checked = second
        .metrics()
        .count("portcullis_guard_packets_total", &[])
        - packets_before;
    assert_eq!(
        checked, sent,
        "each segment that the agents' host sent was checked"
    );
    let flows = eventually("all that were served are counted", || {
        let flows: BTreeMap<String, u64> = second.flows().into_iter().collect();
        let authenticated = flows.get("authenticated").copied().unwrap_or(0);
        (authenticated >= 240 - lost).then_some(flows)
    });
    assert!(flows.values().sum::<u64>() <= 240, "{flows:?}");
}

/// TCP segments that the agents' host has sent, proc(5).
fn segments(topology: &Topology) -> u64 {
    let table = topology
        .agents_host
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp").expect("/proc is mounted"));
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let names = lines.next().expect("names come first").split(' ');
    let values: Vec<&str> = lines.next().expect("then values").split(' ').collect();
    let wanted = ["OutSegs", "RetransSegs"];
    names
        .zip(values)
        .filter(|(name, _)| wanted.contains(name))
        .map(|(_, value)| value.parse::<u64>().expect("it is a number"))
        .sum()
}
