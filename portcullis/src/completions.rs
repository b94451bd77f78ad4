//! `portcullis completions SHELL`. In: the shell's name. Out: its completion script on standard output.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::CommandLine;

/// Arguments of `portcullis completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Shell to complete in
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut CommandLine::command(),
            "portcullis",
            &mut script,
        );
        super::print(&String::from_utf8_lossy(&script))
    }
}
