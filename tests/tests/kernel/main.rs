//! The kernel program in the kernel: crafted frames through `BPF_PROG_TEST_RUN`, and real connections in network
//! namespaces. Needs root and fails without it. Nothing survives the tests, not even when they are killed.

mod attached;
mod cgroup;
mod cost;
mod enforce;
mod evaluated;
mod flood;
mod flows;
mod forge;
#[path = "../../../gateway-common/tests/frames/mod.rs"]
mod frames;
mod layout;
mod namespace;
mod programs;
#[path = "../../../gateway-common/tests/scenes/mod.rs"]
mod scenes;
mod test_run;
mod topology;

use std::env;
use std::fs;
use std::path::PathBuf;

use gateway_guard::EMBEDDED_OBJECT;

/// The object under test: a freshly built one if the environment names it, as `cargo xtask test` does, else the one
/// that the gateway carries.
fn object() -> Vec<u8> {
    match env::var_os("PORTCULLIS_EBPF_OBJECT").map(PathBuf::from) {
        Some(path) => fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        None => EMBEDDED_OBJECT.to_vec(),
    }
}
