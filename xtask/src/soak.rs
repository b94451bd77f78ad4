//! `cargo xtask soak`: a day of a gateway's life in fast motion, judged by a program.
//! In: a time, perhaps a seed. Out: the report of `portcullis-soak`, and an error when a promise broke. Takes root.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use command::{cargo, program, run, target};

/// How it is played.
pub struct SoakOptions {
    /// For how long.
    pub time: Duration,
    /// What repeats a run.
    pub seed: Option<u64>,
    /// The gateway as it is released, rather than with assertions.
    pub release: bool,
}

/// What CI plays.
pub const SHORT: Duration = Duration::from_secs(2 * 60);
/// What is played before a release.
pub const LONG: Duration = Duration::from_secs(60 * 60);

/// Builds gateway and soak, and plays.
pub fn run_soak(options: &SoakOptions) -> Result<()> {
    let profile: &[&str] = match options.release {
        true => &["--release"],
        false => &[],
    };
    let packages = ["-p", "portcullis", "-p", "soak", "--bins", "--locked"];
    run(cargo().arg("build").args(profile).args(packages))?;
    run(&mut program_for(options))
}

/// Plays with what is built.
pub fn program_for(options: &SoakOptions) -> Command {
    let folder = match options.release {
        true => "release",
        false => "debug",
    };
    let mut soak = program(target().join(folder).join("portcullis-soak"));
    let time = humantime::format_duration(options.time).to_string();
    // One word, as a reader would type it.
    soak.args(["run", "--for", &time.replace(' ', "")]);
    if let Some(seed) = options.seed {
        soak.args(["--seed", &seed.to_string()]);
    }
    soak
}
