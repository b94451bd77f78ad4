//! `portcullis keys`: the file of ticket keys that hosts and restarts share. In: arguments. Out: the file, and a line on it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use gateway::crypto;

/// Arguments of `portcullis keys`.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a new key the one that seals tickets; makes the file if there is none
    Rotate(Rotate),
}

#[derive(Debug, Args)]
struct Rotate {
    /// The file that `[tls.resumption] key_file` names
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Discard the old keys and raise the policy epoch: no earlier ticket opens any more
    #[arg(long)]
    distrust: bool,
}

impl Keys {
    /// Runs the command.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let KeysCommand::Rotate(Rotate { file, distrust }) = self.command;
        let random = rustls::crypto::ring::default_provider().secure_random;
        let rotated = crypto::rotate_ticket_keys(
            &file,
            distrust,
            (&super::operator(), SystemTime::now()),
            random,
        )?;
        let crypto::Rotated {
            is_new,
            keys,
            epoch,
        } = rotated;
        let done = match (is_new, distrust) {
            (true, _) => "made, with one key".to_owned(),
            (false, true) => format!("one new key, epoch {epoch}: no earlier ticket opens"),
            (false, false) => format!("a new key seals, {} more open", keys - 1),
        };
        super::print(&format!("{}: {done}\n", file.display()))
    }
}
