//! `portcullis block`, `unblock`, `blocked`: who is shut out by hand. In: a configuration file, for the place of the block
//! list. Out: a changed list, and the running gateway's word that it acts by it.
//! On the main thread. Exit code 0: done, and confirmed where there is somebody to ask; 1: nothing was changed; 3: the list
//! was changed, and the gateway has not said that it has taken it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{bail, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use gateway_core::block::Block as Target;
use gateway_core::certificate::Fingerprint;
use gateway_core::identity::Pattern;

use crate::blocks::{BlockFile, Blocks, Entry, parse_serial};
use crate::config::{AdminAddress, BlockPlace, block_place};
use crate::limits;
use crate::observe::BlocksInForce;

/// The list is written, and nobody has confirmed it.
const UNCONFIRMED: u8 = 3;

/// Arguments of `portcullis block`.
#[derive(Debug, Args)]
pub struct Block {
    #[command(flatten)]
    change: Change,
}

/// Arguments of `portcullis unblock`.
#[derive(Debug, Args)]
pub struct Unblock {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Args)]
struct Change {
    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    whom: Whom,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Serial number of a certificate, or of one above it, whoever issued it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// SHA-256 of one certificate
    #[arg(long, value_name = "SHA256")]
    fingerprint: Option<String>,
    /// Name in a certificate (URI, DNS, common name or IP address), or its beginning and a `*`
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

/// Arguments of `portcullis blocked`.
#[derive(Debug, Args)]
pub struct Blocked {
    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

impl Block {
    /// Shuts somebody out, and waits until the gateway says so.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let place = block_place(&self.change.config)?;
        let entry = self.change.entry()?;
        refuse_lost(&place)?;
        let mut known = None;
        BlockFile::change(&place.file, &self.change.config, |blocks| {
            known = blocks.find(&entry.block).cloned();
            if known.is_none() {
                blocks.blocked.push(entry.clone());
            }
            known.is_none()
        })?;
        match known {
            None => println!("blocked {entry}"),
            Some(known) => println!("{known} was blocked already, by {}", known.by),
        }
        confirm(&place, |blocks| blocks.find(&entry.block).is_some())
    }
}

impl Unblock {
    /// Lets somebody in again, and waits until the gateway says so.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let place = block_place(&self.change.config)?;
        let entry = self.change.entry()?;
        let mut was_there = false;
        BlockFile::change(&place.file, &self.change.config, |blocks| {
            was_there = blocks.unblock(entry.clone());
            was_there
        })?;
        ensure!(
            was_there,
            "{entry} is not blocked: see `portcullis blocked`"
        );
        println!("unblocked {entry}");
        confirm(&place, |blocks| blocks.find(&entry.block).is_none())
    }
}

impl Blocked {
    /// Prints who is shut out, and whether the gateway acts by it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let place = block_place(&self.config)?;
        let file = BlockFile::load(&place.file)?;
        if self.json {
            let text = serde_json::to_string_pretty(&file.blocks.blocked)?;
            return super::print(&format!("{text}\n"));
        }
        let in_force = match place.admin.as_ref().map(ask) {
            None => "unknown: there is no [admin] to ask".to_owned(),
            Some(Err(error)) => format!("unknown: the gateway does not answer: {error}"),
            Some(Ok(answer)) if answer.digest == file.digest => "in force".to_owned(),
            Some(Ok(BlocksInForce {
                refused: Some(why), ..
            })) => {
                format!("not in force: the gateway refused it: {why}")
            }
            Some(Ok(_)) => "not in force: the gateway acts by another list".to_owned(),
        };
        let path = place.file.display();
        super::print(&format!("{}{path}: {in_force}\n", table(&file.blocks)))
    }
}

/// A list that is gone while the gateway still acts by it must not be begun anew: all who stood in it would be let in.
fn refuse_lost(place: &BlockPlace) -> anyhow::Result<()> {
    if place.file.exists() {
        return Ok(());
    }
    let in_force = place.admin.as_ref().map(ask);
    if let Some(Ok(BlocksInForce { entries: 1.., .. })) = in_force {
        let path = place.file.display();
        bail!("{path} is gone, and the gateway still acts by what stood in it: put it back first");
    }
    Ok(())
}

fn table(blocks: &Blocks) -> String {
    if blocks.blocked.is_empty() {
        return "nobody is blocked\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kind", "who", "since", "by", "reason"]);
    for entry in &blocks.blocked {
        let at = humantime::format_rfc3339_seconds(entry.at).to_string();
        let reason = entry.reason.clone().unwrap_or_default();
        table.add_row([entry.kind(), &entry.name(), &at, &entry.by, &reason]);
    }
    table.trim_fmt() + "\n"
}

impl Change {
    /// The entry for whom is meant, made now by whoever runs this.
    fn entry(&self) -> anyhow::Result<Entry> {
        let block = match (
            &self.whom.serial,
            &self.whom.fingerprint,
            &self.whom.identity,
        ) {
            (Some(serial), ..) => match parse_serial(serial) {
                Ok(serial) => Target::Serial(serial),
                Err(error) => bail!("--serial: {error}"),
            },
            (_, Some(fingerprint), _) => Target::Fingerprint(Fingerprint::parse(fingerprint)?),
            (.., Some(identity)) => Target::Identity(Pattern::parse(identity)?),
            (None, None, None) => bail!("say whom: --serial, --fingerprint or --identity"),
        };
        let most = limits::BLOCK_REASON_BYTES_MAX;
        // Somebody else's terminal will show it.
        let is_fit = |reason: &String| reason.len() <= most && !reason.contains(char::is_control);
        ensure!(
            self.reason.as_ref().is_none_or(is_fit),
            "--reason: must be one line of at most {most} bytes"
        );
        Ok(Entry {
            block,
            reason: self.reason.clone(),
            by: super::operator(),
            at: SystemTime::now(),
        })
    }
}

/// Waits until the gateway says that it acts by the list as it stands there. Another command may have changed that again
/// since: what counts is that the list still `holds` what this one wrote.
fn confirm(place: &BlockPlace, holds: impl Fn(&Blocks) -> bool) -> anyhow::Result<ExitCode> {
    const PAUSE: Duration = Duration::from_millis(50);
    let path = place.file.display();
    let Some(admin) = &place.admin else {
        println!("{path} is written; without [admin] nobody can be asked whether it is in force");
        return Ok(ExitCode::SUCCESS);
    };
    let until = Instant::now() + limits::BLOCK_CONFIRMATION_TIMEOUT;
    loop {
        let answer = ask(admin);
        // Read after the question: a list that was in force then, and is the one that stands there now, is that of the answer.
        let file = BlockFile::load(&place.file)?;
        let is_undone = !holds(&file.blocks);
        if let Ok(answer) = &answer
            && answer.digest == file.digest
            && !is_undone
        {
            let closed = answer.closed;
            println!("in force; connections closed by the last change: {closed}");
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() < until && !is_undone {
            std::thread::sleep(PAUSE);
            continue;
        }
        let why = match answer {
            _ if is_undone => "somebody has changed it back meanwhile".to_owned(),
            Ok(BlocksInForce {
                refused: Some(why), ..
            }) => format!("it refused the list: {why}"),
            Ok(_) => "it acts by another list".to_owned(),
            Err(error) => format!("it does not answer: {error}"),
        };
        eprintln!("portcullis: {path} is written, but the gateway has not confirmed it: {why}");
        return Ok(ExitCode::from(UNCONFIRMED));
    }
}

/// Asks a running gateway which list is in force.
fn ask(admin: &AdminAddress) -> io::Result<BlocksInForce> {
    let timeout = Some(limits::BLOCK_CONFIRMATION_TIMEOUT);
    match admin {
        AdminAddress::Loopback(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(timeout)?;
            exchange(stream)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(Path::new(path))?;
            stream.set_read_timeout(timeout)?;
            exchange(stream)
        }
    }
}

fn exchange(mut stream: impl Read + Write) -> io::Result<BlocksInForce> {
    // HTTP/1.0: the answer comes in one piece, and then the end.
    stream.write_all(b"GET /blocked HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream
        .take(limits::CONFIGURATION_BYTES_MAX as u64)
        .read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).map_err(io::Error::other),
        _ => Err(io::Error::other(
            "the administration endpoint is not a gateway's, or an older one's",
        )),
    }
}
