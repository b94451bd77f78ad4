//! The `portcullis` program, one module a command. In: arguments. Out: text on standard output, errors on standard error, an
//! exit code. On the main thread; a command owns the process until it returns. What it does is in the libraries.
#![forbid(unsafe_code)]

mod block;
mod check;
mod completions;
mod crl;
mod demo;
mod enforced;
mod expiry;
mod explain;
mod explain_request;
mod guard;
mod keys;
mod pki;
mod reload;
mod rules;
mod run;
#[cfg(test)]
mod secrets;
mod status;
mod which;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use gateway::control::account_name;
use gateway::server::note_inherited;
use gateway_core::visible;
use gateway_x509::misplaced::without_pem;

/// Portcullis: an mTLS gateway for telemetry.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM
    Run(run::Run),
    /// Show the state of the running gateway
    Status(status::Status),
    /// Make the running gateway read its configuration again, and print the outcome
    Reload(reload::Reload),
    /// Validate a configuration and print what would be enforced
    Check(check::Check),
    /// Shut a client out at once, without its CA
    Block(block::Block),
    /// Remove an entry from the block list: the client gets in again
    Unblock(block::Unblock),
    /// Show the entries of the block list
    Blocked(block::Blocked),
    /// Show and change what the kernel programs know: sources, bans, counters
    Guard(guard::Guard),
    /// Keep a small certificate authority on disk
    Pki(pki::Pki),
    /// Decide about revocation lists that the gateway refuses
    Crl(crl::Crl),
    /// Keep the keys of session tickets that hosts and restarts share
    Keys(keys::Keys),
    /// Show everything at work on this host, without a configuration; a program of its own, portcullis-demo
    #[command(disable_help_flag = true)]
    Demo(demo::Demo),
    /// Print a completion script for a shell
    Completions(completions::Completions),
}

impl Command {
    /// Runs the command to its end.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(command) => command.execute(),
            Command::Status(command) => command.execute(),
            Command::Reload(command) => command.execute(),
            Command::Check(command) => command.execute(),
            Command::Block(command) => command.execute(),
            Command::Unblock(command) => command.execute(),
            Command::Blocked(command) => command.execute(),
            Command::Guard(command) => command.execute(),
            Command::Pki(command) => command.execute(),
            Command::Crl(command) => command.execute(),
            Command::Keys(command) => command.execute(),
            Command::Demo(command) => command.execute(),
            Command::Completions(command) => command.execute(),
        }
    }
}

#[global_allocator]
static MEMORY: gateway_rt::Memory = gateway_rt::Memory;

/// The whole program: exit code 0 is success, 1 a failure told on standard error, 2 a command line not understood.
fn main() -> ExitCode {
    gateway_rt::Memory::map_large_blocks();
    note_inherited();
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return not_understood(&error),
    };
    match command_line.command.execute() {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(error) => not_understood(error),
            None => {
                eprintln!("portcullis: {}", told(&error));
                ExitCode::FAILURE
            }
        },
    }
}

/// The error of a command line whose arguments do not go together, or have values that nothing on this host could make right.
fn misused(why: &str) -> anyhow::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{why}\n")).into()
}

/// Says what clap says, of help too, unless it repeats what may be a key.
fn not_understood(error: &clap::Error) -> ExitCode {
    let said = error.to_string();
    let told = without_pem(said.clone());
    if !error.use_stderr() || told == said {
        error.exit();
    }
    eprintln!("{told}");
    ExitCode::from(2)
}

/// An error with its causes, each told once: many of ours repeat what they were caused by. An option may be a key, given by mistake.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            let colon = if told.is_empty() { "" } else { ": " };
            told = told + colon + &cause;
        }
    }
    without_pem(told)
}

/// Prints to standard output, with nothing hidden in what others have named themselves. A reader that went away, as `head` does, is no failure.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(visible::escape(text).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The account that runs this, by login name and number; under sudo also its caller.
fn operator() -> String {
    let id = rustix::process::getuid();
    let account = account_name(id.as_raw());
    match std::env::var("SUDO_USER") {
        Ok(caller) if id.is_root() => format!("{caller} as {account}"),
        _ => account,
    }
}
