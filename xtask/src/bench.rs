//! `cargo xtask bench`: builds the program that measures and hands over to it.
//! In: its arguments. Out: its exit code. What it measures and how is in `comparison`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::setup;
use command::{cargo, run, target};

/// Builds, then becomes the program. Returns only if that cannot be started.
pub fn run_bench(arguments: &[String]) -> Result<()> {
    if needs_namespaces(arguments) {
        setup::run(setup::Purpose::Namespaces)?;
    }
    run(cargo().args([
        "build",
        "--locked",
        "--profile",
        "demo",
        "--package",
        "comparison",
    ]))?;
    // In the caller's folder, which relative paths among the arguments start from.
    let program = target().join("demo/portcullis-comparison");
    let error = Command::new(&program).args(arguments).exec();
    Err(anyhow!("cannot run {}: {error}", program.display()))
}

/// Floods need tools for network namespaces; their help does not.
fn needs_namespaces(arguments: &[String]) -> bool {
    let asks_for_help = |argument: &String| matches!(argument.as_str(), "-h" | "--help");
    arguments.first().is_some_and(|subject| subject == "guard")
        && !arguments.iter().any(asks_for_help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_floods_install_the_tools_of_namespaces() {
        let needs = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            needs_namespaces(&words)
        };
        assert!(needs("guard --quick"));
        for line in ["", "compare guard", "guard --help", "guard -h", "trust"] {
            assert!(!needs(line), "{line}");
        }
    }
}
