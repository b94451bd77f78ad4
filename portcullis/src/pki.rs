//! `portcullis pki`: a small certificate authority on disk. In: arguments. Out: files, and a line on each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use gateway_core::revocation::Serial;
use gateway_pki::{Authority, Entry, PkiError, Profile, RenewedKey, Request};
use gateway_x509::date;

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
    /// Sign a request that was made elsewhere, whose key stays there: NAME.pem
    Sign(Sign),
    /// Renew a certificate: NAME.pem and NAME.key anew; the certificate before becomes NAME.SERIAL.pem
    Renew(Renew),
    /// Revoke a certificate: notes NAME.pem in the authority's database, from which `crl` makes the list
    Revoke(Revoke),
    /// Write the list of revoked certificates, ca.crl.pem, in the place of the one before
    Crl(WriteCrl),
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
    /// Days until the certificate expires [default: 90, for a component 180, for an authority 1825]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX as u64))]
    days: Option<u64>,
}

#[derive(Debug, Args)]
struct Sign {
    /// File of the request (PKCS #10, PEM or DER)
    #[arg(value_name = "FILE")]
    request: PathBuf,
    /// What the certificate is for; a usage that the request asks for and the profile does not give is refused
    #[arg(long)]
    profile: SignedProfile,
    /// Name of the file, and common name of the subject [default: the request's common name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Intermediate authority to sign by, as named when it was issued; otherwise the root
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Days until the certificate expires [default: 90, for a component 180]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX as u64))]
    days: Option<u64>,
}

#[derive(Debug, Args)]
struct Renew {
    /// Name of the certificate's files
    name: String,
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Days until the new certificate expires [default: as many as the one before was made for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX as u64))]
    days: Option<u64>,
    /// Certify the same key again, instead of a new one
    #[arg(long)]
    keep_key: bool,
    /// Certify the key of this request instead, for a certificate whose key is elsewhere; names stay what they were
    #[arg(long, value_name = "FILE", conflicts_with = "keep_key")]
    request: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Name of the certificate's files; one that was renewed is called NAME.SERIAL
    #[arg(required_unless_present_any = ["serial", "serial_decimal"])]
    name: Option<String>,
    /// Serial number instead of a name, for a certificate whose file is not here: hexadecimal, with or without `0x` and colons
    #[arg(long, value_name = "HEX", conflicts_with = "name", value_parser = Serial::parse_argument)]
    serial: Option<Serial>,
    /// As `--serial`, in decimal, as step-ca prints it
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["name", "serial"], value_parser = Serial::parse_decimal)]
    serial_decimal: Option<Serial>,
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Intermediate authority that issued it; otherwise the root
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
}

#[derive(Debug, Args)]
struct WriteCrl {
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Intermediate authority that signs the list, NAME.crl.pem; otherwise the root
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
    /// A client of a gateway, and the gateway itself towards a backend: clientAuth
    Agent,
    /// What agents connect to: serverAuth. Not clientAuth as well: a gateway's certificate must not pass for an agent's
    Gateway,
    /// A member of a cluster, whose members are server and client to each other: serverAuth and clientAuth
    Component,
    /// An intermediate authority
    Ca,
}

/// What a request can be signed for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SignedProfile {
    /// A client of a gateway: clientAuth
    Agent,
    /// What agents connect to: serverAuth
    Gateway,
    /// A member of a cluster: serverAuth and clientAuth
    Component,
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Agent => Profile::Client,
            ProfileName::Gateway => Profile::Server,
            ProfileName::Component => Profile::Component,
            ProfileName::Ca => Profile::Authority,
        }
    }
}

impl From<SignedProfile> for Profile {
    fn from(name: SignedProfile) -> Self {
        match name {
            SignedProfile::Agent => Profile::Client,
            SignedProfile::Gateway => Profile::Server,
            SignedProfile::Component => Profile::Component,
        }
    }
}

/// What is asked for, or what is usual: components often read their certificates at their start only.
fn lifetime(days: Option<u64>, profile: Profile) -> Duration {
    let usual = match profile {
        Profile::Server | Profile::Client => 90,
        Profile::Component => 180,
        Profile::Authority => 1825,
    };
    Duration::from_secs(days.unwrap_or(usual) * SECONDS_PER_DAY)
}

impl Pki {
    /// Runs the command.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let executed = match self.command {
            PkiCommand::Init(command) => command.execute(),
            PkiCommand::Issue(command) => command.execute(),
            PkiCommand::Sign(command) => command.execute(),
            PkiCommand::Renew(command) => command.execute(),
            PkiCommand::Revoke(command) => command.execute(),
            PkiCommand::Crl(command) => command.execute(),
            PkiCommand::List(command) => command.execute(),
        };
        executed.map_err(|error| match error.downcast_ref() {
            Some(PkiError::Request { .. }) => super::misused(&super::told(&error)),
            _ => error,
        })
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
        let profile = self.profile.into();
        let issued = authority.issue(&Request {
            name: self.name,
            profile,
            uris: self.uri,
            dns_names: self.dns,
            ip_addresses: self.ip,
            lifetime: lifetime(self.days, profile),
            not_before: None,
        })?;
        let (certificate, key) = (issued.certificate.display(), issued.key.display());
        super::print(&format!("{certificate}: made, and its key {key}\n"))
    }
}

impl Sign {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let authority = open_issuer(&self.directory, self.issuer.as_deref())?;
        let profile = self.profile.into();
        let name = self.name.as_deref();
        let lifetime = lifetime(self.days, profile);
        let certified = authority.sign(&self.request, profile, name, lifetime)?;
        let certificate = certified.certificate.display();
        let names = match certified.names.as_slice() {
            [] => "no alternative name".to_owned(),
            names => names.join(", ").escape_debug().to_string(),
        };
        super::print(&format!("{certificate}: made, for {names}\n"))
    }
}

impl Renew {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let key = match (self.keep_key, self.request) {
            (true, _) => RenewedKey::Kept,
            (false, Some(request)) => RenewedKey::Requested(request),
            (false, None) => RenewedKey::New,
        };
        let lifetime = self
            .days
            .map(|days| Duration::from_secs(days * SECONDS_PER_DAY));
        let renewed = open(&self.directory)?.renew(&self.name, &key, lifetime)?;
        let certificate = renewed.certificate.display();
        let end = date(renewed.not_after);
        let key = match &renewed.key {
            Some(key) => format!(", and its key {}", key.display()),
            None => String::new(),
        };
        let before = renewed.replaced.file_stem().unwrap_or_default();
        super::print(&format!(
            "{certificate}: renewed until {end}{key}\nthe previous certificate stays valid until its end, or until \
             `portcullis pki revoke {}`\n",
            before.display()
        ))
    }
}

impl Revoke {
    fn execute(self) -> anyhow::Result<ExitCode> {
        let authority = open_issuer(&self.directory, self.issuer.as_deref())?;
        let revoked = match (self.serial.or(self.serial_decimal), &self.name) {
            (Some(serial), _) => authority.revoke_serial(serial)?,
            (None, name) => authority.revoke(name.as_deref().unwrap_or_default())?,
        };
        let certificate = match revoked.name.as_str() {
            "-" => format!("serial number {}", revoked.serial),
            name => format!("{}", self.directory.join(format!("{name}.pem")).display()),
        };
        if revoked.already {
            let at = date(revoked.at);
            return super::print(&format!("{certificate}: was revoked already, at {at}\n"));
        }
        super::print(&format!(
            "{certificate}: revoked; `portcullis pki crl` now makes a list that says so\n"
        ))
    }
}

impl WriteCrl {
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
        let listing = open(&self.directory)?.list()?;
        for error in &listing.unreadable {
            eprintln!("warning: left out: {error}");
        }
        super::print(&format!("{}\n", table(&self.directory, &listing.entries)))
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
        "LASTS",
        "NOT AFTER",
        "REVOKED",
    ];
    table.set_header(columns);
    for entry in entries {
        let file = entry.file.strip_prefix(directory).unwrap_or(&entry.file);
        table.add_row([
            file.display().to_string(),
            entry.info.subject.clone(),
            entry.info.names().join("\n"),
            entry.info.profile().to_owned(),
            entry.info.serial.clone(),
            lasts(entry),
            date(entry.info.not_after),
            entry.revoked_at.map_or_else(String::new, date),
        ]);
    }
    table
}

/// The whole time a certificate was made for, in days.
fn lasts(entry: &Entry) -> String {
    let (from, until) = (entry.info.not_before, entry.info.not_after);
    let seconds = until.duration_since(from).unwrap_or_default().as_secs();
    format!("{} days", seconds / SECONDS_PER_DAY)
}
