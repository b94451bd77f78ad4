//! Which gateway a command means: `--name`, `--config` and their variables. In: arguments. Out: a name and its folders.
//! On the main thread. No mistake in a configuration keeps a command from finding its gateway, as long as the file still
//! says, or the command line does, what the gateway is called.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use gateway::config::{LocateError, NAME_DEFAULT, Paths, located};
use gateway::control::{AskError, Client, RunningGateway, running};
use gateway::server::HostUser;

/// Where a gateway's configuration is, unless something else is said.
pub const CONFIG_DEFAULT: &str = "/etc/portcullis/portcullis.toml";

/// The configuration file that a command reads.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CONFIG", default_value = CONFIG_DEFAULT, hide_env = true)]
    pub config: PathBuf,
}

/// The gateway that a command means.
#[derive(Debug, Args)]
pub struct Which {
    /// Name of the gateway; by default the one in its configuration file
    #[arg(long, value_name = "NAME", env = "PORTCULLIS_NAME", hide_env = true, value_parser = gateway_name)]
    name: Option<String>,
    #[command(flatten)]
    pub file: ConfigFile,
}

/// Reads a name that a gateway can have.
fn gateway_name(text: &str) -> Result<String, String> {
    Paths::usual(text).map(|_| text.to_owned())
}

impl Which {
    /// Name and folders. The configuration only has to be readable, and not even that when `--name` is given. Where its file
    /// says something else by now than when the gateway was started with it, the running gateway is the one that is meant.
    ///
    /// # Errors
    /// When nothing says which gateway is meant; the text names the way out.
    pub fn paths(&self) -> anyhow::Result<Paths> {
        let usual = |name: &str| Paths::usual(name).map_err(|error| anyhow!("--name: {error}"));
        let file = &self.file.config;
        match (located(file), &self.name) {
            (Ok((paths, true)), None) => Ok(meant(paths, file)),
            (Ok((paths, false)), None) => {
                Ok(running_with(file, "is broken", &paths).unwrap_or(paths))
            }
            (Ok((paths, _)), Some(name)) => {
                let renamed = paths.renamed(name);
                let renamed = renamed.map_err(|error| anyhow!("--name: {error}"))?;
                Ok(nearest(renamed, usual(name)?))
            }
            (Err(_), Some(name)) => usual(name),
            (Err(LocateError::Unreadable(_)), None) if self.is_default_and_missing() => {
                let paths = usual(NAME_DEFAULT)?;
                Ok(running_with(file, "is missing", &paths).unwrap_or(paths))
            }
            (Err(error), None) => match running_with(file, "cannot be used", &usual(NAME_DEFAULT)?)
            {
                Some(paths) => Ok(paths),
                None => Err(error).context(
                    "the configuration does not say which gateway is meant: name it with --name",
                ),
            },
        }
    }

    fn is_default_and_missing(&self) -> bool {
        self.file.config.as_os_str() == CONFIG_DEFAULT && !self.file.config.exists()
    }
}

/// The folders of a gateway that is named: as the configuration moves them, unless it is one that the configuration is not of,
/// whose folders are where they usually are.
fn nearest(moved: Paths, usual: Paths) -> Paths {
    if moved == usual || answers(&moved) {
        return moved;
    }
    let paths = match answers(&usual) || (!moved.state.exists() && usual.state.exists()) {
        true => usual,
        false => moved,
    };
    if !answers(&paths) {
        tell_others(&paths, &running_beside(&paths));
    }
    paths
}

/// The gateway of a configuration file: the one that runs with it, should it not be called any more what it says there. Says so, and
/// which gateways run where none is found.
pub fn meant(paths: Paths, file: &Path) -> Paths {
    if answers(&paths) {
        return paths;
    }
    let running = running_beside(&paths);
    let Some(one) = with_file(&running, file) else {
        tell_others(&paths, &running);
        return paths;
    };
    eprintln!(
        "portcullis: {} now names the gateway {}; the one that runs with it, as process {}, is {}, and this command \
         speaks to it. A restart makes it the other, with a block list and kept lists of its own",
        file.display(),
        described(&paths),
        one.status.process,
        described(&one.paths),
    );
    one.paths.clone()
}

/// The gateway that runs with a file which does not say itself what it is called, or not for certain: whatever was meant by it, this one
/// acts by it. `None`, with the gateways that run told, where there is none or the one that answers at `paths`.
fn running_with(file: &Path, what: &str, paths: &Paths) -> Option<Paths> {
    let running = running_beside(paths);
    let Some(one) = with_file(&running, file) else {
        if !answers(paths) {
            tell_others(paths, &running);
        }
        return None;
    };
    if one.paths != *paths {
        eprintln!(
            "portcullis: {} {what}; the gateway that runs with it, as process {}, is {}, and this command speaks to it",
            file.display(),
            one.status.process,
            described(&one.paths),
        );
    }
    Some(one.paths.clone())
}

/// As `meant`, and says nothing.
pub fn meant_silently(paths: &Paths, file: &Path) -> Paths {
    match answers(paths) {
        true => paths.clone(),
        false => {
            let running = running_beside(paths);
            with_file(&running, file).map_or_else(|| paths.clone(), |one| one.paths.clone())
        }
    }
}

/// The only one of these that was started with a file.
fn with_file<'r>(running: &'r [RunningGateway], file: &Path) -> Option<&'r RunningGateway> {
    // Of a file that is gone its folder.
    let whole = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        std::fs::canonicalize(&path).ok().or_else(|| {
            let folder = std::fs::canonicalize(path.parent()?).ok();
            Some(folder.map_or(path.clone(), |folder| {
                folder.join(path.file_name().unwrap_or_default())
            }))
        })
    };
    let mut with_file = running.iter().filter(|one| {
        let theirs = &one.status.configuration;
        // What is not whole, as earlier versions tell it, may be any file.
        theirs.is_absolute() && whole(theirs) == whole(file)
    });
    with_file.next().filter(|_| with_file.next().is_none())
}

fn described(paths: &Paths) -> String {
    let run = paths.run.parent().unwrap_or(Path::new("/"));
    format!("{:?} below {}", &*paths.name, run.display())
}

/// Whether a process listens to commands there.
fn answers(paths: &Paths) -> bool {
    // What this user may not speak to is there all the same.
    !matches!(Client::connect(paths), Err(AskError::NotRunning(_)))
}

/// The gateways of this host, as far as they can be believed: those of root, of this user, and of the user that the
/// gateway with these folders runs as.
fn running_beside(paths: &Paths) -> Vec<RunningGateway> {
    let beside = paths.run.parent().map(Path::to_owned);
    let usual = Paths::usual(NAME_DEFAULT).ok();
    let usual = usual.and_then(|usual| usual.run.parent().map(Path::to_owned));
    let bases: Vec<_> = beside.into_iter().chain(usual).collect();
    let user = HostUser::of_gateway(paths).map(|user| user.number());
    running(&bases, user.ok().as_slice())
}

/// Says which gateways run, where the one that is meant does not.
fn tell_others(paths: &Paths, running: &[RunningGateway]) {
    let others = running.iter().map(|running| {
        let RunningGateway { paths, status } = running;
        let (process, file) = (status.process, status.configuration.display());
        format!("{} (process {process}, with {file})", described(paths))
    });
    let others: Vec<_> = others.collect();
    if !others.is_empty() {
        eprintln!(
            "portcullis: no gateway {} runs; these do: {}",
            described(paths),
            others.join(", ")
        );
    }
}
