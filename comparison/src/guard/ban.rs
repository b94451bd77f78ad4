//! Does what fail2ban does, without its delay: reads the gateway's failure log as it grows and puts sources that fail
//! too often into a set of nftables. In: the audit log. Out: the moment of the first ban. On a thread of its own.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::defence::{BAN_POINTS, BAN_SECONDS, BANNED, points};

/// Pause between two looks at the log. fail2ban itself takes a second or so.
const LOOK: Duration = Duration::from_millis(50);

/// Reads the log until it is stopped.
pub struct Follower {
    stop: Sender<()>,
    thread: JoinHandle<Result<Option<SystemTime>>>,
}

impl Follower {
    /// Starts. `nft` runs nftables on the gateway's host.
    pub fn start(log: &Path, nft: Command) -> Result<Self> {
        let log = BufReader::new(File::open(log).with_context(|| format!("{}", log.display()))?);
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || follow(log, nft, &stopped));
        Ok(Self { stop, thread })
    }

    /// Ends it; returns when the first ban was in force.
    pub fn stop(self) -> Result<Option<SystemTime>> {
        // It may have ended by an error, which it then returns.
        let _ = self.stop.send(());
        self.thread.join().expect("following does not panic")
    }
}

fn follow(
    mut log: BufReader<File>,
    mut nft: Command,
    stopped: &Receiver<()>,
) -> Result<Option<SystemTime>> {
    let mut accounts = Accounts::default();
    let mut first = None;
    let mut line = String::new();
    loop {
        let mut banned = Vec::new();
        while log.read_line(&mut line)? > 0 {
            // The end of the file may cut a line in two: its second half is read next time.
            if line.ends_with('\n') {
                banned.extend(
                    failed(&line).and_then(|(source, reason)| accounts.charge(source, &reason)),
                );
                line.clear();
            }
        }
        if !banned.is_empty() {
            add(&mut nft, &banned)?;
            first.get_or_insert_with(SystemTime::now);
        }
        match stopped.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(first),
        }
    }
}

/// What each source owes, and which are banned. A flood is shorter than a ban and than any forgiveness.
#[derive(Default)]
struct Accounts {
    points: HashMap<IpAddr, u32>,
    banned: HashSet<IpAddr>,
}

impl Accounts {
    /// Returns the source if it is to be banned now.
    fn charge(&mut self, source: IpAddr, reason: &str) -> Option<IpAddr> {
        let owed = self.points.entry(source).or_default();
        *owed += points(reason);
        (*owed > BAN_POINTS && self.banned.insert(source)).then_some(source)
    }
}

/// The source that a line says was refused, and the reason.
fn failed(line: &str) -> Option<(IpAddr, String)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["event"] != "handshake" || line["outcome"] != "refused" {
        return None;
    }
    let peer: SocketAddr = line["peer"].as_str()?.parse().ok()?;
    Some((peer.ip(), line["reason"].as_str()?.to_owned()))
}

fn add(nft: &mut Command, sources: &[IpAddr]) -> Result<()> {
    let elements: Vec<String> = sources
        .iter()
        .map(|source| format!("{source} timeout {BAN_SECONDS}s"))
        .collect();
    let mut child = nft
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    writeln!(stdin, "add element {BANNED} {{ {} }}", elements.join(", "))?;
    drop(stdin);
    let status = child.wait()?;
    if !status.success() {
        bail!("nft ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_failure_of_the_heaviest_kind_is_a_ban_and_only_that_one() {
        let mut accounts = Accounts::default();
        let source = IpAddr::from([10, 79, 0, 1]);
        let bans: Vec<usize> = (1..=30)
            .filter(|_| accounts.charge(source, "unknown_issuer").is_some())
            .collect();
        assert_eq!(bans, [11]);
    }

    #[test]
    fn only_refused_clients_are_charged() {
        let refused = r#"{"event":"handshake","outcome":"refused","peer":"10.79.0.1:4000","reason":"not_tls"}"#;
        let expected = (IpAddr::from([10, 79, 0, 1]), "not_tls".to_owned());
        assert_eq!(failed(refused), Some(expected));
        for line in [
            r#"{"event":"handshake","outcome":"accepted","peer":"10.79.0.1:4000"}"#,
            r#"{"event":"end","peer":"10.79.0.1:4000","reason":"reset"}"#,
            "half a li",
        ] {
            assert_eq!(failed(line), None, "{line}");
        }
    }
}
