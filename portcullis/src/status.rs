//! `portcullis status`: what the running gateway says of itself. In: a name. Out: text or JSON. On the main thread. Exit
//! code 0: it serves; 1: it does not run, or does not answer; 3: it drains.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use gateway::control::{Client, Status as Answer};

use super::which::Which;

/// It still runs, and accepts no client any more.
const DRAINING: u8 = 3;

/// Arguments of `portcullis status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    which: Which,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Asks, and prints.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let status = Client::connect(&self.which.paths()?)?.status()?;
        let printed = match self.json {
            true => super::print(&(serde_json::to_string_pretty(&status)? + "\n"))?,
            false => super::print(&text(&status))?,
        };
        Ok(match status.state.as_str() {
            "serving" => printed,
            _ => ExitCode::from(DRAINING),
        })
    }
}

fn text(status: &Answer) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("name", status.name.clone());
    row(
        "state",
        format!("{}, since {}", status.state, status.started_at),
    );
    row("version", status.version.clone());
    row("process", status.process.to_string());
    row("configuration", status.configuration.display().to_string());
    row("state folder", status.state_folder.display().to_string());
    for listener in &status.listeners {
        let open = listener.connections;
        let value = format!(
            "{} on {}, {open} connections",
            listener.name, listener.address
        );
        row("listener", value);
    }
    for worker in &status.workers {
        let driver = worker.driver.as_deref().unwrap_or("not running yet");
        row("worker", format!("{}: {driver}", worker.number));
    }
    row("guard", status.guard.clone());
    let blocks = &status.blocks;
    let refused = blocks.refused.as_ref();
    let refused = refused.map_or(String::new(), |why| {
        format!(", while the file that is there now is refused: {why}")
    });
    row(
        "block list",
        format!("{} entries in force{refused}", blocks.entries),
    );
    let reloads = &status.reloads;
    let taken = reloads.taken_at.as_deref().unwrap_or("never");
    row("last reload", format!("taken: {taken}"));
    if let Some(at) = &reloads.refused_at {
        let why = reloads.refused_because.as_ref();
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        row("", format!("refused: {at}{why}"));
    }
    table.trim_fmt() + "\n"
}
