//! `portcullis reload`: the running gateway reads its configuration and all files anew. In: a name. Out: what came of it. On
//! the main thread. Exit code 0: taken; 1: refused, or no gateway runs, and the old state goes on.

use std::process::ExitCode;

use clap::Args;
use gateway::control::{Client, ReloadOutcome};

use super::which::Which;

/// Arguments of `portcullis reload`.
#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    which: Which,
}

impl Reload {
    /// Asks for it and waits.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.which.paths()?)?;
        let outcome: ReloadOutcome = client.post_and_wait(gateway::control::RELOAD, || {
            eprintln!("portcullis: the gateway is still reading its files; waiting");
        })?;
        if outcome.refused.is_empty() {
            let closed = outcome.closed;
            return super::print(&format!("reloaded; connections closed for it: {closed}\n"));
        }
        for error in &outcome.refused {
            eprintln!("{error}");
        }
        eprintln!("portcullis: reload refused, the old configuration stays in force");
        Ok(ExitCode::FAILURE)
    }
}
