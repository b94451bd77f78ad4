//! `portcullis demo`: starts `portcullis-demo`, which stands beside this program. In: its arguments. Out: its exit code.
//! The demo is a program of its own, so that this one holds nothing of the load generator.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow, ensure};
use clap::Args;

/// Name of the demo's file.
const PROGRAM: &str = "portcullis-demo";

/// Arguments of `portcullis demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Arguments of portcullis-demo, such as `--for 20s`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Demo {
    /// Becomes the demo. Returns only if that cannot be started.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let executable = env::current_exe().context("finding this program's own file")?;
        let program = beside(&executable)?;
        let error = Command::new(&program).args(self.arguments).exec();
        Err(anyhow!("cannot start {}: {error}", program.display()))
    }
}

/// The demo in the folder of `executable`.
fn beside(executable: &Path) -> anyhow::Result<PathBuf> {
    let program = executable.with_file_name(PROGRAM);
    ensure!(
        program.is_file(),
        "the demo is a program of its own, and {} does not exist: `cargo xtask demo` builds and starts it",
        program.display()
    );
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_demo_that_is_not_installed_is_an_error_that_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let executable = folder.path().join("portcullis");
        let error = beside(&executable).unwrap_err().to_string();
        for part in ["portcullis-demo does not exist", "cargo xtask demo"] {
            assert!(error.contains(part), "{error}");
        }
        let demo = folder.path().join("portcullis-demo");
        fs::write(&demo, "").unwrap();
        assert_eq!(beside(&executable).unwrap(), demo);
    }
}
