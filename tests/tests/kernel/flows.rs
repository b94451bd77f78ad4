//! The life of real flows: connections over veth to a listener in a child cgroup, user space's verdicts on them, and
//! what the kernel counts, tells and holds against their source.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use gateway_common::{
    BanEvent, DropReason, EVENTS_BYTES, Listed, Overflow, PacketVerdict, PassReason, Reason,
    Settings, Source, mode,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use gateway_guard::send_verdict;
use tests::eventually;

use crate::programs::{Programs, now_ns, source};
use crate::topology::{
    AGENT, AGENT_NETWORK, CLIENT_HELLO, PATIENCE, Topology, assert_drops_nothing, read_to_end,
    reset,
};

#[test]
fn a_flow_is_open_from_the_handshake_of_tcp_on_and_pending_until_the_verdict() {
    for (address, source) in [("192.0.2.2:0", AGENT), ("[2001:db8::2]:0", AGENT_NETWORK)] {
        let topology = Topology::at(address, &Settings::new(mode::MONITOR));
        let (client, server) = topology.connect();
        assert_eq!(topology.counter().flows_opened, 1, "{address}");
        assert_eq!(topology.account(source).pending, 1, "{address}");
        assert_eq!(topology.ends(), []);

        send_verdict(&server, Reason::Authenticated).expect("the flow is known");
        assert_eq!(topology.account(source).pending, 0, "{address}");
        assert_eq!(topology.ends(), [("authenticated", 1)]);
        // What comes now is a packet of an authenticated flow.
        (&client).write_all(&[7; 100]).expect("it is sent");
        let mut received = [0; 100];
        (&server).read_exact(&mut received).expect("it arrives");
        assert!(
            topology
                .counter()
                .packets_with(PacketVerdict::Passed(PassReason::Authenticated))
                > 0,
            "{address}: {:?}",
            topology.counter()
        );
        drop((client, server));
        assert_eq!(topology.ends(), [("authenticated", 1)]);
    }
}

#[test]
fn a_dual_stack_listener_knows_flows_of_both_families() {
    let topology = Topology::at("[::]:0", &Settings::new(mode::MONITOR));
    for (target, source) in [("192.0.2.2", AGENT), ("2001:db8::2", AGENT_NETWORK)] {
        let to = SocketAddr::new(target.parse().expect("an address"), topology.address.port());
        let client = topology
            .agent
            .enter(|| TcpStream::connect_timeout(&to, PATIENCE).expect("it is reached"));
        let (server, _) = topology.listener.accept().expect("a connection comes");
        assert_eq!(topology.account(source).pending, 1, "{target}");
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        (&server)
            .read_exact(&mut CLIENT_HELLO.clone())
            .expect("it arrives");
        let pending = topology
            .counter()
            .packets_with(PacketVerdict::Passed(PassReason::Pending));
        assert!(
            pending > 0,
            "packets find their flow: {:?}",
            topology.counter()
        );
        send_verdict(&server, Reason::Authenticated).expect("the flow is known");
    }
    assert_eq!(topology.ends(), [("authenticated", 2)]);
}

#[test]
fn a_failure_is_counted_once_by_its_reason_and_charged_to_its_source() {
    for (address, source) in [("192.0.2.2:0", AGENT), ("[2001:db8::2]:0", AGENT_NETWORK)] {
        let topology = Topology::at(address, &Settings::new(mode::MONITOR));
        let before_ns = now_ns();
        let (client, server) = topology.connect();
        send_verdict(&server, Reason::UnknownIssuer).expect("the flow is known");
        send_verdict(&server, Reason::UnknownIssuer).expect("and still is");
        send_verdict(&server, Reason::Authenticated).expect("and still is");
        reset(client);
        read_to_end(&server);
        send_verdict(&server, Reason::Reset).expect("after its end too");
        drop(server);
        assert_eq!(topology.ends(), [("unknown_issuer", 1)]);

        let account = topology.account(source);
        let cost_ns =
            u64::from(Reason::UnknownIssuer.weight()) * Settings::new(mode::MONITOR).point_ns;
        assert!(account.clear_at_ns > before_ns + cost_ns, "{account:?}");
        assert!(account.clear_at_ns < now_ns() + cost_ns, "{account:?}");
        assert_eq!(account.pending, 0);
        assert_eq!(topology.ban(source), None);
    }
}

#[test]
fn every_verdict_has_its_own_counter() {
    let topology = Topology::new();
    let mut expected = Vec::new();
    for reason in Reason::ALL {
        if matches!(reason, Reason::NoData | Reason::TooManyPending) {
            continue;
        }
        let (client, server) = topology.connect();
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        (&server)
            .read_exact(&mut CLIENT_HELLO.clone())
            .expect("it arrives");
        send_verdict(&server, reason).expect("the flow is known");
        expected.push((reason.label(), 1));
    }
    assert_eq!(topology.ends(), expected);
    assert_eq!(topology.account(AGENT).pending, 0);
}

#[test]
fn what_is_no_verdict_is_left_to_the_kernel_which_does_not_know_it() {
    let topology = Topology::new();
    let (_client, server) = topology.connect();
    // Only the kernel may find these.
    for reason in [Reason::NoData, Reason::TooManyPending] {
        let error = send_verdict(&server, reason).expect_err("it is no verdict");
        assert_eq!(
            error.raw_os_error(),
            Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())
        );
    }
    assert_eq!(topology.ends(), []);
    assert_eq!(topology.account(AGENT).pending, 1);
}

#[test]
fn a_thousand_clients_that_close_right_after_the_handshake_are_never_failures() {
    let topology = Topology::new();
    for number in 0..1000 {
        let (client, server) = topology.connect();
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
        send_verdict(&server, Reason::Authenticated).expect("the socket still knows its flow");
    }
    topology.settle(AGENT);
    assert_eq!(topology.ends(), [("authenticated", 1000)]);
    assert_eq!(topology.ban(AGENT), None);
    assert!(
        topology.account(AGENT).clear_at_ns < now_ns(),
        "nothing was charged"
    );
}

#[test]
fn a_connection_without_a_byte_is_no_data_whatever_user_space_makes_of_it() {
    let topology = Topology::new();
    type Close = fn(TcpStream);
    for close in [drop::<TcpStream> as Close, reset] {
        // Nobody says anything.
        let (client, server) = topology.connect();
        close(client);
        read_to_end(&server);
        drop(server);
        // User space saw an end.
        let (client, server) = topology.connect();
        close(client);
        read_to_end(&server);
        send_verdict(&server, Reason::Reset).expect("the flow is known");
        drop(server);
    }
    topology.settle(AGENT);
    assert_eq!(topology.ends(), [("no_data", 4)]);
    assert!(
        topology.account(AGENT).clear_at_ns < now_ns(),
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
        let topology = Topology::new();
        for verdict in [None, Some(Reason::Reset), Some(Reason::NotTls)] {
            let (client, server) = topology.connect();
            (&client).write_all(bytes).expect("it is sent");
            drop(client);
            read_to_end(&server);
            if let Some(verdict) = verdict {
                send_verdict(&server, verdict).expect("the flow is known");
            }
            drop(server);
        }
        topology.settle(AGENT);
        assert_eq!(topology.ends(), [("not_tls", 3)], "{bytes:?}");
        let counter = topology.counter();
        assert!(
            counter.packets_with(PacketVerdict::Passed(PassReason::NotTls)) >= 3,
            "{bytes:?}: {counter:?}"
        );
        assert_drops_nothing(&counter);
    }
}

#[test]
fn a_source_that_fails_too_often_is_banned_and_still_served_in_monitor() {
    let topology = Topology::new();
    topology.fail_until_banned(Reason::BadSignature);
    let ban = topology.ban(AGENT).expect("it is banned");
    assert_eq!(ban.lasts_ns, Settings::new(mode::MONITOR).ban_first_ns);
    assert_eq!(ban.tipped_by(), Some(Reason::BadSignature));
    assert_eq!(ban.ordered_by(), None, "no operator had a part in it");
    assert!(ban.until_ns > now_ns(), "the ban is in force");

    let (_client, _server) = topology.connect();
    let counter = topology.counter();
    assert!(
        counter.packets_with(PacketVerdict::WouldDrop(DropReason::Banned)) > 0,
        "{counter:?}"
    );
    assert_drops_nothing(&counter);
}

#[test]
fn a_ban_is_told_once_when_it_begins() {
    let mut topology = Topology::new();
    assert_eq!(topology.programs.events(), []);
    topology.fail_until_banned(Reason::Malformed);
    // And half as much again, which tips the account a second time, within the ban.
    for _ in 0..15 {
        topology.fail(Reason::UnknownIssuer);
    }
    let ban = topology.ban(AGENT).expect("it is banned");
    let expected = BanEvent {
        source: source(AGENT),
        ban,
        local_port: topology.address.port(),
        padding: 0,
        more_padding: 0,
    };
    assert_eq!(topology.programs.events(), [expected]);
    for overflow in Overflow::ALL {
        assert_eq!(
            topology.programs.overflows(overflow),
            0,
            "{}",
            overflow.label()
        );
    }
}

#[test]
fn bans_that_nobody_reads_of_are_counted_when_they_no_longer_fit() {
    // One failure is a ban, and none lasts: each is a new one.
    let settings = Settings {
        ban_debt_ns: 0,
        ban_first_ns: 0,
        ban_memory_ns: 0,
        ..Settings::new(mode::MONITOR)
    };
    let mut topology = Topology::at("192.0.2.2:0", &settings);
    // Each record is preceded by eight bytes of the kernel's, and one byte always stays free.
    let fits = (EVENTS_BYTES - 1) / (size_of::<BanEvent>() as u32 + 8);
    let made = fits + 7;
    for _ in 0..made {
        let (client, server) = topology.connect();
        send_verdict(&server, Reason::Malformed).expect("the flow is known");
        reset(client);
    }
    assert_eq!(topology.programs.events().len(), fits as usize);
    assert_eq!(
        topology.programs.overflows(Overflow::BanEvent),
        u64::from(made - fits)
    );
    assert_eq!(
        topology.programs.overflows(Overflow::Ban),
        0,
        "the bans themselves hold"
    );
    // There is room again.
    topology.fail(Reason::Malformed);
    assert_eq!(topology.programs.events().len(), 1);
}

#[test]
fn a_source_that_is_always_let_through_is_neither_charged_nor_counted_as_pending() {
    let settings = Settings {
        pending_max: 1,
        has_lists: 1,
        ..Settings::new(mode::MONITOR)
    };
    let mut topology = Topology::at("192.0.2.2:0", &settings);
    let Source(agent) = source(AGENT);
    topology
        .programs
        .set_listed(agent, 128, Some(Listed::Allowed));
    let open: Vec<_> = (0..5).map(|_| topology.connect()).collect();
    assert_eq!(topology.account(AGENT).pending, 0);
    for (_, server) in &open {
        for _ in 0..5 {
            send_verdict(server, Reason::Malformed).expect("the flow is known");
        }
    }
    assert_eq!(topology.ends(), [("malformed", 5)], "counted all the same");
    assert_eq!(topology.programs.account(source(AGENT)), None);

    // The word counts from the moment it is said, and a flow that was not counted is not taken off.
    let (_client, before) = topology.connect();
    topology.programs.set_listed(agent, 128, None);
    let (_client, after) = topology.connect();
    assert_eq!(topology.account(AGENT).pending, 1);
    send_verdict(&before, Reason::Malformed).expect("the flow is known");
    assert_eq!(topology.account(AGENT).pending, 1);
    send_verdict(&after, Reason::Authenticated).expect("the flow is known");
    assert_eq!(topology.account(AGENT).pending, 0);
    let counter = topology.counter();
    for drop in DropReason::ALL {
        let would = counter.packets_with(PacketVerdict::WouldDrop(drop));
        assert_eq!(would, 0, "{}: {counter:?}", drop.label());
    }
}

#[test]
fn programs_that_are_attached_twice_count_everything_once() {
    let topology = {
        let mut topology = Topology::new();
        let cgroup = topology.cgroup.open();
        topology.programs.follow(&cgroup);
        topology
    };
    // Said while it is open.
    let (client, server) = topology.connect();
    assert_eq!(topology.counter().flows_opened, 1);
    assert_eq!(topology.account(AGENT).pending, 1);
    send_verdict(&server, Reason::UnknownIssuer).expect("the flow is known");
    let after_one = topology.account(AGENT);
    assert_eq!(after_one.pending, 0);
    let cost_ns = u64::from(Reason::UnknownIssuer.weight()) * Settings::new(mode::MONITOR).point_ns;
    assert!(after_one.clear_at_ns < now_ns() + cost_ns, "charged twice");
    drop((client, server));
    // Said after its end.
    let (client, server) = topology.connect();
    (&client).write_all(&CLIENT_HELLO).expect("it is sent");
    reset(client);
    read_to_end(&server);
    send_verdict(&server, Reason::Authenticated).expect("the flow is known");
    // Not said at all.
    for _ in 0..2 {
        let (client, server) = topology.connect();
        assert_eq!(topology.account(AGENT).pending, 1);
        reset(client);
        read_to_end(&server);
        drop(server);
        topology.settle(AGENT);
    }
    assert_eq!(topology.counter().flows_opened, 4);
    let expected = [("authenticated", 1), ("unknown_issuer", 1), ("no_data", 2)];
    assert_eq!(topology.ends(), expected);
    eventually("no flow is left", || {
        (topology.programs.flow_count() == 0).then_some(())
    });
    assert_eq!(topology.account(AGENT).clear_at_ns, after_one.clear_at_ns);
}

/// Leaves this thread, which ends soon, with the capabilities that a gateway has.
fn drop_privileges() {
    let kept = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).expect("capabilities can be dropped");
}

#[test]
fn two_capabilities_are_enough_to_follow_flows() {
    let mut topology = Topology::attached("192.0.2.2:0", &Settings::new(mode::MONITOR), || {
        drop_privileges();
        Programs::load()
    });
    let (_client, server) = topology.connect();
    send_verdict(&server, Reason::Expired).expect("the flow is known");
    assert_eq!(topology.ends(), [("expired", 1)]);
    assert_eq!(topology.programs.lines(), [""; 0], "nobody asked for any");
}

#[test]
fn lines_about_flows_and_bans_come_where_they_are_asked_for_with_the_same_capabilities() {
    let settings = Settings {
        ban_debt_ns: 0,
        ..Settings::new(mode::MONITOR)
    };
    for (address, agent) in [
        ("192.0.2.2:0", "192.0.2.1"),
        ("[2001:db8::2]:0", "2001:db8::1"),
    ] {
        let mut topology = Topology::attached(address, &settings, || {
            drop_privileges();
            Programs::load_with_lines()
        });
        let (client, server) = topology.connect();
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        send_verdict(&server, Reason::Expired).expect("the flow is known");
        let agent = match agent.parse::<IpAddr>().expect("an address") {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_string(),
            IpAddr::V6(address) => address.to_string(),
        };
        let local = topology.address.port();
        let remote = client.local_addr().expect("it is connected").port();
        let (expired, first_ns) = (Reason::Expired.index(), settings.ban_first_ns);
        let expected = [
            format!("port {local}: flow of {agent} port {remote} opened, over cap 0"),
            format!("port {local}: flow of {agent} port {remote} came out, reason {expired}"),
            format!("port {local}: source of {agent} banned for {first_ns} ns, reason {expired}"),
        ];
        assert_eq!(topology.programs.lines(), expected);
    }
}

#[test]
fn unloading_the_programs_leaves_nothing_that_follows_flows() {
    let topology = Topology::new();
    let (_client, server) = topology.connect();
    send_verdict(&server, Reason::Authenticated).expect("the flow is known");
    let Topology { programs, .. } = topology;
    drop(programs);
    let error = send_verdict(&server, Reason::Authenticated).expect_err("nobody listens");
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())
    );
}
