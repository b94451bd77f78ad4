//! Running other programs: says what is run, from the root of the repository, and turns a bad end into an error.
//! In: a program and its arguments. Out: nothing, or an error that names the command.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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

/// The nightly toolchain that the kernel program, Miri and the fuzz targets are built with. Its date stands still, because its
/// LLVM must be the one that bpf-linker links against (22), and so that a machine of next year builds what this one does.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// What the compiler of `NIGHTLY` says of itself, so that it is known under another name as well.
const NIGHTLY_COMPILER: &str = "(e50aa6fba 2026-05-19)";

/// The name under which that toolchain is installed: by its date, or as the `nightly` of its day. Where it is neither, the
/// name to install it by.
pub fn nightly() -> &'static str {
    static NAME: OnceLock<&str> = OnceLock::new();
    NAME.get_or_init(|| {
        let installed = output(Command::new("rustup").args(["toolchain", "list"]));
        let is_it = |name: &str| {
            let mut look = Command::new("rustup");
            output(look.args(["run", name, "rustc", "--version"]))
                .is_some_and(|version| version.contains(NIGHTLY_COMPILER))
        };
        toolchain_among(&installed.unwrap_or_default(), is_it).unwrap_or(NIGHTLY)
    })
}

/// Which of the toolchains that rustup lists is the pinned one. Only those that are there are asked, since rustup may fetch the
/// others.
fn toolchain_among(list: &str, is_it: impl Fn(&str) -> bool) -> Option<&'static str> {
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let by_date = names.iter().any(|name| name.starts_with(NIGHTLY));
    let plain = names.iter().any(|name| {
        let host = name.strip_prefix("nightly");
        // `nightly-2026-01-01-HOST` is another one, `nightly-HOST` is the plain one.
        host.is_some_and(|host| !host.starts_with("-2"))
    });
    match (by_date, plain) {
        (true, _) => Some(NIGHTLY),
        (false, true) if is_it("nightly") => Some("nightly"),
        (false, _) => None,
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

/// The cargo of the nightly compiler, as if nobody else's cargo had started us.
pub fn nightly_cargo() -> Command {
    let mut command = without_what_cargo_says_of_us(program("rustup"));
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command.args(["run", nightly(), "cargo"]);
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
    fn the_pinned_compiler_is_found_by_its_date_or_as_the_nightly_of_its_day() {
        let dated = format!(
            "stable-x86_64-unknown-linux-gnu (default)\n{NIGHTLY}-x86_64-unknown-linux-gnu\n"
        );
        assert_eq!(toolchain_among(&dated, |_| false), Some(NIGHTLY));
        let plain = "stable-x86_64-unknown-linux-gnu\nnightly-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain_among(plain, |_| true), Some("nightly"));
        assert_eq!(toolchain_among(plain, |_| false), None, "of another day");
        let other = "nightly-2025-01-01-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain_among(other, |_| true), None);
        assert_eq!(toolchain_among("", |_| true), None);
    }

    #[test]
    fn the_root_is_where_the_workspace_is() {
        assert!(root().join("Cargo.lock").is_file());
    }
}
