//! `cargo xtask ebpf`: the kernel program from source, with a nightly compiler and bpf-linker.
//! In: gateway-ebpf and gateway-common. Out: an object and, beside it, the SHA-256 of the object and of every file it
//! came from, so that a test can tell when they no longer belong together. The rest of the build needs neither tool.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::nightly::{NIGHTLY, nightly};
use command::{output, program, root};

/// File name of the object, in whatever folder it stands.
pub const OBJECT_NAME: &str = "portcullis.bpf.o";

/// Folder of the repository that holds the object the gateway embeds.
const OBJECT_FOLDER: &str = "gateway-guard/ebpf";

/// File name of the hashes, beside the object.
const HASHES_NAME: &str = "portcullis.bpf.o.sha256";

/// Names a compiler to use instead of rustup's nightly, for machines without rustup.
const COMPILER_VARIABLE: &str = "PORTCULLIS_EBPF_RUSTC";

/// Little-endian BPF: x86-64 and aarch64 alike. The program reads nothing that depends on the architecture.
const TARGET: &str = "bpfel-unknown-none";

/// What the object is built from: files, and folders with everything in them.
const SOURCES: [&str; 5] = [
    "gateway-common/Cargo.toml",
    "gateway-common/src",
    "gateway-ebpf/Cargo.lock",
    "gateway-ebpf/Cargo.toml",
    "gateway-ebpf/src",
];

/// Settings of the surrounding cargo that are not meant for this build.
const FOREIGN_VARIABLES: [&str; 7] = [
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// What `cargo xtask ebpf` can be told.
pub struct EbpfOptions {
    /// Write to this folder instead of the repository's object.
    pub out: Option<PathBuf>,
}

/// Builds the object and writes it with its hashes.
pub fn run(options: &EbpfOptions) -> Result<()> {
    let root = root();
    let compiler = Compiler::chosen();
    compiler.ensure_ready()?;
    ensure_linker()?;

    let target_folder = root.join("gateway-ebpf/target");
    command::run(
        compiler
        .cargo()
        .current_dir(root.join("gateway-ebpf"))
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target_folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&root, &compiler.sysroot()?)))
    .context("the kernel program does not build; bpf-linker's LLVM must not be older than the compiler's")?;

    let built = target_folder.join(TARGET).join("release/portcullis");
    let linked = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = without_debug_information(&linked)
        .with_context(|| format!("{} is not an object", built.display()))?;
    // In the repository the path is written as one gives it from the root; elsewhere as it was asked for.
    let folder = options.out.as_deref().unwrap_or(Path::new(OBJECT_FOLDER));
    let path = folder.join(OBJECT_NAME);
    let hashes = Hashes::of(&root, &path, &object)?;
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => root.join(OBJECT_FOLDER),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    write(&folder.join(OBJECT_NAME), &object)?;
    write(&folder.join(HASHES_NAME), hashes.0.as_bytes())?;
    eprintln!(
        "{}: {} bytes, SHA-256 {}",
        path.display(),
        object.len(),
        hash(&object)
    );
    Ok(())
}

/// Flags of the compiler: types for the kernel, and source paths that are the same on every machine, since the types
/// come with the places they are used at.
fn flags(root: &Path, sysroot: &Path) -> OsString {
    let home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let mut flags = OsString::from("-Clink-arg=--btf");
    let paths = [(root, "."), (home.as_path(), "cargo"), (sysroot, "rust")];
    for (from, to) in paths {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

/// The object with the types (BTF) that the kernel wants, without the debug information they were made from.
fn without_debug_information(linked: &[u8]) -> Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(linked)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        // Lines of source too: the kernel refuses two of them for one instruction, which inlined assembly makes.
        section.delete = [
            &b".debug_"[..],
            b".rel.debug_",
            b".BTF.ext",
            b".rel.BTF.ext",
        ]
        .iter()
        .any(|start| name.starts_with(start));
    }
    // The linker keeps names of sections among those of symbols; the builder wants them apart.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = object::build::elf::SectionData::SectionString;
    builder.set_section_sizes();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// The compiler that can build for the kernel: core is built with it, which takes unstable options.
enum Compiler {
    /// The pinned nightly toolchain of rustup.
    Nightly,
    /// A compiler of any release, which is told to accept unstable options, and the cargo in PATH.
    Named(OsString),
}

impl Compiler {
    fn chosen() -> Self {
        env::var_os(COMPILER_VARIABLE).map_or(Self::Nightly, Self::Named)
    }

    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Nightly => program("rustup"),
            Self::Named(_) => program("cargo"),
        };
        for variable in FOREIGN_VARIABLES {
            command.env_remove(variable);
        }
        match self {
            Self::Nightly => command.args(["run", nightly(), "cargo"]),
            Self::Named(path) => command.env("RUSTC", path).env("RUSTC_BOOTSTRAP", "1"),
        };
        command
    }

    fn rustc(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut command = program("rustup");
                command.args(["run", nightly(), "rustc"]);
                command
            }
            Self::Named(path) => program(path),
        }
    }

    /// What to do when this compiler, or the source of its core library, is missing.
    fn remedy(&self) -> String {
        match self {
            Self::Nightly => format!(
                "install it with\n  \
                 rustup toolchain install {NIGHTLY} --profile minimal --component rust-src\n\
                 or name another compiler, one whose library source is installed, with PORTCULLIS_EBPF_RUSTC"
            ),
            Self::Named(_) => {
                "PORTCULLIS_EBPF_RUSTC must name a rustc whose library source is installed; on Debian\n  \
                 apt-get install rustc-web rust-web-src\n\
                 and PORTCULLIS_EBPF_RUSTC=/usr/bin/rustc"
                    .to_owned()
            }
        }
    }

    /// Folder that the compiler and its library stand in.
    fn sysroot(&self) -> Result<PathBuf> {
        match output(self.rustc().args(["--print", "sysroot"])) {
            Some(sysroot) => Ok(PathBuf::from(sysroot.trim())),
            None => bail!("no compiler for the kernel program: {}", self.remedy()),
        }
    }

    fn ensure_ready(&self) -> Result<()> {
        let source = self
            .sysroot()?
            .join("lib/rustlib/src/rust/library/core/Cargo.toml");
        ensure!(
            source.is_file(),
            "the compiler lacks the source of its core library ({}): {}",
            source.display(),
            self.remedy()
        );
        Ok(())
    }
}

fn ensure_linker() -> Result<()> {
    ensure!(
        output(program("bpf-linker").arg("--version")).is_some(),
        "bpf-linker is not in PATH: install it with\n  \
         apt-get install --no-install-recommends llvm-22-dev\n  \
         LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
         --no-default-features --features llvm-22"
    );
    Ok(())
}

/// Hashes of an object and of its sources as `sha256sum --check` reads them: the object first, then the sources in
/// order of their paths, which go from the root of the repository.
struct Hashes(String);

impl Hashes {
    fn of(root: &Path, object_path: &Path, object: &[u8]) -> Result<Self> {
        let mut sources = Vec::new();
        for source in SOURCES {
            collect_files(root, source, &mut sources)?;
        }
        sources.sort();
        let path = object_path.display();
        let mut text = format!(
            "# Written by `cargo xtask ebpf`: the kernel program, and the files it was built from.\n\
             # Check from the root of the repository: sha256sum --check {path}.sha256\n\
             {}  {path}\n",
            hash(object)
        );
        for source in sources {
            let bytes =
                fs::read(root.join(&source)).with_context(|| format!("cannot read {source}"))?;
            text.push_str(&format!("{}  {source}\n", hash(&bytes)));
        }
        Ok(Self(text))
    }
}

/// Adds `path`, or every file below it, to `files`.
fn collect_files(root: &Path, path: &str, files: &mut Vec<String>) -> Result<()> {
    let full = root.join(path);
    if !full.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(&full).with_context(|| format!("cannot read {}", full.display()))? {
        let name = entry?.file_name();
        let name = name
            .to_str()
            .with_context(|| format!("{path}: a name that is not UTF-8"))?;
        collect_files(root, &format!("{path}/{name}"), files)?;
    }
    Ok(())
}

fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with a word on the first difference between `recorded` and what stands below `root`.
    fn ensure_belong_together(root: &Path, recorded: &str) -> Result<()> {
        let path = Path::new(OBJECT_FOLDER).join(OBJECT_NAME);
        let object = fs::read(root.join(&path))?;
        let Hashes(present) = Hashes::of(root, &path, &object)?;
        for (line, (recorded, present)) in recorded.lines().zip(present.lines()).enumerate() {
            ensure!(
                recorded == present,
                "line {}: recorded `{recorded}`, present `{present}`",
                line + 1
            );
        }
        ensure!(
            recorded == present,
            "files were added or removed at the end of the list"
        );
        Ok(())
    }

    fn recorded(root: &Path) -> String {
        let path = root.join(OBJECT_FOLDER).join(HASHES_NAME);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_object_in_the_repository_was_built_from_the_sources_beside_it() {
        let root = root();
        if let Err(difference) = ensure_belong_together(&root, &recorded(&root)) {
            panic!("{difference:#}\nrun `cargo xtask ebpf` and commit {OBJECT_FOLDER}");
        }
    }

    /// A copy of object, hashes and sources in a folder of its own.
    fn copy() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for path in SOURCES.into_iter().chain([OBJECT_FOLDER]) {
            collect_files(&root(), path, &mut files).unwrap();
        }
        for file in files {
            let to = folder.path().join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root().join(&file), to).unwrap();
        }
        folder
    }

    #[test]
    fn a_change_on_either_side_is_noticed() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("object", |root| {
                fs::write(root.join("gateway-guard/ebpf/portcullis.bpf.o"), b"other").unwrap();
            }),
            ("program", |root| {
                let path = root.join("gateway-ebpf/src/main.rs");
                fs::write(&path, fs::read_to_string(&path).unwrap() + "\n").unwrap();
            }),
            ("dependencies", |root| {
                fs::write(root.join("gateway-ebpf/Cargo.lock"), "").unwrap()
            }),
            ("source added", |root| {
                fs::write(root.join("gateway-common/src/a.rs"), "").unwrap()
            }),
            ("last source added", |root| {
                fs::write(root.join("gateway-ebpf/src/zz.rs"), "").unwrap()
            }),
            ("source removed", |root| {
                fs::remove_file(root.join("gateway-common/src/maps.rs")).unwrap()
            }),
        ];
        let folder = copy();
        ensure_belong_together(folder.path(), &recorded(folder.path()))
            .expect("an unchanged copy belongs together");
        for (name, change) in changes {
            let folder = copy();
            change(folder.path());
            ensure_belong_together(folder.path(), &recorded(folder.path())).expect_err(name);
        }
    }

    #[test]
    fn hashes_are_those_of_sha256sum() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc"), abc);
    }
}
