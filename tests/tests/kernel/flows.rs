//! The life of real flows: connections over veth to a listener in a child cgroup, user space's verdicts on them, and
//! what the kernel counts and holds against their source.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use gateway::guard::{Guard, SourceState, say};
use gateway_common::{Drop as Dropped, Fate, Pass, PortCounter, Reason, Settings, mode};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use socket2::SockRef;

use crate::cgroup::Cgroup;
use crate::namespace::Namespace;
use crate::object;

const PATIENCE: Duration = Duration::from_secs(20);
const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The first address of the agent's /64: that is what is held responsible.
const AGENT_NETWORK: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));

/// The start of a ClientHello, as far as the kernel looks.
const CLIENT_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// A gateway behind a veth pair, guarded, with a listener.
struct Site {
    agent: Namespace,
    guard: Guard,
    listener: TcpListener,
    address: SocketAddr,
    // After the guard: it is removed when nothing is attached any more.
    _cgroup: Cgroup,
    _gateway: Namespace,
}

impl Site {
    fn new() -> Self {
        Self::at("192.0.2.2:0", |attach| attach())
    }

    /// A site whose listener is at `address`, whose programs are attached inside `privileges`.
    fn at(address: &str, privileges: fn(&mut dyn FnMut())) -> Self {
        let (agent, gateway) = (Namespace::new(), Namespace::new());
        agent.connect(
            "agent",
            &["192.0.2.1/24", "2001:db8::1/64"],
            &gateway,
            "gateway",
            &["192.0.2.2/24", "2001:db8::2/64"],
        );
        let cgroup = Cgroup::new();
        let listener = gateway.enter(|| {
            cgroup.enter();
            TcpListener::bind(address).expect("the address is free")
        });
        let address = listener.local_addr().expect("it is bound");
        let object = object();
        let guard = gateway.enter(|| {
            let mut guard = None;
            privileges(&mut || {
                let interfaces = ["gateway".to_owned()];
                let mut attached = Guard::attach_object(&object, &interfaces, &[address.port()])
                    .expect("it attaches");
                attached.follow_flows(cgroup.open()).expect("it follows");
                guard = Some(attached);
            });
            guard.expect("it was attached")
        });
        Self {
            agent,
            guard,
            listener,
            address,
            _cgroup: cgroup,
            _gateway: gateway,
        }
    }

    /// A connection from the agent: its end and ours.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = self.agent.enter(|| {
            TcpStream::connect_timeout(&self.address, PATIENCE).expect("the listener is reached")
        });
        let (server, _) = self.listener.accept().expect("a connection comes");
        for stream in [&client, &server] {
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a timeout can be set");
        }
        (client, server)
    }

    fn counter(&self) -> PortCounter {
        self.guard.counts().expect("the counters can be read")[0].counter
    }

    /// Flows that came out in any way, by name.
    fn ends(&self) -> Vec<(&'static str, u64)> {
        let counter = self.counter();
        Reason::ALL
            .into_iter()
            .map(|reason| (reason.label(), counter.flow(reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn source(&self, address: IpAddr) -> SourceState {
        let sources = self.guard.sources().expect("the sources can be read");
        sources.get(&address).copied().unwrap_or_default()
    }

    /// Waits until no flow is pending.
    fn settle(&self, address: IpAddr) {
        eventually("no flow is pending", || {
            self.source(address).account.pending == 0
        });
    }
}

fn assert_drops_nothing(counter: &PortCounter) {
    for drop in Dropped::ALL {
        assert_eq!(counter.fate(Fate::Dropped(drop)), 0, "{}", drop.label());
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it does not come about: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Nanoseconds on the clock that the kernel programs read.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).expect("it is up") * 1_000_000_000
        + u64::try_from(now.tv_nsec).expect("it is positive")
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("it can be set");
    drop(stream);
}

fn read_to_end(mut stream: &TcpStream) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn a_flow_is_open_from_the_handshake_of_tcp_on_and_pending_until_the_verdict() {
    for (address, source) in [("192.0.2.2:0", AGENT), ("[2001:db8::2]:0", AGENT_NETWORK)] {
        let site = Site::at(address, |attach| attach());
        let (client, server) = site.connect();
        assert_eq!(site.counter().flows_opened, 1, "{address}");
        assert_eq!(site.source(source).account.pending, 1, "{address}");
        assert_eq!(site.ends(), []);

        say(&server, Reason::Authenticated).expect("the flow is known");
        assert_eq!(site.source(source).account.pending, 0, "{address}");
        assert_eq!(site.ends(), [("authenticated", 1)]);
        // What comes now is a packet of an authenticated flow.
        (&client).write_all(&[7; 100]).expect("it is sent");
        let mut received = [0; 100];
        (&server).read_exact(&mut received).expect("it arrives");
        assert!(
            site.counter().fate(Fate::Passed(Pass::Authenticated)) > 0,
            "{address}: {:?}",
            site.counter()
        );
        drop((client, server));
        assert_eq!(site.ends(), [("authenticated", 1)]);
    }
}

#[test]
fn a_dual_stack_listener_knows_flows_of_both_families() {
    let site = Site::at("[::]:0", |attach| attach());
    for (target, source) in [("192.0.2.2", AGENT), ("2001:db8::2", AGENT_NETWORK)] {
        let to = SocketAddr::new(target.parse().expect("an address"), site.address.port());
        let client = site
            .agent
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE).expect("it is reached"));
        let (server, _) = site.listener.accept().expect("a connection comes");
        assert_eq!(site.source(source).account.pending, 1, "{target}");
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        (&server)
            .read_exact(&mut CLIENT_HELLO.clone())
            .expect("it arrives");
        let pending = site.counter().fate(Fate::Passed(Pass::Pending));
        assert!(pending > 0, "packets find their flow: {:?}", site.counter());
        say(&server, Reason::Authenticated).expect("the flow is known");
    }
    assert_eq!(site.ends(), [("authenticated", 2)]);
}

#[test]
fn a_failure_is_counted_once_by_its_reason_and_charged_to_its_source() {
    for (address, source) in [("192.0.2.2:0", AGENT), ("[2001:db8::2]:0", AGENT_NETWORK)] {
        let site = Site::at(address, |attach| attach());
        let before_ns = now_ns();
        let (client, server) = site.connect();
        say(&server, Reason::UnknownIssuer).expect("the flow is known");
        say(&server, Reason::UnknownIssuer).expect("and still is");
        say(&server, Reason::Authenticated).expect("and still is");
        reset(client);
        read_to_end(&server);
        say(&server, Reason::Reset).expect("after its end too");
        drop(server);
        assert_eq!(site.ends(), [("unknown_issuer", 1)]);

        let state = site.source(source);
        let cost_ns =
            u64::from(Reason::UnknownIssuer.weight()) * Settings::new(mode::MONITOR).point_ns;
        assert!(state.account.clear_at_ns > before_ns + cost_ns, "{state:?}");
        assert!(state.account.clear_at_ns < now_ns() + cost_ns, "{state:?}");
        assert_eq!(state.account.pending, 0);
        assert_eq!(state.ban, None);
    }
}

#[test]
fn every_verdict_has_its_own_counter() {
    let site = Site::new();
    let mut expected = Vec::new();
    for reason in Reason::ALL {
        if matches!(reason, Reason::NoData | Reason::TooManyPending) {
            continue;
        }
        let (client, server) = site.connect();
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        (&server)
            .read_exact(&mut CLIENT_HELLO.clone())
            .expect("it arrives");
        say(&server, reason).expect("the flow is known");
        expected.push((reason.label(), 1));
    }
    assert_eq!(site.ends(), expected);
    assert_eq!(site.source(AGENT).account.pending, 0);
}

#[test]
fn what_is_no_verdict_is_left_to_the_kernel_which_does_not_know_it() {
    let site = Site::new();
    let (_client, server) = site.connect();
    // Only the kernel may find these.
    for reason in [Reason::NoData, Reason::TooManyPending] {
        let error = say(&server, reason).expect_err("it is no verdict");
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())
        );
    }
    assert_eq!(site.ends(), []);
    assert_eq!(site.source(AGENT).account.pending, 1);
}

#[test]
fn a_thousand_clients_that_close_right_after_the_handshake_are_never_failures() {
    let site = Site::new();
    for number in 0..1000 {
        let (client, server) = site.connect();
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        match number % 3 {
            0 => drop(client),
            1 => reset(client),
            _ => {
                (&client).write_all(&[23; 300]).expect("it is sent");
                client.shutdown(Shutdown::Write).expect("it is open");
                drop(client);
            }
        }
        // The client is gone before the verdict, often with the connection.
        read_to_end(&server);
        say(&server, Reason::Authenticated).expect("the socket still knows its flow");
    }
    site.settle(AGENT);
    assert_eq!(site.ends(), [("authenticated", 1000)]);
    assert_eq!(site.source(AGENT).ban, None);
    assert!(
        site.source(AGENT).account.clear_at_ns < now_ns(),
        "nothing was charged"
    );
}

#[test]
fn a_connection_without_a_byte_is_no_data_whatever_user_space_makes_of_it() {
    let site = Site::new();
    type Close = fn(TcpStream);
    for close in [drop::<TcpStream> as Close, reset] {
        // Nobody says anything.
        let (client, server) = site.connect();
        close(client);
        read_to_end(&server);
        drop(server);
        // User space saw an end.
        let (client, server) = site.connect();
        close(client);
        read_to_end(&server);
        say(&server, Reason::Reset).expect("the flow is known");
        drop(server);
    }
    site.settle(AGENT);
    assert_eq!(site.ends(), [("no_data", 4)]);
    assert!(
        site.source(AGENT).account.clear_at_ns < now_ns(),
        "health checks cost nothing"
    );
}

#[test]
fn bytes_that_are_not_tls_are_seen_in_the_kernel_and_counted_once() {
    let junk: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x04\x01\x00\x10\x01",
        b"x",
        &[0; 900],
    ];
    for bytes in junk {
        let site = Site::new();
        for verdict in [None, Some(Reason::Reset), Some(Reason::NotTls)] {
            let (client, server) = site.connect();
            (&client).write_all(bytes).expect("it is sent");
            drop(client);
            read_to_end(&server);
            if let Some(verdict) = verdict {
                say(&server, verdict).expect("the flow is known");
            }
            drop(server);
        }
        site.settle(AGENT);
        assert_eq!(site.ends(), [("not_tls", 3)], "{bytes:?}");
        let counter = site.counter();
        assert!(
            counter.fate(Fate::WouldDrop(Dropped::NotTls)) >= 3,
            "{bytes:?}: {counter:?}"
        );
        assert_drops_nothing(&counter);
    }
}

#[test]
fn a_source_that_fails_too_often_is_banned_and_still_served_in_monitor() {
    let site = Site::new();
    let weight = u64::from(Reason::BadSignature.weight());
    let settings = Settings::new(mode::MONITOR);
    let bearable = settings.ban_debt_ns / (weight * settings.point_ns);
    for number in 0..=bearable {
        assert_eq!(site.source(AGENT).ban, None, "after {number} failures");
        let (client, server) = site.connect();
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        (&server)
            .read_exact(&mut CLIENT_HELLO.clone())
            .expect("it arrives");
        say(&server, Reason::BadSignature).expect("the flow is known");
    }
    let ban = site.source(AGENT).ban.expect("it is banned");
    assert_eq!(ban.lasts_ns, settings.ban_first_ns);
    assert!(ban.until_ns > now_ns(), "the ban is in force");

    let (_client, _server) = site.connect();
    let counter = site.counter();
    assert!(
        counter.fate(Fate::WouldDrop(Dropped::Banned)) > 0,
        "{counter:?}"
    );
    assert_drops_nothing(&counter);
}

#[test]
fn two_capabilities_are_enough_to_follow_flows() {
    let site = Site::at("192.0.2.2:0", |attach| {
        let kept = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        // Of this thread alone, which ends with this call.
        set_capabilities(None, sets).expect("capabilities can be dropped");
        attach();
    });
    let (_client, server) = site.connect();
    say(&server, Reason::Expired).expect("the flow is known");
    assert_eq!(site.ends(), [("expired", 1)]);
}

#[test]
fn dropping_the_guard_leaves_nothing_that_follows_flows() {
    let site = Site::new();
    let (_client, server) = site.connect();
    say(&server, Reason::Authenticated).expect("the flow is known");
    let Site { guard, .. } = site;
    drop(guard);
    let error = say(&server, Reason::Authenticated).expect_err("nobody listens");
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())
    );
}
