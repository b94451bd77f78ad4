//! Where a measurement takes place: built programs, a CA made for it, a folder of its own.
//! In: nothing. Out: a `Site`. The folder stays when something failed, for its logs.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use command::{cargo, program, run, run_quietly, target};

/// Programs, certificates and a folder.
pub struct Site {
    folder: PathBuf,
    /// The gateway.
    pub gateway: PathBuf,
    /// The load generator.
    pub loadgen: PathBuf,
}

impl Site {
    /// Builds the programs and makes the folder with a CA and two certificates for servers.
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
            "gateway",
            "--package",
            "loadgen",
        ]))?;
        let site = Self {
            folder: folder().join(name),
            gateway: target().join("release/portcullis"),
            loadgen: target().join("release/portcullis-loadgen"),
        };
        if site.folder.exists() {
            fs::remove_dir_all(&site.folder)?;
        }
        fs::create_dir_all(&site.folder)?;
        site.pki(&["init"])?;
        for name in ["one", "two"] {
            site.pki(&["issue", "gateway", name, "--dns", "localhost"])?;
            fs::create_dir(site.path(name))?;
            for ending in ["pem", "key"] {
                fs::rename(
                    site.path(&format!("pki/{name}.{ending}")),
                    site.path(&format!("{name}/server.{ending}")),
                )?;
            }
        }
        site.serve_certificate("one")?;
        Ok(site)
    }

    /// Puts one of the two server certificates, with its key, where servers read them: `current`, a link that is replaced
    /// whole, so that nobody sees the one with the key of the other.
    pub fn serve_certificate(&self, name: &str) -> Result<()> {
        let link = self.path("next");
        symlink(name, &link)?;
        Ok(fs::rename(link, self.path("current"))?)
    }

    /// Runs `portcullis pki` on the CA of the site.
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

    /// Removes the folder if all went well; otherwise says where the logs are.
    pub fn keep_if_failed<T>(self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => fs::remove_dir_all(&self.folder)
                .with_context(|| format!("removing {}", self.folder.display()))?,
            Err(_) => eprintln!("\nlogs are in {}", self.folder.display()),
        }
        result
    }

    /// The folder, for a last word about what failed in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Where results go.
pub fn folder() -> PathBuf {
    target().join("bench")
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
