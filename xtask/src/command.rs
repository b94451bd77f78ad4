//! Running other programs: says what is run, from the root of the repository, and turns a bad end into an error.
//! In: a program and its arguments. Out: nothing, or an error that names the command.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Root of the repository.
pub fn root() -> PathBuf {
    // xtask stands one folder below the root, wherever the clone is.
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// The target folder that cargo uses for this workspace.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Settings of the surrounding cargo that are not meant for a build by another compiler.
const FOREIGN_VARIABLES: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The cargo of the nightly compiler, as if nobody else's cargo had started us.
pub fn nightly_cargo() -> Command {
    let mut command = without_what_cargo_says_of_us(program("rustup"));
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command.args(["run", "nightly", "cargo"]);
    command
}

/// The cargo that runs us, so that `cargo +nightly xtask` stays with its toolchain.
pub fn cargo() -> Command {
    without_what_cargo_says_of_us(program(
        env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
    ))
}

fn without_what_cargo_says_of_us(mut command: Command) -> Command {
    // What cargo says of xtask to xtask is no business of other builds: ring compiles anew whenever it changes.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A command that runs in the root of the repository.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    command
}

/// Says what is run and runs it.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("\n$ {}", shown(command));
    run_quietly(command)
}

/// Runs a command without a word about it.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// The command as one would type it.
pub fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    // A reader types `cargo`, not the path rustup gave it.
    let program = match program.file_name() {
        Some(name) if program.is_absolute() && name == "cargo" => name.to_string_lossy(),
        _ => program.to_string_lossy(),
    };
    let mut words = vec![quoted(&program)];
    words.extend(
        command
            .get_args()
            .map(|argument| quoted(&argument.to_string_lossy())),
    );
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "-_./=+,:@".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["test", "a b", "it's", ""]);
        assert_eq!(shown(&command), r"cargo test 'a b' 'it'\''s' ''");
    }

    #[test]
    fn a_bad_end_is_an_error_that_names_the_command() {
        let error = run_quietly(Command::new("false").arg("--loudly")).unwrap_err();
        assert!(
            error.to_string().starts_with("false --loudly ended with"),
            "{error}"
        );
    }

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
