//! Connections whose three-way handshake is under way when one process of a gateway follows another. In: a client whose packets
//! are made by hand, so that its ACK comes when the test says so. Out: who serves it, with and without the setting that
//! `deploy/90-portcullis.conf` ships.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is test code, helpers included"
)]

use std::io::Read;
use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tests::{PATIENCE, eventually};

use crate::topology::{INTERFACE, Topology};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GATEWAY_PORT: u16 = 4317;
/// No interface has it, so that no kernel answers for it.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const CLIENT_PORT: u16 = 40_000;
/// Of the first byte that it sends.
const SEQUENCE: u32 = 1_000_001;
/// `IPPROTO_RAW` of raw(7): packets bring their own IP header.
const WHOLE_PACKETS: i32 = 255;
/// `ETH_P_IP` of packet(7), in network order.
const IPV4_PACKETS: i32 = 0x0800_u16.to_be() as i32;

struct HandMade {
    sends: Socket,
    hears: Socket,
}

impl HandMade {
    fn on(topology: &Topology) -> Self {
        let links = topology
            .agents_host
            .ip(&["-json", "link", "show", "dev", "agent0"]);
        let links: serde_json::Value = serde_json::from_str(&links).unwrap();
        let link = links[0]["address"].as_str().unwrap();
        topology.shell(&format!(
            "ip neigh replace {CLIENT} lladdr {link} dev {INTERFACE} nud permanent"
        ));
        topology.agents_host.enter(|| {
            let raw = Some(Protocol::from(WHOLE_PACKETS));
            let all = Some(Protocol::from(IPV4_PACKETS));
            let hears = Socket::new(Domain::PACKET, Type::DGRAM, all).unwrap();
            hears
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            HandMade {
                sends: Socket::new(Domain::IPV4, Type::RAW, raw).unwrap(),
                hears,
            }
        })
    }

    fn send(&self, acknowledged: Option<u32>, payload: &[u8]) {
        let ip = PacketBuilder::ipv4(CLIENT.octets(), GATEWAY.octets(), 64);
        let tcp = match acknowledged {
            None => ip
                .tcp(CLIENT_PORT, GATEWAY_PORT, SEQUENCE - 1, 64_240)
                .syn(),
            Some(next) => ip
                .tcp(CLIENT_PORT, GATEWAY_PORT, SEQUENCE, 64_240)
                .ack(next),
        };
        let mut packet = Vec::new();
        tcp.write(&mut packet, payload).unwrap();
        let whither = SockAddr::from(std::net::SocketAddr::from((GATEWAY, 0)));
        self.sends.send_to(&packet, &whither).unwrap();
    }

    /// The next packet for it that `is_meant`.
    fn hear(&self, is_meant: impl Fn(&TcpHeader) -> bool) -> TcpHeader {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            assert!(std::time::Instant::now() < deadline, "no such packet");
            let mut packet = [0; 2048];
            let count = (&self.hears).read(&mut packet).unwrap();
            let packet = &packet[..count];
            let Ok(sliced) = SlicedPacket::from_ip(packet) else {
                continue;
            };
            let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
                (sliced.net, sliced.transport)
            else {
                continue;
            };
            let is_ours = ip.header().destination_addr() == CLIENT;
            let header = tcp.to_header();
            if is_ours && header.destination_port == CLIENT_PORT && is_meant(&header) {
                return header;
            }
        }
    }
}

#[test]
fn a_connection_whose_handshake_is_under_way_goes_over_to_the_next_process_where_the_kernel_is_told_so()
 {
    const OFF: &str = "mode = \"off\"";
    for migrates in [false, true] {
        let topology = Topology::new();
        let value = u8::from(migrates);
        topology.shell(&format!(
            "echo {value} > /proc/sys/net/ipv4/tcp_migrate_req"
        ));
        let mut first = topology.start(OFF);
        let client = HandMade::on(&topology);
        client.send(None, b"");
        let answer = client.hear(|tcp| tcp.syn && tcp.ack);
        let second = topology.succeed("portcullis");
        // It has nobody to wait for.
        assert!(first.process.wait().success(), "{}", first.log());
        let next = answer.sequence_number.wrapping_add(1);
        client.send(Some(next), b"GET / HTTP/1.1\r\n\r\n");
        // The kernel may repeat its SYN in between.
        let answer = client.hear(|tcp| !tcp.syn);
        assert_eq!(answer.rst, !migrates, "{answer:?}");
        eventually("the next process has it, or never had it", || {
            let labels = [("listener", "edge")];
            let accepted = second
                .metrics()
                .count("portcullis_connections_accepted_total", &labels);
            (accepted == u64::from(migrates)).then_some(())
        });
    }
}
