//! The workspace of a measurement: built programs, and a folder with a CA, certificates and logs.
//! In: a name. Out: a `Workspace`. Keeps the folder after a failure, for its logs.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use command::{cargo, program, run, run_quietly, target};

/// Programs, certificates and a folder.
pub struct Workspace {
    folder: PathBuf,
    /// The gateway.
    pub gateway: PathBuf,
    /// The load generator.
    pub loadgen: PathBuf,
}

impl Workspace {
    /// Builds the programs and makes the folder with a CA, two certificates for servers, and one by which a
    /// server is a client of the backend.
    pub fn prepare(name: &str) -> Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        ensure!(
            cpus >= 2,
            "the server and its load need a CPU each, and there is {cpus}"
        );
        run(cargo().args([
            "build",
            "--release",
            "--locked",
            "--package",
            "portcullis",
            "--package",
            "loadgen",
        ]))?;
        let workspace = Self {
            folder: results_folder().join(name),
            gateway: target().join("release/portcullis"),
            loadgen: target().join("release/portcullis-loadgen"),
        };
        if workspace.folder.exists() {
            fs::remove_dir_all(&workspace.folder)?;
        }
        fs::create_dir_all(&workspace.folder)?;
        workspace.pki(&["init"])?;
        for name in ["one", "two"] {
            workspace.pki(&["issue", "gateway", name, "--dns", "localhost"])?;
            fs::create_dir(workspace.path(name))?;
            for ending in ["pem", "key"] {
                fs::rename(
                    workspace.path(&format!("pki/{name}.{ending}")),
                    workspace.path(&format!("{name}/server.{ending}")),
                )?;
            }
        }
        workspace.serve_certificate("one")?;
        let identity = "spiffe://example.org/proxy";
        workspace.pki(&["issue", "agent", "proxy", "--uri", identity])?;
        Ok(workspace)
    }

    /// Makes servers read this one of the two server certificates, with its key. `current` is a link, and a rename
    /// replaces it, so that no server reads the certificate of one with the key of the other.
    pub fn serve_certificate(&self, name: &str) -> Result<()> {
        let link = self.path("next");
        symlink(name, &link)?;
        Ok(fs::rename(link, self.path("current"))?)
    }

    /// Runs `portcullis pki` on the CA of the workspace.
    pub fn pki(&self, arguments: &[&str]) -> Result<()> {
        let (command, rest) = arguments.split_at(1);
        run_quietly(
            program(&self.gateway)
                .arg("pki")
                .args(command)
                .args(rest)
                .arg("--directory")
                .arg(self.path("pki"))
                .stdout(std::process::Stdio::null()),
        )
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file of the folder, as text for configurations and arguments.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Makes a revocation list of the CA.
    pub fn revocation_list(&self, name: &str, identities: u64, others: u64) -> Result<u64> {
        let path = self.path(name);
        run_quietly(
            program(&self.loadgen)
                .arg("crl")
                .args(self.authority())
                .args(["--identities", &identities.to_string()])
                .args(["--others", &others.to_string()])
                .arg("--out")
                .arg(&path)
                .stdout(std::process::Stdio::null()),
        )?;
        Ok(fs::metadata(path)?.len())
    }

    /// The CA, for the load generator to issue from.
    pub fn authority(&self) -> [String; 4] {
        [
            "--authority".to_owned(),
            self.text("pki/ca.pem"),
            "--authority-key".to_owned(),
            self.text("pki/ca.key"),
        ]
    }

    /// Removes the folder after a success; prints where the logs are after a failure.
    pub fn keep_if_failed<T>(self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => fs::remove_dir_all(&self.folder)
                .with_context(|| format!("removing {}", self.folder.display()))?,
            Err(_) => eprintln!("\nlogs are in {}", self.folder.display()),
        }
        result
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The folder of all results.
pub fn results_folder() -> PathBuf {
    target().join("bench")
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
