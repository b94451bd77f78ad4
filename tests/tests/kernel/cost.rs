//! What the programs on the cgroup cost, and that they change nothing else there. In: real sockets. Out: figures, which
//! are printed and not asserted.

use std::net::TcpStream;
use std::time::Instant;

use gateway_common::{Reason, Settings, mode};
use gateway_guard::send_verdict;
use rustix::net::sockopt::{set_tcp_nodelay, tcp_nodelay};
use socket2::SockRef;

use crate::topology::{AGENT, Topology};

/// Nanoseconds that setting an option that is none of ours took on each socket, in the best of rounds that alternate:
/// others use the CPU too.
fn set_other_option_ns(sockets: [&TcpStream; 2]) -> [u128; 2] {
    const CALLS: u32 = 10_000;
    let mut best = [u128::MAX; 2];
    for _ in 0..30 {
        for (socket, best) in sockets.iter().zip(&mut best) {
            let start = Instant::now();
            for number in 0..CALLS {
                set_tcp_nodelay(socket, number % 2 == 0).expect("TCP has it");
            }
            *best = start.elapsed().as_nanos().min(*best);
        }
    }
    for socket in sockets {
        let is_set = tcp_nodelay(socket).expect("TCP has it");
        assert!(!is_set, "the last call counts");
    }
    best.map(|all| all / u128::from(CALLS))
}

#[test]
fn other_options_are_set_as_ever() {
    let topology = Topology::new();
    let (outside, inside) = topology.connect();
    let [without, with] = set_other_option_ns([&outside, &inside]);
    eprintln!("another option: {without} ns without the program, {with} ns with it");
    // Longer than the part of a value that the kernel shows to programs, which old kernels refuse.
    let mut name = b"reno".to_vec();
    name.resize(5000, 0);
    for socket in [&outside, &inside] {
        let socket = SockRef::from(socket);
        socket
            .set_tcp_congestion(&name)
            .expect("any length is allowed");
        let set = socket.tcp_congestion().expect("TCP has one");
        assert_eq!(set.strip_suffix(&[0; 12]), Some(&b"reno"[..]));
    }
}

#[test]
fn a_verdict_is_one_call_whose_cost_is_printed() {
    const FLOWS: u32 = 500;
    let topology = Topology::at("192.0.2.2:0", &Settings::new(mode::MONITOR));
    for reason in [Reason::Authenticated, Reason::Expired] {
        let mut best = u128::MAX;
        let before = topology.counter().flow(reason);
        for _ in 0..4 {
            let open: Vec<_> = (0..FLOWS).map(|_| topology.connect()).collect();
            let start = Instant::now();
            for (_, server) in &open {
                send_verdict(server, reason).expect("the flow is known");
            }
            best = best.min(start.elapsed().as_nanos() / u128::from(FLOWS));
        }
        eprintln!("verdict {}: {best} ns", reason.label());
        assert_eq!(
            topology.counter().flow(reason) - before,
            u64::from(4 * FLOWS)
        );
    }
    topology.settle(AGENT);
}
