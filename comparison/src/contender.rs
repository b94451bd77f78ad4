//! Servers that take turns in a comparison: what each is and how it is started. In: a site, a backend. Out: a running
//! server with one worker on the server's CPU, started anew for each run, so that none inherits the memory of another.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::gateway::{Gateway, Setup};
use crate::process::{Cpu, Process, pinned};
use crate::site::{Site, free_port};
use crate::{envoy, haproxy, nginx};

/// What stands between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS 1.3 with certificates on both sides.
    Tls,
    /// Nothing: the same work without TLS.
    Plain,
}

/// How a contender is started.
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
    /// Anything else: words with places for what it has to know.
    Command(Vec<String>),
}

/// A server that takes its turn.
#[derive(Debug, Clone)]
pub struct Contender {
    /// What tables call it.
    pub name: String,
    /// How it is started.
    pub program: Program,
    /// What it speaks with clients.
    pub transport: Transport,
    /// Takes X25519MLKEM768.
    pub is_hybrid: bool,
    /// Does not always say goodbye, which TLS asks of both sides: nginx answers a close_notify with none.
    pub ends_abruptly: bool,
}

/// A running contender; dropping it ends it.
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

impl Contender {
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
    pub fn start(&self, site: &Site, backend: u16) -> Result<Running> {
        let (process, port) = match &self.program {
            Program::Gateway(program, provider) => {
                let setup = Setup {
                    name: &self.name,
                    program,
                    backend,
                    crl: None,
                    provider: *provider,
                    other_rules: 0,
                };
                let gateway = Gateway::start(site, &setup)?;
                (gateway.process, gateway.port)
            }
            Program::Envoy(program) => envoy::start(site, program, backend)?,
            Program::Nginx(program) => nginx::start(site, program, self.transport, backend)?,
            Program::Haproxy(program) => haproxy::start(site, program, self.transport, backend)?,
            Program::Command(words) => start_command(site, &self.name, words, backend)?,
        };
        Ok(Running { process, port })
    }
}

fn start_command(
    site: &Site,
    name: &str,
    words: &[String],
    backend: u16,
) -> Result<(Process, u16)> {
    let port = free_port()?;
    let words: Vec<String> = words
        .iter()
        .map(|word| filled(word, site, port, backend))
        .collect();
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let mut command = pinned(Cpu::Server, program.as_ref());
    command.args(arguments);
    let mut process = Process::start(command, &site.path(&format!("{name}.log")))?;
    process.await_port(port)?;
    Ok((process, port))
}

/// A word of a command with what it has to know.
fn filled(word: &str, site: &Site, port: u16, backend: u16) -> String {
    word.replace("{port}", &port.to_string())
        .replace("{backend}", &backend.to_string())
        .replace("{certificate}", &site.text("current/server.pem"))
        .replace("{key}", &site.text("current/server.key"))
        .replace("{ca}", &site.text("pki/ca.pem"))
}
