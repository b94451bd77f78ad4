//! `cargo xtask demo`: builds the demo, with the gateway in it, and hands over to it.
//! In: arguments of the demo. Out: its exit code. Needs a C compiler and nothing else.

use std::time::Instant;

use anyhow::Result;

use crate::setup;
use command::{cargo, program, run, run_quietly, target};

/// Builds, then runs the demo in this terminal.
pub fn run_demo(arguments: &[String]) -> Result<()> {
    setup::run(setup::Purpose::Demo)?;
    eprintln!(
        "\nBuilding the gateway. The first time this takes two to four minutes on two cores, of which the ciphers of AWS-LC are the \
         longest part; after that, seconds."
    );
    let started = Instant::now();
    run(cargo().args([
        "build",
        "--locked",
        "--profile",
        "demo",
        "--package",
        "portcullis-demo",
    ]))?;
    eprintln!(
        "\nBuilt in {} s. This build is quick to make and not optimised: for figures, use `cargo build --release`.",
        started.elapsed().as_secs()
    );
    run_quietly(program(target().join("demo/portcullis-demo")).args(arguments))
}
