//! Mode `enforce` on real connections over veth: what is dropped, what passes whatever happens, and what forged
//! packets cannot bring about.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use gateway_common::{
    Ban, DropReason, Listed, PacketVerdict, PassReason, Reason, Settings, Source, mode,
};
use gateway_guard::send_verdict;
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tests::eventually;

use crate::forge::{Forged, Forger};
use crate::programs::{now_ns, source};
use crate::topology::{AGENT, AGENT_NETWORK, CLIENT_HELLO, Topology, reset};

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3600 * SECOND_NS;

/// Long enough for a packet that is not dropped to have arrived many times over, and for a SYN to be sent twice.
const SILENCE: Duration = Duration::from_millis(1500);

/// Address of the listener and source of the agent, in both families.
const FAMILIES: [(&str, IpAddr); 2] = [("192.0.2.2:0", AGENT), ("[2001:db8::2]:0", AGENT_NETWORK)];

fn enforcing() -> Settings {
    Settings {
        alive_until_ns: now_ns() + HOUR_NS,
        ..Settings::new(mode::ENFORCE)
    }
}

fn banned_until(until_ns: u64) -> Option<Ban> {
    Some(Ban {
        until_ns,
        ..Ban::by_operator(0, now_ns(), HOUR_NS)
    })
}

impl Topology {
    fn dropped(&self, drop: DropReason) -> u64 {
        self.counter().packets_with(PacketVerdict::Dropped(drop))
    }

    /// Whether the agent's SYN is answered.
    fn is_reached(&self) -> bool {
        let connected = self
            .agent
            .enter(|| TcpStream::connect_timeout(&self.address, SILENCE));
        match connected {
            Ok(_) => {
                // Not the next one's.
                self.listener.accept().expect("a connection comes");
                true
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => false,
            Err(error) => panic!("neither silence nor a connection: {error}"),
        }
    }

    /// A connection that user space has let in.
    fn authenticated(&self) -> (TcpStream, TcpStream) {
        let (client, server) = self.connect();
        send_verdict(&server, Reason::Authenticated).expect("the flow is known");
        (client, server)
    }
}

/// Bytes get from one end to the other.
fn assert_flows(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from, to);
    from.write_all(&CLIENT_HELLO).expect("it is open");
    let mut received = [0; CLIENT_HELLO.len()];
    to.read_exact(&mut received).expect("it arrives");
    assert_eq!(received, CLIENT_HELLO);
}

fn assert_silence(mut stream: &TcpStream) {
    stream
        .set_read_timeout(Some(SILENCE))
        .expect("a timeout can be set");
    let error = stream.read(&mut [0; 64]).expect_err("nothing arrives");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    stream
        .set_read_timeout(Some(crate::topology::PATIENCE))
        .expect("a timeout can be set");
}

#[test]
fn a_ban_holds_up_new_and_unauthenticated_flows_and_leaves_the_others_alone() {
    for (address, agent) in FAMILIES {
        let mut topology = Topology::at(address, &enforcing());
        let (old_client, old_server) = topology.authenticated();
        let (new_client, new_server) = topology.connect();
        let ban = banned_until(now_ns() + HOUR_NS);
        topology.programs.set_ban(source(agent), ban);

        assert!(!topology.is_reached(), "{address}: new");
        (&new_client).write_all(&CLIENT_HELLO).expect("it is open");
        assert_silence(&new_server);
        assert_flows(&old_client, &old_server);
        assert_flows(&old_server, &old_client);
        assert!(
            topology.dropped(DropReason::Banned) >= 2,
            "{:?}",
            topology.counter()
        );

        // It ends by itself, and what was held up is sent again by TCP.
        topology
            .programs
            .set_ban(source(agent), banned_until(now_ns()));
        assert!(topology.is_reached(), "{address}: after the ban");
        let mut received = [0; CLIENT_HELLO.len()];
        (&new_server).read_exact(&mut received).expect("it arrives");
    }
}

#[test]
fn fifty_agents_keep_their_connections_when_a_bad_one_behind_their_address_is_banned() {
    let topology = Topology::at("192.0.2.2:0", &enforcing());
    let agents: Vec<_> = (0..50).map(|_| topology.authenticated()).collect();
    topology.fail_until_banned(Reason::UnknownIssuer);
    assert!(topology.ban(AGENT).is_some_and(|ban| ban.holds(now_ns())));
    for (client, server) in &agents {
        assert_flows(client, server);
        assert_flows(server, client);
    }
    assert!(!topology.is_reached(), "a new one of theirs has to wait");
    assert!(topology.dropped(DropReason::Banned) > 0);
    assert_eq!(
        topology.ends(),
        [("authenticated", 50), ("unknown_issuer", 11)]
    );
}

#[test]
fn the_end_of_a_connection_passes_whatever_is_held_against_it() {
    for (address, agent) in FAMILIES {
        let mut topology = Topology::at(address, &enforcing());
        let (by_fin, fin_server) = topology.connect();
        let (by_rst, rst_server) = topology.connect();
        let Source(listed) = source(agent);
        let ban = banned_until(now_ns() + HOUR_NS);
        topology.programs.set_ban(source(agent), ban);
        topology
            .programs
            .set_listed(listed, 64, Some(Listed::Denied));
        topology.programs.set_settings(&Settings {
            has_lists: 1,
            deadline_ns: 0,
            budget_bytes: 0,
            ..enforcing()
        });
        by_fin.shutdown(Shutdown::Write).expect("it is open");
        let end = (&fin_server).read(&mut [0]).expect("an end, no error");
        assert_eq!(end, 0, "{address}");
        reset(by_rst);
        let error = (&rst_server).read(&mut [0]).expect_err("it is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{address}");
        assert!(
            topology
                .counter()
                .packets_with(PacketVerdict::Passed(PassReason::Ending))
                >= 2
        );
    }
}

#[test]
fn a_source_gets_no_more_unauthenticated_flows_than_its_cap_and_one_for_each_that_is_let_in() {
    const CAP: usize = 8;
    for (address, agent) in FAMILIES {
        let topology = Topology::at(
            address,
            &Settings {
                pending_max: CAP as u64,
                ..enforcing()
            },
        );
        let idle: Vec<_> = (0..CAP).map(|_| topology.connect()).collect();
        for _ in 0..2 {
            assert!(!topology.is_reached(), "{address}: beyond the cap");
        }
        assert_eq!(topology.account(agent).pending, CAP as u64, "{address}");
        assert!(topology.dropped(DropReason::TooManyPending) >= 2);

        send_verdict(&idle[0].1, Reason::Authenticated).expect("the flow is known");
        let (client, server) = topology.connect();
        assert_flows(&client, &server);
        assert!(!topology.is_reached(), "{address}: at the cap again");
        // The others are within the cap, and none the worse for it.
        for (client, server) in &idle {
            assert_flows(client, server);
        }
    }
}

#[test]
fn of_many_that_connect_at_once_only_the_cap_gets_a_byte_through() {
    const CAP: u64 = 8;
    const ASKING: u64 = 24;
    let topology = Topology::at(
        "192.0.2.2:0",
        &Settings {
            pending_max: CAP,
            ..enforcing()
        },
    );
    // No answer finds its way back until all have asked: the cap cannot see them coming.
    let astray = ["192.0.2.1", "lladdr", "02:00:00:00:00:01", "dev", "gateway"];
    topology
        .gateway
        .ip(&[&["neighbour", "replace"], &astray[..]].concat());
    let clients: Vec<Socket> = topology.agent.enter(|| {
        let connecting = || {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("it is made");
            client.set_nonblocking(true).expect("it can be set");
            let error = client
                .connect(&topology.address.into())
                .expect_err("no answer");
            assert_eq!(error.raw_os_error(), Some(Errno::INPROGRESS.raw_os_error()));
            client
        };
        (0..ASKING).map(|_| connecting()).collect()
    });
    eventually("all have asked", || {
        let asked = topology
            .counter()
            .packets_with(PacketVerdict::Passed(PassReason::Opening));
        (asked >= ASKING).then_some(())
    });
    topology
        .gateway
        .ip(&["neighbour", "delete", "192.0.2.1", "dev", "gateway"]);
    eventually("all are answered", || {
        (topology.counter().flows_opened == ASKING).then_some(())
    });
    for client in &clients {
        client.send(&CLIENT_HELLO).expect("it is open");
    }
    eventually("those beyond the cap are cut off", || {
        (topology.dropped(DropReason::TooManyPending) >= ASKING - CAP).then_some(())
    });
    assert_eq!(topology.account(AGENT).pending, ASKING);
    let heard = (0..ASKING)
        .map(|_| topology.listener.accept().expect("a connection comes").0)
        .filter(|server| {
            let patience = Some(Duration::from_millis(50));
            server.set_read_timeout(patience).expect("it can be set");
            let mut server = server;
            server.read(&mut [0; 64]).is_ok()
        });
    assert_eq!(heard.count() as u64, CAP);
}

#[test]
fn bytes_beyond_the_budget_wait_for_the_verdict() {
    const BUDGET: u32 = 8192;
    for (address, _) in FAMILIES {
        let topology = Topology::at(
            address,
            &Settings {
                budget_bytes: BUDGET,
                ..enforcing()
            },
        );
        let (client, server) = topology.connect();
        let sent: Vec<u8> = CLIENT_HELLO
            .into_iter()
            .chain(std::iter::repeat_n(7, 50_000))
            .collect();
        let mut received = vec![0; sent.len()];
        thread::scope(|scope| {
            scope.spawn(|| (&client).write_all(&sent).expect("it is open"));
            eventually("the budget is used up", || {
                (topology.dropped(DropReason::ByteBudget) > 0).then_some(())
            });
            server
                .set_read_timeout(Some(SILENCE))
                .expect("a timeout can be set");
            let mut early = 0;
            while let Ok(read) = (&server).read(&mut received[early..]) {
                early += read;
            }
            assert!(early <= BUDGET as usize, "{address}: {early} bytes");
            // Let in, it has lost nothing: TCP sends again what was dropped.
            send_verdict(&server, Reason::Authenticated).expect("the flow is known");
            server
                .set_read_timeout(Some(crate::topology::PATIENCE))
                .expect("a timeout can be set");
            (&server)
                .read_exact(&mut received[early..])
                .expect("it arrives");
        });
        assert_eq!(received, sent);
    }
}

#[test]
fn a_flow_that_is_not_let_in_before_its_deadline_is_heard_no_more() {
    for (address, _) in FAMILIES {
        let mut topology = Topology::at(address, &enforcing());
        let (client, server) = topology.connect();
        let (let_in, let_in_server) = topology.authenticated();
        assert_flows(&client, &server);
        topology.programs.set_settings(&Settings {
            deadline_ns: 0,
            ..enforcing()
        });
        (&client).write_all(&CLIENT_HELLO).expect("it is open");
        assert_silence(&server);
        assert!(topology.dropped(DropReason::Deadline) > 0, "{address}");
        assert_flows(&let_in, &let_in_server);
        // User space, which has given up meanwhile, can still tell the client, whose end passes.
        send_verdict(&server, Reason::Timeout).expect("the flow is known");
        assert_flows(&server, &client);
        drop(server);
        assert_eq!((&client).read(&mut [0]).expect("an end"), 0);
    }
}

#[test]
fn first_bytes_that_are_not_tls_reach_user_space_which_can_refuse_at_once() {
    for (address, agent) in FAMILIES {
        let topology = Topology::at(address, &enforcing());
        let (client, server) = topology.connect();
        (&client)
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("it is open");
        let mut first = [0; 4];
        (&server).read_exact(&mut first).expect("it arrives");
        assert_eq!(&first, b"GET ");
        assert_eq!(
            topology
                .counter()
                .packets_with(PacketVerdict::Passed(PassReason::NotTls)),
            1
        );
        // Even a word that says less is counted as what the kernel saw.
        send_verdict(&server, Reason::Reset).expect("the flow is known");
        assert_eq!(topology.ends(), [("not_tls", 1)], "{address}");
        assert!(topology.account(agent).clear_at_ns > now_ns(), "{address}");
        for drop in DropReason::ALL {
            assert_eq!(topology.dropped(drop), 0, "{}", drop.label());
        }
    }
}

#[test]
fn lists_go_before_everything_else() {
    for (address, agent) in FAMILIES {
        let mut topology = Topology::at(address, &enforcing());
        let Source(listed) = source(agent);
        let (old_client, old_server) = topology.authenticated();

        topology
            .programs
            .set_listed(listed, 64, Some(Listed::Denied));
        assert!(
            topology.is_reached(),
            "{address}: the lists are not looked at"
        );
        topology.programs.set_settings(&Settings {
            has_lists: 1,
            ..enforcing()
        });
        assert!(!topology.is_reached(), "{address}: denied");
        (&old_client).write_all(&CLIENT_HELLO).expect("it is open");
        assert_silence(&old_server);
        assert!(
            topology.dropped(DropReason::Denied) >= 2,
            "{:?}",
            topology.counter()
        );

        // Allowed: in spite of a ban and of a cap of none, and with more bytes than there is a budget.
        topology.programs.set_settings(&Settings {
            has_lists: 1,
            pending_max: 0,
            budget_bytes: 0,
            deadline_ns: 0,
            ..enforcing()
        });
        let ban = banned_until(now_ns() + HOUR_NS);
        topology.programs.set_ban(source(agent), ban);
        topology
            .programs
            .set_listed(listed, 64, Some(Listed::Allowed));
        let (client, server) = topology.connect();
        assert_flows(&client, &server);
        assert!(
            topology
                .counter()
                .packets_with(PacketVerdict::Passed(PassReason::Allowed))
                > 0
        );

        // The longest prefix has the word.
        topology
            .programs
            .set_listed(listed, 0, Some(Listed::Denied));
        assert!(
            topology.is_reached(),
            "{address}: the nearer network counts"
        );
        topology.programs.set_listed(listed, 64, None);
        assert!(!topology.is_reached(), "{address}: denied with everybody");
    }
}

#[test]
fn nothing_is_dropped_any_more_when_nobody_answers_for_the_program() {
    let mut topology = Topology::at("192.0.2.2:0", &enforcing());
    let ban = banned_until(now_ns() + HOUR_NS);
    topology.programs.set_ban(source(AGENT), ban);
    assert!(!topology.is_reached());
    topology.programs.set_settings(&Settings {
        alive_until_ns: now_ns(),
        ..enforcing()
    });
    let (client, server) = topology.connect();
    assert_flows(&client, &server);
    assert!(
        topology
            .counter()
            .packets_with(PacketVerdict::WouldDrop(DropReason::Banned))
            > 0
    );
}

#[test]
fn a_flood_of_syns_in_a_victims_name_does_not_lock_the_victim_out() {
    for (address, agent) in FAMILIES {
        let mut topology = Topology::at(
            address,
            &Settings {
                pending_max: 4,
                ..enforcing()
            },
        );
        let victim: IpAddr = match agent {
            IpAddr::V4(_) => agent,
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        };
        let (client, server) = topology.authenticated();
        topology.agent.enter(|| {
            let mut forger = Forger::new(topology.address);
            for number in 0..20_000_u32 {
                // Below the ports that a host chooses from: the victim's own host answers none of them for it.
                let port = 1024 + (number % 30_000) as u16;
                forger.send(Forged::Syn, SocketAddr::new(victim, port), number << 12);
            }
        });
        // A busy host loses some of them on the way; a thousand times the cap is a flood all the same.
        let arrived = topology
            .counter()
            .packets_with(PacketVerdict::Passed(PassReason::Opening));
        assert!(arrived >= 4000, "{address}: {arrived} arrived");
        for drop in DropReason::ALL {
            assert_eq!(topology.dropped(drop), 0, "{address}: {}", drop.label());
        }
        assert_eq!(topology.account(agent).pending, 0, "{address}");
        assert_eq!(topology.ban(agent), None, "{address}");
        assert_eq!(topology.programs.events(), []);
        assert_flows(&client, &server);
        let (client, server) = topology.authenticated();
        assert_flows(&client, &server);
        assert_eq!(topology.ends(), [("authenticated", 2)], "{address}");
    }
}

/// The addresses that forged packets come from: 2^17 of them in each family, which no host has.
fn stranger(family: IpAddr, number: u32) -> SocketAddr {
    let low = number & 0x1_ffff;
    let address = match family {
        IpAddr::V4(_) => {
            let network = Ipv4Addr::new(198, 18, 0, 0).to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(network | low))
        }
        IpAddr::V6(_) => {
            let network = Ipv6Addr::new(0x2001, 0x2, 0, 0, 0, 0, 0, 1).to_bits();
            IpAddr::V6(Ipv6Addr::from_bits(network | u128::from(low) << 64))
        }
    };
    let port = 1024 + (number >> 17) as u16;
    SocketAddr::new(address, port)
}

/// Sends forged packets of one kind from as many strangers, on both CPUs of a small machine.
fn forge(topology: &Topology, kind: Forged, count: u32) {
    let to = topology.address;
    topology.agent.enter(|| {
        thread::scope(|scope| {
            for half in 0..2 {
                // It inherits the namespace of the thread that starts it.
                scope.spawn(move || {
                    let mut forger = Forger::new(to);
                    for number in (half..count).step_by(2) {
                        let sequence = number.wrapping_mul(0x9e37_79b9);
                        forger.send(kind, stranger(to.ip(), number), sequence);
                    }
                });
            }
        });
    });
}

/// Forges packets until so many have got this verdict: a busy host loses some of them on the way.
fn forge_until(topology: &Topology, kind: Forged, pass: PassReason, count: u64) {
    for _ in 0..50 {
        let counted = topology.counter().packets_with(PacketVerdict::Passed(pass));
        let missing = count.saturating_sub(counted);
        if missing == 0 {
            return;
        }
        forge(
            topology,
            kind,
            u32::try_from(missing).expect("a million at most"),
        );
    }
    panic!("too few arrive: {:?}", topology.counter());
}

#[test]
fn a_million_forged_packets_push_out_no_authenticated_flow_and_no_ban() {
    const EACH: u32 = 250_000;
    const BANS: u32 = 1000;
    const FLOWS: u64 = 50;
    for (address, agent) in FAMILIES {
        let mut topology = Topology::at(address, &enforcing());
        // Where the answers go, so that the strangers stay silent.
        for network in ["198.18.0.0/15", "2001:2::/48"] {
            topology.gateway.ip(&["route", "add", "blackhole", network]);
        }
        let open: Vec<_> = (0..FLOWS).map(|_| topology.authenticated()).collect();
        let before = topology.account(agent);
        let until_ns = now_ns() + HOUR_NS;
        let banned = |number: u32| {
            let bits = Ipv4Addr::new(203, 0, 113, 0).to_bits() + number;
            source(IpAddr::V4(Ipv4Addr::from_bits(bits)))
        };
        for number in 0..BANS {
            let ban = banned_until(until_ns);
            topology.programs.set_ban(banned(number), ban);
        }
        forge_until(
            &topology,
            Forged::Syn,
            PassReason::Opening,
            u64::from(EACH) + FLOWS,
        );
        forge_until(&topology, Forged::Ack, PassReason::Unknown, u64::from(EACH));

        let counter = topology.counter();
        assert_eq!(topology.programs.flow_count() as u64, FLOWS, "{address}");
        assert_eq!(counter.flows_opened, FLOWS, "{address}");
        for number in 0..BANS {
            let ban = topology.programs.ban(banned(number));
            assert_eq!(ban.map(|ban| ban.until_ns), Some(until_ns), "{number}");
        }
        assert_eq!(topology.account(agent), before, "{address}");
        assert_eq!(
            topology.programs.account_count(),
            1,
            "strangers have no accounts"
        );
        for (client, server) in &open {
            assert_flows(client, server);
        }
        assert_eq!(topology.programs.events(), []);
    }
}

#[test]
fn forged_ends_in_an_authenticated_flows_name_leave_it_authenticated() {
    let topology = Topology::at("192.0.2.2:0", &enforcing());
    let (client, server) = topology.authenticated();
    let local = client.local_addr().expect("it is connected");
    topology.agent.enter(|| {
        let mut forger = Forger::new(topology.address);
        // Sequence numbers outside of the window: RFC 5961 has them ignored, and the kernel program trusts the stack.
        for number in 0..1000_u32 {
            forger.send(Forged::Rst, local, number.wrapping_mul(0x0100_0001));
            forger.send(Forged::Syn, local, number.wrapping_mul(0x0100_0001));
        }
    });
    assert_flows(&client, &server);
    assert_eq!(topology.programs.flow_count(), 1);
    let authenticated = topology
        .counter()
        .packets_with(PacketVerdict::Passed(PassReason::Authenticated));
    assert!(authenticated > 0, "{:?}", topology.counter());
}
