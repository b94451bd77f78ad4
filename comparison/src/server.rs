//! A server that takes its turn in a comparison. In: a workspace, a backend. Out: the running server, with one worker
//! on the server's CPU. Each run starts it anew, so that no run inherits the memory of the one before.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::gateway::{Gateway, Setup};
use crate::job::{Job, PROXY_CERTIFICATE, PROXY_KEY};
use crate::process::{Cpu, Process, pinned};
use crate::transport::Transport;
use crate::workspace::{Workspace, free_port};
use crate::{envoy, haproxy, nginx};

/// How a server is started.
#[derive(Debug, Clone)]
pub enum Program {
    /// A build of the gateway, and the library that computes if not its own choice.
    Gateway(PathBuf, Option<&'static str>),
    /// Envoy.
    Envoy(PathBuf),
    /// nginx.
    Nginx(PathBuf),
    /// HAProxy.
    Haproxy(PathBuf),
    /// Another server: a command with placeholders for its ports and files.
    Command(Vec<String>),
}

/// A server that takes its turn.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its name in tables.
    pub name: String,
    /// How it is started.
    pub program: Program,
    /// The transport towards clients.
    pub transport: Transport,
    /// Takes X25519MLKEM768.
    pub is_hybrid: bool,
    /// May end a connection without close_notify, which TLS asks of both sides: nginx answers one with none.
    pub ends_abruptly: bool,
}

/// A running server; dropping it ends it.
pub struct Running {
    process: Process,
    /// Where clients connect.
    pub port: u16,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Server {
    /// A build of the gateway.
    pub fn gateway(name: &str, program: PathBuf, provider: Option<&'static str>) -> Self {
        Self {
            name: name.to_owned(),
            program: Program::Gateway(program, provider),
            transport: Transport::Tls,
            is_hybrid: provider == Some("aws-lc-rs"),
            ends_abruptly: false,
        }
    }

    /// Any other server that speaks TLS.
    pub fn peer(name: &str, program: Program) -> Self {
        Self {
            name: name.to_owned(),
            is_hybrid: matches!(program, Program::Envoy(_)),
            ends_abruptly: matches!(program, Program::Nginx(_) | Program::Command(_)),
            program,
            transport: Transport::Tls,
        }
    }

    /// A server without TLS.
    pub fn plain(name: &str, program: Program) -> Self {
        Self {
            name: name.to_owned(),
            program,
            transport: Transport::Plain,
            is_hybrid: false,
            ends_abruptly: false,
        }
    }

    /// Starts it in front of a backend and waits until it listens.
    pub fn start(&self, workspace: &Workspace, job: Job, backend: u16) -> Result<Running> {
        let (process, port) = match &self.program {
            Program::Gateway(program, provider) => {
                let setup = Setup {
                    name: &self.name,
                    program,
                    job,
                    backend,
                    crl: None,
                    provider: *provider,
                    other_rules: 0,
                    has_tenants: false,
                };
                let gateway = Gateway::start(workspace, &setup)?;
                (gateway.process, gateway.port)
            }
            Program::Envoy(program) => envoy::start(workspace, program, job, backend)?,
            Program::Nginx(program) => {
                nginx::start(workspace, program, self.transport, job, backend)?
            }
            Program::Haproxy(program) => {
                haproxy::start(workspace, program, self.transport, job, backend)?
            }
            Program::Command(words) => start_command(workspace, &self.name, words, backend)?,
        };
        Ok(Running { process, port })
    }
}

fn start_command(
    workspace: &Workspace,
    name: &str,
    words: &[String],
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let words: Vec<String> = words
        .iter()
        .map(|word| filled(word, workspace, port, backend))
        .collect();
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let mut command = pinned(Cpu::Server, program.as_ref());
    command.args(arguments);
    let mut process = Process::start(command, &workspace.path(&format!("{name}.log")))?;
    process.await_port(port)?;
    Ok((process, port))
}

/// A word of a command with its placeholders replaced.
fn filled(word: &str, workspace: &Workspace, port: u16, backend: u16) -> String {
    word.replace("{port}", &port.to_string())
        .replace("{backend}", &backend.to_string())
        .replace("{certificate}", &workspace.text("current/server.pem"))
        .replace("{key}", &workspace.text("current/server.key"))
        .replace("{client_certificate}", &workspace.text(PROXY_CERTIFICATE))
        .replace("{client_key}", &workspace.text(PROXY_KEY))
        .replace("{ca}", &workspace.text("pki/ca.pem"))
}
