//! The `portcullis-loadgen` program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use loadgen::cli::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("portcullis-loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}
