//! `cargo xtask setup`: installs what the demo and the tests need and what is missing, and nothing else.
//! In: a purpose. Out: everything of `parts` present, or an error. Looks first: a second run takes about a second.

mod parts;
mod runner;
mod software;

use std::io::{IsTerminal, stderr};

use anyhow::{Result, bail};

use crate::command::shown;
use parts::Part;

/// What is to be done afterwards; each needs less than the one below it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Build the gateway and run the demo.
    Demo,
    /// Run the checks.
    Check,
    /// Let hosts in network namespaces flood each other.
    Namespaces,
    /// Run every test, and build the kernel program.
    Everything,
    /// Run the long tests as well.
    Long,
}

/// Installs what is missing. Not root: prints the exact commands and fails.
pub fn run(purpose: Purpose) -> Result<()> {
    let missing: Vec<Part> = parts::all(purpose)?
        .into_iter()
        .filter(|part| !part.present)
        .collect();
    if missing.is_empty() {
        if matches!(purpose, Purpose::Everything | Purpose::Long) {
            eprintln!("set-up: everything is there");
        }
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{}", commands_for_root(&missing));
    }
    let total = missing.len();
    for (index, part) in missing.into_iter().enumerate() {
        runner::install(part, index + 1, total, stderr().is_terminal())?;
    }
    Ok(())
}

/// What a reader without the rights has to type.
fn commands_for_root(missing: &[Part]) -> String {
    let mut text = String::from(
        "these are missing; run the commands yourself, or `cargo xtask setup` as root:\n",
    );
    for part in missing {
        text.push_str(&format!("\n  # {}\n", part.name));
        for command in &part.commands {
            let sudo = if part.needs_root { "sudo " } else { "" };
            text.push_str(&format!("  {sudo}{}\n", shown(command)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn without_root_the_exact_commands_are_printed() {
        let part = |name, needs_root, words: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            Part {
                name,
                present: false,
                needs_root,
                commands: vec![command],
            }
        };
        let text = commands_for_root(&[
            part("OpenSSL", true, &["apt-get", "install", "openssl"]),
            part("cargo-deny", false, &["cargo", "install", "cargo-deny"]),
        ]);
        assert!(
            text.contains("\n  sudo apt-get install openssl\n"),
            "{text}"
        );
        assert!(text.contains("\n  cargo install cargo-deny\n"), "{text}");
    }

    #[test]
    fn the_demo_needs_no_more_than_a_compiler() {
        let names: Vec<_> = parts::all(Purpose::Demo)
            .unwrap()
            .into_iter()
            .map(|part| part.name)
            .collect();
        assert_eq!(names, ["Debian packages"]);
    }
}
