//! `cargo xtask check`: what a machine can say about the code without running it.
//! In: the working tree. Out: nothing, or the first complaint.

use std::process::Stdio;

use anyhow::Result;

use command::{cargo, root, run};

/// Dependency rules that need no network. Advisories are `cargo deny check`, where the database can be fetched.
const DENY: [&str; 5] = ["deny", "check", "bans", "licenses", "sources"];

/// Everything, tidy included.
pub fn run_with_tidy() -> Result<()> {
    run_without_tidy()?;
    run(cargo().args(["test", "--quiet", "--package", "xtask", "tidy"]))
}

/// What the test runner does not run anyway.
pub fn run_without_tidy() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    // Workspaces of their own.
    for manifest in ["gateway-ebpf/Cargo.toml", "fuzz/Cargo.toml"] {
        let manifest = root().join(manifest);
        run(cargo()
            .args(["fmt", "--check", "--manifest-path"])
            .arg(&manifest))?;
        // A package that a crate uses from now on, or no more, is in their lock files too.
        run(cargo()
            .args(["tree", "--locked", "--manifest-path"])
            .arg(&manifest)
            .stdout(Stdio::null()))?;
    }
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    run(cargo().args(DENY))
}
