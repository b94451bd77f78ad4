//! `portcullis pki`: a small certificate authority on disk. In: arguments. Out: files, and a line on each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};

use crate::pki::{Authority, Entry, Profile, Request};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
const DAYS_MAX: i64 = 100 * 365;

/// Arguments of `portcullis pki`.
#[derive(Debug, Args)]
pub struct Pki {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make a root authority: ca.pem and ca.key
    Init(Init),
    /// Issue a certificate: NAME.pem and NAME.key
    Issue(Issue),
    /// List the certificates of an authority
    List(List),
}

#[derive(Debug, Args)]
struct Init {
    /// Directory of the authority; made if it does not exist
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Common name of the root
    #[arg(long, value_name = "CN", default_value = "Portcullis CA")]
    name: String,
    /// Days until the root expires
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX as u64))]
    days: u64,
}

#[derive(Debug, Args)]
struct Issue {
    /// What the certificate is for
    profile: ProfileName,
    /// Name of the files, and common name of the subject
    name: String,
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Intermediate authority to issue from, as named when it was issued; otherwise the root
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// DNS name; may be given several times
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// URI such as spiffe://example.org/agent/one; may be given several times
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,
    /// IP address; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Days until the certificate expires [default: 90, for an authority 1825]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX as u64))]
    days: Option<u64>,
}

#[derive(Debug, Args)]
struct List {
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileName {
    /// A TLS server
    Server,
    /// A TLS client
    Client,
    /// An intermediate authority
    Ca,
}

impl Pki {
    /// Runs the command.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            PkiCommand::Init(command) => command.execute(),
            PkiCommand::Issue(command) => command.execute(),
            PkiCommand::List(command) => command.execute(),
        }
    }
}

impl Init {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let lifetime = Duration::from_secs(self.days * SECONDS_PER_DAY);
        let authority = Authority::init(&self.directory, &self.name, lifetime)?;
        let file = authority.certificate_file().display();
        super::print(&format!(
            "{file}: made, and its key beside it; trust the former, guard the latter\n"
        ))
    }
}

impl Issue {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let root = open(&self.directory)?;
        let authority = match &self.issuer {
            Some(name) => root.open_intermediate(name)?,
            None => root,
        };
        let (profile, days_default) = match self.profile {
            ProfileName::Server => (Profile::Server, 90),
            ProfileName::Client => (Profile::Client, 90),
            ProfileName::Ca => (Profile::Authority, 1825),
        };
        let days = self.days.unwrap_or(days_default);
        let issued = authority.issue(&Request {
            name: self.name,
            profile,
            uris: self.uri,
            dns_names: self.dns,
            ip_addresses: self.ip,
            lifetime: Duration::from_secs(days * SECONDS_PER_DAY),
            not_before: None,
        })?;
        let (certificate, key) = (issued.certificate.display(), issued.key.display());
        super::print(&format!("{certificate}: made, and its key {key}\n"))
    }
}

impl List {
    fn execute(self) -> anyhow::Result<ExitCode> {
        super::print(&format!(
            "{}\n",
            table(&self.directory, &open(&self.directory)?.list()?)
        ))
    }
}

fn open(directory: &Path) -> anyhow::Result<Authority> {
    Authority::open(directory).with_context(|| {
        format!(
            "cannot use the authority in {} (`portcullis pki init` makes one)",
            directory.display()
        )
    })
}

fn table(directory: &Path, entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["FILE", "SUBJECT", "NAMES", "PROFILE", "SERIAL", "NOT AFTER"]);
    for entry in entries {
        let file = entry.file.strip_prefix(directory).unwrap_or(&entry.file);
        table.add_row([
            file.display().to_string(),
            entry.facts.subject.clone(),
            entry.facts.names().join("\n"),
            entry.facts.profile().to_owned(),
            entry.facts.serial.clone(),
            humantime::format_rfc3339_seconds(entry.facts.not_after).to_string(),
        ]);
    }
    table
}
