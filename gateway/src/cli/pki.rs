//! `portcullis pki`: a small certificate authority on disk. In: arguments. Out: files, and a line on each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};

use crate::pki::{Authority, Entry, Profile, Request, date};

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
    /// Take a certificate back: notes NAME.pem in the authority's register, from which `crl` makes the list
    Revoke(Revoke),
    /// Write the list of revoked certificates, ca.crl.pem, in the place of the one before
    Crl(Crl),
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
struct Revoke {
    /// Name of the certificate's files
    name: String,
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Intermediate authority that issued it; otherwise the root
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

#[derive(Debug, Args)]
struct Crl {
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Intermediate authority whose list it is to be, NAME.crl.pem; otherwise the root's
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Days until the list must have been replaced by a newer one (nextUpdate)
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX as u64))]
    days: u64,
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
            PkiCommand::Revoke(command) => command.execute(),
            PkiCommand::Crl(command) => command.execute(),
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
        let authority = open_issuer(&self.directory, self.issuer.as_deref())?;
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

impl Revoke {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let authority = open_issuer(&self.directory, self.issuer.as_deref())?;
        let revoked = authority.revoke(&self.name)?;
        let certificate = revoked.certificate.display();
        if revoked.already {
            let at = date(revoked.at);
            return super::print(&format!("{certificate}: was revoked already, at {at}\n"));
        }
        super::print(&format!(
            "{certificate}: revoked; `portcullis pki crl` now makes a list that says so\n"
        ))
    }
}

impl Crl {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let authority = open_issuer(&self.directory, self.issuer.as_deref())?;
        let lifetime = Duration::from_secs(self.days * SECONDS_PER_DAY);
        let list = authority.write_crl(lifetime)?;
        let list = list.display();
        let days = self.days;
        super::print(&format!(
            "{list}: written; make the next one within {days} days\n"
        ))
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

fn open_issuer(directory: &Path, issuer: Option<&str>) -> anyhow::Result<Authority> {
    let root = open(directory)?;
    Ok(match issuer {
        Some(name) => root.open_intermediate(name)?,
        None => root,
    })
}

fn table(directory: &Path, entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let columns = [
        "FILE",
        "SUBJECT",
        "NAMES",
        "PROFILE",
        "SERIAL",
        "NOT AFTER",
        "REVOKED",
    ];
    table.set_header(columns);
    for entry in entries {
        let file = entry.file.strip_prefix(directory).unwrap_or(&entry.file);
        table.add_row([
            file.display().to_string(),
            entry.facts.subject.clone(),
            entry.facts.names().join("\n"),
            entry.facts.profile().to_owned(),
            entry.facts.serial.clone(),
            date(entry.facts.not_after),
            entry.revoked_at.map_or_else(String::new, date),
        ]);
    }
    table
}
