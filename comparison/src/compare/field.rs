//! Who takes part in a comparison. In: the command line. Out: contenders with their roles, installed if need be.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use clap::ValueEnum;

use super::Options;
use super::memory;
use crate::contender::{Contender, Program};
use crate::site::Site;
use crate::{envoy, haproxy, nginx};

/// Whom the gateway can be compared with without further words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
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

/// What a contender is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The gateway as it is.
    Ours,
    /// The gateway otherwise: another library, another build.
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

/// A contender with its role.
pub struct Entry {
    /// What is started.
    pub contender: Contender,
    /// What it is compared as.
    pub role: Role,
}

/// Everybody.
pub struct Field {
    /// Servers, in the order of their turns.
    pub entries: Vec<Entry>,
    /// What measures in memory.
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

impl Field {
    /// Finds or installs whoever was asked for.
    pub fn gather(site: &Site, options: &Options) -> Result<Self> {
        let ours = Contender::gateway("portcullis", site.gateway.clone(), None);
        let mut field = Self {
            entries: vec![Entry {
                contender: ours,
                role: Role::Ours,
            }],
            memory: None,
        };
        let sides = match options.peers.as_slice() {
            [] => Side::value_variants(),
            sides => sides,
        };
        for &side in sides {
            field.add(site, options, side)?;
        }
        for Named { name, value } in &options.gateways {
            let program = std::path::absolute(value)?;
            ensure!(program.is_file(), "{}: not a program", program.display());
            field.push(Role::Variant, Contender::gateway(name, program, None));
        }
        for Named { name, value } in &options.commands {
            let words = value.split_whitespace().map(str::to_owned).collect();
            field.push(Role::Peer, Contender::peer(name, Program::Command(words)));
        }
        let names: BTreeSet<&str> = field
            .entries
            .iter()
            .map(|entry| entry.contender.name.as_str())
            .collect();
        ensure!(names.len() == field.entries.len(), "two have the same name");
        Ok(field)
    }

    fn add(&mut self, site: &Site, options: &Options, side: Side) -> Result<()> {
        let gateway =
            |name, provider| Contender::gateway(name, site.gateway.clone(), Some(provider));
        let (role, contender) = match side {
            Side::PortcullisRing => (Role::Variant, gateway("portcullis-ring", "ring")),
            Side::PortcullisAwsLc => (Role::Variant, gateway("portcullis-aws-lc", "aws-lc-rs")),
            Side::Envoy => {
                let program = Program::Envoy(envoy::find(options.envoy.as_deref())?);
                (Role::Peer, Contender::peer("envoy", program))
            }
            Side::Nginx => {
                let program = Program::Nginx(nginx::find()?);
                (Role::Peer, Contender::peer("nginx", program))
            }
            Side::Haproxy => {
                let program = Program::Haproxy(haproxy::find()?);
                (Role::Peer, Contender::peer("haproxy", program))
            }
            Side::NginxPlain => {
                let program = Program::Nginx(nginx::find()?);
                (Role::Plain, Contender::plain("nginx-plain", program))
            }
            Side::HaproxyPlain => {
                let program = Program::Haproxy(haproxy::find()?);
                (Role::Plain, Contender::plain("haproxy-plain", program))
            }
            Side::InMemory => {
                self.memory = Some(memory::build(site)?);
                return Ok(());
            }
        };
        self.push(role, contender);
        Ok(())
    }

    fn push(&mut self, role: Role, contender: Contender) {
        self.entries.push(Entry { contender, role });
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
