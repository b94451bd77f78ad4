//! What takes part in a comparison. In: the command line. Out: servers with their roles, installed where they are
//! missing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use clap::ValueEnum;

use super::CompareOptions;
use super::memory;
use crate::server::{Program, Server};
use crate::workspace::Workspace;
use crate::{envoy, haproxy, nginx};

/// What the gateway can be compared with by name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KnownContestant {
    /// The gateway computing with ring.
    PortcullisRing,
    /// The gateway computing with AWS-LC.
    PortcullisAwsLc,
    /// Envoy with BoringSSL.
    Envoy,
    /// nginx, its stream module with OpenSSL.
    Nginx,
    /// HAProxy of Debian with its OpenSSL.
    Haproxy,
    /// nginx without TLS.
    NginxPlain,
    /// HAProxy without TLS.
    HaproxyPlain,
    /// Handshakes and records in memory.
    InMemory,
}

/// What a server is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The gateway as it is.
    Ours,
    /// The gateway with another library or from another build.
    Variant,
    /// Another server with TLS.
    Peer,
    /// A server without TLS.
    Plain,
    /// No server at all.
    Memory,
}

impl Role {
    /// For readers of the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Variant => "variant",
            Self::Peer => "peer",
            Self::Plain => "without TLS",
            Self::Memory => "in memory",
        }
    }
}

/// A server with its role.
pub struct Contestant {
    /// What is started.
    pub server: Server,
    /// What it is compared as.
    pub role: Role,
}

/// Everything that is compared.
pub struct Contestants {
    /// Servers, in the order of their turns.
    pub servers: Vec<Contestant>,
    /// The program that measures in memory.
    pub memory: Option<PathBuf>,
}

/// `NAME=VALUE` of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    name: String,
    value: String,
}

impl FromStr for Named {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text
            .split_once('=')
            .context("must be a name, = and what it stands for")?;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        ensure!(
            !name.is_empty() && name.chars().all(is_plain),
            "{name:?}: a name is made of letters, digits, - _ and ."
        );
        ensure!(!value.trim().is_empty(), "{name}: nothing follows the =");
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl Contestants {
    /// Finds or installs what the command line asks for.
    pub fn gather(workspace: &Workspace, options: &CompareOptions) -> Result<Self> {
        let ours = Server::gateway("portcullis", workspace.gateway.clone(), None);
        let mut contestants = Self {
            servers: vec![Contestant {
                server: ours,
                role: Role::Ours,
            }],
            memory: None,
        };
        let chosen = match options.peers.as_slice() {
            [] => KnownContestant::value_variants(),
            chosen => chosen,
        };
        for &known in chosen {
            contestants.add(workspace, options, known)?;
        }
        for Named { name, value } in &options.gateways {
            let program = std::path::absolute(value)?;
            ensure!(program.is_file(), "{}: not a program", program.display());
            contestants.push(Role::Variant, Server::gateway(name, program, None));
        }
        for Named { name, value } in &options.commands {
            let words = value.split_whitespace().map(str::to_owned).collect();
            contestants.push(Role::Peer, Server::peer(name, Program::Command(words)));
        }
        let names: BTreeSet<&str> = contestants
            .servers
            .iter()
            .map(|contestant| contestant.server.name.as_str())
            .collect();
        ensure!(
            names.len() == contestants.servers.len(),
            "two have the same name"
        );
        Ok(contestants)
    }

    fn add(
        &mut self,
        workspace: &Workspace,
        options: &CompareOptions,
        known: KnownContestant,
    ) -> Result<()> {
        let gateway =
            |name, provider| Server::gateway(name, workspace.gateway.clone(), Some(provider));
        let (role, server) = match known {
            KnownContestant::PortcullisRing => (Role::Variant, gateway("portcullis-ring", "ring")),
            KnownContestant::PortcullisAwsLc => {
                (Role::Variant, gateway("portcullis-aws-lc", "aws-lc-rs"))
            }
            KnownContestant::Envoy => {
                let program = Program::Envoy(envoy::find(options.envoy.as_deref())?);
                (Role::Peer, Server::peer("envoy", program))
            }
            KnownContestant::Nginx => {
                let program = Program::Nginx(nginx::find()?);
                (Role::Peer, Server::peer("nginx", program))
            }
            KnownContestant::Haproxy => {
                let program = Program::Haproxy(haproxy::find()?);
                (Role::Peer, Server::peer("haproxy", program))
            }
            KnownContestant::NginxPlain => {
                let program = Program::Nginx(nginx::find()?);
                (Role::Plain, Server::plain("nginx-plain", program))
            }
            KnownContestant::HaproxyPlain => {
                let program = Program::Haproxy(haproxy::find()?);
                (Role::Plain, Server::plain("haproxy-plain", program))
            }
            KnownContestant::InMemory => {
                self.memory = Some(memory::build(workspace)?);
                return Ok(());
            }
        };
        self.push(role, server);
        Ok(())
    }

    fn push(&mut self, role: Role, server: Server) {
        self.servers.push(Contestant { server, role });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_needs_a_name_and_a_value() {
        let named: Named = "stunnel=stunnel4 a=b".parse().unwrap();
        assert_eq!(
            (named.name.as_str(), named.value.as_str()),
            ("stunnel", "stunnel4 a=b")
        );
        for text in ["stunnel", "=x", "a/b=x", "a= "] {
            assert!(text.parse::<Named>().is_err(), "{text}");
        }
    }
}
