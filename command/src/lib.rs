//! Runs other programs in the root of the repository, for the tools: prints each command, and makes a failure an error.
//! In: a program and its arguments. Out: nothing, or an error that names the command. Blocks until the program has ended.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Root of the repository.
pub fn root() -> PathBuf {
    // This crate stands one folder below the root, wherever the clone is.
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

/// What a command printed, if it could be run and ended well.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The cargo that runs us, so that `cargo +nightly xtask` stays with its toolchain.
pub fn cargo() -> Command {
    without_package_variables(program(
        env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
    ))
}

/// Removes what the cargo that runs us says of our own package. Other builds must not see it: ring compiles anew whenever it
/// changes.
pub fn without_package_variables(mut command: Command) -> Command {
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
