//! What the demo needs before it starts: a temporary folder with two authorities, certificates and a configuration
//! file, and the receiver behind the gateway. In: nothing. Out: a `DemoSetup`; its drop removes everything.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use gateway_core::failure::Failure;
use gateway_guard::Guard;
use gateway_pki::{Authority, Issued, Profile, Request};
use loadgen::client::Target;
use loadgen::credentials::{Identity, roots};
use loadgen::fleet::Agent;
use loadgen::otlp::Protocol;
use loadgen::receiver::{Receiver, Stats};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::impostors::Impostor;

/// The agents: name, transport, tenant that their rule gives them.
const AGENTS: [(&str, Protocol, &str); 4] = [
    ("checkout", Protocol::Grpc, "shop"),
    ("payments", Protocol::Grpc, "finance"),
    ("search", Protocol::Http, "shop"),
    ("warehouse", Protocol::Http, "logistics"),
];

/// Agents that write another tenant into their requests: the gateway has to put the right one in its place.
const FORGERS: [(&str, &str); 2] = [("checkout", "finance"), ("warehouse", "shop")];

/// The identity for the reader's own SDK.
const READER: &str = "reader";

/// Validity of the demo's certificates: longer than any demo runs.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The default port of OTLP clients; where it is taken, the demo takes another free one.
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;

/// Everything that the demo needs before it starts.
pub struct DemoSetup {
    folder: TempDir,
    receiver: Receiver,
    ports: Ports,
    reservations: Vec<Reservation>,
    agents: Vec<Issued>,
    reader: Issued,
    foreign: Issued,
    unlisted: Issued,
    configuration_file: PathBuf,
    kernel_refusal: Option<String>,
}

/// The gateway's ports.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
}

impl DemoSetup {
    /// Makes everything. After an error nothing of it stays.
    pub fn make() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("portcullis-demo-").context("a temporary folder")?;
        let authority = Authority::init(folder.path(), "Portcullis demo CA", LIFETIME)?;
        authority.issue(&server_request())?;
        let agents = AGENTS
            .iter()
            .map(|(name, ..)| authority.issue(&client_request(name)))
            .collect::<Result<_, _>>()?;
        let reader = authority.issue(&client_request(READER))?;
        let unlisted = authority.issue(&client_request("unlisted"))?;
        let foreign = Authority::init(&folder.path().join("foreign"), "Foreign CA", LIFETIME)?
            .issue(&client_request("checkout"))?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let receiver = Receiver::start(any, any).context("starting the receiver")?;
        let reservations = vec![Reservation::of(GRPC_PORT)?, Reservation::of(HTTP_PORT)?];
        let ports = Ports {
            grpc: reservations[0].port()?,
            http: reservations[1].port()?,
        };
        let kernel_refusal = kernel_refusal(ports);
        let configuration_file = folder.path().join("portcullis.toml");
        let text = configuration(ports, &receiver, kernel_refusal.is_none())?;
        fs::write(&configuration_file, text).context("writing the configuration")?;
        Ok(Self {
            folder,
            receiver,
            ports,
            reservations,
            agents,
            reader,
            foreign,
            unlisted,
            configuration_file,
            kernel_refusal,
        })
    }

    /// The configuration the gateway is started with.
    pub fn configuration_file(&self) -> &Path {
        &self.configuration_file
    }

    /// Leaves the ports to the gateway, which listens on them now, before a connection reaches the reservation.
    pub fn release_ports(&mut self) {
        self.reservations.clear();
    }

    /// Why the kernel does not count, if it does not.
    pub fn kernel_refusal(&self) -> Option<&str> {
        self.kernel_refusal.as_deref()
    }

    /// The gateway's ports.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// What has arrived behind the gateway.
    pub fn arrived(&self) -> Stats {
        self.receiver.stats()
    }

    /// The CA certificate that the reader's SDK must trust.
    pub fn authority_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The certificate that the reader's SDK must present.
    pub fn reader(&self) -> &Issued {
        &self.reader
    }

    /// The tenant of an agent, by its rule.
    pub fn tenant(agent: &str) -> &'static str {
        AGENTS
            .iter()
            .find(|(name, ..)| *name == agent)
            .map_or("", |(_, _, tenant)| tenant)
    }

    /// The tenant that an agent claims to be of, against its rule.
    pub fn claimed_tenant(agent: &str) -> Option<&'static str> {
        let mut forgers = FORGERS.iter();
        let found = forgers.find(|(name, _)| *name == agent);
        found.map(|(_, tenant)| *tenant)
    }

    /// The agents, ready to run.
    pub fn agents(&self) -> anyhow::Result<Vec<Agent>> {
        AGENTS
            .iter()
            .zip(&self.agents)
            .map(|((name, protocol, _), issued)| {
                Ok(Agent {
                    name: (*name).to_owned(),
                    service_name: "portcullis-demo".to_owned(),
                    protocol: *protocol,
                    target: self.target(*protocol, Some(issued))?,
                    interval: Duration::from_millis(100),
                    records: 20,
                    claimed_tenant: Self::claimed_tenant(name),
                })
            })
            .collect()
    }

    /// The impostors, each with the reason that the gateway must refuse it for.
    pub fn impostors(&self) -> anyhow::Result<Vec<Impostor>> {
        let cases = [
            ("no certificate", None, Failure::NoCertificate),
            (
                "certificate of a foreign CA",
                Some(&self.foreign),
                Failure::UnknownIssuer,
            ),
            (
                "good certificate, no rule for it",
                Some(&self.unlisted),
                Failure::NotAuthorized,
            ),
        ];
        cases
            .into_iter()
            .map(|(name, certificate, reason)| {
                Ok(Impostor {
                    name,
                    reason,
                    target: self.target(Protocol::Grpc, certificate)?,
                })
            })
            .collect()
    }

    /// Ends the receiver and removes the folder.
    pub fn clear(self) -> anyhow::Result<()> {
        drop(self.receiver);
        self.folder.close().context("removing the demo's folder")
    }

    fn target(&self, protocol: Protocol, certificate: Option<&Issued>) -> anyhow::Result<Target> {
        let port = match protocol {
            Protocol::Grpc => self.ports.grpc,
            Protocol::Http => self.ports.http,
        };
        let identities = certificate
            .map(|issued| Identity::load("demo", &issued.certificate, &issued.key))
            .transpose()?;
        Ok(Target::new(
            &format!("127.0.0.1:{port}"),
            roots(&[self.authority_file()])?,
        )?
        .with_identities(identities.into_iter().collect())
        .with_alpn(&[protocol.alpn()]))
    }
}

fn server_request() -> Request {
    Request {
        dns_names: vec!["localhost".to_owned()],
        ip_addresses: vec![Ipv4Addr::LOCALHOST.into()],
        ..request("gateway", Profile::Server)
    }
}

fn client_request(name: &str) -> Request {
    Request {
        uris: vec![uri(name)],
        ..request(name, Profile::Client)
    }
}

fn uri(name: &str) -> String {
    format!("spiffe://demo.example/agent/{name}")
}

fn request(name: &str, profile: Profile) -> Request {
    Request {
        name: name.to_owned(),
        profile,
        uris: Vec::new(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        lifetime: LIFETIME,
        not_before: None,
    }
}

/// A port that no other process can take until the gateway has it. It listens, because only a listener keeps other
/// processes from a port that connections of an earlier demo still occupy. It is shared only after that, with the
/// gateway's workers, which all bind with `SO_REUSEPORT`.
struct Reservation(Socket);

impl Reservation {
    /// The wanted port if it is free on loopback, else one the kernel chooses.
    fn of(wanted: u16) -> anyhow::Result<Self> {
        Self::bind(wanted)
            .or_else(|_| Self::bind(0))
            .context("no free port on loopback")
    }

    fn bind(port: u16) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        socket.listen(1)?;
        socket.set_reuse_port(true)?;
        Ok(Self(socket))
    }

    fn port(&self) -> anyhow::Result<u16> {
        let address = self.0.local_addr()?.as_socket();
        Ok(address.context("a TCP socket has an IP address")?.port())
    }
}

/// Tries the kernel program on loopback, where the demo's packets are, and says why it cannot run.
fn kernel_refusal(ports: Ports) -> Option<String> {
    Guard::attach(&["lo".to_owned()], &[ports.grpc, ports.http])
        .err()
        .map(|error| error.to_string())
}

fn configuration(ports: Ports, receiver: &Receiver, kernel: bool) -> anyhow::Result<String> {
    let mut text = String::from("drain_timeout = \"2s\"\n");
    if kernel {
        text.push_str("\n[guard]\nmode = \"monitor\"\ninterfaces = [\"lo\"]\n");
    }
    let pairs = [
        ("otlp-grpc", ports.grpc, "h2", receiver.grpc_address()),
        ("otlp-http", ports.http, "http/1.1", receiver.http_address()),
    ];
    for (name, port, protocol, backend) in pairs {
        write!(
            text,
            r#"
[[listener]]
name = "{name}"
address = "127.0.0.1:{port}"
mode = "http"
alpn = ["{protocol}"]
certificate = "gateway.pem"
key = "gateway.key"
client_ca = ["ca.pem"]
backend = "{name}"

[[backend]]
name = "{name}"
servers = ["{backend}"]
protocol = "{protocol}"
"#
        )?;
    }
    let readers = [(READER, "reader")];
    let agents = AGENTS.iter().map(|(name, _, tenant)| (*name, *tenant));
    for (name, tenant) in agents.chain(readers) {
        let uri = uri(name);
        write!(
            text,
            "\n[[identity]]\nmatch = {{ uri = \"{uri}\" }}\ntenant = \"{tenant}\"\nallow = [\"otlp\"]\n"
        )?;
    }
    Ok(text)
}
