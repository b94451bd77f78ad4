//! `portcullis block`, `unblock`, `blocked`: clients that an operator shuts out. In: the gateway's name. Out: a changed list,
//! and the running gateway's word that it acts by it. The command asks the gateway over its control socket, which changes
//! the list itself; where none runs, the command does.
//! On the main thread. Exit code 0: done, and in force; 1: nothing was changed; 3: the list was changed, and no gateway acts
//! by it yet; 4: in force, and about no client that is connected or was lately; 5: in force, and not written;
//! 6: in force, and not by the word of every process of the gateway.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{anyhow, bail, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use gateway::blocks::{
    BlockFile, Change, Entry, for_the_record, name_kind, not_blocked, with_remedy,
};
use gateway::config::Paths;
use gateway::control::{self, AskError, BlockChange, BlockChanged, Client};
use gateway_core::authority::TrustDomain;
use gateway_core::block::{Block as Target, BlockedNames, Only};
use gateway_core::certificate::{Fingerprint, NameKind};
use gateway_core::identity::Pattern;
use gateway_core::revocation::Serial;

use super::misused;
use super::which::Which;

/// The list is written, and no gateway acts by it.
const UNCONFIRMED: u8 = 3;
/// The block is in force, and no client that is connected or was seen lately is meant by it.
const MATCHES_NOBODY: u8 = 4;
/// The change is in force, and a restart forgets it.
const UNWRITTEN: u8 = 5;
/// The change is in force in the process that serves, and another one of the gateway has not said that it acts by it.
const UNREACHED: u8 = 6;

/// Arguments of `portcullis block`.
#[derive(Debug, Args)]
pub struct Block {
    #[command(flatten)]
    change: ChangeArguments,
}

/// Arguments of `portcullis unblock`.
#[derive(Debug, Args)]
pub struct Unblock {
    #[command(flatten)]
    change: ChangeArguments,
}

#[derive(Debug, Args)]
struct ChangeArguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    client: ClientSelector,
    #[command(flatten)]
    limits: Limits,
    /// With `--identity '*'`: confirm that this means every client
    #[arg(long, requires = "identity")]
    everybody: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", value_parser = for_the_record)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ClientSelector {
    /// Serial number of a certificate, or of one above it, of any issuer: hexadecimal, with or without `0x` and colons
    #[arg(long, value_name = "HEX", value_parser = meant(Serial::parse_argument))]
    serial: Option<Serial>,
    /// The same in decimal, as step-ca prints it
    #[arg(long, value_name = "NUMBER", value_parser = meant(Serial::parse_decimal))]
    serial_decimal: Option<Serial>,
    /// SHA-256 of one certificate
    #[arg(long, value_name = "SHA256", value_parser = meant(Fingerprint::parse))]
    fingerprint: Option<Fingerprint>,
    /// Name in a certificate, or its beginning and a `*`: a URI, a DNS name, a common name or an IP address, unless --kind says which
    #[arg(long, value_name = "NAME", value_parser = meant(Pattern::parse))]
    identity: Option<Pattern>,
}

/// What the name of `--identity` has to be beside its text.
#[derive(Debug, Args)]
struct Limits {
    /// With `--identity`: the name counts as a name of this kind only: `uri`, `dns`, `cn` or `ip`
    #[arg(long, value_name = "KIND", requires = "identity", value_parser = name_kind)]
    kind: Option<NameKind>,
    /// With `--identity`: the name counts only in certificates of CAs that `client_ca` binds to this trust domain
    #[arg(long, value_name = "NAME", requires = "identity", value_parser = TrustDomain::parse)]
    trust_domain: Option<TrustDomain>,
}

/// Reads a client's name by `parse`, and refuses what an empty variable of a shell leaves of one.
fn meant<T, E: Display>(
    parse: impl Fn(&str) -> Result<T, E> + Clone,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| match text.trim() {
        "" => Err("the name is empty: give the client's name".to_owned()),
        trimmed if trimmed != text => {
            Err("the name begins or ends with white space, which no name has: remove it".to_owned())
        }
        _ => parse(text).map_err(|error| error.to_string()),
    }
}

/// Arguments of `portcullis blocked`.
#[derive(Debug, Args)]
pub struct Blocked {
    #[command(flatten)]
    which: Which,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

impl Block {
    /// Blocks a client, and waits until the gateway says so.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let entry = self.change.entry()?;
        let paths = self.change.which.paths()?;
        let told = |before: Option<&Entry>| match before {
            None => println!("blocked {entry}"),
            Some(known) => println!("{known} was blocked already, by {}", known.by),
        };
        match ask(&paths, control::BLOCK, &entry) {
            Ok(changed) => {
                told(changed.before.as_ref());
                let is_new = changed.before.is_none();
                let matches_nobody = is_new && changed.connected + changed.seen == 0;
                if is_new {
                    println!("{}", matching(&changed));
                }
                let done = in_force(&paths, &changed)?;
                Ok(match matches_nobody && done == ExitCode::SUCCESS {
                    true => ExitCode::from(MATCHES_NOBODY),
                    false => done,
                })
            }
            Err(error) => {
                let why = unless_refused(error)?;
                let mut before = None;
                BlockFile::change(&paths, |blocks| {
                    before = Change::Block(entry.clone()).make(blocks);
                    before.is_none()
                })
                .map_err(with_remedy)?;
                told(before.as_ref());
                Ok(unconfirmed(&paths, &why))
            }
        }
    }
}

impl Unblock {
    /// Unblocks a client, and waits until the gateway says so.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let entry = self.change.entry()?;
        let paths = self.change.which.paths()?;
        match ask(&paths, control::UNBLOCK, &entry) {
            Ok(changed) => {
                println!("unblocked {entry}");
                in_force(&paths, &changed)
            }
            Err(error) => {
                let why = unless_refused(error)?;
                let mut was_there = false;
                let file = BlockFile::change(&paths, |blocks| {
                    was_there = Change::Unblock(entry.clone()).make(blocks).is_some();
                    was_there
                });
                let file = file.map_err(with_remedy)?;
                ensure!(was_there, not_blocked(&entry, &file.blocks));
                println!("unblocked {entry}");
                Ok(unconfirmed(&paths, &why))
            }
        }
    }
}

impl Blocked {
    /// Prints the blocked clients, and whether the gateway acts by the list.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let paths = self.which.paths()?;
        let asked =
            Client::connect(&paths).and_then(|client| client.get::<Vec<Entry>>(control::BLOCKED));
        let (entries, state) = match asked {
            Ok(entries) => {
                let status = Client::connect(&paths)?.status()?;
                let refused = status.blocks.refused.map_or(String::new(), |why| {
                    format!("; the file that is there now is refused: {why}")
                });
                let unwritten = status.blocks.unwritten.map_or(String::new(), |why| {
                    format!("; not all of it could be written: {why}")
                });
                (entries, format!("in force{refused}{unwritten}"))
            }
            Err(error) => {
                let why = unless_refused(error)?;
                let file = BlockFile::load(&paths.block_list()).map_err(with_remedy)?;
                (file.blocks.blocked, format!("not in force: {why}"))
            }
        };
        if self.json {
            let text = serde_json::to_string_pretty(&entries)?;
            return super::print(&format!("{text}\n"));
        }
        let path = paths.block_list();
        super::print(&format!("{}{}: {state}\n", table(&entries), path.display()))
    }
}

/// Has the running gateway change its list.
fn ask(paths: &Paths, path: &str, entry: &Entry) -> Result<BlockChanged, AskError> {
    let change = BlockChange {
        entry: entry.clone(),
    };
    Client::connect(paths)?.post(path, &change)
}

/// Why no gateway changes the list, so that the command does; an error where one has refused to.
fn unless_refused(error: AskError) -> anyhow::Result<String> {
    match error {
        AskError::NotRunning(_) | AskError::Silent(..) => Ok(error.to_string()),
        AskError::Refused(why) => Err(anyhow!(why)),
        AskError::NotAllowed(..) => Err(error.into()),
    }
}

/// The clients that a new block is about.
fn matching(changed: &BlockChanged) -> String {
    let clients = |count: usize| match count {
        1 => "1 client".to_owned(),
        _ => format!("{count} clients"),
    };
    match (changed.connected, changed.seen) {
        (0, 0) => {
            "no client matches that is connected or was recently: is the name right?".to_owned()
        }
        (connected, 0) => format!("{} that matches is connected", clients(connected)),
        (0, seen) => format!(
            "{} that matches was connected recently, none is now",
            clients(seen)
        ),
        (connected, seen) => format!(
            "{} that matches is connected, {} more was recently",
            clients(connected),
            clients(seen)
        ),
    }
}

fn in_force(paths: &Paths, changed: &BlockChanged) -> anyhow::Result<ExitCode> {
    let closed = changed.in_force.closed;
    let done = super::print(&format!(
        "in force; connections closed by the last change: {closed}\n"
    ))?;
    let list = paths.block_list();
    let list = list.display();
    if let Some((aside, why)) = &changed.aside {
        let aside = aside.display();
        eprintln!(
            "portcullis: {why}; it is kept as {aside}, and {list} was written anew from the list in force"
        );
    }
    let mut code = done;
    if let Some(why) = &changed.in_force.unwritten {
        eprintln!("portcullis: in force, but not written: {why}");
        code = ExitCode::from(UNWRITTEN);
    }
    for why in &changed.unreached {
        eprintln!(
            "portcullis: in force, but another process of this gateway, which drains or starts, has not confirmed it: \
             {why}; it may still serve the client: run this command again, or end that process"
        );
        code = ExitCode::from(UNREACHED);
    }
    Ok(code)
}

fn unconfirmed(paths: &Paths, why: &str) -> ExitCode {
    let list = paths.block_list();
    eprintln!(
        "portcullis: {} is written, but not in force yet: {why}",
        list.display()
    );
    ExitCode::from(UNCONFIRMED)
}

fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no client is blocked\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kind", "who", "since", "by", "reason"]);
    for entry in entries {
        let at = humantime::format_rfc3339_seconds(entry.at).to_string();
        let reason = entry.reason.clone().unwrap_or_default();
        table.add_row([
            &entry.kind_in_full(),
            &entry.name(),
            &at,
            &entry.by,
            &reason,
        ]);
    }
    table.trim_fmt() + "\n"
}

impl ChangeArguments {
    /// The entry for the selected client, made now by the operator who runs this.
    fn entry(&self) -> anyhow::Result<Entry> {
        let Limits { kind, trust_domain } = &self.limits;
        let is_limited = kind.is_some() || trust_domain.is_some();
        // clap does not ask for an argument that another one excludes.
        if self.client.identity.is_none() && (is_limited || self.everybody) {
            return Err(misused(
                "--kind, --trust-domain and --everybody are allowed beside --identity only",
            ));
        }
        let is_all = |pattern: &Pattern| pattern.to_string() == "*";
        if !self.everybody && self.client.identity.as_ref().is_some_and(is_all) {
            return Err(misused(
                "--identity '*' means every client: add --everybody to confirm",
            ));
        }
        let serial = self.client.serial.or(self.client.serial_decimal);
        let block = match (serial, self.client.fingerprint, &self.client.identity) {
            (Some(serial), ..) => Target::Serial(serial),
            (_, Some(fingerprint), _) => Target::Fingerprint(fingerprint),
            (.., Some(pattern)) => {
                let only = Only {
                    kind: *kind,
                    trust_domain: trust_domain.clone(),
                };
                let pattern = pattern.clone();
                Target::Identity(BlockedNames { pattern, only })
            }
            (None, None, None) => bail!("name the client: --serial, --fingerprint or --identity"),
        };
        Ok(Entry {
            block,
            reason: self.reason.clone(),
            by: super::operator(),
            at: SystemTime::now(),
        })
    }
}
