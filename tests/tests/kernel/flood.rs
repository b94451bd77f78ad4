//! Floods of the load generator that take namespaces: forged SYNs over a wire of their own, and where no answer comes.
//! In: `portcullis-loadgen flood` in one namespace. Out: its report, and the packets that arrived in the other.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tests::program;

use crate::namespace::Namespace;

const COUNT: u64 = 3000;
const TARGET: &str = "192.0.2.2:4317";
const SOURCES: &str = "198.18.0.0-198.18.3.255";

/// Hears all TCP that comes into the namespace it is made in.
fn listener() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("root may");
    // Nothing is read before all has been sent, and systems allow less than that unless they are forced.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20)
        .expect("root may have more than others");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout can be set");
    socket
}

/// Sources and ports of the SYNs that a raw socket holds, in the order of their arrival.
fn heard(mut socket: &Socket) -> Vec<SocketAddr> {
    let mut packet = [0; 2048];
    let mut sources = Vec::new();
    loop {
        let length = match socket.read(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sources,
            Err(error) => panic!("{error}"),
        };
        let sliced = SlicedPacket::from_ip(&packet[..length]).expect("the kernel has checked it");
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
            panic!("{sliced:?}")
        };
        let header = sliced.net.as_ref().and_then(|net| net.ipv4_ref());
        let source = header.expect("an IPv4 socket").header().source_addr();
        assert!(tcp.syn() && !tcp.ack(), "{sliced:?}");
        assert_eq!(tcp.destination_port(), 4317);
        sources.push(SocketAddr::new(IpAddr::V4(source), tcp.source_port()));
    }
}

/// A flood in this thread's namespace: exit code, report, what it said on standard error.
fn flood(kind: &str, target: &str, arguments: &[&str]) -> (i32, Value, String) {
    let output = Command::new(program("portcullis-loadgen"))
        .args(["flood", kind, "--json", "--target", target])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("it ends"), report, errors)
}

#[test]
fn every_forged_syn_arrives_once_and_each_under_a_name_of_its_own() {
    let (attacker, victim) = (Namespace::new(), Namespace::new());
    attacker.connect("out", &["192.0.2.1/24"], &victim, "in", &["192.0.2.2/24"]);
    let socket = victim.enter(listener);
    let (code, report, errors) = attacker.enter(|| {
        let count = COUNT.to_string();
        let arguments = ["--sources", SOURCES, "--rate", "5000", "--count", &count];
        flood("syn", TARGET, &arguments)
    });
    assert_eq!(code, 0, "{errors}");
    assert_eq!(report["flood"]["kinds"]["syn"]["made"], COUNT, "{report:#}");

    let heard = heard(&socket);
    assert_eq!(heard.len() as u64, COUNT);
    let distinct: HashSet<&SocketAddr> = heard.iter().collect();
    assert_eq!(
        distinct.len() as u64,
        COUNT,
        "an address and port came twice"
    );
    let addresses: HashSet<IpAddr> = heard.iter().map(SocketAddr::ip).collect();
    assert_eq!(addresses.len(), 1024, "each of the sources had its turn");
}

#[test]
fn inside_a_namespace_every_target_is_allowed_and_what_cannot_be_sent_is_not_counted_as_made() {
    let (attacker, nobody) = (Namespace::new(), Namespace::new());
    attacker.connect("out", &["192.0.2.1/24"], &nobody, "in", &[]);
    // Frames for a station that is not there: no answer, and no error either.
    let station = ["192.0.2.2", "lladdr", "02:00:00:00:00:01", "dev", "out"];
    attacker.ip(&[&["neighbour", "add"], &station[..]].concat());
    let arguments = ["--rate", "200", "--count", "8", "--timeout", "300ms"];
    let (code, report, errors) = attacker.enter(|| flood("idle", TARGET, &arguments));
    assert_eq!(code, 0, "{errors}");
    let expected = json!({ "made": 8, "connected": 0, "outcomes": { "unanswered": 8 } });
    assert_eq!(report["flood"]["kinds"]["idle"], expected);

    // There is no way to this one: nothing leaves the host.
    let (code, report, errors) = attacker.enter(|| flood("idle", "203.0.113.1:4317", &arguments));
    assert_eq!(code, 1, "{errors}");
    assert_eq!(report["flood"]["kinds"], json!({}), "{report:#}");
    assert_eq!(report["failures"]["not_made"]["count"], 8, "{report:#}");
}

#[test]
fn forged_packets_leave_a_shared_namespace_only_where_somebody_said_that_they_may() {
    // From this host to this host: the answers go nowhere else.
    let mut arguments = vec!["--rate", "200", "--count", "5", "--sources", "127.0.0.9"];
    let (code, report, errors) = flood("syn", "127.0.0.1:9", &arguments);
    assert_eq!((code, report), (2, Value::Null), "{errors}");
    assert!(errors.contains("forged"), "{errors}");

    arguments.push("--i-am-allowed-to-attack-this-target");
    let (code, report, errors) = flood("syn", "127.0.0.1:9", &arguments);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(report["flood"]["kinds"]["syn"]["outcomes"]["sent"], 5);
}
