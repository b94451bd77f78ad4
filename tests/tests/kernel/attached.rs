//! The guard attached: real TCP connections over veth and loopback in namespaces, every way to be refused, detaching,
//! and the capabilities it takes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use gateway_guard::{AttachMode, Attachment, Guard, GuardError, PortCount};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::namespace::Namespace;
use crate::object;

const PORT: u16 = 4317;
const IDLE_PORT: u16 = 4318;
const UNPROTECTED_PORT: u16 = 8080;

/// linux/if_link.h
const XDP_NATIVE: Option<u64> = Some(1);
const XDP_GENERIC: Option<u64> = Some(2);

const PATIENCE: Duration = Duration::from_secs(20);
const PAYLOAD_BYTES: usize = 200_000;
/// Ethernet, IPv6, TCP with all options.
const HEADER_BYTES_MAX: u64 = 14 + 40 + 60;
/// Ethernet, IPv4, TCP without options.
const HEADER_BYTES_MIN: u64 = 14 + 20 + 20;

/// Two namespaces joined by a veth pair, `agent` in one and `gateway` in the other.
struct Wire {
    agent: Namespace,
    gateway: Namespace,
}

impl Wire {
    fn new() -> Self {
        let wire = Self {
            agent: Namespace::new(),
            gateway: Namespace::new(),
        };
        wire.agent.connect(
            "agent",
            &["192.0.2.1/24", "2001:db8::1/64"],
            &wire.gateway,
            "gateway",
            &["192.0.2.2/24", "2001:db8::2/64"],
        );
        wire
    }

    /// Sends from the agent's namespace to a listener in the gateway's.
    fn send(&self, to: &str) {
        transfer(&self.agent, &self.gateway, to.parse().expect("an address"));
    }
}

/// One connection from `client` to a listener in `server`: `PAYLOAD_BYTES` one way, all of which must arrive.
fn transfer(client: &Namespace, server: &Namespace, to: SocketAddr) {
    thread::scope(|scope| {
        let (listening, is_listening) = mpsc::channel();
        let receiver = scope.spawn(move || {
            server.enter(|| {
                let listener = TcpListener::bind(to).expect("the address is free");
                listening.send(()).expect("the other side waits");
                let (mut connection, _) = listener.accept().expect("a connection comes");
                connection
                    .set_read_timeout(Some(PATIENCE))
                    .expect("a timeout can be set");
                let mut received = Vec::new();
                connection
                    .read_to_end(&mut received)
                    .expect("the payload arrives");
                received.len()
            })
        });
        is_listening
            .recv_timeout(PATIENCE)
            .expect("the listener starts");
        client.enter(|| {
            let mut connection =
                TcpStream::connect_timeout(&to, PATIENCE).expect("the listener is reached");
            connection
                .set_write_timeout(Some(PATIENCE))
                .expect("a timeout can be set");
            connection
                .write_all(&vec![7; PAYLOAD_BYTES])
                .expect("the payload is sent");
            connection
                .shutdown(Shutdown::Write)
                .expect("the end is sent");
            connection
                .set_read_timeout(Some(PATIENCE))
                .expect("a timeout can be set");
            let answer = connection.read(&mut [0]).expect("the end is answered");
            assert_eq!(answer, 0);
        });
        assert_eq!(receiver.join().expect("the receiver ends"), PAYLOAD_BYTES);
    });
}

fn attach(namespace: &Namespace, interfaces: &[&str]) -> Result<Guard, GuardError> {
    let object = object();
    let interfaces: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
    namespace.enter(|| Guard::attach_object(&object, &interfaces, &[IDLE_PORT, PORT]))
}

fn attachment(interface: &str, mode: AttachMode) -> Attachment {
    Attachment {
        interface: interface.to_owned(),
        mode,
    }
}

/// Counter of `PORT`, after checking that nothing else was counted.
fn count(guard: &Guard) -> PortCount {
    let counts = guard.counts().expect("the counters can be read");
    let [busy, idle] = counts.as_slice() else {
        panic!("two ports are protected: {counts:?}");
    };
    assert_eq!((busy.port, idle.port), (PORT, IDLE_PORT));
    assert_eq!((idle.packets, idle.bytes), (0, 0));
    *busy
}

/// What came between two readings must be one `transfer`, whose segments may have been sent twice.
fn assert_one_transfer(before: PortCount, after: PortCount) {
    let packets = after.packets - before.packets;
    let bytes = after.bytes - before.bytes;
    let payload = PAYLOAD_BYTES as u64;
    // At least SYN, ACK, data and FIN.
    assert!(packets >= 4, "{packets} packets");
    assert!(
        bytes >= payload + packets * HEADER_BYTES_MIN,
        "{bytes} bytes in {packets} packets"
    );
    assert!(
        bytes <= 2 * payload + packets * HEADER_BYTES_MAX,
        "{bytes} bytes in {packets} packets"
    );
}

#[test]
fn real_connections_over_veth_are_counted_natively() {
    let wire = Wire::new();
    let guard = attach(&wire.gateway, &["gateway"]).expect("it attaches");
    assert_eq!(
        guard.attachments(),
        [attachment("gateway", AttachMode::Native)]
    );
    assert_eq!(wire.gateway.xdp_mode("gateway"), XDP_NATIVE);
    let start = count(&guard);
    assert_eq!((start.packets, start.bytes), (0, 0));

    wire.send(&format!("192.0.2.2:{PORT}"));
    let ipv4 = count(&guard);
    assert_one_transfer(start, ipv4);
    wire.send(&format!("[2001:db8::2]:{PORT}"));
    let ipv6 = count(&guard);
    assert_one_transfer(ipv4, ipv6);
    wire.send(&format!("192.0.2.2:{UNPROTECTED_PORT}"));
    assert_eq!(
        count(&guard),
        ipv6,
        "a port that is not protected is not counted"
    );
}

#[test]
fn loopback_has_no_native_mode_and_is_counted_generically() {
    let namespace = Namespace::new();
    let guard = attach(&namespace, &["lo"]).expect("it attaches");
    assert_eq!(guard.attachments(), [attachment("lo", AttachMode::Generic)]);
    assert_eq!(namespace.xdp_mode("lo"), XDP_GENERIC);
    let start = count(&guard);
    let to = SocketAddr::from(([127, 0, 0, 1], PORT));
    transfer(&namespace, &namespace, to);
    assert_one_transfer(start, count(&guard));
}

#[test]
fn several_interfaces_are_counted_together_each_in_its_own_mode() {
    let wire = Wire::new();
    let guard = attach(&wire.gateway, &["lo", "gateway", "lo"]).expect("it attaches");
    let expected = [
        attachment("gateway", AttachMode::Native),
        attachment("lo", AttachMode::Generic),
    ];
    assert_eq!(guard.attachments(), expected);
    let start = count(&guard);
    wire.send(&format!("192.0.2.2:{PORT}"));
    let between = count(&guard);
    assert_one_transfer(start, between);
    transfer(
        &wire.gateway,
        &wire.gateway,
        SocketAddr::from(([127, 0, 0, 1], PORT)),
    );
    assert_one_transfer(between, count(&guard));
}

#[test]
fn loopback_is_left_alone_unless_it_is_named() {
    let wire = Wire::new();
    let _guard = attach(&wire.gateway, &["gateway"]).expect("it attaches");
    assert_eq!(wire.gateway.xdp_mode("lo"), None);
}

#[test]
fn dropping_the_guard_detaches_from_every_interface() {
    let wire = Wire::new();
    let guard = attach(&wire.gateway, &["gateway", "lo"]).expect("it attaches");
    assert_eq!(wire.gateway.xdp_mode("gateway"), XDP_NATIVE);
    assert_eq!(wire.gateway.xdp_mode("lo"), XDP_GENERIC);
    drop(guard);
    assert_eq!(wire.gateway.xdp_mode("gateway"), None);
    assert_eq!(wire.gateway.xdp_mode("lo"), None);
    // And the way is free for the next one.
    attach(&wire.gateway, &["gateway", "lo"]).expect("it attaches again");
}

#[test]
fn the_object_in_the_binary_attaches_too() {
    let namespace = Namespace::new();
    let guard = namespace
        .enter(|| Guard::attach(&["lo".to_owned()], &[PORT]))
        .expect("it attaches");
    assert_eq!(guard.attachments(), [attachment("lo", AttachMode::Generic)]);
}

#[test]
fn an_interface_that_does_not_exist_is_named_and_the_others_are_left_alone() {
    let wire = Wire::new();
    for absent in ["no-such", "", "a-name-of-sixteen", "no\0such", "../gateway"] {
        // "gateway" is attached before the others fail, or after, by the order of the names.
        let error =
            attach(&wire.gateway, &["gateway", absent]).expect_err("there is no such interface");
        match &error {
            GuardError::NoSuchInterface { interface } => assert_eq!(interface, absent),
            other => panic!("{absent:?}: {other}"),
        }
        assert_eq!(wire.gateway.xdp_mode("gateway"), None, "{absent:?}");
    }
}

#[test]
fn another_program_on_the_interface_is_reported_and_stays() {
    let wire = Wire::new();
    for interface in ["gateway", "lo"] {
        let first = attach(&wire.gateway, &[interface]).expect("it attaches");
        let error = attach(&wire.gateway, &[interface]).expect_err("the interface is taken");
        match &error {
            GuardError::InterfaceBusy {
                interface: busy,
                reason,
            } => {
                assert_eq!(busy, interface);
                assert!(
                    reason.contains("os error"),
                    "the kernel's words are missing: {reason}"
                );
            }
            other => panic!("{interface}: {other}"),
        }
        assert!(error.to_string().contains(interface), "{error}");
        assert!(
            wire.gateway.xdp_mode(interface).is_some(),
            "the first one stays"
        );
        first.counts().expect("and still counts");
    }
}

/// Attaches to `lo` on a thread that is left with `kept` capabilities only.
fn attach_with(namespace: &Namespace, kept: CapabilitySet) -> Result<Guard, GuardError> {
    let object = object();
    namespace.enter(|| {
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        // Of this thread alone, which ends with this call.
        set_capabilities(None, sets).expect("capabilities can be dropped");
        assert_eq!(
            capabilities(None).expect("they can be read").effective,
            kept
        );
        Guard::attach_object(&object, &["lo".to_owned()], &[PORT])
    })
}

#[test]
fn two_capabilities_are_enough() {
    let namespace = Namespace::new();
    let guard = attach_with(&namespace, CapabilitySet::BPF | CapabilitySet::NET_ADMIN)
        .expect("CAP_BPF and CAP_NET_ADMIN suffice");
    let to = SocketAddr::from(([127, 0, 0, 1], PORT));
    transfer(&namespace, &namespace, to);
    let counts = guard.counts().expect("the counters can be read");
    assert!(counts[0].packets > 0, "{counts:?}");
}

#[test]
fn each_missing_capability_is_said_and_nothing_is_attached() {
    let namespace = Namespace::new();
    // What the kernel can do is asked once in a process: not by one that may not ask.
    drop(attach(&namespace, &["lo"]).expect("it attaches"));
    for kept in [
        CapabilitySet::empty(),
        CapabilitySet::BPF,
        CapabilitySet::NET_ADMIN,
    ] {
        let error = attach_with(&namespace, kept).expect_err("a capability is missing");
        assert!(
            matches!(error, GuardError::MissingCapability { .. }),
            "with {kept:?}: {error}"
        );
        assert!(
            error.to_string().contains("CAP_BPF CAP_NET_ADMIN"),
            "{error}"
        );
        assert_eq!(namespace.xdp_mode("lo"), None);
    }
}
