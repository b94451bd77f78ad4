//! The kinds of work that servers are compared in, and one run of each. In: a server, a kind, backends. Out: the cost
//! of a unit of work for the server and for the client. A run in which anything failed is an error, not a figure.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::job::{FORGED_TENANT, Http, Job, TENANT, TENANT_FIELD};
use crate::process::Process;
use crate::server::{Running, Server};
use crate::transport::Transport;
use crate::workspace::Workspace;
use crate::{load, metrics};

/// Work to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkKind {
    /// Full handshakes.
    Full,
    /// Resumed handshakes.
    Resumed,
    /// Full handshakes with X25519MLKEM768, by servers that have it.
    Hybrid,
    /// Messages of 1 KiB there and back on held connections.
    #[value(name = "echo-1k")]
    EchoSmall,
    /// Messages of 16 KiB there and back on held connections.
    #[value(name = "echo-16k")]
    EchoLarge,
    /// Bulk data from clients to the backend.
    Up,
    /// Bulk data from the backend to clients.
    Down,
    /// Connections that are held and send nothing.
    Idle,
    /// Requests of gRPC from HTTP/2 to HTTP/2, 16 at once on each of 4 connections.
    #[value(name = "h2-4x16")]
    H2FewBusy,
    /// The same, one at a time on each of 64 connections.
    #[value(name = "h2-64x1")]
    H2ManyBusy,
    /// The same on 8 connections.
    #[value(name = "h2-8x1")]
    H2Few,
    /// The same with 64 KiB, 4 at once on each of 4 connections.
    #[value(name = "h2-64k-4x4")]
    H2Large,
    /// The same with 526 bytes on 200 connections, 2,000 a second in all.
    #[value(name = "h2-paced-200")]
    H2Paced,
    /// Requests of OTLP/HTTP from HTTP/1.1 to HTTP/2, one at a time on each of 64 connections.
    #[value(name = "h1-h2-64")]
    H1ToH2,
    /// The same from HTTP/1.1 to HTTP/1.1.
    #[value(name = "h1-64")]
    H1,
    /// Connections of HTTP/2 that have had one request and are held.
    #[value(name = "h2-idle")]
    H2Idle,
    /// Full handshakes with a server of HTTP/2, without a request.
    #[value(name = "h2-full")]
    H2Full,
    /// Resumed ones.
    #[value(name = "h2-resumed")]
    H2Resumed,
}

/// What one unit of work took.
#[derive(Debug, Clone, Copy)]
pub struct WorkCost {
    /// The server's.
    pub server: f64,
    /// The client's, where it means something.
    pub client: Option<f64>,
}

/// How much work one run does. A whole one takes a second of the server's CPU or more, because the kernel counts in
/// steps of 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// For figures.
    Whole,
    /// A tenth, to see that it works.
    Tenth,
}

impl Amount {
    fn of(self, whole: u64) -> String {
        match self {
            Self::Whole => whole,
            Self::Tenth => whole / 10,
        }
        .to_string()
    }
}

impl WorkKind {
    /// As on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is hidden");
        value.get_name().to_owned()
    }

    /// What it is, for headings.
    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "full handshake",
            Self::Resumed => "resumed handshake",
            Self::Hybrid => "full handshake with X25519MLKEM768",
            Self::EchoSmall => "1 KiB echo",
            Self::EchoLarge => "16 KiB echo",
            Self::Up => "stream to the backend",
            Self::Down => "stream to the client",
            Self::Idle => "idle connection",
            Self::H2FewBusy => "gRPC request, HTTP/2, 4 connections x 16",
            Self::H2ManyBusy => "gRPC request, HTTP/2, 64 connections x 1",
            Self::H2Few => "gRPC request, HTTP/2, 8 connections x 1",
            Self::H2Large => "gRPC request of 64 KiB, HTTP/2, 4 connections x 4",
            Self::H2Paced => "gRPC request, HTTP/2, 200 connections, 2,000 a second",
            Self::H1ToH2 => "request, HTTP/1.1 to HTTP/2, 64 connections",
            Self::H1 => "request, HTTP/1.1, 64 connections",
            Self::H2Idle => "idle connection of HTTP/2",
            Self::H2Full => "full handshake, HTTP/2",
            Self::H2Resumed => "resumed handshake, HTTP/2",
        }
    }

    /// What its figures are.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Full | Self::Resumed | Self::Hybrid | Self::H2Full | Self::H2Resumed => {
                "us of CPU per handshake"
            }
            Self::H2FewBusy
            | Self::H2ManyBusy
            | Self::H2Few
            | Self::H2Large
            | Self::H2Paced
            | Self::H1ToH2
            | Self::H1 => "us of CPU per request",
            Self::EchoSmall | Self::EchoLarge => "us of CPU per echo",
            Self::Up | Self::Down => "ms of CPU per GiB",
            Self::Idle | Self::H2Idle => "KiB of memory per connection",
        }
    }

    /// Whether a server can do it.
    pub fn suits(self, server: &Server) -> bool {
        match self {
            Self::Hybrid => server.is_hybrid,
            // Without TLS every connection is made the same way, and `Full` stands for them all.
            Self::Resumed => server.transport == Transport::Tls,
            kind if kind.job() != Job::Relay => server.transport == Transport::Tls,
            _ => true,
        }
    }

    /// What servers are started for.
    pub fn job(self) -> Job {
        let (clients, backend) = match self {
            Self::Full
            | Self::Resumed
            | Self::Hybrid
            | Self::EchoSmall
            | Self::EchoLarge
            | Self::Up
            | Self::Down
            | Self::Idle => return Job::Relay,
            Self::H1ToH2 => (Http::One, Http::Two),
            Self::H1 => (Http::One, Http::One),
            Self::H2FewBusy
            | Self::H2ManyBusy
            | Self::H2Few
            | Self::H2Large
            | Self::H2Paced
            | Self::H2Idle
            | Self::H2Full
            | Self::H2Resumed => (Http::Two, Http::Two),
        };
        Job::Requests { clients, backend }
    }

    /// Whether its load is requests, which a backend counts.
    fn has_requests(self) -> bool {
        self.job() != Job::Relay && self.scenario() != "handshake"
    }

    fn scenario(self) -> &'static str {
        match self {
            Self::Full | Self::Resumed | Self::Hybrid | Self::H2Full | Self::H2Resumed => {
                "handshake"
            }
            Self::H1ToH2 | Self::H1 => Http::One.scenario(),
            Self::H2FewBusy
            | Self::H2ManyBusy
            | Self::H2Few
            | Self::H2Large
            | Self::H2Paced
            | Self::H2Idle => Http::Two.scenario(),
            Self::EchoSmall | Self::EchoLarge => "echo",
            Self::Up | Self::Down => "stream",
            Self::Idle => "idle",
        }
    }

    fn arguments(self, amount: Amount) -> Vec<String> {
        let handshakes = |mode: &str, count: u64| {
            let count = amount.of(count);
            format!("--mode {mode} --connections 8 --count {count}")
        };
        let echoes = |size: &str, count: u64| {
            let count = amount.of(count);
            format!("--size {size} --connections 50 --count {count}")
        };
        let stream = |direction: &str| {
            let mebibytes = amount.of(1024);
            format!("--direction {direction} --connections 4 --bytes {mebibytes}MiB")
        };
        let requests = |pattern: &str, count: u64| {
            let count = amount.of(count);
            format!("{pattern} --count {count} --header {TENANT_FIELD}={FORGED_TENANT}")
        };
        let text = match self {
            Self::H2FewBusy => requests("--connections 4 --streams 16", 200_000),
            Self::H2ManyBusy => requests("--connections 64", 100_000),
            Self::H2Few => requests("--connections 8", 60_000),
            Self::H2Large => requests("--size 64KiB --connections 4 --streams 4", 20_000),
            Self::H2Paced => requests("--connections 200 --rate 2000", 20_000),
            Self::H1ToH2 | Self::H1 => requests("--connections 64", 100_000),
            Self::H2Idle => {
                let connections = amount.of(2000);
                format!(
                    "--connections {connections} --hold --for 3s --header {TENANT_FIELD}={FORGED_TENANT}"
                )
            }
            Self::H2Full => handshakes("full", 4000) + " --alpn h2",
            Self::H2Resumed => handshakes("resumed", 6000) + " --alpn h2",
            Self::Full | Self::Hybrid => handshakes("full", 4000),
            Self::Resumed => handshakes("resumed", 6000),
            Self::EchoSmall => echoes("1KiB", 60_000),
            Self::EchoLarge => echoes("16KiB", 20_000),
            Self::Up => stream("up"),
            Self::Down => stream("down"),
            Self::Idle => {
                let connections = amount.of(2000);
                format!("--connections {connections} --echo-first --for 3s")
            }
        };
        text.split(' ').map(str::to_owned).collect()
    }

    /// The client's CPU time in this kind's unit.
    fn client(self, report: &load::Report) -> Result<Option<f64>> {
        let seconds = report.number("/generator_cpu_seconds")?;
        Ok(match self {
            Self::Idle | Self::H2Idle => None,
            Self::Up | Self::Down => {
                let bytes = report.number("/bytes_up")? + report.number("/bytes_down")?;
                Some(seconds * 1e3 / (bytes / f64::from(1 << 30)))
            }
            _ => Some(seconds * 1e6 / report.number("/completed")?),
        })
    }
}

/// The backends behind the measured servers, one for each way in which bytes go.
pub struct Backends {
    echo: (Process, u16),
    sink: (Process, u16),
    source: (Process, u16),
    /// Of HTTP/1.1 and HTTP/2.
    requests: [HttpBackend; 2],
}

/// A backend that takes requests.
struct HttpBackend {
    process: Process,
    port: u16,
    /// Where it says what it has got.
    stats: u16,
}

impl Backends {
    /// Starts them on the client's CPU.
    pub fn start(workspace: &Workspace) -> Result<Self> {
        Ok(Self {
            echo: load::backend_of(workspace, "echo")?,
            sink: load::backend_of(workspace, "sink")?,
            source: load::backend_of(workspace, "source")?,
            requests: [
                HttpBackend::start(workspace, Http::One)?,
                HttpBackend::start(workspace, Http::Two)?,
            ],
        })
    }

    fn port(&self, kind: WorkKind) -> u16 {
        if let Some(backend) = self.requests(kind) {
            return backend.port;
        }
        match kind {
            WorkKind::Up => self.sink.1,
            WorkKind::Down => self.source.1,
            _ => self.echo.1,
        }
    }

    fn requests(&self, kind: WorkKind) -> Option<&HttpBackend> {
        let [one, two] = &self.requests;
        match kind.job() {
            Job::Relay => None,
            Job::Requests {
                backend: Http::One, ..
            } => Some(one),
            Job::Requests {
                backend: Http::Two, ..
            } => Some(two),
        }
    }
}

impl HttpBackend {
    fn start(workspace: &Workspace, version: Http) -> Result<Self> {
        let (process, port, stats) = load::http_backend(workspace, version.alpn())?;
        Ok(Self {
            process,
            port,
            stats,
        })
    }

    /// Requests so far, by tenant.
    fn tenants(&self) -> Result<BTreeMap<String, u64>> {
        let page = metrics::page(TcpStream::connect(("127.0.0.1", self.stats))?, "/stats")?;
        let stats: Value = serde_json::from_str(&page)?;
        let tenants = stats["tenants"]
            .as_object()
            .with_context(|| format!("no tenants in what backend {} says", self.process.pid()))?;
        let counts = tenants.iter().map(|(name, count)| {
            let count = count.as_u64().unwrap_or_default();
            (name.clone(), count)
        });
        Ok(counts.collect())
    }
}

/// That every request that came since `before` is of the tenant that servers set, and of none that a client made up.
fn ensure_tenants(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Result<()> {
    for (tenant, count) in after {
        let count = count - before.get(tenant).copied().unwrap_or_default();
        ensure!(
            tenant == TENANT || count == 0,
            "{count} requests arrived under {TENANT_FIELD}: {tenant}"
        );
    }
    ensure!(after != before, "no request arrived");
    Ok(())
}

/// Starts a server, lets it work, and ends it.
pub fn measure(
    workspace: &Workspace,
    backends: &Backends,
    server: &Server,
    kind: WorkKind,
    amount: Amount,
) -> Result<WorkCost> {
    let requests = backends.requests(kind).filter(|_| kind.has_requests());
    let before = requests.map(HttpBackend::tenants).transpose()?;
    let running = server.start(workspace, kind.job(), backends.port(kind))?;
    let mut command = scenario(workspace, &running, server.transport, kind);
    if server.ends_abruptly {
        command.arg("--allow-abrupt-end");
    }
    command
        .args(kind.arguments(amount))
        .args(["--server-pid", &running.pid().to_string()]);
    let log = workspace.path(&format!("{}-{}.load.log", server.name, kind.name()));
    let report = load::run(command, &log)?;
    if let Some((backend, before)) = requests.zip(before) {
        ensure_tenants(&before, &backend.tenants()?)?;
    }
    let server = match kind {
        WorkKind::Idle | WorkKind::H2Idle => "/server/kib_per_connection",
        _ => "/server/cpu_per_unit/value",
    };
    Ok(WorkCost {
        server: report.number(server)?,
        client: kind.client(&report)?,
    })
}

fn scenario(
    workspace: &Workspace,
    running: &Running,
    transport: Transport,
    kind: WorkKind,
) -> Command {
    let name = kind.scenario();
    match (transport, kind) {
        (Transport::Plain, _) => load::plain(workspace, name, running.port),
        (Transport::Tls, WorkKind::Hybrid) => load::hybrid(workspace, name, running.port),
        (Transport::Tls, _) => load::scenario(workspace, name, running.port, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_arrives_under_a_forged_name_or_under_none_is_noticed() {
        let counts = |counts: &[(&str, u64)]| {
            let counts = counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count));
            counts.collect::<BTreeMap<String, u64>>()
        };
        let before = counts(&[(TENANT, 5), (FORGED_TENANT, 1)]);
        let set = counts(&[(TENANT, 9), (FORGED_TENANT, 1)]);
        assert!(ensure_tenants(&before, &set).is_ok());
        assert!(ensure_tenants(&before, &before).is_err());
        for wrong in ["(none)", FORGED_TENANT, "team-a, forged"] {
            let arrived = counts(&[(TENANT, 9), (FORGED_TENANT, 1), (wrong, 2)]);
            assert!(ensure_tenants(&before, &arrived).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_kind_has_a_name_and_bounded_work() {
        for &kind in WorkKind::value_variants() {
            let arguments = kind.arguments(Amount::Tenth);
            let bound = ["--count", "--bytes", "--for"];
            assert!(
                arguments.iter().any(|word| bound.contains(&word.as_str())),
                "{}: {arguments:?}",
                kind.name()
            );
        }
    }
}
