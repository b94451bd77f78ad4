//! The one nightly compiler that builds the kernel program, Miri's tests and the fuzz targets.
//! In: the toolchains that rustup lists. Out: the name of the pinned one, and a cargo that uses it. Installs nothing.

use std::process::Command;
use std::sync::OnceLock;

use command::{output, program, without_package_variables};

/// Settings of the surrounding cargo that are not meant for a build by another compiler.
const FOREIGN_VARIABLES: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The nightly toolchain that the kernel program, Miri and the fuzz targets are built with. Its date stands still, because its
/// LLVM must be the one that bpf-linker links against (22), and so that a machine of next year builds what this one does.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// What the compiler of `NIGHTLY` says of itself, so that it is known under another name as well.
const NIGHTLY_COMPILER: &str = "(e50aa6fba 2026-05-19)";

/// The name under which that toolchain is installed: by its date, or as the `nightly` of its day. Where it is neither, the
/// name to install it by.
pub fn nightly() -> &'static str {
    static NAME: OnceLock<&str> = OnceLock::new();
    NAME.get_or_init(|| {
        let installed = output(Command::new("rustup").args(["toolchain", "list"]));
        let is_it = |name: &str| {
            let mut look = Command::new("rustup");
            output(look.args(["run", name, "rustc", "--version"]))
                .is_some_and(|version| version.contains(NIGHTLY_COMPILER))
        };
        toolchain_among(&installed.unwrap_or_default(), is_it).unwrap_or(NIGHTLY)
    })
}

/// Which of the toolchains that rustup lists is the pinned one. Only those that are there are asked, since rustup may fetch the
/// others.
fn toolchain_among(list: &str, is_it: impl Fn(&str) -> bool) -> Option<&'static str> {
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let by_date = names.iter().any(|name| name.starts_with(NIGHTLY));
    let plain = names.iter().any(|name| {
        let host = name.strip_prefix("nightly");
        // `nightly-2026-01-01-HOST` is another one, `nightly-HOST` is the plain one.
        host.is_some_and(|host| !host.starts_with("-2"))
    });
    match (by_date, plain) {
        (true, _) => Some(NIGHTLY),
        (false, true) if is_it("nightly") => Some("nightly"),
        (false, _) => None,
    }
}

/// The cargo of the nightly compiler, as if nobody else's cargo had started us.
pub fn nightly_cargo() -> Command {
    let mut command = without_package_variables(program("rustup"));
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command.args(["run", nightly(), "cargo"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_compiler_is_found_by_its_date_or_as_the_nightly_of_its_day() {
        let dated = format!(
            "stable-x86_64-unknown-linux-gnu (default)\n{NIGHTLY}-x86_64-unknown-linux-gnu\n"
        );
        assert_eq!(toolchain_among(&dated, |_| false), Some(NIGHTLY));
        let plain = "stable-x86_64-unknown-linux-gnu\nnightly-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain_among(plain, |_| true), Some("nightly"));
        assert_eq!(toolchain_among(plain, |_| false), None, "of another day");
        let other = "nightly-2025-01-01-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain_among(other, |_| true), None);
        assert_eq!(toolchain_among("", |_| true), None);
    }
}
