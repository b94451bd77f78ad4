//! `portcullis guard`: what the kernel program knows and does, read and changed where it is pinned, whether the gateway
//! runs or not. In: the gateway's name, for the place of the pins. Out: tables or JSON; bans made and lifted.
//! On the main thread. Exit code 0: done, and acted by; 1: nothing was changed; 3: done, and no program acts by it: no
//! gateway answers for it, or its mode is not `enforce`.

mod ban;
mod bans;
mod detach;
pub(super) mod notes;
mod shown;
mod snapshot;
mod sources;
mod status;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::which::Which;

/// Done, and no program acts by it.
const NOT_ACTED_BY: u8 = 3;

/// Arguments of `portcullis guard`.
#[derive(Debug, Args)]
pub struct Guard {
    #[command(subcommand)]
    command: GuardCommand,
}

#[derive(Debug, Subcommand)]
enum GuardCommand {
    /// Show what the guard does and what it has counted
    Status(status::GuardStatus),
    /// List the sources that have flows waiting, owe something or are banned
    Sources(sources::Sources),
    /// List the bans
    Bans(bans::Bans),
    /// Ban a source by hand
    Ban(ban::Ban),
    /// Lift the ban of a source
    Unban(ban::Unban),
    /// Print bans and counters as they change, once a second
    Watch(watch::Watch),
    /// Remove the guard from the kernel, with everything it knows
    Detach(detach::Detach),
}

/// What every command needs.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Guard {
    /// Runs the command.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            GuardCommand::Status(command) => command.execute(),
            GuardCommand::Sources(command) => command.execute(),
            GuardCommand::Bans(command) => command.execute(),
            GuardCommand::Ban(command) => command.execute(),
            GuardCommand::Unban(command) => command.execute(),
            GuardCommand::Watch(command) => command.execute(),
            GuardCommand::Detach(command) => command.execute(),
        }
    }
}

/// Prints a value as JSON where that is asked for, else the text.
fn print(
    common: &Common,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<ExitCode> {
    match common.json {
        true => super::print(&(serde_json::to_string_pretty(value)? + "\n")),
        false => super::print(&text()),
    }
}
