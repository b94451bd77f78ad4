//! `cargo xtask fuzz`: every fuzz target for a while, starting from the seeds in the repository.
//! In: a time, and perhaps one target. Out: nothing, or the targets that crashed, each with the input that did it.
//! What the fuzzer learns stays in `fuzz/target`, so that the next run starts from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::nightly::{NIGHTLY, nightly, nightly_cargo};
use command::{program, root, run, shown};

/// The version that the targets were tried with.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// How long each target runs in `cargo xtask test`.
const SHORT: Duration = Duration::from_secs(10);

/// What cargo-fuzz tells the compiler, without a sanitizer: that takes too long to build for every run of the tests. What is
/// lost with it, in safe code, is little; panics, overflows and assertions are found all the same.
const COVERAGE: [&str; 7] = [
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=16",
];

/// What `cargo xtask fuzz` can be told.
pub struct FuzzOptions {
    /// How long each target runs.
    pub time: Duration,
    /// Only this target.
    pub target: Option<String>,
}

/// Runs the targets one after the other; a crash of one does not keep the others from running.
pub fn run_targets(options: &FuzzOptions) -> Result<()> {
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

/// Every target for some seconds, without a sanitizer and without cargo-fuzz.
pub fn run_short() -> Result<()> {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    let folder = root().join("fuzz");
    // With a target, so that build scripts and macros are built without the flags.
    run(nightly_cargo()
        .current_dir(&folder)
        .args(["build", "--profile", "short", "--bins", "--locked"])
        .args(["--target", TRIPLE])
        .env("RUSTFLAGS", COVERAGE.join(" ")))?;
    let targets = targets(&root())?;
    // A fuzzer has one thread: as many run beside each other as there are CPUs.
    let lanes = thread::available_parallelism()?.get();
    let lane = |first: usize| {
        let targets = targets.iter().skip(first).step_by(lanes);
        let crashed = targets.filter_map(|target| {
            let binary = folder.join("target").join(TRIPLE).join("short");
            let outcome = run_briefly(target, &binary.join(target));
            outcome.err().map(|error| format!("{target}: {error}"))
        });
        crashed.collect::<Vec<_>>()
    };
    let crashed = thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .map(|first| scope.spawn(move || lane(first)))
            .collect();
        let crashed = lanes.into_iter().map(|lane| lane.join());
        crashed
            .flat_map(|lane| lane.expect("a lane"))
            .collect::<Vec<_>>()
    });
    ensure!(
        crashed.is_empty(),
        "fuzz targets failed; each input is in fuzz/target/crashes:\n{}",
        crashed.join("\n")
    );
    Ok(())
}

/// A target without cargo-fuzz.
fn run_briefly(target: &str, binary: &Path) -> Result<()> {
    run(program(binary)
        .current_dir(root().join("fuzz"))
        .args(inputs(target)?)
        .args(settings(target, SHORT))
        // One seed: what has not changed is tried as it was the last time, and does not fail by chance. Other inputs are
        // found by `cargo xtask fuzz`, which takes a seed of its own each time.
        .arg("-seed=1")
        // A crash is told all the same.
        .arg("-verbosity=0"))
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
        found(program("rustup").args(["run", nightly(), "rustc", "--version"])),
        "fuzzing needs a nightly compiler: install it with\n  \
         rustup toolchain install {NIGHTLY} --profile minimal"
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
    let mut command = nightly_cargo();
    command.current_dir(root().join("fuzz")).arg("fuzz");
    command
}

fn fuzz(target: &str, time: Duration) -> Result<()> {
    run(fuzzer()
        .args(["run", target])
        .args(inputs(target)?)
        .arg("--")
        .args(settings(target, time)))
}

/// Where a target's inputs are: new ones go to the first folder, the seeds stay as they are.
fn inputs(target: &str) -> Result<[PathBuf; 2]> {
    let folder = root().join("fuzz");
    let learnt = Path::new("target/learnt").join(target);
    for folder in [folder.join("target/crashes"), folder.join(&learnt)] {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok([learnt, Path::new("seeds").join(target)])
}

/// Arguments of the fuzzer's own.
fn settings(target: &str, time: Duration) -> [String; 2] {
    [
        format!("-max_total_time={}", time.as_secs().max(1)),
        format!("-artifact_prefix=target/crashes/{target}-"),
    ]
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
