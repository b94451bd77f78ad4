//! Which gateway a command means: `--name`, `--config` and their variables. In: arguments. Out: a name and its folders.
//! On the main thread. No mistake in a configuration keeps a command from finding its gateway, as long as the file still
//! says, or the command line does, what the gateway is called.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;

use crate::config::{LocateError, NAME_DEFAULT, Paths, locate};

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
    #[arg(long, value_name = "NAME", env = "PORTCULLIS_NAME", hide_env = true)]
    name: Option<String>,
    #[command(flatten)]
    pub file: ConfigFile,
}

impl Which {
    /// Name and folders. The configuration only has to be readable, and not even that when `--name` is given.
    ///
    /// # Errors
    /// When nothing says which gateway is meant; the text names the way out.
    pub fn paths(&self) -> anyhow::Result<Paths> {
        let usual = |name: &str| Paths::usual(name).map_err(|error| anyhow!("--name: {error}"));
        match (locate(&self.file.config), &self.name) {
            (Ok(paths), None) => Ok(paths),
            (Ok(paths), Some(name)) if *paths.name == **name => Ok(paths),
            (_, Some(name)) => usual(name),
            (Err(LocateError::Unreadable(_)), None) if self.is_default_and_missing() => {
                usual(NAME_DEFAULT)
            }
            (Err(error), None) => Err(error).context(
                "the configuration does not say which gateway is meant: name it with --name",
            ),
        }
    }

    fn is_default_and_missing(&self) -> bool {
        self.file.config.as_os_str() == CONFIG_DEFAULT && !self.file.config.exists()
    }
}
