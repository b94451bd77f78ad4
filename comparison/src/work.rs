//! The kinds of work that servers are compared in, and one run of each. In: a server, a kind, backends. Out: the cost
//! of a unit of work for the server and for the client. A run in which anything failed is an error, not a figure.

use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::load;
use crate::process::Process;
use crate::server::{Running, Server};
use crate::transport::Transport;
use crate::workspace::Workspace;

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
        }
    }

    /// What its figures are.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Full | Self::Resumed | Self::Hybrid => "us of CPU per handshake",
            Self::EchoSmall | Self::EchoLarge => "us of CPU per echo",
            Self::Up | Self::Down => "ms of CPU per GiB",
            Self::Idle => "KiB of memory per connection",
        }
    }

    /// Whether a server can do it.
    pub fn suits(self, server: &Server) -> bool {
        match self {
            Self::Hybrid => server.is_hybrid,
            // Without TLS every connection is made the same way, and `Full` stands for them all.
            Self::Resumed => server.transport == Transport::Tls,
            _ => true,
        }
    }

    fn scenario(self) -> &'static str {
        match self {
            Self::Full | Self::Resumed | Self::Hybrid => "handshake",
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
        let text = match self {
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
            Self::Idle => None,
            Self::Up | Self::Down => {
                let bytes = report.number("/bytes_up")? + report.number("/bytes_down")?;
                Some(seconds * 1e3 / (bytes / f64::from(1 << 30)))
            }
            Self::Full | Self::Resumed | Self::Hybrid | Self::EchoSmall | Self::EchoLarge => {
                Some(seconds * 1e6 / report.number("/completed")?)
            }
        })
    }
}

/// The backends behind the measured servers, one for each way in which bytes go.
pub struct Backends {
    echo: (Process, u16),
    sink: (Process, u16),
    source: (Process, u16),
}

impl Backends {
    /// Starts them on the client's CPU.
    pub fn start(workspace: &Workspace) -> Result<Self> {
        Ok(Self {
            echo: load::backend_of(workspace, "echo")?,
            sink: load::backend_of(workspace, "sink")?,
            source: load::backend_of(workspace, "source")?,
        })
    }

    fn port(&self, kind: WorkKind) -> u16 {
        match kind {
            WorkKind::Up => self.sink.1,
            WorkKind::Down => self.source.1,
            WorkKind::Full
            | WorkKind::Resumed
            | WorkKind::Hybrid
            | WorkKind::EchoSmall
            | WorkKind::EchoLarge
            | WorkKind::Idle => self.echo.1,
        }
    }
}

/// Starts a server, lets it work, and ends it.
pub fn measure(
    workspace: &Workspace,
    backends: &Backends,
    server: &Server,
    kind: WorkKind,
    amount: Amount,
) -> Result<WorkCost> {
    let running = server.start(workspace, backends.port(kind))?;
    let mut command = scenario(workspace, &running, server.transport, kind);
    if server.ends_abruptly {
        command.arg("--allow-abrupt-end");
    }
    command
        .args(kind.arguments(amount))
        .args(["--server-pid", &running.pid().to_string()]);
    let log = workspace.path(&format!("{}-{}.load.log", server.name, kind.name()));
    let report = load::run(command, &log)?;
    let server = match kind {
        WorkKind::Idle => "/server/kib_per_connection",
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
