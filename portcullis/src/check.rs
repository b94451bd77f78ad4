//! `portcullis check`. In: a configuration file. Out: what would be enforced and until when, or everything that would keep `run`
//! from starting with it.
//! On the main thread, with the rights that `run` has; changes nothing on the host. Exit code 0 is a configuration that `run` would
//! take, here and now.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use clap::Args;
use gateway::blocks::{BlockFile, warn_of_others, with_remedy};
use gateway::config::{self, Config, ConfigErrors, Loaded, Paths};
use gateway::control::{self, Client, ReloadOutcome, Status};
use gateway::server::{self, HostUser, Privileges, Trial};
use rustix::process::geteuid;

use super::enforced;
use super::explain::Asked;
use super::explain_request::WrittenRequest;
use super::which::{ConfigFile, meant, meant_silently};

/// Arguments of `portcullis check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print in one line how long certificates and revocation lists last, as a plugin for Nagios
    #[arg(long)]
    expiry: bool,
    /// Print instead what the listeners would decide about a client with this certificate (PEM with its chain, or DER), and
    /// which rule matches why; the exit code is 0 if it would get in
    #[arg(long, value_name = "FILE", conflicts_with = "expiry")]
    certificate: Option<PathBuf>,
    /// Print as well what would become of this request of the client, such as "POST /api/v1/push", and why; the exit code is 0
    /// if a backend would get it
    #[arg(long, value_name = "METHOD PATH", requires = "certificate")]
    request: Option<String>,
    /// A header of the request, such as "X-Scope-OrgID: a"; may be repeated
    #[arg(long, value_name = "NAME: VALUE", requires = "request")]
    header: Vec<String>,
    /// The client's address, for rules that look at it; by default 127.0.0.1
    #[arg(long, value_name = "ADDRESS", requires = "request")]
    from: Option<IpAddr>,
    /// Ask the running gateway as well what a reload would refuse of this file, which has to be its own; the exit code is 1 if
    /// anything
    #[arg(long, conflicts_with_all = ["expiry", "certificate"])]
    running: bool,
    /// Ask this listener only
    #[arg(long, value_name = "NAME", requires = "certificate")]
    listener: Option<String>,
    /// As root: the account that the gateway runs as, by name or number, with whose rights everything is looked at; by
    /// default the owner of the gateway's state folder, or of the folder that it would be made in
    #[arg(long, value_name = "NAME", conflicts_with_all = ["expiry", "certificate"])]
    user: Option<String>,
    /// Look at the configuration and the files it names, and at nothing else that `run` needs of this host: rights, folders,
    /// ports, interfaces; for a configuration of another host
    #[arg(long, conflicts_with_all = ["expiry", "certificate", "running", "user"])]
    files_only: bool,
}

impl Check {
    /// Checks the file, and prints what it means or everything that is wrong with it.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        if self.expiry {
            return super::expiry::execute(&self.file.config);
        }
        if self.certificate.is_some() || self.files_only {
            return self.look("of this process, at files alone", None);
        }
        let (user, rights) = self.host_user()?;
        let privileges = Privileges::set_apart_as(&user)
            .with_context(|| format!("cannot take the rights of {user}, which `run` would have"))?;
        self.look(&rights, Some(privileges))
    }

    /// The user that `run` would run as, and the same in words.
    fn host_user(&self) -> anyhow::Result<(HostUser, String)> {
        let own = geteuid().as_raw();
        let own = HostUser::of_user(own).unwrap_or_else(|| HostUser::of_number(own));
        // Where the file cannot be read, that is what is said below.
        let paths = config::locate(&self.file.config).ok();
        let owner = paths
            .map(|paths| HostUser::of_gateway(&paths))
            .transpose()?;
        let (user, why) = match (&self.user, owner) {
            (Some(name), _) => {
                let named = HostUser::named(name);
                let named = named.or_else(|| name.parse().ok().map(HostUser::of_number));
                let named =
                    named.with_context(|| format!("--user: there is no account {name:?}"))?;
                (named, "")
            }
            (None, Some(owner)) if own.is_root() => (owner, ", which owns its state folder"),
            (None, _) => (own.clone(), ""),
        };
        ensure!(
            own.is_root() || user == own,
            "--user: only root can look with the rights of another account"
        );
        let lost = match user.is_root() {
            true => ", CAP_DAC_OVERRIDE among them",
            false => "",
        };
        let rights = format!("of {user}{why}; without capabilities{lost}, as `run` has them");
        Ok((user, rights))
    }

    /// Reads the configuration, and whatever else is asked for.
    fn look(&self, rights: &str, privileges: Option<Privileges>) -> anyhow::Result<ExitCode> {
        let loaded = match config::load(&self.file.config) {
            Ok(loaded) => loaded,
            Err(errors) => return Ok(self.refused(&errors, rights)),
        };
        let paths = &loaded.config.paths;
        if privileges.is_some() {
            BlockFile::look_writable(paths)?;
        }
        let former = BlockFile::former_place(&self.file.config);
        let blocks = BlockFile::look(paths, &former).map_err(with_remedy)?;
        if let Some(certificate) = &self.certificate {
            return self.explain(&loaded.config, &blocks, certificate);
        }
        let meant = match self.running {
            true => meant(paths.clone(), &self.file.config),
            false => meant_silently(paths, &self.file.config),
        };
        let others = match privileges.is_some() {
            true => warn_of_others(paths, &blocks.blocks, &meant.state),
            false => Vec::new(),
        };
        let trial = privileges.map_or_else(Trial::default, |privileges| {
            let (config, list) = (loaded.config.clone(), blocks.blocks.list());
            let trial = server::try_start(config, list, (&meant, &privileges));
            privileges.end();
            trial
        });
        let Trial {
            obstacles,
            warnings,
            running,
        } = trial;
        let loaded = Loaded {
            warnings: [loaded.warnings, others, warnings].concat(),
            ..loaded
        };
        let file = self.file.config.display();
        let mut text = enforced::explain(&loaded, &blocks, rights, SystemTime::now());
        if let Some(status) = &running {
            text += &format!("\n{}\n", beside(status, &self.file.config));
        }
        if obstacles.is_empty() {
            text += &format!("\n{file}: good\n");
        }
        let printed = super::print(&text)?;
        for obstacle in &obstacles {
            eprintln!("{file}: {obstacle}");
        }
        if !obstacles.is_empty() {
            eprintln!("{file}: `run` would not start with the rights {rights}");
            return Ok(ExitCode::FAILURE);
        }
        match self.running {
            true => self.ask_running(&meant),
            false => Ok(printed),
        }
    }

    /// Tells what is wrong with the files.
    fn refused(&self, errors: &ConfigErrors, rights: &str) -> ExitCode {
        eprintln!("{errors}");
        let count = match errors.as_slice().len() {
            1 => "1 error".to_owned(),
            many => format!("{many} errors"),
        };
        let file = self.file.config.display();
        eprintln!("{file}: {count}, looked at with the rights {rights}");
        ExitCode::FAILURE
    }

    /// What the running gateway would say to a reload.
    fn ask_running(&self, paths: &Paths) -> anyhow::Result<ExitCode> {
        let status = Client::connect(paths)?.status()?;
        let same = |path: &Path| std::fs::canonicalize(path).ok();
        let theirs = status.configuration;
        ensure!(
            same(&theirs) == same(&self.file.config),
            "the gateway runs with {}: check that file",
            theirs.display()
        );
        let client = Client::connect(paths)?;
        let outcome: ReloadOutcome = client.post_and_wait(control::CHECK, || {
            eprintln!("portcullis: the gateway is still reading its files; waiting");
        })?;
        if outcome.refused.is_empty() {
            return super::print("The running gateway would take it on a reload.\n");
        }
        for error in &outcome.refused {
            eprintln!("{error}");
        }
        eprintln!("portcullis: the running gateway would refuse it on a reload");
        Ok(ExitCode::FAILURE)
    }

    /// Answers for one certificate.
    fn explain(
        &self,
        config: &Config,
        blocks: &BlockFile,
        certificate: &Path,
    ) -> anyhow::Result<ExitCode> {
        let blocks = Arc::new(blocks.blocks.list());
        let request = self.request.as_ref();
        let request =
            request.map(|request| WrittenRequest::parse(request, &self.header, self.from));
        let asked = Asked {
            listener: self.listener.as_deref(),
            request: request.transpose()?,
        };
        let now = SystemTime::now();
        let found = super::explain::explain(config, &blocks, certificate, &asked, now)?;
        let printed = super::print(&found.text)?;
        Ok(match found.admitted {
            true => printed,
            false => ExitCode::FAILURE,
        })
    }
}

/// The process that runs already, which `run` would have to take over from.
fn beside(status: &Status, file: &Path) -> String {
    let Status {
        name,
        process,
        configuration,
        ..
    } = status;
    let same = |path: &Path| std::fs::canonicalize(path).ok();
    let by = match same(configuration) == same(file) {
        true => "with this file: `portcullis check --running` asks it what a reload would refuse"
            .to_owned(),
        false => format!("with {}", configuration.display()),
    };
    format!("A gateway of the name {name:?} runs already, as process {process}, {by}")
}
