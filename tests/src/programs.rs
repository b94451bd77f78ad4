//! Where the programs are: the project's own beside the test, other people's where `cargo xtask setup` put them.
//! In: a name. Out: a path that exists, or a panic that says what to run.

use std::env;
use std::path::{Path, PathBuf};

/// One of our own programs, built in the same profile as the test.
pub fn program(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a running program knows its own file");
    // target/PROFILE/deps/TEST: the programs are two up.
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are built below target");
    let advice = "run the tests by `cargo xtask test`, which builds the programs first";
    existing(profile.join(name), advice)
}

/// The Python with the clients.
pub fn python() -> PathBuf {
    existing(
        root().join(".tools/python/bin/python"),
        "run `cargo xtask setup`",
    )
}

/// A file that a Python package carries, by its path below `site-packages`.
pub fn wheel_file(path: &str) -> PathBuf {
    environment_file("python", path)
}

/// Envoy, in a Python environment of its own.
pub fn envoy() -> PathBuf {
    environment_file("envoy", "envoy/_bin/envoy")
}

/// HAProxy, unpacked.
pub fn haproxy() -> PathBuf {
    existing(
        root().join(".tools/haproxy/usr/sbin/haproxy"),
        "run `cargo xtask setup --all`",
    )
}

fn environment_file(environment: &str, path: &str) -> PathBuf {
    let libraries = root().join(".tools").join(environment).join("lib");
    let version = libraries
        .read_dir()
        .ok()
        .and_then(|mut entries| entries.next())
        .and_then(Result::ok)
        .unwrap_or_else(|| {
            panic!(
                "{} is empty: run `cargo xtask setup`, for long tests `cargo xtask setup --all`",
                libraries.display()
            )
        });
    existing(
        version.path().join("site-packages").join(path),
        "run `cargo xtask setup`",
    )
}

/// Node.js.
pub fn node() -> PathBuf {
    in_path("node")
}

/// The folder with the JavaScript clients.
pub fn node_modules() -> PathBuf {
    existing(root().join(".tools/node"), "run `cargo xtask setup`")
}

/// Debian's Prometheus, installed or unpacked.
pub fn prometheus() -> PathBuf {
    debian("prometheus")
}

/// Its tool for rules, from the same package.
pub fn promtool() -> PathBuf {
    debian("promtool")
}

fn debian(name: &str) -> PathBuf {
    let unpacked = root().join(".tools/debian/usr/bin").join(name);
    if unpacked.is_file() {
        unpacked
    } else {
        in_path(name)
    }
}

/// A product of `tests/software`, such as `collector/collector`.
pub fn software(path: &str) -> PathBuf {
    existing(
        root().join(".tools/software").join(path),
        "run `cargo xtask setup`, for long tests `cargo xtask setup --all`",
    )
}

/// A client script of ours, such as `python/otel_client.py`.
pub fn client_script(path: &str) -> PathBuf {
    existing(
        root().join("tests/clients").join(path),
        "it belongs to the repository",
    )
}

fn in_path(name: &str) -> PathBuf {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not in PATH: run `cargo xtask setup`"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands below the root")
        .to_owned()
}

fn existing(path: PathBuf, advice: &str) -> PathBuf {
    assert!(path.exists(), "{} does not exist: {advice}", path.display());
    path
}
