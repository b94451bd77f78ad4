//! `cargo xtask demo`: builds the gateway and hands over to `portcullis demo`.
//! In: arguments of the demo. Out: its exit code. Needs a C compiler and nothing else.

use anyhow::Result;

use crate::command::{cargo, program, run, run_quietly, target};
use crate::setup;

/// Builds, then runs the demo in this terminal.
pub fn run_demo(arguments: &[String]) -> Result<()> {
    setup::run(setup::Purpose::Demo)?;
    run(cargo().args([
        "build",
        "--locked",
        "--package",
        "gateway",
        "--bin",
        "portcullis",
    ]))?;
    eprintln!(
        "\nThis build is quick to make and not optimised: for figures, use `cargo build --release`."
    );
    run_quietly(
        program(target().join("debug/portcullis"))
            .arg("demo")
            .args(arguments),
    )
}
