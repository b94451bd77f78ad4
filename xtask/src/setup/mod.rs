//! `cargo xtask setup`: installs what the demo and the tests need and what is missing, and nothing else.
//! In: a purpose. Out: everything of `parts` present, or an error. Looks first: a second run takes about a second.

mod parts;
mod runner;
mod software;

use std::io::{IsTerminal, stderr};

use anyhow::{Result, bail};

use command::shown;
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
    let missing = missing(purpose)?;
    if missing.is_empty() {
        if matches!(purpose, Purpose::Everything | Purpose::Long) {
            eprintln!("set-up: everything is there");
        }
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{}", commands_for_root(&missing));
    }
    let terminal = stderr().is_terminal();
    one_by_one(
        || self::missing(purpose),
        |part, number, total| runner::install(part, number, total, terminal),
    )
}

fn missing(purpose: Purpose) -> Result<Vec<Part>> {
    let mut parts = parts::all(purpose)?;
    parts.retain(|part| !part.present);
    Ok(parts)
}

/// Installs the first part that is missing and looks again, until none is. What has just come decides what the rest is: the
/// version of a compiler is in the name of what it builds, so what was looked at before it came would be built twice.
fn one_by_one(
    look: impl Fn() -> Result<Vec<Part>>,
    mut install: impl FnMut(Part, usize, usize) -> Result<()>,
) -> Result<()> {
    let mut installed: Vec<&str> = Vec::new();
    loop {
        let mut missing = look()?.into_iter();
        let Some(part) = missing.next() else {
            return Ok(());
        };
        if installed.contains(&part.name) {
            bail!(
                "{} was installed and is still not found: is the folder it went to in PATH?",
                part.name
            );
        }
        installed.push(part.name);
        let total = installed.len() + missing.len();
        install(part, installed.len(), total)?;
    }
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
    // What a compiler builds is named after its version, and there may be none yet.
    text.push_str("\nthen run `cargo xtask setup` again: it says whether anything is left\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::process::Command;

    fn part(name: &'static str, needs_root: bool, words: &[&str]) -> Part {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        Part {
            name,
            present: false,
            needs_root,
            commands: vec![command],
        }
    }

    #[test]
    fn without_root_the_exact_commands_are_printed() {
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
    fn what_is_built_follows_the_compiler_that_came_just_before() {
        let compiler = Cell::new("none");
        let built = RefCell::new(Vec::new());
        let look = || {
            let mut missing = Vec::new();
            if compiler.get() == "none" {
                missing.push(part("a compiler", true, &["apt-get"]));
            }
            if built.borrow().last() != Some(&compiler.get().to_owned()) {
                missing.push(part("a product", false, &["build", compiler.get()]));
            }
            Ok(missing)
        };
        let mut shown = Vec::new();
        one_by_one(look, |part, number, total| {
            shown.push((number, total));
            match part.name {
                "a compiler" => compiler.set("17"),
                _ => {
                    let by = part.commands[0].get_args().next().unwrap();
                    built.borrow_mut().push(by.to_str().unwrap().to_owned());
                }
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(*built.borrow(), ["17"], "once, and by what is there");
        assert_eq!(shown, [(1, 2), (2, 2)]);
    }

    #[test]
    fn what_is_not_found_after_its_installation_is_an_error_and_no_endless_loop() {
        let look = || Ok(vec![part("a tool", false, &["install"])]);
        let mut times = 0;
        let error = one_by_one(look, |_, _, _| {
            times += 1;
            Ok(())
        })
        .unwrap_err();
        assert_eq!(times, 1);
        assert!(error.to_string().contains("a tool"), "{error}");
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
