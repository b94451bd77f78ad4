//! The `portcullis` binary. In: the command line. Out: an exit code. All work is in the library.

use std::process::ExitCode;

#[global_allocator]
static MEMORY: gateway_rt::Memory = gateway_rt::Memory;

fn main() -> ExitCode {
    gateway_rt::Memory::map_large_blocks();
    gateway::cli::main()
}
