//! `cargo xtask fuzz`: every fuzz target for a while, starting from the seeds in the repository.
//! In: a time, and perhaps one target. Out: nothing, or the targets that crashed, each with the input that did it.
//! What the fuzzer learns stays in `fuzz/target`, so that the next run starts from it.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{program, root, run, shown};

/// The version that the targets were tried with.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// Settings of the surrounding cargo that are not meant for this build.
const FOREIGN_VARIABLES: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// What `cargo xtask fuzz` can be told.
pub struct Options {
    /// How long each target runs.
    pub time: Duration,
    /// Only this target.
    pub target: Option<String>,
}

/// Runs the targets one after the other; a crash of one does not keep the others from running.
pub fn run_targets(options: &Options) -> Result<()> {
    let known = targets(&root())?;
    let chosen = match &options.target {
        Some(target) if !known.contains(target) => {
            bail!("no fuzz target {target}: there are {}", known.join(", "));
        }
        Some(target) => vec![target.clone()],
        None => known,
    };
    ensure_tools()?;
    run(fuzzer().arg("build").args(&options.target))?;
    let mut crashed = Vec::new();
    for target in &chosen {
        if let Err(error) = fuzz(target, options.time) {
            crashed.push(format!("{target}: {error}"));
        }
    }
    ensure!(
        crashed.is_empty(),
        "{} of {} fuzz targets failed; each input is in fuzz/target/crashes, and this runs one again:\n  {}\n{}",
        crashed.len(),
        chosen.len(),
        shown(fuzzer().args(["run", "TARGET", "target/crashes/INPUT"])),
        crashed.join("\n")
    );
    eprintln!("\nfuzz: no crash in {}", chosen.join(", "));
    Ok(())
}

/// Names of all targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/targets");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let (Some("rs"), Some(name)) = (
            path.extension().and_then(|extension| extension.to_str()),
            path.file_stem().and_then(|name| name.to_str()),
        ) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn ensure_tools() -> Result<()> {
    let found = |command: &mut Command| {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    ensure!(
        found(program("rustup").args(["run", "nightly", "rustc", "--version"])),
        "fuzzing needs a nightly compiler: install it with\n  \
         rustup toolchain install nightly --profile minimal"
    );
    ensure!(
        found(fuzzer().arg("--version")),
        "cargo-fuzz is not in PATH: install it with\n  \
         cargo install cargo-fuzz --version {CARGO_FUZZ_VERSION} --locked"
    );
    Ok(())
}

/// cargo-fuzz with a nightly compiler, in the folder of the targets.
fn fuzzer() -> Command {
    let mut command = program("rustup");
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    // What cargo says of us to us would make the build scripts that look at it run again.
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&variable);
        }
    }
    command
        .current_dir(root().join("fuzz"))
        .args(["run", "nightly", "cargo", "fuzz"]);
    command
}

fn fuzz(target: &str, time: Duration) -> Result<()> {
    let folder = root().join("fuzz/target");
    let learnt = Path::new("target/learnt").join(target);
    for folder in [folder.join("crashes"), root().join("fuzz").join(&learnt)] {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    // New inputs go to the first folder, the seeds stay as they are.
    run(fuzzer()
        .args(["run", target])
        .arg(&learnt)
        .arg(Path::new("seeds").join(target))
        .arg("--")
        .arg(format!("-max_total_time={}", time.as_secs().max(1)))
        .arg(format!("-artifact_prefix=target/crashes/{target}-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target's seeds are for a reader and for every clone: small.
    const SEED_BYTES_MAX: u64 = 64 << 10;

    #[test]
    fn every_target_is_built_and_has_a_few_small_seeds() {
        let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let mut built: Vec<&str> = manifest["bin"]
            .as_array()
            .unwrap()
            .iter()
            .map(|binary| binary["name"].as_str().unwrap())
            .collect();
        built.sort_unstable();
        let targets = targets(&root()).unwrap();
        assert_eq!(built, targets);
        assert!(!targets.is_empty());
        for target in targets {
            let seeds = fs::read_dir(root().join("fuzz/seeds").join(&target)).unwrap();
            let bytes: u64 = seeds
                .map(|seed| seed.unwrap().metadata().unwrap().len())
                .sum();
            assert!(
                (1..=SEED_BYTES_MAX).contains(&bytes),
                "{target}: {bytes} bytes"
            );
        }
    }
}
