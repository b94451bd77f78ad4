//! The `portcullis` binary. In: the command line. Out: an exit code. All work is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
