//! A gateway's host and an agent's, in namespaces of their own, joined by veth; the kernel programs on the gateway's
//! interface and on a cgroup that its listener was made in. In: settings. Out: connections, and what the kernel made of
//! them. The gateway is played by the test: it accepts, reads and says its verdicts.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use gateway_common::{
    Account, Ban, DropReason, PacketVerdict, PortCounter, Reason, Settings, mode,
};
use gateway_guard::send_verdict;
use socket2::SockRef;
use tests::eventually;

use crate::cgroup::Cgroup;
use crate::namespace::Namespace;
use crate::programs::{Programs, source};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The first address of the agent's /64: that is what is held responsible.
pub const AGENT_NETWORK: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0));

/// The start of a ClientHello, as far as the kernel looks.
pub const CLIENT_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// A gateway behind a veth pair, guarded, with a listener.
pub struct Topology {
    pub agent: Namespace,
    pub gateway: Namespace,
    pub programs: Programs,
    pub listener: TcpListener,
    pub address: SocketAddr,
    // After the programs: it is removed when nothing is attached any more.
    pub cgroup: Cgroup,
}

impl Topology {
    /// In mode `monitor`, with a listener at an IPv4 address.
    pub fn new() -> Self {
        Self::at("192.0.2.2:0", &Settings::new(mode::MONITOR))
    }

    pub fn at(address: &str, settings: &Settings) -> Self {
        Self::attached(address, settings, Programs::load)
    }

    /// A topology whose programs are loaded by `load`, with the privileges that their thread has then.
    pub fn attached(address: &str, settings: &Settings, load: fn() -> Programs) -> Self {
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
        let programs = gateway.enter(|| {
            let mut programs = load();
            programs.set_settings(settings);
            programs.protect(address.port());
            programs.attach("gateway");
            programs.follow(&cgroup.open());
            programs
        });
        Self {
            agent,
            gateway,
            programs,
            listener,
            address,
            cgroup,
        }
    }

    /// A connection from the agent: its end and ours.
    pub fn connect(&self) -> (TcpStream, TcpStream) {
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

    pub fn counter(&self) -> PortCounter {
        self.programs.counter(self.address.port())
    }

    /// Flows that came out in any way, by name.
    pub fn ends(&self) -> Vec<(&'static str, u64)> {
        let counter = self.counter();
        Reason::ALL
            .into_iter()
            .map(|reason| (reason.label(), counter.flow(reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    pub fn account(&self, address: IpAddr) -> Account {
        self.programs.account(source(address)).unwrap_or_default()
    }

    pub fn ban(&self, address: IpAddr) -> Option<Ban> {
        self.programs.ban(source(address))
    }

    /// A client whose handshake fails.
    pub fn fail(&self, reason: Reason) {
        let (client, server) = self.connect();
        (&client).write_all(&CLIENT_HELLO).expect("it is sent");
        let mut received = [0; CLIENT_HELLO.len()];
        (&server).read_exact(&mut received).expect("it arrives");
        send_verdict(&server, reason).expect("the flow is known");
    }

    /// As many failures as a source may have at once, and one more.
    pub fn fail_until_banned(&self, reason: Reason) {
        let settings = Settings::new(mode::MONITOR);
        let bearable = settings.ban_debt_ns / (u64::from(reason.weight()) * settings.point_ns);
        for number in 0..=bearable {
            assert_eq!(self.ban(AGENT), None, "after {number} failures");
            self.fail(reason);
        }
    }

    /// Waits until no flow is pending.
    pub fn settle(&self, address: IpAddr) {
        eventually("no flow is pending", || {
            (self.account(address).pending == 0).then_some(())
        });
    }
}

pub fn assert_drops_nothing(counter: &PortCounter) {
    for drop in DropReason::ALL {
        assert_eq!(
            counter.packets_with(PacketVerdict::Dropped(drop)),
            0,
            "{}",
            drop.label()
        );
    }
}

pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("it can be set");
    drop(stream);
}

pub fn read_to_end(mut stream: &TcpStream) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}
